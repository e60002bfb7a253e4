//! Users of the API, and an administrator of the extensions.

use std::time::Duration;

use gofer_core::{Core, NO_SETTINGS};
use gofer_sdk::{ErrorKind, Run, api};
use tokio::time::Instant;

use super::{Expected, HOUR, MILLI, MINUTE, SECOND, World, found, made};
use crate::author::{Author, behavior};
use crate::facts::{Facts, Key, Who, begin_life, disturb, end_life, facts, go_on_living, violated};
use crate::history::{draw, duration, now, one_in, pick, record};
use crate::host::Answer;

impl World {
    pub(super) async fn use_pipeline(&self, pipeline: &(String, String), end: Instant) {
        loop {
            let next = Instant::now() + duration(10 * SECOND, 5 * HOUR);
            if next >= end {
                return;
            }
            tokio::time::sleep_until(next).await;
            match draw(|random| random.u32(..12)) {
                0..5 => self.subscribe(pipeline).await,
                5..7 => self.unsubscribe(pipeline).await,
                7 => self.set_enabled(pipeline, false).await,
                8 => self.set_enabled(pipeline, true).await,
                9 => self.disable_pipeline_for_a_while(pipeline).await,
                _ => self.start_run(pipeline).await,
            }
        }
    }

    fn existing(&self, pipeline: &(String, String), is_enabled: bool) -> Option<Key> {
        let keys: Vec<_> = self
            .expected
            .borrow()
            .iter()
            .filter(|(key, it)| {
                (&key.namespace, &key.pipeline) == (&pipeline.0, &pipeline.1)
                    && it.is_enabled == is_enabled
            })
            .map(|(key, _)| key.clone())
            .collect();
        if keys.is_empty() { None } else { Some(pick(&keys)) }
    }

    pub(super) async fn subscribe(&self, (namespace, pipeline): &(String, String)) {
        let _shared = self.extension_changes.read().await;
        let extension = pick(&self.extensions);
        let label = pick(&["a", "b"]);
        let key = Key {
            extension: extension.clone(),
            namespace: namespace.clone(),
            pipeline: pipeline.clone(),
            label: label.to_owned(),
        };
        let host = self.host().await;
        let number = facts(Facts::next_number);
        let every = Duration::from_secs(duration(MINUTE, 4 * HOUR).as_secs());
        let behavior = behavior();
        record(format!("{key} #{number}: subscribe every {every:?}, {behavior}"));
        let before = self.expected.borrow().get(&key).cloned();
        let after = Expected { number, every, is_enabled: true };
        let was_alive = end_life(&key);
        let disturbing = disturb(Who::Subscription(key.clone()));
        let changing = Changing::begin(&key);
        let settings = [
            ("every", format!("{}s", every.as_secs())),
            ("behavior", behavior.to_owned()),
            ("number", number.to_string()),
        ];
        let path = format!("{namespace}/{pipeline}");
        let answer = match host.core.installed(&extension) {
            Ok(extension) => {
                let subscribe = || extension.subscribe(path.as_str(), label, settings.clone());
                let what = format!("{key} #{number}: subscribe");
                host.change_as_users_do(&what, self.plan.has_faults, subscribe).await
            }
            Err(error) => Answer::Failed(error.kind()),
        };
        drop(disturbing);
        let now = match answer {
            Answer::Done(()) => Some(after),
            Answer::NotMade | Answer::Failed(_) => before.clone(),
            Answer::Lost => self.either(&key, before.clone(), Some(after)).await,
        };
        self.settle(now, was_alive, changing);
    }

    /// What a subscription is, of two.
    async fn either(
        &self,
        key: &Key,
        before: Option<Expected>,
        after: Option<Expected>,
    ) -> Option<Expected> {
        let found = loop {
            let host = self.host().await;
            if let Some(found) = host.ask(found(&host.core, key)).await {
                break found;
            }
        };
        let of = |it: &Option<Expected>| it.as_ref().map(|it| (it.number, it.is_enabled));
        record(format!("{key}: is {found:?}, was {:?}, to be {:?}", of(&before), of(&after)));
        if found == of(&after) {
            after
        } else {
            if found != of(&before) {
                violated(format!("{key}: {found:?} is neither {before:?} nor {after:?}"));
            }
            before
        }
    }

