//! The Python of the tests that want another's reading of OTLP: a virtual environment in the cache.

use std::process::Command;

use anyhow::Result;
use oomwatch_tests::host::OTLP_VENV;

use crate::{
    paths::{self, Workspace},
    process,
};

/// From PyPI, with what they need themselves.
const PACKAGES: &[&str] = &[
    "grpcio==1.85.3",
    "opentelemetry-proto==1.45.2",
    "trustme==1.2.1",
];

/// Makes it, unless it is there with these packages.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let dir = workspace.cache.join(OTLP_VENV);
    let stamp = dir.join("packages");
    let wanted = PACKAGES.join("\n");
    if paths::read_if_present(&stamp)?.as_deref() == Some(wanted.as_str()) {
        eprintln!("Python packages of the tests: installed");
        return Ok(());
    }
    eprintln!("Python packages of the tests: installing with pip");
    paths::fresh_dir(&dir)?;
    process::run(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    process::run(pip.args(PACKAGES))?;
    // Last: what was interrupted is made again.
    paths::write(&stamp, &wanted)
}
