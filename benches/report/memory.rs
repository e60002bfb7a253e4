//! Resident memory of a live interval subscription, everything included, once all that it starts
//! has come to rest.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::client::{Client, Windows};
use crate::common::gofer::Gofer;
use crate::common::process::Process;
use crate::common::report::Table;
use crate::common::roles::{Role, TASKS};
use crate::common::{Options, Result, number};

pub(crate) async fn measure(options: &Options, table: &mut Table) -> Result<()> {
    for count in options.pick(&[100_000, 1_000_000][..], &[5_000]) {
        let task = bare_task(*count)?;
        let (live, peak) = subscriptions(*count).await?;
        table.promise(
            format!("memory of a live subscription, at {count}"),
            "≤ 1000 B",
            format!("{live:.0} B"),
            format!("{task} B (a task that sleeps)"),
            live <= 1000.0,
        );
        table.note(
            format!("the same before Gofer has been asked for last runs, at {count}"),
            format!("{peak:.0} B"),
            "",
        );
    }
    let count = options.pick(10_000, 1_000);
    let (each, idle) = cron(count).await?;
    table.promise(
        format!("memory of a live cron subscription, at {count} on 100 expressions"),
        "≤ 1200 B",
        format!("{each:.0} B"),
        "",
        each <= 1200.0,
    );
    table.note(
        format!("processor time of {count} cron subscriptions that wait"),
        format!("{:.3} %", 100.0 * idle),
        "",
    );
    Ok(())
}

/// Bytes per cron subscription at rest, and the part of a processor that all together take.
async fn cron(count: usize) -> Result<(f64, f64)> {
    let gofer = Gofer::start()?;
    let server = Process::start(Role::Cron, gofer.port)?;
    let mut client = Client::connect(server.port, Windows::Default).await?;
    client.init().await?;
    // All on a day that is not today, wherever that is.
    let today = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / (24 * 60 * 60);
    let year = 1970 + (today + 366) * 400 / 146_097 + 1;
    let expression = move |n: usize| format!("{} {} 1 1 * {year}", n % 100 % 60, n % 100 / 60);
    client.subscribe_cron(0, expression(0)).await?;
    quiet(&server, &gofer, 1).await?;
    let before = server.rss()?;
    let subscribe =
        async move |client: &mut Client, n| client.subscribe_cron(n, expression(n)).await;
    client.load(1..count + 1, 64, subscribe).await?;
    quiet(&server, &gofer, count + 1).await?;
    let each = number(server.rss()?.saturating_sub(before)) / number(count);
    let (cpu, rest) = (server.cpu()?, Duration::from_secs(5));
    tokio::time::sleep(rest).await;
    let idle = server.cpu()?.saturating_sub(cpu).as_secs_f64() / rest.as_secs_f64();
    Ok((each, idle))
}

/// Bytes per subscription: at rest, and right after the last Subscribe.
async fn subscriptions(count: usize) -> Result<(f64, f64)> {
    let gofer = Gofer::start()?;
    let server = Process::start(Role::Sdk, gofer.port)?;
    let mut client = Client::connect(server.port, Windows::Default).await?;
    client.init().await?;
    // The first one also opens the connection to Gofer, which all share.
    client.subscribe(0, "24h").await?;
    quiet(&server, &gofer, 1).await?;
    let before = server.rss()?;
    client.subscribe_all(1..count + 1, 64, "24h").await?;
    let busy = server.rss()?;
    quiet(&server, &gofer, count + 1).await?;
    let each = |after: u64| number(after.saturating_sub(before)) / number(count);
    Ok((each(server.rss()?), each(busy)))
}

/// Waits until Gofer has been asked for the runs of so many, and the server is idle.
async fn quiet(server: &Process, gofer: &Gofer, asked: usize) -> Result<()> {
    let mut cpu = server.cpu()?;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = server.cpu()?;
        if gofer.asked() >= asked && now.saturating_sub(cpu) < Duration::from_millis(5) {
            return Ok(());
        }
        cpu = now;
    }
}

/// Bytes for each of so many tasks that only sleep, as reported by their process.
fn bare_task(count: usize) -> Result<u64> {
    let output = Command::new(std::env::current_exe()?)
        .arg(Role::Tasks.argument())
        .env(TASKS, count.to_string())
        .stderr(Stdio::inherit())
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
