//! Objects, secrets and events.

use std::fmt;

use bytes::Bytes;
use tonic::Streaming;

use super::{Event, Gofer, PipelineId, Repeat, error};
use crate::error::Result;
use gofer_proto as proto;

/// The objects of a pipeline or of one run: bytes under a key.
///
/// ```
/// use gofer_sdk::ErrorKind;
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, ..) = documented!(); let gofer = core.client();
/// let objects = gofer.pipeline_objects("ops/nightly");
/// objects.put("cursor", "41").await?;
/// assert_eq!(objects.put("cursor", "42").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
/// objects.replace("cursor", "42").await?;
/// assert_eq!(objects.get("cursor").await?, "42");
/// assert_eq!(objects.list().await?, ["cursor"]);
/// objects.delete("cursor").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Objects<'a> {
    gofer: &'a Gofer,
    pipeline: PipelineId,
    run: Option<i64>,
}

/// Makes a call that changes nothing.
macro_rules! read {
    ($gofer:expr, $method:ident, $request:expr) => {
        $gofer.call(
            Repeat::Read,
            $request,
            |mut api, request| async move { api.$method(request).await },
        )
    };
}

/// Makes a call that changes something.
macro_rules! write {
    ($gofer:expr, $method:ident, $request:expr) => {
        $gofer.call(Repeat::Write, $request, |mut api, request| async move {
            api.$method(request).await
        })
    };
}

impl<'a> Objects<'a> {
    pub(super) fn new(gofer: &'a Gofer, pipeline: PipelineId, run: Option<i64>) -> Self {
        Self { gofer, pipeline, run }
    }

    fn names(&self) -> (String, String) {
        (self.pipeline.namespace().to_owned(), self.pipeline.pipeline().to_owned())
    }

    /// Reads an object.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is none, and as for every call.
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        let (namespace_id, pipeline_id) = self.names();
        let key = key.to_owned();
        Ok(if let Some(run_id) = self.run {
            let request = proto::GetRunObjectRequest { namespace_id, pipeline_id, run_id, key };
            read!(self.gofer, get_run_object, request).await?.content
        } else {
            let request = proto::GetPipelineObjectRequest { namespace_id, pipeline_id, key };
            read!(self.gofer, get_pipeline_object, request).await?.content
        })
    }

    /// Writes a new object.
    ///
    /// If the future is dropped, the object may have been written.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if there is one, and as for every call.
    pub async fn put(&self, key: &str, content: impl Into<Bytes>) -> Result<()> {
        self.write(key, content.into(), false).await
    }

    /// Writes an object, overwriting an existing one.
    ///
    /// If the future is dropped, the object may have been written.
    pub async fn replace(&self, key: &str, content: impl Into<Bytes>) -> Result<()> {
        self.write(key, content.into(), true).await
    }

    async fn write(&self, key: &str, content: Bytes, force: bool) -> Result<()> {
        let (namespace_id, pipeline_id) = self.names();
        let key = key.to_owned();
        if let Some(run_id) = self.run {
            let request = proto::PutRunObjectRequest {
                namespace_id,
                pipeline_id,
                run_id,
                key,
                content,
                force,
            };
            write!(self.gofer, put_run_object, request).await?;
        } else {
            let request =
                proto::PutPipelineObjectRequest { namespace_id, pipeline_id, key, content, force };
            write!(self.gofer, put_pipeline_object, request).await?;
        }
        Ok(())
    }

    /// The keys of all objects.
    ///
    /// If the future is dropped, nothing has happened.
    pub async fn list(&self) -> Result<Vec<String>> {
        let (namespace_id, pipeline_id) = self.names();
        let keys = if let Some(run_id) = self.run {
            let request = proto::ListRunObjectsRequest { namespace_id, pipeline_id, run_id };
            read!(self.gofer, list_run_objects, request).await?.keys
        } else {
            let request = proto::ListPipelineObjectsRequest { namespace_id, pipeline_id };
            read!(self.gofer, list_pipeline_objects, request).await?.keys
        };
        Ok(keys.into_iter().map(|key| key.key).collect())
    }

    /// Deletes an object.
    ///
    /// If the future is dropped, the object may have been deleted.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let (namespace_id, pipeline_id) = self.names();
        let key = key.to_owned();
        if let Some(run_id) = self.run {
            let request = proto::DeleteRunObjectRequest { namespace_id, pipeline_id, run_id, key };
            write!(self.gofer, delete_run_object, request).await?;
        } else {
            let request = proto::DeletePipelineObjectRequest { namespace_id, pipeline_id, key };
            write!(self.gofer, delete_pipeline_object, request).await?;
        }
        Ok(())
    }
}

/// The secrets of a pipeline, or the global ones: text under a key.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, ..) = documented!(); let gofer = core.client();
/// let secrets = gofer.pipeline_secrets("ops/nightly");
/// secrets.put("token", "hunter2").await?;
/// secrets.replace("token", "correct horse").await?;
/// assert_eq!(secrets.get("token").await?, "correct horse");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Secrets<'a> {
    gofer: &'a Gofer,
    /// `None` for the global ones.
    pipeline: Option<PipelineId>,
}

