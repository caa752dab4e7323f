//! That the law finds what is wrong: a check that cannot fail proves nothing.

use serde_json::json;

use super::*;
use crate::event::SCHEMA;

const CGROUP: u64 = 40;

struct World {
    rises: BTreeMap<String, i64>,
    node_rise: i64,
    spawned: BTreeMap<u32, Home>,
    events: Vec<Event>,
    totals: Vec<ContainerTotals>,
    stopped: Stopped,
}

fn event(kind: &str, pid: Option<u32>, container: Option<&str>, count: u64) -> Event {
    let container = container.map(|id| json!({"id": id}));
    Event::from_json(&json!({"schema": SCHEMA, "kind": kind, "count": count,
        "container": container, "victim": {"pid": pid, "cgroup_id": CGROUP}}))
    .unwrap()
}

/// Three processes of one group die in `c` (counted 4 times), and one in no container; a record
/// of one more kill in `c` was lost.
fn world() -> World {
    let home = |container: Option<&str>| Home {
        cgroup_id: CGROUP,
        container: container.map(str::to_owned),
    };
    World {
        rises: BTreeMap::from([("c".to_owned(), 5), ("idle".to_owned(), 0)]),
        node_rise: 6,
        spawned: BTreeMap::from([
            (1, home(Some("c"))),
            (2, home(Some("c"))),
            (3, home(Some("c"))),
            (4, home(None)),
            (5, home(Some("c"))),
        ]),
        events: vec![
            event("kill", Some(1), Some("c"), 1),
            event("kill", Some(2), Some("c"), 1),
            event("kill", Some(3), Some("c"), 1),
            event("kill", Some(4), None, 1),
            event("already_exiting", Some(5), Some("c"), 0),
            event("counter_only", None, Some("c"), 1),
        ],
        totals: vec![ContainerTotals {
            container: "c".to_owned(),
            increase: 5,
            kills: 3,
            counter_only: 1,
            double_counts: 1,
            residual: 0,
        }],
        stopped: Stopped {
            kills: 4,
            counter_only: 1,
            double_counts: 1,
            ..Stopped::default()
        },
    }
}

fn judge(world: &World) -> Law {
    Law::judge(&Witnesses {
        rises: &world.rises,
        node_rise: world.node_rise,
        logged: Some(5),
        spawned: &world.spawned,
        events: &world.events,
        totals: Some(&world.totals),
        stopped: Some(world.stopped),
    })
}

/// Judges a world in which one thing is changed, which must be noticed.
fn broken(change: impl FnOnce(&mut World)) -> Law {
    let mut world = world();
    change(&mut world);
    let law = judge(&world);
    assert!(!law.failures.is_empty(), "nothing was noticed: {law:?}");
    law
}

#[test]
fn the_law_holds_where_everything_adds_up() {
    let expected = Law {
        truth: 5,
        node: 6,
        log: Some(5),
        kills: 4,
        counter_only: 1,
        double_counts: 1,
        already_exiting: 1,
        ..Law::default()
    };
    assert_eq!(judge(&world()), expected);
}

#[test]
fn a_kill_that_was_not_reported_is_a_residual() {
    let law = broken(|world| drop(world.events.remove(0)));
    // Of the container, and of the node.
    assert_eq!((law.residual, law.misattributed), (2, 0));
}

#[test]
fn a_kill_that_was_not_counted_is_a_residual() {
    let law = broken(|world| world.events.push(event("kill", Some(5), Some("c"), 1)));
    assert_eq!(law.residual, 2);
}

#[test]
fn too_much_here_does_not_make_up_for_too_little_there() {
    let law = broken(|world| {
        world.rises = BTreeMap::from([("c".to_owned(), 4), ("idle".to_owned(), 1)]);
    });
    assert_eq!(law.residual, 2);
}

#[test]
fn a_process_that_is_reported_twice_is_noticed() {
    let law = broken(|world| world.events[1] = world.events[0].clone());
    assert_eq!((law.residual, law.misattributed), (0, 0));
    assert!(law.failures.iter().any(|text| text.contains("twice")));
}

#[test]
fn a_process_in_the_wrong_container_is_noticed() {
    let law = broken(|world| world.events[0] = event("kill", Some(1), Some("idle"), 1));
    assert_eq!(law.misattributed, 1);
    let law = broken(|world| world.events[0] = event("kill", Some(1), None, 1));
    assert_eq!(law.misattributed, 1);
    let law = broken(|world| world.events[3] = event("kill", Some(4), Some("c"), 1));
    assert_eq!(law.misattributed, 1);
}

#[test]
fn a_process_in_the_wrong_cgroup_is_noticed() {
    let law = broken(|world| world.spawned.get_mut(&2).unwrap().cgroup_id = 41);
    assert_eq!((law.residual, law.misattributed), (0, 1));
}

#[test]
fn a_process_nobody_started_is_noticed() {
    let law = broken(|world| world.events[0] = event("kill", Some(99), Some("c"), 1));
    assert_eq!(law.misattributed, 1);
    let law = broken(|world| world.events[0] = event("kill", None, Some("c"), 1));
    assert_eq!(law.misattributed, 1);
}

#[test]
fn a_count_for_a_container_that_is_none_is_noticed() {
    let law = broken(|world| world.events[5] = event("counter_only", None, Some("other"), 1));
    assert_eq!(law.misattributed, 1);
}

#[test]
fn books_that_differ_from_events_or_counters_are_noticed() {
    broken(|world| world.totals.clear());
    broken(|world| world.totals[0].increase = 4);
    broken(|world| world.totals[0].kills = 2);
    broken(|world| world.totals[0].residual = 1);
    assert_eq!(
        broken(|world| world.totals[0].double_counts = 2).residual,
        1
    );
}

#[test]
fn a_node_that_counted_otherwise_is_noticed() {
    assert_eq!(broken(|world| world.node_rise = 7).residual, 1);
    assert_eq!(broken(|world| world.stopped.double_counts = 0).residual, 1);
    broken(|world| world.stopped.kills = 3);
    let mut world = world();
    let witnesses = Witnesses {
        rises: &world.rises,
        node_rise: world.node_rise,
        logged: None,
        spawned: &world.spawned,
        events: &world.events,
        totals: Some(&world.totals),
        stopped: None,
    };
    assert!(!Law::judge(&witnesses).failures.is_empty());
    world.events.clear();
    assert!(!judge(&world).failures.is_empty());
}

#[test]
fn more_kills_than_the_kernel_logged_are_noticed() {
    assert!(!judge(&world()).tells_too_much());
    let mut law = judge(&world());
    law.counter_only += 1;
    assert!(law.tells_too_much());
    law.log = None;
    assert!(!law.tells_too_much());
}

#[test]
fn a_lost_kill_that_was_taken_for_a_double_count_is_noticed() {
    let mut world = world();
    world.events[5] = event("already_exiting", Some(5), Some("c"), 0);
    world.totals[0].counter_only = 0;
    world.totals[0].double_counts = 2;
    world.stopped = Stopped {
        kills: 4,
        counter_only: 0,
        double_counts: 2,
        ..Stopped::default()
    };
    let law = judge(&world);
    assert_eq!((law.residual, law.failures.len()), (0, 0), "{law:?}");
    assert!(law.tells_too_little());
}

#[test]
fn an_event_without_a_count_does_not_pass() {
    let law = broken(|world| {
        let text = json!({"schema": SCHEMA, "kind": "kill", "container": {"id": "c"},
            "victim": {"pid": 1, "cgroup_id": CGROUP}});
        world.events[0] = Event::from_json(&text).unwrap();
    });
    assert!(law.residual > 0);
}
