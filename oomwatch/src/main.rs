//! The `oomwatch` command: parse, log, run one command, exit with its code.

mod cli;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tracing::debug;

use crate::cli::{Cli, Command, exit::Exit};

fn main() -> ExitCode {
    cli::memory::use_one_arena();
    let cli = Cli::parse();
    let log = match cli::logging::init(cli.log_format, cli.color) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("oomwatch: starting the log's thread: {error}");
            return Exit::Failure.into();
        }
    };
    let exit = match dispatch(cli) {
        Ok(exit) => exit,
        Err(error) => {
            log.say(format_args!("oomwatch: {}", sentence(&error)));
            debug!("{error:#}");
            Exit::for_error(&error)
        }
    };
    exit.into()
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    if let Command::DemoHog = cli.command {
        return cli::demo::hog();
    }
    // One thread: the watcher's task sleeps until a kill, and so do its publishers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let exit = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => cli::run::run(args, cli.color).await,
            Command::Check => cli::check::check(cli.color),
            Command::Demo(args) => cli::demo::demo(&args, cli.color).await,
            Command::Add(args) => cli::control::add(&args).await,
            Command::Remove(args) => cli::control::remove(&args).await,
            Command::List(args) => cli::table::list(&args).await,
            Command::Status(args) => cli::table::status(&args).await,
            Command::Events(args) => cli::events::events(&args).await,
            Command::History(args) => cli::history::history(args),
            Command::Unpin(args) => cli::unpin::unpin(&args),
            Command::Completions(args) => cli::generate::completions(&args),
            Command::Man(args) => cli::generate::man(&args),
            Command::DemoHog => cli::demo::hog(),
        }
    });
    // Does not wait for threads that hang in a file.
    runtime.shutdown_background();
    exit
}

/// The failure and its root cause. The causes in between, and a verifier's log, are for developers.
fn sentence(error: &anyhow::Error) -> String {
    let what = error.to_string();
    let cause = error.root_cause().to_string();
    let cause = cause.lines().next().unwrap_or_default();
    if what.contains(cause) {
        what
    } else {
        format!("{what}: {cause}")
    }
}
