//! Answers that are typed without being shown.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::LazyLock;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Failure;

/// While there is one, the terminal does not show what is typed, but for the end of the line.
pub(crate) struct Hidden(Termios);

impl Hidden {
    /// `None` if standard input is no terminal, and so shows nothing.
    pub(crate) fn new() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        catch_interrupts()?;
        let before = tcgetattr(&stdin)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        // Keeps what was typed ahead.
        tcsetattr(&stdin, OptionalActions::Now, &hidden)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // An error if the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// One line of standard input without its end; `None` at the end of the input. Blocks.
pub(crate) fn read_line() -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = io::stdin().read_line(&mut line)?;
    Ok((length > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Asks for a secret, which is not shown; `None` if standard input is no terminal.
pub(crate) async fn ask_secret(what: &str) -> Result<Option<String>, Failure> {
    let Some(_hidden) = Hidden::new()? else { return Ok(None) };
    write!(io::stderr(), "{what} (not shown): ")?;
    let line = tokio::task::spawn_blocking(read_line).await;
    Ok(Some(line.map_err(io::Error::other)??.unwrap_or_default()))
}

static INTERRUPTED: LazyLock<watch::Sender<bool>> = LazyLock::new(watch::Sender::default);

/// From now on an interrupt no longer kills the process, which would leave the terminal as it is,
/// but ends [`interrupted`].
fn catch_interrupts() -> io::Result<()> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        interrupts.recv().await;
        INTERRUPTED.send_replace(true);
    });
    Ok(())
}

/// Completes at an interrupt, if that does not kill the process.
pub(crate) async fn interrupted() {
    let mut interrupted = INTERRUPTED.subscribe();
    // The sender is never dropped.
    drop(interrupted.wait_for(|it| *it).await);
}
