//! The example `embed`, with a real kill: what the library's bare interface gives.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use oomwatch_tests::{
    host::{self, Limited},
    wait::wait_for_exit,
};
use rustix::process::{Pid, Signal, kill_process};

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(30);

/// A running `embed`; killed on drop.
struct Embed {
    child: Child,
    lines: Receiver<String>,
    log: Receiver<String>,
}

impl Drop for Embed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Embed {
    /// Starts it and waits until it watches.
    fn start(cgroup: &Path) -> Self {
        let mut child = Command::new(host::example("embed").unwrap())
            .arg(cgroup)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let log = lines_of(child.stderr.take().unwrap());
        let embed = Self { child, lines, log };
        let first = embed.log.recv_timeout(LIMIT).unwrap();
        assert!(first.starts_with("watching "), "{first}");
        embed
    }

    /// Ctrl-C.
    fn interrupt(&mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        let status = wait_for_exit(&mut self.child, LIMIT, "embed").unwrap();
        assert!(status.success(), "{status}");
    }
}

/// The channel ends with the pipe.
fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn kill_in(limited: &Limited, comm: &str) -> u32 {
    let identity = limited.identity();
    limited.kill_a_hog(Path::new(HOG), comm, identity).unwrap()
}

#[test]
fn embed_prints_the_kills_of_its_cgroup_and_no_others() {
    let test = "embed_prints_the_kills_of_its_cgroup_and_no_others";
    let oomwatch = host::oomwatch().unwrap();
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let (ours, other) = (
        layout.limited("embedded").unwrap(),
        layout.limited("not-embedded").unwrap(),
    );
    let mut embed = Embed::start(ours.identity().path());
    kill_in(&other, "stranger");
    let victim = kill_in(&ours, "embedded-hog");
    let line = embed.lines.recv_timeout(LIMIT).unwrap();
    assert!(line.contains(&format!("[{victim}]")), "{line}");
    assert!(line.contains("watched"), "{line}");

    embed.interrupt();
    assert_eq!(embed.lines.iter().next(), None);
    let last = embed.log.iter().last().unwrap();
    assert!(last.ends_with("kills on this host"), "{last}");
}
