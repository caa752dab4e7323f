//! A start that fails or is killed: it loses nothing of what was pinned, and tells nothing twice.
//!
//! Debug builds of oomwatch end themselves at a place of the start that `OOMWATCH_DRILL` names.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use oomwatch_tests::{
    daemon::Daemon,
    host::{self, BpfFs, Limited},
    wait::wait_for_exit,
};
use serde_json::Value;

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(20);
/// The steps of a start, in their order.
const STEPS: [&str; 8] = [
    "checked",
    "attached",
    "opened",
    "scanned",
    "registered",
    "read",
    "published",
    "running",
];
/// What follows once the store has the events.
const STORED: [&str; 2] = ["stored", "handed-over"];
/// Another size than the usual: another generation of programs, which takes over.
const OTHER_RING: [&str; 2] = ["--ring-size", "524288"];

/// A pin directory, a store or none, and what was killed so far.
struct Host<'a> {
    oomwatch: &'a Path,
    bpffs: BpfFs,
    state: Option<tempfile::TempDir>,
    limited: &'a Limited,
    killed: Vec<u32>,
    /// Process ids of the victims that were told on standard output.
    told: Vec<u32>,
}

impl<'a> Host<'a> {
    fn new(oomwatch: &'a Path, limited: &'a Limited, stores: bool) -> Self {
        Self {
            oomwatch,
            bpffs: BpfFs::mount().unwrap(),
            state: stores.then(|| tempfile::tempdir().unwrap()),
            limited,
            killed: Vec::new(),
            told: Vec::new(),
        }
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(self.oomwatch);
        command
            .args(["--log-format", "json", "run", "--output", "json"])
            .args(["--discover", "none", "--pin"])
            .arg(self.bpffs.pins())
            .args(more);
        if let Some(state) = &self.state {
            command.arg("--state-dir").arg(state.path());
        }
        command
    }

    fn kill(&mut self) {
        let identity = self.limited.identity();
        let victim = self.limited.kill_a_hog(Path::new(HOG), "hog", identity);
        self.killed.push(victim.unwrap());
    }

    /// A run that ends in order.
    fn run(&mut self, more: &[&str]) {
        let output = Daemon::spawn(self.command(more)).unwrap().stop().unwrap();
        let pids = output.events.iter().map(|event| event.victim_pid());
        self.told.extend(pids.map(Result::unwrap));
    }

    /// A run that is not to be ready, or not for long.
    fn try_run(&mut self, more: &[&str], drill: &str) -> Output {
        let mut command = self.command(more);
        command
            .env("OOMWATCH_DRILL", drill)
            .env("OOMWATCH_CONTROL", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait_for_exit(&mut child, LIMIT, "a start that is not to succeed").unwrap();
        let output = child.wait_with_output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout);
        let events = lines.lines().filter_map(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            u32::try_from(event.pointer("/victim/pid")?.as_u64()?).ok()
        });
        self.told.extend(events);
        output
    }

    /// Others are killed on this machine too.
    fn count(&self, found: &[u32], victim: u32) -> usize {
        found.iter().filter(|pid| **pid == victim).count()
    }

    /// With a store each is in the history once; without one each is told, at least once.
    fn check(&self, what: &str) {
        if let Some(state) = &self.state {
            let history = host::victims_in_history(self.oomwatch, state.path()).unwrap();
            for victim in &self.killed {
                let kept = self.count(&history, *victim);
                assert_eq!(
                    kept, 1,
                    "{what}: {victim} of {:?} in the history",
                    self.killed
                );
            }
        } else {
            for victim in &self.killed {
                let told = self.count(&self.told, *victim);
                assert!(told > 0, "{what}: {victim} of {:?} is lost", self.killed);
            }
        }
    }
}

