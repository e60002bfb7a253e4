//! What a container writes, as log events of this process, a line each.
//!
//! The last lines are kept, to say why a container ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::engine::{Engine, Trouble};
use crate::contact::lock;
use gofer_net::Backoff;

/// Bytes of a line that are logged; what follows is left out.
const MAX_LINE: usize = 8 * 1024;

/// Lines that are kept, and characters of each.
const LAST_LINES: usize = 3;
const LAST_CHARS: usize = 300;

/// Between attempts to follow the log again, where the engine went away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// The last lines of a container.
#[derive(Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn add(&self, line: &str) {
        let said = message(line).unwrap_or_else(|| line.to_owned());
        let mut last = lock(&self.0);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(said.chars().take(LAST_CHARS).collect());
    }

    /// As the end of a sentence; nothing where nothing was said.
    pub(super) fn told(&self) -> String {
        let last = lock(&self.0);
        if last.is_empty() {
            return String::new();
        }
        let lines: Vec<&str> = last.iter().map(String::as_str).collect();
        format!("; it said last: {}", lines.join(" / "))
    }
}

/// What a line says, of those that the SDK's extensions write.
fn message(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let said = line.get("message")?.as_str()?;
    match line.get("error").and_then(|error| error.as_str()) {
        Some(error) => Some(format!("{said}: {error}")),
        None => Some(said.to_owned()),
    }
}

/// Logs what a container writes, from its start to its end, of which `over` tells.
pub(super) async fn follow(
    engine: &Engine,
    container: &str,
    extension: &str,
    last: &LastLines,
    over: &CancellationToken,
) {
    let mut lines = Lines::default();
    let mut backoff = BACKOFF;
    // All there is, and then what came since. Engines count in seconds, so a line
    // may be told twice; none is lost.
    let mut since = 0;
    loop {
        let options = LogsOptionsBuilder::default()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .since(since)
            .build();
        let mut written = engine.docker.logs(container, Some(options));
        let is_last = over.is_cancelled();
        while let Some(Ok(output)) = written.next().await {
            since = seconds_now();
            lines.add(&output, |line| {
                tracing::info!(target: "gofer_sdk::container", extension, "{line}");
                last.add(line);
            });
        }
        // It ends with the container, and where the engine goes away.
        if is_last || !runs(engine, container).await {
            break;
        }
        let _ = tokio::time::timeout(backoff.pause(), over.cancelled()).await;
    }
    lines.finish(|line| {
        tracing::info!(target: "gofer_sdk::container", extension, "{line}");
        last.add(line);
    });
}

/// As far as can be told.
async fn runs(engine: &Engine, container: &str) -> bool {
    match engine.call(engine.docker.inspect_container(container, None)).await {
        Ok(inspected) => inspected.state.is_some_and(|state| state.running != Some(false)),
        Err(Trouble::Missing(_)) => false,
        Err(_) => true,
    }
}

fn seconds_now() -> i32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i32::try_from(now.as_secs()).unwrap_or(i32::MAX)
}

/// Cuts what is written into lines; the two streams of a container do not mix
/// within one.
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
            let room = MAX_LINE.saturating_sub(kept.len());
            kept.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                tell(kept, &mut line);
            }
        }
    }

    /// What has not been ended by a new line.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&str)) {
        for kept in [&mut self.out, &mut self.err] {
            tell(kept, &mut line);
        }
    }
}

/// Control characters could make a terminal do something.
fn tell(kept: &mut Vec<u8>, line: &mut impl FnMut(&str)) {
    let text = String::from_utf8_lossy(kept).replace(|it: char| it.is_control() && it != '\t', " ");
    kept.clear();
    if !text.trim().is_empty() {
        line(text.trim_end());
    }
}
