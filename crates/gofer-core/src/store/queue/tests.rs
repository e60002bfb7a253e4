//! When runs are executed, and how they end early.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use tonic::Code;

use super::super::By;
use super::super::tests::all_events;
use super::super::usage::RUNS_PER_PIPELINE;
use super::*;
use gofer_net::Clock;
use gofer_proto::run::RunStatus;
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_proto::{Initiator, StartRunRequest, UserPipelineConfig};

fn store(most: usize) -> Arc<Store> {
    let store = Store::new(Clock::derived()).unwrap();
    store.begin_runs(Some(most)).unwrap();
    store
}

fn pipeline(store: &Store, id: &str, parallelism: i64) {
    let config = UserPipelineConfig { id: id.to_owned(), parallelism, ..Default::default() };
    store.register_config("", config, &By::Core).unwrap();
}

fn try_start(store: &Store, pipeline: &str) -> Result<Run, tonic::Status> {
    let request = StartRunRequest {
        pipeline_id: pipeline.to_owned(),
        initiator: Some(Initiator { name: "test".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    store.start_run(request, &By::Core)
}

fn start(store: &Store, pipeline: &str, count: usize) {
    for _ in 0..count {
        try_start(store, pipeline).unwrap();
    }
}

/// As the executor does.
fn end(store: &Store, job: &Job, ending: &Ending) {
    store.end_run(job, ending).unwrap();
    store.release(job);
}

/// All jobs that may be executed now.
fn due(store: &Store) -> Vec<Job> {
    std::iter::from_fn(|| store.next_run()).collect()
}

fn names(jobs: &[Job]) -> Vec<(&str, i64)> {
    jobs.iter().map(|job| (&*job.run.pipeline, job.run.id)).collect()
}

fn states(store: &Store, pipeline: &str) -> Vec<(RunState, RunStatus)> {
    store.runs("", pipeline).iter().rev().map(|run| (run.state(), run.status())).collect()
}

fn completed(store: &Store) -> usize {
    let events = all_events(store);
    events.iter().filter(|event| event.r#type == "RUN_COMPLETED").count()
}

const PENDING: (RunState, RunStatus) = (RunState::Pending, RunStatus::Unknown);
const RUNNING: (RunState, RunStatus) = (RunState::Running, RunStatus::Unknown);
const SUCCESSFUL: (RunState, RunStatus) = (RunState::Complete, RunStatus::Successful);
const FAILED: (RunState, RunStatus) = (RunState::Complete, RunStatus::Failed);
const CANCELLED: (RunState, RunStatus) = (RunState::Complete, RunStatus::Cancelled);

#[tokio::test]
async fn a_run_is_pending_then_running_then_complete() {
    let store = store(10);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 1);
    assert_eq!(states(&store, "nightly"), [PENDING]);
    let job = store.next_run().unwrap();
    assert_eq!(job.run.state(), RunState::Running);
    assert_eq!((states(&store, "nightly"), completed(&store)), (vec![RUNNING], 0));
    end(&store, &job, &Ending::success());
    assert_eq!((states(&store, "nightly"), completed(&store)), (vec![SUCCESSFUL], 1));
    assert!(store.next_run().is_none());
}

#[tokio::test]
async fn runs_of_a_pipeline_begin_in_order_within_its_parallelism() {
    let store = store(10);
    pipeline(&store, "nightly", 2);
    start(&store, "nightly", 4);
    let first = due(&store);
    assert_eq!(names(&first), [("nightly", 1), ("nightly", 2)]);
    end(&store, &first[1], &Ending::success());
    let second = due(&store);
    assert_eq!(names(&second), [("nightly", 3)]);
    assert_eq!(states(&store, "nightly"), [RUNNING, SUCCESSFUL, RUNNING, PENDING]);
}

#[tokio::test]
async fn more_parallelism_applies_at_once_and_less_ends_no_run() {
    let store = store(10);
    pipeline(&store, "nightly", 1);
    start(&store, "nightly", 6);
    let mut jobs = due(&store);
    assert_eq!(jobs.len(), 1);
    pipeline(&store, "nightly", 4);
    jobs.extend(due(&store));
    assert_eq!(jobs.len(), 4);
    pipeline(&store, "nightly", 2);
    for job in jobs.drain(..2) {
        assert!(!job.cancelled.is_cancelled());
        end(&store, &job, &Ending::success());
        assert!(store.next_run().is_none(), "two are still running");
    }
    end(&store, &jobs[0], &Ending::success());
    assert_eq!(names(&due(&store)), [("nightly", 5)]);
}

#[tokio::test]
async fn pipelines_are_served_round_robin_within_the_limit_of_the_core() {
    let store = store(3);
    for id in ["one", "two"] {
        pipeline(&store, id, 0);
        start(&store, id, 3);
    }
    let first = due(&store);
    assert_eq!(names(&first), [("one", 1), ("two", 1), ("one", 2)]);
    for job in &first {
        end(&store, job, &Ending::success());
    }
    assert_eq!(names(&due(&store)), [("two", 2), ("one", 3), ("two", 3)]);
}

#[tokio::test]
async fn a_run_that_waits_is_cancelled_and_never_begins() {
    let store = store(1);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 3);
    let job = store.next_run().unwrap();
    store.cancel_run("", "nightly", 2, Reason::UserCancelled, &By::Core).unwrap();
    end(&store, &job, &Ending::success());
    assert_eq!(names(&due(&store)), [("nightly", 3)]);
    assert_eq!(states(&store, "nightly"), [SUCCESSFUL, CANCELLED, RUNNING]);
    let cancelled = store.run("", "nightly", 2).unwrap().status_reason.unwrap();
    assert_eq!(cancelled.reason(), Reason::UserCancelled);
}

#[tokio::test]
async fn a_cancelled_run_keeps_its_place_until_its_handler_is_gone() {
    let store = store(10);
    pipeline(&store, "nightly", 1);
    start(&store, "nightly", 2);
    let job = store.next_run().unwrap();
    store.cancel_run("", "nightly", 1, Reason::UserCancelled, &By::Core).unwrap();
    assert!(job.cancelled.is_cancelled());
    assert_eq!(states(&store, "nightly"), [CANCELLED, PENDING]);
    assert!(store.next_run().is_none());
    // It was about to succeed; what was reported stays.
    end(&store, &job, &Ending::success());
    assert_eq!(states(&store, "nightly"), [CANCELLED, PENDING]);
    assert_eq!(completed(&store), 1);
    assert_eq!(names(&due(&store)), [("nightly", 2)]);
}

#[tokio::test]
async fn a_complete_or_missing_run_is_not_cancelled() {
    let store = store(10);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 1);
    let cancel = |run| store.cancel_run("", "nightly", run, Reason::UserCancelled, &By::Core);
    cancel(1).unwrap();
    assert_eq!(cancel(1).unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(cancel(2).unwrap_err().code(), Code::NotFound);
    let elsewhere = store.cancel_run("", "absent", 1, Reason::UserCancelled, &By::Core);
    assert_eq!(elsewhere.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn cancelling_all_returns_the_runs_that_were_not_complete() {
    let store = store(2);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 4);
    let jobs = due(&store);
    end(&store, &jobs[0], &Ending::success());
    assert_eq!(
        store.cancel_runs("", "nightly", Reason::AdminCancelled, &By::Core).unwrap(),
        [2, 3, 4]
    );
    assert!(
        store.cancel_runs("", "nightly", Reason::AdminCancelled, &By::Core).unwrap().is_empty()
    );
    assert_eq!(states(&store, "nightly"), [SUCCESSFUL, CANCELLED, CANCELLED, CANCELLED]);
    assert!(store.next_run().is_none());
}

#[tokio::test]
async fn runs_of_a_deleted_pipeline_end_and_a_new_one_has_none_of_them() {
    let store = store(2);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 3);
    let old = due(&store);
    store.delete_pipeline("", "nightly", Reason::UserCancelled, &By::Core).unwrap();
    let kinds: Vec<_> = all_events(&store).into_iter().map(|it| it.r#type).collect();
    assert_eq!(kinds[kinds.len() - 4..][..3], ["RUN_COMPLETED"; 3]);
    assert_eq!(kinds.last().unwrap(), "PIPELINE_DELETED");
    assert!(old.iter().all(|job| job.cancelled.is_cancelled()));

    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 1);
    assert!(store.next_run().is_none(), "the old ones have not ended yet");
    end(&store, &old[1], &Ending::success());
    let new = store.next_run().unwrap();
    end(&store, &old[0], &Ending::success());
    assert_eq!(states(&store, "nightly"), [RUNNING], "of the same number, and another run");
    end(&store, &new, &Ending::success());
    assert_eq!(states(&store, "nightly"), [SUCCESSFUL]);
}

#[tokio::test]
async fn a_run_that_is_not_complete_is_kept() {
    let store = store(1);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", RUNS_PER_PIPELINE);
    let first = store.next_run().unwrap();
    let status = try_start(&store, "nightly").unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("`default/nightly`"), "{status}");
    // The second run is now complete and is removed; the first, which is older, is kept.
    store.cancel_run("", "nightly", 2, Reason::UserCancelled, &By::Core).unwrap();
    start(&store, "nightly", 1);
    assert_eq!(store.run("", "nightly", 1).unwrap().state(), RunState::Running);
    assert_eq!(store.run("", "nightly", 2).unwrap_err().code(), Code::NotFound);
    for run in [3, RUNS_PER_PIPELINE + 1] {
        let run = i64::try_from(run).unwrap();
        assert_eq!(store.run("", "nightly", run).unwrap().id, run);
    }
    end(&store, &first, &Ending::success());
    start(&store, "nightly", 1);
    assert_eq!(store.runs("", "nightly").len(), RUNS_PER_PIPELINE);
}

#[tokio::test]
async fn runs_of_an_earlier_process_are_settled() {
    let store = store(1);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 3);
    let lost = store.next_run().unwrap();
    // As the next process finds them.
    let mut tables = store.tables();
    let unfinished = &mut tables.pipeline_mut("", "nightly").unwrap().unfinished;
    let runs = std::mem::take(&mut unfinished.runs);
    *unfinished = UnfinishedRuns { runs, ..UnfinishedRuns::default() };
    drop(tables);
    store.begin_runs(Some(1)).unwrap();
    assert_eq!(states(&store, "nightly"), [FAILED, PENDING, PENDING]);
    let reason = store.run("", "nightly", 1).unwrap().status_reason.unwrap();
    assert_eq!(reason.reason(), Reason::SchedulerError);
    assert!(reason.description.contains("the core ended"), "{}", reason.description);
    assert_eq!(names(&due(&store)), [("nightly", 2)]);
    assert!(!lost.cancelled.is_cancelled());
}

#[tokio::test]
async fn without_a_handler_pending_runs_of_an_earlier_process_succeed() {
    let store = store(1);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 2);
    store.begin_runs(None).unwrap();
    assert_eq!(states(&store, "nightly"), [SUCCESSFUL, SUCCESSFUL]);
    assert_eq!(completed(&store), 2);
}

#[tokio::test]
async fn a_stop_ends_running_runs_and_keeps_pending_ones() {
    let store = store(1);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 2);
    let job = store.next_run().unwrap();
    store.end_running(&Ending::failure(Reason::SchedulerError, "stopped"));
    assert!(job.cancelled.is_cancelled());
    assert_eq!(states(&store, "nightly"), [FAILED, PENDING]);
}

#[tokio::test]
async fn a_long_description_of_an_ending_is_truncated() {
    let store = store(1);
    pipeline(&store, "nightly", 0);
    start(&store, "nightly", 1);
    let job = store.next_run().unwrap();
    end(&store, &job, &Ending::failure(Reason::AbnormalExit, &"ö".repeat(100_000)));
    let reason = store.run("", "nightly", 1).unwrap().status_reason.unwrap();
    assert_eq!(reason.description.chars().count(), 1000);
}
