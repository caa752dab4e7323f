//! Containers of which only the counters are known.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    containers::{
        by_path::CgroupDiscovery,
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    engine::{EngineConfig, compose::Origin, fixture::begin_at},
    event::{Evidence, Kind},
    id::{ContainerId, Css},
    ledger::{Counting, Reading},
    record::{
        Record,
        fixture::{change, victim},
    },
    tier::Tier,
    topology::owners::AllRoots,
};

const POD: u64 = 2;
const C: u64 = 3;
const D: u64 = 4;

fn now(at_ns: u64) -> Now {
    Now {
        boottime_ns: at_ns,
        unix_time_ns: i128::from(at_ns),
    }
}

fn empty_engine() -> Engine {
    Engine::new(EngineConfig {
        origin: Origin {
            boot_id: "boot".into(),
            node: None,
            tier: Tier::Counters,
        },
        discovery: CgroupDiscovery::Off,
        units: false,
        root: CgroupId::ROOT,
        counting: Counting::Hierarchical,
        owners: Arc::new(AllRoots),
    })
}

/// A pod with two containers, whose counters are these at registration.
fn engine(pod: u64, c: u64, d: u64) -> Engine {
    let mut engine = empty_engine();
    begin_at(&mut engine, &[(POD, 1, pod), (C, POD, c), (D, POD, d)]);
    for (id, parent, name) in [(POD, 1, "pod"), (C, POD, "c"), (D, POD, "d")] {
        engine.learn(CgroupId(id), CgroupId(parent), name.as_bytes());
        if id != POD {
            register(&mut engine, id);
        }
    }
    engine
}

fn register(engine: &mut Engine, id: u64) {
    let container = Container {
        id: ContainerId::new(&id.to_string()).unwrap(),
        cgroup_id: CgroupId(id),
        identity: Identity::Manual,
        inside: None,
        details: ContainerDetails::default(),
    };
    engine.register(container).unwrap();
}

fn reading(id: u64, oom_kill: u64, oom_group_kill: Option<u64>) -> CounterReading {
    CounterReading {
        cgroup_id: CgroupId(id),
        serial: Some(1),
        events: MemoryEvents {
            oom: Some(1),
            oom_kill: Some(oom_kill),
            oom_group_kill,
        },
    }
}

fn told(events: &[OomEvent]) -> Vec<(u64, u64)> {
    let one = |event: &OomEvent| (event.container.as_ref().unwrap().cgroup_id.0, event.count);
    events.iter().map(one).collect()
}

#[test]
fn a_rise_is_told_once_and_old_counts_never() {
    let mut engine = engine(7, 5, 2);
    let readings = [reading(C, 6, Some(0)), reading(D, 2, Some(0))];
    let events = engine.read(&readings, now(5));
    assert_eq!(told(&events), [(C, 1)]);
    assert!(engine.read(&readings, now(6)).is_empty());
    let event = events.first().unwrap();
    assert_eq!(event.kind, Kind::CounterOnly);
    assert_eq!(event.evidence, [Evidence::Counter]);
    assert_eq!(event.victim.pid, None);
    assert_eq!(event.quality.tier, Tier::Counters);
    assert_eq!(engine.totals().counter_only, 1);
}

#[test]
fn a_group_of_three_is_three_and_a_double_count() {
    let mut engine = engine(0, 0, 0);
    let events = engine.read(&[reading(C, 4, Some(1))], now(5));
    assert_eq!(told(&events), [(C, 3)]);
    assert_eq!(events.first().unwrap().counter.recounts, Some(1));
}

#[test]
fn before_5_17_double_counts_are_unknown_and_not_0() {
    let mut engine = engine(0, 0, 0);
    let events = engine.read(&[reading(C, 4, None)], now(5));
    assert_eq!(told(&events), [(C, 4)]);
    let event = events.first().unwrap();
    assert_eq!(event.counter.recounts, None);
    assert!(event.quality.missing.contains(&"recounts"));
    let read = OomEvent::from_json(&event.to_json());
    assert_eq!(read.unwrap().quality.missing, event.quality.missing);
}

#[test]
fn a_registered_pod_tells_only_what_its_containers_do_not() {
    let mut engine = engine(0, 0, 0);
    register(&mut engine, POD);
    // In any order.
    let readings = [
        reading(POD, 4, Some(0)),
        reading(C, 1, Some(0)),
        reading(D, 2, Some(0)),
    ];
    let events = engine.read(&readings, now(5));
    assert_eq!(events.len(), 3);
    assert!(told(&events).contains(&(POD, 1)), "{:?}", told(&events));
}

