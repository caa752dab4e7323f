//! `cargo xtask setup`: everything that building and testing need, each thing said aloud.
//!
//! Running it again checks and does nothing; nothing here touches the network when all is there.

use anyhow::Result;

use crate::{
    apt, deny,
    paths::Workspace,
    toolchain, venv,
    vm::{image, kernel},
};

/// Debian packages of the virtual-machine tests.
pub(crate) const VM_PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "busybox-static",
    "e2fsprogs",
    "mmdebstrap",
    "strace",
    "libbpf-tools",
];

/// Debian packages of the tests on this machine: promtool, Python for a collector, and the browser that the
/// status page is tried in.
pub(crate) const HOST_TEST_PACKAGES: &[&str] = &["prometheus", "python3-venv", "chromium"];

/// All of it: toolchain, packages, kernels and root images.
pub(crate) fn everything(workspace: &Workspace) -> Result<()> {
    for_checks(workspace)?;
    for_host_tests(workspace)?;
    for_vm(workspace)?;
    let mut images = image::ALL.iter();
    images.try_for_each(|recipe| image::fetch(&workspace.cache, recipe).map(drop))
}

/// What building and linting need.
pub(crate) fn for_checks(workspace: &Workspace) -> Result<()> {
    toolchain::for_build(workspace)?;
    toolchain::for_lint()?;
    // Without one of these a check does not run, and says so.
    for installed in [deny::install(workspace), toolchain::for_rust_version()] {
        if let Err(error) = installed {
            eprintln!("warning: {error:#}");
        }
    }
    Ok(())
}

/// What some tests on this machine need beyond that; without it they are skipped.
pub(crate) fn for_host_tests(workspace: &Workspace) -> Result<()> {
    apt::install(HOST_TEST_PACKAGES)?;
    venv::install(workspace)
}

/// What the virtual machines need: packages of this system, and the kernels to boot.
pub(crate) fn for_vm(workspace: &Workspace) -> Result<()> {
    apt::install(VM_PACKAGES)?;
    let mut kernels = kernel::ALL.iter();
    kernels.try_for_each(|spec| kernel::fetch(&workspace.cache, spec).map(drop))
}
