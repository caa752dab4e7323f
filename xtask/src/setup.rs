//! `cargo xtask setup`: everything that building and testing need, each thing said aloud.
//!
//! Running it again checks and does nothing; nothing here touches the network when all is there.

use anyhow::Result;

use crate::paths::Workspace;
use crate::vm::kernel::{self, Kernel};
use crate::{apt, toolchain};

/// Debian packages of the virtual-machine tests.
pub(crate) const VM_PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "busybox-static",
    "strace",
    "libbpf-tools",
];

/// All of it: toolchain, packages and kernels.
pub(crate) fn everything(workspace: &Workspace) -> Result<()> {
    for_checks(workspace)?;
    for_vm(workspace).map(drop)
}

/// What building, linting and the tests on this machine need.
pub(crate) fn for_checks(workspace: &Workspace) -> Result<()> {
    toolchain::for_build(workspace)?;
    toolchain::for_lint()
}

/// What the virtual machines need: packages of this system, and the kernels to boot.
pub(crate) fn for_vm(workspace: &Workspace) -> Result<Vec<Kernel>> {
    apt::install(VM_PACKAGES)?;
    let kernels = kernel::ALL.iter();
    kernels
        .map(|spec| kernel::fetch(&workspace.cache, spec))
        .collect()
}
