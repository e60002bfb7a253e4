//! The limits and timeouts that an extension is installed with, and how they change.

use std::time::Duration;

use gofer_core::{Core, Grant, InstallOptions, Installed, hours, minutes, seconds};
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::embedded::{ExtensionOptions, ListExtensionStatesRequest, UpdateExtensionRequest};
use gofer_sdk::internal::transport;
use gofer_sdk::{
    Error, ErrorKind, Extension, ExternalEvent, GoDuration, Gofer, NoParams, Result, Subscription,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::probe::Probe;

#[derive(Deserialize, JsonSchema)]
struct Slow {
    /// How long initializing takes.
    #[serde(default)]
    init: Option<GoDuration>,
    /// How long each external event takes.
    #[serde(default)]
    event: Option<GoDuration>,
    /// How long shutting down takes.
    #[serde(default)]
    shutdown: Option<GoDuration>,
}

async fn spend(time: Option<GoDuration>) {
    sleep(time.map(|it| it.try_into().unwrap()).unwrap_or_default()).await;
}

impl Extension for Slow {
    type Config = Self;
    type Params = NoParams;

    async fn init(config: Self, _: Gofer) -> Result<Self> {
        spend(config.init).await;
        Ok(config)
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> Result<()> {
        subscription.cancelled().await;
        Ok(())
    }

    async fn external_event(
        &self,
        _: ExternalEvent,
        _: gofer_sdk::Subscriptions<NoParams>,
    ) -> Result<()> {
        spend(self.event).await;
        Ok(())
    }

    async fn shutdown(&self) {
        spend(self.shutdown).await;
    }
}

async fn install(
    core: &Core,
    config: [(&str, &str); 1],
    options: InstallOptions,
) -> Result<Installed> {
    core.install_with::<Slow>("slow", config, options).await
}

/// What an action returns, and how long it takes.
async fn timed<T>(action: impl Future<Output = Result<T>>) -> (Result<T>, Duration) {
    let began = Instant::now();
    (action.await, began.elapsed())
}

/// Not less than expected, and not noticeably more.
fn assert_about(took: Duration, expected: Duration) {
    assert!((expected..expected + seconds(1)).contains(&took), "{took:?}, not {expected:?}");
}

fn timed_out<T>(outcome: Result<T>) -> Error {
    let error = outcome.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    error
}

#[tokio::test(start_paused = true)]
async fn the_start_timeout_is_for_all_of_init_whatever_other_calls_have() {
    let core = Core::in_memory().await.unwrap();
    let (refused, took) = timed(install(&core, [("init", "1h")], InstallOptions::new())).await;
    assert!(timed_out(refused).to_string().contains("within 30s, its start timeout"));
    // And then it is stopped, for which it has a few seconds.
    assert!((seconds(30)..seconds(45)).contains(&took), "{took:?}");
    let options = InstallOptions::new().start_timeout(seconds(2));
    let (refused, took) = timed(install(&core, [("init", "1h")], options)).await;
    assert!(timed_out(refused).to_string().contains("within 2s, its start timeout"));
    assert!((seconds(2)..seconds(17)).contains(&took), "{took:?}");
    let options = InstallOptions::new().start_timeout(minutes(10)).call_timeout(seconds(1));
    let (installed, took) = timed(install(&core, [("init", "9m")], options)).await;
    installed.unwrap();
    assert_about(took, minutes(9));
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_call_timeout_is_for_each_other_call() {
    let core = Core::in_memory().await.unwrap();
    let slow = install(&core, [("event", "5m")], InstallOptions::new()).await.unwrap();
    let event = || slow.external_event("POST / HTTP/1.1\r\n\r\n");
    let (refused, took) = timed(event()).await;
    timed_out(refused);
    assert_about(took, seconds(30));
    slow.update_options(InstallOptions::new().call_timeout(minutes(6))).await.unwrap();
    let (handled, took) = timed(event()).await;
    handled.unwrap();
    assert_about(took, minutes(5));
    slow.update_options(InstallOptions::new().call_timeout(seconds(3))).await.unwrap();
    let (refused, took) = timed(event()).await;
    timed_out(refused);
    assert_about(took, seconds(3));
    core.stop().await;
}

/// The SDK gives an author's `shutdown` 3 s.
#[tokio::test(start_paused = true)]
async fn the_stop_timeout_is_for_the_end() {
    let core = Core::in_memory().await.unwrap();
    let slow = install(&core, [("shutdown", "2s")], InstallOptions::new()).await.unwrap();
    let (stopped, took) = timed(slow.uninstall()).await;
    stopped.unwrap();
    assert_about(took, seconds(2));
    let options = InstallOptions::new().stop_timeout(Duration::from_millis(500));
    let slow = install(&core, [("shutdown", "2s")], options).await.unwrap();
    let (stopped, took) = timed(slow.uninstall()).await;
    stopped.unwrap();
    assert_about(took, Duration::from_millis(500));
    core.stop().await;
}

#[tokio::test(start_paused = true)]
async fn options_that_cannot_be_used_are_refused_by_name() {
    let core = Core::in_memory().await.unwrap();
    for (options, name) in [
        (InstallOptions::new().start_timeout(Duration::ZERO), "`start_timeout` must be"),
        (InstallOptions::new().call_timeout(hours(1)), "`call_timeout` must be"),
        (InstallOptions::new().stop_timeout(Duration::MAX), "`stop_timeout` must be"),
        (InstallOptions::new().memory(u64::MAX), "`memory` must be"),
        (InstallOptions::new().processes(0), "`processes` must be"),
        // They would not hold for what runs in this process.
        (InstallOptions::new().memory(64 << 20), "`memory` is an option of containers"),
        (InstallOptions::new().processes(64), "`processes` is an option of containers"),
        (InstallOptions::new().writable_root(true), "`writable_root` is an option of containers"),
    ] {
        let refused = install(&core, [("init", "0s")], options.clone()).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::InvalidParameter, "{refused}");
        assert!(refused.to_string().contains(name), "{refused}");
        let slow = install(&core, [("init", "0s")], InstallOptions::new()).await.unwrap();
        let refused = slow.update_options(options).await.unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
        slow.uninstall().await.unwrap();
    }
    core.stop().await;
}

async fn shown(core: &Core) -> ExtensionOptions {
    let mut embedded = EmbeddedCoreClient::new(transport(core.client()));
    let states = embedded.list_extension_states(ListExtensionStatesRequest::default()).await;
    states.unwrap().into_inner().extensions.remove(0).options.unwrap()
}

/// The grants and the timeouts that are shown.
async fn outline(core: &Core) -> (Vec<String>, Vec<String>, [Option<i64>; 3]) {
    let it = shown(core).await;
    (it.grants, it.namespaces, [it.start_timeout, it.call_timeout, it.stop_timeout])
}

#[tokio::test(start_paused = true)]
async fn an_update_keeps_the_options_that_it_does_not_name() {
    let core = Core::in_memory().await.unwrap();
    let options = InstallOptions::new()
        .grant(Grant::ReadSecrets)
        .namespaces(["ops"])
        .stop_timeout(seconds(20));
    let probe = core.install_with::<Probe>("probe", [("id", "kept")], options).await.unwrap();
    let texts = |all: &[&str]| all.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    let reads = || (texts(&["read-secrets"]), texts(&["ops"]));
    let timeouts = |start, call, stop| [Some(start), Some(call), Some(stop)];
    assert_eq!(outline(&core).await, (reads().0, reads().1, timeouts(30_000, 30_000, 20_000)));

    probe.update_options(InstallOptions::new().call_timeout(seconds(5))).await.unwrap();
    assert_eq!(outline(&core).await, (reads().0, reads().1, timeouts(30_000, 5_000, 20_000)));
    probe.update([("refuses", "false")]).await.unwrap();
    assert_eq!(outline(&core).await, (reads().0, reads().1, timeouts(30_000, 5_000, 20_000)));

    // By name, an option gets its default; and another is set in the same call.
    let mut embedded = EmbeddedCoreClient::new(transport(core.client()));
    let request = UpdateExtensionRequest {
        name: "probe".to_owned(),
        options: Some(ExtensionOptions { start_timeout: Some(1_000), ..Default::default() }),
        reset_options: texts(&["grants", "stop_timeout"]),
        ..Default::default()
    };
    embedded.update_extension(request.clone()).await.unwrap();
    assert_eq!(outline(&core).await, (vec![], reads().1, timeouts(1_000, 5_000, 10_000)));
    let request = UpdateExtensionRequest { reset_options: texts(&["limits"]), ..request };
    let refused = embedded.update_extension(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("`grants`, `namespaces`, `memory`"), "{refused}");

    probe.set_options(InstallOptions::new().call_timeout(seconds(7))).await.unwrap();
    assert_eq!(outline(&core).await, (vec![], vec![], timeouts(30_000, 7_000, 10_000)));
    let limits = shown(&core).await;
    assert_eq!((limits.memory, limits.processes, limits.writable_root), (None, None, None));
    core.stop().await;
}