    /// The end of a change, which may have been made at any time since it began.
    fn settle(&self, now: Option<Expected>, was_alive: bool, changing: Changing) {
        let Changing { key, since } = &changing;
        let before = match &now {
            Some(now) => self.expected.borrow_mut().insert(key.clone(), now.clone()),
            None => self.expected.borrow_mut().remove(key),
        };
        if let Some(now) = now.filter(|now| now.is_enabled) {
            if was_alive && before.as_ref() == Some(&now) {
                go_on_living(key);
            } else {
                begin_life(key, *since, now.number, now.every, was_alive);
            }
        }
        drop(changing);
    }

    async fn unsubscribe(&self, pipeline: &(String, String)) {
        let _shared = self.extension_changes.read().await;
        let is_enabled = !one_in(3);
        let Some(key) = self.existing(pipeline, is_enabled) else { return };
        let host = self.host().await;
        let Ok(extension) = host.core.installed(&key.extension) else { return };
        record(format!("{key}: unsubscribe"));
        let before = self.expected.borrow().get(&key).cloned();
        let was_alive = end_life(&key);
        let changing = Changing::begin(&key);
        let path = format!("{}/{}", key.namespace, key.pipeline);
        let change = || extension.unsubscribe(path.as_str(), &key.label);
        let what = format!("{key}: unsubscribe");
        let now = match host.change_as_users_do(&what, self.plan.has_faults, change).await {
            Answer::Done(()) => {
                Self::check_ended(&key);
                None
            }
            // The store is changed first, whatever the extension answers.
            Answer::Failed(_) => None,
            Answer::NotMade => before,
            Answer::Lost => self.either(&key, before, None).await,
        };
        self.settle(now, was_alive, changing);
    }

    /// An acknowledged end is one.
    fn check_ended(key: &Key) {
        let serving = facts(|facts| facts.serving.get(key).is_some_and(|it| !it.is_empty()));
        if serving {
            violated(format!("{key}: `serve` runs although its end was acknowledged"));
        }
    }

    async fn set_enabled(&self, pipeline: &(String, String), enable: bool) {
        let _shared = self.extension_changes.read().await;
        let Some(key) = self.existing(pipeline, !enable) else { return };
        let host = self.host().await;
        let what = format!("{key}: {}", if enable { "enable" } else { "disable" });
        record(&*what);
        let before = self.expected.borrow().get(&key).cloned();
        let after = before.clone().map(|it| Expected { is_enabled: enable, ..it });
        let was_alive = end_life(&key);
        let changing = Changing::begin(&key);
        let Key { extension, namespace, pipeline, label } = key.clone();
        // Boxed, as it is large.
        let change = || {
            Box::pin(async {
                let mut api = host.core.client().api();
                let (namespace_id, pipeline_id) = (namespace.clone(), pipeline.clone());
                let (extension_name, extension_label) = (extension.clone(), label.clone());
                if enable {
                    let request = api::EnablePipelineExtensionSubscriptionRequest {
                        namespace_id,
                        pipeline_id,
                        extension_name,
                        extension_label,
                    };
                    made(api.enable_pipeline_extension_subscription(patient(request))).await
                } else {
                    let request = api::DisablePipelineExtensionSubscriptionRequest {
                        namespace_id,
                        pipeline_id,
                        extension_name,
                        extension_label,
                    };
                    made(api.disable_pipeline_extension_subscription(patient(request))).await
                }
            })
        };
        let answer = host.change_as_users_do(&what, self.plan.has_faults, change).await;
        let now = match answer {
            Answer::Done(()) => {
                if !enable {
                    Self::check_ended(&key);
                }
                after
            }
            // The store is changed first, whatever the extension answers.
            Answer::Failed(_) if !enable => after,
            Answer::NotMade | Answer::Failed(_) => before,
            Answer::Lost => self.either(&key, before, after).await,
        };
        self.settle(now, was_alive, changing);
    }

