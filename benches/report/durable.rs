//! Runs that a core with a store in a file starts, each on disk before the call is answered,
//! compared with plain commits of as many of the same records.

use std::path::{Path, PathBuf};
use std::time::Instant;

use gofer_core::Core;
use gofer_proto as proto;
use redb::{Database, TableDefinition};
use tokio::task::JoinSet;

use crate::common::core::{RealCore, run_start};
use crate::common::report::Table;
use crate::common::{Options, Result, median, number, spread};

const IN_FLIGHT: usize = 64;

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

/// The records of a run: itself, and the events of its start and end. Bytes of keys and values.
const SIZES: [(usize, usize); 3] = [(39, 130), (9, 180), (9, 210)];

/// On the disk that the build is on: a temporary directory may be in memory.
fn file(name: &str) -> Result<PathBuf> {
    let directory = std::env::current_exe()?.with_file_name("stores");
    std::fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{name}-{}.redb", std::process::id()));
    // From an earlier round.
    let _ = std::fs::remove_file(&file);
    Ok(file)
}

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let count = options.pick(20_000, 1_000);
    let (mut cores, mut plains) = (Vec::new(), Vec::new());
    for _ in 0..options.pick(5, 1) {
        cores.push(core(&file("core")?, count).await?);
        plains.push(plain(&file("plain")?, count)?);
    }
    std::fs::remove_dir_all(file("")?.parent().unwrap_or(Path::new("")))?;
    let ratio = median(&cores) / median(&plains);
    table.promise(
        format!("StartRun, durable, {IN_FLIGHT} in flight"),
        "≥ 0.4× plain commits",
        format!("{}, {ratio:.2}×", spread(&cores, 0, "/s")),
        format!("{} ({IN_FLIGHT} runs in each commit)", spread(&plains, 0, "/s")),
        ratio >= 0.4,
    );
    Ok(())
}

/// Runs per second.
async fn core(file: &Path, count: usize) -> Result<f64> {
    let core = RealCore::with(Core::builder().store(file)).await?;
    let config = proto::UserPipelineConfig { id: "nightly".to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        pipeline_config: Some(config),
        ..Default::default()
    };
    core.client().api().register_pipeline_config(request).await?;
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let mut api = core.client().api();
        workers.spawn(async move {
            for _ in 0..count / IN_FLIGHT {
                api.start_run(run_start("nightly".to_owned())).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let took = start.elapsed().as_secs_f64();
    core.stop().await?;
    Ok(number(count / IN_FLIGHT * IN_FLIGHT) / took)
}

/// Runs per second, with as many in each commit as are in flight.
fn plain(file: &Path, count: usize) -> Result<f64> {
    let database = Database::create(file)?;
    let start = Instant::now();
    for group in 0..count / IN_FLIGHT {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for run in 0..IN_FLIGHT {
                for (kind, (key, value)) in SIZES.iter().enumerate() {
                    let mut name = vec![u8::try_from(kind)?; *key];
                    let id = u64::try_from(group * IN_FLIGHT + run)?;
                    name[key - 8..].copy_from_slice(&id.to_be_bytes());
                    table.insert(&*name, &*vec![7; *value])?;
                }
            }
        }
        transaction.commit()?;
    }
    Ok(number(count / IN_FLIGHT * IN_FLIGHT) / start.elapsed().as_secs_f64())
}
