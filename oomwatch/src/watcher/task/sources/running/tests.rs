use std::{
    os::unix::net::UnixListener,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use super::*;
use crate::containers::sighting::RuntimeApi;

const LIMIT: Duration = Duration::from_secs(20);

fn hierarchy() -> Hierarchy {
    Hierarchy::at("/nowhere")
}

fn docker(directory: &tempfile::TempDir, name: &str) -> RuntimeSocket {
    RuntimeSocket::new(RuntimeApi::Docker, directory.path().join(name))
}

/// Says where it is as it is dropped.
struct Told(Sender<Option<String>>);

impl Drop for Told {
    fn drop(&mut self) {
        let name = thread::current().name().map(str::to_owned);
        let _ = self.0.send(name);
    }
}

#[tokio::test]
async fn a_source_is_followed_and_one_that_is_there_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let there = docker(&directory, "there");
    let _listener = UnixListener::bind(&there.path).unwrap();
    let (wanted, absent) = (docker(&directory, "wanted"), docker(&directory, "absent"));
    let possible = [absent, there.clone()];
    let mut sources =
        Sources::start(std::slice::from_ref(&wanted), &possible, &hierarchy()).unwrap();
    // It cannot connect, and says so.
    let api = RuntimeApi::Docker;
    let (number, sighting) = tokio::time::timeout(LIMIT, sources.next()).await.unwrap();
    assert_eq!((number, sighting), (0, Sighting::Lost { api }));
    let appeared = async {
        while sources.followed().count() < 2 {
            let _ = tokio::time::timeout(Duration::from_millis(10), sources.next()).await;
        }
    };
    tokio::time::timeout(LIMIT, appeared).await.unwrap();
    let followed: Vec<_> = sources.followed().collect();
    assert_eq!(followed, [(0, &wanted), (1, &there)]);
}

#[test]
fn where_nothing_is_to_be_followed_there_is_no_thread() {
    let sources = Sources::start(&[], &[], &hierarchy()).unwrap();
    assert!(sources._thread.is_none());
}

#[tokio::test]
async fn the_sources_end_with_their_owner_on_their_own_thread() {
    let (sender, dropped) = channel();
    let told = Told(sender);
    let thread = Thread::start(async move {
        let _told = told;
        std::future::pending::<()>().await;
    })
    .unwrap();
    drop(thread);
    let name = dropped.recv_timeout(LIMIT).unwrap();
    assert_eq!(name.as_deref(), Some("oomwatch-sources"));
}

/// A read of `/proc/PID/cgroup`, or of a socket's place, may hang.
#[tokio::test]
async fn a_source_that_hangs_in_a_file_holds_up_nobody() {
    let (hanging, hangs) = channel();
    let (go, gone_on) = channel::<()>();
    let thread = Thread::start(async move {
        hanging.send(()).unwrap();
        let _ = gone_on.recv();
    })
    .unwrap();
    hangs.recv_timeout(LIMIT).unwrap();
    // Returns at once, while the thread still waits.
    drop(thread);
    go.send(()).unwrap();
}
