//! The client that loads every server alike: tonic's own, over one connection, on the measuring
//! process's current-thread runtime.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use gofer_proto as proto;
use proto::extension_service_client::ExtensionServiceClient;
use tokio::task::LocalSet;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::Result;
use super::identity::{IDENTITY, TOKEN};

/// Adds the token to every call.
#[derive(Clone)]
pub(crate) struct AddToken(MetadataValue<tonic::metadata::Ascii>);

impl Interceptor for AddToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl AddToken {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(format!("Bearer {TOKEN}").parse()?))
    }
}

/// How much the server may send before it is read.
#[derive(Clone, Copy)]
pub(crate) enum Windows {
    /// HTTP/2's 64 KiB, as tonic and Gofer's client have it.
    Default,
    /// 1 MiB for a call and 4 MiB for all.
    Wide,
}

/// A client of one extension.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) api: ExtensionServiceClient<InterceptedService<Channel, AddToken>>,
}

/// What Gofer would know of the `n`th subscription.
#[must_use]
pub(crate) fn subscription(n: usize, every: &str) -> proto::ExtensionSubscribeRequest {
    proto::ExtensionSubscribeRequest {
        namespace_id: "default".to_owned(),
        pipeline_id: format!("pipeline-{n:07}"),
        pipeline_extension_label: "every-so-often".to_owned(),
        config: HashMap::from([("every".to_owned(), every.to_owned())]),
    }
}

pub(crate) fn endpoint(port: u16) -> Result<Endpoint> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&IDENTITY.certificate))
        .domain_name("localhost");
    Ok(Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(tls)?)
}

impl Client {
    /// Connects as soon as the server listens.
    pub(crate) async fn connect(port: u16, windows: Windows) -> Result<Self> {
        let mut endpoint = endpoint(port)?;
        if let Windows::Wide = windows {
            endpoint = endpoint
                .initial_stream_window_size(1024 * 1024)
                .initial_connection_window_size(4 * 1024 * 1024);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                // Short, since the time until the first answer is measured.
                Err(_) => tokio::time::sleep(Duration::from_micros(100)).await,
            }
        };
        let api = ExtensionServiceClient::with_interceptor(channel, AddToken::new()?)
            .max_decoding_message_size(64 * 1024 * 1024);
        Ok(Self { api })
    }

    pub(crate) async fn init(&mut self) -> Result<()> {
        self.api.init(proto::ExtensionInitRequest::default()).await?;
        Ok(())
    }

    pub(crate) async fn info(&mut self) -> Result<proto::ExtensionInfoResponse> {
        Ok(self.api.info(proto::ExtensionInfoRequest {}).await?.into_inner())
    }

    pub(crate) async fn subscribe(&mut self, n: usize, every: &str) -> Result<()> {
        self.api.subscribe(subscription(n, every)).await?;
        Ok(())
    }

    /// Subscribes to the cron extension.
    pub(crate) async fn subscribe_cron(&mut self, n: usize, expression: String) -> Result<()> {
        let config = HashMap::from([("expression".to_owned(), expression)]);
        self.api
            .subscribe(proto::ExtensionSubscribeRequest { config, ..subscription(n, "") })
            .await?;
        Ok(())
    }

    pub(crate) async fn unsubscribe(&mut self, n: usize) -> Result<()> {
        let of = subscription(n, "");
        let request = proto::ExtensionUnsubscribeRequest {
            namespace_id: of.namespace_id,
            pipeline_id: of.pipeline_id,
            pipeline_extension_label: of.pipeline_extension_label,
        };
        self.api.unsubscribe(request).await?;
        Ok(())
    }

    /// Subscribes all of these numbers, so many at once. Returns how long that took.
    pub(crate) async fn subscribe_all(
        &self,
        numbers: std::ops::Range<usize>,
        in_flight: usize,
        every: &'static str,
    ) -> Result<Duration> {
        self.load(numbers, in_flight, async move |client, n| client.subscribe(n, every).await).await
    }

    /// Makes a call for each of the numbers, so many at once.
    pub(crate) async fn load<F>(
        &self,
        numbers: std::ops::Range<usize>,
        in_flight: usize,
        call: F,
    ) -> Result<Duration>
    where
        F: AsyncFn(&mut Self, usize) -> Result<()> + Copy + 'static,
    {
        let start = Instant::now();
        let next = Rc::new(Cell::new(numbers.start));
        let workers = LocalSet::new();
        let running: Vec<tokio::task::JoinHandle<Result<()>>> = (0..in_flight)
            .map(|_| {
                let (mut client, next, end) = (self.clone(), Rc::clone(&next), numbers.end);
                workers.spawn_local(async move {
                    while next.get() < end {
                        let n = next.replace(next.get() + 1);
                        call(&mut client, n).await?;
                    }
                    Ok(())
                })
            })
            .collect();
        let ended: Result<()> = workers
            .run_until(async {
                for worker in running {
                    worker.await??;
                }
                Ok(())
            })
            .await;
        ended.map(|()| start.elapsed())
    }
}
