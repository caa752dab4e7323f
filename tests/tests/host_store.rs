//! Kills on their way into the history: beside a stranger who makes and removes cgroups while the disk is slow,
//! and in a container that its runtime does not name.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use oomwatch_tests::{
    cgroup::Cgroup,
    daemon::Daemon,
    event::Event,
    host::{self, Layout, Limited},
};
use rusqlite::Connection;

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(30);
const KILLS: usize = 20;
/// More than the batches that once had places in the store's queue.
const CHURN: usize = 1500;

fn killed(limited: &Limited, kills: usize) -> BTreeSet<u32> {
    let one = || limited.kill_a_hog(Path::new(HOG), "store-hog", limited.identity());
    (0..kills).map(|_| one().unwrap()).collect()
}

fn assert_each_once(found: &[u32], victims: &BTreeSet<u32>) {
    for victim in victims {
        let times = found.iter().filter(|pid| *pid == victim).count();
        assert_eq!(times, 1, "{victim} of {victims:?}");
    }
}

/// Makes and removes cgroups with names of containers.
fn churn(layout: &Layout) {
    let dir = layout
        .unified()
        .join(format!("oomwatch-tests-{}-churn", std::process::id()));
    let user = Cgroup::create(dir).unwrap();
    for number in 0..CHURN {
        let path = user.path().join(format!("docker-{number:064x}.scope"));
        fs::create_dir(&path).unwrap();
        fs::remove_dir(&path).unwrap();
    }
}

/// Each removal took a place of the queue, and the kills found none.
#[test]
fn cgroups_that_come_and_go_cost_the_history_no_kill_while_the_disk_is_slow() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "cgroups_that_come_and_go_cost_the_history_no_kill_while_the_disk_is_slow";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited("slow-disk").unwrap();
    let state = tempfile::tempdir().unwrap();
    let arguments = ["--discover", "cgroup", "--state-dir"].map(Into::into);
    let arguments: Vec<std::ffi::OsString> = [&arguments[..], &[state.path().into()]].concat();
    let daemon = Daemon::start(&oomwatch, &arguments).unwrap();
    let held = Connection::open(state.path().join("oomwatch.db")).unwrap();
    held.busy_timeout(LIMIT).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    churn(&layout);
    let victims = killed(&limited, KILLS);
    assert!(daemon.wait_for_kills(LIMIT, KILLS), "told all the same");
    churn(&layout);
    held.execute_batch("ROLLBACK").unwrap();
    drop(held);
    daemon.stop().unwrap();
    assert_each_once(
        &host::victims_in_history(&oomwatch, state.path()).unwrap(),
        &victims,
    );
}

/// A Docker that has no containers and tells of none.
fn nameless_docker(path: &Path) -> Arc<AtomicBool> {
    let listener = UnixListener::bind(path).unwrap();
    let is_followed = Arc::new(AtomicBool::new(false));
    let followed = Arc::clone(&is_followed);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let followed = Arc::clone(&followed);
            thread::spawn(move || answer(stream, &followed));
        }
    });
    is_followed
}

/// One connection: the stream of events stays open, anything else is answered with nothing.
fn answer(mut stream: UnixStream, is_followed: &AtomicBool) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        let rest = if request.contains("/events") {
            "Transfer-Encoding: chunked\r\n\r\n"
        } else if request.contains("/containers/json") {
            is_followed.store(true, Ordering::Release);
            "Content-Length: 2\r\n\r\n[]"
        } else {
            "Content-Length: 2\r\n\r\n{}"
        };
        if stream
            .write_all(format!("{head}{rest}").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

/// Each waits for a name that does not come: in its order, for its own time, and into the history.
#[test]
fn a_container_that_its_runtime_does_not_name_is_told_in_order() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_container_that_its_runtime_does_not_name_is_told_in_order";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited("nameless").unwrap();
    let container = limited
        .below(&format!("docker-{}.scope", "d".repeat(64)))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (socket, state) = (dir.path().join("docker.sock"), dir.path().join("state"));
    let is_followed = nameless_docker(&socket);
    let socket = format!("docker={}", socket.display());
    let arguments = ["--discover", "docker", "--socket", &socket, "--state-dir"];
    let mut arguments: Vec<std::ffi::OsString> = arguments.map(Into::into).to_vec();
    arguments.push(state.clone().into());
    let daemon = Daemon::start(&oomwatch, &arguments).unwrap();
    oomwatch_tests::wait::wait_until(LIMIT, "the listing", || {
        Ok(is_followed.load(Ordering::Acquire).then_some(()))
    })
    .unwrap();
    let mut victims = BTreeSet::new();
    for _ in 0..KILLS {
        victims.insert(
            limited
                .kill_a_hog(Path::new(HOG), "nameless", &container)
                .unwrap(),
        );
    }
    assert!(daemon.wait_for_kills(LIMIT, KILLS), "all are told");
    let output = daemon.stop().unwrap();
    let is_ours = |event: &&Event| event.victim_pid().is_ok_and(|pid| victims.contains(&pid));
    let seqs: Vec<u64> = output
        .events
        .iter()
        .filter(is_ours)
        .map(|event| event.number("seq").unwrap())
        .collect();
    assert_eq!(seqs.len(), KILLS);
    assert!(seqs.is_sorted(), "{seqs:?}");
    assert_each_once(
        &host::victims_in_history(&oomwatch, &state).unwrap(),
        &victims,
    );
}
