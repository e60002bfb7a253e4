//! Many starts through a proxy that loses requests, responses and connections.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../../../tests/support/authors.rs"]
mod authors;

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use gofer_net::auth::{Authorize, Caller, Class, Decision};
use gofer_net::memory::Network;
use gofer_net::server::{Handler, Service, serve};
use gofer_net::tls::{Trust, server_config};
use gofer_net::{Backoff, Channel, Clock, Connector, Dial, Limits, Listener};
use gofer_proto::PipelineExtensionSubscription;
use gofer_sdk::Gofer;
use gofer_sdk::internal::{ClientOptions, close_client, new_client};
use http::HeaderMap;
use http::uri::Authority;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;
use crate::Core;
use crate::certificates::{Identity, SERVER_NAME};
use crate::store::NewKey;

const PIPELINES: usize = 50;
const STARTS: usize = 20_000;
const SEED: u64 = 7;

fn name(key: usize) -> String {
    format!("p{}", key % PIPELINES)
}

/// Forwards calls, or does not.
struct Proxy {
    core: Channel,
    random: Mutex<fastrand::Rng>,
}

impl Handler for Proxy {
    fn handle(&self, request: Request<Body>) -> ResponseFuture {
        let core = self.core.clone();
        let forward = async move {
            let response = core.send(request, None).await;
            response.map_or_else(|_| lost(), |response| response.map(Body::new))
        };
        let (fault, pause) = {
            let mut random = self.random.lock().unwrap();
            (random.u32(..100), Duration::from_millis(random.u64(..30_000)))
        };
        Box::pin(async move {
            match fault {
                // The request is lost, with or without a response that says so.
                0..3 => Ok(lost()),
                3 => std::future::pending().await,
                // The response is lost.
                4..8 => {
                    forward.await;
                    Ok(lost())
                }
                8 => {
                    forward.await;
                    std::future::pending().await
                }
                // The request is kept, also if its caller leaves.
                9..11 => {
                    tokio::spawn(async move {
                        sleep(pause).await;
                        forward.await;
                    });
                    std::future::pending().await
                }
                _ => Ok(forward.await),
            }
        })
    }
}

fn lost() -> Response<Body> {
    Status::unavailable("upstream connect error").into_http()
}

struct Everybody;

impl Authorize for Everybody {
    fn authorize(
        &self,
        _: &str,
        _: &HeaderMap,
        _: &mut http::Extensions,
    ) -> Result<Decision, Status> {
        Ok(Decision::Granted(Caller { digest: [0; 32], class: Class::Other }))
    }
}

fn any_certificate() -> Trust {
    Trust { skip_verification: true, ..Trust::default() }
}

fn client(proxy: &Network, clock: Clock) -> Gofer {
    new_client(ClientOptions {
        dial: Dial::Memory(proxy.clone()),
        authority: Authority::from_static(SERVER_NAME),
        server_name: ServerName::try_from(SERVER_NAME).unwrap(),
        trust: any_certificate(),
        authorization: Some("Bearer the key".parse().unwrap()),
        name: "probe".to_owned(),
        is_extension: true,
        clock,
    })
}

/// Serves the proxy, and ends all its connections now and then.
async fn serve_proxy(network: Network, core: Network, clock: Clock) {
    let server_name = ServerName::try_from(SERVER_NAME).unwrap();
    let connector = Connector::new(Dial::Memory(core), server_name, any_certificate());
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
    let random = Mutex::new(fastrand::Rng::with_seed(SEED));
    let proxy = Arc::new(Proxy { core: Channel::new(connector, clock, backoff), random });
    let identity = Identity::new().unwrap();
    let tls = server_config(&identity.certificate, &identity.key).unwrap();
    let mut random = fastrand::Rng::with_seed(SEED);
    loop {
        let proxy = Arc::clone(&proxy);
        let service = Service::new(Arc::new(Everybody), proxy, Limits::default());
        let listener = Listener::Memory(network.listen());
        let serving = serve(listener, Arc::clone(&tls), service, std::future::pending());
        let _ended = timeout(Duration::from_millis(random.u64(100..20_000)), serving).await;
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_starts_through_a_bad_proxy_are_as_many_runs() {
    let core = Core::in_memory().await.unwrap();
    let store = core.store();
    let key = NewKey::Extension { name: "probe".to_owned(), grants: BTreeSet::new() };
    let key = store.accept_key("the key", key);
    for pipeline in (0..PIPELINES).map(name) {
        store.ensure_pipeline("", &pipeline).unwrap();
        let subscription = PipelineExtensionSubscription {
            namespace: "default".to_owned(),
            pipeline,
            name: "probe".to_owned(),
            label: "l".to_owned(),
            ..Default::default()
        };
        key.begin_access(&subscription).keep();
    }
    let (proxy, clock) = (Network::default(), store.clock());
    let serving = tokio::spawn(serve_proxy(proxy.clone(), core.network(), clock));
    let current = Arc::new(Mutex::new(client(&proxy, clock)));
    // The extension is restarted now and then.
    let restarts = tokio::spawn({
        let (proxy, current) = (proxy.clone(), Arc::clone(&current));
        let mut random = fastrand::Rng::with_seed(SEED);
        async move {
            loop {
                sleep(Duration::from_millis(random.u64(1_000..60_000))).await;
                let old = std::mem::replace(&mut *current.lock().unwrap(), client(&proxy, clock));
                close_client(&old).await;
            }
        }
    });
    let started = authors::start_all(STARTS, name, &current, SEED).await;
    restarts.abort();
    // What is still on its way.
    sleep(Duration::from_secs(60)).await;
    serving.abort();
    let mut runs = HashMap::new();
    for pipeline in (0..PIPELINES).map(name) {
        for run in core.runs(&*pipeline) {
            *runs.entry(run.key().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    let without: Vec<_> = started.iter().filter(|key| !runs.contains_key(*key)).collect();
    assert!(without.is_empty(), "{without:?}");
    // Those of a start that its author gave up too.
    let twice: Vec<_> = runs.into_iter().filter(|(_, count)| *count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
