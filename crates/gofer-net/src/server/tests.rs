//! Which connections are closed for new ones, and what peers without a token can take: in memory,
//! on a paused clock.

use std::error::Error as _;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Extensions, HeaderMap};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncRead, ReadBuf, ReadHalf};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Code;

use super::*;
use crate::auth::{Caller, Class, Decision, bearer, sha256};
use crate::connect::Sender;
use crate::memory::Network;
use crate::tls::{Trust, certificates, client_config, server_config};
use crate::{Connector, Dial};
use log::Log;

#[path = "../../../../tests/support/log.rs"]
mod log;

const WORK: &str = "/tests/Work";
/// Not answered before the test releases it.
const HOLD: &str = "/tests/Hold";
/// Answered once its message has arrived.
const READ: &str = "/tests/Read";
/// The same with a stream of messages.
const CONVERSE: &str = "/proto.Gofer/AttachToTaskRun";
/// Answered with a message of the size that the start of a run has.
const SMALL: &str = "/tests/Small";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Tokens say which class they have.
#[derive(Default)]
struct Tokens {
    /// The digest of one that is no longer valid.
    revoked: Mutex<Option<[u8; 32]>>,
}

impl Authorize for Tokens {
    fn authorize(
        &self,
        path: &str,
        headers: &HeaderMap,
        _: &mut Extensions,
    ) -> Result<Decision, Status> {
        let class = match bearer(headers) {
            Some(token) if token.starts_with(b"manager") => Class::Manager,
            Some(token) if token.starts_with(b"extension") => Class::Extension,
            Some(token) if token.starts_with(b"other") => Class::Other,
            _ if path.starts_with(crate::auth::OPEN) => return Ok(Decision::Open),
            _ => return Err(Status::unauthenticated("no valid token")),
        };
        let digest = sha256(bearer(headers).unwrap());
        Ok(Decision::Granted(Caller { digest, class }))
    }

    fn is_valid(&self, caller: &Caller) -> bool {
        *self.revoked.lock().unwrap() != Some(caller.digest)
    }
}

struct Calls {
    release: Arc<Semaphore>,
}

impl Handler for Calls {
    fn handle(&self, request: Request<Body>) -> ResponseFuture {
        let release = Arc::clone(&self.release);
        Box::pin(async move {
            match request.uri().path() {
                HOLD => release.acquire().await.unwrap().forget(),
                READ | CONVERSE => {
                    let read = request.into_body().collect().await;
                    return Ok(read.map_or_else(Status::into_http, |_| Status::ok("").into_http()));
                }
                SMALL => return Ok(Response::new(Body::new(Full::new(Bytes::from(vec![0; 300]))))),
                CHECK => drop(request.into_body().collect().await),
                WATCH => return Ok(Response::new(Body::new(Endless(Some(Bytes::from("up")))))),
                _ => {}
            }
            Ok(Status::ok("").into_http())
        })
    }
}

/// A response stream that begins and doesn't end.
struct Endless(Option<Bytes>);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}

struct Server {
    network: Network,
    trust: Trust,
    connector: Connector,
    callers: Arc<Callers>,
    release: Arc<Semaphore>,
    tokens: Arc<Tokens>,
}

/// No extra places, unless a test adds some.
fn limits(connections: usize) -> Limits {
    Limits { connections, extra_connections: 0, connections_per_extension: 2, ..Limits::default() }
}

impl Server {
    fn start(limits: Limits) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let tls = server_config(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
        let extra = certificates(&made.cert.pem()).unwrap();
        let trust = Trust { extra, only_extra: true, skip_verification: false };
        let network = Network::default();
        let listener = Listener::Memory(network.listen());
        let release = Arc::new(Semaphore::new(0));
        let calls = Calls { release: Arc::clone(&release) };
        let tokens = Arc::new(Tokens::default());
        let authorize: Arc<dyn Authorize> = Arc::clone(&tokens) as _;
        let service = Service::new(authorize, Arc::new(calls), limits);
        let callers = Arc::clone(&service.callers);
        tokio::spawn(serve(listener, tls, service, std::future::pending()));
        let name = ServerName::try_from("localhost").unwrap();
        let connector = Connector::new(Dial::Memory(network.clone()), name, trust.clone());
        Self { network, trust, connector, callers, release, tokens }
    }

