//! podman, which has no daemon but a socket with one behind it, and two runtimes below.

use anyhow::Result;
use serde_json::{Value, json};

use super::{HOG_ARCHIVE, HOG_IMAGE, LABEL, LIMIT_BYTES, Runtime, tools};
use crate::guest::context::Context;

const SOCKET: &str = "podman.socket";
const SERVICE: &str = "podman.service";
/// A pod without a container of its own, for which an image would have to be built.
const POD_NAME: &str = "oomwatch-pod";

/// podman by its command line.
pub(super) struct Podman {
    oci: &'static str,
    pod: bool,
}

impl Podman {
    /// Containers in a directory below their scope.
    pub(super) const CRUN: Self = Self {
        oci: "crun",
        pod: false,
    };
    /// Containers in their scope.
    pub(super) const RUNC: Self = Self {
        oci: "runc",
        pod: false,
    };
    /// Containers in the slice of a pod.
    pub(super) const POD: Self = Self {
        oci: "crun",
        pod: true,
    };

    fn start_container(
        &self,
        context: &Context,
        name: &str,
        how: &[&str],
        script: &str,
    ) -> Result<String> {
        let limit = format!("--memory={LIMIT_BYTES}");
        let label = format!("--label={}={}", LABEL.0, LABEL.1);
        let words = ["podman", "--runtime", self.oci, "run", "--detach"];
        let names = ["--network=none", "--name", name, &limit, &label];
        let pod: &[&str] = if self.pod { &["--pod", POD_NAME] } else { &[] };
        let shell = [HOG_IMAGE, "sh", "-c", script];
        let words = [&words[..], &names, pod, how, &shell].concat();
        tools::tool(context, &words)
    }
}

impl Runtime for Podman {
    fn start(&self, context: &Context) -> Result<()> {
        tools::only(context, &[SOCKET, SERVICE])?;
        tools::once("podman-image", || {
            tools::tool(context, &["podman", "load", "--input", HOG_ARCHIVE]).map(drop)
        })?;
        if !self.pod {
            return Ok(());
        }
        tools::once("podman-pod", || {
            let words = ["podman", "pod", "create", "--infra=false", POD_NAME];
            tools::tool(context, &words).map(drop)
        })
    }

    fn run(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        self.start_container(context, name, &[], script)
    }

    fn run_once(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        self.start_container(context, name, &["--rm"], script)
    }

    fn remove(&self, context: &Context, name: &str) -> Result<()> {
        tools::tool(context, &["podman", "rm", "--force", "--time=0", name]).map(drop)
    }

    fn restart(&self, context: &Context, while_down: &dyn Fn() -> Result<()>) -> Result<()> {
        tools::tool(context, &["systemctl", "stop", SOCKET, SERVICE])?;
        while_down()?;
        tools::tool(context, &["systemctl", "start", SOCKET]).map(drop)
    }

    fn cgroup(&self, id: &str) -> String {
        format!("libpod-{id}.scope")
    }

    fn sources(&self) -> &'static [&'static str] {
        &["podman"]
    }

    fn names(&self, name: &str) -> Vec<(&'static str, Value)> {
        let mut names = vec![
            ("container.runtime", json!("podman")),
            ("container.name", json!(name)),
            ("container.image", json!(HOG_IMAGE)),
            ("container.labels.tier", json!(LABEL.1)),
        ];
        if self.pod {
            names.push(("container.pod", json!(POD_NAME)));
        }
        names
    }
}
