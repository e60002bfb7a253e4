//! A core that is killed with all its extensions: how long until they are all back with their
//! subscriptions, while one never comes up; and how long until a single extension that is killed
//! fires again.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use gofer_core::{Core, ExtensionState, Installed};
use gofer_sdk::Error;
use tokio::task::JoinSet;

use crate::common::report::Table;
use crate::common::roles::{Role, named};
use crate::common::{Options, Result, median, spread};

/// Where the core under test keeps its store.
const STORE: &str = "BENCH_STORE";

/// How many extensions it has, besides the one that never comes up again.
const EXTENSIONS: &str = "BENCH_EXTENSIONS";

/// Subscriptions of each.
const SUBSCRIPTIONS: usize = 100;

/// Allows pipelines to run every second.
const EVERY_SECOND: [(&str, &str); 1] = [("min_interval", "1s")];

/// The pipeline that the extension that is killed runs every second.
const NIGHTLY: &str = "default/nightly";

pub(crate) fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let extensions = options.pick(100, 5);
    named(Role::Sdk)?;
    let (mut all, mut one) = (Vec::new(), Vec::new());
    for _ in 0..options.pick(3, 1) {
        let directory = directory()?;
        let (first, _) = CoreProcess::start(&directory, extensions)?;
        first.kill()?;
        never_again(&directory)?;
        let since = Instant::now();
        let (second, mut lines) = CoreProcess::start(&directory, extensions)?;
        all.push(since.elapsed().as_secs_f64());
        // It has killed its first extension and waits for a run.
        let took = lines.next().ok_or("the core ended")??;
        one.push(took.parse::<f64>()?);
        second.ends()?;
        std::fs::remove_dir_all(&directory)?;
    }
    table.promise(
        format!(
            "{extensions} extensions, {} subscriptions and one that never comes up, killed: all \
             back",
            extensions * SUBSCRIPTIONS
        ),
        "≤ 10 s",
        spread(&all, 2, " s"),
        "",
        median(&all) <= 10.0,
    );
    table.promise(
        "one extension killed: it fires again, every second",
        "≤ 2 s",
        spread(&one, 2, " s"),
        "",
        median(&one) <= 2.0,
    );
    Ok(())
}

/// On the disk that the build is on: a temporary directory may be in memory.
fn directory() -> Result<PathBuf> {
    let directory = std::env::current_exe()?.with_file_name("restore");
    // From an earlier run.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    symlink(std::env::current_exe()?, directory.join(Role::Sdk.argument()))?;
    Ok(directory)
}

/// The program that the last extension is started from hangs from now on.
fn never_again(directory: &Path) -> Result<()> {
    let program = directory.join(Role::Sdk.argument());
    std::fs::remove_file(&program)?;
    std::fs::write(&program, "#!/bin/sh\nexec /bin/sleep 1000\n")?;
    Ok(std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?)
}

/// A core in a process of its own, killed when dropped.
struct CoreProcess(Child);

impl CoreProcess {
    /// Returns once all its extensions run and are subscribed.
    fn start(
        directory: &Path,
        extensions: usize,
    ) -> Result<(Self, std::io::Lines<BufReader<ChildStdout>>)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(Role::Core.argument())
            .env(STORE, directory.join("gofer.redb"))
            .env(EXTENSIONS, extensions.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let core = Self(child);
        let mut lines = BufReader::new(out).lines();
        match lines.next() {
            Some(Ok(line)) if line == "back" => Ok((core, lines)),
            _ => Err("the core did not come up".into()),
        }
    }

    /// Waits until it ends by itself, with its extensions.
    fn ends(mut self) -> Result<()> {
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the core ended: {status}").into()) }
    }

    /// Its extensions become orphans, as those of any core that is killed.
    fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for CoreProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn name(n: usize) -> String {
    format!("extension-{n}")
}

/// The core under test: reports when all are back. If it was killed before, it then kills its first
/// extension, reports how many seconds passed until that started a run, and stops.
pub(crate) async fn core() -> gofer_sdk::Result<()> {
    let store = PathBuf::from(std::env::var(STORE)?);
    let extensions: usize = std::env::var(EXTENSIONS)?.parse()?;
    let fresh = !store.exists();
    let directory = store.parent().unwrap_or(Path::new("")).to_owned();
    let core = Core::builder().listen(([127, 0, 0, 1], 0)).store(store).start().await?;
    if fresh {
        install_all(&core, extensions, &directory).await?;
    }
    for n in 0..extensions {
        let extension = core.installed(&name(n))?;
        extension.wait_for(|status| status.state == ExtensionState::Running).await;
        while extension.info().await?.registered.len() < SUBSCRIPTIONS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    println!("back");
    if fresh {
        // Until it is killed.
        return std::future::pending().await;
    }
    println!("{}", fires_again(&core).await?);
    core.stop().await;
    Ok(())
}

async fn install_all(core: &Core, extensions: usize, directory: &Path) -> gofer_sdk::Result<()> {
    let program = std::env::current_exe()?.with_file_name(Role::Sdk.argument());
    let mut installs = JoinSet::new();
    for n in 0..extensions {
        let (core, program) = (core.clone(), program.clone());
        installs.spawn(async move {
            let extension = core.install_program(&name(n), &program, EVERY_SECOND).await?;
            for label in 0..SUBSCRIPTIONS {
                let every = if n == 0 && label == 0 { "1s" } else { "1h" };
                let pipeline =
                    if n == 0 { NIGHTLY.to_owned() } else { format!("default/pipeline-{n}") };
                let (label, params) = (format!("label-{label}"), [("every", every)]);
                extension.subscribe(&*pipeline, &label, params).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(install) = installs.join_next().await {
        install??;
    }
    let program = directory.join(Role::Sdk.argument());
    core.install_program("never-again", &program, EVERY_SECOND).await?;
    Ok(())
}

/// Seconds from the kill to the next run.
async fn fires_again(core: &Core) -> gofer_sdk::Result<f64> {
    let extension: Installed = core.installed(&name(0))?;
    let process = extension.process_id().ok_or_else(|| Error::internal("no process"))?;
    let runs = core.runs(NIGHTLY).len();
    while core.runs(NIGHTLY).len() == runs {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let since = Instant::now();
    Command::new("sh").args(["-c", &format!("kill -KILL {process}")]).status()?;
    let runs = core.runs(NIGHTLY).len();
    while core.runs(NIGHTLY).len() == runs {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(since.elapsed().as_secs_f64())
}