    /// A new connection. If it is refused, its calls fail.
    async fn connect(&self) -> Client {
        let (sender, driver, _) = self.connector.connect().await.expect("the handshake succeeds");
        Client { sender, driver: tokio::spawn(driver) }
    }

    /// A connection whose peer reads no message.
    async fn unread(&self) -> Client {
        self.handshake(self.network.connect().await.unwrap(), 0).await.unwrap()
    }

    /// Makes the handshake of a connection, and reads this many bytes of each response.
    async fn handshake(&self, stream: BoxStream, window: u32) -> Option<Client> {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(client_config(&self.trust).unwrap());
        let stream = tls.connect(name, stream).await.ok()?;
        let stream: BoxStream = Box::new(stream);
        let (sender, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .handshake(TokioIo::new(stream))
            .await
            .ok()?;
        Some(Client { sender, driver: tokio::spawn(driver) })
    }

    /// A connection that has made a call with this token.
    async fn caller(&self, token: &str) -> Client {
        let client = self.connect().await;
        assert_eq!(client.work(token).await, Code::Ok);
        client
    }

    /// A connection with an open call.
    async fn busy(&self, token: &str) -> Client {
        let client = self.connect().await;
        client.begin(HOLD, Some(token));
        settle().await;
        client
    }
}

type Sent = JoinHandle<Result<Response<Incoming>, hyper::Error>>;

struct Client {
    sender: Sender,
    driver: JoinHandle<Result<(), hyper::Error>>,
}

impl Client {
    fn begin(&self, path: &str, token: Option<&str>) -> Sent {
        self.send(path, token, Body::new(Full::new(Bytes::from_static(&[0; 5]))))
    }

    fn send(&self, path: &str, token: Option<&str>, body: Body) -> Sent {
        let mut request = Request::post(format!("https://localhost{path}"))
            .header(CONTENT_TYPE, "application/grpc");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body).unwrap();
        let mut sender = self.sender.clone();
        tokio::spawn(async move { sender.send_request(request).await })
    }

    /// The status of a call; `Unknown` if the connection ends before it is answered.
    async fn call(&self, path: &str, token: Option<&str>) -> Code {
        match self.begin(path, token).await.unwrap() {
            Ok(response) => code(response).await,
            Err(_) => Code::Unknown,
        }
    }

    async fn work(&self, token: &str) -> Code {
        self.call(WORK, Some(token)).await
    }

    /// Whether the connection is open, once everything that can happen now has happened.
    async fn is_open(&self) -> bool {
        settle().await;
        !self.driver.is_finished()
    }
}

/// Keeps what is read from a stream.
struct Recorded<R>(R, Arc<Mutex<Vec<u8>>>);

impl<R: AsyncRead + Unpin> AsyncRead for Recorded<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.0).poll_read(task, buffer);
        self.1.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        read
    }
}

/// Reads nothing from a stream while it is held.
struct Gated<R> {
    stream: R,
    held: Arc<AtomicBool>,
    again: tokio::time::Interval,
}

impl<R: AsyncRead + Unpin> AsyncRead for Gated<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.held.load(Ordering::Relaxed) {
            std::task::ready!(self.again.poll_tick(task));
        }
        Pin::new(&mut self.stream).poll_read(task, buffer)
    }
}

/// A stream that is read in another way.
fn reading<R: AsyncRead + Send + Unpin + 'static>(
    stream: BoxStream,
    wrap: impl FnOnce(ReadHalf<BoxStream>) -> R,
) -> BoxStream {
    let (read, write) = tokio::io::split(stream);
    Box::new(tokio::io::join(wrap(read), write))
}

/// How many TLS records these bytes are.
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, high, low, rest @ ..] = bytes {
        bytes = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
        count += 1;
    }
    count
}

#[tokio::test(start_paused = true)]
async fn small_messages_are_written_together() {
    let server = Server::start(limits(3));
    let read = Arc::default();
    let stream = server.network.connect().await.unwrap();
    let stream = reading(stream, |stream| Recorded(stream, Arc::clone(&read)));
    let client = server.handshake(stream, 65_535).await.unwrap();
    client.work("other").await;
    settle().await;
    read.lock().unwrap().clear();
    let calls = [(); 10].map(|()| client.begin(SMALL, Some("other")));
    for call in calls {
        let body = call.await.unwrap().unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), 300);
    }
    let records = records(&read.lock().unwrap());
    assert!(records < 5, "ten responses are {records} records");
}

