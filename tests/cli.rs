//! The command line, typed as a newcomer would: the console blocks of
//! `docs/operating.md`, in order, against a core in a process of its own.
//!
//! A line that begins with `$ ` is a command for a shell, one with `>` an answer
//! that is typed, `^C` an interrupt, and all others are what is shown, in this
//! order, perhaps with more between them; `…` stands for anything.

mod shell;

use shell::{Machine, run};

const GUIDE: &str = include_str!("../docs/operating.md");

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

/// The commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let Some((_, rest)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    rest.lines()
        .take_while(|line| !line.is_empty())
        // What continues an explanation is indented further.
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
fn mistakes_are_told_apart_by_the_exit_code() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let (code, out, error) = run(&["--address", &nobody, "extension", "list"]);
    assert_eq!((code, out.as_str()), (Some(6), ""), "{error}");
    assert!(error.contains("hint: is it running?"), "{error}");
    for args in [
        &["extension", "instal"][..],
        &["extension", "sub", "interval", "hourly"],
        &["extension", "install", "a", "b", "-c", "novalue"],
        &["--address", "http://localhost", "service", "info"],
    ] {
        let (code, out, error) = run(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {error}");
    }
    let (code, _, error) = run(&["--ca", "/nonexistent.crt", "service", "info"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("/nonexistent.crt"), "{error}");
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
fn who_stops_reading_is_not_told_of_an_error() {
    let machine = Machine::new("pipe");
    // Far more than a pipe holds.
    let line = "for n in 1 2 3 4; do gofer completions bash; done | head -n 1";
    let (status, shown) = machine.outcome(&format!("{{ {line}; }} 2>&1"));
    assert!(status.success(), "{status}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}
