//! An author's code that could harm the server: it panics in unexpected places, returns huge
//! errors, never pauses, or sets huge limits.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gofer_sdk::{Error, ErrorKind, Extension, Gofer, Limits, NoConfig, Result, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;
use tonic::Code;

use crate::in_memory::InMemory;
use crate::support::gofer::Behavior;
use crate::support::log::observe;
use crate::support::probe::probe;
use crate::support::{Client, EVENT, Setup, Started, short_grace, within};

/// Panics when it is dropped, unless another panic is under way.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Bomb(String);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "on purpose, in a Drop");
    }
}

#[derive(Deserialize, JsonSchema)]
struct BombParams {
    #[serde(default = "safe")]
    value: Bomb,
}

fn safe() -> Bomb {
    Bomb(String::new())
}

struct Bombs(Bomb);

impl Extension for Bombs {
    type Config = NoConfig;
    type Params = BombParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self(Bomb("the extension itself".to_owned())))
    }

    fn validate(&self, params: &BombParams) -> Result<()> {
        assert!(params.value.0 != self.0.0);
        Ok(())
    }
}

async fn bombs() -> (Started, Client) {
    let started = Setup { limits: short_grace(), ..Setup::default() }.start::<Bombs>();
    let client = started.client().await;
    client.init(&[]).await.unwrap();
    (started, client)
}

#[tokio::test]
async fn parameters_that_panic_when_dropped_do_not_block_their_key() {
    let (mut started, client) = bombs().await;
    for round in ["one", "two", "three"] {
        client.subscribe("a", &[("value", round)]).await.unwrap();
        // The same again: the parameters are decoded and dropped.
        client.subscribe("a", &[("value", round)]).await.unwrap();
    }
    client.unsubscribe("a").await.unwrap();
    client.subscribe("a", &[("value", "four")]).await.unwrap();
    client.subscribe("b", &[("value", "five")]).await.unwrap();
    assert_eq!(client.registered().await, ["default/a", "default/b"]);
    client.unsubscribe("a").await.unwrap();
    started.stop();
    started.stopped().await.unwrap();
}

#[tokio::test]
async fn an_extension_that_panics_when_dropped_is_stopped_all_the_same() {
    let (mut started, client) = bombs().await;
    client.info().await.unwrap();
    started.stop();
    started.stopped().await.unwrap();
}

/// Panics with a value that panics when it is dropped.
fn throw_bomb() -> ! {
    std::panic::panic_any(Bomb("thrown".to_owned()))
}

#[tokio::test]
async fn panics_whose_values_panic_when_dropped_end_nothing_else() {
    let extension = probe()
        .init(|_, note| async move { if note == "bad" { throw_bomb() } else { Ok(()) } })
        .serve(|probe, subscription| async move {
            subscription.spawn(async { throw_bomb() });
            if probe.seen().served == 1 {
                throw_bomb();
            }
            subscription.cancelled().await;
            throw_bomb()
        })
        .event(|_, _| async { throw_bomb() })
        .shutdown(|_, ()| async { throw_bomb() });
    let (probe, mut started, client) =
        extension.start_bare(Setup { limits: short_grace(), ..Setup::default() }).await;
    let status = client.init(&probe.config_with("bad")).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    client.init(&probe.config_with("good")).await.unwrap();
    client.subscribe("a", &[]).await.unwrap();
    probe.until(|seen| seen.served == 2).await;
    let status = client.external_event(EVENT).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    client.subscribe("a", &[("value", "2")]).await.unwrap();
    client.unsubscribe("a").await.unwrap();
    client.subscribe("b", &[]).await.unwrap();
    started.stop();
    started.stopped().await.unwrap();
    assert_eq!(probe.seen().count("shutdown"), 1);
}

