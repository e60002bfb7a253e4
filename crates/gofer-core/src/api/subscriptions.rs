//! Subscriptions. What is stored is what the extension has accepted.
//!
//! To begin one, the extension is called first, so that nothing it refuses is stored. To end one,
//! the store is changed first, so that nothing restores it. Each change holds the lock of its
//! subscription and, once begun, is completed. It may have waited for the lock: then the caller may
//! have lost its access meanwhile.

use gofer_proto as proto;
use tonic::{Code, Status};

use super::{Api, complete};
use crate::authorize::Caller;
use crate::store::{By, Needs, Store, check_name, status_reason};
use gofer_proto::PipelineExtensionSubscription as Subscription;
use gofer_proto::extension::ExtensionState;
use gofer_proto::pipeline_extension_subscription::Status as State;

/// The subscription that a request names, with only its names set. Its namespace must be one that
/// the caller may enter.
macro_rules! named {
    ($caller:expr, $request:expr) => {
        Subscription {
            namespace: $caller.authorize_namespace(&$request.namespace_id)?.to_owned(),
            pipeline: $request.pipeline_id,
            name: $request.extension_name,
            label: $request.extension_label,
            ..Default::default()
        }
    };
}

impl Api {
    pub(super) async fn create_pipeline_extension_subscription(
        &self,
        caller: &Caller,
        request: proto::CreatePipelineExtensionSubscriptionRequest,
    ) -> Result<proto::CreatePipelineExtensionSubscriptionResponse, Status> {
        let subscription = Subscription {
            namespace: caller.authorize_namespace(&request.namespace_id)?.to_owned(),
            pipeline: request.pipeline_id,
            name: request.extension_name,
            label: request.extension_label,
            settings: request.settings,
            status: State::Active.into(),
            status_reason: Some(status_reason(State::Active, "")),
        };
        check_name("extension's label", &subscription.label)?;
        let (api, by) = (self.clone(), caller.by().clone());
        complete(async move { api.subscribe(subscription, &by).await }).await?;
        Ok(proto::CreatePipelineExtensionSubscriptionResponse {})
    }

