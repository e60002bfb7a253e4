//! What the figures were measured on.

use std::process::Command;

/// Processor, cores, kernel and compiler, in one line.
pub(crate) fn describe() -> String {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = first_line(Command::new("uname").arg("-sr"));
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let rustc = first_line(Command::new(rustc).arg("--version"));
    format!("{model}, {cores} cores, {kernel}, {rustc}")
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().next().unwrap_or("unknown").to_owned()
}
