//! Becoming root for the few things that need it.

use std::process::Command;

use anyhow::{Context as _, Result};

/// `program`, to be run as root: directly when we are root, else through sudo.
///
/// Fails when we are not root and there is no sudo; `purpose` then tells what it was for.
pub(crate) fn as_root(program: impl AsRef<std::ffi::OsStr>, purpose: &str) -> Result<Command> {
    if rustix::process::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    let sudo = which::which("sudo").with_context(|| {
        format!("{purpose} needs root, and there is no sudo here: run this as root")
    })?;
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}
