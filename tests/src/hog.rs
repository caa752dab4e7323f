//! The memory eater, seen from the test that spawns it.
//!
//! A hog is this package's own program run again as `PROGRAM hog …`. It obeys commands on its
//! standard input (see [`body`]), so that a test first moves it into a cgroup and only then lets
//! it allocate or fork. It ends when its input ends, so it never outlives its test.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Write},
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::wait::wait_for_exit;

pub mod body;
mod brood;
mod held;

pub use held::{Held, reap};

/// One MiB in bytes.
pub const MIB: u64 = 1024 * 1024;

/// How a hog shall look to the kernel.
#[derive(Clone, Debug)]
pub struct HogSpec {
    program: PathBuf,
    comm: OsString,
    threads: u32,
    oom_score_adj: Option<i32>,
}

impl HogSpec {
    /// A hog of one thread, run from `program`, which must understand the word `hog`.
    #[must_use]
    pub fn new(program: &Path, comm: &str) -> Self {
        Self {
            program: program.to_owned(),
            comm: comm.into(),
            threads: 1,
            oom_score_adj: None,
        }
    }

    /// Any bytes but NUL as process name; the kernel keeps the first 15.
    #[must_use]
    pub fn comm(mut self, comm: &[u8]) -> Self {
        self.comm = OsStr::from_bytes(comm).to_owned();
        self
    }

    /// How many threads share each allocation.
    #[must_use]
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// Makes the hog a more or a less likely victim; inherited where not given.
    #[must_use]
    pub fn oom_score_adj(mut self, oom_score_adj: i32) -> Self {
        self.oom_score_adj = Some(oom_score_adj);
        self
    }
}

/// A running hog; killed on drop.
#[derive(Debug)]
pub struct Hog {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Hog {
    /// Starts a hog and waits until it obeys. It has allocated nothing worth mentioning yet.
    pub fn spawn(spec: &HogSpec) -> Result<Self> {
        let mut command = Command::new(&spec.program);
        command.arg("hog").arg("--comm").arg(&spec.comm);
        command.args(["--threads", &spec.threads.to_string()]);
        if let Some(oom_score_adj) = spec.oom_score_adj {
            command.args(["--oom-score-adj", &oom_score_adj.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {} hog", spec.program.display()))?;
        let commands = child.stdin.take().context("the hog has no input")?;
        let answers = BufReader::new(child.stdout.take().context("the hog has no output")?);
        let mut hog = Self {
            child,
            commands,
            answers,
        };
        let answer = hog.answer()?;
        ensure!(answer == "ready", "the hog said `{answer}` for `ready`");
        Ok(hog)
    }

    /// The process id, in this pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Allocates and touches memory, and returns when that is done.
    pub fn allocate(&mut self, bytes: u64) -> Result<()> {
        self.start_allocating(bytes)?;
        self.finish()
    }

    /// Starts an allocation that it may not survive.
    pub fn start_allocating(&mut self, bytes: u64) -> Result<()> {
        self.command(&format!("alloc {bytes}"))
    }

    /// Waits for the end of what was started before.
    pub fn finish(&mut self) -> Result<()> {
        let answer = self.answer()?;
        ensure!(answer == "ok", "the hog said `{answer}` for `ok`");
        Ok(())
    }

    /// Forks processes that hold `bytes` each and then sleep; returns their ids.
    pub fn fork(&mut self, processes: u32, bytes: u64) -> Result<Vec<u32>> {
        self.command(&format!("fork {processes} {bytes}"))?;
        self.pids()
    }

    /// Forks copies of the hog, which cost little; returns their ids. They wait for
    /// [`Self::release`] to allocate `bytes` each, or, with 0, until they are killed.
    pub fn brood(&mut self, processes: u32, bytes: u64) -> Result<Vec<u32>> {
        self.command(&format!("brood {processes} {bytes}"))?;
        self.pids()
    }

    /// Lets the last brood allocate, waits for its end, and returns who of it was killed.
    pub fn release(&mut self) -> Result<Vec<u32>> {
        self.command("go")?;
        self.pids()
    }

    /// Starts a process that shares the hog's memory without being a thread of it.
    pub fn share_memory(&mut self) -> Result<u32> {
        self.command("share")?;
        self.pids()?.pop().context("no process id")
    }

    /// Waits for its end, and fails unless it was killed by SIGKILL.
    pub fn wait_killed(&mut self, limit: Duration) -> Result<()> {
        let status = self.wait(limit)?;
        ensure!(
            status.signal() == Some(rustix::process::Signal::KILL.as_raw()),
            "hog {} ended by itself: {status}",
            self.pid()
        );
        Ok(())
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self, limit: Duration) -> Result<()> {
        self.child.kill().context("killing a hog")?;
        self.wait(limit).map(drop)
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_for_exit(&mut self.child, limit, "a hog")
    }

    fn command(&mut self, text: &str) -> Result<()> {
        writeln!(self.commands, "{text}").with_context(|| format!("telling a hog `{text}`"))
    }

    fn pids(&mut self) -> Result<Vec<u32>> {
        let answer = self.answer()?;
        let mut words = answer.split_whitespace();
        ensure!(words.next() == Some("ok"), "the hog said `{answer}`");
        words
            .map(|pid| pid.parse().with_context(|| format!("pid in `{answer}`")))
            .collect()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        if read.context("listening to a hog")? == 0 {
            bail!("hog {} is gone", self.pid());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // Both fail only where it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
