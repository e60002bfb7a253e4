//! A store that cannot grow any more, as on a full disk: here for a limit on the size of files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use crate::shell::{Machine, TIMEOUT};

/// In 512 bytes each, as `ulimit` counts.
const MOST: u32 = 6_000;

/// A machine with a core whose store cannot grow.
fn limited(name: &str) -> Machine {
    let mut machine = Machine::new(name);
    let (gofer, limited) = (machine.file("bin/gofer"), machine.file("bin/unlimited"));
    fs::rename(&gofer, &limited).unwrap();
    // Only the core is limited. Writes beyond the limit fail, instead of killing it.
    let script = format!(
        "#!/bin/sh\nif [ \"$2\" = start ]; then trap '' XFSZ; ulimit -S -f {MOST}; fi\n\
         exec unlimited \"$@\"\n"
    );
    fs::write(&gofer, script).unwrap();
    fs::set_permissions(&gofer, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(machine.file("object"), vec![b'o'; 400_000]).unwrap();
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb --allow-bootstrap\n\
         Gofer listens on 127.0.0.1:8080.\n\
         $ gofer --address 127.0.0.1:8080 --ca gofer.redb.crt token bootstrap --save\n\
         …\n\
         $ gofer pipeline create nightly\n\
         …\n",
    );
    machine
}

/// Puts objects until one is refused. How many were not, and what was shown then.
fn fill(machine: &Machine) -> (usize, String) {
    for stored in 0..20 {
        let line = format!("gofer object put object-{stored} object --pipeline nightly");
        let (ended, shown) = machine.outcome(&line);
        if !ended.success() {
            return (stored, shown);
        }
    }
    panic!("nothing is refused")
}

#[test]
fn what_does_not_fit_is_refused_and_everything_else_goes_on() {
    let mut machine = limited("full-disk");
    let (stored, refused) = fill(&machine);
    assert!(stored > 0, "{refused}");
    assert!(refused.contains("the store cannot be written"), "{refused}");
    let list = |machine: &Machine| {
        let (ended, shown) = machine.outcome("gofer object list --pipeline nightly");
        assert!(ended.success(), "{shown}");
        shown.lines().filter(|line| line.starts_with("object-")).count()
    };
    assert_eq!(list(&machine), stored);
    let (ended, shown) = machine.outcome("gofer object get object-0 --pipeline nightly");
    assert!(ended.success() && shown.len() == 400_000, "{} bytes", shown.len());
    machine.type_block("^C\nStopped.\n");
    // There is room again, and all that was acknowledged.
    fs::rename(machine.file("bin/unlimited"), machine.file("bin/gofer")).unwrap();
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb\n\
         Gofer listens on 127.0.0.1:8080.\n\
         $ gofer config set address 127.0.0.1:8080\n\
         $ gofer object put more object --pipeline nightly\n\
         …\n",
    );
    assert_eq!(list(&machine), stored);
    machine.type_block("^C\nStopped.\n");
}

#[test]
fn a_core_whose_store_cannot_be_read_after_a_failure_ends() {
    let mut machine = limited("damaged-disk");
    fill(&machine);
    let begun = Instant::now();
    while !machine.outcome("gofer pipeline create other").0.success() {
        assert!(begun.elapsed() < TIMEOUT, "it cannot be written again");
    }
    let store = machine.file("gofer.redb");
    let mut content = fs::read(&store).unwrap();
    // All but the header. It is the same file, which the core has open.
    content[4096..].fill(0xff);
    fs::write(&store, &content).unwrap();
    // A change that is made without reading the file, and does not fit.
    let line = "gofer secret put large --pipeline nightly --from-file object";
    let (ended, shown) = machine.outcome(line);
    assert!(!ended.success(), "{shown}");
    let (ended, shown) = machine.core_ended();
    assert_eq!(ended.code(), Some(1), "{shown}");
    let (_, error) = shown.split_once("error: ").unwrap_or_else(|| panic!("{shown}"));
    assert!(error.contains("the store cannot be read again"), "{shown}");
}
