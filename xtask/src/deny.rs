//! Licences, bans and sources of all crates that a build takes in, as `deny.toml` wants them.
//!
//! cargo-deny is built once and lies in the cache, for all clones. Where it cannot be had, the check says that it did
//! not run. The advisory database is a check of its own: it wants the network, and changes without us.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use crate::{paths::Workspace, process, summary::Checked};

const VERSION: &str = "0.20.2";

/// Builds cargo-deny, unless this version is there.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let dir = dir(workspace);
    if program(workspace).exists() {
        eprintln!("cargo-deny {VERSION}: installed");
        return Ok(());
    }
    eprintln!("cargo-deny {VERSION}: building from source, once");
    process::run(
        process::cargo()
            .arg("install")
            .arg(format!("cargo-deny@{VERSION}"))
            // It runs for two seconds: optimising it takes minutes.
            .args(["--locked", "--debug", "--root"])
            .arg(&dir)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // Builds in a temporary directory, and leaves the program only.
            .env_remove("CARGO_TARGET_DIR"),
    )
}

/// What can be checked without asking anybody.
pub(crate) fn check(workspace: &Workspace) -> Result<Checked> {
    if !program(workspace).exists() {
        let why = format!("cargo-deny {VERSION} is not there: run `cargo xtask setup`");
        return Ok(Checked::NotRun(why));
    }
    let mut deny = deny(workspace);
    // So the list of duplicates never outlives its reasons.
    deny.args(["--deny", "unmatched-skip", "--deny", "unnecessary-skip"]);
    process::run(deny.args(["licenses", "bans", "sources"]))?;
    Ok(Checked::Passed)
}

/// `cargo xtask deny`: the same, installing what it needs; and the known defects of our dependencies if asked for.
pub(crate) fn run(workspace: &Workspace, advisories: bool) -> Result<()> {
    install(workspace)?;
    if advisories {
        return process::run(deny(workspace).arg("advisories"));
    }
    match check(workspace)? {
        Checked::Passed => Ok(()),
        Checked::NotRun(why) => bail!(why),
    }
}

fn deny(workspace: &Workspace) -> Command {
    let mut command = Command::new(program(workspace));
    process::forget_outer_cargo(&mut command);
    command.args(["--locked", "check"]);
    command.current_dir(&workspace.root);
    command
}

fn program(workspace: &Workspace) -> PathBuf {
    dir(workspace).join("bin").join("cargo-deny")
}

/// Named for the version: another version is another directory, and no clone takes it from another.
fn dir(workspace: &Workspace) -> PathBuf {
    workspace.cache.join(format!("cargo-deny-{VERSION}"))
}
