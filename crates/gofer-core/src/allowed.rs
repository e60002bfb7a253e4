//! What callers of the API may do only if the embedder allows it, whatever their token: it reaches
//! beyond the core.

use tonic::Status;

use super::launcher::PROGRAM;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed {
    /// Images that are programs on this machine.
    pub(super) programs: bool,
    /// `BootstrapToken`, without a token, on the configured address only.
    pub(super) bootstrap: bool,
}

impl Allowed {
    /// On addresses that were not configured, such as the one for containers.
    pub(super) fn elsewhere(self) -> Self {
        Self { bootstrap: false, ..self }
    }

    /// # Errors
    ///
    /// If callers may not make the first token here.
    pub(super) fn check_bootstrap(self) -> Result<(), Status> {
        if self.bootstrap {
            return Ok(());
        }
        Err(Status::failed_precondition(
            "this core accepts no BootstrapToken here: `gofer service start` keeps the first \
             management token for the user who starts it, and `--new-token` makes another one; to \
             accept it on the address in --listen, start the core with --allow-bootstrap \
             (`CoreBuilder::allow_bootstrap`)",
        ))
    }

    /// # Errors
    ///
    /// If the image is a program, and callers may not start programs.
    pub(super) fn check_image(self, image: &str) -> Result<(), Status> {
        if self.programs || !image.starts_with(PROGRAM) {
            return Ok(());
        }
        Err(Status::failed_precondition(
            "this core accepts no programs (`exec:<path>`) as images, since they would run on its \
             machine as its user; use a container image, or start the core with \
             `gofer service start --allow-programs` (`CoreBuilder::allow_programs`)",
        ))
    }
}
