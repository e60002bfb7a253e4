//! Webhooks that start runs: an event that is answered with success is without none of its runs,
//! whatever happens to subscriptions, the extension and its callers meanwhile.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gofer_core::{Core, ExtensionState, Installed, NO_SETTINGS, minutes, seconds};
use gofer_proto as proto;
use gofer_sdk::{
    Cancelled, Error, ErrorKind, Extension, ExternalEvent, GoDuration, Gofer, NoConfig, Result,
    Run, Subscription, Subscriptions,
};
use tokio::time::Instant;

/// What a pipeline sets.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    topic: String,
    /// How long it is from the end of the subscription until it has ended.
    #[serde(default)]
    linger: GoDuration,
}

/// Starts a run of each pipeline that is subscribed to the topic of a webhook.
struct Inbox;

/// Why subscriptions ended, and attempts to restore one that fail.
static ENDED: Mutex<Vec<(String, Cancelled)>> = Mutex::new(Vec::new());
static NOT_YET: AtomicU32 = AtomicU32::new(0);

impl Extension for Inbox {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    fn validate(&self, params: &Params) -> Result<()> {
        if params.topic == "refused" {
            return Err(Error::invalid_parameter("topic", "is refused"));
        }
        let left = NOT_YET.load(Ordering::SeqCst);
        if params.topic == "late" && left > 0 {
            NOT_YET.store(left - 1, Ordering::SeqCst);
            return Err(Error::unavailable("not yet"));
        }
        Ok(())
    }

    async fn external_event(
        &self,
        event: ExternalEvent,
        subscriptions: Subscriptions<Params>,
    ) -> Result<()> {
        let Some(delivery) = event.header("x-delivery") else {
            return Err(Error::new(ErrorKind::InvalidParameter, "`X-Delivery` is missing"));
        };
        if event.header("x-hang").is_some() {
            tokio::time::sleep(seconds(2)).await;
        }
        let runs = subscriptions.start_runs(|subscription| {
            let is_topic = event.header("x-topic") == Some(&subscription.params().topic);
            is_topic.then(|| Run::because("a webhook").key(delivery))
        });
        runs.await.map(drop)
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        let why = subscription.cancelled().await;
        ENDED.lock().unwrap().push((subscription.label().to_owned(), why));
        tokio::time::sleep(subscription.params().linger.try_into()?).await;
        Ok(())
    }
}

async fn inbox() -> Result<(Core, Installed)> {
    let core = Core::in_memory().await?;
    let inbox = core.install::<Inbox>("inbox", NO_SETTINGS).await?;
    Ok((core, inbox))
}

async fn post(inbox: &Installed, topic: &str, delivery: &str) -> Result<()> {
    inbox.post([("X-Topic", topic), ("X-Delivery", delivery)], "").await
}