/// Its pod's counter reported it: it is past when the container is registered.
#[test]
fn what_a_pod_told_of_a_container_not_found_yet_is_told_once() {
    let mut engine = engine(0, 0, 0);
    engine.unregister(&ContainerId::new("3").unwrap()).unwrap();
    register(&mut engine, POD);
    let events = engine.read(&[reading(POD, 1, Some(0))], now(5));
    assert_eq!(told(&events), [(POD, 1)]);
    // As the watcher does before it registers a container.
    engine.place(&[Reading {
        children: vec![(CgroupId(C), 1)],
        ..Reading::of(CgroupId(POD), Css::default(), 0, Some(1))
    }]);
    assert!(engine.read(&[reading(C, 1, Some(0))], now(6)).is_empty());
    register(&mut engine, C);
    assert!(engine.read(&[reading(C, 1, Some(0))], now(7)).is_empty());
    let both = [reading(POD, 2, Some(0)), reading(C, 2, Some(0))];
    assert_eq!(told(&engine.read(&both, now(8))), [(C, 1)]);
}

#[test]
fn counters_that_started_again_are_told_from_0() {
    let mut engine = engine(0, 5, 0);
    engine.read(&[reading(C, 6, Some(0))], now(5));
    let again = CounterReading {
        serial: Some(2),
        ..reading(C, 1, Some(0))
    };
    assert_eq!(told(&engine.read(&[again], now(6))), [(C, 1)]);
}

#[test]
fn a_container_that_is_gone_is_still_named() {
    let mut engine = engine(0, 0, 0);
    let removed = Record::CgroupRemoved(change(C, POD, "c", 4));
    assert!(engine.apply(&[removed], now(4)).is_empty());
    assert_eq!(engine.owner(CgroupId(C)), Some(CgroupId(C)));
    let events = engine.read(&[reading(C, 1, Some(0))], now(5));
    assert_eq!(told(&events), [(C, 1)]);
}

#[test]
fn a_container_that_comes_back_by_hand_starts_where_it_was_left() {
    let mut engine = engine(0, 0, 0);
    engine.read(&[reading(C, 3, Some(0))], now(5));
    engine.unregister(&ContainerId::new("3").unwrap()).unwrap();
    engine.read(&[reading(C, 4, Some(0))], now(6));
    register(&mut engine, C);
    assert!(engine.read(&[reading(C, 4, Some(0))], now(7)).is_empty());
    assert_eq!(
        told(&engine.read(&[reading(C, 5, Some(0))], now(8))),
        [(C, 1)]
    );
}

#[test]
fn a_counter_that_is_missing_in_the_file_says_nothing() {
    let mut engine = engine(0, 0, 0);
    let mut reading = reading(C, 0, None);
    reading.events.oom_kill = None;
    assert!(engine.read(&[reading], now(5)).is_empty());
}

#[test]
fn the_greatest_counter_there_can_be_is_no_overflow() {
    let mut engine = engine(0, 0, 0);
    let events = engine.read(&[reading(C, u64::MAX, Some(u64::MAX))], now(5));
    assert!(events.iter().all(|event| event.count > 0));
}

#[test]
fn what_the_parent_tells_of_a_container_that_is_gone() {
    let mut engine = engine(0, 0, 0);
    engine.read(&[reading(C, 1, Some(0))], now(5));
    let removed = Record::CgroupRemoved(change(C, POD, "c", 6));
    engine.apply(&[removed], now(6));
    assert_eq!(engine.last_known(CgroupId(C)), 1);
    let event = engine.read_last(CgroupId(C), 3, now(7)).unwrap();
    assert_eq!(told(&[event]), [(C, 2)]);
    assert!(engine.read_last(CgroupId(C), 3, now(8)).is_none());
}

#[test]
fn a_residual_names_no_container() {
    let mut engine = engine(0, 0, 0);
    let event = engine.residual(CgroupId(POD), 2, now(5));
    assert_eq!((event.kind, event.count), (Kind::CounterOnly, 2));
    assert!(event.container.is_none());
    assert_eq!(event.victim.cgroup_id, None);
    assert_eq!(
        event.quality.attribution,
        crate::event::Attribution::Unregistered
    );
}

