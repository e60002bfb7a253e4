//! The time from the start of a process to its first answer to Info, and the memory of an idle
//! extension.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::client::{Client, Windows};
use crate::common::process::Process;
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, median, number, spread};
use crate::size;

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let this = std::env::current_exe()?;
    // The one that is shipped, if it has been built.
    let (name, program, role) = match size::built() {
        Some(shipped) => ("static `interval`", shipped, None),
        None => ("dynamic, this program", this.clone(), Some(Role::Sdk)),
    };
    let (mut sdks, mut bares) = (Vec::new(), Vec::new());
    let (mut idle_sdks, mut idle_bares) = (Vec::new(), Vec::new());
    for _ in 0..options.pick(25, 3) {
        let (took, rss) = first_answer(&program, role).await?;
        sdks.push(took);
        idle_sdks.push(rss);
        let (took, rss) = first_answer(&this, Some(Role::Bare)).await?;
        bares.push(took);
        idle_bares.push(rss);
    }
    let start = (format!("exec to first answered Info ({name})"), "≤ 5 ms", median(&sdks) <= 5.0);
    let idle = (format!("idle RSS ({name})"), "≤ 8 MB", median(&idle_sdks) <= 8.0);
    let (sdks, bares) = (spread(&sdks, 1, " ms"), spread(&bares, 1, " ms"));
    let (idle_sdks, idle_bares) = (spread(&idle_sdks, 1, " MB"), spread(&idle_bares, 1, " MB"));
    for ((what, reach, reached), seen, baseline) in
        [(start, sdks, bares), (idle, idle_sdks, idle_bares)]
    {
        // The promise is that of the program that is shipped.
        if role.is_none() {
            table.promise(what, reach, seen, baseline, reached);
        } else {
            table.note(what, seen, baseline);
        }
    }
    Ok(())
}

/// Milliseconds until the answer, and megabytes of memory a moment later.
async fn first_answer(program: &Path, role: Option<Role>) -> Result<(f64, f64)> {
    let prepared = Process::prepare(program, role, 1, &[])?;
    let start = Instant::now();
    let server = prepared.start()?;
    let mut client = Client::connect(server.port, Windows::Default).await?;
    client.info().await?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok((took, number(server.rss()?) / 1e6))
}
