//! What keeps subscriptions from their work is said: once when it begins and once when it is over, in
//! Info, and by the health of `gofer`.

use std::time::Duration;

use crate::support::gofer::Gofer;
use crate::support::log::Log;
use crate::support::probe::{Probed, interval, probe};
use crate::support::stand_in::{Outcome, Running, StandIn, pipeline};
use crate::support::{Client, EVENT, IDENTITY, NAME, Setup, TOKEN, long_grace, within};
use gofer_proto::StartRunRequest;
use gofer_sdk::{Error, ErrorKind, Run, Secret, Server, SystemConfig};
use tokio::time::sleep;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn subscribe(client: &Client, count: usize) {
    for n in 0..count {
        client.subscribe(&format!("p{n}"), &[("every", "10s")]).await.unwrap();
    }
}

fn pipelines(count: usize) -> StandIn {
    let names: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
    StandIn::in_memory(names.iter().map(|name| pipeline(name.as_str())))
}

async fn health(client: &Client, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    within(client.connection.health().check(request)).await.unwrap().into_inner().status()
}

/// Whether Info and health say that calls to Gofer fail; and nothing else depends on it.
async fn says_outage(client: &Client) -> bool {
    let documentation = client.info().await.unwrap().documentation;
    let is_shown = documentation.contains("## Calls to Gofer fail\n\nSince ");
    let expected = if is_shown { ServingStatus::NotServing } else { ServingStatus::Serving };
    assert_eq!(health(client, "gofer").await, expected, "{documentation}");
    assert_eq!(health(client, "").await, ServingStatus::Serving);
    assert_eq!(health(client, "proto.ExtensionService").await, ServingStatus::Serving);
    is_shown
}