#[test]
fn its_own_limit_is_known_by_a_rise_of_its_own_oom() {
    let mut engine = engine(0, 0, 0);
    let with_oom = |oom_kill, oom| {
        let mut reading = reading(C, oom_kill, Some(0));
        reading.events.oom = Some(oom);
        reading
    };
    let mut scope = |reading: CounterReading, at_ns| {
        engine.note_causes(&[reading], now(at_ns));
        let events = engine.read(&[reading], now(at_ns));
        events.first().map(|event| event.scope)
    };
    assert_eq!(scope(with_oom(0, 4), 10), None);
    // An ancestor's limit, or the node's.
    assert_eq!(scope(with_oom(1, 4), 20), Some(Scope::Unknown));
    // The attempt is seen before its kill.
    assert_eq!(scope(with_oom(1, 5), 30), None);
    assert_eq!(scope(with_oom(2, 5), 40), Some(Scope::Container));
    assert_eq!(scope(with_oom(3, 5), 41 + CAUSE_NS), Some(Scope::Unknown));
}

/// What the kernel does to the containers C and D (`container` 0 and 1) of the pod.
#[derive(Clone, Debug)]
enum Action {
    /// One process; `tells`: a record of its exit comes.
    Kill { container: usize, tells: bool },
    /// `count` processes, counted once more than that.
    Group { container: usize, count: u8 },
    /// A process that was killed exits.
    Exit,
    /// Readings of one moment.
    Read,
}

fn action() -> impl Strategy<Value = Action> {
    let container = 0..2_usize;
    prop_oneof![
        3 => (container.clone(), any::<bool>()).prop_map(|(container, tells)| Action::Kill { container, tells }),
        1 => (container, 1..5_u8).prop_map(|(container, count)| Action::Group { container, count }),
        3 => Just(Action::Exit),
        2 => Just(Action::Read),
    ]
}

struct Model {
    engine: Engine,
    clock: u64,
    /// `oom_kill` and `oom_group_kill` of the pod, C and D.
    counters: [(u64, u64); 3],
    /// Kills in C and D.
    killed: [u64; 2],
    /// Processes that have yet to exit: container and process id.
    dying: std::collections::VecDeque<(usize, u32)>,
    next_pid: u32,
    events: Vec<OomEvent>,
}

impl Model {
    const IDS: [u64; 3] = [POD, C, D];

    fn act(&mut self, action: &Action) {
        self.clock += 1;
        match *action {
            Action::Kill { container, tells } => {
                self.kill(container, tells);
                self.count(container);
            }
            Action::Group { container, count } => {
                for _ in 0..=count {
                    self.count(container);
                }
                for _ in 0..count {
                    self.kill(container, true);
                }
                for place in [0, container + 1] {
                    self.counters[place].1 += 1;
                }
            }
            Action::Exit => self.exit(),
            Action::Read => self.read(),
        }
    }

    fn count(&mut self, container: usize) {
        for place in [0, container + 1] {
            self.counters[place].0 += 1;
        }
    }

    fn kill(&mut self, container: usize, tells: bool) {
        self.killed[container] += 1;
        self.next_pid += 1;
        if tells {
            self.dying.push_back((container, self.next_pid));
        }
    }

    fn reading(&self, place: usize) -> CounterReading {
        let (oom_kill, groups) = self.counters[place];
        reading(Self::IDS[place], oom_kill, Some(groups))
    }

    /// A reading waits until the victims that it counts had time to exit.
    fn read(&mut self) {
        let readings = [self.reading(0), self.reading(1), self.reading(2)];
        while !self.dying.is_empty() {
            self.exit();
        }
        let events = self.engine.read(&readings, now(self.clock));
        self.events.extend(events);
    }

    fn exit(&mut self) {
        let Some((container, pid)) = self.dying.pop_front() else {
            return;
        };
        let mut record = victim(pid, self.clock, &[]);
        record.at_exit = true;
        record.victim.cgroup_id = Some(CgroupId(Self::IDS[container + 1]));
        let reading = self.reading(container + 1);
        let event = self.engine.exited(&record, Some(&reading), now(self.clock));
        self.events.extend(event);
    }

