//! `ctr events`: what containerd tells its subscribers, and when they had it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

use crate::event::Event;

/// The topic of killed containers.
pub(super) const OOM: &str = "/tasks/oom";

/// Time, namespace, topic, and a JSON object.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) text: String,
    /// By the clock of `boottime_ns` in events.
    read: Duration,
}

impl Line {
    fn new(text: String) -> Self {
        let read = clock_gettime(ClockId::Boottime).try_into();
        // That clock is never before the start.
        let read = read.unwrap_or(Duration::MAX);
        Self { text, read }
    }

    fn is_of_topic(&self, topic: &str) -> bool {
        self.text.split_whitespace().any(|word| word == topic)
    }

    /// Whether the container is named anywhere in the object: its key differs between topics.
    fn is_about(&self, container: &str) -> bool {
        self.text.contains(&format!("\"{container}\""))
    }

    /// Whether oomwatch has announced this kill by it: then it has the kill's own time.
    pub(super) fn is_published_for(&self, kill: &Event) -> Result<bool> {
        let time = as_printed(&kill.text("time")?);
        Ok(self.text.starts_with(&time))
    }

    /// Whether it came sooner than that after a kill.
    pub(super) fn was_read_within(&self, limit: Duration, kill: &Event) -> Result<bool> {
        let killed = Duration::from_nanos(kill.number("boottime_ns")?);
        Ok(self.read < killed + limit)
    }
}

/// An event's time as a line begins with it: without zeros at the end.
fn as_printed(time: &str) -> String {
    let time = time.trim_end_matches('Z').trim_end_matches('0');
    format!("{} ", time.replace('T', " "))
}

/// A running `ctr events`, of all namespaces; ended on drop.
pub(super) struct Ctr {
    child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Ctr {
    pub(super) fn start() -> Result<Self> {
        let mut child = Command::new("ctr")
            .arg("events")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting ctr events")?;
        let stdout = child.stdout.take().context("ctr events has no output")?;
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let sink = Arc::clone(&lines);
        thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line = Line::new(text);
                let mut lines = sink.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(line);
            }
        });
        Ok(Self { child, lines })
    }

    pub(super) fn of_topic(&self, topic: &str) -> Vec<Line> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines.iter().filter(|line| line.is_of_topic(topic));
        lines.cloned().collect()
    }

    /// The same of one container.
    pub(super) fn about(&self, topic: &str, container: &str) -> Vec<Line> {
        let mut lines = self.of_topic(topic);
        lines.retain(|line| line.is_about(container));
        lines
    }

    pub(super) fn count(&self, topic: &str, container: &str) -> usize {
        self.about(topic, container).len()
    }
}

impl Drop for Ctr {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kill(time: &str) -> Event {
        let event = json!({
            "schema": "oomwatch.oom/1",
            "time": time,
            "boottime_ns": 1_500_000_000,
        });
        Event::from_json(&event).unwrap()
    }

    #[test]
    fn a_line_is_of_one_topic_and_about_one_container() {
        let line = r#"2026-01-01 10:00:00 +0000 UTC default /tasks/oom {"container_id":"web-1"}"#;
        let line = Line::new(line.to_owned());
        assert!(line.is_of_topic(OOM) && !line.is_of_topic("/tasks"));
        assert!(line.is_about("web-1") && !line.is_about("web"));
    }

    #[test]
    fn a_line_with_the_time_of_a_kill_is_ours() {
        let line = "2026-11-25 15:53:44.60410494 +0000 UTC k8s.io /tasks/oom {}";
        let line = Line::new(line.to_owned());
        let is_ours = |time| line.is_published_for(&kill(time)).unwrap();
        assert!(is_ours("2026-11-25T15:53:44.604104940Z"));
        assert!(!is_ours("2026-11-25T15:53:44.604104900Z"));
    }

    #[test]
    fn a_line_is_in_time_by_when_it_came() {
        let mut line = Line::new(String::new());
        line.read = Duration::from_millis(2400);
        let within = |millis| {
            let limit = Duration::from_millis(millis);
            line.was_read_within(limit, &kill("")).unwrap()
        };
        assert!(within(1000) && !within(900));
    }
}
