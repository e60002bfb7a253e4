//! The writer of a log: whoever logs never fails and never waits for the log's reader.

use std::io::{self, PipeWriter, Stderr, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How many bytes wait for a reader that is slow. Lines beyond are left out.
const MAX_WAITING: usize = 256 * 1024;

/// A pipe that has room has room for this much (`PIPE_BUF`): longer lines may wait.
const ROOM: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// How long the end of the process waits for lines that are still waiting.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes lines to a log, one with each call of [`write`](Write::write), which always succeeds.
///
/// A line is written at once if that cannot block. Otherwise it waits, and a thread writes what
/// waits. Lines that cannot be written, or do not fit among those that wait, are left out and
/// counted; the count is written as soon as the log can be written again.
///
/// Clones write to the same log.
pub struct LogWriter<O = Stderr>(Arc<Log<O>>);

struct Log<O> {
    output: O,
    /// Makes a line, with its end, of how many lines were left out.
    left_out: fn(u64) -> String,
    state: Mutex<State>,
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// How many lines these are.
    lines: u64,
    /// Whether there is a thread that writes them. There is none while nothing waits.
    has_thread: bool,
    left_out: u64,
}

impl LogWriter {
    /// Writes to standard error.
    pub fn stderr(left_out: fn(u64) -> String) -> Self {
        Self::new(io::stderr(), left_out)
    }
}

impl<O: Output> LogWriter<O> {
    fn new(output: O, left_out: fn(u64) -> String) -> Self {
        let (state, written) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Log { output, left_out, state, written }))
    }

    /// Waits until all lines are written, for a second at most.
    pub fn finish(&self) {
        let state = self.0.lock();
        let _ = self.0.written.wait_timeout_while(state, FINISH_TIMEOUT, |it| it.has_thread);
    }
}

impl<O> Clone for LogWriter<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O: Output> Write for LogWriter<O> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        Log::add(&self.0, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a log is written to. Each write is one system call.
pub trait Output: AsFd + Send + Sync + 'static {
    /// Writes all of it.
    ///
    /// # Errors
    ///
    /// If that is not possible.
    fn write_all(&self, bytes: &[u8]) -> io::Result<()>;
}

impl Output for Stderr {
    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.lock().write_all(bytes)
    }
}

impl Output for PipeWriter {
    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(&mut &*self, bytes)
    }
}

impl<O: Output> Log<O> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(log: &Arc<Self>, line: &[u8]) {
        let mut state = log.lock();
        if !state.has_thread && line.len() <= ROOM && log.has_room() {
            if log.report(&mut state).and_then(|()| log.output.write_all(line)).is_err() {
                state.left_out += 1;
            }
            return;
        }
        if state.waiting.len() + line.len() > MAX_WAITING {
            state.left_out += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        state.lines += 1;
        if !state.has_thread {
            let log = Arc::clone(log);
            let thread = std::thread::Builder::new().name("log".to_owned());
            state.has_thread = thread.spawn(move || log.write_waiting()).is_ok();
        }
    }

    /// Writes how many lines were left out, if any.
    fn report(&self, state: &mut State) -> io::Result<()> {
        if state.left_out > 0 && self.has_room() {
            self.output.write_all((self.left_out)(state.left_out).as_bytes())?;
            state.left_out = 0;
        }
        Ok(())
    }

    /// Whether [`ROOM`] bytes can be written without waiting, or an error would be returned.
    fn has_room(&self) -> bool {
        let mut polled = [PollFd::new(&self.output, PollFlags::OUT)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn write_waiting(&self) {
        let mut state = self.lock();
        while !state.waiting.is_empty() {
            let (waiting, lines) = (std::mem::take(&mut state.waiting), state.lines);
            state.lines = 0;
            drop(state);
            let outcome = self.output.write_all(&waiting);
            state = self.lock();
            match outcome {
                Ok(()) if state.left_out > 0 => {
                    let line = (self.left_out)(std::mem::take(&mut state.left_out));
                    state.waiting.splice(..0, line.into_bytes());
                    state.lines += 1;
                }
                Ok(()) => {}
                Err(_) => state.left_out += lines,
            }
        }
        state.has_thread = false;
        self.written.notify_all();
    }
}

/// Whether a crate below ours logs under this target: frames and records, among which nobody would
/// find what they look for.
pub fn is_transport(target: &str) -> bool {
    let of = target.split("::").next().unwrap_or_default();
    matches!(of, "bollard" | "h2" | "hyper" | "hyper_util" | "mio" | "rustls" | "tonic" | "tower")
}

#[cfg(test)]
mod tests;
