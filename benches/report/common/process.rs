//! A process under test, and the kernel's figures of it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Result;
use super::identity::{IDENTITY, PREFIX, TOKEN};
use super::roles::Role;

/// Started with the environment that Gofer gives an extension; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    pub(crate) port: u16,
}

impl Process {
    /// This program in another role, with the port of the Gofer that it calls.
    pub(crate) fn start(role: Role, gofer: u16) -> Result<Self> {
        Self::start_with(role, gofer, &[])
    }

    pub(crate) fn start_with(role: Role, gofer: u16, variables: &[(&str, &str)]) -> Result<Self> {
        Self::prepare(&std::env::current_exe()?, Some(role), gofer, variables)?.start()
    }

    /// Everything but the start, for callers that measure the start.
    pub(crate) fn prepare(
        program: &Path,
        role: Option<Role>,
        gofer: u16,
        variables: &[(&str, &str)],
    ) -> Result<Prepared> {
        // Free at this moment, and nothing else here takes ports by number.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(program);
        command
            .args(role.map(Role::argument))
            .env(format!("{PREFIX}KEY"), TOKEN)
            .env(format!("{PREFIX}NAME"), "interval")
            .env(format!("{PREFIX}TLS_CERT"), &IDENTITY.certificate)
            .env(format!("{PREFIX}TLS_KEY"), &IDENTITY.key)
            .env(format!("{PREFIX}LOG_LEVEL"), "error")
            .env(format!("{PREFIX}HOST"), format!("127.0.0.1:{port}"))
            .env(format!("{PREFIX}GOFER_HOST"), format!("localhost:{gofer}"))
            .env(format!("{PREFIX}SKIP_TLS_VERIFY"), "true")
            .envs(variables.iter().copied())
            .stdin(Stdio::null());
        Ok(Prepared { command, port })
    }
}

/// The figures of a process are read by its number.
impl std::ops::Deref for Process {
    type Target = Pid;

    fn deref(&self) -> &Pid {
        &self.pid
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is observed.
#[derive(Clone, Copy)]
pub(crate) struct Pid(pub(crate) u32);

impl Pid {
    /// Processor time so far, of all its threads, in user and system mode.
    pub(crate) fn cpu(self) -> Result<Duration> {
        self.scheduled(0)
    }

    /// How long its threads have been ready to run while others had the processor.
    pub(crate) fn waited(self) -> Result<Duration> {
        self.scheduled(1)
    }

    /// A number in each thread's `schedstat`, added up.
    fn scheduled(self, which: usize) -> Result<Duration> {
        let mut nanos = 0;
        for thread in std::fs::read_dir(self.proc("task"))? {
            let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += text.split(' ').nth(which).unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident memory, in bytes.
    pub(crate) fn rss(self) -> Result<u64> {
        rss(&self.proc("status"))
    }

    pub(crate) fn open_files(self) -> Result<usize> {
        Ok(std::fs::read_dir(self.proc("fd"))?.count())
    }

    fn proc(self, what: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{what}", self.0))
    }
}

/// A process that is ready to be started.
pub(crate) struct Prepared {
    command: Command,
    pub(crate) port: u16,
}

impl Prepared {
    /// On one core, by `taskset`, which becomes the program.
    pub(crate) fn pinned(self, core: usize) -> Self {
        let mut command = Command::new("taskset");
        command
            .args(["--cpu-list", &core.to_string()])
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null());
        Self { command, port: self.port }
    }

    pub(crate) fn start(mut self) -> Result<Process> {
        let child = self.command.spawn()?;
        Ok(Process { pid: Pid(child.id()), child, port: self.port })
    }
}

/// Resident memory by a process's `status` file, in bytes.
pub(crate) fn rss(status: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(status)?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .ok_or("the kernel does not report the resident memory")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}
