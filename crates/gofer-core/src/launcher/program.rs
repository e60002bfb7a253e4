//! Extensions as child processes on this machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::process::Command;
use tonic::Status;

use super::{LaunchSpec, Launched, Launcher, PROGRAM, Process};
use crate::command::ProcessGroup;
use crate::output::{ChildOutput, Source};

/// Launches extensions as child processes.
pub(crate) struct ChildProcess;

#[async_trait]
impl Launcher for ChildProcess {
    async fn launch(&self, image: &str, spec: &LaunchSpec) -> Result<Launched, Status> {
        let program = image.strip_prefix(PROGRAM).unwrap_or(image);
        let address = free_address().await.map_err(|error| {
            Status::resource_exhausted(format!("no free port on loopback: {error}"))
        })?;
        let mut child = Command::new(program)
            .env_clear()
            .envs(spec.environment(&address.to_string(), &spec.gofer_host))
            .stdin(Stdio::null())
            // Whoever started the core may read its standard output.
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // In its own process group: Ctrl-C must only reach the core, which then stops its
            // extensions in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Status::failed_precondition(format!(
                    "cannot start the program `{program}`: {}",
                    problem(program, &error)
                ))
            })?;
        let output = ChildOutput::follow(&mut child, Source::Extension(spec.name.clone()));
        let mut group = ProcessGroup(child);
        let extension = spec.name.clone();
        let process = Process::new(group.0.id(), spec, |kill| async move {
            match kill.run_until_cancelled(group.end()).await {
                Some(Ok(status)) => {
                    format!("the process has ended: {status}{}", output.rest().await)
                }
                Some(Err(error)) => format!("the process cannot be watched: {error}"),
                None => {
                    // Including its children: a wrapper's program, for example.
                    group.kill();
                    match group.0.kill().await {
                        Ok(()) => {
                            output.rest().await;
                            "the process was killed".to_owned()
                        }
                        Err(error) => {
                            tracing::warn!(extension, %error, "a process cannot be killed");
                            format!("the process cannot be killed: {error}")
                        }
                    }
                }
            }
        });
        Ok(Launched { dial: address.into(), process })
    }
}

/// Why a program cannot be started, in words that say what to do.
fn problem(program: &str, error: &io::Error) -> String {
    let path = Path::new(program);
    if path.is_dir() {
        "it is a directory".to_owned()
    } else if path.is_file() && error.kind() == io::ErrorKind::PermissionDenied {
        "it is not executable".to_owned()
    } else if path.is_absolute() {
        error.to_string()
    } else if program.contains('/') {
        format!(
            "{error}; relative paths are resolved from the directory in which the core was started"
        )
    } else {
        format!("{error}; `exec:./{program}` is one in the directory in which the core was started")
    }
}

/// A port that is free at the moment. The extension binds it a few milliseconds later. If another
/// process takes it first, the launch fails; the core never talks to the wrong process, since it
/// checks the extension's certificate.
async fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}
