//! Stored subscriptions that an extension does not accept when it comes up: refused for good, or tried
//! again until it does.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gofer_core::{Core, Installed, NO_SETTINGS, minutes, seconds};
use gofer_proto as proto;
use gofer_proto::pipeline_extension_subscription::Status as State;
use gofer_sdk::{Error, Extension, Gofer, NoConfig, Result, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;

/// How the extensions of all tests take the subscriptions of a pipeline, by its name.
static TAKES: Mutex<Option<HashMap<String, Takes>>> = Mutex::new(None);

#[derive(Default)]
struct Takes {
    answer: Answer,
    /// How often it was asked.
    asked: usize,
    /// How many are served.
    served: usize,
}

#[derive(Clone, Copy, Default)]
enum Answer {
    #[default]
    Accept,
    Unavailable,
    Refuse,
}

fn with<T>(pipeline: &str, look: impl FnOnce(&mut Takes) -> T) -> T {
    let mut all: MutexGuard<'_, _> = TAKES.lock().unwrap_or_else(PoisonError::into_inner);
    look(all.get_or_insert_with(HashMap::new).entry(pipeline.to_owned()).or_default())
}

fn answer(pipeline: &str, answer: Answer) {
    with(pipeline, |it| it.answer = answer);
}

fn asked(pipeline: &str) -> usize {
    with(pipeline, |it| it.asked)
}

fn served(pipeline: &str) -> usize {
    with(pipeline, |it| it.served)
}

#[derive(Deserialize, JsonSchema)]
struct Params {
    /// The pipeline itself, since `validate` is not told.
    of: String,
}

struct Fickle;

impl Extension for Fickle {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    fn validate(&self, params: &Params) -> Result<()> {
        with(&params.of, |it| {
            it.asked += 1;
            match it.answer {
                Answer::Accept => Ok(()),
                Answer::Unavailable => Err(Error::unavailable("its database is down")),
                Answer::Refuse => Err(Error::invalid_parameter("of", "must be another")),
            }
        })
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let of = &subscription.params().of;
        with(of, |it| it.served += 1);
        subscription.cancelled().await;
        with(of, |it| it.served -= 1);
        Ok(())
    }
}

async fn install(pipelines: &[&str]) -> (Core, Installed) {
    let core = Core::in_memory().await.unwrap();
    let fickle = core.install::<Fickle>("fickle", NO_SETTINGS).await.unwrap();
    for &pipeline in pipelines {
        fickle.subscribe(pipeline, "l", [("of", pipeline)]).await.unwrap();
    }
    (core, fickle)
}

/// A subscription's status and the reason for it.
async fn status(core: &Core, pipeline: &str) -> (State, String) {
    let request = proto::ListPipelineExtensionSubscriptionsRequest {
        namespace_id: String::new(),
        pipeline_id: pipeline.to_owned(),
    };
    let list = core.client().api().list_pipeline_extension_subscriptions(request).await.unwrap();
    let [listed] = &list.into_inner().subscriptions[..] else { panic!("there is not one") };
    let request = proto::GetPipelineExtensionSubscriptionRequest {
        pipeline_id: pipeline.to_owned(),
        extension_name: "fickle".to_owned(),
        extension_label: "l".to_owned(),
        ..Default::default()
    };
    let one = core.client().api().get_pipeline_extension_subscription(request).await.unwrap();
    assert_eq!(one.into_inner().subscription.as_ref(), Some(listed));
    (listed.status(), listed.status_reason.clone().unwrap_or_default().description)
}

fn active() -> (State, String) {
    (State::Active, String::new())
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_cannot_be_restored_yet_is_tried_until_it_can_be() {
    let (down, up) = ("restore-down", "restore-up");
    let (core, fickle) = install(&[down, up]).await;
    answer(down, Answer::Unavailable);
    let before = asked(down);
    // Waits for it only briefly, and the other one is restored at once.
    tokio::time::timeout(seconds(20), fickle.restart()).await.unwrap().unwrap();
    assert_eq!((served(down), served(up)), (0, 1));
    core.elapse(minutes(60)).await;
    let (state, reason) = status(&core, down).await;
    assert_eq!(state, State::Active, "{reason}");
    assert!(reason.contains("its database is down") && reason.contains("again"), "{reason}");
    assert_eq!(status(&core, up).await, active());
    let attempts = asked(down) - before;
    assert!((60..150).contains(&attempts), "at most a minute apart, {attempts} in an hour");
    answer(down, Answer::Accept);
    core.elapse(seconds(61)).await;
    assert_eq!(served(down), 1);
    assert_eq!(status(&core, down).await, active());
    let attempts = asked(down);
    core.elapse(minutes(10)).await;
    assert_eq!((asked(down), served(down)), (attempts, 1), "it is restored once");
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_a_refusal_marks_a_subscription_and_ends_the_attempts() {
    let pipeline = "restore-refused";
    let (core, fickle) = install(&[pipeline]).await;
    answer(pipeline, Answer::Unavailable);
    fickle.restart().await.unwrap();
    core.elapse(minutes(10)).await;
    assert_eq!(status(&core, pipeline).await.0, State::Active);
    answer(pipeline, Answer::Refuse);
    core.elapse(seconds(61)).await;
    let (state, reason) = status(&core, pipeline).await;
    assert_eq!(state, State::Error);
    assert!(reason.contains("must be another"), "{reason}");
    let attempts = asked(pipeline);
    answer(pipeline, Answer::Accept);
    core.elapse(minutes(10)).await;
    assert_eq!(asked(pipeline), attempts);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_removed_or_disabled_is_tried_no_longer() {
    let pipelines = ["restore-removed", "restore-disabled"];
    let (core, fickle) = install(&pipelines).await;
    for it in pipelines {
        answer(it, Answer::Unavailable);
    }
    fickle.restart().await.unwrap();
    core.elapse(minutes(10)).await;
    // Neither waits for the next attempt.
    let changes = async {
        fickle.unsubscribe(pipelines[0], "l").await.unwrap();
        let disable = proto::DisablePipelineExtensionSubscriptionRequest {
            pipeline_id: pipelines[1].to_owned(),
            extension_name: "fickle".to_owned(),
            extension_label: "l".to_owned(),
            ..Default::default()
        };
        let mut api = core.client().api();
        api.disable_pipeline_extension_subscription(disable).await.unwrap();
    };
    tokio::time::timeout(seconds(1), changes).await.unwrap();
    let attempts = pipelines.map(asked);
    for it in pipelines {
        answer(it, Answer::Accept);
    }
    core.elapse(minutes(10)).await;
    assert_eq!(pipelines.map(asked), attempts);
    assert_eq!(status(&core, pipelines[1]).await.0, State::Disabled);
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_accepted_ends_the_attempts_and_one_that_is_not_leaves_one_of_them() {
    let (before, after) = ("restore-changed", "restore-changed-to");
    let (core, fickle) = install(&[before]).await;
    answer(before, Answer::Unavailable);
    answer(after, Answer::Refuse);
    fickle.restart().await.unwrap();
    let change = async || fickle.subscribe(before, "l", [("of", after)]).await;
    for _ in 0..5 {
        let refused = change().await.unwrap_err().to_string();
        assert!(refused.contains("must be another"), "{refused}");
        assert!(refused.contains("tried again: its database is down"), "{refused}");
    }
    core.elapse(minutes(10)).await;
    let attempts = asked(before);
    core.elapse(minutes(60)).await;
    let attempts = asked(before) - attempts;
    assert!((60..=120).contains(&attempts), "{attempts} in an hour");
    answer(after, Answer::Accept);
    change().await.unwrap();
    assert_eq!(status(&core, before).await, active());
    let attempts = asked(before);
    answer(before, Answer::Accept);
    core.elapse(minutes(10)).await;
    assert_eq!((asked(before), served(before), served(after)), (attempts, 0, 1));
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_attempts_end_with_the_extension() {
    let pipeline = "restore-ended";
    let (core, fickle) = install(&[pipeline]).await;
    answer(pipeline, Answer::Unavailable);
    fickle.restart().await.unwrap();
    core.elapse(minutes(10)).await;
    // The next one restores all by itself, and then nobody else does.
    answer(pipeline, Answer::Accept);
    tokio::time::timeout(seconds(1), fickle.restart()).await.unwrap().unwrap();
    assert_eq!((status(&core, pipeline).await, served(pipeline)), (active(), 1));
    let attempts = asked(pipeline);
    core.elapse(minutes(10)).await;
    assert_eq!((asked(pipeline), served(pipeline)), (attempts, 1));
    answer(pipeline, Answer::Unavailable);
    fickle.restart().await.unwrap();
    tokio::time::timeout(seconds(1), fickle.uninstall()).await.unwrap().unwrap();
    let attempts = asked(pipeline);
    core.elapse(minutes(10)).await;
    assert_eq!(asked(pipeline), attempts);
    tokio::time::timeout(seconds(1), core.stop()).await.unwrap();
}