    async fn disable_pipeline_for_a_while(&self, pipeline: &(String, String)) {
        let _disturbing = disturb(Who::Pipeline(pipeline.0.clone(), pipeline.1.clone()));
        self.set_pipeline_enabled(pipeline, false).await;
        tokio::time::sleep(duration(SECOND, HOUR)).await;
        self.set_pipeline_enabled(pipeline, true).await;
    }

    /// Tries until it is acknowledged.
    async fn set_pipeline_enabled(&self, pipeline: &(String, String), enable: bool) {
        let (namespace, id) = pipeline;
        let what = format!("{namespace}/{id}: {}", if enable { "enable" } else { "disable" });
        loop {
            let host = self.host().await;
            record(&*what);
            let before = self.disabled_pipelines.borrow_mut().remove(pipeline);
            let mut api = host.core.client().api();
            let (namespace_id, id) = (namespace.clone(), id.clone());
            let answer = if enable {
                let request = api::EnablePipelineRequest { namespace_id, id };
                host.change(&what, made(api.enable_pipeline(request))).await
            } else {
                let request = api::DisablePipelineRequest { namespace_id, id };
                host.change(&what, made(api.disable_pipeline(request))).await
            };
            let now = match answer {
                Answer::Done(()) => Some(!enable),
                Answer::NotMade => before,
                Answer::Failed(_) | Answer::Lost => None,
            };
            if let Some(now) = now {
                self.disabled_pipelines.borrow_mut().insert(pipeline.clone(), now);
            }
            if matches!(answer, Answer::Done(())) {
                return;
            }
            tokio::time::sleep(MINUTE).await;
        }
    }

    async fn start_run(&self, (namespace, pipeline): &(String, String)) {
        let path = format!("{namespace}/{pipeline}");
        let host = self.host().await;
        let run = host.core.client().start_run(path.as_str(), "", Run::because("by hand"));
        let answer = host.change(format!("{path}: run by hand"), run).await;
        let key = (namespace.clone(), pipeline.clone());
        let run = facts(|facts| {
            let (certain, perhaps) = facts.by_api.entry(key).or_default();
            match answer {
                Answer::Done(run) => {
                    *certain += 1;
                    return Some(run);
                }
                Answer::NotMade => {}
                Answer::Failed(_) | Answer::Lost => *perhaps += 1,
            }
            None
        });
        let Some(run) = run else { return };
        record(format!("{path}: run {} by hand", run.id()));
        if self.plan.parallelism.is_some() && one_in(2) {
            tokio::time::sleep(duration(MILLI, 2 * MINUTE)).await;
            let request = api::CancelRunRequest {
                namespace_id: namespace.clone(),
                pipeline_id: pipeline.clone(),
                run_id: run.id(),
                force: false,
            };
            let mut api = host.core.client().api();
            let what = format!("{path}: cancel run {}", run.id());
            host.change(what, made(api.cancel_run(request))).await;
        }
    }

    /// The subscriptions of a pipeline that are stored.
    pub async fn list(core: &Core, namespace: &str, pipeline: &str) -> Vec<Key> {
        let request = api::ListPipelineExtensionSubscriptionsRequest {
            namespace_id: namespace.to_owned(),
            pipeline_id: pipeline.to_owned(),
        };
        let mut api = core.client().api();
        let response = api.list_pipeline_extension_subscriptions(request);
        let all = response.await.map(|it| it.into_inner().subscriptions).unwrap_or_default();
        all.into_iter()
            .map(|it| Key {
                extension: it.name,
                namespace: it.namespace,
                pipeline: it.pipeline,
                label: it.label,
            })
            .collect()
    }

