//! Extensions as child processes on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::process::Command;
use tonic::Status;

use super::{Launched, Launcher, PROGRAM, Process, Start};
use crate::command::Group;

/// Runs extensions as child processes on this machine.
pub(crate) struct ChildProcess;

#[async_trait]
impl Launcher for ChildProcess {
    async fn launch(&self, image: &str, start: &Start) -> Result<Launched, Status> {
        let program = image.strip_prefix(PROGRAM).unwrap_or(image);
        let address = free_address().await.map_err(|error| {
            Status::resource_exhausted(format!("no free port on loopback: {error}"))
        })?;
        let child = Command::new(program)
            .env_clear()
            .envs(start.environment(&address.to_string(), &start.gofer_host))
            .stdin(Stdio::null())
            // A group of its own: Ctrl-C is for the core, which then stops its
            // extensions in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                Status::failed_precondition(format!(
                    "cannot start the program `{program}`: {error}; a relative path is taken from \
                     where the core was started"
                ))
            })?;
        let mut group = Group(child);
        let process = Process::new(group.0.id(), &start.lives, |kill| async move {
            let end = kill.run_until_cancelled(group.0.wait()).await;
            match end {
                Some(Ok(status)) => format!("the process has ended: {status}"),
                Some(Err(error)) => format!("the process cannot be watched: {error}"),
                None => {
                    // With what it started: a wrapper's program, say.
                    group.kill();
                    match group.0.kill().await {
                        Ok(()) => "the process was killed".to_owned(),
                        Err(error) => {
                            tracing::warn!(%error, "an extension's process cannot be killed");
                            format!("the process cannot be killed: {error}")
                        }
                    }
                }
            }
        });
        Ok(Launched { dial: address.into(), process })
    }
}

/// A port that nobody uses at the moment. The extension binds it itself, a few
/// milliseconds later; what got in between makes the start fail, not go wrong,
/// since the extension's certificate is checked.
async fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}
