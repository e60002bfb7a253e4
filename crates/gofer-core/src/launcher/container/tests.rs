//! What can be tested without an engine: names, addresses, routes, lines, orphans.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
#[cfg(feature = "store")]
use std::time::Duration;

use bollard::models::{CreateImageInfo, Ipam, IpamConfig, NetworkInspect, SystemInfo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::{Code, Status};

use super::engine::{CanLimit, EngineKind, addresses};
use super::image::ImageName;
use super::logs::LastLines;
use super::plan::{LAUNCH, OWNER, Plan, launch_label};
use super::pull::Layers;
use super::route::{Route, RouteKind, gateway, route_kind};
use super::{Containers, symptom};
#[cfg(feature = "store")]
use crate::Core;
use crate::certificates::Identity;
#[cfg(feature = "store")]
use crate::essential::EssentialTasks;
#[cfg(feature = "store")]
use crate::files::tests::Scratch;
#[cfg(feature = "store")]
use crate::launcher::Recorded;
use crate::launcher::{LaunchProgress, LaunchSpec, Process, UntilGone, owner};
use crate::limits::{ContainerLimits, Timeouts};
#[cfg(feature = "store")]
use crate::store::Store;
use crate::sync::lock;
#[cfg(feature = "store")]
use gofer_net::Clock;
use gofer_proto::embedded::ExtensionOptions;

#[test]
fn image_names_are_parsed_as_engines_parse_them() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let pinned = format!("a/b@{digest}");
    for (text, repository, version, registry) in [
        ("interval", "interval", "latest", None),
        ("interval:1.0", "interval", "1.0", None),
        ("me/interval:1.0-rc_1", "me/interval", "1.0-rc_1", None),
        ("localhost/interval", "localhost/interval", "latest", Some("localhost")),
        ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a", "1", Some("127.0.0.1:5000")),
        ("ghcr.io/a/b__c.d-e", "ghcr.io/a/b__c.d-e", "latest", Some("ghcr.io")),
        (&pinned, "a/b", &digest, None),
    ] {
        let name = ImageName::parse(text).unwrap();
        assert_eq!(name.repository(), repository, "{text}");
        assert_eq!(name.version(), version, "{text}");
        assert_eq!(name.registry(), registry, "{text}");
        assert_eq!(name.to_string(), text);
    }
}

#[test]
fn invalid_image_names_are_refused_with_what_to_write_instead() {
    let long = "a".repeat(10_000);
    for text in [
        "",
        ":",
        "@",
        "/",
        "a/",
        "a//b",
        "A",
        "a:",
        "a:-1",
        "a:b:c",
        "a@sha256:12",
        "a b",
        "a\nb",
        "./a",
        "/bin/a",
        "~/a",
        "-a",
        "host:port/a",
        "-.com/a",
        "exec:./a",
        "é",
        &long,
    ] {
        let refused = ImageName::parse(text).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("exec:<path>"), "{text}: {refused}");
        assert!(refused.message().len() < 1000 && !refused.message().contains('\n'), "{refused}");
    }
}

#[test]
fn an_engine_is_found_at_the_configured_address_or_else_at_the_usual_sockets() {
    let variables = HashMap::from([("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/user/1")]);
    let usual = addresses(None, |name| variables.get(name).map(|&value| value.to_owned()));
    assert_eq!(
        usual,
        [
            "unix:///var/run/docker.sock",
            "unix:///run/user/1/docker.sock",
            "unix:///home/me/.docker/run/docker.sock",
            "unix:///home/me/.docker/desktop/docker.sock",
            "unix:///run/user/1/podman/podman.sock",
            "unix:///run/podman/podman.sock",
        ]
    );
    let set = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://127.0.0.1:1".to_owned());
    assert_eq!(addresses(None, set), ["tcp://127.0.0.1:1"]);
    assert_eq!(addresses(Some("unix:///a"), set), ["unix:///a"]);
}

