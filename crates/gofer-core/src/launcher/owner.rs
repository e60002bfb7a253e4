//! The owner of a launch: the process of the core that made it. Another core checks whether it has
//! ended.
//!
//! A process is identified by the boot ID of its machine, its PID namespace, its PID and its start
//! time. On systems that do not provide these, launches have no owner, and no owner counts as ended.

/// This process, as text: the value of a container's label, and part of a launch's record.
pub(super) fn this() -> Option<String> {
    let id = std::process::id();
    Some(format!("{}.{}.{id}.{}", boot()?, namespace()?, started(id)?))
}

/// Whether the owner has certainly ended.
///
/// An owner from another boot has if its container, if it is one, is not running: the engine does not
/// restart these containers. An owner in another namespace may be alive.
pub(super) fn has_ended(owner: &str, container_runs: bool) -> bool {
    let system = System { boot: boot(), namespace: namespace(), started: &started };
    owner_has_ended(owner, container_runs, &system)
}

/// What the system reports.
struct System<'a> {
    boot: Option<String>,
    namespace: Option<String>,
    /// The start time of the process with a PID, if there is one.
    started: &'a dyn Fn(u32) -> Option<u64>,
}

fn owner_has_ended(owner: &str, container_runs: bool, system: &System<'_>) -> bool {
    let mut parts = owner.split('.');
    let (Some(boot), Some(namespace), Some(id), Some(started), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let (Ok(id), Ok(started)) = (id.parse(), started.parse::<u64>()) else { return false };
    let (Some(boot_now), Some(namespace_now)) = (&system.boot, &system.namespace) else {
        return false;
    };
    if boot != boot_now {
        return !container_runs;
    }
    namespace == namespace_now && (system.started)(id) != Some(started)
}

fn boot() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

/// The number in a link such as `pid:[4026531836]`.
fn namespace() -> Option<String> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let digits: String = link.to_str()?.chars().filter(char::is_ascii_digit).collect();
    Some(digits).filter(|digits| !digits.is_empty())
}

/// The start time of a process, in clock ticks since boot.
fn started(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the program's name, which may contain anything. The third is the first
    // one after it, and the start time is the twenty-second.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_an_owner_that_has_certainly_ended_counts_as_ended() {
        let started = |id| (id == 7).then_some(100);
        let system = System {
            boot: Some("now".to_owned()),
            namespace: Some("1".to_owned()),
            started: &started,
        };
        for (owner, container_runs, ended) in [
            ("now.1.7.100", true, false),
            // Its PID belongs to another process, or to none.
            ("now.1.7.99", true, true),
            ("now.1.8.100", true, true),
            // A process in another namespace may be alive.
            ("now.2.8.100", true, false),
            ("before.1.8.100", false, true),
            ("before.1.8.100", true, false),
            ("", false, false),
            ("now.1.8", false, false),
            ("now.1.8.100.1", false, false),
            ("now.1.eight.100", false, false),
        ] {
            assert_eq!(owner_has_ended(owner, container_runs, &system), ended, "{owner}");
        }
        let blind = System { boot: None, namespace: None, started: &|_| None };
        assert!(!owner_has_ended("now.1.8.100", false, &blind));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_not_ended() {
        assert!(!has_ended(&this().unwrap(), false));
    }
}
