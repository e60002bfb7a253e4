//! The output of a container, as log events of this process, one for each line.
//!
//! The last lines are kept, to explain why a container ended.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use tokio_util::sync::CancellationToken;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::engine::{Engine, EngineError};
use super::symptom::Symptom;
use crate::output::{self, OutputLog, Source};
use crate::sync::lock;
use gofer_net::Backoff;

/// Between attempts to follow the log again after the engine became unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// After a symptom, a program may still write where it was: Go lists all that it was doing.
const SYMPTOM_LINES: usize = 300;

/// The last log lines of a container.
#[derive(Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<Last>>);

#[derive(Default)]
struct Last {
    lines: output::LastLines,
    /// And how many lines ago it was.
    symptom: Option<(Symptom, usize)>,
}

impl LastLines {
    pub(super) fn add(&self, line: &str) {
        let mut last = lock(&self.0);
        last.symptom = match (Symptom::in_line(line), last.symptom) {
            (Some(symptom), _) => Some((symptom, 0)),
            (None, Some((symptom, ago))) if ago < SYMPTOM_LINES => Some((symptom, ago + 1)),
            (None, _) => None,
        };
        last.lines.add(line);
    }

    /// What they show of the container's limits.
    pub(super) fn symptom(&self) -> Option<Symptom> {
        lock(&self.0).symptom.map(|(symptom, _)| symptom)
    }

    /// As the end of a sentence; empty if there are no lines.
    pub(super) fn describe(&self) -> String {
        lock(&self.0).lines.describe()
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
    let log = OutputLog::new(Source::Extension(extension.to_owned()));
    let add = |line: &str| {
        log.line(line);
        last.add(line);
    };
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
            lines.add(&output, add);
        }
        // The stream ends with the container, or if the engine becomes unavailable.
        if is_last || !is_running(engine, container).await {
            break;
        }
        let _ = tokio::time::timeout(backoff.pause(), ended.cancelled()).await;
    }
    lines.finish(add);
}

/// Assumes so if the engine does not answer.
async fn is_running(engine: &Engine, container: &str) -> bool {
    match engine.inspect(container).await {
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
struct Lines {
    out: output::Lines,
    err: output::Lines,
}

impl Lines {
    fn add(&mut self, output: &LogOutput, line: impl FnMut(&str)) {
        match output {
            LogOutput::StdErr { message } => self.err.add(message, line),
            LogOutput::StdOut { message }
            | LogOutput::StdIn { message }
            | LogOutput::Console { message } => self.out.add(message, line),
        }
    }

    fn finish(&mut self, mut line: impl FnMut(&str)) {
        self.out.finish(&mut line);
        self.err.finish(&mut line);
    }
}
