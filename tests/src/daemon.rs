//! `oomwatch run` under test: readiness, its lines as they come, and its orderly end.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{event::Event, notify::NotifySocket, wait::wait_for_exit};

mod output;
mod totals;

pub use output::Output;
use output::{Collector, collect};
pub use totals::{ContainerTotals, Stopped};

/// Generous: an emulated processor verifies a program in seconds, not in milliseconds.
const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// As many of its lines as tell why an event did not come.
const LAST_LINES: usize = 20;

fn last(mut lines: Vec<String>) -> String {
    let skipped = lines.len().saturating_sub(LAST_LINES);
    lines.split_off(skipped).join("\n")
}

/// A running daemon; killed on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    collector: Collector,
    readers: Vec<JoinHandle<()>>,
    ready_after: Duration,
}

impl Daemon {
    /// Starts `oomwatch run --output json ARGUMENTS` and waits until it is ready.
    pub fn start<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> Result<Self> {
        Self::start_with_output(program, "json", arguments)
    }

    /// The same with another output format.
    pub fn start_with_output<A: AsRef<OsStr>>(
        program: &Path,
        format: &str,
        arguments: &[A],
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .args(["--log-format", "json", "run", "--output", format])
            .args(arguments);
        Self::spawn(command)
    }

    /// Starts a command that is `oomwatch run`, in whichever way, and waits until it is ready.
    pub fn spawn(command: Command) -> Result<Self> {
        Self::spawn_with_log(command, Stdio::piped())
    }

    /// The same with a stderr of the test's own, which the test reads or leaves unread.
    pub fn spawn_with_log(mut command: Command, log: Stdio) -> Result<Self> {
        let socket = NotifySocket::bind()?;
        let started = Instant::now();
        let mut child = command
            .env("NOTIFY_SOCKET", socket.path())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            // The usual place is for one daemon, and tests run side by side; `--control` overrides it.
            .env("OOMWATCH_CONTROL", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        // It holds the other end of a pipe that is to end with the daemon.
        drop(command);
        let collector = Collector::default();
        let readers = collect(&mut child, &collector)?;
        let mut daemon = Self {
            child,
            collector,
            readers,
            ready_after: Duration::ZERO,
        };
        if let Err(error) = socket.wait_ready(&mut daemon.child, READY_LIMIT) {
            let _ = daemon.child.kill();
            // Its last words may still be in the pipe.
            for reader in daemon.readers.drain(..) {
                let _ = reader.join();
            }
            let errors = daemon.collector.snapshot().errors.join("\n");
            return Err(error).with_context(|| format!("oomwatch run; it wrote:\n{errors}"));
        }
        daemon.ready_after = started.elapsed();
        Ok(daemon)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The time from the start of the process to its `READY=1`.
    #[must_use]
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Waits for an event, including those that came already.
    pub fn wait_for_event(
        &self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Event> {
        self.collector
            .wait(limit, |output| {
                output.events.iter().find(|event| wanted(event)).cloned()
            })
            .with_context(|| {
                let output = self.collector.snapshot();
                let told = output.events.iter().map(ToString::to_string);
                let (told, wrote) = (last(told.collect()), last(output.errors));
                format!("no event {what} within {limit:?}; it told\n{told}\nand wrote\n{wrote}")
            })
    }

    /// Whether there was such an event by now.
    #[must_use]
    pub fn has_event(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.collector.snapshot().events.iter().any(wanted)
    }

    /// Waits until `number` events of kind `kill` came; says whether they did.
    #[must_use]
    pub fn wait_for_kills(&self, limit: Duration, number: usize) -> bool {
        let enough = |output: &Output| {
            let kills = output.events.iter().filter(|event| event.is_kill());
            (kills.count() >= number).then_some(())
        };
        self.collector.wait(limit, enough).is_some()
    }

    /// What it has written by now.
    #[must_use]
    pub fn so_far(&self) -> Output {
        self.collector.snapshot()
    }

    /// Waits until standard output holds something at all; says whether it did.
    #[must_use]
    pub fn wait_for_output(&self, limit: Duration, wanted: impl Fn(&Output) -> bool) -> bool {
        self.collector
            .wait(limit, |output| wanted(output).then_some(()))
            .is_some()
    }

    /// Where `--listen` came to listen, by its log: its line may come after it is ready.
    pub fn listens_at(&self) -> Result<String> {
        let address = |line: &String| {
            let line = serde_json::from_str::<serde_json::Value>(line).ok()?;
            Some(line.pointer("/fields/address")?.as_str()?.to_owned())
        };
        self.collector
            .wait(STOP_LIMIT, |output| output.errors.iter().find_map(address))
            .context("the daemon does not listen")
    }

    /// Ends it as a service manager would, and returns all it ever wrote.
    pub fn stop(mut self) -> Result<Output> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process id")?, Signal::TERM).context("sending SIGTERM")?;
        let status = wait_for_exit(&mut self.child, STOP_LIMIT, "oomwatch run")?;
        let output = self.rest();
        ensure!(
            status.success(),
            "SIGTERM gave {status}, not exit code 0; it wrote:\n{}",
            output.errors.join("\n")
        );
        Ok(output)
    }

    /// Kills it with SIGKILL, and returns all it ever wrote.
    pub fn kill(mut self) -> Result<Output> {
        self.child.kill().context("sending SIGKILL")?;
        self.child.wait().context("waiting for its end")?;
        Ok(self.rest())
    }

    /// The readers end with the pipes, after the last line.
    fn rest(&mut self) -> Output {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.collector.snapshot()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
