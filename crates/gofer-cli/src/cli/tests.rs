use clap::CommandFactory as _;

use super::Cli;

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

fn check(command: &clap::Command, path: &str) {
    for command in command.get_subcommands() {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} has no description");
        if command.has_subcommands() {
            check(command, &path);
            continue;
        }
        for argument in command.get_positionals().chain(command.get_opts()) {
            let id = argument.get_id();
            assert!(argument.get_help().is_some(), "{path}: {id} is not described");
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&format!("Example:\n  {path}")), "{path} has no example");
    }
}

/// To clap, a global flag and a command's own flag of the same name are one, of either's type.
fn check_ids(command: &clap::Command, taken: &[&clap::Id]) {
    for command in command.get_subcommands() {
        for argument in command.get_arguments() {
            let (id, command) = (argument.get_id(), command.get_name());
            assert!(!taken.contains(&id), "`{id}` of {command} is a global flag");
        }
        check_ids(command, taken);
    }
}

#[test]
fn no_command_redefines_a_global_flag() {
    let command = Cli::command();
    let taken: Vec<_> = command.get_arguments().map(clap::Arg::get_id).collect();
    assert!(taken.len() > 3);
    check_ids(&command, &taken);
}

#[test]
fn every_command_has_a_description_and_an_example() {
    check(&Cli::command(), "gofer");
}
