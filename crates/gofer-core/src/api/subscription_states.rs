//! How the subscriptions of an extension are doing: what is stored, and what the extension says.

use tonic::Status;

use super::Api;
use crate::authorize::Caller;
use gofer_proto::PipelineExtensionSubscription as Subscription;
use gofer_proto::embedded::{
    ListSubscriptionStatesRequest, ListSubscriptionStatesResponse, ListedSubscription,
    SubscriptionKey, SubscriptionState,
};
use gofer_proto::pipeline_extension_subscription::Status as State;

/// A page has no more, which an extension is asked for at once.
const MAX_LIMIT: usize = 1000;

/// What is passed on of an error. A page of the longest ones fits into a response.
const MAX_CHARS: usize = 500;

impl Api {
    /// Never fails because of the extension.
    pub(super) async fn list_subscription_states(
        &self,
        caller: &Caller,
        request: ListSubscriptionStatesRequest,
    ) -> Result<ListSubscriptionStatesResponse, Status> {
        let ListSubscriptionStatesRequest { extension_name: name, after, limit } = request;
        caller.authorize_extension(&name)?;
        // Refused if there is none.
        self.extensions.get(&name)?;
        let limit = usize::try_from(limit).unwrap_or(0);
        let limit = if limit == 0 { MAX_LIMIT } else { limit.min(MAX_LIMIT) };
        let after = after.map(|it| [it.namespace_id, it.pipeline_id, it.label]);
        let readable = caller.readable();
        let mut page = self.store.subscriptions_after(&name, after, limit + 1, readable);
        let has_more = page.len() > limit;
        page.truncate(limit);
        let mut listed: Vec<_> = page.into_iter().map(|it| self.listed(it)).collect();
        let is_in_effect = |it: &&mut ListedSubscription| it.problem.is_empty() && !it.is_disabled;
        let keys: Vec<_> =
            listed.iter_mut().filter(is_in_effect).filter_map(|it| it.key.clone()).collect();
        if !keys.is_empty()
            && let Some(states) = self.extensions.subscription_states(&name, keys).await
        {
            for (it, state) in listed.iter_mut().filter(is_in_effect).zip(states) {
                it.state = Some(state).filter(|state| state.found).map(bounded);
            }
        }
        Ok(ListSubscriptionStatesResponse { subscriptions: listed, has_more })
    }

    fn listed(&self, mut subscription: Subscription) -> ListedSubscription {
        self.extensions.explain(&mut subscription);
        let is_disabled = subscription.status() == State::Disabled;
        let Subscription { namespace, pipeline, label, status_reason, .. } = subscription;
        let problem = status_reason.filter(|_| !is_disabled).map(|it| it.description);
        let key = SubscriptionKey { namespace_id: namespace, pipeline_id: pipeline, label };
        ListedSubscription {
            key: Some(key),
            state: None,
            is_disabled,
            problem: cut(problem.unwrap_or_default()),
        }
    }
}

fn bounded(mut state: SubscriptionState) -> SubscriptionState {
    if let Some(error) = &mut state.last_error {
        error.message = cut(std::mem::take(&mut error.message));
    }
    state
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARS) {
        text.truncate(end);
    }
    text
}
