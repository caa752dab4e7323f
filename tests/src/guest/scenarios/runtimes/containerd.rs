//! containerd without anything above it, by `ctr`: containers whose cgroups say nothing of them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{HOG_ARCHIVE, HOG_IMAGE, LABEL, LIMIT_BYTES, Runtime, tools};
use crate::guest::context::Context;

const DAEMON: &str = "containerd.service";
/// What a killed process makes of its container's exit code, and `ctr` of its own.
const KILLED: &str = "exit status: 137";

/// containerd by its own command line.
pub(super) struct Containerd;

impl Containerd {
    fn words(how: &str, name: &str, script: &str) -> Vec<String> {
        let limit = format!("--memory-limit={LIMIT_BYTES}");
        let label = format!("--label={}={}", LABEL.0, LABEL.1);
        let words = ["ctr", "run", how, &limit, &label, HOG_IMAGE, name];
        let shell = ["/bin/sh", "-c", script];
        words
            .iter()
            .chain(&shell)
            .map(|word| (*word).to_owned())
            .collect()
    }
}

impl Runtime for Containerd {
    fn start(&self, context: &Context) -> Result<()> {
        tools::only(context, &[DAEMON])?;
        tools::once("containerd-image", || {
            tools::tool(context, &["ctr", "image", "import", HOG_ARCHIVE]).map(drop)
        })
    }

    fn run(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        let words = Self::words("--detach", name, script);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        tools::tool(context, &words)?;
        Ok(name.to_owned())
    }

    /// In the foreground, where `ctr` ends as the container does, and removes it.
    fn run_once(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        let words = Self::words("--rm", name, script);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ended = tools::tool(context, &words);
        let killed = ended.as_ref().err().map(ToString::to_string);
        ensure!(
            killed.as_ref().is_some_and(|how| how.contains(KILLED)),
            "{name} was not killed: {ended:?}"
        );
        Ok(name.to_owned())
    }

    fn remove(&self, context: &Context, name: &str) -> Result<()> {
        // Says that the task was killed, which is no failure.
        let _ = tools::tool(context, &["ctr", "task", "rm", "--force", name]);
        tools::tool(context, &["ctr", "container", "rm", name]).map(drop)
    }

    fn restart(&self, context: &Context, while_down: &dyn Fn() -> Result<()>) -> Result<()> {
        tools::tool(context, &["systemctl", "stop", DAEMON])?;
        while_down()?;
        tools::tool(context, &["systemctl", "start", DAEMON]).map(drop)
    }

    fn cgroup(&self, id: &str) -> String {
        id.to_owned()
    }

    fn sources(&self) -> &'static [&'static str] {
        &["containerd"]
    }

    fn names(&self, name: &str) -> Vec<(&'static str, Value)> {
        vec![
            ("container.runtime", json!("containerd")),
            ("container.name", json!(name)),
            ("container.image", json!(HOG_IMAGE)),
            ("container.containerd_namespace", json!("default")),
            ("container.labels.tier", json!(LABEL.1)),
        ]
    }
}
