//! Debian packages: installing missing ones here, and fetching single ones of other releases.

pub(crate) mod suite;

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::{privilege, process};

/// Installs those of `packages` that are missing.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut missing = Vec::new();
    for package in packages {
        if is_installed(package)? {
            eprintln!("package {package}: installed");
        } else {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    eprintln!("packages {list}: installing with apt-get");
    let purpose = format!("installing {list}");
    process::run(apt_get(&purpose)?.arg("update"))?;
    let options = ["install", "-y", "--no-install-recommends"];
    process::run(apt_get(&purpose)?.args(options).args(missing))
}

fn apt_get(purpose: &str) -> Result<Command> {
    let mut command = privilege::as_root("apt-get", purpose)?;
    command.arg("--quiet").stdin(Stdio::null());
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

fn is_installed(package: &str) -> Result<bool> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .output()
        .context("asking dpkg-query (the virtual-machine tests want Debian or a derivative)")?;
    // A package that dpkg has never heard of makes dpkg-query fail: that is an answer.
    Ok(output.status.success() && output.stdout == b"installed")
}
