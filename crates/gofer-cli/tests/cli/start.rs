//! A core that cannot start says what is wrong with what and what to do, and leaves no file; one
//! with a certificate of its operator's own is reached as it says.

use std::collections::BTreeSet;
use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

use crate::shell::Machine;

/// Writes a certificate as `openssl req -x509` makes it, valid until this year.
fn write_certificate(machine: &Machine, name: &str, names: &[&str], until: i32) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(machine.file(&format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(machine.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn ones_own_certificate_is_trusted_as_the_core_says() {
    let mut machine = Machine::new("own-certificate");
    write_certificate(&machine, "both", &["localhost", "127.0.0.1"], 9999);
    write_certificate(&machine, "name", &["localhost"], 9999);
    for name in ["both", "name"] {
        machine.type_block(&format!(
            "$ gofer service start --listen 127.0.0.1:8080 --in-memory --allow-bootstrap \
             --tls-cert {name}.pem --tls-key {name}.key\nGofer listens on 127.0.0.1:8080.\n"
        ));
        let shown = machine.core_output();
        let line = shown.lines().find(|line| line.contains("token bootstrap")).unwrap();
        let line = line.trim().replace("--save", "");
        let (status, shown) = machine.outcome(&line);
        assert!(status.success(), "{line}: {shown}");
        machine.type_block("^C\nStopped.\n");
    }
}

fn files(machine: &Machine) -> BTreeSet<String> {
    let found = std::fs::read_dir(machine.file("")).unwrap();
    found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Starts a core that must not start, and returns what it shows.
fn refused(machine: &Machine, flags: &str, texts: &[&str]) {
    let before = files(machine);
    let line = format!("gofer service start {flags}");
    let (status, shown) = machine.outcome(&line);
    assert!(!status.success(), "{line}: {shown}");
    for text in texts {
        assert!(shown.contains(text), "`{text}` is not in what `{line}` shows:\n{shown}");
    }
    assert_eq!(files(machine), before, "`{line}` leaves other files; it shows:\n{shown}");
}

#[test]
fn a_start_that_fails_names_its_flag_and_leaves_no_file() {
    let machine = Machine::new("start-fails");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    write_certificate(&machine, "good", &["localhost"], 9999);
    write_certificate(&machine, "other", &["localhost"], 9999);
    write_certificate(&machine, "expired", &["localhost"], 2001);
    write_certificate(&machine, "nameless", &[], 9999);
    std::fs::write(machine.file("binary.pem"), [0x30, 0x82, 0xff, 0x01]).unwrap();
    let port = taken.to_string();
    let directory = machine.file("");
    let directory = directory.display();
    let free = "--listen 127.0.0.1:0";
    for (flags, texts) in [
        (format!("--listen {port}"), vec![&*port, "hint: --listen"]),
        (
            format!("{free} --external-events {port}"),
            vec!["for external events", &port, "hint: --external-events"],
        ),
        (
            format!("{free} --tls-cert good.pem --tls-key other.key"),
            vec!["good.pem", "the key `other.key`", "does not match", "hint: --tls-key"],
        ),
        (
            format!("{free} --tls-cert expired.pem --tls-key expired.key"),
            vec!["expired.pem", "has expired", "hint: --tls-cert"],
        ),
        (
            format!("{free} --tls-cert nameless.pem --tls-key nameless.key"),
            vec!["nameless.pem", "subjectAltName", "hint: --tls-cert"],
        ),
        (
            format!(
                "{free} --external-events 127.0.0.1:0 --external-events-cert good.pem --external-events-key other.key"
            ),
            vec!["good.pem", "does not match", "hint: --external-events-key"],
        ),
        (
            format!("{free} --store nowhere/gofer.redb"),
            vec!["nowhere/gofer.redb", "there is no directory `nowhere`", "hint: --store"],
        ),
        (format!("{free} --store {directory}"), vec!["is not a regular file", "hint: --store"]),
        // Nobody can create a file there.
        (
            format!("{free} --store /proc/gofer.redb"),
            vec!["the store `/proc/gofer.redb` cannot be created", "hint: --store"],
        ),
        (
            format!("{free} --tls-cert missing.pem --tls-key good.key"),
            vec!["missing.pem", "hint: --tls-cert"],
        ),
        (
            format!("{free} --tls-cert binary.pem --tls-key good.key"),
            vec!["binary.pem", "expected PEM text", "hint: --tls-cert"],
        ),
        (
            format!("{free} --tls-cert good.pem --tls-key binary.pem"),
            vec!["expected PEM text", "hint: --tls-key"],
        ),
        (format!("{free} --run-command nope"), vec!["--run-command: there is no program `nope`"]),
        (format!("{free} --run-command ./good.pem -x"), vec!["no program `./good.pem`"]),
    ] {
        refused(&machine, &flags, &texts);
    }
}

#[test]
fn what_a_client_is_told_to_trust_is_named_if_it_is_no_certificate() {
    let machine = Machine::new("no-certificate");
    write_certificate(&machine, "good", &["localhost"], 9999);
    std::fs::write(machine.file("empty.pem"), "").unwrap();
    std::fs::write(machine.file("binary.pem"), [0x30, 0x82, 0xff, 0x01]).unwrap();
    for file in ["empty.pem", "binary.pem", "good.key"] {
        let (status, shown) = machine.outcome(&format!("gofer --ca {file} service info"));
        assert_eq!(status.code(), Some(2), "{shown}");
        for text in [file, "expected PEM text", "hint: it is set by --ca"] {
            assert!(shown.contains(text), "`{text}` is not in: {shown}");
        }
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_described_in_words() {
    let mut machine = Machine::new("not-trusted");
    write_certificate(&machine, "served", &["localhost"], 9999);
    write_certificate(&machine, "other", &["localhost"], 9999);
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --in-memory --allow-bootstrap \
         --tls-cert served.pem --tls-key served.key\nGofer listens on 127.0.0.1:8080.\n",
    );
    let shown = machine.core_output();
    let line = shown.lines().find(|line| line.contains("token bootstrap")).unwrap();
    let address = line.split_whitespace().nth(2).unwrap();
    for (trust, why) in [
        ("", "it is neither one that this client trusts nor issued by one\n"),
        ("--ca other.pem", "it is neither one that this client trusts nor issued by one\n"),
    ] {
        let line = format!("gofer --address {address} {trust} service info");
        let (status, shown) = machine.outcome(&line);
        assert_eq!(status.code(), Some(6), "{shown}");
        let expected = format!(
            "error: cannot reach Gofer at {address}: cannot connect: the server's certificate is \
             not accepted: {why}hint: "
        );
        assert!(shown.contains(&expected), "{shown}");
    }
}

#[test]
fn a_core_that_others_cannot_verify_warns_once() {
    let mut machine = Machine::new("all-addresses");
    machine.type_block(
        "$ gofer service start --listen 0.0.0.0:0 --in-memory --allow-bootstrap\nGofer listens on …\n",
    );
    let shown = machine.core_output();
    assert_eq!(shown.matches("--tls-cert").count(), 1, "{shown}");
    machine.type_block("^C\nStopped.\n");
}

#[test]
fn a_store_that_cannot_be_used_is_refused_with_what_to_do() {
    let mut machine = Machine::new("store-refused");
    let free = "--listen 127.0.0.1:0";
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store good.redb\nGofer listens on …\n\
         $ printf s3cret | gofer secret put global --global\n",
    );
    refused(
        &machine,
        &format!("{free} --store good.redb"),
        &["good.redb", "in use", "another file"],
    );
    machine.type_block("^C\nStopped.\n");
    let copy = |to: &str, key: bool| {
        std::fs::copy(machine.file("good.redb"), machine.file(to)).unwrap();
        if key {
            let of = format!("{to}.key");
            std::fs::copy(machine.file("good.redb.key"), machine.file(&of)).unwrap();
        }
    };
    copy("keyless.redb", false);
    refused(
        &machine,
        &format!("{free} --store keyless.redb"),
        &["keyless.redb.key", "missing", "backup"],
    );
    copy("other.redb", true);
    std::fs::write(machine.file("other.redb.key"), "0a".repeat(32)).unwrap();
    refused(
        &machine,
        &format!("{free} --store other.redb"),
        &["another key", "GOFER_ENCRYPTION_KEY"],
    );
    std::fs::write(machine.file("other.redb.key"), "no key").unwrap();
    refused(&machine, &format!("{free} --store other.redb"), &["other.redb.key", "64 hexadecimal"]);
    copy("overwritten.redb", true);
    let mut content = std::fs::read(machine.file("overwritten.redb")).unwrap();
    let middle = content.len() / 2;
    content[middle..].fill(0xff);
    std::fs::write(machine.file("overwritten.redb"), content).unwrap();
    let (status, shown) =
        machine.outcome(&format!("gofer service start {free} --store overwritten.redb"));
    assert_eq!(status.code(), Some(4), "{shown}");
    assert!(shown.contains("overwritten.redb` is damaged") && shown.contains("backup"), "{shown}");
    assert!(!shown.contains("panicked") && !shown.contains("unreachable"), "{shown}");
    copy("damaged.redb", true);
    std::fs::write(machine.file("damaged.redb"), "this is no store at all").unwrap();
    refused(
        &machine,
        &format!("{free} --store damaged.redb"),
        &["damaged.redb", "not a store", "backup"],
    );
    machine.set("GOFER_ENCRYPTION_KEY", "short");
    refused(
        &machine,
        &format!("{free} --store new.redb"),
        &["GOFER_ENCRYPTION_KEY", "64 hexadecimal"],
    );
}
