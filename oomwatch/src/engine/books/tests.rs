//! What a second run does with the books of a first.

use super::*;
use crate::{
    CgroupDiscovery, Kind, OomEvent,
    account::Page,
    engine::{Setting, fixture::setting},
    event::build::Now,
    reconcile::Counting,
    record::{
        Record,
        fixture::{change, memcg, victim},
    },
};

const C: CgroupId = CgroupId(3);

fn engine(discovery: CgroupDiscovery) -> Engine {
    counting(discovery, Counting::Hierarchical)
}

fn counting(discovery: CgroupDiscovery, counting: Counting) -> Engine {
    Engine::new(Setting {
        counting,
        ..setting(discovery)
    })
}

fn now(at_ns: u64) -> Now {
    Now {
        boottime_ns: at_ns,
        unix_time_ns: 0,
    }
}

fn id(id: &str) -> ContainerId {
    ContainerId::new(id).unwrap()
}

fn container(name: &str) -> Container {
    Container {
        id: id(name),
        cgroup_id: C,
        details: ContainerDetails::default(),
    }
}

/// Registered at 1, and 2 spoken of since.
fn book(by_hand: bool) -> Book {
    Book {
        cgroup_id: C,
        container_id: id("web-1"),
        by_hand,
        page: Some(Page {
            serial: Some(1),
            base: 1,
            accounted: 2,
        }),
        recounts: 0,
    }
}

/// A second run, in which the counter is found at 5.
fn resumed(book: Book) -> Engine {
    let mut engine = engine(CgroupDiscovery::Off);
    engine.resume(vec![book]);
    engine.learn(C, CgroupId::ROOT, b"c");
    engine.baseline(C, 5, 10);
    engine.settle_resumed();
    engine
}

fn missed(engine: &mut Engine) -> Option<(u64, bool)> {
    let event = engine.audit_one(C, 5, None, now(20))?;
    assert_eq!(event.kind, Kind::CounterOnly);
    Some((event.count, event.while_down))
}

#[test]
fn a_registration_by_hand_comes_back_and_is_taken_over_once() {
    let mut engine = resumed(book(true));
    assert!(engine.take_audit_wanted());
    assert_eq!(engine.audited(), [C]);
    assert_eq!(missed(&mut engine), Some((2, true)));
    assert_eq!(missed(&mut engine), None);
    assert!(!engine.take_restored(&id("web-2"), C));
    assert!(engine.take_restored(&id("web-1"), C));
    assert!(!engine.take_restored(&id("web-1"), C));
}

/// A source of containers may be slower than the first kill.
#[test]
fn a_container_that_is_found_late_misses_only_what_nobody_saw() {
    let mut engine = resumed(book(false));
    assert!(!engine.take_audit_wanted());
    assert!(engine.audited().is_empty());
    let kill = Record::Victim(Box::new(victim(7, 12, &[memcg(3, 6)])));
    let events = engine.apply(&[kill], now(13));
    assert!(matches!(
        events.as_slice(),
        [OomEvent {
            container: None,
            ..
        }]
    ));
    engine.register(container("web-1")).unwrap();
    assert!(engine.take_audit_wanted());
    let event = engine.audit_one(C, 6, None, now(20)).unwrap();
    assert_eq!((event.count, event.while_down), (2, true));
}

#[test]
fn another_container_on_the_cgroup_begins_a_book_of_its_own() {
    let mut engine = resumed(book(false));
    engine.register(container("web-2")).unwrap();
    assert!(!engine.take_audit_wanted());
    assert_eq!(missed(&mut engine), None);
    let [kept] = &engine.all_books()[..] else {
        panic!("one book");
    };
    assert_eq!(kept.container_id, id("web-2"));
    let page = kept.page.unwrap();
    assert_eq!((page.base, page.accounted), (5, 0));
}

#[test]
fn what_is_taken_out_by_hand_leaves_no_book() {
    let mut engine = resumed(book(true));
    engine.take_changes();
    engine.unregister(&id("web-1")).unwrap();
    let changes = engine.take_changes();
    assert_eq!(changes.closed, [C]);
    assert!(changes.books.is_empty());
    assert!(engine.all_books().is_empty());
}

#[test]
fn a_cgroup_that_went_away_meanwhile_leaves_no_book() {
    let mut engine = engine(CgroupDiscovery::Off);
    engine.resume(vec![book(true)]);
    engine.settle_resumed();
    assert_eq!(engine.take_changes().closed, [C]);
    assert!(engine.all_books().is_empty());
}

#[test]
fn a_cgroup_that_goes_away_leaves_no_book() {
    let mut engine = resumed(book(true));
    engine.take_changes();
    engine.apply(&[Record::CgroupRemoved(change(3, 1, "c", 12))], now(13));
    assert_eq!(engine.take_changes().closed, [C]);
    assert!(engine.all_books().is_empty());
}

#[test]
fn registrations_and_entries_are_changes() {
    let mut engine = engine(CgroupDiscovery::Off);
    engine.resume(Vec::new());
    engine.learn(C, CgroupId::ROOT, b"c");
    engine.baseline(C, 5, 10);
    engine.register(container("web-1")).unwrap();
    engine.keep_registration(C);
    let changes = engine.take_changes();
    let [kept] = &changes.books[..] else {
        panic!("one book: {changes:?}");
    };
    assert!(kept.by_hand);
    assert_eq!(engine.take_changes(), Changes::default());
    let kill = Record::Victim(Box::new(victim(7, 12, &[memcg(3, 6)])));
    engine.apply(&[kill], now(13));
    assert_eq!(engine.take_changes().books[0].page.unwrap().accounted, 1);
}

#[test]
fn a_registration_by_hand_is_kept_where_there_are_no_counters() {
    let run = || counting(CgroupDiscovery::Off, Counting::LocalV1);
    let mut first = run();
    first.resume(Vec::new());
    first.learn(C, CgroupId::ROOT, b"c");
    first.register(container("web-1")).unwrap();
    assert!(first.all_books().is_empty());
    first.keep_registration(C);
    let books = first.take_changes().books;
    assert_eq!(books, first.all_books());
    assert_eq!(books[0].page, None);

    let mut second = run();
    second.resume(books.clone());
    second.learn(C, CgroupId::ROOT, b"c");
    second.settle_resumed();
    assert_eq!(second.registry().live_count(), 1);
    assert_eq!(second.all_books(), books);
    second.take_changes();
    second.unregister(&id("web-1")).unwrap();
    assert_eq!(second.take_changes().closed, [C]);
    assert!(second.all_books().is_empty());
}
