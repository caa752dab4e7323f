//! The tasks of the oomwatch workspace, behind the alias `cargo xtask`.
//!
//! This file is the table of contents: the command line and which module does what. Everything a
//! new clone needs is fetched by the command that needs it, and said aloud; no task uses a shell.

mod api;
mod apt;
mod bench;
mod build;
mod deny;
mod ebpf;
mod lint;
mod paths;
mod privilege;
mod process;
mod run;
mod setup;
mod summary;
mod test;
mod toolchain;
mod venv;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use paths::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tasks of the oomwatch workspace.")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need: toolchain components, bpf-linker, packages, kernels.
    Setup,
    /// Build the eBPF object, then oomwatch with the object inside.
    Build {
        /// Build oomwatch with optimisations (the eBPF object always is).
        #[arg(long)]
        release: bool,
    },
    /// Build oomwatch in release and start it as root.
    Run {
        /// Arguments for `oomwatch run`.
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Check formatting and lints, of the host crates and of the kernel side.
    Lint,
    /// Write the public interface of the library down, for review.
    Api,
    /// Check licences, bans and sources of all dependencies.
    Deny {
        /// Ask the advisory database for known defects instead (needs the network).
        #[arg(long)]
        advisories: bool,
    },
    /// Run every check there is, and end with one line of totals.
    Test {
        /// Leave out the virtual machines (they are then counted as skipped).
        #[arg(long)]
        no_vm: bool,
    },
    /// Measure speed, memory and latency, and print them beside what they are meant to be.
    Bench(bench::Options),
    /// Run the tests that need a real kernel, in virtual machines.
    Vm(vm::Options),
}

fn main() -> Result<ExitCode> {
    let task = Cli::parse().task;
    let workspace = Workspace::locate()?;
    let passed = match task {
        Task::Setup => setup::everything(&workspace).map(|()| true)?,
        Task::Build { release } => build::run(&workspace, release).map(|()| true)?,
        Task::Run { args } => run::run(&workspace, args)?,
        Task::Lint => lint::run(&workspace).map(|()| true)?,
        Task::Api => api::write(&workspace).map(|()| true)?,
        Task::Deny { advisories } => deny::run(&workspace, advisories).map(|()| true)?,
        Task::Test { no_vm } => test::run(&workspace, no_vm)?,
        Task::Bench(options) => bench::run(&workspace, &options).map(|()| true)?,
        Task::Vm(options) => vm::run(&workspace, &options)?,
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
