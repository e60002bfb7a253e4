//! From the start of the process to the first answered Info, and what an idle
//! extension takes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::client::{Client, Windows};
use crate::common::process::Process;
use crate::common::report::Table;
use crate::common::roles::Role;
use crate::common::{Options, Result, median, number};
use crate::size;

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    let this = std::env::current_exe()?;
    // The one that is shipped, where it has been built.
    let (name, program, role) = match size::built() {
        Some(shipped) => ("static `interval`", shipped, None),
        None => ("dynamic, this program", this.clone(), Some(Role::Sdk)),
    };
    let (mut sdks, mut bares, mut idle) = (Vec::new(), Vec::new(), (0.0, 0.0));
    for _ in 0..options.pick(25, 3) {
        let (took, rss) = first_answer(&program, role).await?;
        sdks.push(took);
        idle.0 = rss;
        let (took, rss) = first_answer(&this, Some(Role::Bare)).await?;
        bares.push(took);
        idle.1 = rss;
    }
    let seen = median(&sdks);
    table.promise(
        format!("exec to first answered Info ({name})"),
        "≤ 5 ms",
        format!("{seen:.1} ms"),
        format!("{:.1} ms", median(&bares)),
        seen <= 5.0,
    );
    table.promise(
        format!("idle RSS ({name})"),
        "≤ 8 MB",
        format!("{:.1} MB", idle.0),
        format!("{:.1} MB", idle.1),
        idle.0 <= 8.0,
    );
    Ok(())
}

/// Milliseconds, and the megabytes that it holds a moment later.
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
