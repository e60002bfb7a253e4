//! Subscribe, Unsubscribe and what Info shows of them: one `serve` for each key, changes in order,
//! and failures that do not affect other subscriptions.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::in_memory::InMemory;
use crate::support::gofer::{Behavior, Gofer};
use crate::support::probe::{Builder, Params, Probe, probe, together};
use crate::support::{Client, Connection, Setup, long_grace, short_grace, within};
use gofer_proto::{ExtensionSubscribeRequest, ExtensionUnsubscribeRequest};
use gofer_sdk::{Error, Limits, Subscription};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

/// A `serve` that notices its cancellation, and ends when the test opens the gate.
fn ends_at_gate() -> Builder {
    probe().serve(|probe, subscription| async move {
        subscription.cancelled().await;
        probe.record(format!("cancelled {}", subscription.params().value));
        probe.wait_at_gate().await;
        Ok(())
    })
}

fn with_long_grace() -> Setup {
    Setup { limits: long_grace(), ..Setup::default() }
}

/// On a paused clock, with the default limits.
async fn in_memory(extension: Builder) -> InMemory {
    InMemory::start(extension, |_, _| Behavior::Answer).await
}

/// How late timers may be on a paused clock.
const LATE: Duration = Duration::from_millis(5);

fn running(probe: &Probe) -> Vec<String> {
    probe.seen().running.keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_equal_subscribes_at_once_exactly_one_serves() {
    let (probe, _started, client) = probe().start(with_long_grace()).await;
    let calls = (0..64).map(|_| {
        let client = client.clone();
        async move { client.subscribe("a", &[("value", "1")]).await }
    });
    for outcome in together(calls).await {
        outcome.unwrap();
    }
    probe.until_seen("start a 1").await;
    assert_eq!(client.registered().await, ["default/a"]);
    assert_eq!(probe.seen().events, ["init", "start a 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_differing_subscribes_at_once_never_two_serve() {
    let (probe, started, client) = probe().start(with_long_grace()).await;
    // Half over connections of their own.
    let mut calls = Vec::new();
    for n in 0..64_usize {
        let client = if n % 2 == 0 { client.clone() } else { started.client().await };
        let value = (n % 16).to_string();
        calls.push(async move { client.subscribe("a", &[("value", &value)]).await });
    }
    for outcome in together(calls).await {
        outcome.unwrap();
    }
    assert_eq!(client.registered().await, ["default/a"]);
    // Every change but the last one has ended what was before.
    probe.until(|seen| seen.running.get("a") == Some(&1) && seen.served > 1).await;
    let seen = probe.seen();
    assert_eq!(seen.most, 1);
    let last = seen.events.last().unwrap();
    let value: u8 = last.strip_prefix("start a ").expect(last).parse().unwrap();
    assert!(value < 16);
}

#[tokio::test]
async fn ten_thousand_keys_come_and_go_and_the_right_ones_stay() {
    const KEYS: usize = 10_000;
    const IN_FLIGHT: usize = 64;
    let (probe, _started, client) = probe().start(with_long_grace()).await;
    let workers = (0..IN_FLIGHT).map(|worker| {
        let client = client.clone();
        async move {
            let mut doomed: Option<String> = None;
            for n in (worker..KEYS).step_by(IN_FLIGHT) {
                let key = format!("p{n}");
                client.subscribe(&key, &[]).await.unwrap();
                // While others subscribe, every third one goes again.
                if let Some(doomed) = doomed.take() {
                    client.unsubscribe(&doomed).await.unwrap();
                }
                doomed = (n % 3 == 0).then_some(key);
            }
            if let Some(doomed) = doomed {
                client.unsubscribe(&doomed).await.unwrap();
            }
        }
    });
    together(workers).await;
    let stay: BTreeSet<String> =
        (0..KEYS).filter(|n| n % 3 != 0).map(|n| format!("p{n}")).collect();
    let listed: Vec<String> = client.registered().await;
    let expected: Vec<String> = stay.iter().map(|key| format!("default/{key}")).collect();
    assert!(listed == expected, "{} and not {}", listed.len(), expected.len());
    assert!(running(&probe).iter().eq(stay.iter()));
    assert_eq!(probe.seen().most, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn subscribes_and_unsubscribes_of_the_same_keys_at_once_never_disagree() {
    let (probe, _started, client) = probe().start(with_long_grace()).await;
    let workers = (0..32_usize).map(|worker| {
        let client = client.clone();
        async move {
            for n in 0..50_usize {
                let key = format!("p{}", (worker + n) % 5);
                let value = (n % 3).to_string();
                if (worker + n / 5) % 2 == 0 {
                    client.subscribe(&key, &[("value", &value)]).await.unwrap();
                } else {
                    client.unsubscribe(&key).await.unwrap();
                }
            }
        }
    });
    together(workers).await;
    let listed = client.registered().await;
    probe
        .until(|seen| {
            let running = seen.running.keys().map(|key| format!("default/{key}"));
            running.eq(listed.iter().cloned())
        })
        .await;
    assert_eq!(probe.seen().most, 1);
}

/// Numbers without an order, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) % end
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.below(4))).await;
    }
}

/// One of the calls that may change the list, or one that reads it meanwhile.
async fn any_call(client: Client, n: u64) {
    let mut dice = Dice(n);
    let key = format!("p{}", dice.below(4));
    dice.pause().await;
    match dice.below(4) {
        0 => client.unsubscribe(&key).await.unwrap(),
        1 => {
            let value = dice.below(3).to_string();
            client.subscribe(&key, &[("value", &value)]).await.unwrap();
        }
        2 => drop(client.subscribe(&key, &[("nonsense", "x")]).await.unwrap_err()),
        _ => {
            let listed = client.registered().await;
            let keys: BTreeSet<&String> = listed.iter().collect();
            assert_eq!(keys.len(), listed.len(), "twice in {listed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_right_whenever_nothing_changes() {
    let extension = probe().serve(|probe, subscription| async move {
        subscription.cancelled().await;
        let nth = probe.seen().served;
        Dice(nth.try_into().unwrap()).pause().await;
        Ok(())
    });
    let (probe, _started, client) = extension.start(with_long_grace()).await;
    for round in 0..30 {
        together((0..40).map(|n| any_call(client.clone(), 40 * round + n))).await;
        let listed = client.registered().await;
        probe
            .until(|seen| {
                let running = seen.running.keys().map(|key| format!("default/{key}"));
                running.eq(listed.iter().cloned())
            })
            .await;
    }
    assert_eq!(probe.seen().most, 1);
}

#[tokio::test]
async fn a_changed_subscription_stops_the_old_one_first() {
    let (probe, _started, client) = ends_at_gate().start(with_long_grace()).await;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    let change = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe("a", &[("value", "2")]).await }
    });
    probe.until_seen("cancelled 1").await;
    // Other keys do not wait for it.
    client.subscribe("b", &[]).await.unwrap();
    assert_eq!(client.registered().await, ["default/a", "default/b"]);
    assert!(!change.is_finished() && !probe.seen().has("start a 2"));
    probe.open_gate();
    within(change).await.unwrap().unwrap();
    probe.until_seen("start a 2").await;
    let seen = probe.seen();
    let place = |event| seen.events.iter().position(|seen| seen == event).unwrap();
    assert!(place("end a 1") < place("start a 2"), "{:?}", seen.events);
}

#[tokio::test]
async fn an_equal_subscribe_restarts_nothing() {
    let (probe, _started, client) = probe().start(with_long_grace()).await;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    client.subscribe("a", &[("VALUE", "1")]).await.unwrap();
    // An omitted namespace means `default`.
    let spelled_out = ExtensionSubscribeRequest {
        namespace_id: "default".to_owned(),
        pipeline_id: "a".to_owned(),
        pipeline_extension_label: "l".to_owned(),
        config: [("Value".to_owned(), "1".to_owned())].into(),
    };
    within(client.raw().subscribe(spelled_out)).await.unwrap();
    assert_eq!(client.registered().await, ["default/a"]);
    assert_eq!(probe.seen().events, ["init", "start a 1"]);
}

#[tokio::test]
async fn namespace_pipeline_and_label_identify_a_subscription() {
    let (probe, _started, client) = probe().start(with_long_grace()).await;
    // Most of them consist of the same letters, divided differently.
    let keys = [("a", "b", "c"), ("a", "bc", ""), ("ab", "c", ""), ("a", "b", "d"), ("", "b", "c")];
    for (namespace, pipeline, label) in keys {
        let request = ExtensionSubscribeRequest {
            namespace_id: namespace.to_owned(),
            pipeline_id: pipeline.to_owned(),
            pipeline_extension_label: label.to_owned(),
            config: [].into(),
        };
        within(client.raw().subscribe(request)).await.unwrap();
    }
    let all = ["a/b", "a/b", "a/bc", "ab/c", "default/b"];
    assert_eq!(client.registered().await, all);
    assert_eq!(probe.seen().served, 5);
    let request = ExtensionUnsubscribeRequest {
        namespace_id: "a".to_owned(),
        pipeline_id: "b".to_owned(),
        pipeline_extension_label: "c".to_owned(),
    };
    within(client.raw().unsubscribe(request)).await.unwrap();
    assert_eq!(client.registered().await, all[1..]);
}

#[tokio::test]
async fn unsubscribing_what_is_not_subscribed_succeeds() {
    let (probe, _started, client) = probe().start(with_long_grace()).await;
    client.unsubscribe("never").await.unwrap();
    client.subscribe("a", &[]).await.unwrap();
    client.unsubscribe("a").await.unwrap();
    client.unsubscribe("a").await.unwrap();
    assert_eq!(probe.seen().events, ["init", "start a ", "end a "]);
}

#[tokio::test]
async fn unsubscribe_answers_once_serve_has_ended() {
    let (probe, _started, client) = ends_at_gate().start(with_long_grace()).await;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    let ending = tokio::spawn({
        let client = client.clone();
        async move { client.unsubscribe("a").await }
    });
    probe.until_seen("cancelled 1").await;
    client.info().await.unwrap();
    assert!(!ending.is_finished());
    probe.open_gate();
    within(ending).await.unwrap().unwrap();
    assert!(probe.seen().has("end a 1"));
    assert!(client.registered().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_serve_that_ignores_its_end_is_dropped_after_the_grace() {
    let extension = probe().serve(|_, _| std::future::pending());
    let InMemory { probe, client, .. } = &in_memory(extension).await;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    let asked = Instant::now();
    client.unsubscribe("a").await.unwrap();
    let (took, grace) = (asked.elapsed(), Limits::default().stop_grace());
    assert!((grace..=LATE + grace).contains(&took), "{took:?}");
    assert!(probe.seen().has("end a 1"), "it has ended when Unsubscribe answers");

    client.subscribe("a", &[("value", "2")]).await.unwrap();
    client.subscribe("a", &[("value", "3")]).await.unwrap();
    assert_eq!(
        probe.seen().events,
        ["init", "start a 1", "end a 1", "start a 2", "end a 2", "start a 3"]
    );
}

#[tokio::test]
async fn an_unsubscribe_while_a_run_is_being_started_ends_after_the_grace() {
    let gofer = Gofer::listening(|_, _| Behavior::Hold);
    let extension = probe().serve(|_, subscription| async move {
        subscription.start_run(gofer_sdk::Run::because("of a test")).await.map(drop)
    });
    let setup = Setup { limits: short_grace(), gofer: Some(gofer.address) };
    let (probe, _started, client) = extension.start(setup).await;
    client.subscribe("a", &[]).await.unwrap();
    gofer.until(|recorded| recorded.in_flight == 1).await;
    client.unsubscribe("a").await.unwrap();
    assert!(probe.seen().has("end a "));
    // The call is cancelled, so that Gofer does no useless work.
    gofer.until(|recorded| recorded.in_flight == 0).await;
    assert_eq!(gofer.recorded().starts, 1);
}

#[tokio::test]
async fn an_unsubscribe_does_not_wait_for_a_gofer_that_does_not_answer() {
    let gofer = Gofer::listening(|_, _| Behavior::Hold);
    let extension = probe().serve(|probe, subscription| async move {
        let outcome = subscription.start_run(gofer_sdk::Run::because("of a test")).await;
        probe.record(format!("{:?}", outcome.map(drop).map_err(|error| error.kind())));
        Ok(())
    });
    let setup = Setup { limits: long_grace(), gofer: Some(gofer.address) };
    let (probe, _started, client) = extension.start(setup).await;
    client.subscribe("a", &[]).await.unwrap();
    gofer.until(|recorded| recorded.in_flight == 1).await;
    client.unsubscribe("a").await.unwrap();
    // It waited neither for the grace nor for the deadline of the call.
    assert!(probe.seen().has("Err(Cancelled)"), "{:?}", probe.seen().events);
}

#[tokio::test]
async fn a_caller_of_subscribe_that_disconnects_does_not_leave_half_a_change() {
    let (probe, started, client) = ends_at_gate().start(with_long_grace()).await;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    let leaving = started.client().await;
    let change = tokio::spawn({
        let leaving = leaving.clone();
        async move { drop(leaving.subscribe("a", &[("value", "2")]).await) }
    });
    probe.until_seen("cancelled 1").await;
    // First the call is cancelled, then the connection closed.
    change.abort();
    assert!(within(change).await.unwrap_err().is_cancelled());
    leaving.info().await.unwrap();
    drop(leaving);
    probe.open_gate();
    probe.until_seen("start a 2").await;
    assert_eq!(client.registered().await, ["default/a"]);
    assert_eq!(probe.seen().running["a"], 1);
}

#[tokio::test]
async fn a_caller_of_unsubscribe_that_disconnects_does_not_prevent_the_end() {
    let (probe, started, client) = ends_at_gate().start(with_long_grace()).await;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    let leaving = started.client().await;
    let ending = tokio::spawn(async move { drop(leaving.unsubscribe("a").await) });
    probe.until_seen("cancelled 1").await;
    ending.abort();
    assert!(within(ending).await.unwrap_err().is_cancelled());
    probe.open_gate();
    probe.until_seen("end a 1").await;
    // Waits behind the change that is under way.
    client.unsubscribe("a").await.unwrap();
    assert!(client.registered().await.is_empty());
}

#[tokio::test]
async fn changes_of_one_key_happen_in_the_order_of_their_calls() {
    let (probe, _started, client) = ends_at_gate().start(with_long_grace()).await;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    let mut changes = Vec::new();
    for value in ["2", "3", "4"] {
        let ending = client.clone();
        changes.push(tokio::spawn(async move { ending.unsubscribe("a").await }));
        arrived(&client).await;
        let starting = client.clone();
        let change = async move { starting.subscribe("a", &[("value", value)]).await };
        changes.push(tokio::spawn(change));
        arrived(&client).await;
    }
    for _ in 0..3 {
        probe.open_gate();
    }
    for change in changes {
        within(change).await.unwrap().unwrap();
    }
    let seen = probe.seen();
    let order = seen.events.iter().filter(|event| !event.starts_with("cancelled"));
    let expected = [
        "init",
        "start a 1",
        "end a 1",
        "start a 2",
        "end a 2",
        "start a 3",
        "end a 3",
        "start a 4",
    ];
    assert!(order.eq(expected.iter()), "{:?}", seen.events);
}

/// Waits until the server has what was spawned to be sent before.
async fn arrived(client: &Client) {
    // On this one thread a spawned call is sent while we yield, and one connection keeps the order.
    tokio::task::yield_now().await;
    client.info().await.unwrap();
}

#[tokio::test]
async fn a_serve_that_is_done_stays_listed_and_is_not_started_again() {
    let extension = probe().serve(|_, _| async { Ok(()) });
    let (probe, _started, client) = extension.start(with_long_grace()).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("end a ").await;
    assert_eq!(client.registered().await, ["default/a"]);
    client.subscribe("a", &[]).await.unwrap();
    assert_eq!(client.registered().await, ["default/a"]);
    assert_eq!(probe.seen().events, ["init", "start a ", "end a "]);
    client.unsubscribe("a").await.unwrap();
    assert!(client.registered().await.is_empty());
}

/// The status of one name, as it changes.
struct Health(tonic::Streaming<tonic_health::pb::HealthCheckResponse>);

impl Health {
    async fn watch(connection: &Connection, service: &str) -> Self {
        let request = HealthCheckRequest { service: service.to_owned() };
        Self(within(connection.health().watch(request)).await.unwrap().into_inner())
    }

    async fn until(&mut self, status: ServingStatus) {
        while within(self.0.message()).await.unwrap().unwrap().status() != status {}
    }
}

/// The pause after a first failure, which is shortened by up to a half.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

async fn failure_shows_and_passes(extension: Builder, reason: &str) {
    let InMemory { probe, client, .. } = &in_memory(extension).await;
    client.subscribe("well", &[("value", "well")]).await.unwrap();
    let mut subscriptions = Health::watch(&client.connection, "subscriptions").await;
    subscriptions.until(ServingStatus::Serving).await;
    let began = Instant::now();
    client.subscribe("failing", &[]).await.unwrap();

    subscriptions.until(ServingStatus::NotServing).await;
    let documentation = client.info().await.unwrap().documentation;
    let line = documentation.lines().find(|line| line.contains("default/failing (l)"));
    assert!(line.is_some_and(|line| line.contains(reason)), "{documentation}");
    assert!(!documentation.contains("hunter2"), "{documentation}");
    assert!(!documentation.contains("default/well"), "{documentation}");
    let mut service = Health::watch(&client.connection, "").await;
    service.until(ServingStatus::Serving).await;

    subscriptions.until(ServingStatus::Serving).await;
    let paused = began.elapsed();
    assert!((FIRST_PAUSE / 2..=LATE + FIRST_PAUSE).contains(&paused), "{paused:?}");
    probe.until(|seen| seen.count("start failing ") == 2).await;
    let documentation = client.info().await.unwrap().documentation;
    assert!(!documentation.contains("Failing"), "{documentation}");
    assert_eq!(client.registered().await, ["default/failing", "default/well"]);
    assert_eq!(probe.seen().count("start well well"), 1, "others are not affected");
    assert_eq!(probe.seen().most, 1);
}

/// Whether the caller is the first `serve` of `failing`.
fn is_first_of_failing(probe: &Probe) -> bool {
    probe.seen().events.last().unwrap() == "start failing "
        && probe.seen().count("start failing ") == 1
}

#[tokio::test(start_paused = true)]
async fn a_serve_that_fails_shows_and_is_started_again_after_a_pause() {
    let extension = probe().serve(|probe, subscription| async move {
        if is_first_of_failing(&probe) {
            return Err(Error::unavailable("the chat does not answer"));
        }
        subscription.cancelled().await;
        Ok(())
    });
    failure_shows_and_passes(extension, "the chat does not answer").await;
}

#[tokio::test(start_paused = true)]
async fn a_serve_that_panics_shows_and_is_started_again_after_a_pause() {
    let extension = probe().serve(|probe, subscription| async move {
        assert!(!is_first_of_failing(&probe), "on purpose, with hunter2");
        subscription.cancelled().await;
        Ok(())
    });
    failure_shows_and_passes(extension, "internal error, see the extension's log").await;
}

fn always_fails() -> Builder {
    probe().serve(|_, _| async { Err(Error::unavailable("the chat does not answer")) })
}

#[tokio::test(start_paused = true)]
async fn pauses_between_failures_grow() {
    let InMemory { probe, client, .. } = &in_memory(always_fails()).await;
    client.subscribe("a", &[]).await.unwrap();
    let mut pause = FIRST_PAUSE;
    for failures in 1..=3 {
        probe.until(|seen| seen.count("end a ") == failures).await;
        let failed = Instant::now();
        probe.until(|seen| seen.served > failures).await;
        let paused = failed.elapsed();
        assert!((pause / 2..=LATE + pause).contains(&paused), "{failures}: {paused:?}");
        pause *= 2;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_waits_to_be_started_again_ends_at_once() {
    let InMemory { probe, client, .. } = &in_memory(always_fails()).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until(|seen| seen.count("end a ") == 3).await;
    let mut subscriptions = Health::watch(&client.connection, "subscriptions").await;
    subscriptions.until(ServingStatus::NotServing).await;
    let asked = Instant::now();
    client.unsubscribe("a").await.unwrap();
    // The pause that was under way takes two seconds or more.
    assert!(asked.elapsed() < FIRST_PAUSE, "it waits for its pause: {:?}", asked.elapsed());
    // Health recovers once the failing one is gone.
    subscriptions.until(ServingStatus::Serving).await;
    assert!(asked.elapsed() < FIRST_PAUSE, "health waits for the pause: {:?}", asked.elapsed());
    assert_eq!(probe.seen().served, 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_subscription_spawned_ends_with_it() {
    let extension = probe().serve(|probe, subscription| async move {
        let (polite, other) = (subscription.clone(), probe.clone());
        subscription.spawn(async move {
            polite.cancelled().await;
            other.record("the polite one ends");
        });
        let guard = RecordsDrop(probe);
        subscription.spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        subscription.spawn(async { panic!("on purpose") });
        subscription.cancelled().await;
        Ok(())
    });
    let InMemory { probe, client, .. } = &in_memory(extension).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("start a ").await;
    client.unsubscribe("a").await.unwrap();
    // Both have ended when Unsubscribe answers: one by itself, the other aborted.
    assert!(probe.seen().has("the polite one ends"));
    assert!(probe.seen().has("the other is dropped"));
    assert_eq!(probe.seen().served, 1, "a panic in a task ends the task alone");
}

#[tokio::test]
async fn what_a_failed_serve_spawned_ends_before_the_next_one() {
    let extension = probe().serve(|probe, subscription| async move {
        if probe.seen().served > 1 {
            subscription.cancelled().await;
            return Ok(());
        }
        let guard = RecordsDrop(probe);
        subscription.spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        Err(Error::unavailable("the chat does not answer"))
    });
    let (probe, _started, client) = extension.start(with_long_grace()).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until(|seen| seen.served == 2).await;
    assert_eq!(
        probe.seen().events,
        ["init", "start a ", "end a ", "the other is dropped", "start a "]
    );
}

/// A `serve` that gives its subscription to the test, and returns at once the first time.
fn gives_away(
    first: impl Fn() -> gofer_sdk::Result<()> + Send + Sync + 'static,
) -> (Builder, mpsc::Receiver<Subscription<Params>>) {
    let (give, given) = mpsc::channel(8);
    let first = Arc::new(first);
    let extension = probe().serve(move |probe, subscription| {
        let (give, first) = (give.clone(), Arc::clone(&first));
        async move {
            give.send(subscription.clone()).await.unwrap();
            if probe.seen().served == 1 {
                let earlier = probe.clone();
                subscription.spawn(async move {
                    earlier.wait_at_gate().await;
                    earlier.record("the earlier one goes on");
                });
                return first();
            }
            subscription.cancelled().await;
            Ok(())
        }
    });
    (extension, given)
}

/// Spawns what records that it runs, and returns whether it was dropped instead.
fn spawn_one(subscription: &Subscription<Params>, probe: &Arc<Probe>) -> bool {
    let (guard, probe) = (RecordsDrop(Arc::clone(probe)), Arc::clone(probe));
    let dropped = probe.seen().count("the other is dropped");
    let runs = Arc::clone(&probe);
    subscription.spawn(async move {
        let _guard = guard;
        runs.record("the other runs");
        std::future::pending::<()>().await;
    });
    probe.seen().count("the other is dropped") > dropped
}

#[tokio::test(start_paused = true)]
async fn what_is_spawned_during_the_pause_before_a_restart_is_not_started() {
    let (extension, mut given) = gives_away(|| Err(Error::unavailable("not now")));
    let InMemory { probe, client, .. } = &in_memory(extension).await;
    client.subscribe("a", &[]).await.unwrap();
    let subscription = given.recv().await.unwrap();
    probe.until_seen("end a ").await;
    assert!(spawn_one(&subscription, probe), "it is kept");
    given.recv().await.unwrap();
    assert!(!probe.seen().has("the other runs"));
    // Now there is a `serve` that it belongs to, also for what the earlier one has left behind.
    assert!(!spawn_one(&subscription, probe));
    probe.until_seen("the other runs").await;
    client.unsubscribe("a").await.unwrap();
    assert_eq!(probe.seen().count("the other is dropped"), 2);
    assert!(spawn_one(&subscription, probe), "the subscription has ended");
    assert!(!probe.seen().has("the earlier one goes on"));
}

#[tokio::test(start_paused = true)]
async fn what_a_serve_spawned_that_has_nothing_more_to_do_goes_on_and_nothing_is_added() {
    let (extension, mut given) = gives_away(|| Ok(()));
    let InMemory { probe, client, .. } = &in_memory(extension).await;
    client.subscribe("a", &[]).await.unwrap();
    let subscription = given.recv().await.unwrap();
    probe.until_seen("end a ").await;
    assert!(spawn_one(&subscription, probe), "it is started");
    probe.open_gate();
    probe.until_seen("the earlier one goes on").await;
    client.unsubscribe("a").await.unwrap();
    assert!(!probe.seen().has("the other runs"));
}

/// Blocks its thread when it is dropped.
struct BlocksInDrop {
    probe: Arc<Probe>,
    released: std::sync::mpsc::Receiver<()>,
}

impl Drop for BlocksInDrop {
    fn drop(&mut self) {
        self.probe.record("it blocks");
        self.released.recv().unwrap();
        self.probe.record("it no longer blocks");
    }
}

/// What blocks cannot be ended: it is waited for, also if a change comes meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_waits_for_what_a_failed_serve_spawned() {
    let (release, released) = std::sync::mpsc::channel();
    let released = Mutex::new(Some(released));
    let extension = probe().serve(move |probe, subscription| {
        let released = released.lock().unwrap().take();
        async move {
            let Some(released) = released else {
                subscription.cancelled().await;
                return Ok(());
            };
            let guard = BlocksInDrop { probe, released };
            subscription.spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            Err(Error::unavailable("not now"))
        }
    });
    // Without a grace period, what does not end by itself is aborted at once.
    let limits = Limits::default().with_stop_grace(Duration::ZERO);
    let (probe, _started, client) = extension.start(Setup { limits, ..Setup::default() }).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("it blocks").await;
    let changing = client.clone();
    let change = tokio::spawn(async move { changing.subscribe("a", &[("value", "2")]).await });
    // Many round trips, in which the next one would begin.
    for _ in 0..200 {
        client.info().await.unwrap();
    }
    assert!(!change.is_finished() && probe.seen().served == 1);
    release.send(()).unwrap();
    within(change).await.unwrap().unwrap();
    probe.until_seen("start a 2").await;
    let seen = probe.seen();
    let at = |event| seen.events.iter().position(|seen| seen == event).unwrap();
    assert!(at("it no longer blocks") < at("start a 2"), "{:?}", seen.events);
}

/// Records when it is dropped.
struct RecordsDrop(Arc<Probe>);

impl Drop for RecordsDrop {
    fn drop(&mut self) {
        self.0.record("the other is dropped");
    }
}

/// Takes over 4 KiB in the list of Info.
fn long_key(n: usize) -> String {
    format!("{n:0>4080}")
}

async fn subscribe_long_keys(client: &Client, keys: usize) {
    let workers = (0..32).map(|worker| {
        let client = client.clone();
        async move {
            for n in (worker..keys).step_by(32) {
                client.subscribe(&long_key(n), &[]).await.unwrap();
            }
        }
    });
    together(workers).await;
}

#[tokio::test]
async fn info_of_too_many_subscriptions_is_cut_and_says_so() {
    const KEYS: usize = 1_100;
    let (_, _started, client) = probe().start(with_long_grace()).await;
    subscribe_long_keys(&client, KEYS).await;
    // The client rejects a message of more than 4 MiB, as Gofer's does.
    let info = client.info().await.unwrap();
    assert!(info.encoded_len() <= 4 * 1024 * 1024);
    let listed = info.registered.len();
    assert!((900..KEYS).contains(&listed), "{listed}");
    let expected = format!("it shows {listed} of {KEYS}");
    assert!(info.documentation.contains(&expected), "{}", info.documentation);
    for n in 0..200 {
        client.unsubscribe(&long_key(n)).await.unwrap();
    }
    let info = client.info().await.unwrap();
    assert_eq!(info.registered.len(), KEYS - 200);
    assert!(!info.documentation.contains("was cut"), "{}", info.documentation);
}

#[tokio::test]
async fn info_of_too_many_failing_subscriptions_is_cut_as_well() {
    let extension = probe().serve(|_, _| async {
        let whole_answer = "the chat does not answer: <html>…".repeat(600);
        Err(Error::unavailable(whole_answer))
    });
    let (_, _started, client) = extension.start(with_long_grace()).await;
    subscribe_long_keys(&client, 1_100).await;
    let info = client.info().await.unwrap();
    assert!(info.encoded_len() <= 4 * 1024 * 1024, "{}", info.encoded_len());
    assert!(info.documentation.contains("the chat does not answer"));
}

#[tokio::test]
async fn a_subscribe_that_outlives_its_deadline_happens_nevertheless() {
    let (probe, _started, client) = ends_at_gate().start(with_long_grace()).await;
    client.subscribe("a", &[("value", "1")]).await.unwrap();
    let mut request = tonic::Request::new(ExtensionSubscribeRequest {
        namespace_id: String::new(),
        pipeline_id: "a".to_owned(),
        pipeline_extension_label: "l".to_owned(),
        config: [("value".to_owned(), "2".to_owned())].into(),
    });
    request.set_timeout(Duration::from_millis(50));
    let status = within(client.raw().subscribe(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    probe.open_gate();
    probe.until_seen("start a 2").await;
}
