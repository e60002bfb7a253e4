//! The connections of a stand-in, and the calls on them: each is counted, and has the outcome that
//! its test decides on.

use std::any::Any;
use std::future::{Future, ready};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gofer_proto::{RetryRunResponse, StartRunResponse};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use super::super::requests::limited;
use super::super::serving::{streaming, unary};
use super::{Shared, api};

/// The outcome of one call.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// What Gofer does.
    Answer,
    /// The call is refused and has no effect.
    Refuse(Status),
    /// The call has its effect, and is answered with this status, as by a proxy that lost its
    /// connection to Gofer.
    ActAndRefuse(Status),
    /// The call has its effect; the answer waits until the test releases it.
    ActAndHold,
    /// The call has its effect, and the connection ends before the answer.
    ActAndDisconnect,
    /// The call has its effect this much later, also if its caller or connection is gone by then,
    /// as in a proxy that had kept it, and is never answered.
    ActLater(Duration),
    /// The call has neither an effect nor an answer.
    Swallow,
    /// The connection ends, and the call has no effect.
    Disconnect,
    /// The stream is reset with `REFUSED_STREAM`: the call was not processed.
    RefuseStream,
    /// A proxy answers with a page of this HTTP status, and the call has no effect.
    Page(StatusCode),
}

/// What is sent instead of an answer.
enum Instead {
    Reset,
    Page(StatusCode),
}

/// A call on whose outcome a test decides.
pub struct Call<'a> {
    /// Which one of its method this is, from 1.
    pub number: usize,
    pub(super) message: &'a dyn Any,
}

impl Call<'_> {
    /// What was sent, such as a `StartRunRequest`.
    pub fn message<T: Any>(&self) -> &T {
        self.message.downcast_ref().expect("the request of this method")
    }
}

pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    shared: Arc<Shared>,
) {
    let disconnect = shared.connections.lock().unwrap().child_token();
    shared.recorded.send_modify(|recorded| {
        recorded.connections += 1;
        recorded.open_connections += 1;
    });
    let _open = Open(Arc::clone(&shared));
    let serving = async {
        let Ok(stream) = shared.tls.accept(stream).await else { return };
        let connection = Connection { shared: Arc::clone(&shared), disconnect: disconnect.clone() };
        let service = service_fn(move |request| connection.clone().answer(request));
        let http = http2::Builder::new(TokioExecutor::new());
        match shared.requests.load(Ordering::SeqCst) {
            0 => drop(http.serve_connection(TokioIo::new(stream), service).await),
            requests => {
                let stream = limited(stream, requests);
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            }
        }
    };
    tokio::select! {
        biased;
        () = serving => {}
        () = disconnect.cancelled() => {}
    }
}

/// Counts a connection while it is open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.recorded.send_modify(|recorded| recorded.open_connections -= 1);
    }
}

#[derive(Clone)]
struct Connection {
    shared: Arc<Shared>,
    disconnect: CancellationToken,
}

