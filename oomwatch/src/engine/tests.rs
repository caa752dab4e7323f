//! Whole paths through the engine: records in kernel order in, events out.

use std::sync::Arc;

use super::{fixture::begin_at, *};
use crate::{
    containers::{container::ContainerDetails, identity::Identity},
    event::{Attribution, Scope},
    id::ContainerId,
    record::{
        DoubleCount, GroupEnd, Invocation,
        fixture::{change, charged, memcg, victim},
    },
    tier::Tier,
    topology::owners::AllRoots,
};

const SYSTEM: u64 = 2;
const CONTAINER: u64 = 3;

fn origin() -> Origin {
    Origin {
        boot_id: "boot".into(),
        node: Some("n1".into()),
        tier: Tier::Btf,
    }
}

fn engine(discovery: CgroupDiscovery) -> Engine {
    let mut engine = Engine::new(EngineConfig {
        origin: origin(),
        discovery,
        units: false,
        root: CgroupId::ROOT,
        counting: Counting::Hierarchical,
        owners: Arc::new(AllRoots),
    });
    begin_at(&mut engine, &[]);
    engine.learn(CgroupId(SYSTEM), CgroupId::ROOT, b"system.slice");
    engine
}

fn now(at_ns: u64) -> Now {
    Now {
        boottime_ns: at_ns,
        unix_time_ns: i128::from(at_ns),
    }
}

fn docker(digit: char) -> String {
    format!("docker-{}.scope", digit.to_string().repeat(64))
}

fn created(id: u64, name: &str, at_ns: u64) -> Record {
    Record::CgroupCreated(change(id, SYSTEM, name, at_ns))
}

fn removed(id: u64, name: &str, at_ns: u64) -> Record {
    Record::CgroupRemoved(change(id, SYSTEM, name, at_ns))
}

fn killed(pid: u32, at_ns: u64, cgroup: u64, oom_kill: u64) -> Record {
    let chain = [memcg(cgroup, oom_kill), memcg(SYSTEM, oom_kill)];
    Record::Victim(Box::new(victim(pid, at_ns, &chain)))
}

fn container_id(event: &OomEvent) -> Option<&str> {
    event
        .container
        .as_ref()
        .map(|container| container.id.as_str())
}

#[test]
fn a_container_that_came_and_went_is_still_named() {
    let mut engine = engine(CgroupDiscovery::Containers);
    let name = docker('a');
    let records = [
        created(CONTAINER, &name, 1),
        killed(7, 2, CONTAINER, 1),
        removed(CONTAINER, &name, 3),
    ];
    let events = engine.apply(&records, now(4));
    let [event] = events.as_slice() else {
        panic!("one event: {events:?}");
    };
    assert_eq!(container_id(event), Some("a".repeat(64).as_str()));
    assert_eq!(event.quality.attribution, Attribution::Exact);
    assert_eq!(event.scope, Scope::Container);
    assert_eq!(
        event.victim.cgroup_path.as_deref(),
        Some(format!("/system.slice/{name}").as_str())
    );
    assert_eq!(engine.registry().live_count(), 0);
}

/// At the start a cgroup may be seen for the first time in its removal.
#[test]
fn a_removal_names_the_victim_before_it() {
    let mut engine = engine(CgroupDiscovery::Containers);
    let records = [
        killed(7, 2, CONTAINER, 1),
        removed(CONTAINER, &docker('a'), 3),
    ];
    let events = engine.apply(&records, now(4));
    assert!(
        events.iter().all(|event| event.container.is_some()),
        "{events:?}"
    );
}

#[test]
fn a_kill_without_a_container_is_reported() {
    let mut engine = engine(CgroupDiscovery::Off);
    let records = [
        created(CONTAINER, &docker('a'), 1),
        killed(7, 2, CONTAINER, 1),
    ];
    let events = engine.apply(&records, now(4));
    let [event] = events.as_slice() else {
        panic!("one event: {events:?}");
    };
    assert_eq!(event.quality.attribution, Attribution::Unregistered);
    assert_eq!(event.kind, Kind::Kill);
    assert_eq!(engine.totals().unregistered, 1);
}

#[test]
fn leaves_are_registered_as_they_come_and_go() {
    let mut engine = engine(CgroupDiscovery::Leaves);
    engine.apply(&[created(3, "a", 1)], now(1));
    assert!(engine.container(CgroupId(SYSTEM)).is_none());
    let leaf = engine.container(CgroupId(3)).unwrap();
    assert_eq!(leaf.id.as_str(), "/system.slice/a");
    engine.apply(&[removed(3, "a", 2)], now(2));
    let leaf = engine.container(CgroupId(SYSTEM)).unwrap();
    assert_eq!(leaf.id.as_str(), "/system.slice");
}

#[test]
fn a_recognised_container_with_children_stays_registered() {
    let mut engine = engine(CgroupDiscovery::Leaves);
    engine.apply(&[created(CONTAINER, &docker('a'), 1)], now(1));
    engine.learn(CgroupId(9), CgroupId(CONTAINER), b"init.scope");
    assert!(engine.container(CgroupId(CONTAINER)).is_some());
}

