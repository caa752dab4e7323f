//! The log of a daemon: a stderr that nobody reads, and a stranger who would fill it.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _, pipe},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use oomwatch_tests::{daemon::Daemon, host, host::Limited, wait::wait_for_exit};
use rustix::pipe::fcntl_setpipe_size;
use serde_json::Value;

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(20);
const PIPE_BYTES: usize = 4096;
/// More lines than the log's queue and its pipe hold.
const LINES: usize = 2000;

fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    fcntl_setpipe_size(&writer, PIPE_BYTES).unwrap();
    (reader, writer)
}

/// A daemon whose log is a pipe, asked so often for nonsense that its log does not fit.
fn daemon_with_much_to_say(oomwatch: &Path, control: &Path, log: PipeWriter) -> Daemon {
    let mut command = Command::new(oomwatch);
    command
        .args(["--log-format", "json", "run", "--output", "json"])
        .args(["--discover", "none", "--control"])
        .arg(control)
        .env("RUST_LOG", "oomwatch=debug");
    let daemon = Daemon::spawn_with_log(command, log.into()).unwrap();
    for _ in 0..LINES {
        // Each leaves a line at level debug.
        let mut stream = UnixStream::connect(control).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"nonsense\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    daemon
}

fn kill_one(limited: &Limited, daemon: &Daemon) {
    let victim = limited
        .kill_a_hog(Path::new(HOG), "log-hog", limited.identity())
        .unwrap();
    daemon
        .wait_for_event(LIMIT, "of the victim", |event| {
            event.victim_pid().is_ok_and(|pid| pid == victim)
        })
        .unwrap();
}

/// It held up the only thread: no request was answered, no kill told, and SIGTERM did nothing.
#[test]
fn a_log_that_nobody_reads_delays_neither_events_nor_the_end() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_log_that_nobody_reads_delays_neither_events_nor_the_end";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited("unread-log").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (_unread, log) = small_pipe();
    let daemon = daemon_with_much_to_say(&oomwatch, &dir.path().join("control"), log);
    kill_one(&limited, &daemon);
    let output = daemon.stop().unwrap();
    assert!(output.malformed.is_empty(), "{:?}", output.malformed);
}

#[test]
fn a_log_that_is_read_late_says_how_many_lines_are_missing() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_log_that_is_read_late_says_how_many_lines_are_missing";
    if host::layout_or_skip(test, &oomwatch).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (late, log) = small_pipe();
    let daemon = daemon_with_much_to_say(&oomwatch, &dir.path().join("control"), log);
    let lines = lines_of(late);
    let next = || lines.recv_timeout(LIMIT).unwrap();

    let (mut read, mut missing) = (0, 0);
    while read + missing < LINES {
        let line = next();
        match line["fields"]["message"].as_str().unwrap() {
            "a connection to the API ended" => read += 1,
            message if message.contains("log lines were dropped") => {
                assert_eq!(line["level"], "WARN", "{line}");
                let dropped = line["fields"]["dropped"].as_u64().unwrap();
                missing += usize::try_from(dropped).unwrap();
            }
            _ => {}
        }
    }
    assert!(read > 0 && missing > 0, "{read} read, {missing} missing");
    daemon.stop().unwrap();
    while next()["fields"]["message"] != "stopped" {}
}

/// The lines of a log, as they come.
fn lines_of(log: PipeReader) -> Receiver<Value> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines() {
            let line = serde_json::from_str(&line.unwrap()).unwrap();
            let _ = sender.send(line);
        }
    });
    lines
}

/// A command that fails, with a log that has no room for why.
fn failing_with_full_log(test: &str) -> (Child, PipeReader) {
    let (reader, mut log) = small_pipe();
    log.write_all(&[b'.'; PIPE_BYTES]).unwrap();
    let absent = std::env::temp_dir().join(format!("oomwatch-{}-{test}", std::process::id()));
    let child = Command::new(host::oomwatch().unwrap())
        .args(["list", "--control"])
        .arg(absent)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    (child, reader)
}

#[test]
fn a_command_that_cannot_say_why_it_fails_ends_all_the_same() {
    let (mut child, _unread) = failing_with_full_log("unread");
    let status = wait_for_exit(&mut child, LIMIT, "oomwatch list").unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_command_waits_a_moment_for_whoever_reads_why_it_fails() {
    let (mut child, mut reader) = failing_with_full_log("read");
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    let status = wait_for_exit(&mut child, LIMIT, "oomwatch list").unwrap();
    assert_eq!(status.code(), Some(1));
    let why = log.trim_start_matches('.');
    assert!(
        why.starts_with("oomwatch: ") && why.ends_with('\n'),
        "{why:?}"
    );
    assert_eq!(why.lines().count(), 1, "{why:?}");
}

/// Each of them left a line once. The test makes them as root, under a name that is taken.
#[test]
fn a_user_who_makes_cgroups_with_a_containers_name_leaves_a_few_lines() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_user_who_makes_cgroups_with_a_containers_name_leaves_a_few_lines";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let id = format!(
        "{:064x}",
        0xf100_d000_0000_u64 + u64::from(std::process::id())
    );
    let name = format!("docker-{id}.scope");
    let own = layout.limited("log-flood").unwrap();
    let _container = own.identity().child(&name).unwrap();
    let user = layout.limited("log-flood-user").unwrap();
    let last = layout.limited("log-flood-last").unwrap();
    let daemon = Daemon::start(&oomwatch, &["--discover", "cgroup"]).unwrap();
    let forged = user.identity().path().join(&name);
    for _ in 0..LINES {
        std::fs::create_dir(&forged).unwrap();
        std::fs::remove_dir(&forged).unwrap();
    }
    // Its record comes after all of theirs.
    kill_one(&last, &daemon);
    let lines = daemon.stop().unwrap().errors;
    assert!(lines.len() <= 20, "{} lines: {lines:#?}", lines.len());
}
