//! `/etc/containerd/config.toml` for the CRI plugin: the driver of cgroups, and what a sandbox is
//! made of. Text only.

use super::{Driver, HOG_IMAGE};

/// The configuration that a containerd of this version takes.
pub(super) fn text(version: &str, driver: Driver) -> String {
    let systemd = driver == Driver::Systemd;
    // Plugins have had other names since 2.0, and so has the image of the sandbox.
    match version.trim_start_matches('v').split('.').next() {
        Some("1") => format!(
            "version = 2
[plugins.'io.containerd.grpc.v1.cri']
sandbox_image = '{HOG_IMAGE}'
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]
SystemdCgroup = {systemd}
"
        ),
        _ => format!(
            "version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{HOG_IMAGE}'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = {systemd}
"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_own_form() {
        let old = text("1.6.20~ds1", Driver::Systemd);
        assert!(old.starts_with("version = 2\n"));
        assert!(old.contains("SystemdCgroup = true"));
        for new in ["v2.1.9", "2.1.9+ds1"] {
            let new = text(new, Driver::Cgroupfs);
            assert!(new.starts_with("version = 3\n"));
            assert!(new.contains("SystemdCgroup = false"));
        }
    }
}
