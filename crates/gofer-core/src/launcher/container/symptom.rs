//! What the log of a container shows of its limits, which engines do not report: an extension only
//! sees that a call of the system fails.

use super::logs::LastLines;
use super::plan::TMP_SIZE;
use crate::limits::ContainerLimits;
use crate::size::Size;

/// A call of the system that failed, perhaps because of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symptom {
    /// It wrote where it may not.
    ReadOnly,
    /// It cannot have another process or thread.
    NoProcess,
    /// It cannot write any more.
    NoSpace,
}

/// What C libraries, Go, Python and Java call it, in lower case.
const TEXTS: [(&str, Symptom); 6] = [
    ("read-only file system", Symptom::ReadOnly),
    ("resource temporarily unavailable", Symptom::NoProcess),
    ("failed to create new os thread", Symptom::NoProcess),
    ("can't start new thread", Symptom::NoProcess),
    ("unable to create native thread", Symptom::NoProcess),
    ("no space left on device", Symptom::NoSpace),
];

impl Symptom {
    pub(super) fn in_line(line: &str) -> Option<Self> {
        let line = line.to_ascii_lowercase();
        TEXTS.iter().find(|(text, _)| line.contains(text)).map(|(_, symptom)| *symptom)
    }

    /// The limit that explains it, and how to change that; as the end of a sentence.
    fn advice(self, limits: &ContainerLimits) -> Option<String> {
        match self {
            Self::ReadOnly if !limits.writable_root => Some(
                "its file system is read-only but for /tmp, unless it is installed with \
                 `writable_root` (`--writable-root`)"
                    .to_owned(),
            ),
            Self::NoProcess => Some(format!(
                "it may have at most {} processes and threads, which `processes` (`--processes`) \
                 changes",
                limits.processes
            )),
            Self::NoSpace if !limits.writable_root => Some(format!(
                "its /tmp holds {}, unless it is installed with `writable_root` \
                 (`--writable-root`)",
                Size(TMP_SIZE)
            )),
            Self::ReadOnly | Self::NoSpace => None,
        }
    }
}

/// What explains the last lines of a log.
pub(super) fn advice(last: &LastLines, limits: &ContainerLimits) -> Option<String> {
    last.symptom()?.advice(limits)
}

/// What a container ran out of that was killed for its memory.
pub(super) fn out_of_memory(limits: &ContainerLimits) -> String {
    let memory = Size(limits.memory.unsigned_abs());
    format!("more memory than the {memory} that `memory` (`--memory`) allows")
}
