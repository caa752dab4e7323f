//! The store from the outside: its content after a restart, however the run before ended.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    fixture::{changed, deadline, hand_over, ledger, state_dir},
    *,
};
use crate::{
    event::fixture::{BOOT, event_at},
    id::ContainerId,
    store::history::{History, HistoryFilter},
};

const DEADLINE: Duration = Duration::from_secs(20);

fn open(dir: &Path) -> (Store, Saved) {
    try_open(dir).unwrap()
}

fn try_open(dir: &Path) -> Result<(Store, Saved), StoreError> {
    open_in(dir, BOOT)
}

fn open_in(dir: &Path, boot: &str) -> Result<(Store, Saved), StoreError> {
    let config = StoreConfig {
        dir: dir.to_owned(),
        limits: Limits {
            // The tests' events are from 1970.
            max_age: Duration::from_secs(1 << 40),
            ..Limits::default()
        },
        publishers: Vec::new(),
    };
    Store::open(config, boot)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

fn wait_until_written(store: &Store) {
    while store.is_writing() {
        std::thread::yield_now();
    }
}

fn finish(store: Store) -> u64 {
    runtime().block_on(async { store.finish(deadline()).await })
}

fn batch(events: std::ops::Range<u64>) -> Batch {
    Batch {
        events: events.map(|number| event_at(number).into()).collect(),
        ..Batch::default()
    }
}

fn stored(dir: &Path) -> u64 {
    let history = History::open(dir).unwrap();
    let entries = history.entries(&HistoryFilter::default()).unwrap();
    entries.iter().map(|entry| entry.count).sum()
}

fn files_like(dir: &Path, pattern: &str) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    names
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.contains(pattern))
        .collect()
}

#[test]
fn ledgers_registrations_and_numbers_come_back() {
    let dir = state_dir();
    let (mut store, saved) = open(dir.path());
    assert_eq!(saved, Saved::default());
    assert!(store.wants_whole());
    let web = ContainerId::new("web").unwrap();
    let registered = |cgroup| (CgroupId(cgroup), Some(Word::Is(web.clone())));
    hand_over(
        &mut store,
        Batch {
            is_whole: true,
            ledgers: vec![changed(3, 1), changed(4, 2), changed(u64::MAX, 9)],
            registrations: vec![
                registered(3),
                registered(6),
                (CgroupId(7), Some(Word::TakenOut)),
            ],
            meta: vec![("oom_kill", u64::MAX)],
            ..Batch::default()
        },
    );
    assert!(!store.wants_whole());
    hand_over(
        &mut store,
        Batch {
            ledgers: vec![changed(4, 5), (CgroupId(3), None)],
            registrations: vec![(CgroupId(3), None)],
            ..batch(1..4)
        },
    );
    assert_eq!(finish(store), 0);
    let (_store, mut saved) = open(dir.path());
    let mut ledgers = saved.ledgers.take().unwrap();
    ledgers.sort_by_key(|(cgroup, _)| *cgroup);
    assert_eq!(ledgers, [ledger(4, 5), ledger(u64::MAX, 9)]);
    let words = [(CgroupId(6), Word::Is(web)), (CgroupId(7), Word::TakenOut)];
    assert_eq!(saved.by_hand, words);
    assert_eq!(saved.meta["oom_kill"], u64::MAX);
    assert_eq!(stored(dir.path()), 3);
}

#[test]
fn another_boot_begins_without_ledgers_and_with_the_history() {
    let dir = state_dir();
    let (mut store, _) = open(dir.path());
    hand_over(
        &mut store,
        Batch {
            is_whole: true,
            ledgers: vec![changed(3, 1)],
            meta: vec![("oom_kill", 1)],
            ..batch(1..3)
        },
    );
    finish(store);
    let (mut store, saved) = open_in(dir.path(), "another boot").unwrap();
    assert_eq!(saved, Saved::default());
    hand_over(
        &mut store,
        Batch {
            is_whole: true,
            ..Batch::default()
        },
    );
    finish(store);
    let (_store, saved) = open(dir.path());
    assert_eq!(saved, Saved::default(), "the first boot's are gone");
    assert_eq!(stored(dir.path()), 2);
}

#[test]
fn an_event_is_stored_once() {
    let dir = state_dir();
    let (mut store, _) = open(dir.path());
    hand_over(&mut store, batch(1..4));
    hand_over(&mut store, batch(2..6));
    finish(store);
    assert_eq!(stored(dir.path()), 5);
}

