//! What the SDK's own service says of subscriptions: when they fired, when they will, what failed.

use std::future::pending;
use std::time::Duration;

use gofer_proto::embedded::extension_status_client::ExtensionStatusClient;
use gofer_proto::embedded::{
    GetSubscriptionStatesRequest, SubscriptionError, SubscriptionKey, SubscriptionState,
};
use gofer_sdk::{Error, GoDuration, Run};
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::in_memory::InMemory;
use crate::support::gofer::Behavior;
use crate::support::probe::{Builder, interval, probe};
use crate::support::{Client, Connection, Setup, within};

const MINUTE: i64 = 60_000;

fn key(pipeline: &str) -> SubscriptionKey {
    let (pipeline_id, label) = (pipeline.to_owned(), "l".to_owned());
    SubscriptionKey { namespace_id: "default".to_owned(), pipeline_id, label }
}

async fn ask(
    connection: &Connection,
    keys: Vec<SubscriptionKey>,
) -> Result<Vec<SubscriptionState>, Status> {
    let mut client = ExtensionStatusClient::new(connection.clone());
    let answer = client.get_subscription_states(GetSubscriptionStatesRequest { keys });
    within(answer).await.map(|answer| answer.into_inner().states)
}

async fn state(client: &Client, pipeline: &str) -> SubscriptionState {
    let states = ask(&client.connection, vec![key(pipeline)]).await.unwrap();
    let [state] = states.try_into().unwrap();
    state
}

async fn error(client: &Client, pipeline: &str) -> Option<SubscriptionError> {
    state(client, pipeline).await.last_error
}

async fn start(
    extension: Builder,
    script: impl Fn(usize) -> Behavior + Send + Sync + 'static,
) -> InMemory {
    InMemory::start(extension, move |_, number| script(number)).await
}

async fn minutes(minutes: u64) {
    sleep(Duration::from_secs(60 * minutes)).await;
}

