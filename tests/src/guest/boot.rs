//! What an init must do before anything works.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

/// File system type and mount point of what the kernel shows itself by.
pub(super) const FIRST: &[(&str, &str)] =
    &[("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")];

/// The same of what comes next, in the order that lets each find its directory.
const OTHERS: &[(&str, &str)] = &[
    ("cgroup2", "/sys/fs/cgroup"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

/// Values that keep kills quick.
const SETTINGS: &[(&str, &str)] = &[
    // The console is a slow serial line, and the kernel writes to it in the midst of a group kill.
    ("/proc/sys/kernel/printk", "1"),
    ("/proc/sys/vm/oom_dump_tasks", "0"),
];

/// Mounts what nothing works without.
pub(super) fn mount_first() -> Result<()> {
    mount_all(FIRST)
}

/// Mounts what else the scenarios and oomwatch need.
pub(super) fn mount_others() -> Result<()> {
    mount_all(OTHERS)
}

fn mount_all(mounts: &[(&str, &str)]) -> Result<()> {
    let mut mounts = mounts.iter();
    mounts.try_for_each(|(kind, target)| mount_on(kind, target))
}

fn mount_on(kind: &str, target: &str) -> Result<()> {
    // Mount points inside other mounts exist already, where the kernel has the feature.
    let _ = fs::create_dir_all(target);
    match mount(kind, target, kind, MountFlags::empty(), None) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("mounting {kind} on {target}")),
    }
}

/// Keeps the kernel from talking where that takes time.
pub(super) fn quieten() -> Result<()> {
    for (file, value) in SETTINGS {
        fs::write(file, value).with_context(|| format!("writing {value} to {file}"))?;
    }
    Ok(())
}

/// Hands the controllers to child cgroups, as systemd would.
pub(super) fn hand_out_controllers() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))
        .context("reading the controllers of the root cgroup")?;
    for controller in ["memory", "pids"] {
        if controllers
            .split_whitespace()
            .any(|name| name == controller)
        {
            fs::write(
                root.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )
            .with_context(|| format!("enabling the {controller} controller"))?;
        }
    }
    Ok(())
}