#[test]
fn a_second_daemon_is_refused_until_the_first_is_gone() {
    let dir = state_dir();
    let (store, _) = open(dir.path());
    let error = try_open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("--state-dir"), "{error}");
    finish(store);
    assert!(try_open(dir.path()).is_ok());
}

#[test]
fn a_store_of_a_newer_version_is_left_as_it_is() {
    let dir = state_dir();
    let (mut store, _) = open(dir.path());
    hand_over(&mut store, batch(1..4));
    finish(store);
    let path = files::database(dir.path());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let before = fs::read(&path).unwrap();
    let error = try_open(dir.path()).map(drop).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Newer {
                found: 99,
                known: 6,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("upgrade"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(files_like(dir.path(), "corrupt").is_empty());
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_new_one_begun() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("garbage", |path| {
            fs::write(path, "garbage".repeat(3000)).unwrap();
        }),
        ("cut off", |path| {
            let half = fs::metadata(path).unwrap().len() / 2;
            fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(half)
                .unwrap();
        }),
        ("without its tables", |path| {
            let connection = Connection::open(path).unwrap();
            connection.execute("DROP TABLE ledger", []).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let dir = state_dir();
        let (mut store, _) = open(dir.path());
        hand_over(
            &mut store,
            Batch {
                is_whole: true,
                ledgers: vec![changed(3, 1)],
                ..batch(1..200)
            },
        );
        finish(store);
        damage(&files::database(dir.path()));
        let (mut store, saved) = open(dir.path());
        assert_eq!(saved, Saved::default(), "{what}");
        assert_eq!(
            files_like(dir.path(), "oomwatch.db.corrupt-").len(),
            1,
            "{what}"
        );
        hand_over(&mut store, batch(1..3));
        finish(store);
        assert_eq!(stored(dir.path()), 2, "{what}");
    }
}

#[test]
fn an_empty_file_is_a_store_to_be_begun() {
    let dir = state_dir();
    fs::write(files::database(dir.path()), "").unwrap();
    let (mut store, _) = open(dir.path());
    hand_over(&mut store, batch(1..3));
    finish(store);
    assert_eq!(stored(dir.path()), 2);
    assert!(files_like(dir.path(), "corrupt").is_empty());
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let dir = state_dir();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = try_open(&file.join("state")).map(drop).unwrap_err();
    assert!(
        matches!(error, StoreError::CreateDirectory { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("file/state"), "{error}");
    let error = try_open(Path::new("/proc/self")).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Lock { .. }), "{error}");
}

#[test]
fn a_new_directory_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = state_dir();
    let path = dir.path().join("a/b");
    let (store, _) = open(&path);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    finish(store);
}

/// A disk that takes nothing does not keep the caller waiting. The caller learns of it afterwards.
#[test]
fn a_disk_that_hangs_keeps_one_batch_and_nobody_waiting() {
    let dir = state_dir();
    let (mut store, _) = open(dir.path());
    hand_over(&mut store, batch(0..1));
    wait_until_written(&store);
    let blocker = Connection::open(files::database(dir.path())).unwrap();
    blocker.busy_timeout(DEADLINE).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    hand_over(&mut store, batch(1..5));
    assert!(store.is_writing());
    blocker.execute_batch("COMMIT").unwrap();
    runtime().block_on(async {
        while store.is_writing() {
            let wanted = tokio::time::timeout(DEADLINE, store.wanted());
            wanted.await.unwrap();
        }
    });
    assert!(store.was_written());
    assert_eq!(finish(store), 0);
    assert_eq!(stored(dir.path()), 5);
}

/// Regression: a stop gave up at its first failed try, with most of its time left.
#[test]
fn a_disk_that_is_busy_at_the_end_is_tried_until_the_time_is_over() {
    for is_in_time in [true, false] {
        let dir = state_dir();
        let (mut store, _) = open(dir.path());
        hand_over(&mut store, batch(0..1));
        wait_until_written(&store);
        let blocker = Connection::open(files::database(dir.path())).unwrap();
        blocker.busy_timeout(DEADLINE).unwrap();
        blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
        store.write(batch(1..5));
        store.hurry();
        if is_in_time {
            blocker.execute_batch("COMMIT").unwrap();
            wait_until_written(&store);
            assert!(store.was_written());
        }
        let lost = finish(store);
        assert_eq!(lost, if is_in_time { 0 } else { 4 });
        drop(blocker);
        assert_eq!(stored(dir.path()), 5 - lost);
    }
}

/// Regression: an event written long before was counted as lost if the time was over by then.
#[test]
fn what_is_written_is_not_lost_however_late_the_end_is() {
    let dir = state_dir();
    let (mut store, _) = open(dir.path());
    hand_over(&mut store, batch(0..5));
    wait_until_written(&store);
    let lost = runtime().block_on(async { store.finish(tokio::time::Instant::now()).await });
    assert_eq!(lost, 0);
}

#[test]
fn what_waits_to_be_published_and_rings_come_back() {
    let dir = state_dir();
    let (mut store, _) = open(dir.path());
    let pending = |seconds: &[u64]| seconds.iter().map(|&at| event_at(at).into()).collect();
    hand_over(
        &mut store,
        Batch {
            is_whole: true,
            pending: pending(&[1, 2, 3]),
            rings: vec![(7, 100), (8, u64::MAX)],
            ..Batch::default()
        },
    );
    // The second one was published.
    hand_over(
        &mut store,
        Batch {
            gone: vec![2],
            ..batch(2..3)
        },
    );
    finish(store);
    assert_eq!(stored(dir.path()), 1, "what waits has no number yet");
    let (mut store, saved) = open(dir.path());
    assert_eq!(saved.pending, [event_at(1), event_at(3)]);
    assert_eq!(saved.rings, [(7, 100), (8, u64::MAX)]);
    // The next run has them, and says so.
    hand_over(
        &mut store,
        Batch {
            is_whole: true,
            rings: vec![(8, 5)],
            ..batch(3..4)
        },
    );
    finish(store);
    let (_store, saved) = open(dir.path());
    assert_eq!((saved.pending, saved.rings), (vec![], vec![(8, 5)]));
    assert_eq!(stored(dir.path()), 2);
}

#[test]
fn what_waited_when_another_boot_ended_is_history() {
    let dir = state_dir();
    let (mut store, _) = open(dir.path());
    hand_over(
        &mut store,
        Batch {
            is_whole: true,
            pending: vec![event_at(1).into()],
            ..Batch::default()
        },
    );
    finish(store);
    let (mut store, saved) = open_in(dir.path(), "another boot").unwrap();
    assert_eq!(saved, Saved::default());
    hand_over(
        &mut store,
        Batch {
            is_whole: true,
            ..Batch::default()
        },
    );
    finish(store);
    assert_eq!(stored(dir.path()), 1);
}

const CHILD: &str = "OOMWATCH_TEST_STORE_DIR";

/// Not a test by itself: the daemon of the next one, which writes until it is killed.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let (mut store, saved) = open(Path::new(&dir));
    let ledgers = saved.ledgers.unwrap_or_default();
    let mut reported = ledgers.first().map_or(0, |(_, ledger)| ledger.reported);
    for round in 0_u64.. {
        wait_until_written(&store);
        let events = 1 + round % 7;
        let batch = Batch {
            is_whole: store.wants_whole(),
            ledgers: vec![changed(3, reported + events)],
            ..batch(reported..reported + events)
        };
        store.write(batch);
        reported += events;
    }
}

/// The law of the store: after `kill -9` at any moment the history has exactly the kills that the ledgers have as
/// reported.
#[test]
fn history_and_ledgers_agree_after_kill_9_at_any_moment() {
    let dir = state_dir();
    let mut last = 0;
    for round in 0..6_u32 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::child_that_writes_until_it_is_killed",
            ])
            .env(CHILD, dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let wanted = last + 1 + u64::from(round) * 100;
        while History::open(dir.path())
            .and_then(|history| history.entries(&HistoryFilter::default()))
            .map_or(0, |entries| entries.len())
            < usize::try_from(wanted).unwrap()
        {
            assert!(start.elapsed() < DEADLINE, "the child does not write");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (store, saved) = open(dir.path());
        last = stored(dir.path());
        assert_eq!(saved.ledgers, Some(vec![ledger(3, last)]));
        assert!(last >= wanted);
        finish(store);
    }
    assert!(files_like(dir.path(), "corrupt").is_empty());
}
