//! A store that cannot grow any more, as on a full disk: here for a limit on the size of files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::shell::Machine;

/// In 512 bytes each, as `ulimit` counts.
const MOST: u32 = 6_000;

#[test]
fn what_does_not_fit_is_refused_and_everything_else_goes_on() {
    let mut machine = Machine::new("full-disk");
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
    let mut stored = 0;
    let refused = loop {
        let line = format!("gofer object put object-{stored} object --pipeline nightly");
        let (ended, shown) = machine.outcome(&line);
        if !ended.success() {
            break shown;
        }
        stored += 1;
        assert!(stored < 20, "nothing is refused");
    };
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
    fs::rename(&limited, &gofer).unwrap();
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
