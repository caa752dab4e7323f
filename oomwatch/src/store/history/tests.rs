//! Reading a history, and the errors where there is none.

use std::fs;

use super::*;
use crate::{
    containers::container::ContainerDetails,
    event::fixture::{BOOT, event_at, event_in},
    store::{Batch, database::Database, files::Files, fixture::state_dir},
};

const LONG: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn details(name: &str, pod: &str, namespace: &str) -> ContainerDetails {
    ContainerDetails {
        name: Some(name.into()),
        pod: Some(pod.into()),
        namespace: Some(namespace.into()),
        ..ContainerDetails::default()
    }
}

/// Opened by a daemon all the while.
fn filled(dir: &Path) -> (Database, Files) {
    let files = Files::lock(dir).unwrap();
    let (mut database, _) = Database::open_or_begin(&files, BOOT).unwrap();
    let events = vec![
        event_at(1),
        event_in(2, "web-1", details("app", "p1", "blue")),
        event_in(3, "web-10", details("app2", "p1", "green")),
        event_in(4, LONG, details("db", "p2", "blue")),
        event_in(5, "web-1", details("app", "p1", "blue")),
    ];
    let batch = Batch {
        events: events.into_iter().map(Into::into).collect(),
        ..Batch::default()
    };
    database.write(&batch, BOOT).unwrap();
    (database, files)
}

fn seconds(dir: &Path, filter: &HistoryFilter) -> Vec<i128> {
    let entries = History::open(dir).unwrap().entries(filter).unwrap();
    let times = entries.iter().map(|entry| entry.unix_time_ns);
    times.map(|time| time / 1_000_000_000).collect()
}

fn of_container(container: &str) -> HistoryFilter {
    HistoryFilter {
        container: Some(container.into()),
        ..HistoryFilter::default()
    }
}

#[test]
fn everything_comes_back_as_it_was_published() {
    let dir = state_dir();
    let _daemon = filled(dir.path());
    let history = History::open(dir.path()).unwrap();
    let entries = history.entries(&HistoryFilter::default()).unwrap();
    assert_eq!(entries.len(), 5);
    let expected = event_in(2, "web-1", details("app", "p1", "blue"));
    assert_eq!(entries[1].json, expected.to_json());
    assert_eq!(entries[1].text, expected.to_text(false));
    assert_eq!(entries[1].id, expected.id);
    assert_eq!((entries[1].kind.as_str(), entries[1].count), ("kill", 1));
}

#[test]
fn a_container_is_found_by_id_by_the_beginning_of_a_long_one_and_by_name() {
    let dir = state_dir();
    let _daemon = filled(dir.path());
    for (container, expected) in [
        ("web-1", vec![2, 5]),
        ("web-10", vec![3]),
        ("app", vec![2, 5]),
        (LONG, vec![4]),
        (&LONG[..12], vec![4]),
        ("web", vec![]),
        ("", vec![]),
        ("%", vec![]),
        ("0*", vec![]),
    ] {
        let found = seconds(dir.path(), &of_container(container));
        assert_eq!(found, expected, "{container:?}");
    }
}

#[test]
fn one_id_of_two_realms_is_two_keys() {
    let dir = state_dir();
    let (mut database, _files) = filled(dir.path());
    let of_realm = |time, realm: &str| {
        let details = ContainerDetails {
            runtime: Some("containerd".into()),
            realm: Some(realm.into()),
            ..details("app", "p1", "blue")
        };
        event_in(time, "web-1", details).into()
    };
    let batch = Batch {
        events: vec![of_realm(6, "b"), of_realm(7, "a"), of_realm(8, "b")],
        ..Batch::default()
    };
    database.write(&batch, BOOT).unwrap();
    let history = History::open(dir.path()).unwrap();
    let keys = |container: &str, limit| history.keys(&of_container(container), limit).unwrap();
    assert_eq!(
        keys("web-1", 9),
        ["containerd/a/web-1", "containerd/b/web-1"]
    );
    assert_eq!(keys("web-1", 1), ["containerd/a/web-1"]);
    assert_eq!(keys("containerd/b/web-1", 9), ["containerd/b/web-1"]);
    assert_eq!(keys("web-10", 9), [""; 0]);
    assert_eq!(
        seconds(dir.path(), &of_container("containerd/b/web-1")),
        [6, 8]
    );
}

