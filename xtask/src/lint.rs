//! Formatting and lints, of the host crates and of the kernel side.

mod features;
mod imports;
mod rust_version;

use anyhow::{Context as _, Result};

use crate::{api, deny, ebpf, paths::Workspace, process, setup, summary::Checked, toolchain};

/// A check with its name in the summary.
pub(crate) type Gate = (&'static str, fn(&Workspace) -> Result<Checked>);

/// All of them, the quick ones first.
pub(crate) const GATES: &[Gate] = &[
    ("format", |workspace| passed(format(workspace))),
    ("style of imports", import_style),
    ("imports", |workspace| passed(imports::check(workspace))),
    ("licences and bans", deny::check),
    ("clippy of the host crates", |workspace| {
        passed(clippy(workspace))
    }),
    ("features of the library", |workspace| {
        passed(features::check(workspace))
    }),
    ("oldest Rust", rust_version::check),
    ("clippy of the kernel side", |workspace| {
        passed(ebpf::clippy(workspace))
    }),
    ("public interface", api::check),
];

/// `cargo xtask lint`: all of it, stopping at the first complaint.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::for_checks(workspace)?;
    let mut not_run = Vec::new();
    for (name, check) in GATES {
        if let Checked::NotRun(why) = check(workspace).context(*name)? {
            not_run.push(format!("{name}: not run: {why}"));
        }
    }
    for line in &not_run {
        println!("{line}");
    }
    println!(
        "{} checks passed, {} not run",
        GATES.len() - not_run.len(),
        not_run.len()
    );
    Ok(())
}

fn passed(result: Result<()>) -> Result<Checked> {
    result.map(|()| Checked::Passed)
}

/// Checks the formatting and changes nothing.
fn format(workspace: &Workspace) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["fmt", "--all", "--check"]);
    process::run(cargo.current_dir(&workspace.root))
}

/// Checks that each file has one `use` a crate, in three groups. Only nightly's rustfmt knows these; another than the
/// tested may disagree with stable's about the rest.
fn import_style(workspace: &Workspace) -> Result<Checked> {
    if let Some(other) = toolchain::untested_nightly()? {
        return Ok(Checked::NotRun(other));
    }
    let mut cargo = process::nightly("cargo");
    cargo.args(["fmt", "--all", "--check", "--", "--config"]);
    cargo.arg("imports_granularity=Crate,group_imports=StdExternalCrate");
    process::run(cargo.current_dir(&workspace.root))?;
    Ok(Checked::Passed)
}

/// Lints the host crates with their tests and benchmarks. Warnings are errors.
fn clippy(workspace: &Workspace) -> Result<()> {
    let mut cargo = process::cargo();
    cargo
        .args(["clippy", "--workspace", "--exclude", "oomwatch-ebpf"])
        .args(["--all-targets", "--features", "oomwatch/bench"])
        .args(["--locked", "--", "-D", "warnings"]);
    process::run(cargo.current_dir(&workspace.root))
}
