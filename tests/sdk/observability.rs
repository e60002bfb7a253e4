//! What operators see of an extension: the subscription on each line of an author's log, and metrics.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gofer_core::{Core, Installed, NO_SETTINGS, minutes, seconds};
use gofer_sdk::{
    Error, ErrorKind, Extension, ExternalEvent, GoDuration, Gofer, NoConfig, Result, Run,
    Subscription, Subscriptions,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Dispatch, Instrument as _};
use tracing_subscriber::fmt::format::FmtSpan;

/// Logs wherever code of an author's runs.
struct Chatty;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    /// What it does.
    mode: String,
}

impl Extension for Chatty {
    type Config = NoConfig;
    type Params = Params;

    async fn init(_: NoConfig, _: Gofer) -> Result<Self> {
        tracing::info!("said in init");
        Ok(Self)
    }

    fn validate(&self, _: &Params) -> Result<()> {
        tracing::info!("said in validate");
        Ok(())
    }

    async fn serve(&self, subscription: Subscription<Params>) -> Result<()> {
        tracing::info!("said in serve");
        match &*subscription.params().mode {
            "fail" => return Err(Error::unavailable("on purpose")),
            "return" => return Ok(()),
            _ => {}
        }
        subscription.spawn(async { tracing::info!("said in what is spawned") });
        tokio::spawn(
            async {
                tokio::task::yield_now().await;
                tracing::info!("said in a task of its own");
            }
            .in_current_span(),
        );
        let mut ticks =
            subscription.every(GoDuration::from_mins(1))?.max_lateness(GoDuration::from_mins(30));
        while let Some(tick) = ticks.next().await {
            tracing::info!("said at a tick");
            match subscription.start_run(tick.run("a minute has passed")).await {
                Err(error) if error.kind() == ErrorKind::FailedPrecondition => {}
                outcome => drop(outcome?),
            }
            if subscription.params().mode == "late" {
                tokio::time::sleep(Duration::from_secs(270)).await;
            }
        }
        Ok(())
    }

    async fn external_event(
        &self,
        event: ExternalEvent,
        subscriptions: Subscriptions<Params>,
    ) -> Result<()> {
        tracing::info!("said in external_event");
        if event.body().is_empty() {
            return Err(Error::new(ErrorKind::PermissionDenied, "the signature is missing"));
        }
        subscriptions.start_runs(|_| Some(Run::because("an event").key("once"))).await.map(drop)
    }

    async fn shutdown(&self) {
        tracing::info!("said in shutdown");
    }
}

async fn chatty(mode: &str) -> (Core, Installed) {
    let core = Core::in_memory().await.unwrap();
    let chatty = core.install::<Chatty>("chatty", NO_SETTINGS).await.unwrap();
    chatty.subscribe("ops/nightly", "docs", [("mode", mode)]).await.unwrap();
    (core, chatty)
}

