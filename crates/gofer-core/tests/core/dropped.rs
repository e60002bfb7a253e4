//! The future of a public method is dropped in the middle: what has begun is completed, and what
//! comes next finds a core in order.

use std::cell::Cell;
use std::time::Duration;

use gofer_core::{Core, ExtensionState, NO_SETTINGS, hours, minutes, seconds};
use gofer_sdk::{ErrorKind, Extension, Gofer, NoParams, Result, Run, RunStatus, Subscription};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(hours(1), future).await.expect("it hangs")
}

/// Begins a call, and drops it once `begun`.
async fn drop_once<T>(call: impl Future<Output = T>, begun: impl Future) {
    tokio::select! {
        biased;
        _ = call => panic!("it has completed"),
        _ = begun => {}
    }
}

#[derive(Deserialize, JsonSchema)]
struct Config {
    /// Accepts no subscriptions.
    #[serde(default)]
    is_closed: bool,
}

/// Takes a second for everything.
struct Slow {
    is_closed: bool,
}

thread_local! {
    /// How often it was shut down. All of a test runs on one thread.
    static CLEANED_UP: Cell<usize> = const { Cell::new(0) };
}

impl Extension for Slow {
    type Config = Config;
    type Params = NoParams;

    async fn init(config: Config, _: Gofer) -> Result<Self> {
        tokio::time::sleep(seconds(1)).await;
        Ok(Self { is_closed: config.is_closed })
    }

    fn validate(&self, _: &NoParams) -> Result<()> {
        if self.is_closed {
            return Err(gofer_sdk::Error::invalid_parameter("every", "is not wanted"));
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        subscription.cancelled().await;
        tokio::time::sleep(seconds(1)).await;
        Ok(())
    }

    async fn shutdown(&self) {
        tokio::time::sleep(seconds(1)).await;
        CLEANED_UP.set(CLEANED_UP.get() + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_installation_and_an_update_that_have_begun_are_completed() {
    let core = Core::in_memory().await.unwrap();
    let states = core.clone();
    let begun = async {
        while states.installed("slow").is_err() {
            tokio::task::yield_now().await;
        }
    };
    drop_once(core.install::<Slow>("slow", NO_SETTINGS), begun).await;
    let slow = core.installed("slow").unwrap();
    within(slow.wait_for(|status| status.state == ExtensionState::Running)).await;
    slow.subscribe("a/b", "c", NO_SETTINGS).await.unwrap();

    let begun = slow.wait_for(|status| status.state == ExtensionState::Updating);
    drop_once(slow.update([("is_closed", "true")]), begun).await;
    within(slow.wait_for(|status| status.state == ExtensionState::Running)).await;
    let refused = slow.subscribe("a/b", "other", NO_SETTINGS).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidParameter, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_has_begun_is_completed() {
    let core = Core::in_memory().await.unwrap();
    let slow = core.install::<Slow>("slow", NO_SETTINGS).await.unwrap();
    slow.subscribe("a/b", "c", NO_SETTINGS).await.unwrap();
    let begun = slow.wait_for(|status| status.state != ExtensionState::Running);
    drop_once(slow.restart(), begun).await;
    let status = within(slow.wait_for(|status| status.state != ExtensionState::Starting)).await;
    assert_eq!(status.state, ExtensionState::Running, "{status:?}");
    core.elapse(seconds(1)).await;
    assert_eq!(slow.info().await.unwrap().registered, ["a/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_has_begun_is_completed_and_may_be_waited_for() {
    let core = Core::in_memory().await.unwrap();
    let slow = core.install::<Slow>("slow", NO_SETTINGS).await.unwrap();
    slow.subscribe("a/b", "c", NO_SETTINGS).await.unwrap();
    drop_once(core.stop(), tokio::time::sleep(Duration::from_millis(100))).await;
    core.stop().await;
    assert_eq!(CLEANED_UP.get(), 1, "it was killed");
}

#[tokio::test(start_paused = true)]
async fn each_of_two_stops_waits_for_the_runs() {
    let core = Core::builder()
        .run_handler(|_| async {
            tokio::time::sleep(seconds(5)).await;
            Ok(())
        })
        .start()
        .await
        .unwrap();
    let idle = core.install::<Slow>("slow", NO_SETTINGS).await.unwrap();
    idle.subscribe("a/b", "c", NO_SETTINGS).await.unwrap();
    core.client().start_run("a/b", "c", Run::because("of the test")).await.unwrap();
    core.elapse(Duration::from_millis(1)).await;
    let other = core.clone();
    let first = tokio::spawn(async move { other.stop().await });
    tokio::time::sleep(seconds(3)).await;
    core.stop().await;
    assert_eq!(core.runs("a/b")[0].status(), RunStatus::Successful);
    first.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn time_that_was_not_waited_for_has_not_passed() {
    let core = Core::in_memory().await.unwrap();
    let began = Instant::now();
    drop_once(core.elapse(hours(1)), tokio::time::sleep(minutes(1))).await;
    core.elapse(minutes(2)).await;
    let passed = began.elapsed();
    assert!((minutes(3)..minutes(3) + seconds(1)).contains(&passed), "{passed:?}");
}

#[tokio::test]
async fn an_api_that_was_being_closed_can_be_reopened() {
    let core = Core::on_loopback().await.unwrap();
    drop_once(core.close_api(), std::future::ready(())).await;
    // The address is free again.
    core.reopen_api().await.unwrap();
    core.stop().await;
}

/// Other tests take free ports all the time.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_port_of_an_api_that_is_closed_is_given_to_nobody_else() {
    let core = Core::on_loopback().await.unwrap();
    let address = core.address().unwrap();
    core.close_api().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "connections are refused");
    // As a port is chosen: one that is bound to nothing.
    let bind = || tokio::net::TcpSocket::new_v4().unwrap().bind(address);
    assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    core.reopen_api().await.unwrap();
    core.stop().await;
    // A program that is being started at this moment has a copy of the socket until it runs.
    let free = async {
        while bind().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), free).await.unwrap();
}

#[cfg(feature = "store")]
#[tokio::test]
async fn a_core_whose_start_was_dropped_leaves_nothing() {
    use crate::files::Directory;

    let directory = Directory::new("dropped-start");
    let builder = || Core::builder().listen(([127, 0, 0, 1], 0)).store(directory.0.join("store"));
    let mut completed = false;
    let mut polls = 1;
    // Dropped after one poll, after two, and so on, in longer steps if it takes many.
    while !completed {
        let mut start = Box::pin(builder().start());
        let mut in_use = false;
        for _ in 0..polls {
            let next = std::future::poll_fn(|context| {
                std::task::Poll::Ready(start.as_mut().poll(context))
            });
            match next.await {
                std::task::Poll::Pending => {}
                std::task::Poll::Ready(Ok(core)) => {
                    completed = true;
                    core.stop().await;
                    break;
                }
                // It is read or closed in the background.
                std::task::Poll::Ready(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
                    in_use = true;
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(start);
        if in_use {
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else {
            polls += 1 + polls / 8;
        }
    }
    within(async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
