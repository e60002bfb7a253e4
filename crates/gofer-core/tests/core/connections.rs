//! Very many connections to the core, over real sockets: whoever opens them takes none from others.
//!
//! The keys of extensions are found in the environment of their processes.

use std::sync::Arc;
use std::time::Duration;

use crate::caller::{Caller, OpenCall};
use crate::metronome;
use gofer_core::{Core, NO_SETTINGS};
use gofer_proto as proto;
use gofer_proto::create_token_request::Kind;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Code;

/// Connections of one extension, as its leak makes them.
const MANY: usize = 5_000;

/// Handshakes at a time: fewer than connections may wait to be accepted, since the system discards
/// further ones, and tries again later and later.
const HANDSHAKES: usize = 100;

/// The limit of one extension.
const MOST: usize = 64;

/// The limit of the core.
const ALL: usize = 1024;

/// Far longer than anything here takes, even on a busy machine: only a hang takes so long.
const TIMEOUT: Duration = Duration::from_secs(300);

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, future).await.expect("it hangs")
}

/// Both ends of all connections are in this process.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// A core with two extensions, each in its own process, and their keys.
async fn core() -> (Core, String, String) {
    allow_many_files();
    let core = within(Core::on_loopback()).await.unwrap();
    let leaking = key(&core, "leaking").await;
    let quiet = key(&core, "quiet").await;
    (core, leaking, quiet)
}

async fn key(core: &Core, name: &str) -> String {
    let installed = within(core.install_program(name, &metronome::program(), NO_SETTINGS)).await;
    let process = installed.unwrap().process_id().unwrap();
    let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap();
    let variables = environment.split(|byte| *byte == 0);
    let mut keys = variables.filter_map(|it| it.strip_prefix(b"GOFER_EXTENSION_SYSTEM_KEY="));
    String::from_utf8(keys.next().expect("the extension has a key").to_vec()).unwrap()
}

async fn token(core: &Core, kind: Kind) -> String {
    let namespaces = match kind {
        Kind::Client => vec![".*".to_owned()],
        _ => Vec::new(),
    };
    let request = proto::CreateTokenRequest {
        kind: kind.into(),
        namespaces,
        expires: "24h".to_owned(),
        ..Default::default()
    };
    core.client().api().create_token(request).await.unwrap().into_inner().token
}

/// The status of a call, whatever the caller may do.
async fn call(caller: &Caller) -> Code {
    match within(caller.call("ListTokens")).await {
        Ok(()) => Code::Ok,
        Err(status) => status.code(),
    }
}

fn is_served(code: Code) -> bool {
    matches!(code, Code::Ok | Code::PermissionDenied)
}

/// A new connection of the command line, which tries again if it is closed.
async fn command(core: &Core, token: &str) {
    within(async {
        loop {
            if let Ok(caller) = Caller::connect(core).await
                && call(&caller.with(token)).await == Code::Ok
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until at most this many are open.
async fn until_open(callers: &[Caller], most: usize) {
    within(async {
        while callers.iter().filter(|caller| !caller.is_closed()).count() > most {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_leaks_a_connection_for_each_call_loses_only_its_own() {
    let (core, leaking, quiet) = core().await;
    let management = token(&core, Kind::Management).await;
    let manager = Caller::of(&core).await.with(&management);
    assert_eq!(call(&manager).await, Code::Ok);
    // From now on, it makes no call for as long as everything else takes.
    let quiet = Caller::of(&core).await.with(&quiet);
    assert!(is_served(call(&quiet).await));
    let mut leaked = Vec::new();
    for n in 0..MANY {
        let caller = Caller::of(&core).await.with(&leaking);
        assert!(is_served(call(&caller).await), "connection {n}");
        leaked.push(caller);
        if n % 100 == 0 {
            assert_eq!(call(&manager).await, Code::Ok);
            assert_eq!(call(&Caller::of(&core).await.with(&management)).await, Code::Ok);
        }
    }
    until_open(&leaked, MOST).await;
    assert!(leaked.iter().any(|caller| !caller.is_closed()), "all were closed");
    assert!(is_served(call(&quiet).await));
    assert_eq!(call(&manager).await, Code::Ok);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_opens_thousands_of_connections_at_once_keeps_nobody_out() {
    let (core, leaking, quiet) = core().await;
    let management = token(&core, Kind::Management).await;
    let manager = Caller::of(&core).await.with(&management);
    assert_eq!(call(&manager).await, Code::Ok);
    let quiet = Caller::of(&core).await.with(&quiet);
    assert!(is_served(call(&quiet).await));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut storm = JoinSet::new();
    for _ in 0..MANY {
        let (core, leaking, handshakes) = (core.clone(), leaking.clone(), Arc::clone(&handshakes));
        storm.spawn(async move {
            let handshake = handshakes.acquire_owned().await;
            // One may be closed for another one before it has shown the key.
            let caller = Caller::connect(&core).await.ok()?.with(&leaking);
            drop(handshake);
            call(&caller).await;
            Some(caller)
        });
    }
    let mut leaked = Vec::new();
    while let Some(caller) = within(storm.join_next()).await {
        leaked.extend(caller.unwrap());
        if leaked.len() % 100 == 0 {
            assert_eq!(call(&manager).await, Code::Ok);
            command(&core, &management).await;
        }
    }
    until_open(&leaked, MOST).await;
    assert!(is_served(call(&quiet).await));
    assert_eq!(call(&manager).await, Code::Ok);
    core.stop().await;
}

/// Opens connections, each with an open call, until one is refused, which is the last.
async fn fill(core: &Core, token: &str) -> (Vec<(Caller, OpenCall)>, Caller) {
    let mut busy = Vec::new();
    loop {
        let caller = Caller::of(core).await.with(token);
        match call(&caller).await {
            Code::ResourceExhausted => return (busy, caller),
            status => assert!(is_served(status), "{status:?}"),
        }
        let open = caller.begin().await;
        busy.push((caller, open));
    }
}

fn open(busy: &[(Caller, OpenCall)]) -> usize {
    busy.iter().filter(|(caller, _)| !caller.is_closed()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_uses_all_its_connections_gets_no_other() {
    let (core, leaking, quiet) = core().await;
    let (mut busy, refused) = fill(&core, &leaking).await;
    until_open(&[refused], 0).await;
    assert_eq!(busy.len(), MOST);
    assert_eq!(open(&busy), MOST);
    assert!(is_served(call(&Caller::of(&core).await.with(&quiet)).await));
    // Once one of its calls has ended, it gets another one.
    let (idle, ended) = busy.pop().unwrap();
    drop(ended);
    within(async {
        while !is_served(call(&Caller::of(&core).await.with(&leaking)).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    until_open(&[idle], 0).await;
    assert_eq!(open(&busy), MOST - 1);
    core.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_gets_in_when_every_connection_is_in_use() {
    let (core, _, quiet) = core().await;
    let management = token(&core, Kind::Management).await;
    let client = token(&core, Kind::Client).await;
    let (busy, refused) = fill(&core, &client).await;
    until_open(&[refused], 0).await;
    assert_eq!(busy.len(), ALL);
    let caller = Caller::of(&core).await.with(&quiet);
    assert_eq!(call(&caller).await, Code::ResourceExhausted);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Caller::of(&core).await);
        command(&core, &management).await;
    }
    // The core's own token is a manager's too.
    let caller = Caller::of(&core).await.with(core.token());
    assert_eq!(call(&caller).await, Code::Ok);
    until_open(&silent, 0).await;
    assert!(!caller.is_closed());
    assert_eq!(open(&busy), ALL);
    core.stop().await;
}