/// What a subscriber that an author brings writes, while it lives.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn begin(&self) -> (DefaultGuard, Dispatch) {
        self.begin_with(FmtSpan::NONE)
    }

    /// With lines for spans too.
    fn begin_with(&self, spans: FmtSpan) -> (DefaultGuard, Dispatch) {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || lines.clone())
            .with_ansi(false)
            .with_span_events(spans)
            .finish();
        // With a single one, tracing would remember that nobody wants a line which the thread of
        // another test logged first.
        (tracing::subscriber::set_default(subscriber), Dispatch::new(NoSubscriber::new()))
    }

    /// The lines with a text.
    fn with(&self, text: &str) -> Vec<String> {
        let written = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> =
            written.lines().filter(|it| it.contains(text)).map(str::to_owned).collect();
        assert!(!lines.is_empty(), "no line has `{text}`:\n{written}");
        lines
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SUBSCRIPTION: &str = r#"subscription{namespace="ops" pipeline="nightly" label="docs"}"#;

/// How many spans of the subscription have been made, and how many closed.
fn spans(lines: &Lines) -> (usize, usize) {
    let of =
        |event: &str| lines.with(event).iter().filter(|line| line.contains(SUBSCRIPTION)).count();
    (of(": new"), of(": close"))
}

#[tokio::test(start_paused = true)]
async fn a_span_is_kept_for_the_call_of_a_tick_and_none_at_rest() {
    let lines = Lines::default();
    let _logged = lines.begin_with(FmtSpan::NEW | FmtSpan::CLOSE);
    let (core, _chatty) = chatty("tick").await;
    core.elapse(seconds(90)).await;
    let (made, closed) = spans(&lines);
    assert_eq!(made, closed);
    core.elapse(seconds(60)).await;
    assert_eq!(core.runs("ops/nightly").len(), 2);
    assert_eq!(spans(&lines), (made + 1, closed + 1));
}

#[tokio::test(start_paused = true)]
async fn one_span_lasts_from_the_validation_to_the_first_poll() {
    let lines = Lines::default();
    let _logged = lines.begin_with(FmtSpan::NEW | FmtSpan::CLOSE);
    let (core, chatty) = chatty("return").await;
    core.elapse(seconds(1)).await;
    assert_eq!(spans(&lines), (1, 1));
    // What is not started keeps none either.
    chatty.subscribe("ops/nightly", "docs", [("mode", "return")]).await.unwrap();
    let (made, closed) = spans(&lines);
    assert_eq!(made, closed);
}

#[tokio::test(start_paused = true)]
async fn each_line_of_an_author_says_which_subscription_or_call_it_is_of() {
    let lines = Lines::default();
    let _logged = lines.begin();
    let (core, chatty) = chatty("tick").await;
    core.elapse(seconds(61)).await;
    chatty.post(NO_SETTINGS, "").await.unwrap_err();
    chatty.uninstall().await.unwrap();
    for text in ["validate", "serve", "what is spawned", "a task of its own", "at a tick"] {
        for line in lines.with(&format!("said in {text}").replace("in at", "at")) {
            assert!(line.contains(SUBSCRIPTION), "{line}");
        }
    }
    for (text, call) in
        [("init", "Init"), ("external_event", "ExternalEvent"), ("shutdown", "Shutdown")]
    {
        for line in lines.with(&format!("said in {text}")) {
            assert!(line.contains(&format!(r#"call{{call="{call}"}}"#)), "{line}");
            assert!(!line.contains("subscription{"), "{line}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_logged_with_its_subscription() {
    let lines = Lines::default();
    let _logged = lines.begin();
    let (core, _chatty) = chatty("fail").await;
    core.elapse(minutes(1)).await;
    for line in lines.with("the subscription failed and will be restarted") {
        assert!(line.contains(SUBSCRIPTION), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_webhook_is_one_line_with_the_reason() {
    let lines = Lines::default();
    let _logged = lines.begin();
    let (_core, chatty) = chatty("return").await;
    for _ in 0..3 {
        chatty.post(NO_SETTINGS, "").await.unwrap_err();
    }
    let refused = lines.with("an external event was refused");
    assert_eq!(refused.len(), 3, "each is said: {refused:?}");
    for line in refused {
        assert!(line.contains("the signature is missing"), "{line}");
    }
}

/// Runs a test on one thread with a paused clock, and a recorder of its own.
fn measured(test: impl AsyncFnOnce(PrometheusHandle)) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(test(handle)));
}

/// A metric with its labels but for the extension's name, as it is now.
fn value(metrics: &PrometheusHandle, name: &str, label: &str) -> Option<f64> {
    let rendered = metrics.render();
    let labels = match label {
        "" => r#"{extension="chatty"}"#.to_owned(),
        label => format!(r#"{{extension="chatty",{label}}}"#),
    };
    let line = rendered.lines().find_map(|line| line.strip_prefix(&format!("{name}{labels} ")));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn every_tick_is_counted_as_fired_coalesced_or_dropped() {
    measured(async |metrics| {
        let ticks = |outcome: &str| {
            let label = format!(r#"outcome="{outcome}""#);
            value(&metrics, "gofer_extension_ticks_total", &label)
        };
        let (core, _chatty) = chatty("late").await;
        assert_eq!(
            (ticks("fired"), ticks("coalesced"), ticks("dropped")),
            (Some(0.0), Some(0.0), Some(0.0))
        );
        // Fired at 1:00; those from 2:00 to 5:00 become one at 5:30.
        core.elapse(seconds(345)).await;
        assert_eq!((ticks("fired"), ticks("coalesced")), (Some(2.0), Some(3.0)));
        let late = |part: &str| {
            value(&metrics, &format!("gofer_extension_tick_lateness_seconds_{part}"), "")
        };
        assert_eq!(late("count"), Some(2.0));
        let sum = late("sum").unwrap();
        assert!((sum - 30.0).abs() < 0.1, "{sum}");
        assert_eq!(ticks("dropped"), Some(0.0));
    });
}

#[test]
fn starts_are_timed_by_outcome() {
    measured(async |metrics| {
        let starts = |outcome: &str| {
            let label = format!(r#"outcome="{outcome}""#);
            value(&metrics, "gofer_extension_run_start_duration_seconds_count", &label)
        };
        let (core, _chatty) = chatty("tick").await;
        assert_eq!(starts("ok"), None);
        core.elapse(seconds(125)).await;
        assert_eq!(starts("ok"), Some(2.0));
        core.close_api().await;
        core.elapse(seconds(90)).await;
        core.reopen_api().await.unwrap();
        core.elapse(seconds(20)).await;
        assert_eq!(starts("ok"), Some(3.0), "one, with all its attempts");
        let label = r#"outcome="ok""#;
        let sum = value(&metrics, "gofer_extension_run_start_duration_seconds_sum", label).unwrap();
        assert!(sum > 20.0, "the outage is part of it: {sum}");
    });
}

#[test]
fn subscriptions_are_counted_by_state() {
    measured(async |metrics| {
        let counts = || {
            ["serving", "restarting", "idle"].map(|state| {
                let label = format!(r#"state="{state}""#);
                value(&metrics, "gofer_extension_subscriptions", &label).unwrap().to_string()
            })
        };
        let (core, chatty) = chatty("tick").await;
        chatty.subscribe("ops/other", "docs", [("mode", "fail")]).await.unwrap();
        chatty.subscribe("ops/third", "docs", [("mode", "return")]).await.unwrap();
        core.elapse(minutes(1)).await;
        assert_eq!(counts(), ["1", "1", "1"]);
        chatty.subscribe("ops/other", "docs", [("mode", "tick")]).await.unwrap();
        core.elapse(seconds(1)).await;
        assert_eq!(counts(), ["2", "0", "1"], "a change is none more");
        for pipeline in ["ops/nightly", "ops/other", "ops/third"] {
            chatty.unsubscribe(pipeline, "docs").await.unwrap();
        }
        assert_eq!(counts(), ["0", "0", "0"]);
    });
}

#[test]
fn external_events_are_counted_by_outcome() {
    measured(async |metrics| {
        let events = |outcome: &str| {
            let label = format!(r#"outcome="{outcome}""#);
            value(&metrics, "gofer_extension_external_events_total", &label)
        };
        let (_core, chatty) = chatty("return").await;
        chatty.post(NO_SETTINGS, "a body").await.unwrap();
        chatty.post(NO_SETTINGS, "a body").await.unwrap();
        chatty.post(NO_SETTINGS, "").await.unwrap_err();
        chatty.external_event("no request").await.unwrap_err();
        assert_eq!(events("ok"), Some(2.0));
        assert_eq!(events("permission_denied"), Some(1.0));
        assert_eq!(events("invalid_parameter"), Some(1.0));
    });
}

#[test]
fn an_outage_of_gofer_shows() {
    measured(async |metrics| {
        let reachable = || value(&metrics, "gofer_extension_gofer_reachable", "").unwrap();
        let (core, _chatty) = chatty("tick").await;
        assert!(reachable() > 0.5);
        core.close_api().await;
        core.elapse(seconds(90)).await;
        assert!(reachable() < 0.5);
        core.reopen_api().await.unwrap();
        core.elapse(seconds(30)).await;
        assert!(reachable() > 0.5);
    });
}