/// Waits for runs, also of subscriptions that wait for minutes before they are restarted.
async fn runs_go_on(gofer: &StandIn) {
    let before = gofer.recorded().runs.len();
    for _ in 0..600 {
        if gofer.recorded().runs.len() > before + 20 {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("no runs are started");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_one_warning_for_all_subscriptions_and_one_line_when_it_is_over() {
    let log = Log::begin();
    let gofer = pipelines(20);
    let Running { client, .. } = &gofer.start(interval()).await;
    subscribe(client, 20).await;
    runs_go_on(&gofer).await;
    assert_eq!((says_outage(client).await, log.with("WARN").len()), (false, 0));
    gofer.stop_listening().await;
    gofer.disconnect();
    sleep(20 * MINUTE).await;
    let warnings = log.with("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("calls to Gofer fail"), "{warnings:#?}");
    assert!(warnings[0].contains("no server is listening"), "{warnings:#?}");
    assert!(says_outage(client).await);
    assert!(log.with("work again").is_empty());
    gofer.listen();
    runs_go_on(&gofer).await;
    let over = log.with("INFO");
    let over: Vec<_> = over.iter().filter(|line| line.contains("work again")).collect();
    assert_eq!(over.len(), 1, "{over:#?}");
    let seconds = over[0].split("seconds=").nth(1).unwrap().split(' ').next().unwrap();
    assert!((1_190..1_210).contains(&seconds.parse().unwrap()), "{over:#?}");
    sleep(10 * MINUTE).await;
    assert_eq!((says_outage(client).await, log.with("WARN").len()), (false, 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_gofer_does_not_accept_is_one_warning_for_all_subscriptions() {
    for refusal in [Status::unauthenticated("bad key"), Status::permission_denied("no key")] {
        let log = Log::begin();
        let gofer = pipelines(20);
        for method in ["EmbeddedCore/GetCapabilities", "ListRuns", "StartRun"] {
            let refusal = refusal.clone();
            gofer.decide(method, move |_| Outcome::Refuse(refusal.clone()));
        }
        let Running { client, .. } = &gofer.start(interval()).await;
        subscribe(client, 20).await;
        sleep(20 * MINUTE).await;
        let warnings = log.with("WARN");
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert!(warnings[0].contains(refusal.message()), "{warnings:#?}");
        assert!(says_outage(client).await);
        for method in ["EmbeddedCore/GetCapabilities", "ListRuns", "StartRun"] {
            gofer.decide(method, |_| Outcome::Answer);
        }
        runs_go_on(&gofer).await;
        assert_eq!(log.with("calls to Gofer work again").len(), 1);
        assert!(!says_outage(client).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gofer_that_does_not_answer_is_one_warning() {
    let log = Log::begin();
    let gofer = pipelines(20);
    let Running { client, .. } = &gofer.start(interval()).await;
    subscribe(client, 20).await;
    runs_go_on(&gofer).await;
    for method in ["EmbeddedCore/GetCapabilities", "ListRuns", "GetRun", "StartRun"] {
        gofer.decide(method, |_| Outcome::Swallow);
    }
    sleep(10 * MINUTE).await;
    let warnings = log.with("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("no answer within"), "{warnings:#?}");
    assert!(says_outage(client).await);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_said_with_the_whole_reason() {
    let log = Log::begin();
    let gofer = Gofer::untrusted();
    let extension = probe().serve(|probe, subscription| async move {
        probe.record("starting");
        subscription.start_run(Run::because("of a test")).await?;
        Ok(())
    });
    let setup = Setup { limits: long_grace(), gofer: Some(gofer.address) };
    let (probe, _started, client) = extension.start(setup).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("starting").await;
    within(async {
        while health(&client, "gofer").await == ServingStatus::Serving {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(says_outage(&client).await);
    let warnings = log.with("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("ertificate"), "{warnings:#?}");
    assert!(warnings[0].contains(&gofer.address.to_string()), "{warnings:#?}");
    let documentation = client.info().await.unwrap().documentation;
    assert!(documentation.contains("ertificate"), "{documentation}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_gofers_health_reports_each_change() {
    let gofer = pipelines(1);
    let Running { client, .. } = &gofer.start(interval()).await;
    subscribe(client, 1).await;
    let request = HealthCheckRequest { service: "gofer".to_owned() };
    let mut health = client.connection.health();
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let mut next = async || watch.message().await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::Serving);
    gofer.stop_listening().await;
    gofer.disconnect();
    assert_eq!(next().await, ServingStatus::NotServing);
    gofer.listen();
    assert_eq!(next().await, ServingStatus::Serving);
}

#[tokio::test(start_paused = true)]
async fn a_gofer_that_fails_every_other_call_does_not_fill_the_log() {
    let log = Log::begin();
    let gofer = pipelines(20);
    let Running { client, .. } = &gofer.start(interval()).await;
    subscribe(client, 20).await;
    runs_go_on(&gofer).await;
    gofer.decide("ListRuns", |call| match call.number % 2 {
        0 => Outcome::Answer,
        _ => Outcome::Refuse(Status::unauthenticated("not now")),
    });
    gofer.decide("StartRun", |call| match call.number % 2 {
        0 => Outcome::Answer,
        _ => Outcome::Refuse(Status::unauthenticated("not now")),
    });
    sleep(10 * MINUTE).await;
    assert!(gofer.recorded().calls("StartRun") > 100);
    let outages = log.with("calls to Gofer fail");
    assert!((1..=11).contains(&outages.len()), "{outages:#?}");
    let over = log.with("calls to Gofer work again");
    assert!(over.len() <= outages.len(), "{over:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_at_its_limit_is_said_once_and_that_it_no_longer_is() {
    let log = Log::begin();
    let gofer = StandIn::in_memory([pipeline("p0").parallelism(2).runs_take(40 * MINUTE / 60)]);
    let Running { client, .. } = &gofer.start(interval()).await;
    subscribe(client, 1).await;
    sleep(HOUR).await;
    let warnings = log.with("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("pipeline=default/p0"), "{warnings:#?}");
    assert!(warnings[0].contains("limit"), "{warnings:#?}");
    gofer.set(pipeline("p0").parallelism(50).runs_take(40 * MINUTE / 60));
    sleep(HOUR).await;
    assert_eq!(log.with("wait no longer").len(), 1);
    assert_eq!(log.with("WARN").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_repeated_while_others_work_is_said_once_and_that_it_is_over() {
    let log = Log::begin();
    let gofer = pipelines(5);
    gofer.decide("StartRun", |call| {
        let pipeline = &call.message::<StartRunRequest>().pipeline_id;
        match &**pipeline {
            "p0" => Outcome::Refuse(Status::unavailable("the scheduler is away")),
            _ => Outcome::Answer,
        }
    });
    let Running { client, .. } = &gofer.start(interval()).await;
    subscribe(client, 5).await;
    sleep(10 * MINUTE).await;
    let warnings = log.with("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("pipeline=default/p0"), "{warnings:#?}");
    assert!(warnings[0].contains("the scheduler is away"), "{warnings:#?}");
    gofer.decide("StartRun", |_| Outcome::Answer);
    gofer.until(|recorded| recorded.runs_of("p0").count() > 2).await;
    assert_eq!(log.with("could not be started has been started").len(), 1);
    assert!(!says_outage(client).await);
}

#[tokio::test(start_paused = true)]
async fn a_last_run_that_cannot_be_looked_up_is_said_once_and_that_it_is_over() {
    let log = Log::begin();
    let gofer = pipelines(5);
    let Running { client, probe, .. } = &gofer.start(interval()).await;
    gofer.decide("ListRuns", |_| Outcome::Refuse(Status::unavailable("the store is busy")));
    subscribe(client, 5).await;
    // Others work.
    let others = probe.gofer();
    let working = tokio::spawn(async move {
        loop {
            others.pipeline_objects("p0").list().await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
    });
    sleep(5 * MINUTE).await;
    let failing = log.with("WARN");
    let failing: Vec<_> =
        failing.iter().filter(|line| !line.contains("calls to Gofer fail")).collect();
    assert_eq!(failing.len(), 1, "{failing:#?}");
    assert!(failing[0].contains("the store is busy"), "{failing:#?}");
    gofer.decide("ListRuns", |_| Outcome::Answer);
    sleep(5 * MINUTE).await;
    assert_eq!(log.with("have been looked up").len(), 1);
    working.abort();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_fails_for_one_reason_is_said_once_and_that_it_works_again() {
    let log = Log::begin();
    let gofer = pipelines(1);
    let extension = probe().serve(|probe, subscription| async move {
        if !probe.seen().has("mended") {
            return Err(Error::new(ErrorKind::Unavailable, "the forge is away"));
        }
        subscription.start_run(Run::because("of a test")).await?;
        subscription.cancelled().await;
        Ok(())
    });
    let Running { client, probe, .. } = &gofer.start(extension).await;
    subscribe(client, 1).await;
    sleep(HOUR).await;
    assert_eq!(log.with("WARN").len(), 1, "{:#?}", log.with("WARN"));
    assert_eq!(log.with("the forge is away").len(), 1);
    probe.record("mended");
    // It waits for at most five minutes before it is restarted.
    sleep(6 * MINUTE).await;
    assert_eq!(gofer.recorded().runs.len(), 1);
    assert_eq!(log.with("the subscription starts runs again").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn webhooks_that_fail_do_not_fill_the_log() {
    let log = Log::begin();
    let gofer = pipelines(1);
    let extension = probe().event(|_, _| async { Err(Error::internal("broken")) });
    let Running { client, .. } = &gofer.start(extension).await;
    let event = "POST /external/probe HTTP/1.1\r\nhost: gofer\r\n\r\n";
    for _ in 0..1000 {
        client.external_event(event).await.unwrap_err();
    }
    assert_eq!(log.with("ERROR").len(), 60);
    sleep(MINUTE).await;
    client.external_event(event).await.unwrap_err();
    assert_eq!(log.with("failures=941").len(), 1, "{:?}", log.with("ERROR").last());
}

#[tokio::test(start_paused = true)]
async fn webhooks_that_are_refused_are_at_most_60_lines_a_minute() {
    let log = Log::begin();
    let gofer = pipelines(1);
    let extension =
        probe().event(|_, _| async { Err(Error::new(ErrorKind::PermissionDenied, "no token")) });
    let Running { client, .. } = &gofer.start(extension).await;
    for _ in 0..2 {
        for _ in 0..500 {
            client.external_event(EVENT).await.unwrap_err();
        }
        sleep(MINUTE).await;
    }
    let lines = log.with("an external event was refused");
    assert_eq!(lines.len(), 120, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("no token")), "{lines:#?}");
    // With those of the first minute that are not logged.
    assert!(lines[60].contains("refusals=441"), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_log_says_what_is_wrong_with_a_signature_and_the_sender_does_not_learn_it() {
    let log = Log::begin();
    let gofer = pipelines(1);
    let extension = probe().event(|_, event| async move {
        event.verify_hmac_sha256("X-Signature", &Secret::from("sesame"))
    });
    let Running { client, .. } = &gofer.start(extension).await;
    let unsigned = "POST /external/probe HTTP/1.1\r\n\r\nhunter2".to_owned();
    let forged = format!(
        "POST /external/probe HTTP/1.1\r\nX-Signature: {}\r\n\r\nhunter2",
        "0123".repeat(16)
    );
    for event in [unsigned, forged] {
        let status = client.external_event(event).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(status.message(), "the signature is missing or wrong");
        sleep(MINUTE).await;
    }
    let lines = log.with("an external event was refused");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let refused = "PermissionDenied: the signature is missing or wrong: ";
    assert!(lines.iter().all(|line| line.contains(refused)), "{lines:#?}");
    assert!(lines[0].contains("there is no header `X-Signature`"), "{lines:#?}");
    assert!(lines[1].contains("does not match the body"), "{lines:#?}");
    for value in ["hunter2", "0123", "sesame"] {
        assert!(log.with(value).is_empty(), "{value}");
    }
}

#[tokio::test]
async fn a_log_level_that_is_none_is_one_warning_without_its_value() {
    let log = Log::begin();
    let vars = [
        ("KEY", TOKEN.to_owned()),
        ("NAME", NAME.to_owned()),
        ("TLS_CERT", IDENTITY.certificate.clone()),
        ("TLS_KEY", IDENTITY.key.clone()),
        ("LOG_LEVEL", "hunter2".to_owned()),
    ];
    let vars = vars.map(|(name, value)| (format!("GOFER_EXTENSION_SYSTEM_{name}"), value));
    let server = Server::<Probed>::new(SystemConfig::from_vars(vars).unwrap())
        .with_listener(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .stop_when(async {});
    within(server.serve()).await.unwrap();
    let warnings = log.with("LOG_LEVEL");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    let accepted = "trace, debug, info, warn, error, fatal, panic, disabled";
    assert!(warnings[0].contains(accepted), "{warnings:#?}");
    assert!(log.with("hunter2").is_empty());
}