fn member(pid: u32, index: u32, oom_kill: u64) -> Record {
    let mut record = victim(pid, 10 + u64::from(index), &[memcg(CONTAINER, oom_kill)]);
    record.invocation = Some(Invocation {
        number: 5,
        index,
        kills_group: true,
    });
    Record::Victim(Box::new(record))
}

fn group_end() -> Record {
    Record::GroupEnd(GroupEnd {
        seq: 20,
        boottime_ns: 20,
        invocation: 5,
        marks: 3,
    })
}

/// The kernel counted its first victim again.
fn counted_again(oom_kill: u64) -> Record {
    Record::DoubleCount(DoubleCount {
        seq: 19,
        boottime_ns: 19,
        invocation: Some(5),
        pid: Some(1),
        start_boottime_ns: Some(1),
        charged: charged(CONTAINER, oom_kill).unwrap(),
        parent_id: None,
    })
}

#[test]
fn members_of_a_group_kill_know_their_number() {
    let mut engine = engine(CgroupDiscovery::Off);
    engine.apply(&[created(CONTAINER, "c", 1)], now(1));
    let held = engine.apply(&[member(1, 0, 1), member(2, 1, 2)], now(12));
    assert!(held.is_empty());
    assert!(engine.deadline_ns().is_some());
    let events = engine.apply(&[member(3, 2, 3), counted_again(4), group_end()], now(21));
    let groups: Vec<_> = events
        .iter()
        .map(|event| {
            event
                .group
                .map(|group| (group.invocation, group.index, group.size))
        })
        .collect();
    assert_eq!(
        groups,
        [
            Some((5, 0, Some(3))),
            Some((5, 1, Some(3))),
            Some((5, 2, Some(3)))
        ]
    );
    // The kernel counted its first victim again after the last mark: 3 kills, `oom_kill` 4. Each
    // event has the counters of its own moment.
    assert!(events.iter().all(|event| event.counter.recounts == Some(0)));
    assert_eq!(
        engine
            .reconciler
            .ledgers
            .double_counts_of(CgroupId(CONTAINER)),
        1
    );
    assert_eq!(engine.totals().kills, 3);
    assert_eq!(engine.deadline_ns(), None);
}

#[test]
fn a_slow_group_is_let_go_without_its_number() {
    let mut engine = engine(CgroupDiscovery::Off);
    engine.apply(&[created(CONTAINER, "c", 1)], now(1));
    engine.apply(&[member(1, 0, 1)], now(12));
    engine.let_all_go();
    let released = engine.take_ready(now(13));
    assert_eq!(released.len(), 1);
    let rest = engine.apply(&[counted_again(2), member(2, 1, 3), group_end()], now(21));
    assert_eq!(rest.len(), 1);
    assert!(
        rest.iter()
            .all(|event| event.group.is_some_and(|group| group.size.is_none()))
    );
}

#[test]
fn one_process_is_one_event() {
    let mut engine = engine(CgroupDiscovery::Off);
    engine.apply(&[created(CONTAINER, "c", 1)], now(1));
    let mut records = vec![killed(7, 2, CONTAINER, 1)];
    records.extend((1..12).map(|tid| {
        let mut thread = victim(7, 2 + tid, &[memcg(CONTAINER, 1), memcg(SYSTEM, 1)]);
        thread.counted = Some(false);
        Record::Victim(Box::new(thread))
    }));
    let events = engine.apply(&records, now(20));
    assert_eq!(events.len(), 1);
    assert_eq!(engine.totals().folded, 11);
}

#[test]
fn a_hand_registered_container_keeps_its_kills_after_its_removal() {
    let mut engine = engine(CgroupDiscovery::Off);
    engine.apply(&[created(CONTAINER, "c", 1)], now(1));
    let container = Container {
        id: ContainerId::new("web-1").unwrap(),
        cgroup_id: CgroupId(CONTAINER),
        identity: Identity::Manual,
        inside: None,
        details: ContainerDetails::default(),
    };
    engine.register(container).unwrap();
    engine.apply(&[removed(CONTAINER, "c", 2)], now(2));
    let late = engine.apply(&[killed(7, 2, CONTAINER, 1)], now(3));
    assert!(
        late.iter()
            .all(|event| container_id(event) == Some("web-1")),
        "{late:?}"
    );
}

const AGAIN: u64 = 4;

/// The daemon was slow: the container went and came back in one batch. Its id was still taken, and the second kill
/// was nobody's.
#[test]
fn an_id_that_comes_back_in_one_batch_is_named_both_times() {
    let mut engine = engine(CgroupDiscovery::Containers);
    let name = docker('a');
    let records = [
        created(CONTAINER, &name, 1),
        killed(7, 2, CONTAINER, 1),
        removed(CONTAINER, &name, 3),
        created(AGAIN, &name, 4),
        killed(8, 5, AGAIN, 1),
    ];
    let events = engine.apply(&records, now(6));
    let expected = "a".repeat(64);
    let named: Vec<_> = events.iter().map(container_id).collect();
    assert_eq!(named, [Some(expected.as_str()); 2], "{events:?}");
    assert_eq!(engine.registry().live_count(), 1);
}
