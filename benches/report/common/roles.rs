//! What this program is when it is started as a process under test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;

use super::cron::Cron;
use super::identity::PREFIX;
use super::interval::Interval;
use super::probe::Probe;
use super::{Result, bare, process};
use crate::{history, million, restore, ticks};

#[derive(Clone, Copy)]
pub(crate) enum Role {
    /// The interval extension on the SDK.
    Sdk,
    /// The same, but the reason of each run has the time that it was due.
    SdkTicks,
    /// tonic's server with a map behind a lock.
    Bare,
    /// Calls `StartRun` once a second from many tasks, with tonic's client.
    BareTicks,
    /// Calls `StartRun` for many pipelines in turn, evenly spread, with tonic's client.
    BareSchedule,
    /// Tasks that sleep, for the memory that they take.
    Tasks,
    /// A core with extensions of its own.
    Core,
    /// A core that opens a store with many runs.
    History,
    /// The cron extension on the SDK.
    Cron,
    /// [`Role::SdkTicks`] with a recorder of metrics.
    SdkMetrics,
}

const ROLES: [(Role, &str); 10] = [
    (Role::Sdk, "role:sdk"),
    (Role::SdkTicks, "role:sdk-ticks"),
    (Role::Bare, "role:bare"),
    (Role::BareTicks, "role:bare-ticks"),
    (Role::BareSchedule, "role:bare-schedule"),
    (Role::Tasks, "role:tasks"),
    (Role::Core, "role:core"),
    (Role::History, "role:history"),
    (Role::Cron, "role:cron"),
    (Role::SdkMetrics, "role:sdk-metrics"),
];

impl Role {
    #[must_use]
    pub(crate) fn argument(self) -> &'static str {
        ROLES[self as usize].1
    }
}

/// The role that a command line names: by its first argument, or by the program's name if there are
/// no arguments.
#[must_use]
pub(crate) fn asked_for(program: &str, arguments: &[String]) -> Option<Role> {
    let program = Path::new(program).file_name()?.to_str()?;
    let first = arguments.first().map_or(program, String::as_str);
    ROLES.iter().find(|(_, name)| *name == first || *name == program).map(|(role, _)| *role)
}

/// This program under the name of a role.
pub(crate) fn named(role: Role) -> Result<PathBuf> {
    let link = std::env::current_exe()?.with_file_name(role.argument());
    // From an earlier run, and of an earlier build.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(std::env::current_exe()?, &link)?;
    Ok(link)
}

pub(crate) async fn play(role: Role) -> Result<()> {
    match role {
        Role::Sdk => Ok(gofer_sdk::run::<Interval>().await?),
        Role::SdkTicks => Ok(gofer_sdk::run::<Probe>().await?),
        Role::SdkMetrics => {
            let metrics = PrometheusBuilder::new().install_recorder()?;
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    metrics.run_upkeep();
                }
            });
            Ok(gofer_sdk::run::<Probe>().await?)
        }
        Role::Bare => bare::serve(&std::env::var(format!("{PREFIX}HOST"))?).await,
        Role::BareTicks => ticks::bare_ticks().await,
        Role::BareSchedule => million::bare_schedule().await,
        Role::Tasks => sleeping_tasks().await,
        Role::History => history::core().await,
        Role::Cron => Ok(gofer_sdk::run::<Cron>().await?),
        Role::Core => restore::core().await.map_err(|error| error.to_string().into()),
    }
}

/// How many tasks [`Role::Tasks`] spawns.
pub(crate) const TASKS: &str = "BENCH_TASKS";

/// Prints how many bytes each takes.
async fn sleeping_tasks() -> Result<()> {
    let count: u64 = std::env::var(TASKS)?.parse()?;
    let status = std::path::Path::new("/proc/self/status");
    let before = process::rss(status)?;
    for _ in 0..count {
        tokio::spawn(tokio::time::sleep(Duration::from_secs(24 * 60 * 60)));
    }
    // Each has been polled, and its timer is registered.
    tokio::time::sleep(Duration::from_millis(500)).await;
    println!("{}", process::rss(status)?.saturating_sub(before) / count);
    Ok(())
}
