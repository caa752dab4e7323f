//! Docker Engine, with its containers in scopes of systemd's.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{HOG_ARCHIVE, HOG_IMAGE, LABEL, LIMIT_BYTES, Runtime, tools};
use crate::guest::context::Context;

/// The socket too: where that is stopped, the daemon is.
const DAEMONS: &[&str] = &["containerd.service", "docker.socket", "docker.service"];

/// No network, for which there are no drivers here; and containers that outlive the daemon.
const CONFIGURATION: &str = r#"{"bridge": "none", "iptables": false, "live-restore": true}"#;

/// dockerd by its command line.
pub(super) struct Docker;

impl Docker {
    fn start_container(
        &self,
        context: &Context,
        name: &str,
        how: &[&str],
        script: &str,
    ) -> Result<String> {
        let limit = format!("--memory={LIMIT_BYTES}");
        let label = format!("--label={}={}", LABEL.0, LABEL.1);
        let words = [
            "docker",
            "run",
            "--detach",
            "--network=none",
            "--name",
            name,
        ];
        let words = [&words[..], &[&limit, &label], how].concat();
        let shell = [HOG_IMAGE, "sh", "-c", script];
        tools::tool(context, &[&words[..], &shell].concat())
    }
}

impl Runtime for Docker {
    fn start(&self, context: &Context) -> Result<()> {
        tools::once("docker-configuration", || {
            fs::create_dir_all("/etc/docker").context("creating /etc/docker")?;
            fs::write("/etc/docker/daemon.json", CONFIGURATION).context("configuring dockerd")
        })?;
        tools::only(context, DAEMONS)?;
        tools::once("docker-image", || {
            tools::tool(context, &["docker", "load", "--input", HOG_ARCHIVE]).map(drop)
        })
    }

    fn run(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        self.start_container(context, name, &[], script)
    }

    fn run_once(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        self.start_container(context, name, &["--rm"], script)
    }

    fn remove(&self, context: &Context, name: &str) -> Result<()> {
        tools::tool(context, &["docker", "rm", "--force", name]).map(drop)
    }

    fn restart(&self, context: &Context, while_down: &dyn Fn() -> Result<()>) -> Result<()> {
        let units = ["docker.socket", "docker.service"];
        tools::tool(context, &[&["systemctl", "stop"], &units[..]].concat())?;
        while_down()?;
        tools::tool(context, &[&["systemctl", "start"], &units[..]].concat()).map(drop)
    }

    fn cgroup(&self, id: &str) -> String {
        format!("docker-{id}.scope")
    }

    fn sources(&self) -> &'static [&'static str] {
        &["docker"]
    }

    fn names(&self, name: &str) -> Vec<(&'static str, Value)> {
        vec![
            ("container.runtime", json!("docker")),
            ("container.name", json!(name)),
            ("container.image", json!(HOG_IMAGE)),
            ("container.labels.tier", json!(LABEL.1)),
        ]
    }
}
