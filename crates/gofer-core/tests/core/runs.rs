//! The execution of runs by a function or a command: the pipeline's parallelism, cancellations,
//! stops and crashes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::files::Directory;
use gofer_core::{Core, CoreBuilder, seconds};
use gofer_proto as proto;
use gofer_proto::run_status_reason::RunStatusReasonKind as Reason;
use gofer_sdk::{Error, Run, RunInfo, RunState, RunStatus};
use tokio::sync::Notify;
use tonic::Code;

/// Far longer than anything here takes, even on a busy machine: only a hang takes so long.
const TIMEOUT: Duration = Duration::from_secs(300);

async fn pipeline(core: &Core, id: &str, parallelism: i64) {
    let config = proto::UserPipelineConfig { id: id.to_owned(), parallelism, ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..Default::default()
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
}

async fn start(core: &Core, pipeline: &str, run: Run) -> RunInfo {
    core.client().start_run(pipeline, "by hand", run).await.unwrap()
}

fn states(core: &Core, pipeline: &str) -> Vec<(RunState, RunStatus)> {
    core.runs(pipeline).iter().rev().map(|run| (run.state(), run.status())).collect()
}

/// Waits until a run is complete.
async fn completed(core: &Core, pipeline: &str, id: i64) -> RunInfo {
    let until = Instant::now() + TIMEOUT;
    loop {
        let run = core.client().run(pipeline, id).await.unwrap();
        if run.state() == RunState::Complete {
            return run;
        }
        assert!(Instant::now() < until, "run {id} does not end: {run:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn reason(core: &Core, pipeline: &str, id: i64) -> Reason {
    let request =
        proto::GetRunRequest { pipeline_id: pipeline.to_owned(), id, ..Default::default() };
    let run = core.client().api().get_run(request).await.unwrap().into_inner().run.unwrap();
    run.status_reason.map_or(Reason::RunStatusReasonUnknown, |it| it.reason())
}

async fn cancel(core: &Core, pipeline: &str, run_id: i64) -> Result<(), tonic::Status> {
    let request =
        proto::CancelRunRequest { pipeline_id: pipeline.to_owned(), run_id, ..Default::default() };
    core.client().api().cancel_run(request).await.map(drop)
}

const PENDING: (RunState, RunStatus) = (RunState::Pending, RunStatus::Unknown);
const RUNNING: (RunState, RunStatus) = (RunState::Running, RunStatus::Unknown);
const SUCCESSFUL: (RunState, RunStatus) = (RunState::Complete, RunStatus::Successful);
const FAILED: (RunState, RunStatus) = (RunState::Complete, RunStatus::Failed);
const CANCELLED: (RunState, RunStatus) = (RunState::Complete, RunStatus::Cancelled);

/// Each run takes ten seconds.
fn ten_seconds() -> CoreBuilder {
    Core::builder().run_handler(|_| async {
        tokio::time::sleep(seconds(10)).await;
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn a_run_takes_the_time_that_its_handler_takes() {
    let core = ten_seconds().start().await.unwrap();
    pipeline(&core, "build", 0).await;
    let accepted = start(&core, "build", Run::because("of a test")).await;
    assert_eq!((accepted.state(), accepted.ended()), (RunState::Pending, None));
    core.elapse(seconds(9)).await;
    assert_eq!(states(&core, "build"), [RUNNING]);
    core.elapse(seconds(1)).await;
    assert_eq!(states(&core, "build"), [SUCCESSFUL]);
    let run = &core.runs("build")[0];
    let took = run.ended().unwrap().duration_since(run.started()).unwrap();
    assert!(took >= seconds(10) && took < seconds(11), "{took:?}");
    assert_eq!(run.description(), "");
}

#[tokio::test(start_paused = true)]
async fn runs_of_a_pipeline_are_limited_by_its_parallelism() {
    let core = ten_seconds().start().await.unwrap();
    pipeline(&core, "one-at-a-time", 1).await;
    pipeline(&core, "at-once", 0).await;
    for _ in 0..3 {
        start(&core, "one-at-a-time", Run::because("of a test")).await;
        start(&core, "at-once", Run::because("of a test")).await;
    }
    core.elapse(seconds(5)).await;
    assert_eq!(states(&core, "one-at-a-time"), [RUNNING, PENDING, PENDING]);
    assert_eq!(states(&core, "at-once"), [RUNNING; 3]);
    core.elapse(seconds(10)).await;
    assert_eq!(states(&core, "one-at-a-time"), [SUCCESSFUL, RUNNING, PENDING]);
    assert_eq!(states(&core, "at-once"), [SUCCESSFUL; 3]);
    core.elapse(seconds(15)).await;
    assert_eq!(states(&core, "one-at-a-time"), [SUCCESSFUL; 3]);
}

#[tokio::test(start_paused = true)]
async fn the_core_executes_at_most_the_configured_number_of_runs_at_a_time() {
    let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&counts);
    let handler = move |_| {
        let seen = Arc::clone(&seen);
        async move {
            let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
            seen.1.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(seconds(1)).await;
            seen.0.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let core = Core::builder().run_handler(handler).runs_at_a_time(7).start().await.unwrap();
    for id in ["one", "two", "three"] {
        pipeline(&core, id, 0).await;
        for _ in 0..7 {
            start(&core, id, Run::because("of a test")).await;
        }
    }
    core.elapse(seconds(10)).await;
    for id in ["one", "two", "three"] {
        assert_eq!(states(&core, id), [SUCCESSFUL; 7]);
    }
    assert_eq!(counts.1.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn a_handler_is_given_the_run() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |run: RunInfo| {
        let sender = sender.clone();
        async move {
            sender.send(run).unwrap();
            Ok(())
        }
    };
    let core = Core::builder().run_handler(handler).start().await.unwrap();
    pipeline(&core, "build", 0).await;
    let run = Run::because("a commit was pushed").variable("COMMIT", "c0ffee");
    start(&core, "build", run).await;
    let run = receiver.recv().await.unwrap();
    assert_eq!((run.id(), run.pipeline()), (1, "default/build".into()));
    assert_eq!((run.initiator(), run.reason()), ("gofer-core (by hand)", "a commit was pushed"));
    assert_eq!(run.variables().collect::<Vec<_>>(), [("COMMIT", "c0ffee")]);
}

#[tokio::test]
async fn an_error_or_a_panic_fails_only_its_run() {
    let handler = |run: RunInfo| async move {
        match run.id() {
            1 => Err(Error::internal("the compiler is missing")),
            2 => panic!("what now?"),
            _ => Ok(()),
        }
    };
    let core = Core::builder().run_handler(handler).start().await.unwrap();
    pipeline(&core, "build", 1).await;
    for _ in 0..3 {
        start(&core, "build", Run::because("of a test")).await;
    }
    completed(&core, "build", 3).await;
    assert_eq!(states(&core, "build"), [FAILED, FAILED, SUCCESSFUL]);
    let [_, panicked, failed] = &core.runs("build")[..] else { panic!() };
    assert_eq!(failed.description(), "the compiler is missing");
    assert_eq!(panicked.description(), "the run's handler panicked: what now?");
    assert_eq!(reason(&core, "build", 1).await, Reason::AbnormalExit);
}

#[tokio::test]
async fn a_run_ends_even_if_its_handler_panics_when_it_is_dropped() {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "dropped");
        }
    }
    let handler = |run: RunInfo| async move {
        if run.id() == 1 {
            let _panics = PanicsOnDrop;
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let core = Core::builder().run_handler(handler).runs_at_a_time(1).start().await.unwrap();
    pipeline(&core, "build", 0).await;
    start(&core, "build", Run::because("of a test")).await;
    start(&core, "build", Run::because("of a test")).await;
    cancel(&core, "build", 1).await.unwrap();
    completed(&core, "build", 2).await;
    assert_eq!(states(&core, "build"), [CANCELLED, SUCCESSFUL]);
}

/// Notifies when it is dropped.
struct NotifiesOnDrop(Arc<Notify>);

impl Drop for NotifiesOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn the_handler_of_a_cancelled_run_is_dropped() {
    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (notify, guard) = (Arc::clone(&begun), Arc::clone(&dropped));
    let handler = move |_| {
        let (notify, guard) = (Arc::clone(&notify), NotifiesOnDrop(Arc::clone(&guard)));
        async move {
            let _guard = guard;
            notify.notify_one();
            std::future::pending().await
        }
    };
    let core = Core::builder().run_handler(handler).start().await.unwrap();
    pipeline(&core, "build", 1).await;
    start(&core, "build", Run::because("of a test")).await;
    start(&core, "build", Run::because("of a test")).await;
    begun.notified().await;
    cancel(&core, "build", 1).await.unwrap();
    dropped.notified().await;
    assert_eq!(cancel(&core, "build", 1).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(reason(&core, "build", 1).await, Reason::AdminCancelled);
    // The second run has started.
    begun.notified().await;

    let mut api = core.client().api();
    let all = proto::CancelAllRunsRequest { pipeline_id: "build".to_owned(), ..Default::default() };
    assert_eq!(api.cancel_all_runs(all).await.unwrap().into_inner().runs, [2]);
    dropped.notified().await;
    assert_eq!(states(&core, "build"), [CANCELLED; 2]);

    start(&core, "build", Run::because("of a test")).await;
    begun.notified().await;
    let delete = proto::DeletePipelineRequest { id: "build".to_owned(), ..Default::default() };
    api.delete_pipeline(delete).await.unwrap();
    dropped.notified().await;
    assert!(core.runs("build").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_runs_within_their_grace() {
    let core = ten_seconds().run_grace(seconds(5)).start().await.unwrap();
    pipeline(&core, "build", 1).await;
    start(&core, "build", Run::because("of a test")).await;
    start(&core, "build", Run::because("of a test")).await;
    core.elapse(seconds(6)).await;
    core.stop().await;
    assert_eq!(states(&core, "build"), [SUCCESSFUL, PENDING]);

    let core = ten_seconds().run_grace(seconds(5)).start().await.unwrap();
    pipeline(&core, "build", 0).await;
    start(&core, "build", Run::because("of a test")).await;
    core.elapse(seconds(1)).await;
    core.stop().await;
    assert_eq!(states(&core, "build"), [FAILED]);
    assert!(core.runs("build")[0].description().contains("stopped"));
}

#[tokio::test]
async fn a_command_succeeds_with_exit_code_0_and_gets_the_run_in_its_environment() {
    let directory = Directory::new("command");
    let file = directory.0.join("environment");
    let core = Core::builder().run_command("sh", ["-c", "env > \"$FILE\""]).start().await.unwrap();
    pipeline(&core, "build", 0).await;
    let run = Run::because("a commit was pushed")
        .variable("FILE", file.to_str().unwrap())
        .variable("COMMIT", "c0ffee")
        .variable("GOFER_EXTENSION_RUN_KEY", "c0ffee");
    start(&core, "build", run).await;
    assert_eq!(completed(&core, "build", 1).await.status(), RunStatus::Successful);
    let environment = std::fs::read_to_string(file).unwrap();
    for line in [
        "COMMIT=c0ffee",
        "GOFER_EXTENSION_RUN_KEY=c0ffee",
        "GOFER_NAMESPACE=default",
        "GOFER_PIPELINE=build",
        "GOFER_RUN_ID=1",
        "GOFER_INITIATOR=gofer-core (by hand)",
        "GOFER_REASON=a commit was pushed",
    ] {
        assert!(environment.lines().any(|it| it == line), "{line} is missing:\n{environment}");
    }
    // Cargo sets many variables for a test; none of them may reach a command.
    assert!(!environment.contains("CARGO"), "{environment}");
}

#[tokio::test]
async fn a_failed_command_reports_its_exit_code_or_signal() {
    let core = Core::builder().run_command("sh", ["-c", "eval \"$HOW\""]).start().await.unwrap();
    pipeline(&core, "build", 0).await;
    let cases = [("exit 7", "exited with code 7"), ("kill -9 $$", "killed by signal 9")];
    for (id, (how, reported)) in (1..).zip(cases) {
        start(&core, "build", Run::because("of a test").variable("HOW", how)).await;
        let run = completed(&core, "build", id).await;
        assert_eq!(run.status(), RunStatus::Failed);
        assert!(run.description().ends_with(reported), "{}", run.description());
        assert_eq!(reason(&core, "build", id).await, Reason::AbnormalExit);
    }
}

#[tokio::test]
async fn a_missing_command_fails_its_runs() {
    let nothing: [&str; 0] = [];
    let core = Core::builder().run_command("/nowhere/at/all", nothing).start().await.unwrap();
    pipeline(&core, "build", 0).await;
    start(&core, "build", Run::because("of a test")).await;
    let run = completed(&core, "build", 1).await;
    assert!(run.description().contains("cannot be started"), "{}", run.description());
}

#[tokio::test]
async fn variables_that_a_run_must_not_set_fail_it() {
    let nothing: [&str; 0] = [];
    let core = Core::builder().run_command("true", nothing).start().await.unwrap();
    pipeline(&core, "build", 0).await;
    let names = [
        "PATH",
        "HOME",
        "LD_PRELOAD",
        "BASH_FUNC_echo%%",
        "ENV",
        "GOFER_RUN_ID",
        "GOFER_EXTENSION_SYSTEM_KEY",
        "A=B",
        "",
    ];
    for (id, name) in (1..).zip(names) {
        start(&core, "build", Run::because("of a test").variable(name, "hidden")).await;
        let run = completed(&core, "build", id).await;
        assert_eq!(run.status(), RunStatus::Failed, "{name}");
        assert!(run.description().contains(&format!("`{name}`")), "{}", run.description());
        assert!(!run.description().contains("hidden"), "{}", run.description());
        assert_eq!(reason(&core, "build", id).await, Reason::FailedPrecondition);
    }
}

/// A zombie counts as dead.
#[cfg(target_os = "linux")]
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_cancelled_command_is_killed_with_its_children() {
    let directory = Directory::new("group");
    let file = directory.0.join("pids");
    let script = "sleep 1000 & echo $$ $! > \"$FILE.new\"; mv \"$FILE.new\" \"$FILE\"; wait";
    let core = Core::builder().run_command("sh", ["-c", script]).start().await.unwrap();
    pipeline(&core, "build", 0).await;
    let run = Run::because("of a test").variable("FILE", file.to_str().unwrap());
    start(&core, "build", run).await;
    let until = Instant::now() + TIMEOUT;
    while !file.exists() {
        assert!(Instant::now() < until, "the command does not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pids = std::fs::read_to_string(file).unwrap();
    assert!(pids.split_whitespace().all(is_alive));
    cancel(&core, "build", 1).await.unwrap();
    while pids.split_whitespace().any(is_alive) {
        assert!(Instant::now() < until, "a child is still alive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(states(&core, "build"), [CANCELLED]);
}

/// What a store keeps of runs when the core is stopped or killed.
#[cfg(feature = "store")]
mod across_restarts {
    use std::io::{BufRead, BufReader, Write};
    use std::path::Path;
    use std::process::{Command, Stdio};

    use tokio::sync::Semaphore;

    use super::*;

    /// The path of the store of the core under test.
    const STORE: &str = "GOFER_TEST_RUNS_STORE";

    #[tokio::test]
    async fn runs_that_are_pending_when_a_core_stops_are_executed_by_the_next() {
        let directory = Directory::new("runs-stop");
        let store = directory.0.join("store.redb");
        let never = |_| std::future::pending();
        let core = Core::builder()
            .store(&store)
            .run_handler(never)
            .run_grace(Duration::ZERO)
            .start()
            .await
            .unwrap();
        pipeline(&core, "build", 1).await;
        start(&core, "build", Run::because("of a test")).await;
        start(&core, "build", Run::because("of a test")).await;
        core.stop().await;
        drop(core);
        let core =
            Core::builder().store(&store).run_handler(|_| async { Ok(()) }).start().await.unwrap();
        completed(&core, "build", 2).await;
        // Depends on whether it had started when the core was stopped.
        assert!([FAILED, SUCCESSFUL].contains(&states(&core, "build")[0]));
        core.stop().await;
    }

    /// The process that is killed. Not a test of its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "started by the tests of this file"]
    async fn core_under_test() {
        let Some(store) = std::env::var_os(STORE) else { return };
        let slots = Arc::new(Semaphore::new(2));
        let handler = move |run: RunInfo| {
            let slots = Arc::clone(&slots);
            async move {
                print_line(&format!("begun {}", run.id()));
                // The first two end, all others never do.
                match slots.try_acquire() {
                    Ok(slot) => slot.forget(),
                    Err(_) => std::future::pending().await,
                }
                Ok(())
            }
        };
        let core = Core::builder().store(store).run_handler(handler).start().await.unwrap();
        pipeline(&core, "build", 1).await;
        for _ in 0..5 {
            start(&core, "build", Run::because("of a test")).await;
        }
        print_line("started all");
        std::future::pending::<()>().await;
    }

    /// Prints a line in a single write.
    fn print_line(line: &str) {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("core: {line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }

    fn run_until_the_third_runs_and_kill(store: &Path) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runs::across_restarts::core_under_test", "--ignored", "--nocapture"])
            .env(STORE, store)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut awaited = vec!["core: started all", "core: begun 3"];
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            awaited.retain(|it| !line.ends_with(it));
            if awaited.is_empty() {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(awaited.is_empty(), "it did not print {awaited:?}");
    }

    #[tokio::test]
    async fn after_a_crash_running_runs_fail_and_pending_runs_are_executed() {
        let directory = Directory::new("runs-kill");
        let store = directory.0.join("store.redb");
        run_until_the_third_runs_and_kill(&store);
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |run: RunInfo| {
            let sender = sender.clone();
            async move {
                sender.send(run.id()).unwrap();
                Ok(())
            }
        };
        let core = Core::builder().store(&store).run_handler(handler).start().await.unwrap();
        completed(&core, "build", 5).await;
        assert_eq!(
            states(&core, "build"),
            [SUCCESSFUL, SUCCESSFUL, FAILED, SUCCESSFUL, SUCCESSFUL]
        );
        let lost = core.client().run("build", 3).await.unwrap();
        assert_eq!(lost.description(), "the core ended while the run was being executed");
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(4), Some(5)));
        // Each has ended once.
        let mut events = core.client().events().await.unwrap();
        let mut completed = Vec::new();
        while let Some(event) = events.next().await.unwrap() {
            if event.kind == "RUN_COMPLETED" {
                let details: serde_json::Value = serde_json::from_str(&event.details).unwrap();
                completed.push(details["run_id"].as_i64().unwrap());
            }
        }
        assert_eq!(completed, [1, 2, 3, 4, 5]);
        core.stop().await;
    }
}