impl<'a> Secrets<'a> {
    pub(super) fn new(gofer: &'a Gofer, pipeline: Option<PipelineId>) -> Self {
        Self { gofer, pipeline }
    }

    /// Reads a secret.
    ///
    /// If the future is dropped, nothing has happened.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is none, and as for every call.
    pub async fn get(&self, key: &str) -> Result<String> {
        let key = key.to_owned();
        Ok(if let Some(pipeline) = &self.pipeline {
            let request = proto::GetPipelineSecretRequest {
                namespace_id: pipeline.namespace().to_owned(),
                pipeline_id: pipeline.pipeline().to_owned(),
                key,
                include_secret: true,
            };
            read!(self.gofer, get_pipeline_secret, request).await?.secret
        } else {
            let request = proto::GetGlobalSecretRequest { key, include_secret: true };
            read!(self.gofer, get_global_secret, request).await?.secret
        })
    }

    /// Writes a new secret. A global secret written like this is for all namespaces.
    ///
    /// If the future is dropped, the secret may have been written.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if there is one, and as for every call.
    pub async fn put(&self, key: &str, secret: &str) -> Result<()> {
        self.write(key, secret, false).await
    }

    /// Writes a secret, overwriting an existing one. A global secret written like this is for all
    /// namespaces.
    ///
    /// If the future is dropped, the secret may have been written.
    pub async fn replace(&self, key: &str, secret: &str) -> Result<()> {
        self.write(key, secret, true).await
    }

    async fn write(&self, key: &str, secret: &str, force: bool) -> Result<()> {
        let (key, content) = (key.to_owned(), secret.to_owned());
        if let Some(pipeline) = &self.pipeline {
            let request = proto::PutPipelineSecretRequest {
                namespace_id: pipeline.namespace().to_owned(),
                pipeline_id: pipeline.pipeline().to_owned(),
                key,
                content,
                force,
            };
            write!(self.gofer, put_pipeline_secret, request).await?;
        } else {
            let namespaces = vec![".*".to_owned()];
            let request = proto::PutGlobalSecretRequest { key, content, namespaces, force };
            write!(self.gofer, put_global_secret, request).await?;
        }
        Ok(())
    }

    /// The keys of all secrets.
    ///
    /// If the future is dropped, nothing has happened.
    pub async fn list(&self) -> Result<Vec<String>> {
        let keys = if let Some(pipeline) = &self.pipeline {
            let request = proto::ListPipelineSecretsRequest {
                namespace_id: pipeline.namespace().to_owned(),
                pipeline_id: pipeline.pipeline().to_owned(),
            };
            read!(self.gofer, list_pipeline_secrets, request).await?.keys
        } else {
            let request = proto::ListGlobalSecretsRequest {};
            read!(self.gofer, list_global_secrets, request).await?.keys
        };
        Ok(keys.into_iter().map(|key| key.key).collect())
    }

    /// Deletes a secret.
    ///
    /// If the future is dropped, the secret may have been deleted.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        if let Some(pipeline) = &self.pipeline {
            let request = proto::DeletePipelineSecretRequest {
                namespace_id: pipeline.namespace().to_owned(),
                pipeline_id: pipeline.pipeline().to_owned(),
                key,
            };
            write!(self.gofer, delete_pipeline_secret, request).await?;
        } else {
            let request = proto::DeleteGlobalSecretRequest { key };
            write!(self.gofer, delete_global_secret, request).await?;
        }
        Ok(())
    }
}

/// A stream of events; made by [`Gofer::events`] and [`Gofer::follow_events`].
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs"));
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (core, ..) = documented!(); let gofer = core.client();
/// # gofer.start_run("ops/nightly", "docs", gofer_sdk::Run::because("of it")).await?;
/// let mut events = gofer.follow_events().await?;
/// while let Some(event) = events.next().await? {
///     println!("{}: {}", event.kind, event.details);
///     if event.kind == "RUN_STARTED" {
///         break;
///     }
/// }
/// # Ok(()) }
/// ```
pub struct Events(Streaming<proto::ListEventsResponse>);

impl Events {
    pub(super) fn new(stream: Streaming<proto::ListEventsResponse>) -> Self {
        Self(stream)
    }

    /// The next event; `None` at the end of the history, but never for
    /// [`follow_events`](Gofer::follow_events).
    ///
    /// If the future is dropped, no event is lost: the next call returns it.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the connection is lost, and the error with
    /// which Gofer ends the stream.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            match self.0.message().await {
                Ok(Some(proto::ListEventsResponse { event: Some(event) })) => {
                    return Ok(Some(event.into()));
                }
                // A message without an event is empty.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(status) => return Err(error(&status)),
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
