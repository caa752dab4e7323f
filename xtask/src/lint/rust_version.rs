//! The library builds with the oldest Rust that its manifest promises.

use anyhow::Result;

use crate::{
    paths::Workspace,
    process,
    summary::Checked,
    toolchain::{self, RUST_VERSION},
};

/// Checks the library, with all its features, by that toolchain.
pub(super) fn check(workspace: &Workspace) -> Result<Checked> {
    let Some(toolchain) = toolchain::oldest()? else {
        let why = format!("no toolchain with Rust {RUST_VERSION} is there");
        return Ok(Checked::NotRun(why));
    };
    let mut cargo = process::of_toolchain(&toolchain, "cargo");
    cargo
        .args(["check", "--locked", "--package", "oomwatch", "--lib"])
        .arg("--all-features");
    process::run(cargo.current_dir(&workspace.root))?;
    Ok(Checked::Passed)
}
