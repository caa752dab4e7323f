//! Formatting and lints, of the host crates and of the kernel side.

mod features;
mod imports;

use anyhow::Result;

use crate::paths::Workspace;
use crate::{ebpf, process, setup};

/// `cargo xtask lint`: all of it, stopping at the first complaint.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::for_checks(workspace)?;
    format(workspace)?;
    imports(workspace)?;
    clippy(workspace)?;
    features(workspace)?;
    ebpf::clippy(workspace)
}

/// Checks the formatting and changes nothing.
pub(crate) fn format(workspace: &Workspace) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["fmt", "--all", "--check"]);
    process::run(cargo.current_dir(&workspace.root))
}

/// Checks who imports whom.
pub(crate) fn imports(workspace: &Workspace) -> Result<()> {
    imports::check(workspace)
}

/// Lints the library with each of its features alone.
pub(crate) fn features(workspace: &Workspace) -> Result<()> {
    features::check(workspace)
}

/// Lints the host crates with their tests and benchmarks. Warnings are errors.
pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    let mut cargo = process::cargo();
    cargo
        .args(["clippy", "--workspace", "--exclude", "oomwatch-ebpf"])
        .args(["--all-targets", "--features", "oomwatch/bench"])
        .args(["--locked", "--", "-D", "warnings"]);
    process::run(cargo.current_dir(&workspace.root))
}
