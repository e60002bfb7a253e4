//! A store of an earlier version, opened by this one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::shell::Machine;

/// What the earlier version left.
const EARLIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/earlier");

#[test]
fn a_core_goes_on_with_the_files_of_an_earlier_version() {
    let mut machine = Machine::new("upgrade");
    for (name, mode) in [
        ("gofer.redb", 0o644),
        ("gofer.redb.key", 0o600),
        ("gofer.redb.crt", 0o644),
        ("gofer.redb.crt.key", 0o600),
        ("client.txt", 0o600),
    ] {
        let copy = machine.file(name);
        fs::copy(Path::new(EARLIER).join(name), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
    }
    // What a client of that version had saved.
    let token = fs::read_to_string(Path::new(EARLIER).join("management.txt")).unwrap();
    let saved = machine.file("saved.crt");
    fs::copy(machine.file("gofer.redb.crt"), &saved).unwrap();
    let config = format!("token = \"{}\"\nca = \"{}\"\n", token.trim(), saved.display());
    fs::write(machine.file("config.toml"), config).unwrap();
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb\n\
         Gofer listens on 127.0.0.1:8080.\n\
         $ gofer config set address 127.0.0.1:8080\n\
         $ gofer namespace list\n\
         default …\n\
         ops …\n\
         $ gofer pipeline get nightly\n\
         …version 2…\n\
         $ gofer secret get key --pipeline nightly --reveal\n\
         of the pipeline\n\
         $ gofer secret get shared --global --reveal\n\
         of all\n\
         $ gofer object get report --pipeline nightly\n\
         an object\n\
         $ GOFER_TOKEN=$(cat client.txt) gofer pipeline list -n ops\n\
         backup …\n\
         $ GOFER_TOKEN=$(cat client.txt) gofer pipeline list\n\
         error: …no access to the namespace `default`\n\
         hint: …\n\
         $ gofer run get nightly 1\n\
         …\n\
         $ gofer subscription list nightly\n\
         EXTENSION LABEL STATUS REASON\n\
         interval often active\n",
    );
    // The extension runs again, and its subscription goes on.
    let begun = Instant::now();
    loop {
        let (ended, shown) = machine.outcome("gofer run list nightly");
        assert!(ended.success(), "{shown}");
        if shown.matches("interval (often)").count() >= 2 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{shown}");
    }
    machine.type_block("^C\nStopped.\n");
}
