//! `oomwatch completions` and `oomwatch man`: the command line for shells and readers. Both come from its definition
//! and cannot differ from it.

use std::io::{Write as _, stdout};

use anyhow::{Context as _, bail};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, CompletionsArgs, ManArgs, exit::Exit, output};

const NAME: &str = "oomwatch";

/// Writes a shell's completion script.
///
/// # Errors
/// When stdout fails in another way than by being closed.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    output::written(stdout().write_all(&script))
}

/// Writes a manual page.
///
/// # Errors
/// When there is no such command; and as [`completions`].
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<Exit> {
    let page = page(args.command.as_deref())?;
    output::written(stdout().write_all(&page))
}

fn page(name: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    let source = format!("{NAME} {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(described(name)?).source(source);
    man.render(&mut page).context("making the manual page")?;
    Ok(page)
}

/// The whole command line, or one of its commands.
fn described(name: Option<&str>) -> anyhow::Result<Command> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let Some(name) = name else {
        return Ok(whole);
    };
    let visible = whole
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let mut names = Vec::new();
    for command in visible {
        if command.get_name() == name {
            return Ok(command.clone());
        }
        names.push(command.get_name());
    }
    bail!(
        "there is no command {name}: the commands are {}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn text(name: Option<&str>) -> String {
        String::from_utf8(page(name).unwrap()).unwrap()
    }

    #[test]
    fn the_page_of_the_whole_names_the_commands_and_not_the_hidden_one() {
        let page = text(None);
        assert!(page.contains(".TH oomwatch 1"), "{page}");
        assert!(page.contains("oomwatch\\-history(1)"), "{page}");
        assert!(!page.contains("demo\\-hog"), "{page}");
    }

    #[test]
    fn the_page_of_a_command_has_its_options_and_their_variables() {
        let page = text(Some("run"));
        assert!(page.contains(".TH oomwatch-run 1"), "{page}");
        assert!(
            page.contains("oomwatch\\-run \\- Watch, and report"),
            "{page}"
        );
        assert!(page.contains("\\-\\-state\\-dir"), "{page}");
        assert!(page.contains("OOMWATCH_STATE_DIR"), "{page}");
    }

    #[test]
    fn each_command_says_of_itself_what_the_list_of_all_says() {
        let (listed, mut whole) = (Cli::command(), Cli::command());
        whole.build();
        for command in listed.get_subcommands() {
            let name = command.get_name();
            let itself = whole.find_subcommand(name).unwrap();
            assert!(command.get_about().is_some(), "{name}");
            assert_eq!(itself.get_about(), command.get_about(), "{name}");
        }
    }

    #[test]
    fn an_unknown_command_is_refused_with_those_that_there_are() {
        let error = described(Some("rum")).unwrap_err().to_string();
        assert!(
            error.contains("rum") && error.contains("run, check"),
            "{error}"
        );
        assert!(described(Some("demo-hog")).is_err());
    }

    #[test]
    fn every_shell_has_a_script_with_the_options_of_each_command() {
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), NAME, &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("state-dir"), "{shell}");
        }
    }
}
