//! A disk that is full, and a file that is damaged while it is in use.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use super::*;
use crate::{
    event::fixture::{BOOT, event_at},
    store::{
        fixture::{changed, state_dir},
        history::{History, HistoryFilter},
    },
};

fn writer(dir: &std::path::Path) -> Writer {
    let files = Files::lock(dir).unwrap();
    let (database, _) = Database::open_or_begin(&files, BOOT).unwrap();
    Writer::new(
        database,
        files,
        BOOT,
        Limits::default(),
        Arc::new(Shared::default()),
        Cursors::new(0),
    )
}

fn events(numbers: std::ops::Range<u64>) -> Batch {
    Batch {
        events: numbers.map(|number| event_at(number).into()).collect(),
        ledgers: vec![changed(3, 1)],
        ..Batch::default()
    }
}

fn stored(dir: &std::path::Path) -> usize {
    let history = History::open(dir).unwrap();
    history.entries(&HistoryFilter::default()).unwrap().len()
}

fn set_pages(writer: &Writer, pages: u32) {
    let connection = &writer.database.as_ref().unwrap().connection;
    connection
        .pragma_update(None, "max_page_count", pages)
        .unwrap();
}

#[test]
fn a_full_disk_writes_all_of_a_batch_later_and_none_of_it_now() {
    let dir = state_dir();
    let mut writer = writer(dir.path());
    writer.write(&events(1..2)).unwrap();
    set_pages(&writer, 1);
    let error = writer.write(&events(2..1000)).unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
    assert!(cause(&error).contains("full"), "{}", cause(&error));
    assert_eq!(stored(dir.path()), 1);
    set_pages(&writer, u32::MAX / 2);
    writer.write(&events(2..1000)).unwrap();
    assert_eq!(stored(dir.path()), 999);
}

#[test]
fn what_cannot_be_written_at_the_end_is_counted() {
    let dir = state_dir();
    let mut writer = writer(dir.path());
    set_pages(&writer, 1);
    writer.shared.stopping.store(true, Ordering::Release);
    let batch = events(1..500);
    writer.shared.events.store(499, Ordering::Release);
    writer.shared.is_writing.store(true, Ordering::Release);
    writer.take(&batch);
    assert_eq!(writer.shared.lost_events.load(Ordering::Acquire), 499);
    assert!(!writer.shared.is_writing.load(Ordering::Acquire));
    assert!(!writer.shared.was_written.load(Ordering::Acquire));
}

#[test]
fn a_file_damaged_in_use_is_moved_aside_and_the_whole_is_asked_for() {
    let dir = state_dir();
    let mut filling = writer(dir.path());
    filling.write(&events(1..1000)).unwrap();
    // Closing empties the log into the file.
    drop(filling);
    let mut writer = writer(dir.path());
    let path = writer.files.database();
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    let file = File::options().write(true).open(&path).unwrap();
    for page in 2..pages {
        file.write_at(&[0xa5; 4096], page * 4096).unwrap();
    }
    writer.trim();
    assert!(writer.shared.wants_whole.load(Ordering::Acquire));
    writer.write(&events(2000..2005)).unwrap();
    assert_eq!(stored(dir.path()), 5);
    let names = fs::read_dir(dir.path()).unwrap();
    let aside = names
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .any(|name| name.starts_with("oomwatch.db.corrupt-") && !name.ends_with("-wal"));
    assert!(aside, "the damaged file is kept");
}

/// Regression: each written batch let another message in, until they had taken the place of a batch.
#[test]
fn publishers_that_move_have_one_message_under_way() {
    use crate::store::cursors::Nudge;
    let dir = state_dir();
    let mut writer = writer(dir.path());
    let (messages, receiver) = std::sync::mpsc::sync_channel(10);
    let nudge = Nudge {
        messages,
        nudged: writer.cursors.nudged(),
    };
    for _ in 0..3 {
        nudge.nudge();
        // As after each batch.
        writer.save_cursors();
    }
    assert_eq!(receiver.try_iter().count(), 1);
    writer.cursors.heard();
    nudge.nudge();
    assert_eq!(receiver.try_iter().count(), 1, "it was heard: the next one");
}

#[tokio::test]
async fn what_is_lost_with_a_damaged_file_is_a_gap_for_publishers() {
    use crate::store::{
        cursors::Nudge,
        outbox::{Outbox, OutboxRead},
    };
    let dir = state_dir();
    let mut writer = writer(dir.path());
    let (messages, _receiver) = std::sync::mpsc::sync_channel(1);
    let nudge = Nudge {
        messages,
        nudged: writer.cursors.nudged(),
    };
    let database = writer.database.as_mut().unwrap();
    let (stored, done) = writer.cursors.add("a", database).unwrap().unwrap();
    let mut outbox = Outbox::new(writer.files.database(), stored, done, nudge);
    writer.write(&events(1..5)).unwrap();
    assert!(matches!(outbox.next().await, Some(OutboxRead::Event(_))));
    outbox.done(outbox.given());
    writer
        .put_aside(&StoreError::InUse { path: "".into() })
        .unwrap();
    writer.write(&events(5..7)).unwrap();
    // Events that were read before are published all the same.
    for second in [2, 3, 4] {
        let event = event_at(second).into();
        assert_eq!(outbox.next().await, Some(OutboxRead::Event(event)));
    }
    writer
        .put_aside(&StoreError::InUse { path: "".into() })
        .unwrap();
    writer.write(&events(7..8)).unwrap();
    assert_eq!(outbox.next().await, Some(OutboxRead::Lost(2)));
    assert_eq!(
        outbox.next().await,
        Some(OutboxRead::Event(event_at(7).into()))
    );
    outbox.done(outbox.given());
    writer.save_cursors();
    let database = writer.database.as_mut().unwrap();
    let mut again = Cursors::new(database.last_number().unwrap());
    let (_, done) = again.add("a", database).unwrap().unwrap();
    assert_eq!(*done.borrow(), 7, "the new file has the cursor");
}