#[test]
fn filters_are_all_to_be_met() {
    let dir = state_dir();
    let _daemon = filled(dir.path());
    let filter = HistoryFilter {
        since_unix_time_ns: Some(2_000_000_001),
        namespace: Some("blue".into()),
        ..HistoryFilter::default()
    };
    assert_eq!(seconds(dir.path(), &filter), [4, 5]);
    let filter = HistoryFilter {
        pod: Some("p1".into()),
        ..filter
    };
    assert_eq!(seconds(dir.path(), &filter), [5]);
}

#[test]
fn a_limit_takes_the_latest_and_begins_with_the_oldest_of_them() {
    let dir = state_dir();
    let _daemon = filled(dir.path());
    let latest = |limit| HistoryFilter {
        limit: Some(limit),
        ..HistoryFilter::default()
    };
    assert_eq!(seconds(dir.path(), &latest(0)), [0_i128; 0]);
    assert_eq!(seconds(dir.path(), &latest(2)), [4, 5]);
    assert_eq!(seconds(dir.path(), &latest(u64::MAX)), [1, 2, 3, 4, 5]);
    let of_container = HistoryFilter {
        limit: Some(1),
        ..of_container("web-1")
    };
    assert_eq!(seconds(dir.path(), &of_container), [5]);
}

#[test]
fn a_long_history_comes_in_pages_and_can_be_broken_off() {
    let dir = state_dir();
    let (mut database, _files) = filled(dir.path());
    // Many at one time: the place between two pages is not the time alone.
    let events = (0..1000).map(|number| {
        let mut event = event_at(9);
        event.id = format!("many-{number}");
        event.into()
    });
    let batch = Batch {
        events: events.collect(),
        ..Batch::default()
    };
    database.write(&batch, BOOT).unwrap();
    let history = History::open(dir.path()).unwrap();
    let entries = history.entries(&HistoryFilter::default()).unwrap();
    assert_eq!(entries.len(), 1005);
    assert_eq!(entries[1004].id, "many-999");
    let mut seen = 0;
    let broken_off = history.each(&HistoryFilter::default(), |_| {
        seen += 1;
        if seen == 300 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    broken_off.unwrap();
    assert_eq!(seen, 300);
}

#[test]
fn it_is_there_without_a_daemon_too() {
    let dir = state_dir();
    drop(filled(dir.path()));
    assert_eq!(seconds(dir.path(), &HistoryFilter::default()).len(), 5);
}

/// A disk that is read-only: SQLite cannot make the file that readers share.
#[test]
fn it_can_be_read_where_nothing_can_be_written() {
    let dir = state_dir();
    drop(filled(dir.path()));
    let path = files::database(dir.path());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let uri = immutable_uri(&path);
    let (connection, version) = try_connect(Path::new(&uri), flags).unwrap();
    assert_eq!(version, Version::Current);
    let history = History { connection, path };
    let entries = history.entries(&HistoryFilter::default()).unwrap();
    assert_eq!(entries.len(), 5);
}

#[test]
fn a_path_with_anything_in_it_is_a_uri() {
    assert_eq!(
        immutable_uri(Path::new("/a b?#%/ö.db")),
        "file:/a%20b%3f%23%25/%c3%b6.db?immutable=1"
    );
}

#[test]
fn what_is_wrong_is_said_with_the_path_and_the_remedy() {
    let dir = state_dir();
    let path = files::database(dir.path());
    let open = || History::open(dir.path()).map(drop).unwrap_err();
    let missing = open();
    assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains(path.to_str().unwrap()));
    assert!(missing.to_string().contains("--state-dir"));
    fs::write(&path, "").unwrap();
    assert!(matches!(open(), StoreError::Older { found: 0, .. }));
    fs::write(&path, "no database at all".repeat(100)).unwrap();
    assert!(matches!(open(), StoreError::Damaged { .. }), "{}", open());
}

#[test]
fn one_of_a_newer_version_is_not_guessed_at() {
    let dir = state_dir();
    let (database, _files) = filled(dir.path());
    let connection = &database.connection;
    connection.pragma_update(None, "user_version", 99).unwrap();
    let error = History::open(dir.path()).map(drop).unwrap_err();
    assert!(
        matches!(error, StoreError::Newer { found: 99, .. }),
        "{error}"
    );
}