#[tokio::test(start_paused = true)]
async fn a_webhook_runs_each_matching_subscription_once_however_often_it_comes() -> Result<()> {
    let (core, inbox) = inbox().await?;
    for (pipeline, label) in [("ops/one", "a"), ("ops/one", "b"), ("ops/two", "a")] {
        inbox.subscribe(pipeline, label, [("topic", "push")]).await?;
        // At once: nothing is lost between a subscription and its `serve`.
        post(&inbox, "push", label).await?;
    }
    inbox.subscribe("ops/other", "a", [("topic", "pull")]).await?;
    for _ in 0..10 {
        post(&inbox, "push", "the same").await?;
        inbox.restart().await?;
    }
    let count = |pipeline: &str| core.runs(pipeline).len();
    assert_eq!((count("ops/one"), count("ops/two"), count("ops/other")), (6, 2, 0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_used_a_moment_ago_needs_no_call() -> Result<()> {
    let (core, inbox) = inbox().await?;
    inbox.subscribe("ops/one", "a", [("topic", "push")]).await?;
    post(&inbox, "push", "41").await?;
    core.close_api().await;
    post(&inbox, "push", "41").await?;
    // A new subscription knows of none.
    core.reopen_api().await?;
    inbox.unsubscribe("ops/one", "a").await?;
    inbox.subscribe("ops/one", "a", [("topic", "push")]).await?;
    core.close_api().await;
    assert_eq!(post(&inbox, "push", "41").await.unwrap_err().kind(), ErrorKind::Unavailable);
    core.reopen_api().await?;
    post(&inbox, "push", "41").await?;
    assert_eq!(core.runs("ops/one").len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_stored_in_time_has_the_sender_try_again() -> Result<()> {
    let (core, inbox) = inbox().await?;
    inbox.subscribe("ops/one", "a", [("topic", "push")]).await?;
    inbox.subscribe("ops/two", "a", [("topic", "push")]).await?;
    core.close_api().await;
    let asked = Instant::now();
    let refused = post(&inbox, "push", "41").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("has not stored the run within 5s"), "{refused}");
    assert!(asked.elapsed() < seconds(6), "{:?}", asked.elapsed());
    core.reopen_api().await?;
    post(&inbox, "push", "41").await?;
    assert_eq!((core.runs("ops/one").len(), core.runs("ops/two").len()), (1, 1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_disabled_pipeline_is_left_out_and_keeps_no_other_from_its_run() -> Result<()> {
    let (core, inbox) = inbox().await?;
    inbox.subscribe("default/nightly", "a", [("topic", "push")]).await?;
    inbox.subscribe("ops/two", "a", [("topic", "push")]).await?;
    crate::ticks::enable(&core, false).await;
    post(&inbox, "push", "41").await?;
    assert_eq!((core.runs("default/nightly").len(), core.runs("ops/two").len()), (0, 1));
    Ok(())
}

/// Turns starting runs off, or on again.
async fn toggle(core: &Core) {
    let request = proto::ToggleEventIngressRequest {};
    core.client().api().toggle_event_ingress(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_no_runs_are_started_the_sender_is_to_try_again() -> Result<()> {
    let (core, inbox) = inbox().await?;
    inbox.subscribe("ops/one", "a", [("topic", "push")]).await?;
    toggle(&core).await;
    let refused = post(&inbox, "push", "1").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("starting runs is turned off"), "{refused}");
    toggle(&core).await;
    post(&inbox, "push", "1").await?;
    assert_eq!(core.runs("ops/one").len(), 1);
    // Turned off, and perhaps on again, while the extension is at it.
    for toggles in 1..3 {
        let headers = [("X-Topic", "push"), ("X-Delivery", "2"), ("X-Hang", "")];
        let (outcome, ()) = tokio::join!(inbox.post(headers, ""), async {
            tokio::time::sleep(seconds(1)).await;
            for _ in 0..toggles {
                toggle(&core).await;
            }
        });
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable, "{toggles}");
        if toggles == 1 {
            assert_eq!(core.runs("ops/one").len(), 1);
            toggle(&core).await;
        }
    }
    post(&inbox, "push", "2").await?;
    assert_eq!(core.runs("ops/one").len(), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_cancels_nothing() -> Result<()> {
    let (core, inbox) = inbox().await?;
    inbox.subscribe("ops/one", "a", [("topic", "push")]).await?;
    let headers = [("X-Topic", "push"), ("X-Delivery", "41"), ("X-Hang", "")];
    let post = tokio::time::timeout(seconds(1), inbox.post(headers, ""));
    assert!(post.await.is_err());
    core.wait_for_runs("ops/one", 1).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn there_is_a_bound_on_how_many_are_under_way() -> Result<()> {
    let (_core, inbox) = inbox().await?;
    let mut posts = tokio::task::JoinSet::new();
    for delivery in 0..300 {
        let inbox = inbox.clone();
        posts.spawn(async move {
            let delivery = delivery.to_string();
            let headers = [("X-Topic", "push"), ("X-Delivery", &delivery), ("X-Hang", "")];
            inbox.post(headers, "").await.map_err(|error| error.kind())
        });
    }
    let outcomes = posts.join_all().await;
    let refused = outcomes.iter().filter(|it| **it == Err(ErrorKind::Unavailable)).count();
    let accepted = outcomes.iter().filter(|it| it.is_ok()).count();
    assert_eq!((accepted, refused), (128, 172));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_event_waits_until_each_stored_subscription_is_restored_or_refused() -> Result<()> {
    let (core, inbox) = inbox().await?;
    inbox.subscribe("ops/one", "a", [("topic", "push")]).await?;
    inbox.subscribe("ops/late", "a", [("topic", "late")]).await?;
    NOT_YET.store(4, Ordering::SeqCst);
    let restart = tokio::spawn({
        let inbox = inbox.clone();
        async move { inbox.restart().await }
    });
    while inbox.status()?.state == ExtensionState::Running {
        tokio::task::yield_now().await;
    }
    // The sender tries again.
    let mut refusals = 0;
    while let Err(error) = post(&inbox, "late", "41").await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        refusals += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(refusals > 4, "{refusals}");
    assert_eq!(NOT_YET.load(Ordering::SeqCst), 0);
    restart.await??;
    assert_eq!(core.runs("ops/late").len(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_event_while_a_subscription_is_changed_reaches_it_or_is_to_be_sent_again() -> Result<()>
{
    let (core, inbox) = inbox().await?;
    inbox.subscribe("ops/one", "changed", [("topic", "push"), ("linger", "2s")]).await?;
    let change = tokio::spawn({
        let inbox = inbox.clone();
        async move { inbox.subscribe("ops/one", "changed", [("topic", "push"), ("linger", "1s")]).await }
    });
    tokio::time::sleep(seconds(1)).await;
    let mut refusals = 0;
    while let Err(error) = post(&inbox, "push", "41").await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        refusals += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    change.await??;
    assert!(refusals > 0);
    assert_eq!(core.runs("ops/one").len(), 1);
    let ended = || {
        let all = ENDED.lock().unwrap();
        all.iter().filter(|(label, _)| label == "changed").map(|(_, why)| *why).collect::<Vec<_>>()
    };
    assert_eq!(ended(), [Cancelled::Replaced]);
    inbox.restart().await?;
    assert_eq!(ended(), [Cancelled::Replaced, Cancelled::Stopping]);
    inbox.unsubscribe("ops/one", "changed").await?;
    assert_eq!(ended(), [Cancelled::Replaced, Cancelled::Stopping, Cancelled::Unsubscribed]);
    Ok(())
}

/// On two threads, since on one nothing comes between the refusal and what follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_while_a_change_is_refused_reaches_the_subscription_as_it_was() -> Result<()> {
    let (core, inbox) = inbox().await?;
    inbox.subscribe("ops/one", "a", [("topic", "push")]).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let senders = (0..16).map(|sender| {
        let (inbox, is_over) = (inbox.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut accepted = Vec::new();
            for n in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                let delivery = format!("{sender}-{n}");
                if post(&inbox, "push", &delivery).await.is_ok() {
                    accepted.push(delivery);
                }
                tokio::task::yield_now().await;
            }
            accepted
        })
    });
    let senders: Vec<_> = senders.collect();
    for _ in 0..100 {
        let refused = inbox.subscribe("ops/one", "a", [("topic", "refused")]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidParameter, "{refused}");
    }
    is_over.store(true, Ordering::SeqCst);
    post(&inbox, "push", "last").await?;
    let mut accepted = HashSet::from(["last".to_owned()]);
    for sender in senders {
        accepted.extend(sender.await?);
    }
    let runs: HashSet<_> =
        core.runs("ops/one").iter().filter_map(|run| run.key().map(str::to_owned)).collect();
    let lost: Vec<_> = accepted.difference(&runs).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), accepted.len());
    Ok(())
}

/// Of an extension that stops, the core's next one takes the event.
#[tokio::test(start_paused = true)]
async fn no_event_that_was_accepted_is_lost_while_the_extension_is_restarted() -> Result<()> {
    let (core, inbox) = inbox().await?;
    inbox.subscribe("ops/one", "a", [("topic", "push")]).await?;
    let accepted = Arc::new(AtomicU32::new(0));
    let sender = tokio::spawn({
        let (inbox, accepted) = (inbox.clone(), Arc::clone(&accepted));
        async move {
            for delivery in 0.. {
                if post(&inbox, "push", &delivery.to_string()).await.is_ok() {
                    accepted.fetch_add(1, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }
    });
    for _ in 0..20 {
        inbox.restart().await?;
        core.elapse(Duration::from_millis(50)).await;
    }
    sender.abort();
    core.elapse(minutes(1)).await;
    let accepted = usize::try_from(accepted.load(Ordering::SeqCst))?;
    let runs = core.runs("ops/one").len();
    assert!(accepted > 500, "{accepted}");
    assert!(runs >= accepted, "{runs} runs of {accepted} events that were accepted");
    Ok(())
}

/// Runs a pipeline each day, and at each event.
struct DailyAndAtEvents;

impl Extension for DailyAndAtEvents {
    type Config = NoConfig;
    type Params = gofer_sdk::NoParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<gofer_sdk::NoParams>) -> Result<()> {
        let mut ticks = subscription.every(GoDuration::from_hours(24))?;
        while let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("a day has passed")).await?;
        }
        Ok(())
    }

    async fn external_event(
        &self,
        _: ExternalEvent,
        subscriptions: Subscriptions<gofer_sdk::NoParams>,
    ) -> Result<()> {
        subscriptions.start_runs(|_| Some(Run::because("an event"))).await.map(drop)
    }
}

#[tokio::test(start_paused = true)]
async fn runs_for_events_move_no_tick_also_if_there_has_been_none_before_a_restart() -> Result<()> {
    let core = Core::in_memory().await?;
    let both = core.install::<DailyAndAtEvents>("both", NO_SETTINGS).await?;
    both.subscribe("ops/nightly", "x", NO_SETTINGS).await?;
    let subscribed = core.client().now();
    for _ in 0..3 {
        core.elapse(minutes(5 * 60)).await;
        both.post(NO_SETTINGS, "").await?;
        core.elapse(minutes(60)).await;
        both.restart().await?;
    }
    core.elapse(minutes(7 * 60)).await;
    let runs = core.runs("ops/nightly");
    let ticks: Vec<_> = runs.iter().filter_map(gofer_sdk::RunInfo::scheduled).collect();
    assert_eq!(ticks.len(), 1, "{runs:?}");
    let after = ticks[0].duration_since(subscribed).unwrap();
    assert!((86_390..86_410).contains(&after.as_secs()), "{after:?}");
    Ok(())
}
