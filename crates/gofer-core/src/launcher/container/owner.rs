//! Whose a container is: the process of the core that made it, so that another
//! core can tell whether that process has ended.
//!
//! A process is known by the boot of its machine, the namespace that its number
//! counts in, its number, and when it was started. Where a system does not show
//! these, no owner is told, and nobody's is ever taken for dead.

/// This process, as a container's label tells it.
pub(super) fn this() -> Option<String> {
    let id = std::process::id();
    Some(format!("{}.{}.{id}.{}", boot()?, namespace()?, started(id)?))
}

/// Whether it is known for certain that the owner has ended.
///
/// One of another boot has, where its container does not run either: containers
/// are not started again by the engine. Of processes in another namespace nothing
/// is known.
pub(super) fn is_dead(owner: &str, container_runs: bool) -> bool {
    let told = Told { boot: boot(), namespace: namespace(), started: &started };
    judge(owner, container_runs, &told)
}

/// What the system tells.
pub(super) struct Told<'a> {
    pub(super) boot: Option<String>,
    pub(super) namespace: Option<String>,
    /// When a process was started, where there is one of the number.
    pub(super) started: &'a dyn Fn(u32) -> Option<u64>,
}

pub(super) fn judge(owner: &str, container_runs: bool, told: &Told<'_>) -> bool {
    let mut parts = owner.split('.');
    let (Some(boot), Some(namespace), Some(id), Some(started), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let (Ok(id), Ok(started)) = (id.parse(), started.parse::<u64>()) else { return false };
    let (Some(boot_now), Some(namespace_now)) = (&told.boot, &told.namespace) else { return false };
    if boot != boot_now {
        return !container_runs;
    }
    namespace == namespace_now && (told.started)(id) != Some(started)
}

fn boot() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

/// The number of the namespace, out of `pid:[4026531836]`.
fn namespace() -> Option<String> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let digits: String = link.to_str()?.chars().filter(char::is_ascii_digit).collect();
    Some(digits).filter(|digits| !digits.is_empty())
}

/// When a process was started, in ticks since the boot.
fn started(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the program's name, which may hold anything; the
    // twenty-second is the time, the third the first one after the name.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}
