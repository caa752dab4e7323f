//! A daemon that is asked while it watches: its control socket, the commands for it, and a real kill that all of
//! them tell of.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use oomwatch_tests::{daemon::Daemon, host, wait::wait_for_exit};
use serde_json::Value;

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(20);

/// A directory of this test's own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("oomwatch-api-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The commands that ask one daemon.
struct Asking<'a> {
    oomwatch: &'a Path,
    control: &'a str,
}

impl Asking<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.oomwatch);
        command
            .args(arguments)
            .args(["--control", self.control])
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it says, once it went well.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it is refused.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let says = self.says(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&says).unwrap()
    }

    fn follow(&self) -> Child {
        let mut command = self.command(&["events", "--follow", "--output", "json"]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

#[test]
fn a_running_daemon_is_asked_and_told() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_running_daemon_is_asked_and_told";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let dir = Dir::new();
    let control = dir.path("control");
    let state_dir = dir.path("state");
    let daemon = Daemon::start(
        &oomwatch,
        &[
            "--discover",
            "none",
            "--control",
            &control,
            "--state-dir",
            &state_dir,
        ],
    );
    let daemon = daemon.unwrap();
    let asking = Asking {
        oomwatch: &oomwatch,
        control: &control,
    };
    assert_eq!(asking.says(&["list"]), "no containers are registered\n");

    let web = layout.limited("api").unwrap();
    let cgroup = web.identity().path().to_str().unwrap().to_owned();
    assert_eq!(
        asking.says(&["add", "web/1", &cgroup]),
        "registered web/1\n"
    );
    let refused = asking.refused(&["add", "web/1", &cgroup]);
    assert!(refused.contains("registered already"), "{refused}");
    let refused = asking.refused(&["add", "web-2", "/nowhere/at/all"]);
    assert!(refused.contains("/nowhere/at/all"), "{refused}");
    let listed = asking.says(&["list"]);
    assert!(listed.contains("web/1"), "{listed}");

    let mut follower = asking.follow();
    let victim = web
        .kill_a_hog(Path::new(HOG), "api-hog", web.identity())
        .unwrap();
    daemon
        .wait_for_event(LIMIT, "for web/1", |event| {
            event.victim_pid().is_ok_and(|pid| pid == victim)
        })
        .unwrap();
    let followed = BufReader::new(follower.stdout.take().unwrap());
    let of_victim =
        |event: &Value| event["victim"]["pid"] == victim && event["container"]["id"] == "web/1";
    let mut lines = followed.lines();
    let told = lines.find(|line| {
        let event: Value = serde_json::from_str(line.as_ref().unwrap()).unwrap();
        of_victim(&event)
    });
    assert!(told.is_some(), "the stream ended before the kill");
    let events = asking.says(&["events"]);
    assert!(events.contains(&format!("api-hog[{victim}]")), "{events}");
    let containers = asking.json(&["list"]);
    let status = asking.json(&["status"]);
    let counted = status["has_counters"] == true;
    let kills = if counted { Value::from(1) } else { Value::Null };
    assert_eq!(containers["containers"][0]["kills"], kills, "{containers}");
    assert!(status["kills"].as_u64().unwrap() >= 1, "{status}");

    assert_eq!(asking.says(&["remove", "web/1"]), "removed web/1\n");
    let refused = asking.refused(&["remove", "web/1"]);
    assert!(refused.contains("no container web/1"), "{refused}");
    let second = asking.refused(&["run", "--output", "none"]);
    assert!(second.contains("another oomwatch answers"), "{second}");

    daemon.stop().unwrap();
    // Whoever follows hears of the end, and the socket is gone.
    let status = wait_for_exit(&mut follower, LIMIT, "events --follow").unwrap();
    let mut words = String::new();
    follower
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut words)
        .unwrap();
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(words.contains("has stopped"), "{words}");
    assert!(!Path::new(&control).exists());
}

#[test]
fn a_listener_tells_and_changes_nothing() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_listener_tells_and_changes_nothing";
    if host::layout_or_skip(test, &oomwatch).is_none() {
        return;
    }
    let daemon = Daemon::start(
        &oomwatch,
        &["--discover", "none", "--listen", "127.0.0.1:0"],
    )
    .unwrap();
    let address = daemon.listens_at().unwrap();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let headers = "Host: localhost\r\nConnection: close";
        write!(stream, "{request} HTTP/1.1\r\n{headers}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask("GET /readyz").starts_with("HTTP/1.1 200"));
    assert!(ask("GET /").contains("content-security-policy"));
    assert!(ask("DELETE /v1/containers/web-1").starts_with("HTTP/1.1 404"));
    daemon.stop().unwrap();
}
