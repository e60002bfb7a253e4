//! Getting an image: the one that is there, or else from its registry.

use std::collections::HashMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use tonic::Status;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::engine::{Engine, Trouble};
use super::image::ImageName;
use crate::launcher::{Progress, Start};

/// How long a registry may give nothing at all. Engines tell of every piece
/// that arrives.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Layers that are counted; images have a few dozen at most.
const MAX_LAYERS: usize = 1000;

/// Sees to it that the engine has the image.
///
/// # Errors
///
/// Why it cannot be had, in a sentence.
pub(super) async fn ensure(
    engine: &Engine,
    image: &ImageName,
    start: &Start,
) -> Result<(), Status> {
    match engine.call(engine.docker.inspect_image(&image.to_string())).await {
        Ok(_) => Ok(()),
        Err(Trouble::Missing(_)) => {
            pull(engine, image, start).await.map_err(|trouble| refusal(image, start, &trouble))
        }
        Err(trouble) => Err(trouble.status(&format!("the image `{image}` cannot be looked up"))),
    }
}

async fn pull(engine: &Engine, image: &ImageName, start: &Start) -> Result<(), Trouble> {
    start.progress.tell(format!("pulling the image `{image}`"));
    let options = CreateImageOptionsBuilder::default()
        .from_image(image.repository())
        .tag(image.version())
        .build();
    let mut told = engine.docker.create_image(Some(options), None, credentials(image, start));
    let mut layers = Layers::default();
    loop {
        match tokio::time::timeout(STALL_TIMEOUT, told.next()).await {
            Ok(Some(news)) => {
                layers.note(&news?);
                layers.tell(image, &start.progress);
            }
            Ok(None) => break,
            Err(_) => {
                return Err(Trouble::Broken(format!(
                    "nothing arrived for {} s",
                    STALL_TIMEOUT.as_secs()
                )));
            }
        }
    }
    // Some errors are told in words of the stream that are no error to it.
    engine.call(engine.docker.inspect_image(&image.to_string())).await.map(drop)
}

fn credentials(image: &ImageName, start: &Start) -> Option<DockerCredentials> {
    if start.user.is_empty() && start.pass.is_empty() {
        return None;
    }
    Some(DockerCredentials {
        username: Some(start.user.clone()),
        password: Some(start.pass.clone()),
        serveraddress: image.registry().map(str::to_owned),
        ..Default::default()
    })
}

fn refusal(image: &ImageName, start: &Start, trouble: &Trouble) -> Status {
    let mut said = trouble.said().to_owned();
    // A registry may repeat what it was sent.
    if !start.pass.is_empty() {
        said = said.replace(&start.pass, "…");
    }
    let lower = said.to_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let advice = if is(&["unauthorized", "denied", "authentication required", "no basic auth"]) {
        if start.user.is_empty() && start.pass.is_empty() {
            "it does not exist, or its registry wants a user and a password"
        } else {
            "it does not exist, or its registry does not accept the user and the password"
        }
    } else if is(&["not found", "manifest unknown", "does not exist"]) {
        "its registry has none of this name and tag"
    } else {
        "its registry cannot be reached, or does not answer as registries do"
    };
    Status::failed_precondition(format!(
        "the image `{image}` is not on this machine and cannot be pulled: {advice} (the container \
         engine says: {said})"
    ))
}

/// How far the layers of an image are.
#[derive(Default)]
pub(super) struct Layers(HashMap<String, bool>);

impl Layers {
    pub(super) fn note(&mut self, news: &CreateImageInfo) {
        let (Some(layer), Some(status)) = (&news.id, &news.status) else { return };
        let complete = match &**status {
            "Pull complete" | "Already exists" => true,
            "Pulling fs layer" | "Waiting" | "Downloading" | "Verifying Checksum"
            | "Download complete" | "Extracting" => false,
            // Of the image as a whole.
            _ => return,
        };
        if self.0.len() < MAX_LAYERS || self.0.contains_key(layer) {
            self.0.insert(layer.clone(), complete);
        }
    }

    pub(super) fn count(&self) -> (usize, usize) {
        (self.0.values().filter(|complete| **complete).count(), self.0.len())
    }

    fn tell(&self, image: &ImageName, progress: &Progress) {
        let (complete, all) = self.count();
        if all > 0 {
            progress.tell(format!("pulling the image `{image}`: {complete} of {all} layers"));
        }
    }
}
