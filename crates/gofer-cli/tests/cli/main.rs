//! The command line as a new user types it: the console blocks of the guide to operating a core, in
//! order, against a core in a process of its own.
//!
//! A line that begins with `$ ` is a shell command, one with `>` an answer that is typed, and `^C`
//! an interrupt. All others are expected output, in this order, with any lines between them; `…`
//! stands for any text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "what fails here fails a test"
)]

mod access;
mod backup;
mod full;
mod full_disk;
mod full_gofer;
mod hidden;
mod hints;
mod log;
mod shell;
mod start;
mod subscription_states;
#[path = "../../../../tests/support/mod.rs"]
mod support;
mod upgrade;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use gofer_core::Core;
use gofer_proto as proto;
use serde_json::Value;
use shell::{Machine, run};
use support::gofer::{Behavior, Gofer};

const GUIDE: &str = include_str!("../../../gofer-core/docs/operating.md");

fn blocks(guide: &str) -> Vec<&str> {
    guide.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_guide_works_as_it_is_written() {
    let blocks = blocks(GUIDE);
    assert!(blocks.len() > 10, "the blocks are not found");
    let mut machine = Machine::new("guide");
    for block in blocks {
        machine.type_block(block);
    }
}

/// The commands in a help text.
fn commands(help: &str) -> Vec<String> {
    let Some((_, rest)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    rest.lines()
        .take_while(|line| !line.is_empty())
        // Continuations of a description are indented further.
        .filter(|line| !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_help_of_every_command_has_an_example_of_it() {
    let mut open = vec![Vec::<String>::new()];
    let mut leaves = 0;
    while let Some(path) = open.pop() {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let (code, help, _) = run(&args);
        assert_eq!(code, Some(0), "{args:?}");
        let below = commands(&help);
        if below.is_empty() {
            leaves += 1;
            let example = format!("Example:\n  gofer {}", path.join(" "));
            assert!(help.contains(&example), "{args:?} has no example:\n{help}");
        }
        open.extend(below.into_iter().map(|name| [&path[..], &[name]].concat()));
    }
    assert!(leaves > 50, "only {leaves} commands were found");
}

#[test]
fn exit_codes_distinguish_errors() {
    let unused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let (code, out, error) = run(&["--address", &unused, "extension", "list"]);
    assert_eq!((code, out.as_str()), (Some(6), ""), "{error}");
    assert!(error.contains("hint: is it running?"), "{error}");
    for args in [
        &["extension", "instal"][..],
        &["extension", "sub", "interval", "hourly"],
        &["extension", "install", "a", "b", "-c", "novalue"],
        &["extension", "install", "a", "b", "--memory", "256M"],
        &["extension", "install", "a", "b", "--processes=-1"],
        &["extension", "install", "a", "b", "--writable-root=perhaps"],
        &["extension", "update", "a", "--start-timeout", "5"],
        &["extension", "update", "a", "--reset", "grants"],
        &["service", "start", "--listen", "8080"],
        &["service", "start", "--address", "127.0.0.1:8080"],
        &["--address", "http://localhost", "service", "info"],
    ] {
        let (code, out, error) = run(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {error}");
    }
    for (args, expected) in [
        (&["extension", "update", "a", "--reset", "keep"][..], "`--remove keep` removes a setting"),
        (&["service", "start", "--listen", "8080"], "such as 127.0.0.1:8080"),
        (&["service", "start", "--external-events", "8081"], "such as 127.0.0.1:8080"),
        (&["service", "start", "--address", "127.0.0.1:1"], "hint: `--listen 127.0.0.1:1`"),
        // Without a port.
        (&["--address", "127.0.0.1", "service", "info"], "cannot reach Gofer at 127.0.0.1:443: "),
    ] {
        let (_, _, error) = run(args);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    let (code, _, error) = run(&["--ca", "/nonexistent.crt", "service", "info"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("/nonexistent.crt"), "{error}");
}

#[test]
fn what_does_not_speak_tls_is_no_gofer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let (code, _, error) = run(&["--address", &address, "service", "info"]);
    assert_eq!(code, Some(6), "{error}");
    assert!(error.contains("hint: what listens there does not speak TLS"), "{error}");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, out, error) = run(&["completions", shell]);
        assert_eq!(code, Some(0), "{shell}: {error}");
        assert!(out.contains("uninstall"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let machine = Machine::new("pipe");
    // Far more than a pipe holds.
    let line = "for n in 1 2 3 4; do gofer completions bash; done | head -n 1";
    let (status, shown) = machine.outcome(&format!("{{ {line}; }} 2>&1"));
    assert!(status.success(), "{status}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

#[test]
fn the_configuration_file_is_private_to_its_owner() {
    let mut machine = Machine::new("saved");
    machine.type_block(
        "$ gofer config set token -\n> 0123abcd\nWrote …config.toml.\n\
         $ gofer config set namespace ops\nWrote …config.toml.\n\
         $ gofer config show\ntoken (set)\nnamespace ops\n\
         $ gofer config set color blue\nerror: …\n\
         $ echo $?\n2\n",
    );
    let path = machine.file("config.toml");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, shown) = machine.outcome("gofer config show; gofer --json config show");
    assert!(!shown.contains("0123abcd"), "{shown}");
    // The invalid line may be the token.
    std::fs::write(&path, "token = 0123abcd").unwrap();
    let (status, shown) = machine.outcome("gofer service info");
    assert_eq!(status.code(), Some(2));
    assert!(shown.contains("config.toml") && !shown.contains("0123abcd"), "{shown}");
}

#[test]
fn a_configuration_that_is_a_symlink_stays_one() {
    let machine = Machine::new("symlinks");
    let (status, shown) = machine.outcome(
        "mkdir -p dotfiles/deep && echo 'namespace = \"a\"' > dotfiles/gofer.toml && \
         ln -s dotfiles/gofer.toml relative.toml && ln -s \"$PWD/relative.toml\" chain.toml && \
         ln -s deep/new.toml dotfiles/dangling.toml && ln -s dotfiles/dangling.toml dangling.toml",
    );
    assert!(status.success(), "{shown}");
    for (link, file) in [
        ("relative.toml", "dotfiles/gofer.toml"),
        ("chain.toml", "dotfiles/gofer.toml"),
        ("dangling.toml", "dotfiles/deep/new.toml"),
    ] {
        let line = format!("gofer --config {link} config set namespace of-{link}");
        let (status, shown) = machine.outcome(&line);
        assert!(status.success(), "{link}: {shown}");
        let text = std::fs::read_to_string(machine.file(file)).unwrap();
        assert_eq!(text, format!("namespace = \"of-{link}\"\n"));
    }
    for link in ["relative.toml", "chain.toml", "dotfiles/dangling.toml", "dangling.toml"] {
        assert!(std::fs::symlink_metadata(machine.file(link)).unwrap().is_symlink(), "{link}");
    }
    let (_, shown) = machine.outcome("find . -name '*.new'");
    assert_eq!(shown, "", "nothing temporary is left");
}

#[test]
fn errors_do_not_show_values_which_may_be_secret() {
    let machine = Machine::new("values");
    let write = |name, text: &str| std::fs::write(machine.file(name), text).unwrap();
    let task = "[[tasks]]\nid = \"a\"\nimage = \"b\"\n";
    write("type.toml", &format!("{task}variables = {{ PASSWORD = 12345678 }}"));
    write("variant.toml", &format!("{task}depends_on = {{ b = \"12345678\" }}"));
    write("type.json", r#"{"tasks":[{"id":"a","image":"b","variables":{"PASSWORD":12345678}}]}"#);
    write("field.toml", "[[tasks]]\nid = \"12345678\"");
    let in_file = "gofer pipeline create nightly --file";
    let refused = |line: &str, expected: &[&str]| {
        let (status, shown) = machine.outcome(line);
        assert_eq!(status.code(), Some(2), "{line}: {shown}");
        for expected in expected {
            assert!(shown.contains(expected), "{line}: {shown}");
        }
        assert!(!shown.contains("12345678"), "{line}: {shown}");
    };
    refused(&format!("{in_file} type.toml"), &["type.toml` is invalid at line 4, column 26"]);
    refused(&format!("{in_file} variant.toml"), &["variant.toml` is invalid at line 4, column "]);
    refused(&format!("{in_file} type.json"), &["type.json` is invalid at line 1, column "]);
    refused(&format!("{in_file} field.toml"), &["invalid at line 1, ", "missing field `image`"]);
    refused("gofer extension install a b -c 12345678", &["the `-c, --set KEY=VALUE` has no `=`"]);
    refused("gofer extension install a b --grant root", &["read-secrets", "everything"]);
    refused(
        "gofer pipeline create nightly --task =12345678",
        &["the `--task ID=IMAGE` has nothing before its `=`"],
    );
    write("config.toml", "namespace = \"ops\"\ntoken = 12345678");
    refused("gofer service info", &["config.toml` is invalid at line 2, column 9"]);
    write("config.toml", "colour = 12345678");
    refused("gofer service info", &["config.toml` is invalid at line 1, column 1: unknown field"]);
}

#[tokio::test]
async fn programs_get_json() {
    let core = Core::on_loopback().await.unwrap();
    let mut machine = Machine::new("json");
    machine.connect_to(&core.address().unwrap().to_string(), core.token());
    let machine = tokio::task::spawn_blocking(move || {
        machine.type_block(
            "$ gofer pipeline create nightly\n$ gofer run start nightly\n\
             $ printf x | gofer secret put s -p nightly\n\
             $ printf x | gofer object put o - -p nightly\n\
             $ gofer token create client --for 'ops.*'\n",
        );
        for (command, least) in [
            ("extension list", 0),
            ("subscription list nightly", 0),
            ("pipeline list", 1),
            ("run list nightly", 1),
            ("namespace list", 1),
            ("event list", 2),
            ("event list --reverse --limit 1", 1),
            ("event list --limit 0", 0),
            ("secret list -p nightly", 1),
            ("secret list --global", 0),
            ("object list -p nightly", 1),
            ("token list", 1),
        ] {
            let (status, shown) = machine.outcome(&format!("gofer {command} --json"));
            assert!(status.success(), "{command}: {shown}");
            let json: Value = serde_json::from_str(&shown).expect(command);
            assert!(json.as_array().expect(command).len() >= least, "{command}: {shown}");
        }
        for command in ["service info", "pipeline get nightly", "run get nightly 1", "event get 1"]
        {
            let (status, shown) = machine.outcome(&format!("gofer --json {command}"));
            assert!(status.success(), "{command}: {shown}");
            assert!(serde_json::from_str::<Value>(&shown).expect(command).is_object());
        }
        machine
    });
    drop(machine.await.unwrap());
    core.stop().await;
}

#[tokio::test]
async fn events_are_followed_across_an_outage_and_each_printed_once() {
    let core = Core::on_loopback().await.unwrap();
    let config = proto::UserPipelineConfig { id: "nightly".to_owned(), ..Default::default() };
    let request = proto::RegisterPipelineConfigRequest {
        namespace_id: String::new(),
        pipeline_config: Some(config),
    };
    core.client().api().register_pipeline_config(request).await.unwrap();
    let mut machine = Machine::new("follow");
    machine.connect_to(&core.address().unwrap().to_string(), core.token());
    let following = machine.start("gofer event list --follow --json");
    following.until_shown("PIPELINE_CONFIG_REGISTERED").await;
    core.close_api().await;
    following.until_shown("Lost the connection to Gofer; reconnecting.").await;
    core.reopen_api().await.unwrap();
    let run = gofer_sdk::Run::because("Gofer is back");
    core.client().start_run("nightly", "test", run).await.unwrap();
    following.until_shown("RUN_COMPLETED").await;
    let ids: Vec<i64> = following
        .shown()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|event| event["id"].as_i64().unwrap())
        .collect();
    let all: Vec<i64> = (1..).take(ids.len()).collect();
    assert_eq!(ids, all);
    drop(following);
    core.stop().await;
}

#[tokio::test]
async fn an_update_in_place_that_gofer_does_not_support_fails_with_a_hint() {
    let gofer = Gofer::listening(|_, _| Behavior::Answer);
    let mut machine = Machine::new("update");
    machine.connect_to(&gofer.address.to_string(), support::TOKEN);
    let update = tokio::task::spawn_blocking(move || {
        machine.outcome("gofer extension update interval --image example.com/interval:2")
    });
    let (status, shown) = update.await.unwrap();
    assert_eq!(status.code(), Some(7), "{shown}");
    assert!(shown.contains("error: this Gofer does not support updates in place"), "{shown}");
    assert!(shown.contains("hint: `gofer extension uninstall interval`"), "{shown}");
}

#[test]
fn a_saved_token_is_not_overwritten_and_a_lost_one_can_be_replaced() {
    let mut machine = Machine::new("tokens");
    // Checked before Gofer is called, which creates its first token only once.
    machine.type_block(
        "$ gofer config set token first\nWrote …config.toml.\n\
         $ gofer --address 127.0.0.1:1 token bootstrap --save\n\
         error: …config.toml` already has a token\nhint: …--force…\n\
         $ echo $?\n2\n\
         $ gofer config unset token\nWrote …config.toml.\n",
    );
    machine.type_block(
        "$ gofer service start --listen 127.0.0.1:8080 --store gofer.redb --new-token\n\
         Gofer listens on 127.0.0.1:8080.\n\nNew management token, shown only once: …\n",
    );
}

#[test]
fn an_invalid_value_does_not_disable_verification() {
    let machine = Machine::new("verify");
    let (status, shown) = machine.outcome("GOFER_SKIP_TLS_VERIFY=maybe gofer config show");
    assert_eq!(status.code(), Some(2), "{shown}");
}
