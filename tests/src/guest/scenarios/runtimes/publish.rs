//! `oomwatch run --publish containerd=…`: what containerd's subscribers see of a kill, in `ctr events`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Containerd, Runtime, killed};
use crate::guest::checks::Checks;
use crate::guest::context::Context;
use crate::guest::report::Outcome;
use crate::wait::wait_until;

const EVENT_LIMIT: Duration = Duration::from_secs(30);
/// Of each side.
const LINES_SHOWN: usize = 10;

/// Containers that are gone at once, of which containerd itself misses some, and one that lives on.
pub(super) fn beside(context: &Context, mode: &str) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    Containerd.start(context)?;
    let events = CtrEvents::start()?;
    let publish = format!("containerd={mode}");
    let mut case = killed::start(context, &Containerd, &["--publish", &publish])?;
    let lost = killed::lose_rounds(context, &Containerd)?;
    let mut names: Vec<String> = lost.into_iter().map(|lost| lost.name).collect();
    let child = format!("{}-child", context.scenario);
    Containerd.run(context, &child, killed::CHILD)?;
    names.push(child.clone());
    case.wait_for_logged(names.len())?;
    case.wait_for_kills(names.len());
    // The end of the daemon waits until everything is published.
    let findings = case.finish()?;
    Containerd.remove(context, &child)?;
    for name in &names {
        for topic in ["/tasks/create", "/containers/delete"] {
            wait_until(EVENT_LIMIT, &format!("{topic} of {name}"), || {
                Ok((events.count(topic, name) > 0).then_some(()))
            })?;
        }
    }

    let mut checks = Checks::new(&findings);
    checks.kills(names.len());
    let expected = match mode {
        // containerd's own, which it may miss.
        "off" => 0..=1,
        "missing" => 1..=1,
        _ => 1..=2,
    };
    for name in &names {
        let count = events.count("/tasks/oom", name);
        let what = format!("{count} of /tasks/oom for {name} are among {expected:?}");
        checks.that(&what, expected.contains(&count));
    }
    let told = events.of_topic("/tasks/oom");
    for line in told.iter().take(LINES_SHOWN) {
        context.report.note(&format!("ctr events ({mode}): {line}"));
    }
    for event in findings.events().iter().take(LINES_SHOWN) {
        let time = event.text("time")?;
        let id = event.text("container.id")?;
        context
            .report
            .note(&format!("oomwatch ({mode}): {time} kill in {id}"));
    }
    let (kills, told) = (names.len(), told.len());
    checks.finish(&format!("{kills} kills, {told} of /tasks/oom"))
}

/// A running `ctr events`, of all namespaces; ended on drop.
pub(super) struct CtrEvents {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl CtrEvents {
    pub(super) fn start() -> Result<Self> {
        let mut child = Command::new("ctr")
            .arg("events")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting ctr events")?;
        let stdout = child.stdout.take().context("ctr events has no output")?;
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let sink = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut lines = sink.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(line);
            }
        });
        Ok(Self { child, lines })
    }

    /// Lines of one topic: time, namespace, topic, and a JSON object.
    fn of_topic(&self, topic: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines.iter().filter(|line| is_of_topic(line, topic));
        lines.cloned().collect()
    }

    /// The same of one container.
    pub(super) fn about(&self, topic: &str, container: &str) -> Vec<String> {
        let mut lines = self.of_topic(topic);
        lines.retain(|line| is_about(line, container));
        lines
    }

    pub(super) fn count(&self, topic: &str, container: &str) -> usize {
        self.about(topic, container).len()
    }
}

fn is_of_topic(line: &str, topic: &str) -> bool {
    line.split_whitespace().any(|word| word == topic)
}

/// Whether the container is named anywhere in the object: its key differs between topics.
fn is_about(line: &str, container: &str) -> bool {
    line.contains(&format!("\"{container}\""))
}

impl Drop for CtrEvents {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_of_one_topic_and_about_one_container() {
        let line = r#"2026-01-01 10:00:00 +0000 UTC default /tasks/oom {"container_id":"web-1"}"#;
        assert!(is_of_topic(line, "/tasks/oom"));
        assert!(!is_of_topic(line, "/tasks"));
        assert!(is_about(line, "web-1"));
        assert!(!is_about(line, "web"));
    }
}
