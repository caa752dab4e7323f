//! Walks that are older than the records read meanwhile.

use super::*;
use crate::{
    containers::{by_path::CgroupDiscovery, identity::Identity},
    engine::fixture::{begin_at, setting},
    record::{
        Record,
        fixture::{change, charged, memcg, victim},
    },
    topology::{skipped::Skipped, tree::TOMBSTONE_NS},
};

const SYSTEM: u64 = 2;
const A: u64 = 3;
const B: u64 = 4;

fn engine() -> Engine {
    let mut engine = Engine::new(setting(CgroupDiscovery::Containers));
    begin_at(&mut engine, &[]);
    engine.learn(CgroupId(SYSTEM), CgroupId::ROOT, b"system.slice");
    engine
}

fn now(at_ns: u64) -> Now {
    Now {
        boottime_ns: at_ns,
        unix_time_ns: 0,
    }
}

fn docker(digit: char) -> String {
    format!("docker-{}.scope", digit.to_string().repeat(64))
}

fn created(id: u64, digit: char, at_ns: u64) -> Record {
    Record::CgroupCreated(change(id, SYSTEM, &docker(digit), at_ns))
}

fn removed(id: u64, digit: char, at_ns: u64) -> Record {
    Record::CgroupRemoved(change(id, SYSTEM, &docker(digit), at_ns))
}

fn found(id: u64, parent: u64, name: &str) -> LiveCgroup {
    LiveCgroup {
        id: CgroupId(id),
        parent: CgroupId(parent),
        name: name.as_bytes().into(),
    }
}

fn walk(found: Vec<LiveCgroup>, missing: &[u64]) -> Walk {
    Walk {
        began_ns: 10,
        found,
        missing: missing.iter().copied().map(CgroupId).collect(),
        skipped: Skipped::default(),
    }
}

/// The container for which a kill in a cgroup is reported.
fn container_of_a_kill(engine: &mut Engine, cgroup: u64) -> Option<String> {
    let kill = Record::Victim(Box::new(victim(7, 90, &[memcg(cgroup, 1)])));
    let events = engine.apply(&[kill], now(91));
    let container = events.first()?.container.as_ref()?;
    Some(container.id.as_str().to_owned())
}

#[test]
fn a_cgroup_whose_creation_was_lost_is_found() {
    let mut engine = engine();
    let walk = walk(vec![found(A, SYSTEM, &docker('a'))], &[]);
    let walked = engine.walked_again(&walk, now(20));
    assert_eq!(walked.new, [CgroupId(A)]);
    assert!(!walked.is_outdated);
    assert_eq!(
        engine.walked_again(&walk, now(21)).new,
        [],
        "it is known now"
    );
    assert_eq!(container_of_a_kill(&mut engine, A), Some("a".repeat(64)));
}

#[test]
fn a_cgroup_that_was_removed_meanwhile_does_not_come_back() {
    let mut engine = engine();
    let walk = walk(
        vec![
            found(A, SYSTEM, &docker('a')),
            found(B, A, "below"),
            found(5, B, "further-below"),
        ],
        &[],
    );
    // Of the one below both records were lost.
    engine.apply(&[removed(A, 'a', 15)], now(16));
    let walked = engine.walked_again(&walk, now(20));
    assert_eq!(walked.new, []);
    assert!(!engine.tree().is_live(CgroupId(A)));
    assert!(!engine.tree().contains(CgroupId(B)));
    assert!(!engine.tree().contains(CgroupId(5)));
    assert_eq!(engine.registry().live_count(), 0);
}

#[test]
fn a_cgroup_that_was_created_meanwhile_stays() {
    let mut engine = engine();
    engine.apply(&[created(A, 'a', 15)], now(16));
    // It saw neither it nor anything else that is new.
    engine.walked_again(&walk(vec![found(SYSTEM, 1, "system.slice")], &[]), now(20));
    assert!(engine.tree().is_live(CgroupId(A)));
    assert_eq!(container_of_a_kill(&mut engine, A), Some("a".repeat(64)));
}

#[test]
fn what_came_and_went_meanwhile_is_known_from_its_records() {
    let mut engine = engine();
    engine.apply(&[created(A, 'a', 12), removed(A, 'a', 15)], now(16));
    let walk = walk(vec![found(A, SYSTEM, &docker('a'))], &[]);
    assert_eq!(engine.walked_again(&walk, now(20)).new, []);
    assert!(!engine.tree().is_live(CgroupId(A)));
}

/// The record of the removal found no room; the walk that follows finds out.
#[test]
fn an_id_that_was_taken_by_a_cgroup_that_is_gone_is_given_after_the_walk() {
    let mut engine = engine();
    engine.apply(&[created(A, 'a', 1), created(B, 'a', 4)], now(4));
    let identity = |engine: &Engine| engine.container(CgroupId(B)).map(|found| found.identity);
    assert_eq!(identity(&engine), Some(Identity::Claimed));
    let walk = walk(vec![found(B, SYSTEM, &docker('a'))], &[A]);
    engine.walked_again(&walk, now(20));
    assert!(!engine.tree().is_live(CgroupId(A)));
    assert_eq!(identity(&engine), Some(Identity::Path));
    assert_eq!(container_of_a_kill(&mut engine, B), Some("a".repeat(64)));
}

/// The walk was quicker than the record, which has the last counters.
#[test]
fn a_removal_told_after_the_walk_still_has_the_last_word() {
    let mut engine = engine();
    engine.apply(&[created(A, 'a', 1)], now(2));
    engine.walked_again(&walk(Vec::new(), &[A]), now(20));
    let mut gone = change(A, SYSTEM, &docker('a'), 15);
    gone.counters = Some(memcg(A, 2));
    gone.charged = charged(A, 2);
    let events = engine.apply(&[Record::CgroupRemoved(gone)], now(21));
    let told: u64 = events.iter().map(|event| event.count).sum();
    assert_eq!(told, 2, "{events:?}");
}

