//! `gofer completions`.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;

#[derive(Args)]
#[command(after_help = "\
Example:
  gofer completions bash > ~/.local/share/bash-completion/completions/gofer")]
pub(crate) struct Completions {
    /// Shell to complete in.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Failure> {
        // Written at once: the generator itself panics if the pipe is closed.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "gofer", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}