    pub(super) async fn administrate(&self, end: Instant) {
        loop {
            let next = Instant::now() + duration(20 * MINUTE, 16 * HOUR);
            if next >= end {
                return;
            }
            tokio::time::sleep_until(next).await;
            let name = &*pick(&self.extensions);
            let _disturbing = disturb(Who::Extension(name.to_owned()));
            match draw(|random| random.u32(..4)) {
                0 | 1 => {
                    let host = self.host().await;
                    record(format!("{name}: restart"));
                    let Ok(extension) = host.core.installed(name) else { continue };
                    host.change(format!("{name}: restart"), extension.restart()).await;
                }
                2 => {
                    let _exclusive = self.extension_changes.write().await;
                    self.set_extension_enabled(name, false).await;
                    tokio::time::sleep(duration(SECOND, HOUR)).await;
                    while !self.set_extension_enabled(name, true).await {
                        tokio::time::sleep(MINUTE).await;
                    }
                }
                _ => {
                    let _exclusive = self.extension_changes.write().await;
                    self.reinstall(name).await;
                }
            }
        }
    }

    /// Returns whether it was acknowledged.
    async fn set_extension_enabled(&self, name: &str, enable: bool) -> bool {
        let host = self.host().await;
        let what = format!("{name}: {}", if enable { "enable" } else { "disable" });
        record(&*what);
        let before = self.disabled_extensions.borrow_mut().remove(name);
        let mut api = host.core.client().api();
        let name = name.to_owned();
        let answer = if enable {
            let request = api::EnableExtensionRequest { name: name.clone() };
            host.change(what, made(api.enable_extension(patient(request)))).await
        } else {
            let request = api::DisableExtensionRequest { name: name.clone() };
            host.change(what, made(api.disable_extension(patient(request)))).await
        };
        let now = match answer {
            Answer::Done(()) => Some(!enable),
            Answer::NotMade => before,
            Answer::Failed(_) | Answer::Lost => None,
        };
        if let Some(now) = now {
            self.disabled_extensions.borrow_mut().insert(name, now);
        }
        matches!(answer, Answer::Done(()))
    }

    async fn reinstall(&self, name: &str) {
        let host = self.host().await;
        let Ok(extension) = host.core.installed(name) else { return };
        record(format!("{name}: uninstall"));
        let before = self.disabled_extensions.borrow_mut().remove(name);
        let keys: Vec<_> =
            self.expected.borrow().keys().filter(|key| key.extension == name).cloned().collect();
        let changing: Vec<_> = keys.iter().map(Changing::begin).collect();
        let is_gone = match host.change(format!("{name}: uninstall"), extension.uninstall()).await {
            Answer::Done(()) => true,
            Answer::NotMade | Answer::Failed(_) => false,
            Answer::Lost => self.host().await.core.installed(name).is_err(),
        };
        if !is_gone {
            if let Some(before) = before {
                self.disabled_extensions.borrow_mut().insert(name.to_owned(), before);
            }
            return;
        }
        for key in &keys {
            end_life(key);
            self.expected.borrow_mut().remove(key);
        }
        drop(changing);
        loop {
            let host = self.host().await;
            let install = host.core.install::<Author>(name, NO_SETTINGS);
            match host.change(format!("{name}: install"), install).await {
                Answer::Done(_) | Answer::Failed(ErrorKind::AlreadyExists) => return,
                Answer::NotMade | Answer::Failed(_) | Answer::Lost => {
                    tokio::time::sleep(MINUTE).await;
                }
            }
        }
    }
}

/// A subscription is being changed, until this is dropped.
struct Changing {
    key: Key,
    since: Duration,
}

impl Changing {
    fn begin(key: &Key) -> Self {
        facts(|facts| facts.changing.insert(key.clone()));
        Self { key: key.clone(), since: now() }
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        facts(|facts| facts.changing.remove(&self.key));
    }
}

/// A request that nobody gives up.
fn patient<T>(message: T) -> api::tonic::Request<T> {
    let mut request = api::tonic::Request::new(message);
    request.set_timeout(2 * HOUR);
    request
}
