//! Services of systemd's with a `MemoryMax`.

use anyhow::Result;
use serde_json::{Value, json};

use super::{LIMIT_BYTES, Runtime, tools};
use crate::guest::context::Context;

/// The system's own service manager.
pub(super) struct Systemd;

impl Systemd {
    fn start_unit(
        &self,
        context: &Context,
        name: &str,
        how: &[&str],
        script: &str,
    ) -> Result<String> {
        let limit = format!("MemoryMax={LIMIT_BYTES}");
        let unit = format!("--unit={name}");
        let words = [&["systemd-run", "--quiet", &unit], how].concat();
        // Without the policy, systemd stops the whole service after a kill in it.
        let words = [&words[..], &["-p", &limit, "-p", "OOMPolicy=continue"]].concat();
        let shell = ["/bin/busybox", "sh", "-c", script];
        tools::tool(context, &[&words[..], &shell].concat())?;
        Ok(format!("{name}.service"))
    }
}

impl Runtime for Systemd {
    fn start(&self, context: &Context) -> Result<()> {
        tools::only(context, &[])
    }

    fn run(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        self.start_unit(context, name, &[], script)
    }

    fn run_once(&self, context: &Context, name: &str, script: &str) -> Result<String> {
        self.start_unit(context, name, &["--collect"], script)
    }

    fn remove(&self, context: &Context, name: &str) -> Result<()> {
        let _ = tools::tool(context, &["systemctl", "stop", name]);
        // One that has not failed is gone by that.
        let _ = tools::tool(context, &["systemctl", "reset-failed", name]);
        Ok(())
    }

    /// systemd is never down: it becomes itself anew.
    fn restart(&self, context: &Context, while_down: &dyn Fn() -> Result<()>) -> Result<()> {
        tools::tool(context, &["systemctl", "daemon-reexec"])?;
        while_down()
    }

    fn cgroup(&self, id: &str) -> String {
        id.to_owned()
    }

    fn sources(&self) -> &'static [&'static str] {
        &[]
    }

    fn names(&self, _name: &str) -> Vec<(&'static str, Value)> {
        vec![("container.runtime", json!("systemd"))]
    }

    fn has_init(&self) -> bool {
        false
    }
}