    pub(super) fn get_pipeline_extension_subscription(
        &self,
        caller: &Caller,
        request: proto::GetPipelineExtensionSubscriptionRequest,
    ) -> Result<proto::GetPipelineExtensionSubscriptionResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        caller.authorize_extension(&request.extension_name)?;
        let mut subscription = self.store.subscription(
            namespace,
            &request.pipeline_id,
            &request.extension_name,
            &request.extension_label,
        )?;
        self.extensions.explain(&mut subscription);
        Ok(proto::GetPipelineExtensionSubscriptionResponse { subscription: Some(subscription) })
    }

    pub(super) fn list_pipeline_extension_subscriptions(
        &self,
        caller: &Caller,
        request: proto::ListPipelineExtensionSubscriptionsRequest,
    ) -> Result<proto::ListPipelineExtensionSubscriptionsResponse, Status> {
        let namespace = caller.authorize_reading(&request.namespace_id)?;
        let mut subscriptions = self.store.subscriptions(namespace, &request.pipeline_id)?;
        subscriptions.retain(|it| caller.sees_extension(&it.name));
        for subscription in &mut subscriptions {
            self.extensions.explain(subscription);
        }
        Ok(proto::ListPipelineExtensionSubscriptionsResponse { subscriptions })
    }

    pub(super) async fn enable_pipeline_extension_subscription(
        &self,
        caller: &Caller,
        request: proto::EnablePipelineExtensionSubscriptionRequest,
    ) -> Result<proto::EnablePipelineExtensionSubscriptionResponse, Status> {
        let named = named!(caller, request);
        let (api, by) = (self.clone(), caller.by().clone());
        complete(async move {
            let _lock = api.store.lock_subscription(&named).await;
            api.store.authorize(&by, Needs::Namespace(&named.namespace))?;
            let subscription = api.stored(&named)?;
            api.extensions.subscribe(&subscription).await?;
            let enabled = api.set_status(&named, State::Active, &by).await;
            // If the caller lost its access meanwhile, or the change cannot be stored, everything stays
            // as it was.
            if enabled.is_err() && subscription.status() != State::Active {
                drop(api.end(&named, "not enabled").await);
            }
            enabled
        })
        .await?;
        Ok(proto::EnablePipelineExtensionSubscriptionResponse {})
    }

    pub(super) async fn disable_pipeline_extension_subscription(
        &self,
        caller: &Caller,
        request: proto::DisablePipelineExtensionSubscriptionRequest,
    ) -> Result<proto::DisablePipelineExtensionSubscriptionResponse, Status> {
        let named = named!(caller, request);
        let (api, by) = (self.clone(), caller.by().clone());
        complete(async move {
            let _lock = api.store.lock_subscription(&named).await;
            api.set_status(&named, State::Disabled, &by).await?;
            api.end(&named, "disabled").await
        })
        .await?;
        Ok(proto::DisablePipelineExtensionSubscriptionResponse {})
    }

    pub(super) async fn delete_pipeline_extension_subscription(
        &self,
        caller: &Caller,
        request: proto::DeletePipelineExtensionSubscriptionRequest,
    ) -> Result<proto::DeletePipelineExtensionSubscriptionResponse, Status> {
        let named = named!(caller, request);
        let (api, by) = (self.clone(), caller.by().clone());
        complete(async move {
            let _lock = api.store.lock_subscription(&named).await;
            api.store.committed(|store| store.remove_subscription(names(&named), &by)).await?;
            api.end(&named, "deleted").await
        })
        .await?;
        Ok(proto::DeletePipelineExtensionSubscriptionResponse {})
    }

    async fn subscribe(&self, subscription: Subscription, by: &By) -> Result<(), Status> {
        let _lock = self.store.lock_subscription(&subscription).await;
        self.store.authorize(by, Needs::Namespace(&subscription.namespace))?;
        // Before the extension is called, for a better error.
        self.store.pipeline(&subscription.namespace, &subscription.pipeline, 0)?;
        // What it starts at once is a run of this subscription.
        let beginning = self.store.beginning(&subscription);
        let before = self.active(&subscription);
        let is_changed = before.as_ref().is_some_and(|it| it.settings != subscription.settings);
        // Until the old or the new one is in effect.
        let _refused = is_changed.then(|| self.extensions.refuse_events(&subscription.name));
        let agreed = match self.extensions.subscribe(&subscription).await {
            Ok(agreed) => agreed,
            Err(refusal) => {
                let put_back = self.extensions.put_back(&subscription, before.as_ref()).await;
                return Err(also_lost(refusal, put_back));
            }
        };
        let put = |store: &Store| store.put_subscription(subscription.clone(), beginning, by);
        let stored = self.store.committed(put).await;
        match stored {
            Ok(()) => self.extensions.confirm(&subscription, agreed).await,
            // Meanwhile the pipeline or the extension was deleted, or the caller lost its access, or
            // it cannot be stored. If the extension returns an error, there is nothing left to do.
            Err(_) => match self.active(&subscription) {
                Some(before) => {
                    drop(self.extensions.put_back(&subscription, Some(&before)).await);
                }
                None => drop(self.end(&subscription, "not stored").await),
            },
        }
        stored
    }

    /// The subscription of these names that is stored and active.
    fn active(&self, named: &Subscription) -> Option<Subscription> {
        self.stored(named).ok().filter(|before| before.status() == State::Active)
    }

    /// Ends a subscription of a pipeline that was deleted, unless it exists again.
    pub(super) async fn end_deleted(&self, subscription: &Subscription) -> Result<(), Status> {
        let _lock = self.store.lock_subscription(subscription).await;
        match self.stored(subscription) {
            Ok(_) => Ok(()),
            Err(_) => self.end(subscription, "deleted").await,
        }
    }

    /// Ends a subscription in its extension, if that is running, and then its access to the pipeline.
    async fn end(&self, subscription: &Subscription, change: &str) -> Result<(), Status> {
        let outcome = self.unsubscribe(subscription, change).await;
        self.store.end_access(subscription);
        outcome
    }

    async fn unsubscribe(&self, subscription: &Subscription, change: &str) -> Result<(), Status> {
        let Subscription { namespace, pipeline, name, label, .. } = subscription;
        let runs = |it: proto::Extension| it.state() == ExtensionState::Running;
        if !self.extensions.get(name).is_ok_and(runs) {
            return Ok(());
        }
        self.extensions.unsubscribe(subscription).await.map_err(|status| {
            if let Some(subscriptions) = self.unended.record() {
                tracing::warn!(
                    extension = %name, pipeline = %format_args!("{namespace}/{pipeline}"), label,
                    code = ?status.code(), subscriptions,
                    "an extension did not end a subscription"
                );
            }
            let code = match status.code() {
                // It is the core that was refused, not its caller.
                Code::Unauthenticated | Code::PermissionDenied => Code::Internal,
                code => code,
            };
            Status::new(
                code,
                format!(
                    "the subscription is {change}, but the extension `{name}` did not end it: {}",
                    status.message()
                ),
            )
        })
    }

    fn stored(&self, named: &Subscription) -> Result<Subscription, Status> {
        self.store.subscription(&named.namespace, &named.pipeline, &named.name, &named.label)
    }

    async fn set_status(&self, named: &Subscription, state: State, by: &By) -> Result<(), Status> {
        let change = |store: &Store| store.set_subscription_status(names(named), state, "", by);
        self.store.committed(change).await
    }
}

/// The refusal of a change, and what became of the subscription that was to be changed.
fn also_lost(refusal: Status, put_back: Result<(), String>) -> Status {
    match put_back {
        Ok(()) => refusal,
        Err(why) => Status::new(
            refusal.code(),
            format!("{}; the subscription as it was {why}", refusal.message()),
        ),
    }
}

fn names(subscription: &Subscription) -> [&str; 4] {
    let Subscription { namespace, pipeline, name, label, .. } = subscription;
    [namespace, pipeline, name, label]
}