    fn check(mut self) {
        self.read();
        let told = |id: u64, events: &[OomEvent]| -> u64 {
            let of = events
                .iter()
                .filter(|event| event.container.as_ref().unwrap().cgroup_id == CgroupId(id));
            of.map(|event| event.count).sum()
        };
        let mut all = told(POD, &self.events);
        assert_eq!(all, 0, "the pod itself lost nothing");
        for place in [1, 2] {
            let told = told(Self::IDS[place], &self.events);
            assert_eq!(told, self.killed[place - 1], "container {place}");
            let double_counts = self
                .engine
                .reconciler
                .ledgers
                .double_counts_of(CgroupId(Self::IDS[place]));
            assert_eq!(
                self.counters[place].0,
                told + double_counts,
                "the law of {place}"
            );
            all += told;
        }
        let double_counts = self
            .engine
            .reconciler
            .ledgers
            .double_counts_of(CgroupId(POD));
        assert_eq!(
            self.counters[0].0,
            all + double_counts,
            "the law of the pod"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whichever kills have records, and whenever counters are read.
    #[test]
    fn the_law_holds_for_readings(actions in proptest::collection::vec(action(), 0..40)) {
        let mut engine = engine(0, 0, 0);
        register(&mut engine, POD);
        let mut model = Model {
            engine,
            clock: 10,
            counters: [(0, 0); 3],
            killed: [0; 2],
            dying: std::collections::VecDeque::new(),
            next_pid: 0,
            events: Vec::new(),
        };
        model.read();
        for action in &actions {
            model.act(action);
        }
        model.check();
    }
}

/// A kill in a child was reported of the container above it, whose counter alone was read. The next run reads the
/// child's own counter, and reports nothing; nor does it take the next kill for an old one.
#[test]
fn what_was_told_of_a_container_is_not_told_of_its_child_by_the_next_run() {
    let mut first = empty_engine();
    first.resume(None, Vec::new());
    begin_at(&mut first, &[(POD, 1, 0)]);
    first.learn(CgroupId(POD), CgroupId::ROOT, b"pod");
    register(&mut first, POD);
    assert_eq!(
        told(&first.read(&[reading(POD, 2, Some(0))], now(5))),
        [(POD, 2)]
    );
    let (ledgers, _) = first.all_kept();
    let ledgers = ledgers
        .into_iter()
        .map(|(id, ledger)| (id, ledger.unwrap()));

    let mut next = empty_engine();
    next.resume(Some(ledgers.collect()), Vec::new());
    for (id, parent, name) in [(POD, 1, "pod"), (C, POD, "c")] {
        next.learn(CgroupId(id), CgroupId(parent), name.as_bytes());
    }
    next.settle_resumed();
    register(&mut next, POD);
    let of_pod = Reading {
        parent: Some(CgroupId::ROOT),
        children: vec![(CgroupId(C), 2)],
        ..Reading::of(CgroupId(POD), Css::default(), 0, Some(2))
    };
    let of_child = Reading {
        parent: Some(CgroupId(POD)),
        ..Reading::of(CgroupId(C), Css::default(), 2, Some(2))
    };
    assert_eq!(told(&next.compare_past(&[of_pod, of_child], now(9))), []);
    assert_eq!(
        told(&next.read(&[reading(POD, 3, Some(0))], now(10))),
        [(POD, 1)]
    );
}

/// It is registered between a kill that was reported of the container above it and one that was not yet.
#[test]
fn a_container_inside_another_begins_with_what_was_told_there() {
    let mut engine = empty_engine();
    begin_at(&mut engine, &[(POD, 1, 0)]);
    for (id, parent, name) in [(POD, 1, "pod"), (C, POD, "c")] {
        engine.learn(CgroupId(id), CgroupId(parent), name.as_bytes());
    }
    register(&mut engine, POD);
    let told_of_pod = engine.read(&[reading(POD, 1, Some(0))], now(5));
    assert_eq!(told(&told_of_pod), [(POD, 1)]);
    let of_pod = Reading {
        children: vec![(CgroupId(C), 2)],
        ..Reading::of(CgroupId(POD), Css::default(), 0, Some(2))
    };
    engine.place(&[of_pod]);
    assert!(engine.read(&[reading(C, 2, Some(0))], now(6)).is_empty());
    register(&mut engine, C);
    let both = [reading(POD, 2, Some(0)), reading(C, 2, Some(0))];
    assert_eq!(told(&engine.read(&both, now(7))), [(C, 1)]);
    assert!(engine.read(&both, now(8)).is_empty());
}
