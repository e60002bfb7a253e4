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
    let port = taken.to_string();
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
        (format!("{free} --store nowhere/gofer.redb"), vec!["nowhere/gofer.redb"]),
        (format!("{free} --run-command nope"), vec!["--run-command: there is no program `nope`"]),
        (format!("{free} --run-command ./good.pem -x"), vec!["no program `./good.pem`"]),
    ] {
        refused(&machine, &flags, &texts);
    }
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
