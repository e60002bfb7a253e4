//! Processes on cores of their own, by the program `taskset` if it is there.

use std::process::{Command, Stdio};

use super::Result;

/// This process on one core, and room for another on the next. Given back when dropped.
pub(crate) struct Cores {
    pub(crate) other: usize,
    before: String,
}

impl Cores {
    /// `None` if there is no `taskset`, or only one core.
    pub(crate) fn split() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        let [other, own] = first_two(allowed)?;
        pin_this_process(&own.to_string()).ok()?;
        Some(Self { other, before: allowed.trim().to_owned() })
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        // It has worked before.
        let _ = pin_this_process(&self.before);
    }
}

/// The first two numbers of a list such as `0,2-5`.
fn first_two(list: &str) -> Option<[usize; 2]> {
    let mut numbers = list.trim().split(',').flat_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.parse::<usize>(), to.parse::<usize>()) {
            (Ok(from), Ok(to)) => from..to + 1,
            _ => 0..0,
        }
    });
    Some([numbers.next()?, numbers.next()?])
}

/// All threads. What is started later, inherits it.
fn pin_this_process(cores: &str) -> Result<()> {
    let status = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", cores])
        .arg(std::process::id().to_string())
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err("taskset failed".into()) }
}