impl Connection {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, h2::Error> {
        let path = request.uri().path();
        let method = path
            .strip_prefix("/proto.Gofer/")
            .or_else(|| path.strip_prefix("/gofer_sdk.embedded."))
            .unwrap_or(path)
            .to_owned();
        let instead = Arc::new(OnceLock::new());
        let call = Pending {
            has_token: request.headers().contains_key(AUTHORIZATION) || method == "GetSystemInfo",
            method: method.clone(),
            instead: Arc::clone(&instead),
            connection: self,
        };
        // What neither waits nor goes on.
        macro_rules! answer {
            ($act:expr) => {{
                let act = |shared: Arc<Shared>, sent| ready($act(&shared, &sent));
                unary(request, move |sent| call.perform(sent, act)).await
            }};
        }
        let response = match &*method {
            "StartRun" => {
                let act = |shared, sent| {
                    let started = api::start_run(&shared, sent);
                    async { Ok(StartRunResponse { run: Some(started?.admitted().await) }) }
                };
                unary(request, move |sent| call.perform(sent, act)).await
            }
            "RetryRun" => {
                let act = |shared, sent| {
                    let started = api::retry_run(&shared, &sent);
                    async { Ok(RetryRunResponse { run: Some(started?.admitted().await) }) }
                };
                unary(request, move |sent| call.perform(sent, act)).await
            }
            "ListEvents" => {
                let act = |shared, sent| ready(Ok(api::list_events(shared, sent)));
                streaming(request, move |sent| call.perform(sent, act)).await
            }
            "GetSystemInfo" => answer!(api::get_system_info),
            "GetNamespace" => answer!(api::get_namespace),
            "ListNamespaces" => answer!(api::list_namespaces),
            "GetPipeline" => answer!(api::get_pipeline),
            "ListPipelines" => answer!(api::list_pipelines),
            "EnablePipeline" => answer!(api::enable_pipeline),
            "DisablePipeline" => answer!(api::disable_pipeline),
            "GetRun" => answer!(api::get_run),
            "ListRuns" => answer!(api::list_runs),
            "CancelRun" => answer!(api::cancel_run),
            "GetPipelineExtensionSubscription" => answer!(api::get_subscription),
            "GetEvent" => answer!(api::get_event),
            "PutPipelineObject" => answer!(api::put_pipeline_object),
            "GetPipelineObject" => answer!(api::get_pipeline_object),
            "ListPipelineObjects" => answer!(api::list_pipeline_objects),
            "DeletePipelineObject" => answer!(api::delete_pipeline_object),
            _ => {
                answer!(|_: &Shared, (): &()| Err::<(), _>(Status::unimplemented("no such method")))
            }
        };
        match instead.get() {
            None => Ok(response),
            Some(Instead::Reset) => Err(h2::Reason::REFUSED_STREAM.into()),
            Some(Instead::Page(status)) => {
                let mut page = Response::new(Body::new("<html>Bad Gateway</html>".to_owned()));
                *page.status_mut() = *status;
                page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
                Ok(page)
            }
        }
    }
}

/// A call that has not been answered yet.
struct Pending {
    connection: Connection,
    method: String,
    has_token: bool,
    instead: Arc<OnceLock<Instead>>,
}

impl Pending {
    /// `act` has its effect when it is called; the future that it returns waits for the answer.
    async fn perform<Q, T, Fut>(
        self,
        sent: Q,
        act: impl FnOnce(Arc<Shared>, Q) -> Fut + Send + 'static,
    ) -> Result<T, Status>
    where
        Q: Send + 'static,
        Fut: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let Connection { shared, disconnect } = &self.connection;
        let (_in_flight, number) = InFlight::begin(shared, &self.method);
        if !self.has_token {
            return Err(Status::permission_denied("a token is required"));
        }
        let outcome = shared.scripts.outcome(&self.method, &Call { number, message: &sent });
        let shared = Arc::clone(shared);
        match outcome {
            Outcome::Answer => return act(shared, sent).await,
            Outcome::Refuse(status) => return Err(status),
            Outcome::ActAndRefuse(status) => {
                drop(act(shared, sent));
                return Err(status);
            }
            Outcome::ActAndHold => {
                let answer = act(Arc::clone(&shared), sent);
                shared.released().await;
                return answer.await;
            }
            Outcome::RefuseStream => return self.instead(Instead::Reset),
            Outcome::Page(status) => return self.instead(Instead::Page(status)),
            Outcome::ActAndDisconnect => {
                drop(act(shared, sent));
                disconnect.cancel();
            }
            Outcome::Disconnect => disconnect.cancel(),
            Outcome::Swallow => {}
            Outcome::ActLater(after) => {
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    drop(act(shared, sent));
                });
            }
        }
        std::future::pending().await
    }

    fn instead<T>(&self, instead: Instead) -> Result<T, Status> {
        let _ = self.instead.set(instead);
        Err(Status::unavailable("there is no answer"))
    }
}

/// Counts a call, and that it is in flight until it has been answered or its caller has left.
struct InFlight<'a> {
    shared: &'a Shared,
    method: &'a str,
}

impl<'a> InFlight<'a> {
    /// With the number of the call.
    fn begin(shared: &'a Shared, method: &'a str) -> (Self, usize) {
        let mut number = 0;
        shared.recorded.send_modify(|recorded| {
            let calls = recorded.calls.entry(method.to_owned()).or_default();
            calls.total += 1;
            calls.in_flight += 1;
            number = calls.total;
        });
        (Self { shared, method }, number)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.shared.recorded.send_modify(|recorded| {
            recorded.calls.entry(self.method.to_owned()).or_default().in_flight -= 1;
        });
    }
}
