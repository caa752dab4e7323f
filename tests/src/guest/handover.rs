//! From the initramfs into a root image: drivers, mounts, this program and what it needs, and then
//! a real systemd as PID 1, which starts this program again as a service.

use std::{
    convert::Infallible,
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount, mount_move};

use super::boot;
use crate::wait::wait_until;

const DISK: &str = "/dev/vda";
const DISK_LIMIT: Duration = Duration::from_secs(30);

/// Where the image is mounted before it becomes the root.
const IMAGE: &str = "/image";

/// What is brought along, as the services in the image see it.
pub(super) const LUGGAGE: &str = "/run/oomwatch-tests";

/// Brought along from the initramfs, under which names.
const FILES: &[(&str, &str)] = &[
    ("/init", "vm-guest"),
    ("/bin/oomwatch", "oomwatch"),
    ("/hog.tar", "hog.tar"),
];

/// Units in `/run` come before those of the packages.
const UNITS: &str = "/run/systemd/system";
const UNIT: &str = "vm-guest.service";

/// D-Bus is what crun asks systemd for scopes by.
const SERVICE: &str = "\
[Unit]
Description=Scenarios of oomwatch
Requires=dbus.socket
After=dbus.socket

[Service]
Type=exec
ExecStart=/run/oomwatch-tests/vm-guest scenarios
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
";

/// What a test machine has no use for.
const MASKED: &[&str] = &[
    "timers.target",
    "getty.target",
    "systemd-update-utmp.service",
];

/// Becomes the image's systemd.
pub(super) fn into_image() -> Result<Infallible> {
    insert_modules()?;
    mount_image()?;
    pack()?;
    enter()?;
    let failed = Command::new("/lib/systemd/systemd")
        .arg(format!("--unit={UNIT}"))
        .args(["--show-status=no", "--log-target=kmsg"])
        .exec();
    Err(failed).context("starting the image's systemd")
}

fn insert_modules() -> Result<()> {
    for entry in fs::read_dir("/modules").context("listing the modules")? {
        let path = entry.context("listing the modules")?.path();
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        rustix::system::finit_module(&file, c"", 0)
            .with_context(|| format!("inserting {}", path.display()))?;
    }
    Ok(())
}

fn mount_image() -> Result<()> {
    wait_until(DISK_LIMIT, "the disk", || {
        Ok(Path::new(DISK).exists().then_some(()))
    })?;
    mount(DISK, IMAGE, "ext4", MountFlags::empty(), None).context("mounting the image")?;
    mount(
        "tmpfs",
        in_image("/run"),
        "tmpfs",
        MountFlags::empty(),
        None,
    )
    .context("mounting the image's /run")
}

/// Puts everything into the image's `/run`, so that the image itself is nothing but packages.
fn pack() -> Result<()> {
    let luggage = in_image(LUGGAGE);
    let units = in_image(UNITS);
    for dir in [&luggage, &units] {
        fs::create_dir_all(dir).with_context(|| format!("creating {dir}"))?;
    }
    for (from, to) in FILES {
        fs::copy(from, format!("{luggage}/{to}")).with_context(|| format!("copying {from}"))?;
    }
    fs::write(format!("{units}/{UNIT}"), SERVICE).context("writing the service")?;
    for unit in MASKED {
        symlink("/dev/null", format!("{units}/{unit}"))
            .with_context(|| format!("masking {unit}"))?;
    }
    Ok(())
}

/// Makes the image the root of everything, with the mounts there are.
fn enter() -> Result<()> {
    for (_, target) in boot::FIRST {
        mount_move(*target, in_image(target)).with_context(|| format!("moving {target}"))?;
    }
    std::env::set_current_dir(IMAGE).context("entering the image")?;
    mount_move(".", "/").context("making the image the root")?;
    rustix::process::chroot(".").context("making the image the root")?;
    std::env::set_current_dir("/").context("entering the new root")
}

fn in_image(path: &str) -> String {
    format!("{IMAGE}{path}")
}
