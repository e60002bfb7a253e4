//! Getting an image: the local one or, if there is none, from its registry.

use std::collections::HashMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use tonic::Status;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::engine::{Engine, EngineError};
use super::image::ImageName;
use crate::launcher::{LaunchProgress, LaunchSpec};

/// How long a pull may make no progress. Engines report every chunk that arrives.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// How many layers are counted at most; images have a few dozen.
const MAX_LAYERS: usize = 1000;

/// Makes sure that the engine has the image.
///
/// # Errors
///
/// If the image is missing and cannot be pulled.
pub(super) async fn ensure(
    engine: &Engine,
    image: &ImageName,
    spec: &LaunchSpec,
) -> Result<(), Status> {
    match engine.call(engine.docker.inspect_image(&image.to_string())).await {
        Ok(_) => Ok(()),
        Err(EngineError::Missing(_)) => {
            pull(engine, image, spec).await.map_err(|error| pull_refusal(image, spec, &error))
        }
        Err(error) => Err(error.status(&format!("the image `{image}` cannot be looked up"))),
    }
}

async fn pull(engine: &Engine, image: &ImageName, spec: &LaunchSpec) -> Result<(), EngineError> {
    spec.progress.report(format!("pulling the image `{image}`"));
    let options = CreateImageOptionsBuilder::default()
        .from_image(image.repository())
        .tag(image.version())
        .build();
    let mut reports = engine.docker.create_image(Some(options), None, credentials(image, spec));
    let mut layers = Layers::new(engine.kind.podman);
    loop {
        match tokio::time::timeout(STALL_TIMEOUT, reports.next()).await {
            Ok(Some(report)) => {
                layers.add(&report?);
                layers.report(image, &spec.progress);
            }
            Ok(None) => break,
            Err(_) => {
                return Err(EngineError::Broken(format!(
                    "no progress for {} s",
                    STALL_TIMEOUT.as_secs()
                )));
            }
        }
    }
    // Some errors are only reported as text of the stream.
    engine.call(engine.docker.inspect_image(&image.to_string())).await.map(drop)
}

fn credentials(image: &ImageName, spec: &LaunchSpec) -> Option<DockerCredentials> {
    if spec.user.is_empty() && spec.pass.is_empty() {
        return None;
    }
    Some(DockerCredentials {
        username: Some(spec.user.clone()),
        password: Some(spec.pass.clone()),
        serveraddress: image.registry().map(str::to_owned),
        ..Default::default()
    })
}

fn pull_refusal(image: &ImageName, spec: &LaunchSpec, error: &EngineError) -> Status {
    let mut message = error.message().to_owned();
    // A registry may echo the password.
    if !spec.pass.is_empty() {
        message = message.replace(&spec.pass, "…");
    }
    let lower = message.to_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let advice = if is(&["unauthorized", "denied", "authentication required", "no basic auth"]) {
        if spec.user.is_empty() && spec.pass.is_empty() {
            "it does not exist, or its registry requires a user and a password"
        } else {
            "it does not exist, or its registry does not accept the user and the password"
        }
    } else if is(&["not found", "manifest unknown", "does not exist"]) {
        "its registry has no image with this name and tag"
    } else {
        "its registry cannot be reached, or is not a registry"
    };
    Status::failed_precondition(format!(
        "the image `{image}` is not on this machine and cannot be pulled: {advice} (the container \
         engine reports: {message})"
    ))
}

/// The progress of an image's layers.
pub(super) struct Layers {
    /// Whether each is complete.
    by_id: HashMap<String, bool>,
    /// Podman reports no more of a layer than that it was downloaded.
    podman: bool,
}

impl Layers {
    pub(super) fn new(podman: bool) -> Self {
        Self { by_id: HashMap::new(), podman }
    }

    pub(super) fn add(&mut self, report: &CreateImageInfo) {
        let (Some(layer), Some(status)) = (&report.id, &report.status) else { return };
        let complete = match &**status {
            "Pull complete" | "Already exists" => true,
            "Download complete" => self.podman,
            "Pulling fs layer" | "Waiting" | "Downloading" | "Verifying Checksum"
            | "Extracting" => false,
            // Not about a layer.
            _ => return,
        };
        if self.by_id.len() < MAX_LAYERS || self.by_id.contains_key(layer) {
            self.by_id.insert(layer.clone(), complete);
        }
    }

    pub(super) fn count(&self) -> (usize, usize) {
        (self.by_id.values().filter(|complete| **complete).count(), self.by_id.len())
    }

    fn report(&self, image: &ImageName, progress: &LaunchProgress) {
        let (complete, all) = self.count();
        if all > 0 {
            progress.report(format!("pulling the image `{image}`: {complete} of {all} layers"));
        }
    }
}
