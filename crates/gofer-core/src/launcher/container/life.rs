//! The life of one container: created, started, watched, removed.
//!
//! It runs as a task of its own that always completes: an engine may have created a container even
//! if the caller stopped waiting for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bollard::models::ContainerState;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::engine::{Engine, EngineError};
use super::logs::{LastLines, follow};
use super::plan::{Plan, published};
use super::symptom::{advice, out_of_memory};
use crate::launcher::UntilGone;
use crate::limits::ContainerLimits;
use gofer_net::Backoff;

/// Between two checks whether a container is running, in case the engine does not report its end.
/// An engine that is restarted forgets pending waits.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Between attempts to call an engine that is unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// How long the last log lines of a container that has ended may take to arrive.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// How long removing a container is retried. After that, it is left to the next core.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(60);

/// The exit code of a program that was killed.
const KILLED: i64 = 128 + 9;

/// Runs a container until it has ended and been removed, and returns how it ended, as a sentence.
/// Sends the extension's address to `ready`.
pub(super) async fn run(
    engine: Engine,
    plan: Plan,
    last: LastLines,
    kill: CancellationToken,
    ready: oneshot::Sender<Result<SocketAddr, Status>>,
    until_gone: Option<UntilGone>,
) -> String {
    let leaves = |something| until_gone.iter().for_each(|it| it.leaves(something));
    // Even if this never gets further.
    leaves(true);
    let Plan { name, extension, limits, body } = plan;
    let end = match bring_up(&engine, &name, body, &last, &limits).await {
        Ok(address) => {
            let ended = CancellationToken::new();
            let logs = {
                let (engine, name, last) = (engine.clone(), name.clone(), last.clone());
                let ended = ended.clone();
                tokio::spawn(async move { follow(&engine, &name, &extension, &last, &ended).await })
            };
            let mut logs = AbortOnDropHandle::new(logs);
            // If the receiver is gone, the container is killed.
            let _ = ready.send(Ok(address));
            match kill.run_until_cancelled(wait(&engine, &name)).await {
                Some(end) => {
                    // Its last lines explain why.
                    ended.cancel();
                    let _ = tokio::time::timeout(LAST_LINES_TIMEOUT, &mut logs).await;
                    end.describe(&last, &limits)
                }
                None => "the container was killed".to_owned(),
            }
        }
        Err(problem) => {
            // Before the error is reported, so that nothing of it is left by then.
            leaves(!remove_container(&engine, &name).await);
            let end = problem.message().to_owned();
            let _ = ready.send(Err(problem));
            return end;
        }
    };
    leaves(!remove_container(&engine, &name).await);
    end
}

/// Creates and starts the container, and returns the extension's address.
async fn bring_up(
    engine: &Engine,
    name: &str,
    body: bollard::models::ContainerCreateBody,
    last: &LastLines,
    limits: &ContainerLimits,
) -> Result<SocketAddr, Status> {
    let docker = &engine.docker;
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let created = engine
        .call(docker.create_container(Some(options), body))
        .await
        .map_err(|error| error.status("the container cannot be created"))?;
    for warning in created.warnings {
        tracing::warn!(container = name, warning, "a warning of the container engine");
    }
    engine
        .call(docker.start_container(name, None))
        .await
        .map_err(|error| error.status("the container cannot be started"))?;
    let inspected = engine
        .inspect(name)
        .await
        .map_err(|error| error.status("the container cannot be inspected"))?;
    let ports = inspected.network_settings.and_then(|network| network.ports);
    if let Some(port) = ports.as_ref().and_then(published) {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let state = inspected.state.unwrap_or_default();
    if state.running == Some(true) {
        return Err(Status::failed_precondition(
            "the container engine has not mapped port 8082 of the container",
        ));
    }
    let ended = CancellationToken::new();
    ended.cancel();
    let logs = follow(engine, name, name, last, &ended);
    let _ = tokio::time::timeout(LAST_LINES_TIMEOUT, logs).await;
    let end = End::Ended(state).describe(last, limits);
    Err(Status::failed_precondition(format!("the extension ended before it answered: {end}")))
}

/// How a container ended.
enum End {
    Ended(ContainerState),
    Removed,
}

impl End {
    /// As a sentence.
    fn describe(&self, last: &LastLines, limits: &ContainerLimits) -> String {
        let Self::Ended(state) = self else {
            return "the container was removed by something other than this core".to_owned();
        };
        let code = state.exit_code.unwrap_or_default();
        let how = match (state.oom_killed, code) {
            (Some(true), _) => {
                format!("the container has ended: it used {}", out_of_memory(limits))
            }
            (_, 0) => return "the container has ended: exit code 0".to_owned(),
            // Some engines report only this.
            (_, KILLED) => format!(
                "the container has ended: signal 9, perhaps because it used {}",
                out_of_memory(limits)
            ),
            (_, 129..=192) => format!("the container has ended: signal {}", code - 128),
            _ => format!("the container has ended: exit code {code}"),
        };
        let problem = state.error.as_deref().unwrap_or_default();
        let problem = if problem.is_empty() { String::new() } else { format!(" ({problem})") };
        let advice = advice(last, limits).map(|it| format!("; {it}")).unwrap_or_default();
        format!("{how}{problem}{}{advice}", last.describe())
    }
}

/// Waits until a container has ended. An unavailable engine does not count as an end.
async fn wait(engine: &Engine, name: &str) -> End {
    let mut backoff = BACKOFF;
    loop {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut waiting = engine.docker.wait_container(name, Some(options));
        let reported = tokio::time::timeout(POLL_INTERVAL, waiting.next()).await;
        // Whatever was reported, only the container's state counts.
        match engine.inspect(name).await {
            Ok(inspected) => {
                let state = inspected.state.unwrap_or_default();
                if state.running == Some(false) {
                    return End::Ended(state);
                }
                backoff = if reported.is_err() { BACKOFF } else { backoff };
            }
            Err(EngineError::Missing(_)) => return End::Removed,
            Err(error) => {
                let error = error.message();
                tracing::warn!(container = name, error, "cannot watch a container at the moment");
            }
        }
        if reported.is_ok() {
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// Removes a container, running or not, and its volumes. Returns whether it is gone.
pub(super) async fn remove_container(engine: &Engine, name: &str) -> bool {
    let until = Instant::now() + REMOVE_TIMEOUT;
    let mut backoff = BACKOFF;
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let error = match engine.call(engine.docker.remove_container(name, Some(options))).await {
            Ok(()) | Err(EngineError::Missing(_)) => return true,
            // A conflict: it is already being removed.
            Err(error) => error.message().to_owned(),
        };
        if Instant::now() >= until {
            tracing::warn!(container = name, error, "cannot remove a container");
            return false;
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}
