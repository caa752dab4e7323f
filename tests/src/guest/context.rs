//! What every scenario is given.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    case::KILL_LIMIT,
    report::{Outcome, Report},
    scenarios::TOO_MUCH_BYTES,
};
use crate::{
    cgroup::Cgroup,
    event::Event,
    hog::{Hog, HogSpec},
    wait::wait_for_exit,
};

/// Far beyond what any command that ends by itself needs.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The machine, as far as scenarios care.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// The program under test.
    pub(super) oomwatch: PathBuf,
    /// This program, to be run again as a hog.
    pub(super) program: PathBuf,
    /// The root of the cgroup hierarchy.
    pub(super) cgroups: PathBuf,
    /// Whether to do without oomwatch.
    pub(super) dry: bool,
    /// How often scenarios with container runtimes do what is to be done often.
    pub(super) rounds: u32,
    /// Name of the scenario that runs.
    pub(super) scenario: &'static str,
    /// Where notes go.
    pub(super) report: Report,
}

impl Context {
    /// A cgroup right below the root.
    pub(super) fn cgroup(&self, name: &str) -> Result<Cgroup> {
        Cgroup::create(self.cgroups.join(name))
    }

    /// A hog that is as likely a victim as any other process.
    pub(super) fn hog(&self, comm: &str) -> HogSpec {
        HogSpec::new(&self.program, comm).oom_score_adj(0)
    }

    /// The outcome of a scenario that is about nothing but oomwatch, in a run without it.
    pub(super) fn dry_skip(&self) -> Option<Outcome> {
        let reason = "nothing to see on the kernel's side alone (oomwatch.dry=1)";
        self.dry.then(|| Outcome::Skipped(reason.to_owned()))
    }

    /// `oomwatch ARGUMENTS`, not started yet.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.oomwatch);
        command.args(arguments);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a command that shall end by itself. One that does not is killed, and an error.
    pub(super) fn run_to_end(&self, mut command: Command) -> Result<Output> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let (stdout, stderr) = (
            read_aside(child.stdout.take()),
            read_aside(child.stderr.take()),
        );
        let status = wait_for_exit(&mut child, COMMAND_LIMIT, &format!("{command:?}"));
        if status.is_err() {
            end(&mut child);
        }
        let output = Output {
            status: status?,
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        };
        Ok(output)
    }

    /// Makes a process the victim of a cgroup's limit; returns its id.
    pub(super) fn lose_a_process(&self, comm: &str, cgroup: &Cgroup) -> Result<u32> {
        let mut hog = Hog::spawn(&self.hog(comm))?;
        cgroup.add(hog.pid())?;
        hog.start_allocating(TOO_MUCH_BYTES)?;
        hog.wait_killed(KILL_LIMIT)?;
        Ok(hog.pid())
    }

    /// The events in a store, by `oomwatch history` with `filter`.
    pub(super) fn history(&self, state: &Path, filter: &[&str]) -> Result<Vec<Event>> {
        let mut command = self.command(&["history", "--output", "json"]);
        command.args(filter).arg("--state-dir").arg(state);
        let output = self.run_to_end(command)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "oomwatch history: {errors}");
        let text = String::from_utf8(output.stdout).context("oomwatch history")?;
        text.lines()
            .map(|line| {
                let value = serde_json::from_str(line)?;
                Event::from_json(&value).with_context(|| format!("no event: {line}"))
            })
            .collect()
    }

    /// Puts all that a command wrote into the report.
    pub(super) fn note_output(&self, name: &str, output: &Output) {
        for bytes in [&output.stdout, &output.stderr] {
            for line in String::from_utf8_lossy(bytes).lines() {
                self.report.note(&format!("{name}: {line}"));
            }
        }
    }
}

/// Reads a pipe to its end in a thread, so that a program with much to say does not stall.
fn read_aside(pipe: Option<impl std::io::Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