/// The status at the end of a response.
async fn code(response: Response<Incoming>) -> Code {
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await else { return Code::Unknown };
    let mut headers = body.trailers().into_iter().chain([&head.headers]);
    let status = headers.find_map(|headers| headers.get("grpc-status"));
    status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

/// The paused clock advances only when nothing else can happen.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_the_longest_idle_connection_of_the_caller_with_most_is_closed() {
    let server = Server::start(limits(5));
    let oldest = server.caller("other-b").await;
    let mut of_a = Vec::new();
    for _ in 0..3 {
        settle().await;
        of_a.push(server.caller("other-a").await);
    }
    settle().await;
    of_a[0].work("other-a").await;
    let unauthenticated = server.connect().await;
    assert_eq!(unauthenticated.call(CHECK, None).await, Code::Ok);

    let first = server.caller("manager").await;
    assert!(!unauthenticated.is_open().await, "one without a token is closed first");
    let _second = server.caller("other-c").await;
    assert!(!of_a[1].is_open().await, "the longest idle one of the caller with most is closed");
    let _third = server.caller("other-d").await;
    assert!(!of_a[2].is_open().await, "the caller still has most");
    for open in [&oldest, &of_a[0], &first] {
        assert!(open.is_open().await);
    }
    // Now each caller has one.
    let _fourth = server.caller("other-e").await;
    assert!(!oldest.is_open().await, "among equals, the longest idle one is closed");
    assert!(of_a[0].is_open().await);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_is_closed_for_a_new_one_is_told_so() {
    let server = Server::start(limits(2));
    let (idle, _other) = (server.caller("other-a").await, server.caller("other-a").await);
    let _new = server.caller("other-b").await;
    assert!(!idle.is_open().await);
    idle.driver.await.unwrap().expect("it ends after a GOAWAY, and not in the middle");
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_connection_that_is_being_closed_may_be_sent_again() {
    let server = Server::start(limits(2));
    let held = Arc::new(AtomicBool::new(false));
    let stream = reading(server.network.connect().await.unwrap(), |stream| Gated {
        stream,
        held: Arc::clone(&held),
        again: tokio::time::interval(Duration::from_millis(1)),
    });
    let idle = server.handshake(stream, 65_535).await.unwrap();
    assert_eq!(idle.work("other-a").await, Code::Ok);
    let _other = server.caller("other-a").await;
    settle().await;
    // It is closed, and does not know it yet.
    held.store(true, Ordering::Relaxed);
    let _new = server.caller("other-b").await;
    let call = idle.begin(WORK, Some("other-a"));
    settle().await;
    held.store(false, Ordering::Relaxed);
    let error = call.await.unwrap().unwrap_err();
    let reason = error.source().and_then(|source| source.downcast_ref::<h2::Error>()?.reason());
    assert_eq!(reason, Some(Reason::REFUSED_STREAM), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_an_open_call_is_never_closed() {
    let server = Server::start(limits(3));
    let busy = [server.busy("other-a").await, server.busy("other-a").await];
    let idle = server.caller("other-b").await;
    let new = server.caller("other-c").await;
    assert!(!idle.is_open().await, "not the idle one was closed");
    new.begin(HOLD, Some("other-c"));
    settle().await;
    assert!(server.connector.connect().await.is_err(), "one with an open call was closed");
    for open in busy.iter().chain([&new]) {
        assert!(open.is_open().await);
    }
    server.release.add_permits(3);
    settle().await;
    let _another = server.caller("other-d").await;
    assert!(!busy[0].is_open().await);
}

#[tokio::test(start_paused = true)]
async fn an_open_call_whose_token_was_revoked_keeps_no_connection_open() {
    let server = Server::start(limits(2));
    let stolen = [server.busy("other stolen").await, server.busy("other stolen").await];
    assert!(server.connector.connect().await.is_err(), "one with an open call was closed");
    *server.tokens.revoked.lock().unwrap() = Some(sha256(b"other stolen"));
    let _another = server.caller("other").await;
    assert!(!stolen[0].is_open().await && stolen[1].is_open().await);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_being_read_is_an_open_call() {
    let server = Server::start(limits(1));
    let watching = server.connect().await;
    let response = watching.begin(WATCH, Some("other-a")).await.unwrap().unwrap();
    assert!(server.connector.connect().await.is_err());
    drop(response);
    settle().await;
    let _new = server.caller("other-b").await;
    assert!(!watching.is_open().await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_belongs_to_the_caller_of_its_latest_valid_token() {
    let server = Server::start(limits(8));
    let one = server.caller("other-a").await;
    let two = server.caller("other-b").await;
    one.work("other-b").await;
    assert_eq!(server.callers.counts(), [2]);
    one.work("invalid").await;
    assert_eq!(server.callers.counts(), [2]);
    drop((one, two));
    settle().await;
    assert!(server.callers.counts().is_empty(), "connections that have ended are kept");
}

#[tokio::test(start_paused = true)]
async fn an_extension_with_too_many_connections_loses_its_longest_idle_one() {
    let server = Server::start(limits(8));
    let manager = server.caller("manager").await;
    let other = server.caller("extension-b").await;
    let busy = server.busy("extension-a").await;
    let mut before = server.caller("extension-a").await;
    // Many more than the limits.
    for _ in 0..50 {
        let next = server.caller("extension-a").await;
        assert!(!before.is_open().await);
        before = next;
    }
    for open in [&manager, &other, &busy, &before] {
        assert!(open.is_open().await);
    }
    let mut counts = server.callers.counts();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn if_an_extension_uses_all_its_connections_another_one_is_refused_and_closed() {
    let server = Server::start(limits(8));
    let busy = [server.busy("extension-a").await, server.busy("extension-a").await];
    for _ in 0..20 {
        let refused = server.connect().await;
        assert_eq!(refused.work("extension-a").await, Code::ResourceExhausted);
        assert!(!refused.is_open().await);
    }
    let of_another = server.caller("extension-b").await;
    server.release.add_permits(1);
    settle().await;
    let _next = server.caller("extension-a").await;
    let mut open = 0;
    for client in &busy {
        open += usize::from(client.is_open().await);
    }
    assert_eq!(open, 1, "the idle one is closed for the next one, and the other one stays");
    assert!(of_another.is_open().await);
}

#[tokio::test(start_paused = true)]
async fn with_all_connections_in_use_a_manager_gets_an_extra_one() {
    let server = Server::start(Limits { extra_connections: 2, ..limits(2) });
    let busy = [server.busy("other-a").await, server.busy("other-a").await];
    for token in ["other-a", "other-b", "extension-a"] {
        let refused = server.connect().await;
        assert_eq!(refused.work(token).await, Code::ResourceExhausted);
        assert!(!refused.is_open().await, "{token}");
    }
    let unauthenticated = server.connect().await;
    assert_eq!(unauthenticated.work("invalid").await, Code::Unauthenticated);
    assert!(!unauthenticated.is_open().await);
    // Only the first call counts.
    let late = server.connect().await;
    assert_eq!(late.call(CHECK, None).await, Code::ResourceExhausted);
    assert_ne!(late.work("manager").await, Code::Ok);

    let manager = server.caller("manager").await;
    let silent = server.connect().await;
    let stalled = server.connect().await;
    assert!(!silent.is_open().await, "of those that say nothing, the oldest is closed");
    let another = server.caller("manager-2").await;
    assert!(!stalled.is_open().await);
    // All extra places are a manager's: the longest idle one is closed.
    let _third = server.caller("manager-3").await;
    assert!(!manager.is_open().await);
    tokio::time::sleep(Duration::from_secs(60)).await;
    for open in busy.iter().chain([&another]) {
        assert!(open.is_open().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_all_connections_does_not_keep_newcomers_out() {
    let server = Server::start(Limits { extra_connections: 2, ..limits(16) });
    let busy = server.busy("other-a").await;
    let mut idle = Vec::new();
    for _ in 0..14 {
        idle.push(server.caller("other-a").await);
    }
    for token in ["manager", "extension-a", "other-b"] {
        // Others connect before it has shown its token.
        let before = server.network.connect().await.unwrap();
        let new = server.network.connect().await.unwrap();
        let after = server.network.connect().await.unwrap();
        settle().await;
        let new = server.handshake(new, 65_535).await.expect(token);
        assert_eq!(new.work(token).await, Code::Ok);
        drop((before, after));
    }
    assert!(busy.is_open().await);
    // Later, and after a call without a token, they are closed first.
    let silent = server.connect().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let checked = server.connect().await;
    assert_eq!(checked.call(CHECK, None).await, Code::Ok);
    let last = idle.last().unwrap();
    let mut others = Vec::new();
    for n in 0..16 {
        others.push(server.caller(&format!("other-{n}")).await);
    }
    assert!(!silent.is_open().await && !checked.is_open().await);
    assert!(busy.is_open().await && !last.is_open().await);
}

#[tokio::test(start_paused = true)]
async fn an_extra_place_is_given_up_after_two_seconds_without_a_call() {
    let server = Server::start(Limits { extra_connections: 2, ..limits(1) });
    let _busy = server.busy("other-a").await;
    let silent = server.connect().await;
    tokio::time::sleep(Duration::from_millis(1900)).await;
    assert!(silent.is_open().await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!silent.is_open().await);
    // It is the same during the handshake.
    let stalled = server.network.connect().await.unwrap();
    let before = Instant::now();
    let closed = async {
        let (mut read, _write) = tokio::io::split(stalled);
        tokio::io::AsyncReadExt::read(&mut read, &mut [0]).await
    };
    assert!(matches!(closed.await, Ok(0) | Err(_)));
    assert_eq!(before.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn watches_without_a_token_are_bounded_and_checks_have_places_of_their_own() {
    let server = Server::start(limits(1024));
    let mut clients = Vec::new();
    let (mut answered, mut refused) = (Vec::new(), 0);
    for _ in 0..128 {
        let client = server.connect().await;
        let watches: Vec<_> = (0..9).map(|_| client.begin(WATCH, None)).collect();
        for watch in watches {
            let response = watch.await.unwrap().unwrap();
            match response.headers().get("grpc-status") {
                None => answered.push(response),
                Some(_) => refused += 1,
            }
        }
        assert!(answered.len() <= 8 * (clients.len() + 1), "more than 8 of one connection");
        assert_eq!(client.call(CHECK, None).await, Code::Ok);
        clients.push(client);
    }
    assert!(answered.len() >= 8, "{}", answered.len());
    assert!(refused >= 128 * 9 / 2, "{refused}");
    let balancer = server.connect().await;
    assert_eq!(balancer.call(CHECK, None).await, Code::Ok);
    // With a token, it is not limited.
    let known = server.caller("other-a").await;
    let mut known = known.begin(WATCH, Some("other-a")).await.unwrap().unwrap();
    assert!(known.body_mut().frame().await.unwrap().is_ok());

    // They end by themselves, and others get their places.
    let before = Instant::now();
    assert_eq!(code(answered.pop().unwrap()).await, Code::Unavailable);
    assert!(before.elapsed() <= Duration::from_secs(5 * 60));
    settle().await;
    let response = balancer.begin(WATCH, None).await.unwrap().unwrap();
    assert!(response.headers().get("grpc-status").is_none());
    let still_open = tokio::time::timeout(Duration::from_secs(3600), known.body_mut().frame());
    assert!(still_open.await.is_err(), "a Watch with a token ended");
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_a_token_that_does_not_read_is_closed() {
    let server = Server::start(limits(8));
    let unread = server.unread().await;
    let _response = unread.begin(WATCH, None).await.unwrap().unwrap();
    let before = Instant::now();
    let _ = unread.driver.await.unwrap();
    let seconds = before.elapsed().as_secs();
    assert!((60..600).contains(&seconds), "closed after {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn checks_whose_message_is_late_do_not_take_the_places_of_others() {
    let server = Server::start(limits(1024));
    let mut clients = Vec::new();
    for _ in 0..200 {
        let client = server.connect().await;
        for _ in 0..8 {
            client.send(CHECK, None, Body::new(Endless(None)));
        }
        clients.push(client);
    }
    settle().await;
    let balancer = server.connect().await;
    assert_eq!(balancer.call(CHECK, None).await, Code::Ok);
    assert_eq!(clients[0].call(CHECK, None).await, Code::ResourceExhausted);
    tokio::time::sleep(Limits::default().first_call_timeout).await;
    assert_eq!(clients[0].call(CHECK, None).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_message_does_not_arrive_ends_also_with_a_token() {
    let server = Server::start(limits(8));
    let client = server.caller("other-a").await;
    let conversation = client.send(CONVERSE, Some("other-a"), Body::new(Endless(None)));
    let part = Bytes::from_static(&[0; 3]);
    for body in [Endless(None), Endless(Some(part))] {
        let before = Instant::now();
        let call = client.send(READ, Some("other-a"), Body::new(body));
        let response = tokio::time::timeout(Duration::from_secs(3600), call).await;
        let response = response.expect("it stays open").unwrap().unwrap();
        assert_eq!(code(response).await, Code::DeadlineExceeded);
        assert_eq!(before.elapsed().as_secs(), 30);
    }
    // Only the message has to arrive in time.
    assert_eq!(client.call(READ, Some("other-a")).await, Code::Ok);
    let held = client.begin(HOLD, Some("other-a"));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!conversation.is_finished() && !held.is_finished());
    server.release.add_permits(1);
    assert_eq!(code(held.await.unwrap().unwrap()).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_token_is_bounded_also_on_a_connection_that_has_shown_one() {
    let server = Server::start(limits(2));
    let client = server.caller("other-a").await;
    let busy = server.busy("other-b").await;
    let mut watches = Vec::new();
    for _ in 0..8 {
        let response = client.begin(WATCH, None).await.unwrap().unwrap();
        assert!(response.headers().get("grpc-status").is_none());
        watches.push(response);
    }
    let ninth = tokio::time::timeout(Duration::from_secs(1), client.call(WATCH, None));
    assert_eq!(ninth.await, Ok(Code::ResourceExhausted));
    let late = client.send(CHECK, None, Body::new(Endless(None)));
    let before = Instant::now();
    assert_eq!(code(late.await.unwrap().unwrap()).await, Code::DeadlineExceeded);
    assert_eq!(code(watches.pop().unwrap()).await, Code::Unavailable);
    assert!(before.elapsed() <= Duration::from_secs(5 * 60));
    // Nor do they keep the connection.
    let _watch = client.begin(WATCH, None).await.unwrap().unwrap();
    let _new = server.caller("other-c").await;
    tokio::time::sleep(CLOSE_GRACE).await;
    assert!(!client.is_open().await && busy.is_open().await);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_one_line_a_minute_with_their_number() {
    let server = Server::start(limits(3));
    let _busy = [server.busy("extension-a").await, server.busy("extension-a").await];
    let log = Log::begin_at(tracing::Level::WARN);
    for _ in 0..300 {
        let refused = server.connect().await;
        refused.work("extension-a").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let of_extension = log.take();
    assert!((5..=6).contains(&of_extension.len()), "{of_extension:#?}");
    assert!(of_extension[0].contains("refused=1 "), "{of_extension:#?}");
    assert!(of_extension[1].contains("refused=60 "), "{of_extension:#?}");
    let _third = server.busy("other-a").await;
    for _ in 0..300 {
        assert!(server.connector.connect().await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let lines = log.take();
    assert!((5..=6).contains(&lines.len()), "{lines:#?}");
}

/// As an extension leaks them that connects for each call, for more than half an hour. One that
/// makes a call now and then, and managers, are served.
#[tokio::test(start_paused = true)]
async fn connections_that_one_extension_leaks_leave_others_alone_and_the_log_short() {
    let limits = Limits { connections_per_extension: 64, ..Limits::default() };
    let server = Server::start(limits);
    let manager = server.caller("manager-a").await;
    let hourly = server.caller("extension-hourly").await;
    let log = Log::begin_at(tracing::Level::WARN);
    let before = Instant::now();
    let mut leaked = Vec::new();
    for n in 0..5000 {
        leaked.push(server.caller("extension-leaking").await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if n % 1000 == 0 {
            assert_eq!(manager.work("manager-a").await, Code::Ok);
            assert_eq!(server.connect().await.work("manager-a").await, Code::Ok);
        }
    }
    assert_eq!(hourly.work("extension-hourly").await, Code::Ok);
    settle().await;
    let open = leaked.iter().filter(|client| !client.driver.is_finished()).count();
    assert_eq!(open, 64);
    let minutes = usize::try_from(before.elapsed().as_secs() / 60).unwrap();
    let lines = log.take();
    assert!((1..=minutes + 1).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines[0].contains("an extension has more than 64 connections"), "{lines:#?}");
}
