//! What callers may do only if the embedder allows it, whatever their token: have the core's
//! machine run programs.

use std::path::PathBuf;

use crate::caller::Caller;
use crate::files::{Directory, write_script};
use crate::metronome;
use gofer_core::{Core, NO_SETTINGS};
use gofer_proto as proto;
use gofer_proto::embedded::UpdateExtensionRequest;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use proto::run_extension_installer_client_message::{Init, MessageType};
use tonic::codegen::tokio_stream;
use tonic::{Code, Status};

/// A program that leaves a trace if it is started.
struct Trap(Directory);

impl Trap {
    fn new(name: &str) -> Self {
        let directory = Directory::new(name);
        write_script(
            &directory.0.join("trap"),
            &format!("touch '{}'", Self::trace_in(&directory).display()),
        );
        Self(directory)
    }

    fn image(&self) -> String {
        format!("exec:{}", self.0.0.join("trap").display())
    }

    fn trace_in(directory: &Directory) -> PathBuf {
        directory.0.join("ran")
    }

    fn has_run(&self) -> bool {
        Self::trace_in(&self.0).exists()
    }
}

async fn install(caller: &Caller, image: String) -> Result<(), Status> {
    let request =
        proto::InstallExtensionRequest { name: "trap".to_owned(), image, ..Default::default() };
    caller.api().install_extension(request).await.map(drop)
}

async fn update(caller: &Caller, image: String) -> Result<(), Status> {
    let request =
        UpdateExtensionRequest { name: "metronome".to_owned(), image, ..Default::default() };
    EmbeddedCoreClient::new(caller.0.clone()).update_extension(request).await.map(drop)
}

async fn converse(caller: &Caller, image: String) -> Result<(), Status> {
    let init = proto::RunExtensionInstallerClientMessage {
        message_type: Some(MessageType::Init(Init { image, ..Default::default() })),
    };
    let messages = tokio_stream::iter([init]);
    caller.api().run_extension_installer(messages).await.map(drop)
}

#[tokio::test]
async fn callers_start_programs_only_if_that_is_allowed() {
    let trap = Trap::new("trap");
    let core = Core::on_loopback().await.unwrap();
    // The embedder may.
    let program = metronome::program();
    let metronome = core.install_program("metronome", &program, NO_SETTINGS).await.unwrap();
    let manager = Caller::of(&core).await.with(core.token());
    for refused in [
        install(&manager, trap.image()).await,
        update(&manager, trap.image()).await,
        converse(&manager, trap.image()).await,
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("--allow-programs"), "{refused}");
    }
    assert!(!trap.has_run());
    // Its configuration may still be changed.
    metronome.update([("min_interval", "2s")]).await.unwrap();
    core.stop().await;

    let core = Core::builder().listen(([127, 0, 0, 1], 0)).allow_programs().start().await.unwrap();
    let manager = Caller::of(&core).await.with(core.token());
    // It is no extension, but it was started.
    install(&manager, trap.image()).await.unwrap_err();
    assert!(trap.has_run());
    core.stop().await;
}

#[cfg(feature = "store")]
#[tokio::test]
async fn a_program_that_is_in_the_store_is_started_without_a_flag() {
    let directory = Directory::new("programs");
    let store = directory.0.join("gofer.redb");
    let builder = || Core::builder().listen(([127, 0, 0, 1], 0)).store(&store);
    let core = builder().allow_programs().start().await.unwrap();
    let manager = Caller::of(&core).await.with(core.token());
    let image = format!("exec:{}", metronome::program().display());
    install(&manager, image).await.unwrap();
    core.stop().await;

    let core = builder().start().await.unwrap();
    let installed = core.installed("trap").unwrap();
    installed.wait_for(|it| it.state == gofer_core::ExtensionState::Running).await;
    core.stop().await;
}
