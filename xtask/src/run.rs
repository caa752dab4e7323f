//! `cargo xtask run`: a fresh oomwatch, started as root on this machine.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::{build, paths::Workspace, privilege, process};

/// Builds oomwatch and becomes it. Returns only when that fails: signals, the exit status and
/// the terminal are then oomwatch's own.
pub(crate) fn run(workspace: &Workspace, args: Vec<OsString>) -> Result<bool> {
    build::run(workspace, true)?;
    let binary = workspace.release_binary("oomwatch");
    let mut oomwatch = privilege::as_root(&binary, "watching for OOM kills")?;
    oomwatch.arg("run").args(args);
    // oomwatch's environment is then that of a daemon, not that of a build.
    process::forget_outer_cargo(&mut oomwatch);
    process::forget_outer_toolchain(&mut oomwatch);
    let shown = process::describe(&oomwatch);
    eprintln!("+ {shown}");
    Err(oomwatch.exec()).with_context(|| format!("starting `{shown}`"))
}
