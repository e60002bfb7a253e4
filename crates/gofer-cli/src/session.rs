//! A client with the settings of this command.

use std::path::Path;
use std::time::Duration;

use gofer_net::tls::certificates;
use gofer_proto::embedded::GetCapabilitiesRequest;
use gofer_proto::embedded::embedded_core_client::EmbeddedCoreClient;
use gofer_proto::gofer_client::GoferClient;
use gofer_sdk::Gofer;
use gofer_sdk::api::Transport;
use tonic::{Code, Request};

use crate::failure::Failure;
use crate::output::Out;
use crate::settings::Settings;

/// How long an extension on a full Gofer may take until it is ready or asks its first question: the
/// pull of an image, mostly. For what is no extension, such a Gofer waits for good.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(2 * 60);

/// For calls that start or stop an extension: enough to pull an image of some hundred megabytes
/// over a slow connection.
const LONG_TIMEOUT: Duration = Duration::from_secs(15 * 60);

pub(crate) struct Session {
    gofer: Gofer,
    pub(crate) settings: Settings,
    pub(crate) out: Out,
}

/// A pipeline and its namespace.
#[derive(Clone)]
pub(crate) struct Pipeline {
    pub(crate) namespace: String,
    pub(crate) id: String,
}

impl std::fmt::Display for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

impl Session {
    /// Connects with the first call.
    pub(crate) fn new(settings: Settings, out: Out) -> Result<Self, Failure> {
        let mut builder = Gofer::builder(&settings.address).name("gofer");
        if settings.skip_tls_verify {
            builder = builder.skip_tls_verify();
        }
        if let Some(token) = &settings.token {
            builder = builder.token(token);
        }
        if let Some(path) = &settings.ca {
            let pem = read_pem(path).and_then(|pem| {
                certificates(&pem).map_err(|problem| {
                    let path = path.display();
                    Failure::usage(format!("`{path}` cannot be trusted: {problem}"))
                })?;
                Ok(pem)
            });
            builder = builder.ca_certificate(pem.map_err(|failure| {
                failure.hint("it is set by --ca, GOFER_CA or `ca` in the configuration file")
            })?);
        }
        if let Some(pem) = &settings.certificate {
            builder = if settings.is_pinned {
                gofer_sdk::internal::pin(builder, pem)
            } else {
                builder.ca_certificate(pem)
            };
        }
        Ok(Self { gofer: builder.build()?, settings, out })
    }

    /// Gofer's API.
    pub(crate) fn api(&self) -> GoferClient<Transport> {
        self.gofer.api()
    }

    /// The additional API of an embedded core.
    pub(crate) fn embedded(&self) -> EmbeddedCoreClient<Transport> {
        EmbeddedCoreClient::new(self.gofer.transport())
    }

    /// Whether this is a full Gofer, which lacks the API that an embedded core has in addition.
    pub(crate) async fn is_full_gofer(&self) -> bool {
        let answer = self.embedded().get_capabilities(GetCapabilitiesRequest {}).await;
        answer.is_err_and(|status| status.code() == Code::Unimplemented)
    }

    /// `namespace/pipeline`, or a pipeline in the namespace of the settings.
    pub(crate) fn pipeline(&self, text: &str) -> Pipeline {
        match text.split_once('/') {
            Some((namespace, id)) => {
                Pipeline { namespace: namespace.to_owned(), id: id.to_owned() }
            }
            None => Pipeline { namespace: self.settings.namespace.clone(), id: text.to_owned() },
        }
    }
}

/// The content of a file that is expected to be PEM. What is no text is no PEM either, which is said
/// where it is parsed.
pub(crate) fn read_pem(path: &Path) -> Result<String, Failure> {
    let content = std::fs::read(path).map_err(|error| Failure::file("read", path, &error))?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// A request that may take as long as an extension takes to become ready.
pub(crate) fn with_long_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LONG_TIMEOUT);
    request
}
