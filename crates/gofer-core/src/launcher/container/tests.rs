//! What needs no engine: names, places, ways, owners, lines.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use bollard::container::LogOutput;
use bollard::models::{CreateImageInfo, Ipam, IpamConfig, NetworkInspect};
use tonic::Code;

use super::engine::{Kind, places};
use super::image::ImageName;
use super::logs::Lines;
use super::owner::{self, Told, judge};
use super::pull::Layers;
use super::route::{Way, gateway, way};

#[test]
fn names_of_images_are_read_as_engines_read_them() {
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
fn what_is_no_name_of_an_image_is_refused_with_what_would_be_one() {
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
fn an_engine_is_looked_for_where_somebody_said_and_else_at_the_usual_sockets() {
    let variables = HashMap::from([("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/user/1")]);
    let usual = places(None, |name| variables.get(name).map(|&value| value.to_owned()));
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
    let said = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://127.0.0.1:1".to_owned());
    assert_eq!(places(None, said), ["tcp://127.0.0.1:1"]);
    assert_eq!(places(Some("unix:///a"), said), ["unix:///a"]);
}

#[test]
fn the_way_to_the_core_depends_on_where_the_engine_runs() {
    let kind = |podman, rootless, desktop| Kind { podman, rootless, desktop };
    assert_eq!(way(kind(false, false, false), true), Way::Gateway);
    assert_eq!(way(kind(false, true, false), true), Way::Outward(None));
    assert_eq!(way(kind(true, false, false), true), Way::Outward(None));
    let podman = Way::Outward(Some("host.containers.internal"));
    assert_eq!(way(kind(true, true, false), true), podman);
    assert_eq!(way(kind(false, false, true), true), Way::Loopback);
    assert_eq!(way(kind(true, true, false), false), Way::Loopback);
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
fn only_an_owner_that_has_certainly_ended_is_dead() {
    let started = |id| (id == 7).then_some(100);
    let told =
        Told { boot: Some("now".to_owned()), namespace: Some("1".to_owned()), started: &started };
    for (owner, container_runs, dead) in [
        ("now.1.7.100", true, false),
        // Its number belongs to another process, or to none.
        ("now.1.7.99", true, true),
        ("now.1.8.100", true, true),
        // Of another namespace nothing is known.
        ("now.2.8.100", true, false),
        ("before.1.8.100", false, true),
        ("before.1.8.100", true, false),
        ("", false, false),
        ("now.1.8", false, false),
        ("now.1.8.100.1", false, false),
        ("now.1.eight.100", false, false),
    ] {
        assert_eq!(judge(owner, container_runs, &told), dead, "{owner}");
    }
    let blind = Told { boot: None, namespace: None, started: &|_| None };
    assert!(!judge("now.1.8.100", false, &blind));
}

#[cfg(target_os = "linux")]
#[test]
fn this_process_lives() {
    assert!(!owner::is_dead(&owner::this().unwrap(), false));
}

#[test]
fn what_a_container_writes_is_cut_into_lines_of_bounded_length() {
    let mut lines = Lines::default();
    let mut heard = Vec::new();
    let out = |text: &str| LogOutput::StdOut { message: text.to_owned().into() };
    let err = |text: &str| LogOutput::StdErr { message: text.to_owned().into() };
    let long = "x".repeat(100_000);
    for output in [
        out("one\r\ntw"),
        err("other\n"),
        out("o\n\n"),
        out(&long),
        out("\n\u{1b}[2J!\n"),
        out("end"),
    ] {
        lines.add(&output, |line| heard.push(line.to_owned()));
    }
    lines.finish(|line| heard.push(line.to_owned()));
    let shown: Vec<_> = heard.iter().map(|line| &line[..line.len().min(5)]).collect();
    assert_eq!(shown, ["one", "other", "two", "xxxxx", " [2J!", "end"]);
    assert!(heard.iter().all(|line| line.len() <= 8192));
}

#[test]
fn layers_are_counted_once_each() {
    let mut layers = Layers::default();
    for (id, status) in [
        ("1.0", "Pulling from me/interval"),
        ("a", "Pulling fs layer"),
        ("b", "Already exists"),
        ("a", "Downloading"),
        ("a", "Pull complete"),
        ("c", "Waiting"),
    ] {
        layers.note(&CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            ..Default::default()
        });
    }
    assert_eq!(layers.count(), (2, 3));
}