/// Less than any pause before a restart.
async fn settle() {
    sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn an_interval_shows_its_last_and_its_next_tick() {
    let InMemory { client, gofer, clock, .. } = &start(interval(), |_| Behavior::Answer).await;
    client.subscribe("a", &[("every", "10m")]).await.unwrap();
    minutes(1).await;
    let before = state(client, "a").await;
    assert!(before.found && !before.has_returned);
    assert_eq!((before.last_tick, before.last_error), (None, None));
    let first = before.next_tick.unwrap();
    let left = first - clock.unix_millis();
    assert!((8 * MINUTE..=9 * MINUTE).contains(&left), "{left}");
    minutes(10).await;
    assert_eq!(gofer.recorded().runs.len(), 1);
    let after = state(client, "a").await;
    assert_eq!((after.last_tick, after.next_tick), (Some(first), Some(first + 10 * MINUTE)));
    assert_eq!(after.last_error, None);
}

#[tokio::test(start_paused = true)]
async fn jitter_is_part_of_the_next_tick() {
    let extension = probe().serve(|_, subscription| async move {
        let every = subscription.every(subscription.params().every.unwrap())?;
        let mut ticks = every.jitter(GoDuration::from_mins(10));
        while let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("the interval elapsed")).await?;
        }
        Ok(())
    });
    let InMemory { client, clock, .. } = &start(extension, |_| Behavior::Answer).await;
    client.subscribe("a", &[("every", "10m")]).await.unwrap();
    client.subscribe("b", &[("every", "10m")]).await.unwrap();
    minutes(1).await;
    let next = [state(client, "a").await.next_tick, state(client, "b").await.next_tick];
    assert_ne!(next[0], next[1]);
    minutes(20).await;
    for (pipeline, next) in ["a", "b"].into_iter().zip(next) {
        let SubscriptionState { last_tick, next_tick, .. } = state(client, pipeline).await;
        let grid = |at: Option<i64>| (at.unwrap() - next.unwrap()) % (10 * MINUTE);
        assert_eq!((grid(last_tick), grid(next_tick)), (0, 0), "{pipeline}");
        assert!(last_tick.unwrap() <= clock.unix_millis() && next_tick > last_tick);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_serve_shows_until_a_run_is_started() {
    let refuse = |number| match number {
        1 | 2 => Behavior::Refuse(Status::failed_precondition("the pipeline is disabled")),
        _ => Behavior::Answer,
    };
    let InMemory { client, probe, clock, .. } = &start(interval(), refuse).await;
    client.subscribe("a", &[("every", "10m")]).await.unwrap();
    minutes(1).await;
    let first = state(client, "a").await.next_tick.unwrap();
    let left = u64::try_from(first - clock.unix_millis()).unwrap();
    sleep(Duration::from_millis(left)).await;
    probe.until_seen("end a ").await;
    settle().await;
    let failing = state(client, "a").await;
    let error = failing.last_error.unwrap();
    assert!(error.message.contains("the pipeline is disabled"), "{error:?}");
    assert_eq!((error.is_waiting, error.restarts), (true, 0));
    assert!((first..first + 1000).contains(&error.at), "{} and not {first}", error.at);
    assert_eq!(failing.last_tick, None, "no run was started");
    assert_eq!(failing.next_tick, Some(first + 10 * MINUTE));
    probe.until(|seen| seen.count("end a ") == 2).await;
    settle().await;
    let again = state(client, "a").await.last_error.unwrap();
    assert!((again.is_waiting, again.restarts) == (true, 1) && again.at > error.at, "{again:?}");
    minutes(2).await;
    let well = state(client, "a").await;
    assert_eq!((well.last_tick, well.last_error), (Some(first), None));
    assert!(clock.unix_millis() > first);
}

#[tokio::test(start_paused = true)]
async fn a_failure_stays_when_serve_runs_again_without_a_run() {
    let extension = probe().serve(|probe, subscription| async move {
        if probe.seen().served == 1 {
            return Err(Error::unavailable("no route to the queue"));
        }
        probe.wait_at_gate().await;
        subscription.start_run(Run::because("a message")).await?;
        pending().await
    });
    let InMemory { client, probe, gofer, .. } = &start(extension, |_| Behavior::Answer).await;
    client.subscribe("a", &[]).await.unwrap();
    minutes(1).await;
    assert_eq!(probe.seen().served, 2);
    let after = error(client, "a").await.unwrap();
    assert!(after.message.contains("no route to the queue") && !after.is_waiting, "{after:?}");
    probe.open_gate();
    gofer.until(|recorded| recorded.runs.len() == 1).await;
    settle().await;
    assert_eq!(error(client, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_could_not_be_started_shows_until_one_is() {
    // As an extension does that logs the error and goes on.
    let extension = probe().serve(|_, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        while let Some(tick) = ticks.next().await {
            drop(subscription.start_run(tick.run("the interval elapsed")).await);
        }
        Ok(())
    });
    let refuse = |number| match number {
        1 => Behavior::Refuse(Status::failed_precondition("é".repeat(10_000))),
        2 => Behavior::Refuse(Status::failed_precondition("the pipeline is disabled")),
        _ => Behavior::Answer,
    };
    let InMemory { client, .. } = &start(extension, refuse).await;
    client.subscribe("a", &[("every", "10m")]).await.unwrap();
    minutes(1).await;
    let first = state(client, "a").await.next_tick.unwrap();
    minutes(10).await;
    let one = state(client, "a").await;
    let error = one.last_error.unwrap();
    assert_eq!(error.message.chars().count(), 500);
    assert_eq!((error.is_waiting, error.restarts), (false, 0));
    assert!((first..first + 1000).contains(&error.at), "{} and not {first}", error.at);
    assert_eq!((one.last_tick, one.next_tick), (None, Some(first + 10 * MINUTE)));
    minutes(10).await;
    let two = state(client, "a").await.last_error.unwrap();
    assert!(two.message.contains("the pipeline is disabled"), "{two:?}");
    minutes(10).await;
    let well = state(client, "a").await;
    assert_eq!((well.last_tick, well.last_error), (Some(first + 20 * MINUTE), None));
}

#[tokio::test(start_paused = true)]
async fn an_internal_error_is_not_shown() {
    let extension = probe().serve(|_, _| async { Err(Error::internal("hunter2")) });
    let InMemory { client, probe, .. } = &start(extension, |_| Behavior::Answer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("end a ").await;
    settle().await;
    let error = error(client, "a").await.unwrap();
    assert_eq!(error.message, "internal error, see the extension's log");
}

#[tokio::test(start_paused = true)]
async fn a_serve_that_has_returned_has_no_next_tick() {
    let extension = probe().serve(|_, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        if let Some(tick) = ticks.next().await {
            subscription.start_run(tick.run("only once")).await?;
        }
        Ok(())
    });
    let InMemory { client, .. } = &start(extension, |_| Behavior::Answer).await;
    client.subscribe("a", &[("every", "10m")]).await.unwrap();
    minutes(1).await;
    let first = state(client, "a").await.next_tick.unwrap();
    minutes(10).await;
    let over = state(client, "a").await;
    assert_eq!((over.found, over.last_tick, over.next_tick), (true, Some(first), None));
    assert!(over.has_returned);
}

#[tokio::test(start_paused = true)]
async fn states_come_in_the_order_of_the_keys_and_what_is_not_subscribed_is_not_found() {
    let InMemory { client, .. } = &start(interval(), |_| Behavior::Answer).await;
    client.subscribe("b", &[("every", "10m")]).await.unwrap();
    client.subscribe("gone", &[("every", "10m")]).await.unwrap();
    client.unsubscribe("gone").await.unwrap();
    settle().await;
    let no_namespace = SubscriptionKey { namespace_id: String::new(), ..key("b") };
    let label = SubscriptionKey { label: "other".to_owned(), ..key("b") };
    let long = key(&"x".repeat(100_000));
    let keys = vec![key("gone"), key("b"), label, no_namespace, key(""), long];
    let states = ask(&client.connection, keys).await.unwrap();
    let found: Vec<_> = states.iter().map(|state| state.found).collect();
    assert_eq!(found, [false, true, false, true, false, false]);
    assert_eq!(states[1], states[3]);
    assert_eq!(states[0], SubscriptionState::default());
}

#[tokio::test]
async fn a_call_has_at_most_a_thousand_keys() {
    let (_probe, _started, client) = probe().start(Setup::default()).await;
    let keys = |count| (0..count).map(|n| key(&format!("p{n}"))).collect();
    assert_eq!(ask(&client.connection, keys(1000)).await.unwrap().len(), 1000);
    let status = ask(&client.connection, keys(1001)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("at most 1000"), "{status}");
}

#[tokio::test]
async fn there_are_states_only_after_init_and_with_the_token() {
    let (probe, started, client) = probe().start_bare(Setup::default()).await;
    let status = ask(&client.connection, vec![key("a")]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    client.init(&probe.config()).await.unwrap();
    client.subscribe("a", &[]).await.unwrap();
    assert!(state(&client, "a").await.found);
    let refused = ask(&started.unauthenticated().await, vec![key("a")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
}
