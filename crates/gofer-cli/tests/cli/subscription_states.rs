//! `gofer extension get`: whether each subscription fired, and when it will.

use gofer_core::{Core, NO_SETTINGS};
use gofer_proto::extension::{ExtensionState, ExtensionStatus};
use gofer_sdk::{Error, Extension, GoDuration, Gofer, NoConfig, NoParams, Run, Subscription};
use serde_json::Value;

use crate::full_gofer::FullGofer;
use crate::shell::Machine;
use crate::support::TOKEN;

/// Does by the label what a subscription may do.
struct Acts;

impl Extension for Acts {
    type Config = NoConfig;
    type Params = NoParams;

    async fn init(_: NoConfig, _: Gofer) -> gofer_sdk::Result<Self> {
        Ok(Self)
    }

    async fn serve(&self, subscription: Subscription<NoParams>) -> gofer_sdk::Result<()> {
        match subscription.label() {
            "fails" => Err(Error::unavailable("no route\nto the queue")),
            "ticks" => {
                let mut ticks = subscription.every(GoDuration::from_hours(1))?;
                while let Some(tick) = ticks.next().await {
                    subscription.start_run(tick.run("an hour has passed")).await?;
                }
                Ok(())
            }
            "ticked" => {
                let mut ticks = subscription.every(GoDuration::from_millis(1))?;
                if let Some(tick) = ticks.next().await {
                    subscription.start_run(tick.run("the first")).await?;
                }
                subscription.cancelled().await;
                Ok(())
            }
            _ => subscription.start_run(Run::because("it began")).await.map(drop),
        }
    }
}

/// The exit code and the output of a line.
async fn outcome(address: String, token: String, line: &'static str) -> (Option<i32>, String) {
    let line = move || {
        let mut machine =
            Machine::new(&format!("states-{}-{}", address.replace(':', "-"), line.len()));
        machine.connect_to(&address, &token);
        let (status, shown) = machine.outcome(line);
        (status.code(), shown)
    };
    tokio::task::spawn_blocking(line).await.unwrap()
}

async fn get(core: &Core, line: &'static str) -> String {
    let address = core.address().unwrap().to_string();
    let (exit, shown) = outcome(address, core.token().to_owned(), line).await;
    assert_eq!(exit, Some(0), "{shown}");
    shown
}

/// The lines of the table, with one space between its columns.
fn table(shown: &str) -> Vec<String> {
    let lines = shown.lines().skip_while(|line| !line.starts_with("PIPELINE "));
    let is_row = |line: &&str| line.starts_with("PIPELINE ") || line.starts_with("default/");
    let lines = lines.take_while(is_row);
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn is_time(text: &str) -> bool {
    text.len() == 20 && text.ends_with('Z') && text.starts_with("20")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_is_shown_with_the_ticks_and_errors_of_its_subscriptions() {
    let core = Core::on_loopback().await.unwrap();
    let acts = core.install::<Acts>("acts", NO_SETTINGS).await.unwrap();
    let shown = get(&core, "gofer extension get acts").await;
    assert!(shown.contains("No pipelines are subscribed to it"), "{shown}");
    let empty: Value =
        serde_json::from_str(&get(&core, "gofer --json extension get acts").await).unwrap();
    assert_eq!(empty["subscriptions"], Value::Array(Vec::new()));
    for label in ["fails", "ticked", "ticks"] {
        acts.subscribe("default/nightly", label, NO_SETTINGS).await.unwrap();
    }
    core.wait_for_runs("default/nightly", 1).await.unwrap();
    // Until it is known that there was no run before, and while the one that fails waits.
    let lines = loop {
        let lines = table(&get(&core, "gofer extension get acts").await);
        if lines[1].contains(" failed ") && !lines[3].contains("ticks active - - -") {
            break lines;
        }
    };
    assert_eq!(lines[0], "PIPELINE LABEL STATE LAST TICK NEXT TICK LAST ERROR");
    let error =
        lines[1].strip_prefix("default/nightly fails failed - - no route to the queue (").unwrap();
    assert!(is_time(&error[..20]), "{error}");
    let ticked: Vec<_> = lines[2].split(' ').collect();
    assert!(
        ticked[1..3] == ["ticked", "active"] && is_time(ticked[3]) && ticked[5] == "-",
        "{ticked:?}"
    );
    let ticks: Vec<_> = lines[3].split(' ').collect();
    assert!(
        ticks[1..4] == ["ticks", "active", "-"] && is_time(ticks[4]) && ticks[5] == "-",
        "{ticks:?}"
    );
    assert_eq!(lines.len(), 4);

    let json: Value =
        serde_json::from_str(&get(&core, "gofer --json extension get acts").await).unwrap();
    assert_eq!(json["name"], "acts");
    let [fails, ticked, ticks] = &json["subscriptions"].as_array().unwrap()[..] else {
        panic!("{json}");
    };
    assert_eq!(fails["namespace"], "default");
    assert_eq!(fails["last_error"]["message"], "no route\nto the queue");
    assert!(fails["last_error"]["at"].is_string() && fails["last_error"]["restarts"].is_number());
    assert!(ticked["last_tick"].is_string() && ticked["last_error"].is_null(), "{ticked}");
    assert!(ticks["last_tick"].is_null() && ticks["next_tick"].is_string(), "{ticks}");
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_shown_the_first_hundred_and_json_has_all() {
    let core = Core::on_loopback().await.unwrap();
    let acts = core.install::<Acts>("acts", NO_SETTINGS).await.unwrap();
    for n in 0..100 {
        acts.subscribe("default/nightly", &format!("l{n:04}"), NO_SETTINGS).await.unwrap();
    }
    let shown = get(&core, "gofer extension get acts").await;
    assert!(table(&shown).len() == 101 && !shown.contains("There are more"), "{shown}");
    for n in 100..1001 {
        acts.subscribe("default/nightly", &format!("l{n:04}"), NO_SETTINGS).await.unwrap();
    }
    let shown = get(&core, "gofer extension get acts").await;
    assert_eq!(table(&shown).len(), 101, "{shown}");
    assert!(shown.contains("There are more; `gofer extension get acts --json`"), "{shown}");
    let text = get(&core, "gofer --json extension get acts").await;
    let json: Value = serde_json::from_str(&text).unwrap();
    let listed = json["subscriptions"].as_array().unwrap();
    let labels: Vec<_> = listed.iter().map(|it| it["label"].as_str().unwrap()).collect();
    assert!(labels.iter().copied().eq((0..1001).map(|n| format!("l{n:04}"))), "{labels:?}");
    // As any other document, with its keys in order.
    assert_eq!(text.trim_end(), format!("{json:#}"));
    core.stop().await;
}

#[tokio::test]
async fn a_full_gofer_has_no_such_section() {
    let gofer = FullGofer::start();
    let installed = (ExtensionState::Running, ExtensionStatus::Enabled);
    gofer.state().extensions.insert("chat".to_owned(), installed);
    let address = gofer.address.to_string();
    let get = "gofer extension get chat";
    let (code, shown) = outcome(address.clone(), TOKEN.to_owned(), get).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("PIPELINE") && !shown.contains("subscribed"), "{shown}");
    let get = "gofer --json extension get chat";
    let (code, shown) = outcome(address, TOKEN.to_owned(), get).await;
    assert_eq!(code, Some(0), "{shown}");
    let json: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(json["subscriptions"], Value::Null);
}
