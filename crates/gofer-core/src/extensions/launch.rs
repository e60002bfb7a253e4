//! Bringing an extension up: launch, Init, Info.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;

use super::{Extensions, Held, Running, Unrestored};
use crate::certificates::{Identity, random_key};
use crate::handle::ExtensionHandle;
use crate::launcher::{
    ChildProcess, IN_PROCESS, LaunchProgress, LaunchSpec, Launcher, PROGRAM, Recorded, UntilGone,
    is_container,
};
use crate::store::{NewKey, Options};
use gofer_net::Transport;
use gofer_net::auth::sha256;
use gofer_proto as proto;
use gofer_proto::extension_service_client::ExtensionServiceClient;

impl Extensions {
    /// Launches and initializes an extension and gets its documentation. One that has not come up
    /// when the core stops is killed.
    pub(super) async fn bring_up(
        &self,
        registration: &proto::ExtensionRegistration,
        options: &Options,
        progress: &LaunchProgress,
    ) -> Result<Arc<Running>, Status> {
        // Boxed, since it is large and part of many futures.
        let launch = Box::pin(self.launch_and_init(registration, options, progress));
        self.unless_stopping(launch).await
    }

    async fn launch_and_init(
        &self,
        registration: &proto::ExtensionRegistration,
        options: &Options,
        progress: &LaunchProgress,
    ) -> Result<Arc<Running>, Status> {
        // Once for all attempts, which must be equal.
        let config = self.store.resolved_configuration(registration)?;
        let grants = options.grants.clone();
        let of = NewKey::Extension { name: registration.name.clone(), grants };
        let handle = self.launch(registration, of, options, progress).await?;
        let started = self.clock.unix_millis();
        progress.report("waiting for it to answer");
        let ready = async {
            let init = proto::ExtensionInitRequest { config };
            handle
                .first_call(init, |mut client, init| async move { client.init(init).await })
                .await?;
            Ok(handle.client.clone().info(proto::ExtensionInfoRequest {}).await?.into_inner())
        };
        match ready.await {
            Ok(info) => Ok(Arc::new(Running {
                handle,
                documentation: info.documentation,
                started,
                held: Held::default(),
                unrestored: Unrestored::default(),
                owns_subscriptions: watch::Sender::new(true),
            })),
            Err(status) => {
                handle.stop().await;
                // By now, all that it wrote has been read.
                Err(handle.process.explain(status))
            }
        }
    }

    /// Launches an extension for one installer conversation, without Init.
    pub(crate) async fn launch_installer(
        &self,
        init: proto::run_extension_installer_client_message::Init,
    ) -> Result<Installer, Status> {
        self.unless_stopping(self.bring_up_installer(init)).await
    }

    async fn unless_stopping<T>(
        &self,
        launch: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let outcome = self.stopping.run_until_cancelled(launch).await;
        outcome.unwrap_or_else(|| Err(Status::unavailable("the core is stopping")))
    }

    async fn bring_up_installer(
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
        // Of one that is not installed, there are none yet.
        let (options, progress) = (Options::default(), LaunchProgress::default());
        let handle = self.launch(&registration, NewKey::Installer, &options, &progress).await?;
        match handle
            .first_call(proto::ExtensionInfoRequest {}, |mut client, request| async move {
                client.info(request).await
            })
            .await
        {
            Ok(_info) => Ok(Installer(handle)),
            Err(status) => {
                handle.stop().await;
                Err(handle.process.explain(status))
            }
        }
    }

    async fn launch(
        &self,
        registration: &proto::ExtensionRegistration,
        of: NewKey,
        options: &Options,
        progress: &LaunchProgress,
    ) -> Result<ExtensionHandle, Status> {
        let proto::ExtensionRegistration { name, image, user, pass, .. } = registration;
        let launcher: &dyn Launcher = if image.starts_with(IN_PROCESS) {
            &self.in_process
        } else if image.starts_with(PROGRAM) {
            &ChildProcess
        } else {
            &self.containers
        };
        let key = random_key()?;
        let digest = sha256(key.as_bytes());
        let may_outlive_core = !image.starts_with(IN_PROCESS);
        // Before it is recorded: this may be cancelled at any point.
        let until_gone = may_outlive_core.then(|| {
            let store = Arc::clone(&self.store);
            UntilGone::new(digest, move |digest| store.end_launch(digest))
        });
        if may_outlive_core {
            self.store.begin_launch(Recorded::new(digest, is_container(image))).await?;
        }
        let spec = LaunchSpec {
            name: name.clone(),
            key,
            identity: Identity::new()?,
            log_level: self.common.log_level.clone(),
            gofer_host: self.common.gofer_host.clone(),
            user: user.clone(),
            pass: pass.clone(),
            limits: options.limits,
            timeouts: options.timeouts,
            progress: progress.clone(),
            processes: self.processes.clone(),
            until_gone,
        };
        let key = self.store.accept_key(&spec.key, of);
        progress.report("launching the process");
        let extension = launcher.launch(image, &spec).await?;
        ExtensionHandle::new(extension, &spec, self.clock, key)
    }
}

/// An extension that was launched for one installer conversation.
pub(crate) struct Installer(ExtensionHandle);

impl Installer {
    pub(crate) fn client(&self) -> ExtensionServiceClient<Transport> {
        self.0.client.clone()
    }

    pub(crate) async fn stop(self) {
        self.0.stop().await;
    }
}
