//! The output of a container, as log events of this process, one for each line.
//!
//! The last lines are kept, to explain why a container ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::engine::{Engine, EngineError};
use super::symptom::Symptom;
use crate::sync::lock;
use gofer_net::Backoff;

/// Longer lines are cut to this many bytes.
const MAX_LINE: usize = 8 * 1024;

/// How many lines are kept, and how many characters of each.
const LAST_LINES: usize = 3;
const LAST_CHARS: usize = 300;

/// Between attempts to follow the log again after the engine became unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// After a symptom, a program may still write where it was: Go lists all that it was doing.
const SYMPTOM_LINES: usize = 300;

/// The last log lines of a container.
#[derive(Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<Last>>);

#[derive(Default)]
struct Last {
    lines: VecDeque<String>,
    /// And how many lines ago it was.
    symptom: Option<(Symptom, usize)>,
}

impl LastLines {
    pub(super) fn add(&self, line: &str) {
        let message = message(line).unwrap_or_else(|| line.to_owned());
        let mut last = lock(&self.0);
        last.symptom = match (Symptom::in_line(line), last.symptom) {
            (Some(symptom), _) => Some((symptom, 0)),
            (None, Some((symptom, ago))) if ago < SYMPTOM_LINES => Some((symptom, ago + 1)),
            (None, _) => None,
        };
        if last.lines.len() == LAST_LINES {
            last.lines.pop_front();
        }
        last.lines.push_back(message.chars().take(LAST_CHARS).collect());
    }

    /// What they show of the container's limits.
    pub(super) fn symptom(&self) -> Option<Symptom> {
        lock(&self.0).symptom.map(|(symptom, _)| symptom)
    }

    /// As the end of a sentence; empty if there are no lines.
    pub(super) fn describe(&self) -> String {
        let last = lock(&self.0);
        if last.lines.is_empty() {
            return String::new();
        }
        let lines: Vec<&str> = last.lines.iter().map(String::as_str).collect();
        format!("; its last log lines: {}", lines.join(" / "))
    }
}

/// The message of a line that was logged by an extension of the SDK.
fn message(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let message = line.get("message")?.as_str()?;
    match line.get("error").and_then(|error| error.as_str()) {
        Some(error) => Some(format!("{message}: {error}")),
        None => Some(message.to_owned()),
    }
}

/// Logs the output of a container from its start to its end; `ended` is cancelled once it has
/// ended.
pub(super) async fn follow(
    engine: &Engine,
    container: &str,
    extension: &str,
    last: &LastLines,
    ended: &CancellationToken,
) {
    let mut lines = Lines::default();
    let mut backoff = BACKOFF;
    // From the start, and after an interruption from the last second on. Engines count in seconds,
    // so a line may be logged twice, but none is lost.
    let mut since = 0;
    loop {
        let options = LogsOptionsBuilder::default()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .since(since)
            .build();
        let mut outputs = engine.docker.logs(container, Some(options));
        let is_last = ended.is_cancelled();
        while let Some(Ok(output)) = outputs.next().await {
            since = seconds_now();
            lines.add(&output, |line| {
                tracing::info!(target: "gofer_core::container", extension, "{line}");
                last.add(line);
            });
        }
        // The stream ends with the container, or if the engine becomes unavailable.
        if is_last || !is_running(engine, container).await {
            break;
        }
        let _ = tokio::time::timeout(backoff.pause(), ended.cancelled()).await;
    }
    lines.finish(|line| {
        tracing::info!(target: "gofer_core::container", extension, "{line}");
        last.add(line);
    });
}

/// Assumes so if the engine does not answer.
async fn is_running(engine: &Engine, container: &str) -> bool {
    match engine.call(engine.docker.inspect_container(container, None)).await {
        Ok(inspected) => inspected.state.is_some_and(|state| state.running != Some(false)),
        Err(EngineError::Missing(_)) => false,
        Err(_) => true,
    }
}

fn seconds_now() -> i32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i32::try_from(now.as_secs()).unwrap_or(i32::MAX)
}

/// Splits output into lines, separately for the two streams of a container.
#[derive(Default)]
pub(super) struct Lines {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Lines {
    pub(super) fn add(&mut self, output: &LogOutput, mut line: impl FnMut(&str)) {
        let (kept, bytes) = match output {
            LogOutput::StdErr { message } => (&mut self.err, message),
            LogOutput::StdOut { message }
            | LogOutput::StdIn { message }
            | LogOutput::Console { message } => (&mut self.out, message),
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let remaining = MAX_LINE.saturating_sub(kept.len());
            kept.extend_from_slice(&text[..text.len().min(remaining)]);
            if ends {
                flush(kept, &mut line);
            }
        }
    }

    /// Passes on what does not end with a newline.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&str)) {
        for kept in [&mut self.out, &mut self.err] {
            flush(kept, &mut line);
        }
    }
}

/// Replaces control characters, which a terminal might interpret.
fn flush(kept: &mut Vec<u8>, line: &mut impl FnMut(&str)) {
    let text = String::from_utf8_lossy(kept).replace(|it: char| it.is_control() && it != '\t', " ");
    kept.clear();
    if !text.trim().is_empty() {
        line(text.trim_end());
    }
}
