//! The events that publishers get from the store, and where they continue.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::time::timeout;

use super::*;
use crate::{
    event::{
        OomEvent,
        fixture::{BOOT, event_at},
    },
    store::{
        Batch, Limits, Store, StoreConfig, files,
        fixture::{deadline, hand_over, state_dir},
        history::{History, HistoryFilter},
        schema::{self, MIGRATIONS},
    },
};

const DEADLINE: Duration = Duration::from_secs(20);

fn open(dir: &Path, publishers: &[&str]) -> Store {
    let config = StoreConfig {
        dir: dir.to_owned(),
        limits: Limits {
            // The tests' events are from 1970.
            max_age: Duration::from_secs(1 << 40),
            ..Limits::default()
        },
        publishers: publishers.iter().map(|&name| name.into()).collect(),
    };
    Store::open(config, BOOT).unwrap().0
}

fn batch(numbers: std::ops::Range<u64>) -> Batch {
    Batch {
        events: numbers.map(|number| event_at(number).into()).collect(),
        ..Batch::default()
    }
}

/// The number of an event, or of those lost, negated.
async fn next(outbox: &mut Outbox) -> Option<i64> {
    let given = timeout(DEADLINE, outbox.next()).await.expect("a word");
    Some(match given? {
        OutboxRead::Event(event) => event.seq.cast_signed(),
        OutboxRead::Lost(lost) => -lost.cast_signed(),
    })
}

async fn take(outbox: &mut Outbox, number: usize) -> Vec<i64> {
    let mut taken = Vec::new();
    while taken.len() < number {
        taken.push(next(outbox).await.unwrap());
        outbox.done(outbox.given());
    }
    taken
}

async fn close(store: Store, outboxes: Vec<Outbox>) {
    drop(outboxes);
    assert_eq!(store.finish(deadline()).await, 0);
}

