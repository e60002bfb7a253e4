//! Bringing an extension up: launched, then Init, then Info.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;

use super::{Extensions, Running};
use crate::certificates::{Identity, random_key};
use crate::contact::Contact;
use crate::launcher::{ChildProcess, IN_PROCESS, Launcher, PROGRAM, Progress, Start};
use crate::store::Store;
use gofer_net::Transport;
use gofer_net::auth::sha256;
use gofer_proto as proto;
use gofer_proto::extension_service_client::ExtensionServiceClient;

impl Extensions {
    /// Launches, initializes and asks for its documentation. What has not come up
    /// when the core stops is ended at once.
    pub(super) async fn start(
        &self,
        registration: &proto::ExtensionRegistration,
        progress: &Progress,
    ) -> Result<Arc<Running>, Status> {
        let running = self.bring_up(registration, progress);
        self.stopping.run_until_cancelled(running).await.unwrap_or_else(|| Err(stopping()))
    }

    async fn bring_up(
        &self,
        registration: &proto::ExtensionRegistration,
        progress: &Progress,
    ) -> Result<Arc<Running>, Status> {
        let contact = self.launch(registration, progress).await?;
        let started = self.clock.unix_millis();
        progress.tell("waiting for it to answer");
        let ready = async {
            contact
                .reach(|mut client| {
                    let config = registration.variables.clone();
                    let request = proto::ExtensionInitRequest { config };
                    async move { client.init(request).await }
                })
                .await?;
            Ok(contact.client.clone().info(proto::ExtensionInfoRequest {}).await?.into_inner())
        };
        match ready.await {
            Ok(info) => Ok(Arc::new(Running {
                contact,
                documentation: info.documentation,
                started,
                in_charge: watch::Sender::new(true),
            })),
            Err(status) => {
                contact.stop().await;
                Err(status)
            }
        }
    }

    /// Starts an extension for one installer conversation, without Init.
    pub(crate) async fn start_for_installer(
        &self,
        init: proto::run_extension_installer_client_message::Init,
    ) -> Result<Installer, Status> {
        let installer = self.bring_up_for_installer(init);
        self.stopping.run_until_cancelled(installer).await.unwrap_or_else(|| Err(stopping()))
    }

    async fn bring_up_for_installer(
        &self,
        init: proto::run_extension_installer_client_message::Init,
    ) -> Result<Installer, Status> {
        let registration = proto::ExtensionRegistration {
            name: "installer".to_owned(),
            image: init.image,
            user: init.user,
            pass: init.pass,
            ..Default::default()
        };
        let contact = self.launch(&registration, &Progress::default()).await?;
        match contact
            .reach(|mut client| async move { client.info(proto::ExtensionInfoRequest {}).await })
            .await
        {
            Ok(_info) => Ok(Installer(contact)),
            Err(status) => {
                contact.stop().await;
                Err(status)
            }
        }
    }

    async fn launch(
        &self,
        registration: &proto::ExtensionRegistration,
        progress: &Progress,
    ) -> Result<Contact, Status> {
        let proto::ExtensionRegistration { name, image, user, pass, .. } = registration;
        let launcher: &dyn Launcher = if image.starts_with(IN_PROCESS) {
            &self.in_process
        } else if image.starts_with(PROGRAM) {
            &ChildProcess
        } else {
            &self.containers
        };
        let start = Start {
            name: name.clone(),
            key: random_key()?,
            identity: Identity::new()?,
            log_level: self.common.log_level.clone(),
            gofer_host: self.common.gofer_host.clone(),
            user: user.clone(),
            pass: pass.clone(),
            progress: progress.clone(),
            lives: self.lives.clone(),
        };
        let token = self.tokens.let_in(&start.key);
        progress.tell("being launched");
        let digest = sha256(start.key.as_bytes());
        let outlives = !image.starts_with(IN_PROCESS);
        let begun = Begun { store: Arc::clone(&self.store), digest };
        if outlives {
            self.store.begin_launch(&digest).await?;
        }
        let extension = launcher.launch(image, &start).await?;
        if outlives {
            let end = extension.process.watch();
            self.lives.spawn(async move {
                end.await;
                drop(begun);
            });
        }
        Contact::new(extension, &start, self.clock, token)
    }
}

/// A start that has not ended. Where it comes to nothing, or is given up, it ends
/// with this.
struct Begun {
    store: Arc<Store>,
    digest: [u8; 32],
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.store.end_launch(&self.digest);
    }
}

fn stopping() -> Status {
    Status::unavailable("the core is stopping")
}

/// An extension that was started to hold one conversation.
pub(crate) struct Installer(Contact);

impl Installer {
    pub(crate) fn client(&self) -> ExtensionServiceClient<Transport> {
        self.0.client.clone()
    }

    pub(crate) async fn stop(self) {
        self.0.stop().await;
    }
}
