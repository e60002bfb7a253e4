//! What is waited for, on one line of a terminal; nothing where there is none.

use std::io::IsTerminal as _;
use std::time::Duration;

use gofer_proto::embedded::ListExtensionStatesRequest;
use gofer_proto::embedded::extension_state::State;
use indicatif::{ProgressBar, ProgressDrawTarget};
use tonic::Code;

use crate::output::visible;
use crate::session::Session;

/// Seen as movement, and slow enough to read.
const TICK: Duration = Duration::from_millis(100);

/// How often a core is asked how an extension fares: an answer costs it next to
/// nothing, and people notice half a second.
const ASK: Duration = Duration::from_millis(500);

/// Shows what is waited for until it is dropped.
pub(crate) struct Waiting(ProgressBar);

impl Waiting {
    pub(crate) fn new(for_what: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner();
        if std::io::stderr().is_terminal() {
            bar.enable_steady_tick(TICK);
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_message(for_what.into());
        Self(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Waits for a call that changes an extension, and shows how the extension fares
/// meanwhile, where this Gofer tells.
pub(crate) async fn watching<T>(
    session: &Session,
    extension: &str,
    doing: &str,
    call: impl Future<Output = T>,
) -> T {
    let waiting = Waiting::new(doing);
    tokio::select! {
        outcome = call => outcome,
        () = tell(session, extension, doing, &waiting) => std::future::pending().await,
    }
}

/// Never ends, so that it is the call that ends the waiting.
async fn tell(session: &Session, extension: &str, doing: &str, waiting: &Waiting) {
    while !waiting.0.is_hidden() {
        tokio::time::sleep(ASK).await;
        let request = ListExtensionStatesRequest { name: extension.to_owned() };
        match session.embedded().list_extension_states(request).await {
            Ok(answer) => {
                if let Some(state) = answer.into_inner().extensions.first() {
                    let message = if state.reason.is_empty() {
                        format!("{doing} ({})", word(state.state()))
                    } else {
                        format!("{doing}: {}", visible(&state.reason))
                    };
                    waiting.0.set_message(message);
                }
            }
            // A real Gofer does not tell.
            Err(status) if status.code() == Code::Unimplemented => break,
            // The call itself is told what is wrong.
            Err(_) => {}
        }
    }
    std::future::pending::<()>().await;
}

/// How an extension fares, as people say it.
pub(crate) fn word(state: State) -> String {
    crate::output::word(state.as_str_name())
}