/// Ends when it is cancelled, but for the pipeline `stubborn`, which never does.
struct Stubborn;

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static CLEANED_UP: AtomicBool = AtomicBool::new(false);

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Extension for Stubborn {
    type Config = NoConfig;
    type Params = BombParams;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<BombParams>) -> Result<()> {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted;
        if subscription.pipeline() == "stubborn" {
            std::future::pending::<()>().await;
        }
        subscription.cancelled().await;
        Ok(())
    }

    async fn shutdown(&self) {
        CLEANED_UP.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_waiting_change_that_panics_when_dropped_does_not_prevent_shutdown() {
    let limits = Limits::default().with_stop_grace(Duration::from_secs(1));
    let mut started = Setup { limits, ..Setup::default() }.start::<Stubborn>();
    let client = started.client().await;
    client.init(&[]).await.unwrap();
    client.subscribe("other", &[]).await.unwrap();
    client.subscribe("stubborn", &[]).await.unwrap();
    within(async {
        while RUNNING.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The first change waits for the grace, the second one behind it.
    let mut changes = Vec::new();
    for value in ["", "two"] {
        let changing = client.clone();
        changes.push(tokio::spawn(async move {
            // Whether it succeeds is not the question.
            drop(changing.subscribe("stubborn", &[("value", value)]).await);
        }));
        // On this one thread it is sent while we yield, and one connection keeps the order.
        tokio::task::yield_now().await;
        client.info().await.unwrap();
    }
    started.stop();
    started.stopped().await.unwrap();
    assert_eq!(RUNNING.load(Ordering::SeqCst), 0, "not all has ended");
    assert!(CLEANED_UP.load(Ordering::SeqCst), "it has not cleaned up");
    for change in changes {
        within(change).await.unwrap();
    }
}

/// An error that cannot be formatted.
#[derive(Debug)]
struct PanicsInDisplay;

impl fmt::Display for PanicsInDisplay {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("on purpose, in Display")
    }
}

impl std::error::Error for PanicsInDisplay {}

#[tokio::test]
async fn a_serve_whose_error_panics_in_the_log_is_started_again() {
    // Formats all that is logged on this thread, on which all of this test runs.
    let _formats = observe(
        |metadata| metadata.target().starts_with("gofer_sdk"),
        |event| {
            event.record(&mut |_: &tracing::field::Field, value: &dyn fmt::Debug| {
                drop(format!("{value:?}"));
            });
        },
    );
    let extension = probe().serve(|probe, subscription| async move {
        if probe.seen().served == 1 {
            return Err(Error::new(ErrorKind::Unavailable, "not now").with_source(PanicsInDisplay));
        }
        subscription.cancelled().await;
        Ok(())
    });
    let (probe, _started, client) = extension.start(Setup::default()).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until(|seen| seen.served == 2).await;
    let info = client.info().await.unwrap();
    assert_eq!(info.registered, ["default/a"]);
    assert!(!info.documentation.contains("Failing"), "{}", info.documentation);
}

/// An interval of a nanosecond, and a loop that never waits.
#[test]
fn ticks_without_a_pause_leave_the_server_alive() {
    let (done, over) = std::sync::mpsc::channel();
    // On a thread of its own: if the loop blocks the runtime, its timeouts do not fire.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let extension = probe().serve(|_, subscription| async move {
                let mut ticks = subscription.every(subscription.params().every.unwrap())?;
                while ticks.next().await.is_some() {}
                Ok(())
            });
            let (_, _started, client) = extension.start(Setup::default()).await;
            client.subscribe("a", &[("every", "1ns")]).await.unwrap();
            client.unsubscribe("a").await.unwrap();
        });
        done.send(()).unwrap();
    });
    over.recv_timeout(Duration::from_secs(120)).expect("one parameter blocks the extension");
}

#[tokio::test]
async fn huge_limits_do_not_overflow() {
    for longest in [Duration::MAX, Duration::from_secs(i64::MAX.unsigned_abs())] {
        let limits = Limits::default()
            .with_stop_grace(longest)
            .with_handshake_timeout(longest)
            .with_first_call_timeout(longest)
            .with_conversations(usize::MAX)
            .with_connections(usize::MAX)
            .with_calls_per_connection(u32::MAX)
            .with_message_bytes(usize::MAX);
        let (_probe, mut started, client) =
            probe().start(Setup { limits, ..Setup::default() }).await;
        client.subscribe("a", &[("value", "1")]).await.unwrap();
        client.subscribe("a", &[("value", "2")]).await.unwrap();
        client.unsubscribe("a").await.unwrap();
        client.subscribe("b", &[("every", "2562047h")]).await.unwrap();
        started.stop();
        started.stopped().await.unwrap();
    }
}

#[tokio::test]
async fn long_errors_are_truncated() {
    let long = || "x".repeat(1 << 20);
    let chatty = probe()
        .serve(move |_, _| async move { Err(Error::unavailable(long())) })
        .event(move |_, _| async move { Err(Error::unavailable(long())) });
    let (probe, _started, client) = chatty.start(Setup::default()).await;
    for pipeline in ["a", "b", "c", "d", "e", "f"] {
        client.subscribe(pipeline, &[]).await.unwrap();
    }
    probe.until(|seen| seen.served >= 6).await;
    let info = client.info().await.unwrap();
    assert!(info.documentation.contains("default/a"), "{}", info.documentation.len());
    assert!(info.documentation.len() < 64 << 10, "{} bytes", info.documentation.len());
    let status = client.external_event(EVENT).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn dropping_a_server_ends_its_subscriptions() {
    let (probe, started, client) = probe().start(Setup::default()).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until(|seen| seen.running.len() == 1).await;
    started.abandon();
    within(probe.until(|seen| seen.running.is_empty())).await;
}

/// The cause of an error.
#[derive(Debug)]
struct BombCause(#[expect(dead_code, reason = "it panics when it is dropped")] Bomb);

impl fmt::Display for BombCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("of its own")
    }
}

impl std::error::Error for BombCause {}

#[tokio::test(start_paused = true)]
async fn a_serve_whose_errors_panic_when_dropped_is_called_again() {
    let extension = probe().serve(|_, _| async {
        let cause = BombCause(Bomb("an error".to_owned()));
        Err(Error::unavailable("no route").with_source(cause))
    });
    let InMemory { client, probe, .. } = &InMemory::start(extension, |_, _| Behavior::Answer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until(|seen| seen.count("end a ") == 3).await;
}
