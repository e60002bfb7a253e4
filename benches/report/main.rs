//! What gofer-sdk promises of its speed and size, measured, as one table.
//!
//! ```text
//! cargo bench --bench report                       everything, about twenty minutes
//! cargo bench --bench report -- ticks info         some rows
//! cargo bench --bench report -- --quick            small numbers: that it runs at all
//! ```
//!
//! Every figure stands beside a baseline that is measured in the same run:
//! tonic's own server and client with the same TLS, the same check of the token
//! and the same current-thread runtime, doing the least that answers the calls.
//! Rounds alternate between the two, so that a machine that is busy with other
//! things slows both; medians are reported, and ratios where the promise is one.
//!
//! What is measured runs in a process of its own (this program, started with
//! the name of a role), so that its processor time and memory are its own.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

mod common;
mod durable;
mod exec;
mod info;
mod memory;
mod restore;
mod size;
mod subscribe;
mod throughput;
mod ticks;

use common::report::Table;
use common::{Options, Result, roles};

/// The rows by name, in the order of the table.
const ROWS: [&str; 9] =
    ["throughput", "memory", "ticks", "subscribe", "info", "size", "exec", "durable", "restore"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let mut arguments: Vec<String> = arguments.collect();
    if let Some(role) = roles::asked_for(&program, &arguments) {
        return roles::play(role).await;
    }
    // Cargo adds it to whatever it runs as a benchmark.
    arguments.retain(|argument| argument != "--bench");
    let quick = arguments.iter().any(|argument| argument == "--quick");
    arguments.retain(|argument| argument != "--quick");
    if let Some(unknown) = arguments.iter().find(|name| !ROWS.contains(&name.as_str())) {
        return Err(format!("there is no row `{unknown}`; there are: {}", ROWS.join(", ")).into());
    }
    let options = Options { quick };
    let mut table = Table::default();
    for row in ROWS {
        // Building a second program takes minutes: not in a smoke run.
        let wanted = if arguments.is_empty() {
            row != "size" || !quick
        } else {
            arguments.iter().any(|name| name == row)
        };
        if !wanted {
            continue;
        }
        eprintln!("measuring: {row}");
        match row {
            "throughput" => throughput::measure(&options, &mut table).await?,
            "memory" => memory::measure(&options, &mut table).await?,
            "ticks" => ticks::measure(&options, &mut table).await?,
            "subscribe" => subscribe::measure(&options, &mut table).await?,
            "info" => info::measure(&options, &mut table).await?,
            "size" => size::measure(&mut table)?,
            "durable" => durable::measure(&options, &mut table).await?,
            "restore" => restore::measure(&options, &mut table)?,
            _ => exec::measure(&options, &mut table).await?,
        }
    }
    println!("{table}");
    Ok(())
}
