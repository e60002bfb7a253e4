//! Backups of a core in a process of its own, which may be killed.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;

use crate::shell::Machine;

const START: &str = "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb\n\
                     Gofer listens on 127.0.0.1:8080.\n";

const STOP: &str = "^C\nStopped.\n";

/// Starts a core with a secret and 6 MiB of objects: more than is sent ahead.
fn started(name: &str) -> Machine {
    let mut machine = Machine::new(name);
    std::fs::write(machine.file("large"), vec![7; 3 << 20]).unwrap();
    machine.type_block(START);
    machine.type_block(
        "$ gofer pipeline create nightly\n\
         Registered default/nightly, version 1.\n\
         $ echo hush | gofer secret put key --pipeline nightly\n\
         …\n\
         $ gofer object put first large --pipeline nightly\n\
         …\n\
         $ gofer object put second large --pipeline nightly\n\
         …\n",
    );
    machine
}

/// The names of the files that begin so.
fn files(machine: &Machine, prefix: &str) -> BTreeSet<String> {
    let found = std::fs::read_dir(machine.file("")).unwrap();
    let names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn a_backup_is_a_store_although_the_core_is_killed_after_it() {
    let mut machine = started("backup");
    // What a client had saved.
    std::fs::copy(machine.file("gofer.redb.crt"), machine.file("saved.crt")).unwrap();
    machine.type_block(
        "$ gofer token create management > token.txt\n\
         $ gofer run start nightly\n\
         …\n\
         $ gofer service backup copy.redb\n\
         Backed up … records (… bytes) to copy.redb, copy.redb.key, copy.redb.crt, copy.redb.crt.key.\n\
         The backup cannot be opened without its key, copy.redb.key…\n\
         $ gofer service backup copy.redb\n\
         error: `copy.redb` exists…\n",
    );
    machine.kill_core();
    let written = files(&machine, "copy.redb");
    assert_eq!(written.len(), 4, "{written:?}");
    for name in written {
        let mode = std::fs::metadata(machine.file(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    for name in files(&machine, "gofer.redb") {
        std::fs::remove_file(machine.file(&name)).unwrap();
    }
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store copy.redb\n\
         Gofer listens on 127.0.0.1:8080.\n",
    );
    machine.set("GOFER_CA", "saved.crt");
    let token = std::fs::read_to_string(machine.file("token.txt")).unwrap();
    machine.set("GOFER_TOKEN", token.trim());
    machine.type_block(
        "$ gofer --address 127.0.0.1:8080 secret get key --pipeline nightly --reveal\n\
         hush\n\
         $ gofer --address 127.0.0.1:8080 object get second --pipeline nightly -o second\n\
         $ gofer --address 127.0.0.1:8080 run get nightly 1\n\
         …\n\
         $ cmp large second\n",
    );
    machine.type_block(STOP);
}

#[test]
fn a_backup_of_a_core_that_is_killed_meanwhile_fails_and_leaves_nothing() {
    let mut machine = started("backup-killed");
    // Between the command and the core, and stops in the middle of the answer.
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let core = machine.address().to_owned();
    let (stopped, in_the_middle) = mpsc::channel();
    let proxy = std::thread::spawn(move || {
        let (mut client, _) = proxy.accept().unwrap();
        let mut core = TcpStream::connect(core).unwrap();
        let (mut requests, mut to_core) = (client.try_clone().unwrap(), core.try_clone().unwrap());
        std::thread::spawn(move || {
            // It ends with either connection.
            let _ = std::io::copy(&mut requests, &mut to_core);
        });
        let mut left: usize = 1 << 20;
        let mut buffer = vec![0; 16 << 10];
        while left > 0 {
            let length = core.read(&mut buffer).unwrap();
            assert_ne!(length, 0, "the answer is longer");
            client.write_all(&buffer[..length]).unwrap();
            left = left.saturating_sub(length);
        }
        stopped.send(()).unwrap();
        // Once the core is killed, its connection ends, whatever it had sent.
        while core.read(&mut buffer).is_ok_and(|length| length > 0) {}
        let _ = client.shutdown(Shutdown::Both);
    });
    machine.type_block("$ gofer token create management > token.txt\n");
    let token = std::fs::read_to_string(machine.file("token.txt")).unwrap();
    machine.set("GOFER_TOKEN", token.trim());
    machine.set("GOFER_CA", "gofer.redb.crt");
    let line = format!("gofer --address {address} service backup copy.redb");
    let command = machine.start(&line);
    in_the_middle.recv().unwrap();
    machine.kill_core();
    proxy.join().unwrap();
    let (status, shown) = command.ended(&line);
    assert!(!status.success(), "{shown}");
    assert!(shown.contains("error: "), "{shown}");
    assert_eq!(files(&machine, "copy.redb"), BTreeSet::new(), "{shown}");
}

#[test]
fn a_backup_that_finds_no_space_leaves_nothing() {
    let machine = started("backup-full");
    // In units of 512 bytes: not even an empty store, and less than what is in it.
    for limit in [16, 8192] {
        let line = format!("trap '' XFSZ; ulimit -f {limit}; gofer service backup copy.redb");
        let (status, shown) = machine.outcome(&line);
        assert!(!status.success(), "{shown}");
        assert!(shown.contains("cannot write the backup `copy.redb`: "), "{shown}");
        assert_eq!(files(&machine, "copy.redb"), BTreeSet::new(), "{shown}");
    }
}

#[test]
fn a_backup_needs_a_management_token_and_a_store_in_a_file() {
    let mut machine = started("backup-refused");
    machine.type_block("$ gofer token create client --for default > client.txt\n");
    let line = "GOFER_TOKEN=$(cat client.txt) gofer service backup copy.redb";
    let (status, shown) = machine.outcome(line);
    assert_eq!(status.code(), Some(5), "{shown}");
    machine.type_block(STOP);
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --in-memory\n\
         Gofer listens on 127.0.0.1:8080.\n\
         $ gofer service backup copy.redb\n\
         error: the core keeps its store in memory…\n\
         $ echo $?\n\
         4\n",
    );
    machine.type_block(STOP);
    assert_eq!(files(&machine, "copy.redb"), BTreeSet::new());
}

#[test]
fn a_key_that_is_set_is_not_in_the_backup() {
    let mut machine = Machine::new("backup-key");
    machine.set("GOFER_ENCRYPTION_KEY", &"ab".repeat(32));
    machine.type_block(START);
    machine.type_block(
        "$ gofer service backup copy.redb\n\
         Backed up … to copy.redb, copy.redb.crt, copy.redb.crt.key.\n\
         The core was started with a key that was set…\n",
    );
    machine.type_block(STOP);
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store copy.redb\n\
         Gofer listens on 127.0.0.1:8080.\n",
    );
    machine.type_block(STOP);
}
