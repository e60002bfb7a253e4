//! The life of one container: made, started, watched, removed.
//!
//! It is a task of its own, and what it has begun it sees through: an engine may
//! have made what the one who asked for it did not wait for.

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

use super::engine::{Engine, Trouble};
use super::logs::{LastLines, follow};
use super::plan::{Plan, published};
use gofer_net::Backoff;

/// Between two questions whether a container runs, where the engine does not
/// tell of its end by itself. Engines that are restarted forget who waited.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Between attempts to reach an engine that went away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// How long the last lines of a container that has ended may take to arrive.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// For how long a container that has to go is tried to be removed. What is left
/// is removed by the next core.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Lives it, and gives how it ended, as a sentence. Where the extension listens
/// is told through `ready`.
pub(super) async fn live(
    engine: Engine,
    plan: Plan,
    kill: CancellationToken,
    ready: oneshot::Sender<Result<SocketAddr, Status>>,
) -> String {
    let Plan { name, extension, body } = plan;
    let last = LastLines::default();
    let end = match bring_up(&engine, &name, body).await {
        Ok(address) => {
            let over = CancellationToken::new();
            let logs = {
                let (engine, name, last) = (engine.clone(), name.clone(), last.clone());
                let over = over.clone();
                tokio::spawn(async move { follow(&engine, &name, &extension, &last, &over).await })
            };
            let mut logs = AbortOnDropHandle::new(logs);
            // Nobody may be waiting any more, and then it is killed.
            let _ = ready.send(Ok(address));
            match kill.run_until_cancelled(ended(&engine, &name)).await {
                Some(end) => {
                    // Its last lines say why.
                    over.cancel();
                    let _ = tokio::time::timeout(LAST_LINES_TIMEOUT, &mut logs).await;
                    end.told(&last)
                }
                None => "the container was killed".to_owned(),
            }
        }
        Err(problem) => {
            // Whoever is told finds nothing of it any more.
            remove(&engine, &name).await;
            let end = problem.message().to_owned();
            let _ = ready.send(Err(problem));
            return end;
        }
    };
    remove(&engine, &name).await;
    end
}

/// Gives where the extension is reached.
async fn bring_up(
    engine: &Engine,
    name: &str,
    body: bollard::models::ContainerCreateBody,
) -> Result<SocketAddr, Status> {
    let docker = &engine.docker;
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    engine
        .call(docker.create_container(Some(options), body))
        .await
        .map_err(|trouble| trouble.status("the container cannot be made"))?;
    engine
        .call(docker.start_container(name, None))
        .await
        .map_err(|trouble| trouble.status("the container cannot be started"))?;
    let inspected = engine
        .call(docker.inspect_container(name, None))
        .await
        .map_err(|trouble| trouble.status("the container cannot be inspected"))?;
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
    let last = LastLines::default();
    let over = CancellationToken::new();
    over.cancel();
    let logs = follow(engine, name, name, &last, &over);
    let _ = tokio::time::timeout(LAST_LINES_TIMEOUT, logs).await;
    let end = End::Ended(state).told(&last);
    Err(Status::failed_precondition(format!("the extension ended before it answered: {end}")))
}

/// How a container ended.
enum End {
    Ended(ContainerState),
    Removed,
}

impl End {
    /// As a sentence.
    fn told(&self, last: &LastLines) -> String {
        let Self::Ended(state) = self else {
            return "the container was removed by somebody else".to_owned();
        };
        let code = state.exit_code.unwrap_or_default();
        let how = match (state.oom_killed, code) {
            (Some(true), _) => "the container has ended: it ran out of memory".to_owned(),
            (_, 0) => return "the container has ended: exit code 0".to_owned(),
            (_, 129..=192) => format!("the container has ended: signal {}", code - 128),
            _ => format!("the container has ended: exit code {code}"),
        };
        let problem = state.error.as_deref().unwrap_or_default();
        let problem = if problem.is_empty() { String::new() } else { format!(" ({problem})") };
        format!("{how}{problem}{}", last.told())
    }
}

/// Waits for the end of a container. That the engine went away is not one.
async fn ended(engine: &Engine, name: &str) -> End {
    let mut backoff = BACKOFF;
    loop {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut waiting = engine.docker.wait_container(name, Some(options));
        let told = tokio::time::timeout(LOOK_EVERY, waiting.next()).await;
        // Whatever was told: what counts is how the container is.
        match engine.call(engine.docker.inspect_container(name, None)).await {
            Ok(inspected) => {
                let state = inspected.state.unwrap_or_default();
                if state.running == Some(false) {
                    return End::Ended(state);
                }
                backoff = if told.is_err() { BACKOFF } else { backoff };
            }
            Err(Trouble::Missing(_)) => return End::Removed,
            Err(trouble) => {
                let why = trouble.said();
                tracing::warn!(container = name, why, "a container cannot be watched for now");
            }
        }
        if told.is_ok() {
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// Removes a container, running or not, and what it kept.
pub(super) async fn remove(engine: &Engine, name: &str) {
    let until = Instant::now() + REMOVE_TIMEOUT;
    let mut backoff = BACKOFF;
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let why = match engine.call(engine.docker.remove_container(name, Some(options))).await {
            Ok(()) | Err(Trouble::Missing(_)) => return,
            // Somebody else is at it.
            Err(Trouble::Conflict(why) | Trouble::Refused(why) | Trouble::Broken(why)) => why,
        };
        if Instant::now() >= until {
            tracing::warn!(container = name, why, "a container cannot be removed");
            return;
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}
