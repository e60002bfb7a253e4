//! What Gofer has stored of a subscription.

use std::collections::HashMap;

use tonic::Status;

use super::Gofer;
use gofer_net::{Effect, effect};
use gofer_proto as proto;

impl Gofer {
    /// The settings of a subscription to this extension as Gofer has stored them: references are not
    /// resolved. `None` if Gofer answers that there is none, or does not know this call.
    ///
    /// # Errors
    ///
    /// If Gofer does not answer.
    pub(crate) async fn stored_settings(
        &self,
        [namespace, pipeline, label]: [&str; 3],
    ) -> Result<Option<HashMap<String, String>>, Status> {
        let request = proto::GetPipelineExtensionSubscriptionRequest {
            namespace_id: namespace.to_owned(),
            pipeline_id: pipeline.to_owned(),
            extension_name: self.inner.name.clone(),
            extension_label: label.to_owned(),
        };
        match self.raw().get_pipeline_extension_subscription(request).await {
            Ok(response) => Ok(response.into_inner().subscription.map(|it| it.settings)),
            Err(status) if effect(&status) == Effect::Refused => Ok(None),
            Err(status) => Err(status),
        }
    }
}
