//! Gofer's command line, and a Gofer core to leave running.
//!
//! ```console
//! $ gofer service start
//! ```
//!
//! Each noun has a module with its subcommands and what they do. The other modules are shared:
//!
//! - [`cli`] has the top-level commands and flags; [`settings`] resolves the address, the token and
//!   other settings from flags, environment and configuration file; [`cores`] has those that this
//!   user started.
//! - [`session`] is a client with these settings; [`failure`] is an error with a hint and an exit
//!   code.
//! - [`output`] writes tables for people and JSON for programs. Results go to standard output,
//!   everything else to standard error.
//! - [`conversation`] answers an extension's questions, [`terminal`] hides answers that are secret,
//!   [`progress`] is a spinner, [`pairs`] reads `KEY=VALUE`, and [`pipeline_file`] a pipeline's
//!   configuration.

#![allow(
    clippy::single_match_else,
    reason = "the cases, such as a file or no file, are of equal rank"
)]

mod cli;
mod completions;
mod config;
mod conversation;
mod cores;
mod event;
mod extension;
mod failure;
mod namespace;
mod object;
mod output;
mod pairs;
mod pipeline;
mod pipeline_file;
mod progress;
mod run;
mod secret;
mod service;
mod session;
mod settings;
mod subscription;
mod terminal;
mod token;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use cli::Cli;
use failure::Failure;

/// How long the tasks of a core may take to be dropped once it has stopped.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let connection = cli.connection.clone();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&connection),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    // A core serves many calls at once; other commands wait for one response.
    let mut runtime = if cli.command.is_core() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = runtime.enable_all().build()?;
    let is_core = cli.command.is_core();
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = cli.command.run(&cli.connection) => outcome,
            () = terminal::interrupted() => Err(Failure::interrupted()),
        }
    });
    if is_core {
        // What its tasks hold ends with them, such as the processes of extensions.
        runtime.shutdown_timeout(DROP_TIMEOUT);
    } else {
        // A thread may still wait for a line of standard input, which is no longer needed.
        runtime.shutdown_background();
    }
    outcome
}
