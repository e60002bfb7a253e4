//! What the processes of extensions and runs write, as events of this process, one for each line.
//!
//! It is read to its end whatever it is, so that no process waits for its output to be read. Lines
//! are bounded in length, and a process in how much of its output is logged.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Child;
use tokio::task::JoinSet;
use tracing::Level;

use crate::sync::lock;

/// Longer lines are cut to this many bytes.
const MAX_LINE: usize = 8 * 1024;

/// How much a process may have logged at once, in bytes, and how much more with each second.
const BURST: f64 = 1024.0 * 1024.0;
const PER_SECOND: f64 = 64.0 * 1024.0;

/// What else is logged with each line, about: the time, the target and whose it is.
const LINE_OVERHEAD: f64 = 128.0;

/// How many of the last lines are kept, and how many characters of each.
const LAST_LINES: usize = 3;
const LAST_CHARS: usize = 300;

/// How long what a process wrote before its end may take to be read. A process that it has started
/// in a session of its own may keep its output open for ever.
const REST_TIMEOUT: Duration = Duration::from_secs(2);

/// Splits bytes into lines.
#[derive(Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    pub(super) fn add(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let remaining = MAX_LINE.saturating_sub(self.0.len());
            self.0.extend_from_slice(&text[..text.len().min(remaining)]);
            if ends {
                self.finish(&mut line);
            }
        }
    }

    /// Passes on what does not end with a newline. Control characters, which a terminal might
    /// interpret, are replaced.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&str)) {
        let is_unsafe = |it: char| it.is_control() && it != '\t';
        let text = String::from_utf8_lossy(&self.0).replace(is_unsafe, " ");
        self.0.clear();
        if !text.trim().is_empty() {
            line(text.trim_end());
        }
    }
}

/// Whose output it is.
pub(super) enum Source {
    Extension(String),
    Run { pipeline: String, run: i64 },
}

/// Logs the lines of one source.
pub(super) struct OutputLog {
    source: Source,
    allowance: Mutex<Allowance>,
}

struct Allowance {
    bytes: f64,
    at: Instant,
    left_out: u64,
}

impl Allowance {
    /// Whether a line of this length may be logged, and how many before it were not. After one that
    /// was not, none is for a second, so that what is left out is mentioned once a second at most.
    fn take(&mut self, length: usize, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.bytes = (self.bytes + passed * PER_SECOND).min(BURST);
        // Lines are bounded, so this is exact.
        let cost = u32::try_from(length).map_or(f64::INFINITY, f64::from) + LINE_OVERHEAD;
        let needed = if self.left_out > 0 { PER_SECOND } else { cost };
        if self.bytes < needed {
            self.left_out += 1;
            return None;
        }
        self.bytes -= cost;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl OutputLog {
    pub(super) fn new(source: Source) -> Self {
        let allowance = Allowance { bytes: BURST, at: Instant::now(), left_out: 0 };
        Self { source, allowance: Mutex::new(allowance) }
    }

    pub(super) fn line(&self, line: &str) {
        let allowed = lock(&self.allowance).take(line.len(), Instant::now());
        let Some(left_out) = allowed else { return };
        if left_out > 0 {
            self.log(
                Level::WARN,
                &format!("{left_out} lines of its output are left out: too many"),
            );
        }
        let (level, text) = read(line);
        self.log(level, &text);
    }

    fn log(&self, level: Level, text: &str) {
        // Fields without a value are left out.
        let (extension, pipeline, run) = match &self.source {
            Source::Extension(name) => (Some(&**name), None, None),
            Source::Run { pipeline, run } => (None, Some(&**pipeline), Some(*run)),
        };
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(target: "gofer_core::output", extension, pipeline, run, "{text}")
            };
        }
        match level {
            Level::ERROR => log!(error),
            Level::WARN => log!(warn),
            Level::INFO => log!(info),
            _ => log!(debug),
        }
    }
}

/// The level and the text of a line: those of a JSON line, as extensions of the SDK write them and
/// as Gofer's own do, with its other fields behind the message; or the line as it is.
fn read(line: &str) -> (Level, String) {
    let Some((mut text, fields)) = json_line(line) else { return (Level::INFO, line.to_owned()) };
    let level = match fields.get("level").and_then(Value::as_str) {
        Some("error" | "fatal" | "panic") => Level::ERROR,
        Some("warn") => Level::WARN,
        Some("debug" | "trace") => Level::DEBUG,
        _ => Level::INFO,
    };
    for (name, value) in fields {
        // Each line has these anyway.
        if !matches!(&*name, "level" | "time" | "message" | "extension" | "target") {
            let _ = write!(text, " {name}={value}");
        }
    }
    (level, text)
}

/// The message of a JSON line, and all of its fields.
fn json_line(line: &str) -> Option<(String, Map<String, Value>)> {
    let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
    let message = fields.get("message")?.as_str()?.replace(char::is_control, " ");
    Some((message, fields))
}

/// The last lines that a process has written, to explain its end.
#[derive(Default)]
pub(super) struct LastLines(VecDeque<String>);

impl LastLines {
    pub(super) fn add(&mut self, line: &str) {
        let text = match json_line(line) {
            Some((message, fields)) => match fields.get("error").and_then(Value::as_str) {
                Some(error) => format!("{message}: {error}"),
                None => message,
            },
            None => line.to_owned(),
        };
        if self.0.len() == LAST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(text.chars().take(LAST_CHARS).collect());
    }

    /// As the end of a sentence; empty if there are no lines.
    pub(super) fn describe(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let lines: Vec<&str> = self.0.iter().map(String::as_str).collect();
        format!("; its last log lines: {}", lines.join(" / "))
    }
}

/// Reads what a child writes, until both of its outputs are closed or this is dropped.
pub(super) struct ChildOutput {
    readers: JoinSet<()>,
    last: Arc<Mutex<LastLines>>,
}

impl ChildOutput {
    /// Of a child whose outputs are pipes.
    pub(super) fn follow(child: &mut Child, source: Source) -> Self {
        let mut readers = JoinSet::new();
        let (log, last) = (Arc::new(OutputLog::new(source)), Arc::default());
        if let Some(output) = child.stdout.take() {
            readers.spawn(follow(output, Arc::clone(&log), Arc::clone(&last)));
        }
        if let Some(output) = child.stderr.take() {
            readers.spawn(follow(output, log, Arc::clone(&last)));
        }
        Self { readers, last }
    }

    /// Reads what is left once the child has ended, and returns its last lines as the end of a
    /// sentence.
    pub(super) async fn rest(mut self) -> String {
        let all = async { while self.readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(REST_TIMEOUT, all).await;
        lock(&self.last).describe()
    }

    /// Reads on, for as long as anything has the outputs open.
    pub(super) fn detach(mut self) {
        self.readers.detach_all();
    }
}

async fn follow(
    mut output: impl AsyncRead + Unpin,
    log: Arc<OutputLog>,
    last: Arc<Mutex<LastLines>>,
) {
    let mut lines = Lines::default();
    let mut line = |line: &str| {
        log.line(line);
        lock(&last).add(line);
    };
    let mut bytes = vec![0; MAX_LINE];
    while let Ok(length @ 1..) = output.read(&mut bytes).await {
        lines.add(&bytes[..length], &mut line);
    }
    lines.finish(&mut line);
}

#[cfg(test)]
mod tests;
