//! Gofer's command line, and a Gofer core to leave running.
//!
//! ```console
//! $ cargo run --example gofer -- service start
//! ```
//!
//! One module per noun, each with its commands and what they do; what they
//! share is here:
//!
//! - [`cli`] is the whole grammar, [`settings`] where the address, the token and
//!   the rest come from: flags, environment, configuration file.
//! - [`session`] is a client with these settings, [`failure`] how a command
//!   fails: a sentence, what to do next, an exit code.
//! - [`output`] is tables for people and JSON for programs; results go to the
//!   standard output, everything else to the standard error.

#![allow(
    clippy::single_match_else,
    reason = "of a pipeline and of no pipeline, of a file and of no file: neither is the other's exception"
)]

mod cli;
mod completions;
mod config;
mod conversation;
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
mod token;

use std::process::ExitCode;

use clap::Parser as _;
use cli::Cli;
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let connection = cli.connection.clone();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&connection),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    // A core answers many at once; a command waits for one answer.
    let mut runtime = if cli.command.is_core() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(cli.command.run(&cli.connection));
    // Somebody may still be asked for a line that is no longer wanted.
    runtime.shutdown_background();
    outcome
}
