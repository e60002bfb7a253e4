//! What a full Gofer does not wait for: it answers when a change is stored, and says what became of
//! the extension only in its state.

use std::time::Duration;

use gofer_proto as proto;
use gofer_proto::extension::ExtensionState;
use tonic::Status;

use crate::failure::Failure;
use crate::session::{READY_WITHIN, Session};

/// Between two questions for the state.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The state of an extension; `None` if Gofer does not say.
pub(super) async fn state(session: &Session, name: &str) -> Option<ExtensionState> {
    let request = proto::GetExtensionRequest { name: name.to_owned() };
    let answer = session.api().get_extension(request).await.ok()?;
    Some(answer.into_inner().extension?.state())
}

/// Waits for a call that installs an extension, and until the extension is ready. On a full Gofer
/// that takes polling: it waits for good for an image that is no extension.
pub(super) async fn until_ready(
    session: &Session,
    name: &str,
    image: &str,
    call: impl Future<Output = Result<(), Status>>,
) -> Result<Result<(), Status>, Failure> {
    if session.is_full_gofer().await {
        polled_until_ready(name, image, call, async || state(session, name).await).await
    } else {
        Ok(call.await)
    }
}

async fn polled_until_ready(
    name: &str,
    image: &str,
    call: impl Future<Output = Result<(), Status>>,
    state: impl AsyncFn() -> Option<ExtensionState>,
) -> Result<Result<(), Status>, Failure> {
    let has_exited = async {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            if state().await == Some(ExtensionState::Exited) {
                return;
            }
        }
    };
    let ready = async {
        tokio::select! {
            biased;
            outcome = call => if outcome.is_err() { return Ok(outcome) },
            () = has_exited => return Err(ended(name, image)),
        }
        loop {
            match state().await {
                Some(ExtensionState::Exited) => return Err(ended(name, image)),
                Some(ExtensionState::Processing) => tokio::time::sleep(POLL_INTERVAL).await,
                _ => return Ok(Ok(())),
            }
        }
    };
    tokio::time::timeout(READY_WITHIN, ready).await.unwrap_or_else(|_| Err(not_ready(name, image)))
}

fn ended(name: &str, image: &str) -> Failure {
    Failure::new(format!("`{name}` ended before it was ready: is `{image}` an extension?"))
        .hint(remove(name))
}

fn not_ready(name: &str, image: &str) -> Failure {
    let minutes = READY_WITHIN.as_secs() / 60;
    let why = format!("`{name}` is not ready after {minutes} minutes: is `{image}` an extension?");
    Failure::unavailable(why).hint(format!(
        "`gofer extension get {name}` shows whether it is, if Gofer was still pulling the image; {}",
        remove(name)
    ))
}

fn remove(name: &str) -> String {
    format!("`gofer extension uninstall {name}` removes it; its log is that of its container")
}

#[cfg(test)]
mod tests;
