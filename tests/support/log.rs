//! What the crates of this workspace log on the thread of a test.

#![allow(dead_code, unreachable_pub, reason = "each test that includes it uses a part of it")]

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::Field;
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, span};

/// The lines, while it lives.
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    _observed: Observed,
}

impl Log {
    /// From level info on.
    pub fn begin() -> Self {
        Self::begin_at(Level::INFO)
    }

    /// From this level on.
    pub fn begin_at(level: Level) -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&lines);
        let is_wanted = move |metadata: &Metadata<'_>| {
            *metadata.level() <= level && metadata.target().starts_with("gofer_")
        };
        let observed = observe(is_wanted, move |event| {
            let mut line = format!("{} ", event.metadata().level());
            event.record(&mut |field: &Field, value: &dyn Debug| {
                write!(line, "{}={value:?} ", field.name()).unwrap();
            });
            kept.lock().unwrap().push(line);
        });
        Self { lines, _observed: observed }
    }

    /// Those that contain a text, such as `WARN`.
    pub fn with(&self, text: &str) -> Vec<String> {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// All since it began, or since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

/// Calls `on_event` for the events of this thread that are wanted, until the result is dropped.
pub fn observe(
    is_wanted: impl Fn(&Metadata<'_>) -> bool + Send + Sync + 'static,
    on_event: impl Fn(&Event<'_>) + Send + Sync + 'static,
) -> Observed {
    // Tracing remembers whether anybody wants an event. As long as there is a single subscriber, it
    // asks that of the thread that logs it first instead, and another test's thread has none.
    let second = Dispatch::new(NoSubscriber::new());
    Observed { _default: set_default(Observer { is_wanted, on_event }), _second: second }
}

pub struct Observed {
    _default: DefaultGuard,
    _second: Dispatch,
}

struct Observer<W, E> {
    is_wanted: W,
    on_event: E,
}

impl<W, E> Subscriber for Observer<W, E>
where
    W: Fn(&Metadata<'_>) -> bool + Send + Sync + 'static,
    E: Fn(&Event<'_>) + Send + Sync + 'static,
{
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        (self.is_wanted)(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        (self.on_event)(event);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
