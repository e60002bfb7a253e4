//! Lost answers of Gofer: the extension finds out whether a run was started, and starts none a
//! second time.

use std::sync::Arc;

use crate::in_memory::InMemory;
use crate::support::gofer::{Behavior, Gofer, run_of};
use crate::support::probe::{Builder, Probe, probe};
use crate::support::{Client, Setup, Started, long_grace};
use gofer_proto::initiator;
use gofer_sdk::Run;
use tonic::Status;

async fn start(extension: Builder, gofer: &Gofer) -> (Arc<Probe>, Started, Client) {
    extension.start(Setup { limits: long_grace(), gofer: Some(gofer.address) }).await
}

/// Waits until the extension has received what Gofer answered before, and Gofer what the extension
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
    let gofer = Gofer::listening(|_, number| match number {
        2 => Behavior::StartAndDisconnect,
        _ => Behavior::Answer,
    });
    let (probe, _started, client) = start(starts_two_runs(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 2").await;
    let recorded = gofer.recorded();
    // Whether a run is pending, and whether this one exists.
    assert_eq!((recorded.starts, recorded.runs.len(), recorded.lists), (2, 2, 2));
}

#[tokio::test]
async fn runs_of_others_are_not_mistaken_for_the_one_whose_answer_got_lost() {
    let gofer = Arc::new(Gofer::listening(|_, number| match number {
        2 => Behavior::Refuse(Status::deadline_exceeded("a proxy gave up")),
        _ => Behavior::Answer,
    }));
    let extension = probe().serve({
        let gofer = Arc::clone(&gofer);
        move |probe, subscription| {
            let gofer = Arc::clone(&gofer);
            async move {
                subscription.start_run(Run::because("of a test")).await?;
                // Newer than the known run, but of another label and by a person.
                gofer.add_run(run_of("a", 2, initiator::Type::Extension, "probe (other)"));
                gofer.add_run(run_of("a", 3, initiator::Type::Human, "probe (l)"));
                let run = subscription.start_run(Run::because("of a test")).await?;
                probe.record(format!("started {}", run.id()));
                Ok(())
            }
        }
    });
    let (probe, _started, client) = start(extension, &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 4").await;
    assert_eq!(gofer.recorded().starts, 3);
}

#[tokio::test]
async fn a_proxy_that_lost_gofer_during_a_call_does_not_make_two_runs() {
    let gofer = Gofer::listening(|_, number| match number {
        2 => Behavior::StartAndRefuse(Status::unavailable(
            "upstream connect error or disconnect/reset before headers",
        )),
        _ => Behavior::Answer,
    });
    let (probe, _started, client) = start(starts_two_runs(), &gofer).await;
    client.subscribe("a", &[]).await.unwrap();
    probe.until_seen("started 2").await;
    assert_eq!((gofer.recorded().starts, gofer.recorded().runs.len()), (2, 2));
}

#[tokio::test]
async fn two_starts_at_once_of_one_subscription_are_two_runs_though_an_answer_gets_lost() {
    let gofer = Gofer::listening(|_, number| match number {
        2 => Behavior::Hold,
        _ => Behavior::Answer,
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
    gofer.until(|recorded| recorded.in_flight == 1 && recorded.starts >= 2).await;
    // If the other call were in flight too, its run could be mistaken for that of this one.
    settled(&probe, &client).await;
    gofer.disconnect();
    probe.until_seen("started 2 and 3").await;
    let recorded = gofer.recorded();
    let reasons = recorded.runs.iter().map(|run| run.initiator.as_ref().unwrap().reason.as_str());
    assert!(reasons.eq(["first", "one", "other"]), "{:?}", recorded.runs);
}

/// Starts a run at each tick.
fn starts_runs_at_ticks() -> Builder {
    probe().serve(|probe, subscription| async move {
        let mut ticks = subscription.every(subscription.params().every.unwrap())?;
        while let Some(tick) = ticks.next().await {
            let run = subscription.start_run(tick.run("the interval elapsed")).await?;
            probe.record(format!("started {}", run.id()));
        }
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn a_tick_whose_answer_got_lost_starts_one_run() {
    let InMemory { probe, gofer, client, .. } =
        &InMemory::start(starts_runs_at_ticks(), |_, number| match number {
            1 => Behavior::StartAndDisconnect,
            _ => Behavior::Answer,
        })
        .await;
    client.subscribe("a", &[("every", "2s")]).await.unwrap();
    // Gofer is asked for the last run before the first tick. Before that, none is known.
    gofer.until(|recorded| recorded.lists == 1).await;
    assert_eq!(gofer.recorded().starts, 0);
    probe.until_seen("started 1").await;
    client.unsubscribe("a").await.unwrap();
    assert_eq!((gofer.recorded().starts, gofer.recorded().runs.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn ticks_missed_behind_a_held_answer_become_one_run() {
    let InMemory { gofer, client, .. } =
        &InMemory::start(starts_runs_at_ticks(), |_, number| match number {
            2 => Behavior::Hold,
            _ => Behavior::Answer,
        })
        .await;
    client.subscribe("a", &[("every", "1500ms")]).await.unwrap();
    // A tick falls due before it is known, after two seconds, that the second run has started.
    gofer.until(|recorded| recorded.runs.len() == 4).await;
    let started: Vec<i64> = gofer.recorded().runs.iter().map(|run| run.started).collect();
    let [_, held, overdue, next] = started[..] else { panic!("{started:?}") };
    // Timers may be some milliseconds late.
    assert!((2_000..2_050).contains(&(overdue - held)), "not immediately: {started:?}");
    assert!((3_000..3_050).contains(&(next - held)), "not on the cadence: {started:?}");
}
