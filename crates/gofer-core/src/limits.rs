//! How long an extension may take, and how much its container may use.

use std::time::Duration;

use tonic::Status;

use super::launcher::is_container;
use super::size::Size;
use gofer_proto::embedded::ExtensionOptions;
use gofer_sdk::GoDuration;

/// The longest timeout, so that callers know how long to wait for an answer.
pub(super) const LONGEST_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// An option that is a number: its name, what it may be, and what it is by default.
struct Number {
    name: &'static str,
    least: i64,
    most: i64,
    default: i64,
    show: fn(i64) -> String,
}

/// Far more than extensions use, which are mostly waiting, and little enough for one that leaks to
/// leave the machine alive. Engines refuse less than 6 MiB.
const MEMORY: Number = Number {
    name: "memory",
    least: 8 << 20,
    most: 1 << 40,
    default: 512 << 20,
    show: |bytes| Size(bytes.try_into().unwrap_or(0)).to_string(),
};

/// Threads count: runtimes have one for each core, and some more for blocking work.
const PROCESSES: Number = Number {
    name: "processes",
    least: 1,
    most: 65_536,
    default: 512,
    show: |number| number.to_string(),
};

const fn timeout(name: &'static str, seconds: i64) -> Number {
    Number {
        name,
        least: 100,
        most: LONGEST_TIMEOUT.as_secs().cast_signed() * 1000,
        default: seconds * 1000,
        show: |millis| show_duration(Duration::from_millis(millis.try_into().unwrap_or(0))),
    }
}

/// A cold container on a busy machine takes seconds.
const START: Number = timeout("start_timeout", 30);

/// Ending a subscription that ignores its cancellation takes a few seconds.
const CALL: Number = timeout("call_timeout", 30);

const STOP: Number = timeout("stop_timeout", 10);

impl Number {
    /// # Errors
    ///
    /// If it is out of range.
    fn check(&self, value: Option<i64>) -> Result<i64, Status> {
        let Self { name, least, most, default, show } = self;
        let value = value.unwrap_or(*default);
        if (least..=most).contains(&&value) {
            return Ok(value);
        }
        Err(Status::invalid_argument(format!(
            "`{name}` must be from {} to {}",
            show(*least),
            show(*most)
        )))
    }

    /// What was accepted when it was stored, perhaps by another version.
    fn restore(&self, value: Option<i64>) -> i64 {
        value.unwrap_or(self.default).clamp(self.least, self.most)
    }
}

fn millis(value: i64) -> Duration {
    Duration::from_millis(value.unsigned_abs())
}

/// As Go writes it.
pub(super) fn show_duration(duration: Duration) -> String {
    GoDuration::try_from(duration).map_or_else(|_| format!("{duration:?}"), |it| it.to_string())
}

/// How long an extension may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// From its launch until it has answered its first call.
    pub(super) start: Duration,
    /// For every other call.
    pub(super) call: Duration,
    /// From Shutdown until what it runs in has ended.
    pub(super) stop: Duration,
}

impl Timeouts {
    pub(super) fn new(options: &ExtensionOptions) -> Result<Self, Status> {
        Ok(Self {
            start: millis(START.check(options.start_timeout)?),
            call: millis(CALL.check(options.call_timeout)?),
            stop: millis(STOP.check(options.stop_timeout)?),
        })
    }

    pub(super) fn restore(options: &ExtensionOptions) -> Self {
        Self {
            start: millis(START.restore(options.start_timeout)),
            call: millis(CALL.restore(options.call_timeout)),
            stop: millis(STOP.restore(options.stop_timeout)),
        }
    }
}

/// How much the container of an extension may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContainerLimits {
    /// In bytes.
    pub(super) memory: i64,
    /// Threads count.
    pub(super) processes: i64,
    pub(super) writable_root: bool,
}

impl ContainerLimits {
    pub(super) fn new(options: &ExtensionOptions) -> Result<Self, Status> {
        Ok(Self {
            memory: MEMORY.check(options.memory)?,
            processes: PROCESSES.check(options.processes)?,
            writable_root: options.writable_root(),
        })
    }

    pub(super) fn restore(options: &ExtensionOptions) -> Self {
        Self {
            memory: MEMORY.restore(options.memory),
            processes: PROCESSES.restore(options.processes),
            writable_root: options.writable_root(),
        }
    }

    /// Refuses limits for what is not a container: they would limit nothing.
    pub(super) fn check_image(options: &ExtensionOptions, image: &str) -> Result<(), Status> {
        let given = [
            (MEMORY.name, options.memory.is_some()),
            (PROCESSES.name, options.processes.is_some()),
            ("writable_root", options.writable_root.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) if !is_container(image) => Err(Status::invalid_argument(format!(
                "`{name}` is an option of containers, and this extension does not run in one; \
                 leave it out, or reset it if it was set before"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
