//! What can be tested without an engine: names, addresses, routes, owners, lines.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use bollard::models::{CreateImageInfo, Ipam, IpamConfig, NetworkInspect, SystemInfo};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

use super::engine::{CanLimit, EngineKind, addresses};
use super::image::ImageName;
use super::logs::LastLines;
use super::owner::{self, System, owner_has_ended};
use super::plan::Plan;
use super::pull::Layers;
use super::route::{Route, RouteKind, gateway, route_kind};
use super::symptom;
use crate::certificates::Identity;
use crate::launcher::{LaunchProgress, LaunchSpec, Process};
use crate::limits::{ContainerLimits, Timeouts};
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
fn only_an_owner_that_has_certainly_ended_counts_as_ended() {
    let started = |id| (id == 7).then_some(100);
    let system =
        System { boot: Some("now".to_owned()), namespace: Some("1".to_owned()), started: &started };
    for (owner, container_runs, ended) in [
        ("now.1.7.100", true, false),
        // Its PID belongs to another process, or to none.
        ("now.1.7.99", true, true),
        ("now.1.8.100", true, true),
        // A process in another namespace may be alive.
        ("now.2.8.100", true, false),
        ("before.1.8.100", false, true),
        ("before.1.8.100", true, false),
        ("", false, false),
        ("now.1.8", false, false),
        ("now.1.8.100.1", false, false),
        ("now.1.eight.100", false, false),
    ] {
        assert_eq!(owner_has_ended(owner, container_runs, &system), ended, "{owner}");
    }
    let blind = System { boot: None, namespace: None, started: &|_| None };
    assert!(!owner_has_ended("now.1.8.100", false, &blind));
}

#[cfg(target_os = "linux")]
#[test]
fn this_process_has_not_ended() {
    assert!(!owner::has_ended(&owner::this().unwrap(), false));
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
