//! Whether KVM works here, found out by booting: `/dev/kvm` alone tells nothing, because some
//! hosts offer one that runs no ordinary guest.

use std::{env, fs, ops::ControlFlow, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::qemu::{self, Accel, Limits, Machine};
use crate::paths;

/// `kvm` or `tcg`: overrules what this module finds out.
const OVERRIDE: &str = "OOMWATCH_VM_ACCEL";

/// A guest that works under KVM is there in under two seconds.
const LIMIT: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits {
    total: LIMIT,
    silence: LIMIT,
};

/// Without a root the kernel panics at the end of its own start: the sign that all of it ran.
const BOOTED: &str = "Unable to mount root fs";

/// Chooses the accelerator; the verdict on KVM is remembered in `cache` until the next boot.
pub(crate) fn choose(cache: &Path, kernel: &Path) -> Result<Accel> {
    match env::var(OVERRIDE).as_deref() {
        Ok("kvm") => return Ok(Accel::Kvm),
        Ok("tcg") => return Ok(Accel::Tcg),
        Ok(other) => bail!("{OVERRIDE}={other}: must be kvm or tcg"),
        Err(_) => {}
    }
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Tcg);
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let boot_id = boot_id.context("reading this boot's id")?;
    let file = cache.join("vm-accel");
    if let Some(accel) = remembered(paths::read_if_present(&file)?, boot_id.trim()) {
        return Ok(accel);
    }
    let limit = LIMIT.as_secs();
    eprintln!("KVM: trying it, for {limit} s at most");
    let accel = if kvm_boots(kernel)? {
        Accel::Kvm
    } else {
        Accel::Tcg
    };
    eprintln!(
        "KVM: tried, so machines run with {} until the next boot",
        accel.name()
    );
    paths::create_dir(cache)?;
    paths::write(&file, &format!("{} {}\n", boot_id.trim(), accel.name()))?;
    Ok(accel)
}

fn remembered(file: Option<String>, boot_id: &str) -> Option<Accel> {
    let file = file?;
    let (id, accel) = file.trim().split_once(' ')?;
    let accel = [Accel::Kvm, Accel::Tcg]
        .into_iter()
        .find(|it| it.name() == accel)?;
    (id == boot_id).then_some(accel)
}

fn kvm_boots(kernel: &Path) -> Result<bool> {
    let mut command = qemu::command(Accel::Kvm, kernel, "");
    command.args(["-m", "1G"]);
    qemu::serial_to_stdout(&mut command);
    let log = tempfile::tempfile().context("making a file for QEMU's complaints")?;
    let mut booted = false;
    Machine::start(command, log)?.watch(LIMITS, |line| {
        booted |= line.contains(BOOTED);
        if booted {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(booted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_holds_for_its_own_boot_only() {
        let file = || Some("1234-56 tcg\n".to_owned());
        assert_eq!(remembered(file(), "1234-56"), Some(Accel::Tcg));
        assert_eq!(remembered(file(), "9999-99"), None);
        assert_eq!(remembered(Some("1234-56 xen".to_owned()), "1234-56"), None);
        assert_eq!(remembered(None, "1234-56"), None);
    }
}