#[test]
fn the_route_to_the_core_depends_on_where_the_engine_runs() {
    let kind = |podman, rootless, desktop| EngineKind { podman, rootless, desktop };
    assert_eq!(route_kind(kind(false, false, false), true), RouteKind::Gateway);
    assert_eq!(route_kind(kind(false, true, false), true), RouteKind::DefaultRoute(None));
    assert_eq!(route_kind(kind(true, false, false), true), RouteKind::DefaultRoute(None));
    let podman = RouteKind::DefaultRoute(Some("host.containers.internal"));
    assert_eq!(route_kind(kind(true, true, false), true), podman);
    assert_eq!(route_kind(kind(false, false, true), true), RouteKind::Loopback);
    assert_eq!(route_kind(kind(true, true, false), false), RouteKind::Loopback);
}

#[test]
fn a_network_without_a_gateway_has_its_first_address() {
    let network = |subnet: &str, gateway: Option<&str>| NetworkInspect {
        ipam: Some(Ipam {
            config: Some(vec![
                IpamConfig { subnet: Some("fd00::/64".to_owned()), ..Default::default() },
                IpamConfig {
                    subnet: Some(subnet.to_owned()),
                    gateway: gateway.map(str::to_owned),
                    ..Default::default()
                },
            ]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let of = |network| gateway(&network).map(|address| address.to_string());
    assert_eq!(of(network("172.17.0.0/16", None)).as_deref(), Some("172.17.0.1"));
    assert_eq!(of(network("10.1.0.0/16", Some("10.1.0.9"))).as_deref(), Some("10.1.0.9"));
    assert_eq!(of(network("nonsense", None)), None);
    assert_eq!(of(NetworkInspect::default()), None);
}

#[test]
fn layers_are_counted_once_each() {
    let docker = [
        ("1.0", "Pulling from me/interval"),
        ("a", "Pulling fs layer"),
        ("b", "Already exists"),
        ("a", "Downloading"),
        ("a", "Pull complete"),
        ("c", "Waiting"),
        ("c", "Download complete"),
    ];
    let podman = [
        ("a", "Pulling fs layer"),
        ("b", "Pulling fs layer"),
        ("b", "Download complete"),
        ("c", "Pulling fs layer"),
        ("c", "Download complete"),
        ("c", "Download complete"),
    ];
    for (reports, is_podman) in [(docker.as_slice(), false), (podman.as_slice(), true)] {
        let mut layers = Layers::new(is_podman);
        for (id, status) in reports {
            layers.add(&CreateImageInfo {
                id: Some((*id).to_owned()),
                status: Some((*status).to_owned()),
                ..Default::default()
            });
        }
        assert_eq!(layers.count(), (2, 3));
    }
}

#[test]
fn the_log_of_a_container_explains_which_limit_it_has_met() {
    let limits = ContainerLimits { memory: 512 << 20, processes: 99, writable_root: false };
    let writable = ContainerLimits { writable_root: true, ..limits };
    for (line, advice, if_writable) in [
        (r#"Os { code: 30, message: "Read-only file system" }"#, Some("--writable-root"), false),
        ("open /data: read-only file system", Some("--writable-root"), false),
        ("sh: can't fork: Resource temporarily unavailable", Some("at most 99"), true),
        ("runtime: failed to create new OS thread (have 5)", Some("--processes"), true),
        ("RuntimeError: can't start new thread", Some("--processes"), true),
        ("OutOfMemoryError: unable to create native thread", Some("--processes"), true),
        ("write /tmp/a: no space left on device", Some("64MiB"), false),
        ("it is all well", None, false),
    ] {
        let last = LastLines::default();
        last.add(line);
        // Far fewer than a program writes to say where it was.
        (0..100).for_each(|_| last.add("goroutine"));
        let shown = symptom::advice(&last, &limits);
        assert_eq!(shown.is_some(), advice.is_some(), "{line}");
        assert!(shown.unwrap_or_default().contains(advice.unwrap_or_default()), "{line}");
        assert_eq!(symptom::advice(&last, &writable).is_some(), if_writable, "{line}");
        // It was long ago, and is not why it has ended.
        (0..1000).for_each(|_| last.add("all is well"));
        assert_eq!(symptom::advice(&last, &limits), None, "{line}");
    }
}

#[test]
fn an_engine_that_does_not_say_can_limit() {
    let silent = CanLimit::of(&SystemInfo::default());
    assert_eq!(silent, CanLimit { memory: true, swap: true, processes: true });
    let info = SystemInfo { memory_limit: Some(false), ..Default::default() };
    assert_eq!(CanLimit::of(&info), CanLimit { memory: false, ..silent });
}

fn spec(limits: ContainerLimits) -> LaunchSpec {
    LaunchSpec {
        name: "interval".to_owned(),
        key: "key".to_owned(),
        identity: Identity::new().unwrap(),
        log_level: "info".to_owned(),
        gofer_host: "127.0.0.1:1".to_owned(),
        user: String::new(),
        pass: String::new(),
        limits,
        timeouts: Timeouts::restore(&ExtensionOptions::default()),
        progress: LaunchProgress::default(),
        processes: TaskTracker::new(),
        until_gone: None,
    }
}

#[test]
fn limits_are_left_out_if_the_engine_has_none() {
    let limits = ContainerLimits { memory: 9 << 20, processes: 9, writable_root: false };
    let image = ImageName::parse("interval").unwrap();
    for can in [
        CanLimit { memory: true, swap: true, processes: true },
        CanLimit { memory: true, swap: false, processes: true },
        CanLimit { memory: false, swap: true, processes: false },
    ] {
        let route = Route { gofer_host: String::new(), extra_hosts: Vec::new() };
        let host = Plan::new(&image, &spec(limits), route, can).body.host_config.unwrap();
        assert_eq!(host.memory, can.memory.then_some(9 << 20));
        assert_eq!(host.memory_swap, (can.memory && can.swap).then_some(9 << 20));
        assert_eq!(host.pids_limit, can.processes.then_some(9));
        assert_eq!(host.readonly_rootfs, Some(true));
    }
}

/// As when Init fails: the extension has seen the cause, and says nothing of limits.
#[tokio::test]
async fn a_failure_is_explained_by_the_log_once() {
    let limits = ContainerLimits { memory: 9 << 20, processes: 9, writable_root: false };
    let last = LastLines::default();
    let process = {
        let last = last.clone();
        Process::new(None, &spec(limits), |_| std::future::pending())
            .with_advice(move || symptom::advice(&last, &limits))
    };
    let failure = process.explain(Status::internal("an internal error"));
    assert_eq!(failure.message(), "an internal error");
    last.add("cannot create /data: Read-only file system (os error 30)");
    let failure = process.explain(failure);
    assert_eq!(failure.code(), Code::Internal);
    assert!(failure.message().starts_with("an internal error; "), "{failure}");
    assert!(failure.message().contains("--writable-root"), "{failure}");
    let again = process.explain(failure.clone());
    assert_eq!(again.message(), failure.message());
}

/// The ID of a container and its labels.
type Labelled = (String, HashMap<String, String>);

/// Stands in for an engine: it drops a number of connections, and then has these containers until they
/// are removed.
struct FakeEngine {
    address: String,
    containers: Arc<Mutex<Vec<Labelled>>>,
    /// How many connections are dropped from now on.
    down_for: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl FakeEngine {
    async fn start(down_for: usize, containers: Vec<Labelled>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let containers = Arc::new(Mutex::new(containers));
        let down_for = Arc::new(AtomicUsize::new(down_for));
        let serving = {
            let (containers, down_for) = (Arc::clone(&containers), Arc::clone(&down_for));
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let less = |left: usize| left.checked_sub(1);
                    if down_for.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_err() {
                        let containers = Arc::clone(&containers);
                        // The connection may be gone.
                        tokio::spawn(async move { drop(Self::answer(stream, &containers).await) });
                    }
                }
            }
        };
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        Self { address, containers, down_for, _serving: serving }
    }

    async fn answer(mut stream: TcpStream, containers: &Mutex<Vec<Labelled>>) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut words = head.split([' ', '?']);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body = if path.ends_with("/version") {
            serde_json::json!({ "ApiVersion": "1.44", "Version": "1" })
        } else if path.ends_with("/containers/json") {
            let all = lock(containers).clone().into_iter();
            all.map(|(id, labels)| serde_json::json!({ "Id": id, "Labels": labels })).collect()
        } else if method == "DELETE" {
            lock(containers).retain(|(id, _)| !path.ends_with(id));
            serde_json::Value::Null
        } else {
            serde_json::json!({})
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let status = if body.is_empty() { "204 No Content" } else { "200 OK" };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await
    }

    /// The IDs of its containers.
    fn left(&self) -> Vec<String> {
        lock(&self.containers).iter().map(|(id, _)| id.clone()).collect()
    }
}

fn labels(digest: [u8; 32], owner: Option<String>) -> HashMap<String, String> {
    let mut labels = HashMap::from([(LAUNCH.to_owned(), launch_label(&digest))]);
    labels.extend(owner.map(|owner| (OWNER.to_owned(), owner)));
    labels
}

#[tokio::test]
async fn orphans_are_sought_until_the_engine_says_that_they_are_gone() {
    let [orphan, owned, none, unknown] = [11, 12, 13, 14].map(|it| [it; 32]);
    let _alive = UntilGone::new(owned, |_| {});
    let this = owner::this();
    let containers = vec![
        ("orphan".to_owned(), labels(orphan, this.clone())),
        ("owned".to_owned(), labels(owned, this)),
        ("unknown".to_owned(), labels(unknown, None)),
        ("foreign".to_owned(), labels([15; 32], None)),
    ];
    let engine = FakeEngine::start(3, containers).await;
    let core = Containers::new(Some(engine.address.clone()), Weak::new());
    let gone = Mutex::new(Vec::new());
    let all = vec![orphan, owned, none, unknown];
    core.remove_orphans(all, |digest| {
        assert_eq!(engine.down_for.load(Ordering::SeqCst), 0, "the engine has said nothing yet");
        lock(&gone).push(*digest);
    })
    .await;
    let mut gone = gone.into_inner().unwrap();
    gone.sort_unstable();
    assert_eq!(gone, [orphan, none, unknown]);
    assert_eq!(engine.left(), ["owned", "foreign"]);
}

#[tokio::test]
async fn orphans_are_sought_no_longer_once_the_core_stops() {
    let engine = FakeEngine::start(usize::MAX, Vec::new()).await;
    let core = Containers::new(Some(engine.address.clone()), Weak::new());
    let removal = core.remove_orphans(vec![[16; 32]], |_| panic!("the engine has said nothing"));
    let stop = async {
        while engine.down_for.load(Ordering::SeqCst) > usize::MAX - 3 {
            tokio::task::yield_now().await;
        }
        core.close();
    };
    tokio::join!(removal, stop);
}

#[cfg(feature = "store")]
#[tokio::test]
async fn a_launch_is_forgotten_only_once_its_container_is_gone() {
    let directory = Scratch::new();
    let path = directory.path("store.redb");
    let launch = Recorded { owner: String::new(), ..Recorded::new([17; 32], true) };
    let store =
        Store::open(Clock::system(), &path, None, None, &EssentialTasks::default()).unwrap();
    store.begin_launch(launch.clone()).await.unwrap();
    store.close().await;
    drop(store);
    let containers = vec![("left".to_owned(), labels(launch.digest, None))];
    let engine = FakeEngine::start(usize::MAX, containers).await;
    let builder = || Core::builder().store(&path).container_engine(&*engine.address);
    // Two that find no engine.
    for _ in 0..2 {
        let core = builder().start().await.unwrap();
        let before = engine.down_for.load(Ordering::SeqCst);
        while engine.down_for.load(Ordering::SeqCst) > before - 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(core.store().launches(), std::slice::from_ref(&launch));
        core.stop().await;
    }
    engine.down_for.store(2, Ordering::SeqCst);
    let core = builder().start().await.unwrap();
    while !core.store().launches().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(engine.left().is_empty());
    core.stop().await;
}