fn with_host(test: &str, stores: bool, work: impl FnOnce(Host<'_>)) {
    let oomwatch = host::oomwatch().unwrap();
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited(test).unwrap();
    work(Host::new(&oomwatch, &limited, stores));
}

/// Killed after each step, with kills before it, between two of them, and with programs that take over.
fn killed_after_each_step(mut host: Host<'_>, steps: &[&str]) {
    host.run(&[]);
    for step in steps {
        for ring in [&[][..], &OTHER_RING] {
            host.kill();
            let output = host.try_run(ring, &format!("{step}=kill"));
            assert_eq!(output.status.signal(), Some(9), "{step} is not reached");
        }
        host.kill();
    }
    host.run(&[]);
    assert_eq!(host.bpffs.generations().unwrap(), 1, "older ones are left");
    host.check("after each step");
}

#[test]
fn killed_after_each_step_of_the_start_loses_nothing() {
    let test = "killed_after_each_step_of_the_start_loses_nothing";
    with_host(test, false, |host| {
        killed_after_each_step(host, &STEPS);
    });
}

#[test]
fn killed_after_each_step_of_the_start_tells_each_kill_once_to_the_store() {
    let test = "killed_after_each_step_of_the_start_tells_each_kill_once_to_the_store";
    with_host(test, true, |host| {
        killed_after_each_step(host, &[&STEPS[..], &STORED].concat());
    });
}

fn fails(mut host: Host<'_>) {
    let gone = host.limited.identity().path().join("gone");
    let gone = format!("x={}", gone.display());
    for ring in [&[][..], &OTHER_RING] {
        host.run(&[]);
        host.kill();
        let before = host.bpffs.generations().unwrap();
        for _ in 0..3 {
            let arguments = [ring, &["--container", &gone]].concat();
            let output = host.try_run(&arguments, "");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{errors}");
            assert!(errors.contains("there is no cgroup"), "{errors}");
        }
        assert_eq!(host.bpffs.generations().unwrap(), before, "changed");
        host.run(ring);
    }
    host.check("after starts that failed");
    for victim in &host.killed {
        assert_eq!(host.count(&host.told, *victim), 1, "{victim} is told again");
    }
}

/// The ring was read, and the older programs removed, before the container's path was looked at.
#[test]
fn a_start_that_fails_costs_no_kill_in_the_pinned_ring() {
    for stores in [false, true] {
        let test = "a_start_that_fails_costs_no_kill_in_the_pinned_ring";
        with_host(test, stores, fails);
    }
}

/// The older programs went with their ring, and the next start had nothing to store.
#[test]
fn a_store_that_cannot_be_opened_leaves_the_pinned_ring_to_the_next_start() {
    let test = "a_store_that_cannot_be_opened_leaves_the_pinned_ring_to_the_next_start";
    with_host(test, true, |mut host| {
        for ring in [&[][..], &OTHER_RING] {
            host.run(&[]);
            host.kill();
            let state = host.state.as_ref().unwrap().path();
            let held = rusqlite::Connection::open(state.join("oomwatch.db")).unwrap();
            held.execute_batch("BEGIN EXCLUSIVE").unwrap();
            host.run(ring);
            let victim = *host.killed.last().unwrap();
            assert_eq!(host.count(&host.told, victim), 1, "told all the same");
            held.execute_batch("ROLLBACK").unwrap();
            drop(held);
            host.run(ring);
        }
        host.check("after a store that could not be opened");
    });
}

/// After the programs are attached too: what was pinned by this start goes with it.
#[test]
fn a_start_that_fails_late_leaves_what_it_found() {
    let test = "a_start_that_fails_late_leaves_what_it_found";
    with_host(test, false, |mut host| {
        host.run(&[]);
        host.kill();
        let cgroup = host.limited.identity().path().display().to_string();
        // Found by its path first, and then given under another name.
        let container = format!("web={cgroup}");
        let arguments = [
            &OTHER_RING[..],
            &["--all-cgroups", "--container", &container],
        ]
        .concat();
        let output = host.try_run(&arguments, "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("is registered already"), "{errors}");
        assert_eq!(host.bpffs.generations().unwrap(), 1);
        host.run(&OTHER_RING);
        assert_eq!(host.bpffs.generations().unwrap(), 1);
        host.check("after a start that failed late");
    });
}
