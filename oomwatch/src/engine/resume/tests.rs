//! What a new run resumes.

use super::*;
use crate::{
    containers::{by_path::CgroupDiscovery, identity::Identity},
    engine::fixture::{begin_at, setting},
    event::{Now, OomEvent},
    record::{
        Record,
        fixture::{memcg, victim},
    },
};

const POD: u64 = 2;
const C: u64 = 3;

fn now(at_ns: u64) -> Now {
    Now {
        boottime_ns: at_ns,
        unix_time_ns: i128::from(at_ns),
    }
}

fn engine() -> Engine {
    Engine::new(setting(CgroupDiscovery::Off))
}

fn learn(engine: &mut Engine, cgroups: &[(u64, u64)]) {
    for &(id, parent) in cgroups {
        engine.learn(CgroupId(id), CgroupId(parent), id.to_string().as_bytes());
    }
}

fn register(engine: &mut Engine, cgroup: u64) {
    let container = Container {
        id: ContainerId::new(&cgroup.to_string()).unwrap(),
        cgroup_id: CgroupId(cgroup),
        identity: Identity::Manual,
        inside: None,
        details: ContainerDetails::default(),
    };
    engine.register(container).unwrap();
}

/// What a run leaves.
type Left = (Vec<(CgroupId, Ledger)>, Vec<(CgroupId, Word)>);

/// A run that has seen kills in the container, and ends.
fn first_run(kills: u64) -> Left {
    let mut engine = engine();
    engine.resume(None, Vec::new());
    begin_at(&mut engine, &[]);
    learn(&mut engine, &[(POD, 1), (C, POD)]);
    engine.settle_resumed();
    register(&mut engine, C);
    engine.keep_registration(CgroupId(C));
    for kill in 1..=kills {
        let record = victim(kill as u32, kill, &[memcg(C, kill), memcg(POD, kill)]);
        engine.apply(&[Record::Victim(Box::new(record))], now(kill));
    }
    let (ledgers, by_hand) = engine.all_kept();
    let ledgers = ledgers
        .into_iter()
        .map(|(id, ledger)| (id, ledger.unwrap()));
    let by_hand = by_hand.into_iter().map(|(id, name)| (id, name.unwrap()));
    (ledgers.collect(), by_hand.collect())
}

fn second_run((ledgers, by_hand): Left, cgroups: &[(u64, u64)]) -> Engine {
    let mut engine = engine();
    engine.resume(Some(ledgers), by_hand);
    learn(&mut engine, cgroups);
    engine.settle_resumed();
    engine
}

fn reading(id: u64, parent: u64, own: u64, sum: u64, children: &[(u64, u64)]) -> Reading {
    let children = children.iter().map(|&(id, sum)| (CgroupId(id), sum));
    Reading {
        parent: Some(CgroupId(parent)),
        children: children.collect(),
        ..Reading::of(CgroupId(id), Css::default(), own, Some(sum))
    }
}

fn told(events: &[OomEvent]) -> Vec<(Option<u64>, u64, bool)> {
    let one = |event: &OomEvent| {
        let container = event.container.as_ref().map(|found| found.cgroup_id.0);
        (container, event.count, event.while_down)
    };
    events.iter().map(one).collect()
}

#[test]
fn what_was_counted_meanwhile_is_told_once() {
    let mut engine = second_run(first_run(2), &[(POD, 1), (C, POD)]);
    let readings = [reading(POD, 1, 0, 3, &[(C, 3)]), reading(C, POD, 3, 3, &[])];
    let events = engine.compare_all(&readings, true, now(9));
    assert_eq!(told(&events), [(Some(C), 1, true)]);
    assert!(engine.compare_all(&readings, true, now(9)).is_empty());
}

/// A ledger that was one ahead of its counter once reported a hundred kills again.
#[test]
fn a_ledger_ahead_of_its_counter_tells_nothing_again() {
    let mut engine = second_run(first_run(100), &[(POD, 1), (C, POD)]);
    let readings = [
        reading(POD, 1, 0, 99, &[(C, 99)]),
        reading(C, POD, 99, 99, &[]),
    ];
    assert!(engine.compare_all(&readings, true, now(9)).is_empty());
}

/// Only the cgroups above show what a cgroup counted that came and went while no daemon ran.
#[test]
fn what_went_meanwhile_is_told_by_what_is_above_it() {
    let mut engine = second_run(first_run(2), &[(POD, 1)]);
    register(&mut engine, POD);
    // The container is gone, with one kill more. So is another cgroup, of which no record came, with two.
    let events = engine.compare_all(&[reading(POD, 1, 0, 5, &[])], true, now(9));
    assert_eq!(told(&events), [(Some(POD), 3, true)]);
}

#[test]
fn what_is_not_known_had_counted_nothing() {
    let mut engine = second_run(first_run(0), &[(POD, 1), (C, POD)]);
    let readings = [reading(POD, 1, 0, 1, &[(C, 1)]), reading(C, POD, 1, 1, &[])];
    let events = engine.compare_all(&readings, true, now(9));
    assert_eq!(told(&events), [(Some(C), 1, true)]);
}

#[test]
fn counters_that_began_again_meanwhile_are_told_from_0() {
    let mut kept = first_run(3);
    for (id, ledger) in &mut kept.0 {
        ledger.css.inode = Some(id.0 + 100);
    }
    let mut engine = second_run(kept, &[(POD, 1), (C, POD)]);
    let readings = [reading(POD, 1, 0, 4, &[(C, 1)]), {
        let mut again = reading(C, POD, 1, 1, &[]);
        again.css.inode = Some(C + 200);
        again
    }];
    let events = engine.compare_all(&readings, true, now(9));
    assert_eq!(told(&events), [(Some(C), 1, true)]);
}

#[test]
fn a_registration_by_hand_comes_back_and_is_taken_over_once() {
    let mut engine = second_run(first_run(0), &[(POD, 1), (C, POD)]);
    let id = ContainerId::new("3").unwrap();
    assert_eq!(engine.container(CgroupId(C)).unwrap().id, id);
    assert!(engine.take_restored(&id, CgroupId(C)));
    assert!(!engine.take_restored(&id, CgroupId(C)));
}

#[test]
fn a_registration_of_a_cgroup_that_went_away_is_forgotten() {
    let mut engine = second_run(first_run(0), &[(POD, 1)]);
    let (_, registrations) = engine.take_changes();
    assert_eq!(registrations, [(CgroupId(C), None)]);
}

#[test]
fn what_is_taken_out_by_hand_stays_out() {
    let mut engine = second_run(first_run(0), &[(POD, 1), (C, POD)]);
    engine.take_changes();
    engine.unregister(&ContainerId::new("3").unwrap()).unwrap();
    let word = Word::TakenOut;
    assert_eq!(engine.take_changes().1, [(CgroupId(C), Some(word.clone()))]);
    engine.all_kept();
    let mut engine = second_run(
        (Vec::new(), vec![(CgroupId(C), word)]),
        &[(POD, 1), (C, POD)],
    );
    assert!(engine.container(CgroupId(C)).is_none());
    engine.discover(CgroupId(C));
    assert!(engine.container(CgroupId(C)).is_none());
}
