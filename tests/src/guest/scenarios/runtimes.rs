//! Real container runtimes, from Debian's packages, under a real systemd.
//!
//! Each of them starts containers that run out of memory, in the ways that runtimes differ in:
//! see [`killed`]. What must come of it is the same for all: see [`truth`].

use anyhow::{Result, bail};
use serde_json::Value;

use super::Scenario;
use crate::guest::context::Context;

mod claimed;
mod containerd;
mod cri;
mod ctr;
mod docker;
mod journal;
mod killed;
mod podman;
mod publish;
mod systemd;
mod tools;
mod truth;

use containerd::Containerd;
use cri::Cri;
use docker::Docker;
use podman::Podman;
use systemd::Systemd;

/// What containers are run from, and what it is called once it is loaded.
const HOG_ARCHIVE: &str = "/run/oomwatch-tests/hog.tar";
const HOG_IMAGE: &str = "oomwatch.test/hog:1";

/// The label that every container gets, where the runtime has labels.
const LABEL: (&str, &str) = ("tier", "test");

/// Enough for a runtime's own process before it becomes the container's, and reached at once.
const LIMIT_BYTES: u64 = 32 << 20;

/// What the scenarios need of a runtime.
trait Runtime: Sync {
    /// Starts its daemons and loads the image, unless that was done before; stops other runtimes'.
    fn start(&self, context: &Context) -> Result<()>;

    /// Starts a container in which a shell runs `script`, and returns its id.
    fn run(&self, context: &Context, name: &str, script: &str) -> Result<String>;

    /// The same for one that is removed, by the runtime itself, as soon as it has ended.
    fn run_once(&self, context: &Context, name: &str, script: &str) -> Result<String>;

    /// Removes a container, whether it runs or not.
    fn remove(&self, context: &Context, name: &str) -> Result<()>;

    /// Stops its daemons, but no container, and starts them again.
    fn restart(&self, context: &Context, while_down: &dyn Fn() -> Result<()>) -> Result<()>;

    /// The directory name of a container's cgroup.
    fn cgroup(&self, id: &str) -> String;

    /// What an event tells of the container, beside its id.
    fn names(&self, name: &str) -> Vec<(&'static str, Value)>;

    /// What oomwatch calls the sources that tell those names, where it is not the path.
    fn sources(&self) -> &'static [&'static str];

    /// Whether the first process of a container is an init, by having a PID namespace.
    fn has_init(&self) -> bool {
        true
    }
}

/// The scenarios for a root image, in the order they run.
pub(in crate::guest) fn of_image(image: &str) -> Result<Vec<(&'static str, Scenario)>> {
    match image {
        "bookworm" => Ok([UNITS, PODMAN, DOCKER, CONTAINERD, CRI].concat()),
        "sid" => Ok([CONTAINERD, CRI].concat()),
        _ => bail!("there are no scenarios for the image {image}"),
    }
}

const UNITS: &[(&str, Scenario)] = &[
    ("unit_init", |it| killed::init(it, &Systemd)),
    ("unit_child", |it| killed::child(it, &Systemd)),
    ("unit_at_once", |it| killed::at_once(it, &Systemd)),
    ("unit_restart", |it| killed::restart(it, &Systemd)),
    ("unit_journal", journal::read_back),
];

const PODMAN: &[(&str, Scenario)] = &[
    ("crun_init", |it| killed::init(it, &Podman::CRUN)),
    ("crun_child", |it| killed::child(it, &Podman::CRUN)),
    ("crun_at_once", |it| killed::at_once(it, &Podman::CRUN)),
    ("crun_restart", |it| killed::restart(it, &Podman::CRUN)),
    ("podman_pod", |it| killed::init_later(it, &Podman::POD)),
    ("runc_init", |it| killed::init(it, &Podman::RUNC)),
    ("runc_child", |it| killed::child(it, &Podman::RUNC)),
    ("runc_at_once", |it| killed::at_once(it, &Podman::RUNC)),
    ("podman_no_cgroup", claimed::without_cgroup),
];

const DOCKER: &[(&str, Scenario)] = &[
    ("docker_init", |it| killed::init(it, &Docker)),
    ("docker_child", |it| killed::child(it, &Docker)),
    ("docker_at_once", |it| killed::at_once(it, &Docker)),
    ("docker_restart", |it| killed::restart(it, &Docker)),
    ("docker_forged", claimed::forged),
];

const CONTAINERD: &[(&str, Scenario)] = &[
    ("containerd_init", |it| killed::init(it, &Containerd)),
    ("containerd_child", |it| killed::child(it, &Containerd)),
    ("containerd_at_once", |it| killed::at_once(it, &Containerd)),
    ("containerd_restart", |it| killed::restart(it, &Containerd)),
    ("publish_off", |it| publish::beside(it, "off")),
    ("publish_missing", |it| publish::beside(it, "missing")),
    ("publish_always", |it| publish::beside(it, "always")),
];

const CRI: &[(&str, Scenario)] = &[
    ("cri_systemd_init", |it| killed::init(it, &Cri::SYSTEMD)),
    ("cri_systemd_child", |it| killed::child(it, &Cri::SYSTEMD)),
    ("cri_at_once", |it| killed::at_once(it, &Cri::SYSTEMD)),
    ("cri_restart", |it| killed::restart(it, &Cri::SYSTEMD)),
    ("cri_pod_limit", |it| killed::init(it, &Cri::POD_LIMIT)),
    ("cri_sandbox", cri::sandbox_killed),
    ("cri_forged", claimed::forged_pod),
    ("cri_cgroupfs_init", |it| killed::init(it, &Cri::CGROUPFS)),
];
