//! A store with many runs: how long a core takes to open it, the memory that it then has, and how
//! long the newest page of a list takes.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use gofer_core::Core;
use gofer_proto as proto;
use tokio::task::JoinSet;

use crate::common::core::{RealCore, run_start};
use crate::common::process;
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, median, number, spread};

/// Where the core under test keeps its store.
const STORE: &str = "BENCH_STORE";

/// As many runs are kept of each pipeline as are kept of any.
const RUNS: usize = 10_000;

const IN_FLIGHT: usize = 64;

fn pipeline(n: usize) -> String {
    format!("pipeline-{n}")
}

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let pipelines = options.pick(100, 1);
    // On the disk that the build is on: a temporary directory may be in memory.
    let directory = std::env::current_exe()?.with_file_name("history");
    // From an earlier run.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    let store = directory.join("gofer.redb");
    fill(&store, pipelines).await?;
    let bytes = std::fs::metadata(&store)?.len();
    let (mut opened, mut resident, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.pick(5, 1) {
        let output = Command::new(std::env::current_exe()?)
            .arg(Role::History.argument())
            .env(STORE, &store)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let figures: Vec<f64> =
            text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [open, memory, page] = *figures else { return Err("the core did not come up".into()) };
        opened.push(open);
        resident.push(memory);
        pages.push(page);
    }
    std::fs::remove_dir_all(&directory)?;
    let runs = pipelines * RUNS;
    let file = format!("{:.0} MB of file", number(usize::try_from(bytes)?) / 1e6);
    table.promise(
        format!("a store of {runs} runs: open"),
        "≤ 0.5 s",
        spread(&opened, 3, " s"),
        file,
        median(&opened) <= 0.5,
    );
    table.promise(
        "resident memory then, lists included",
        "≤ 100 MB",
        spread(&resident, 0, " MB"),
        "",
        median(&resident) <= 100.0,
    );
    table.promise(
        "the newest page of a pipeline's runs",
        "≤ 2 ms",
        spread(&pages, 2, " ms"),
        "",
        median(&pages) <= 2.0,
    );
    Ok(())
}

async fn fill(store: &PathBuf, pipelines: usize) -> Result<()> {
    let core = RealCore::with(Core::builder().store(store)).await?;
    let mut workers = JoinSet::new();
    for n in 0..pipelines {
        let config = proto::UserPipelineConfig { id: pipeline(n), ..Default::default() };
        let request = proto::RegisterPipelineConfigRequest {
            pipeline_config: Some(config),
            ..Default::default()
        };
        core.client().api().register_pipeline_config(request).await?;
    }
    for worker in 0..IN_FLIGHT {
        let mut api = core.client().api();
        workers.spawn(async move {
            for run in (worker..pipelines * RUNS).step_by(IN_FLIGHT) {
                api.start_run(run_start(pipeline(run % pipelines))).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    core.stop().await
}

/// The core under test: prints seconds, megabytes and milliseconds.
pub(crate) async fn core() -> Result<()> {
    let store = PathBuf::from(std::env::var(STORE)?);
    let since = Instant::now();
    let core = Core::builder().store(store).start().await?;
    let opened = since.elapsed().as_secs_f64();
    let mut api = core.client().api();
    let mut pages = Vec::new();
    for n in 0..50 {
        let request =
            proto::ListRunsRequest { pipeline_id: pipeline(n % 10), ..Default::default() };
        let since = Instant::now();
        let runs = api.list_runs(request).await;
        pages.push(since.elapsed().as_secs_f64() * 1000.0);
        if n == 0 && runs?.into_inner().runs.is_empty() {
            return Err("the store is empty".into());
        }
    }
    let resident = process::rss(std::path::Path::new("/proc/self/status"))?;
    let resident = number(usize::try_from(resident)?) / 1e6;
    println!("{opened} {resident} {}", median(&pages));
    core.stop().await;
    Ok(())
}
