//! A spinner with a message on standard error, if that is a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use gofer_proto::embedded::ListExtensionStatesRequest;
use gofer_proto::embedded::extension_state::State;
use indicatif::{ProgressBar, ProgressDrawTarget};
use tonic::Code;

use crate::output::visible;
use crate::session::Session;

/// Between two frames of the spinner.
const FRAME: Duration = Duration::from_millis(100);

/// How often the state of an extension is polled, which costs a core next to nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Shows a message until it is dropped.
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner();
        if std::io::stderr().is_terminal() {
            bar.enable_steady_tick(FRAME);
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.set_message(message.into());
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Waits for a call that changes an extension, and shows the extension's state meanwhile if this
/// Gofer reports it.
pub(crate) async fn with_progress<T>(
    session: &Session,
    extension: &str,
    action: &str,
    call: impl Future<Output = T>,
) -> T {
    let spinner = Spinner::new(action);
    tokio::select! {
        outcome = call => outcome,
        () = poll_state(session, extension, action, &spinner) => std::future::pending().await,
    }
}

/// Never completes: it is the call that ends the wait.
async fn poll_state(session: &Session, extension: &str, action: &str, spinner: &Spinner) {
    while !spinner.0.is_hidden() {
        tokio::time::sleep(POLL_INTERVAL).await;
        let request = ListExtensionStatesRequest { name: extension.to_owned() };
        match session.embedded().list_extension_states(request).await {
            Ok(answer) => {
                if let Some(state) = answer.into_inner().extensions.first() {
                    let message = if state.reason.is_empty() {
                        format!("{action} ({})", state_word(state.state()))
                    } else {
                        format!("{action}: {}", visible(&state.reason))
                    };
                    spinner.0.set_message(message);
                }
            }
            // A full Gofer does not report states.
            Err(status) if status.code() == Code::Unimplemented => break,
            // The call itself reports what is wrong.
            Err(_) => {}
        }
    }
    std::future::pending::<()>().await;
}

/// The state of an extension, for people.
pub(crate) fn state_word(state: State) -> String {
    crate::output::word(state.as_str_name())
}
