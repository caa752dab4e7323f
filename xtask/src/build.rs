//! Building: the eBPF object first, then the host crates with the object inside.

use std::path::Path;

use anyhow::Result;

use crate::{ebpf, paths::Workspace, process, toolchain};

/// `cargo xtask build`: gets what is missing, builds the object and oomwatch.
pub(crate) fn run(workspace: &Workspace, release: bool) -> Result<()> {
    toolchain::for_build(workspace)?;
    let object = ebpf::build(workspace)?;
    let packages = ["--package", "oomwatch"];
    host(workspace, &object, release, &packages)
}

/// Builds oomwatch as the tests on this machine start it.
pub(crate) fn for_host_tests(workspace: &Workspace, object: &Path) -> Result<()> {
    host(workspace, object, false, &["--package", "oomwatch"])
}

/// Builds, in release, what a virtual machine runs: oomwatch and the guest's test programme.
pub(crate) fn for_vm(workspace: &Workspace, object: &Path) -> Result<()> {
    let packages = ["--package", "oomwatch", "--package", "oomwatch-tests"];
    host(
        workspace,
        object,
        true,
        &[&packages[..], &["--bins"]].concat(),
    )
}

fn host(workspace: &Workspace, object: &Path, release: bool, what: &[&str]) -> Result<()> {
    let mut cargo = process::cargo();
    cargo
        .arg("build")
        .args(what)
        .current_dir(&workspace.root)
        .env(ebpf::OBJECT_ENV, object);
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)
}