#[tokio::test]
async fn each_publisher_goes_on_where_it_was() {
    let dir = state_dir();
    let mut store = open(dir.path(), &["a", "b"]);
    let mut a = store.take_outbox("a").unwrap();
    let mut b = store.take_outbox("b").unwrap();
    assert!(store.take_outbox("a").is_none(), "there is one");
    assert!(store.take_outbox("c").is_none(), "nobody said so");
    hand_over(&mut store, batch(1..200));
    assert_eq!(take(&mut a, 150).await, (1..=150).collect::<Vec<_>>());
    assert_eq!(take(&mut b, 3).await, [1, 2, 3]);
    assert_eq!((a.backlog().len(), b.backlog().len()), (49, 196));
    // Given to the publisher, and not known to have arrived.
    assert_eq!(next(&mut b).await, Some(4));
    close(store, vec![a, b]).await;

    let mut store = open(dir.path(), &["a", "b", "new"]);
    let mut a = store.take_outbox("a").unwrap();
    let mut b = store.take_outbox("b").unwrap();
    let mut new = store.take_outbox("new").unwrap();
    assert_eq!((a.backlog().len(), new.backlog().len()), (49, 0));
    hand_over(&mut store, batch(200..202));
    assert_eq!(take(&mut a, 51).await, (151..=201).collect::<Vec<_>>());
    assert_eq!(take(&mut b, 198).await, (4..=201).collect::<Vec<_>>());
    assert_eq!(take(&mut new, 2).await, [200, 201]);
    store.close();
    assert_eq!(next(&mut a).await, None);
    close(store, vec![a, b, new]).await;

    // `a` is left out for a run.
    let mut store = open(dir.path(), &["b"]);
    hand_over(&mut store, batch(202..205));
    close(store, vec![]).await;
    let mut store = open(dir.path(), &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    assert_eq!(take(&mut a, 3).await, [202, 203, 204]);
    close(store, vec![a]).await;
}

/// A kill that a container claims is published twice. A repeated report after a restart is no news.
#[tokio::test]
async fn both_words_on_a_kill_come_in_order() {
    let dir = state_dir();
    let mut store = open(dir.path(), &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    let late = OomEvent {
        id: event_at(1).id,
        supersedes: Some(1),
        seq: 4,
        ..event_at(1)
    };
    let again = OomEvent {
        seq: 9,
        ..event_at(2)
    };
    hand_over(&mut store, batch(1..4));
    hand_over(
        &mut store,
        Batch {
            events: vec![again.into(), late.clone().into()],
            ..Batch::default()
        },
    );
    hand_over(&mut store, batch(5..6));
    assert_eq!(take(&mut a, 5).await, [1, 2, 3, 4, 5]);
    close(store, vec![a]).await;
    let history = History::open(dir.path()).unwrap();
    let entries = history.entries(&HistoryFilter::default()).unwrap();
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["boot-1", "boot-2", "boot-3", "boot-5"]);
    assert_eq!(entries[0].json, late.to_json(), "the last word");
}

#[tokio::test]
async fn what_is_removed_before_it_is_read_is_counted() {
    let dir = state_dir();
    let mut store = open(dir.path(), &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    hand_over(&mut store, batch(1..2));
    assert_eq!(take(&mut a, 1).await, [1]);
    hand_over(&mut store, batch(2..11));
    close(store, vec![a]).await;
    let connection = Connection::open(files::database(dir.path())).unwrap();
    let remove = |up_to: i64| {
        let sql = "DELETE FROM event WHERE number <= ?1";
        connection.execute(sql, [up_to]).unwrap();
    };
    remove(7);
    let mut store = open(dir.path(), &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    assert_eq!(take(&mut a, 2).await, [-6, 8]);
    assert_eq!(a.backlog().len(), 2);
    close(store, vec![a]).await;
    remove(100);
    let mut store = open(dir.path(), &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    assert_eq!(take(&mut a, 1).await, [-2]);
    // Numbers are not used again.
    hand_over(&mut store, batch(11..12));
    assert_eq!(take(&mut a, 1).await, [11]);
    close(store, vec![a]).await;
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_counted_and_not_in_the_way() {
    let dir = state_dir();
    let mut store = open(dir.path(), &["a"]);
    hand_over(&mut store, batch(1..4));
    close(store, vec![]).await;
    let connection = Connection::open(files::database(dir.path())).unwrap();
    let sql = "UPDATE event SET json = '{}' WHERE number = 2";
    connection.execute(sql, []).unwrap();
    let mut store = open(dir.path(), &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    assert_eq!(take(&mut a, 3).await, [1, -1, 3]);
    close(store, vec![a]).await;
}

#[tokio::test]
async fn a_store_of_the_first_version_keeps_its_history_and_gets_outboxes() {
    let dir = state_dir();
    let path = files::database(dir.path());
    let mut connection = Connection::open(&path).unwrap();
    schema::migrate(&mut connection, &MIGRATIONS[..1]).unwrap();
    for second in 1..=3 {
        let event = event_at(second);
        connection
            .execute(
                "INSERT INTO event (id, time_ns, kind, count, json, text) VALUES (?1, ?2, 'kill', 1, ?3, '')",
                params![event.id, schema::stored_time(event.unix_time_ns), event.to_json()],
            )
            .unwrap();
    }
    drop(connection);
    let mut store = open(dir.path(), &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    assert_eq!(a.backlog().len(), 0, "from now on");
    hand_over(&mut store, batch(2..6));
    assert_eq!(take(&mut a, 2).await, [4, 5]);
    close(store, vec![a]).await;
    let history = History::open(dir.path()).unwrap();
    let entries = history.entries(&HistoryFilter::default()).unwrap();
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["boot-1", "boot-2", "boot-3", "boot-4", "boot-5"]);
}

const CHILD: &str = "OOMWATCH_TEST_OUTBOX_DIR";
const COLLECTED: &str = "collected";

/// Not a test by itself: the daemon of the next one, which stores events and collects them in a
/// file until it is killed.
#[tokio::test]
async fn child_that_publishes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let dir = Path::new(&dir);
    let mut store = open(dir, &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    let collected = File::options()
        .append(true)
        .create(true)
        .open(dir.join(COLLECTED));
    let mut collected = collected.unwrap();
    let mut stored = i64::try_from(a.backlog().len()).unwrap();
    stored += last_collected(dir).unwrap_or(0);
    loop {
        while store.is_writing() {
            tokio::task::yield_now().await;
        }
        let first = stored.unsigned_abs() + 1;
        hand_over(&mut store, batch(first..first + 5));
        stored += 5;
        for _ in 0..3 {
            let number = next(&mut a).await.unwrap();
            // One write: a kill between a number and its end of line would make one number of two.
            let line = format!("{number}\n");
            collected.write_all(line.as_bytes()).unwrap();
            a.done(a.given());
        }
    }
}

fn collected(dir: &Path) -> Vec<i64> {
    let mut text = String::new();
    if let Ok(mut file) = File::open(dir.join(COLLECTED)) {
        file.read_to_string(&mut text).unwrap();
    }
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn last_collected(dir: &Path) -> Option<i64> {
    let connection = Connection::open(files::database(dir)).ok()?;
    let sql = "SELECT number FROM cursor WHERE publisher = 'a'";
    connection.query_row(sql, [], |row| row.get(0)).ok()
}

/// The law of the outbox: after `kill -9` at any moment every stored event arrives, in order, some of them twice.
#[tokio::test]
async fn everything_arrives_in_order_after_kill_9_at_any_moment() {
    let dir = state_dir();
    for round in 0..5_usize {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::outbox::tests::child_that_publishes_until_it_is_killed",
            ])
            .env(CHILD, dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let wanted = collected(dir.path()).len() + 1 + round * 40;
        while collected(dir.path()).len() < wanted {
            assert!(start.elapsed() < DEADLINE, "the child does not publish");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut arrived = collected(dir.path());
    let mut store = open(dir.path(), &["a"]);
    let mut a = store.take_outbox("a").unwrap();
    let left = usize::try_from(a.backlog().len()).unwrap();
    assert!(left > 0, "it was stored faster than it was collected");
    arrived.extend(take(&mut a, left).await);
    close(store, vec![a]).await;
    let mut last = 0;
    for number in arrived {
        assert!(number > 0 && number <= last + 1, "{number} after {last}");
        last = last.max(number);
    }
    let history = History::open(dir.path()).unwrap();
    let stored = history.entries(&HistoryFilter::default()).unwrap().len();
    assert_eq!(usize::try_from(last), Ok(stored), "all that is stored");
}
