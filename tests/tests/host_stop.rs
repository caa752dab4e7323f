//! The end: what was killed before it is told, what cannot be told is said, and a watcher that ends by itself
//! takes the process with it.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    io::{BufRead as _, BufReader, PipeReader, PipeWriter, pipe},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use oomwatch_tests::{
    host::{self, Layout, Limited},
    notify::NotifySocket,
    wait::wait_for_exit,
};
use rustix::{
    pipe::fcntl_setpipe_size,
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(30);
const FAILURE: i32 = 1;
/// As many kills as a pipe of a page has no room for.
const KILLS: usize = 8;
const PIPE_BYTES: usize = 4096;
const ROUNDS: usize = 5;

/// A daemon whose standard output is this pipe.
struct Running {
    child: Child,
    log: thread::JoinHandle<String>,
}

impl Running {
    fn start(oomwatch: &Path, stdout: PipeWriter, drill: &str) -> Self {
        let ready = NotifySocket::bind().unwrap();
        let mut running = Self::spawn(oomwatch, "json", stdout.into(), &ready, drill);
        ready.wait_ready(&mut running.child, LIMIT).unwrap();
        running
    }

    fn spawn(
        oomwatch: &Path,
        output: &str,
        stdout: Stdio,
        ready: &NotifySocket,
        drill: &str,
    ) -> Self {
        let mut child = Command::new(oomwatch)
            .args(["run", "--discover", "none", "--output", output])
            .env("OOMWATCH_CONTROL", "none")
            .env("OOMWATCH_DRILL", drill)
            .env("NOTIFY_SOCKET", ready.path())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = child.stderr.take().unwrap();
        let log = thread::spawn(move || std::io::read_to_string(errors).unwrap());
        Self { child, log }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
    }

    /// How it ended, and its log.
    fn ended(mut self) -> (ExitStatus, String) {
        let status = wait_for_exit(&mut self.child, LIMIT, "oomwatch run").unwrap();
        (status, self.log.join().unwrap())
    }
}

fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    fcntl_setpipe_size(&writer, PIPE_BYTES).unwrap();
    (reader, writer)
}

fn killed(limited: &Limited, kills: usize) -> Vec<u64> {
    let one = || limited.kill_a_hog(Path::new(HOG), "stop-hog", limited.identity());
    (0..kills).map(|_| u64::from(one().unwrap())).collect()
}

/// Process ids of the victims in whole lines.
fn read(stdout: PipeReader) -> Vec<u64> {
    let lines = BufReader::new(stdout).lines().map(Result::unwrap);
    let event = |line: String| -> Value { serde_json::from_str(&line).unwrap() };
    lines
        .filter_map(|line| event(line).pointer("/victim/pid")?.as_u64())
        .collect()
}

fn told(found: &[u64], victims: &[u64]) -> usize {
    let one = |victim: &&u64| found.iter().filter(|pid| pid == victim).count() == 1;
    victims.iter().filter(one).count()
}

fn layout_or_skip(test: &str, oomwatch: &Path) -> Option<Layout> {
    host::layout_or_skip(test, oomwatch)
}

#[test]
fn a_kill_right_before_the_end_is_on_standard_output() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_kill_right_before_the_end_is_on_standard_output";
    let Some(layout) = layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited("before-the-end").unwrap();
    for round in 0..ROUNDS {
        let (reader, writer) = pipe().unwrap();
        let running = Running::start(&oomwatch, writer, "");
        let victims = killed(&limited, 1);
        running.signal(Signal::TERM);
        let found = read(reader);
        let (status, log) = running.ended();
        assert!(status.success(), "{status}: {log}");
        assert_eq!(told(&found, &victims), 1, "round {round}: {log}");
    }
}

/// It had told them to a thread that nobody waited for.
#[test]
fn who_reads_standard_output_late_gets_all_of_it() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "who_reads_standard_output_late_gets_all_of_it";
    let Some(layout) = layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited("late-reader").unwrap();
    for is_in_the_ring in [false, true] {
        let (reader, writer) = small_pipe();
        let running = Running::start(&oomwatch, writer, "");
        if is_in_the_ring {
            running.signal(Signal::STOP);
        }
        let victims = killed(&limited, KILLS);
        running.signal(Signal::TERM);
        running.signal(Signal::CONT);
        let found = read(reader);
        let (status, log) = running.ended();
        assert!(status.success(), "{status}: {log}");
        assert_eq!(told(&found, &victims), KILLS, "{log}");
    }
}

#[test]
fn what_nobody_reads_until_the_end_is_lost_and_said() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "what_nobody_reads_until_the_end_is_lost_and_said";
    let Some(layout) = layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited("no-reader").unwrap();
    let (reader, writer) = small_pipe();
    let running = Running::start(&oomwatch, writer, "");
    let victims = killed(&limited, KILLS);
    running.signal(Signal::TERM);
    let (status, log) = running.ended();
    assert_eq!(status.code(), Some(FAILURE), "{log}");
    assert!(
        log.contains("stdout did not take all events before the end"),
        "{log}"
    );
    assert!(read_whole(reader, &victims) < KILLS, "{log}");
}

/// The last line may be cut off.
fn read_whole(stdout: PipeReader, victims: &[u64]) -> usize {
    let text = std::io::read_to_string(stdout).unwrap();
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let found: Vec<u64> = events
        .filter_map(|event: Value| event.pointer("/victim/pid")?.as_u64())
        .collect();
    told(&found, victims)
}

/// A watcher that was gone without a word: with `--output none` the process went on for ever, and looked ready;
/// otherwise it ended with code 0.
#[test]
fn the_end_of_the_watcher_ends_the_process_with_code_1() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "the_end_of_the_watcher_ends_the_process_with_code_1";
    if layout_or_skip(test, &oomwatch).is_none() {
        return;
    }
    for (drill, said) in [
        ("running=panic", "ended by a defect"),
        ("readable=fail", "cannot be read any more"),
    ] {
        for output in ["none", "json"] {
            let ready = NotifySocket::bind().unwrap();
            let started = Instant::now();
            let running = Running::spawn(&oomwatch, output, Stdio::null(), &ready, drill);
            let (status, log) = running.ended();
            assert_eq!(status.code(), Some(FAILURE), "{drill}, {output}: {log}");
            assert!(log.contains(said), "{drill}, {output}: {log}");
            assert!(started.elapsed() < LIMIT, "{drill}, {output}");
        }
    }
}
