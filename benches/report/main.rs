//! What gofer-sdk promises of its speed and size, measured, as one table. Ends with status 1 if a
//! target is missed.
//!
//! ```text
//! cargo bench --bench report                       everything, about twenty minutes
//! cargo bench --bench report -- ticks info         some sections
//! cargo bench --bench report -- million            only by name: about sixteen minutes
//! cargo bench --bench report -- --quick            small numbers: does it run at all?
//! ```
//!
//! Every figure stands beside a baseline that is measured in the same run: tonic's own server and
//! client with the same TLS, the same check of the token and the same current-thread runtime, doing
//! the least that answers the calls. Rounds alternate between the two, so that other work on the
//! machine slows both. Reported are medians, with the least and the most of all rounds in brackets,
//! and ratios of medians if the promise is a ratio.
//!
//! What is measured runs in a process of its own (this program, started with the name of a role),
//! so that its processor time and memory are its own.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

mod common;
mod durable;
mod exec;
mod history;
mod info;
mod memory;
mod million;
mod restore;
mod size;
mod subscribe;
mod throughput;
mod ticks;
mod year;

use std::process::ExitCode;

use common::report::Table;
use common::{Options, Result, machine, roles};

/// The sections by name, in the order of the table.
const SECTIONS: [&str; 12] = [
    "throughput",
    "memory",
    "ticks",
    "subscribe",
    "info",
    "size",
    "exec",
    "durable",
    "history",
    "restore",
    "year",
    "million",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let mut arguments: Vec<String> = arguments.collect();
    if let Some(role) = roles::asked_for(&program, &arguments) {
        return roles::play(role).await.map(|()| ExitCode::SUCCESS);
    }
    // Cargo adds it to the arguments of every benchmark.
    arguments.retain(|argument| argument != "--bench");
    let quick = arguments.iter().any(|argument| argument == "--quick");
    arguments.retain(|argument| argument != "--quick");
    if let Some(unknown) = arguments.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        let known = SECTIONS.join(", ");
        return Err(format!("there is no section `{unknown}`; there are: {known}").into());
    }
    let options = Options { quick };
    let mut table = Table::default();
    for section in SECTIONS {
        let wanted = if arguments.is_empty() {
            match section {
                // Building a second program takes minutes: not in a quick run.
                "size" => !quick,
                // Nearly as long as all others together, and the machine should do nothing else.
                "million" => false,
                _ => true,
            }
        } else {
            arguments.iter().any(|name| name == section)
        };
        if !wanted {
            continue;
        }
        eprintln!("measuring: {section}");
        match section {
            "throughput" => throughput::measure(&options, &mut table).await?,
            "memory" => memory::measure(&options, &mut table).await?,
            "ticks" => ticks::measure(&options, &mut table).await?,
            "subscribe" => subscribe::measure(&options, &mut table).await?,
            "info" => info::measure(&options, &mut table).await?,
            "size" => size::measure(&mut table)?,
            "durable" => durable::measure(&options, &mut table).await?,
            "history" => history::measure(&options, &mut table).await?,
            "restore" => restore::measure(&options, &mut table)?,
            "year" => year::measure(&options, &mut table)?,
            "million" => million::measure(&options, &mut table).await?,
            _ => exec::measure(&options, &mut table).await?,
        }
    }
    println!("{}\n\n{table}", machine::describe());
    let missed = table.missed();
    // The targets are for the full numbers.
    if missed.is_empty() || quick {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("targets missed: {}", missed.join("; "));
    Ok(ExitCode::FAILURE)
}
