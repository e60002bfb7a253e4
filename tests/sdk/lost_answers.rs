//! Answers of Gofer that get lost: whether a run was started is found out, and none is started a
//! second time.

use std::sync::Arc;
use std::time::Duration;

use crate::support::gofer::{Gofer, Then, run_of};
use crate::support::probe::{Builder, Probe, probe};
use crate::support::{Client, Setup, Started, long_grace};
use gofer_proto::initiator;
use gofer_sdk::{ErrorKind, Run};
use tonic::Status;

async fn start(extension: Builder, gofer: &Gofer) -> (Arc<Probe>, Started, Client) {
    extension.start(Setup { limits: long_grace(), gofer: Some(gofer.address) }).await
}

/// Waits until the extension has taken up what Gofer answered before, and Gofer what the extension
/// sent before: one connection keeps the order.
async fn settled(probe: &Probe, client: &Client) {
    probe.gofer().runs("another", 1).await.unwrap();
    client.info().await.unwrap();
}

/// Starts a first run, so that its number is known, and then a second one.
fn starts_two_runs() -> Builder {
    probe().serve(|probe, subscription| async move {
        for _ in 0..2 {
            let run = subscription.start_run(Run::because("of a test")).await?;
            probe.record(format!("started {}", run.id()));
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_run_whose_answer_got_lost_is_found_and_not_started_again() {
    let gofer = Gofer::there(|_, number| match number {
        2 => Then::StartAndHangUp,
        _ => Then::Answer,
    });
    let (probe, _started, client) = start(starts_two_runs(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 2").await;
    let book = gofer.book();
    assert_eq!((book.starts, book.runs.len(), book.lists), (2, 2, 1));
}

#[tokio::test]
async fn runs_of_others_are_not_mistaken_for_the_one_whose_answer_got_lost() {
    let gofer = Arc::new(Gofer::there(|_, number| match number {
        2 => Then::Refuse(Status::deadline_exceeded("a proxy gave up")),
        _ => Then::Answer,
    }));
    let extension = probe().serve({
        let gofer = Arc::clone(&gofer);
        move |probe, subscription| {
            let gofer = Arc::clone(&gofer);
            async move {
                subscription.start_run(Run::because("of a test")).await?;
                // Newer than ours, of another label and by a person.
                gofer.remember(run_of("a", 2, initiator::Type::Extension, "probe (other)"));
                gofer.remember(run_of("a", 3, initiator::Type::Human, "probe (l)"));
                let run = subscription.start_run(Run::because("of a test")).await?;
                probe.record(format!("started {}", run.id()));
                Ok(())
            }
        }
    });
    let (probe, _started, client) = start(extension, &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 4").await;
    assert_eq!(gofer.book().starts, 3);
}

#[tokio::test]
async fn a_proxy_that_lost_gofer_in_mid_call_does_not_make_two_runs() {
    let gofer = Gofer::there(|_, number| match number {
        2 => Then::StartAndRefuse(Status::unavailable(
            "upstream connect error or disconnect/reset before headers",
        )),
        _ => Then::Answer,
    });
    let (probe, _started, client) = start(starts_two_runs(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 2").await;
    assert_eq!((gofer.book().starts, gofer.book().runs.len()), (2, 2));
}

#[tokio::test]
async fn two_starts_at_once_of_one_subscription_are_two_runs_though_an_answer_gets_lost() {
    let gofer = Gofer::there(|_, number| match number {
        2 => Then::Hold,
        _ => Then::Answer,
    });
    let extension = probe().serve(|probe, subscription| async move {
        subscription.start_run(Run::because("first")).await?;
        let (one, other) = tokio::join!(
            subscription.start_run(Run::because("one")),
            subscription.start_run(Run::because("other")),
        );
        probe.record(format!("started {} and {}", one?.id(), other?.id()));
        Ok(())
    });
    let (probe, _started, client) = start(extension, &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    gofer.until(|book| book.in_flight == 1 && book.starts >= 2).await;
    // Were the other one under way too, its run could be taken for this one's.
    settled(&probe, &client).await;
    gofer.hang_up();
    probe.until_seen("started 2 and 3").await;
    let book = gofer.book();
    let reasons = book.runs.iter().map(|run| run.initiator.as_ref().unwrap().reason.as_str());
    assert!(reasons.eq(["first", "one", "other"]), "{:?}", book.runs);
}

#[tokio::test]
async fn if_the_last_run_is_not_known_a_lost_answer_is_reported_and_nothing_started_again() {
    let gofer = Gofer::there(|_, _| Then::StartAndHangUp);
    let extension = probe().serve(|probe, subscription| async move {
        let error = subscription.start_run(Run::because("of a test")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        probe.record("told");
        Ok(())
    });
    let (probe, _started, client) = start(extension, &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("told").await;
    assert_eq!(gofer.book().starts, 1);
}

#[tokio::test]
async fn a_tick_whose_answer_got_lost_starts_one_run() {
    // No run is known of until Gofer has been asked, a second after Subscribe.
    let gofer = Gofer::there(|_, number| match number {
        1 => Then::StartAndHangUp,
        _ => Then::Answer,
    });
    let extension = probe().serve(|probe, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        while ticks.next().await {
            let run = subscription.start_run(Run::because("the interval elapsed")).await?;
            probe.record(format!("started {}", run.id()));
        }
        Ok(())
    });
    let (probe, _started, client) = start(extension, &gofer).await;
    client.subscribe("a", &[("every", "2s")]).await.unwrap();
    gofer.until(|book| book.lists == 1 && book.starts == 0).await;
    probe.until_seen("started 1").await;
    client.unsubscribe("a").await.unwrap();
    assert_eq!((gofer.book().starts, gofer.book().runs.len()), (1, 1));
}

/// As after an outage, a tick falls due before Gofer has said when the last run was: the call and
/// the question are on their way at the same time.
#[tokio::test]
async fn a_lost_answer_beside_the_question_for_the_last_run_makes_no_second_run() {
    let gofer = Gofer::there(|_, number| match number {
        1 => Then::Hold,
        _ => Then::Answer,
    });
    let extension = probe().serve(|probe, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        ticks.next().await;
        // Whether the run is found or its loss is told: there is one.
        let _ = subscription.start_run(Run::because("the interval elapsed")).await;
        probe.record("done");
        subscription.cancelled().await;
        Ok(())
    });
    let (probe, _started, client) = start(extension, &gofer).await;
    client.subscribe("a", &[("every", "200ms")]).await.unwrap();
    // The question is asked a second after Subscribe, and its answer has the run of the call that
    // is held.
    gofer.until(|book| book.in_flight == 1 && book.lists == 1).await;
    settled(&probe, &client).await;
    gofer.hang_up();
    probe.until_seen("done").await;
    assert_eq!((gofer.book().starts, gofer.book().runs.len()), (1, 1));
}

#[tokio::test]
async fn ticks_missed_behind_a_lost_answer_become_one_run() {
    let gofer = Gofer::there(|_, number| match number {
        2 => Then::Hold,
        _ => Then::Answer,
    });
    let extension = probe().serve(|_, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        while ticks.next().await {
            subscription.start_run(Run::because("the interval elapsed")).await?;
        }
        Ok(())
    });
    let (_, _started, client) = start(extension, &gofer).await;
    client.subscribe("a", &[("every", "1500ms")]).await.unwrap();
    gofer.until(|book| book.in_flight == 1 && book.runs.len() == 2).await;
    // Two ticks fall due before it is known that the second run has started.
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    gofer.hang_up();
    gofer.until(|book| book.runs.len() == 4).await;
    let started: Vec<i64> = gofer.book().runs.iter().map(|run| run.started).collect();
    let [_, found, overdue, next] = started[..] else { panic!("{started:?}") };
    // The tick after them is due 4.5 s after the second one.
    assert!(overdue - found < 4_200, "they wait for the tick after them: {started:?}");
    assert!(next - overdue > 100, "each makes a run of its own: {started:?}");
}
