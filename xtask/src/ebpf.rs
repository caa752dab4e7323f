//! The kernel side: building and linting `oomwatch-ebpf` for the BPF target.
//!
//! Does what `aya-build` does, but called by hand and not by a build script: so the host crates
//! build with plain `cargo build` too, on a machine that has neither nightly nor bpf-linker.

use std::{env::consts::ARCH, path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use crate::{paths::Workspace, process};

const PACKAGE: &str = "oomwatch-ebpf";

/// The variable by which `oomwatch/build.rs` learns which object to embed.
pub(crate) const OBJECT_ENV: &str = "OOMWATCH_EBPF_OBJECT";

const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// Builds the eBPF object and returns its path.
///
/// Always a release build: the verifier rejects unoptimised programs.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    process::run(cargo(workspace, "build").arg("--release"))?;
    let object = object(workspace);
    ensure!(
        object.is_file(),
        "cargo built {PACKAGE} but left no object at {}",
        object.display()
    );
    Ok(object)
}

/// Lints the kernel side for the target it runs on. Warnings are errors.
pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    let mut clippy = cargo(workspace, "clippy");
    process::run(clippy.args(["--release", "--", "-D", "warnings"]))
}

fn object(workspace: &Workspace) -> PathBuf {
    let release = workspace.ebpf_target().join(TARGET).join("release");
    release.join(PACKAGE)
}

fn cargo(workspace: &Workspace, subcommand: &str) -> Command {
    let mut cargo = process::nightly("cargo");
    cargo
        .args([subcommand, "--package", PACKAGE, "--bins"])
        .args(["--locked", "--target", TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(workspace.ebpf_target())
        .current_dir(&workspace.root)
        .env(
            linker_variable(TARGET),
            workspace.tools().join("bin/bpf-linker"),
        )
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(ARCH));
    cargo
}

/// Cargo's per-target variable: set this way, host build scripts keep their own linker.
fn linker_variable(target: &str) -> String {
    let target = target.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{target}_LINKER")
}

/// The flags of `aya-build` without debug information and BTF, which would be parsed and handed
/// to the kernel at every start: only the register names of the host's architecture.
fn rustflags(arch: &str) -> String {
    format!("--cfg=bpf_target_arch=\"{arch}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linker_is_set_for_the_bpf_target_only() {
        let name = linker_variable("bpfel-unknown-none");
        assert_eq!(name, "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER");
    }
}