#[test]
fn where_removals_are_forgotten_already_another_walk_is_due() {
    let mut engine = engine();
    engine.apply(&[removed(A, 'a', 15)], now(16));
    let late_ns = 15 + TOMBSTONE_NS;
    engine.apply(&[], now(late_ns));
    let first = walk(vec![found(A, SYSTEM, &docker('a'))], &[]);
    assert!(engine.walked_again(&first, now(late_ns)).is_outdated);
    let mut second = walk(vec![found(SYSTEM, 1, "system.slice")], &[A]);
    second.began_ns = late_ns;
    assert!(!engine.walked_again(&second, now(late_ns)).is_outdated);
    assert!(!engine.tree().is_live(CgroupId(A)));
}

fn skipping(mut walk: Walk, below: &[u64]) -> Walk {
    walk.skipped = Skipped {
        below: below.iter().copied().map(CgroupId).collect(),
        may_pass: true,
        ..Skipped::default()
    };
    walk
}

#[test]
fn what_is_below_a_skipped_cgroup_is_not_taken_for_gone() {
    let mut engine = engine();
    engine.apply(&[created(A, 'a', 1), created(B, 'b', 1)], now(2));
    let below_a = Record::CgroupCreated(change(5, A, "below", 3));
    engine.apply(&[below_a], now(3));
    let walk = skipping(walk(vec![found(A, SYSTEM, &docker('a'))], &[B, 5]), &[A]);
    assert_eq!(engine.gone(&walk), [CgroupId(B)]);
    engine.walked_again(&walk, now(20));
    assert!(engine.tree().is_live(CgroupId(5)));
    assert!(!engine.tree().is_live(CgroupId(B)));
    assert_eq!(container_of_a_kill(&mut engine, 5), Some("a".repeat(64)));
}

#[test]
fn a_skipped_cgroup_that_was_not_found_itself_is_not_gone() {
    let mut engine = engine();
    engine.apply(&[created(A, 'a', 1)], now(2));
    let walk = skipping(walk(Vec::new(), &[SYSTEM, A]), &[SYSTEM]);
    engine.walked_again(&walk, now(20));
    assert!(engine.tree().is_live(CgroupId(SYSTEM)) && engine.tree().is_live(CgroupId(A)));
}

/// Their counters are not 0: what they counted before the start would be reported as lost in this run.
#[test]
fn what_the_first_walk_skipped_is_old_when_it_is_found() {
    let mut engine = engine();
    let first = skipping(walk(vec![found(SYSTEM, 1, "system.slice")], &[]), &[SYSTEM]);
    engine.walked(&first, now(10));
    engine.start_is_over();
    let (a, b) = (
        found(A, SYSTEM, &docker('a')),
        found(B, CgroupId::ROOT.0, &docker('b')),
    );
    let deeper = found(5, A, "below");
    // It came further, and not to the end.
    let second = skipping(walk(vec![a.clone(), b.clone()], &[]), &[A]);
    assert_eq!(engine.young_ones(&second), [&b]);
    let walked = engine.walked_again(&second, now(20));
    assert_eq!(walked.new, [CgroupId(A), CgroupId(B)]);
    assert_eq!(walked.unread, [CgroupId(A)]);
    let third = walk(vec![a.clone(), deeper.clone(), b.clone()], &[]);
    assert_eq!(engine.walked_again(&third, now(30)).unread, [CgroupId(5)]);
    // Everything was scanned by now: a new cgroup is young.
    let fourth = walk(vec![a, deeper, b, found(6, 5, "new")], &[]);
    let walked = engine.walked_again(&fourth, now(40));
    assert_eq!((walked.new, walked.unread), (vec![CgroupId(6)], Vec::new()));
}

#[test]
fn what_a_later_walk_skips_for_the_first_time_stays_young() {
    let mut engine = engine();
    engine.walked(&walk(vec![found(SYSTEM, 1, "system.slice")], &[]), now(10));
    engine.start_is_over();
    let skips = skipping(walk(vec![found(SYSTEM, 1, "system.slice")], &[]), &[SYSTEM]);
    engine.walked_again(&skips, now(20));
    let all = walk(vec![found(A, SYSTEM, &docker('a'))], &[]);
    let walked = engine.walked_again(&all, now(30));
    assert_eq!((walked.new, walked.unread), (vec![CgroupId(A)], Vec::new()));
}

/// A user with a delegated cgroup nests as deep as they like.
#[test]
fn a_chain_of_cgroups_is_known_and_no_container_is_recognised_far_down() {
    let mut engine = engine();
    let levels = 10_000;
    let chain = (0..levels).map(|level| {
        let id = 100 + level;
        let parent = if level == 0 { SYSTEM } else { id - 1 };
        let name = if level == 5 {
            docker('a')
        } else if level == 200 {
            docker('b')
        } else {
            "d".to_owned()
        };
        found(id, parent, &name)
    });
    let first = walk(chain.collect(), &[]);
    assert_eq!(engine.walked(&first, now(20)).new.len(), 10_000);
    assert_eq!(engine.registry().live_count(), 1);
    let lowest = 100 + levels - 1;
    assert_eq!(
        container_of_a_kill(&mut engine, lowest),
        Some("a".repeat(64))
    );
    // The same chain is not gone where its top was skipped.
    let missing: Vec<u64> = (100..100 + levels).collect();
    let skips = skipping(walk(Vec::new(), &missing), &[100]);
    assert_eq!(engine.gone(&skips), []);
}
