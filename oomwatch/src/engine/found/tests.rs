//! Containers whose creation was lost, one of them in another, while victims are lost too.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{
    CgroupDiscovery, Kind, OomEvent,
    cgroup::walk::{Found, Walk},
    engine::fixture::setting,
    event::build::Now,
    record::{
        Record,
        fixture::{change, memcg, victim},
    },
};

const SLICE: u64 = 2;
/// Containers: one alone, and one with two in it.
const ALONE: usize = 0;
const OUTER: usize = 1;
const INNER: [usize; 2] = [2, 3];
const CONTAINERS: usize = 4;

const CASES: u32 = 4000;

/// One cgroup of a container.
#[derive(Clone, Copy, Debug)]
struct Cgroup {
    id: u64,
    counter: u64,
    /// No record and no scan has told of it.
    is_hidden: bool,
    /// So it was once, and a victim told of its counter meanwhile: what was lost before, nobody knows.
    was_seen_hidden: bool,
}

/// A host on which records of both kinds are lost, and scans find what is there.
struct Bench {
    engine: Engine,
    clock: u64,
    next_id: u64,
    pids: u32,
    cgroups: [Option<Cgroup>; CONTAINERS],
    /// All that there ever were, when they went or as they are.
    gone: Vec<(usize, Cgroup)>,
    /// Of each container's cgroup.
    name: fn(usize) -> String,
    /// Cgroup that each seen victim was in.
    victims: HashMap<u32, u64>,
    events: Vec<OomEvent>,
}

impl Bench {
    /// Containers are known by their names, or else any leaf is one.
    fn new(discovery: CgroupDiscovery) -> Self {
        let mut engine = Engine::new(setting(discovery));
        let name = match discovery {
            CgroupDiscovery::Leaves => |number| format!("leaf-{number}"),
            _ => |number: usize| format!("docker-{}.scope", number.to_string().repeat(64)),
        };
        engine.learn(CgroupId(SLICE), CgroupId::ROOT, b"system.slice");
        engine.baseline(CgroupId(SLICE), 0, 1);
        engine.start_is_over();
        Self {
            engine,
            name,
            clock: 1,
            next_id: 10,
            pids: 0,
            cgroups: [None; CONTAINERS],
            gone: Vec::new(),
            victims: HashMap::new(),
            events: Vec::new(),
        }
    }

    fn now(&mut self) -> Now {
        self.clock += 1;
        Now {
            boottime_ns: self.clock,
            unix_time_ns: 0,
        }
    }

    fn apply(&mut self, record: Record) {
        let now = self.now();
        self.events.extend(self.engine.apply(&[record], now));
    }

    fn parent(&self, container: usize) -> Option<u64> {
        if INNER.contains(&container) {
            Some(self.cgroups[OUTER]?.id)
        } else {
            Some(SLICE)
        }
    }

    fn create(&mut self, container: usize, is_lost: bool) {
        let Some(parent) = self.parent(container) else {
            return;
        };
        // Below what is not known, nothing is known by its record either.
        let is_hidden =
            is_lost || INNER.contains(&container) && self.cgroups[OUTER].unwrap().is_hidden;
        if self.cgroups[container].is_some() {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.cgroups[container] = Some(Cgroup {
            id,
            counter: 0,
            is_hidden,
            was_seen_hidden: false,
        });
        if !is_hidden {
            let created = change(id, parent, &(self.name)(container), self.clock);
            self.apply(Record::CgroupCreated(created));
        }
    }

    fn lineage(container: usize) -> Vec<usize> {
        if INNER.contains(&container) {
            vec![container, OUTER]
        } else {
            vec![container]
        }
    }

    fn kill(&mut self, container: usize, is_lost: bool) {
        if self.cgroups[container].is_none() {
            return;
        }
        let mut chain = Vec::new();
        for container in Self::lineage(container) {
            let cgroup = self.cgroups[container].as_mut().unwrap();
            cgroup.counter += 1;
            cgroup.was_seen_hidden |= cgroup.is_hidden && !is_lost;
            chain.push(memcg(cgroup.id, cgroup.counter));
        }
        if is_lost {
            return self.engine.lost_victims();
        }
        self.clock += 1;
        self.pids += 1;
        self.victims.insert(self.pids, chain[0].cgroup_id.0);
        let record = victim(self.pids, self.clock, &chain);
        self.apply(Record::Victim(Box::new(record)));
    }

    /// The children go first.
    fn remove(&mut self, container: usize) {
        let has_children = INNER.iter().any(|&inner| self.cgroups[inner].is_some());
        if container == OUTER && has_children {
            return;
        }
        let Some(parent) = self.parent(container) else {
            return;
        };
        let Some(cgroup) = self.cgroups[container].take() else {
            return;
        };
        self.gone.push((container, cgroup));
        let mut gone = change(cgroup.id, parent, &(self.name)(container), self.clock);
        gone.counters = Some(memcg(cgroup.id, cgroup.counter));
        self.apply(Record::CgroupRemoved(gone));
    }

    /// As the watcher's task does, which finds everything at once.
    fn scan(&mut self) {
        let mut found = Vec::new();
        for container in [ALONE, OUTER, INNER[0], INNER[1]] {
            let parent = self.parent(container);
            if let (Some(cgroup), Some(parent)) = (&mut self.cgroups[container], parent) {
                cgroup.is_hidden = false;
                found.push(Found {
                    id: CgroupId(cgroup.id),
                    parent: CgroupId(parent),
                    name: (self.name)(container).into_bytes().into(),
                });
            }
        }
        let walk = Walk {
            began_ns: self.clock,
            found,
            ..Walk::default()
        };
        let now = self.now();
        self.engine.walked_again(&walk, now);
        self.register_finds();
    }

    fn counter(&self, id: CgroupId) -> u64 {
        let mut cgroups = self.cgroups.iter().flatten();
        cgroups.find(|cgroup| cgroup.id == id.0).unwrap().counter
    }

    fn register_finds(&mut self) {
        loop {
            let finds = self.engine.next_finds(2);
            if finds.is_empty() {
                break;
            }
            let reads = finds.into_iter().map(|find| {
                let ids = self.engine.to_be_read_for(find);
                let read: Vec<_> = ids.iter().map(|&id| (id, self.counter(id))).collect();
                (find, read)
            });
            for (find, read) in reads.collect::<Vec<_>>() {
                self.engine.register_find(find, &read);
            }
        }
        if self.engine.may_claim() {
            let now = self.now();
            let claimed = self.engine.claim(now);
            self.engine.admit(claimed, now);
            self.events.extend(self.engine.take_ready(now));
        }
    }

    fn audit(&mut self) {
        for id in self.engine.audited() {
            let now = self.now();
            let oom_kill = self.counter(id);
            self.events
                .extend(self.engine.audit_one(id, oom_kill, None, now));
        }
    }

    /// The last word on each event.
    fn last_words(&self) -> Vec<&OomEvent> {
        let by_id: HashMap<&str, &OomEvent> = self
            .events
            .iter()
            .map(|event| (event.id.as_str(), event))
            .collect();
        by_id.into_values().collect()
    }

    /// How many kills were told of a cgroup, and of those in it.
    fn told(&self, cgroups: &[u64]) -> u64 {
        let words = self.last_words().into_iter();
        let of = words.filter(|event| {
            let container = event.container.as_ref();
            container.is_some_and(|found| cgroups.contains(&found.cgroup_id.0))
        });
        of.map(|event| event.count).sum()
    }

    fn check(&mut self) {
        self.scan();
        self.audit();
        for (container, numbers) in self.engine.numbers() {
            assert_eq!(numbers.residual(), 0, "{}: {numbers:?}", container.id);
        }
        for event in self.last_words() {
            if event.kind == Kind::Kill {
                let cgroup = self.victims[&event.victim.pid.unwrap()];
                let found = event.container.as_ref().expect("all are claimed").cgroup_id;
                // Where it was not known yet, it was the one above that lost a process.
                let above = self.engine.tree.parent(CgroupId(cgroup));
                assert!(found.0 == cgroup || Some(found) == above, "{event:?}");
            }
        }
        self.check_counts();
    }

    /// Nothing is told twice, and nothing is left out of what was known all along.
    fn check_counts(&self) {
        let live = self.cgroups.iter().enumerate();
        let live = live.filter_map(|(container, cgroup)| Some((container, (*cgroup)?)));
        let all: Vec<_> = self.gone.iter().copied().chain(live).collect();
        for &(container, cgroup) in &all {
            let mut ids = vec![cgroup.id];
            if container == OUTER {
                ids.extend(self.below(&all, cgroup.id));
            }
            let told = self.told(&ids);
            assert!(told <= cgroup.counter, "{container}: {told}, {cgroup:?}");
            let is_sure = container == ALONE || container == OUTER;
            if is_sure && !cgroup.was_seen_hidden {
                assert_eq!(told, cgroup.counter, "{container}: {cgroup:?}");
            }
        }
    }

    fn below(&self, all: &[(usize, Cgroup)], outer: u64) -> Vec<u64> {
        let inner = all
            .iter()
            .filter(|(container, _)| INNER.contains(container));
        inner
            .map(|(_, cgroup)| cgroup.id)
            .filter(|&id| self.engine.tree.parent(CgroupId(id)) == Some(CgroupId(outer)))
            .collect()
    }
}

#[derive(Clone, Debug)]
enum Action {
    Create { container: usize, is_lost: bool },
    Kill { container: usize, is_lost: bool },
    Remove { container: usize },
    Scan,
    Audit,
}

fn action() -> impl Strategy<Value = Action> {
    let container = 0..CONTAINERS;
    let lost = any::<bool>();
    prop_oneof![
        3 => (container.clone(), lost).prop_map(|(container, is_lost)| Action::Create { container, is_lost }),
        5 => (container.clone(), lost).prop_map(|(container, is_lost)| Action::Kill { container, is_lost }),
        1 => container.prop_map(|container| Action::Remove { container }),
        2 => Just(Action::Scan),
        1 => Just(Action::Audit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn what_is_found_is_told_once(actions in proptest::collection::vec(action(), 0..25)) {
        let mut bench = Bench::new(CgroupDiscovery::Containers);
        for action in actions {
            match action {
                Action::Create { container, is_lost } => bench.create(container, is_lost),
                Action::Kill { container, is_lost } => bench.kill(container, is_lost),
                Action::Remove { container } => bench.remove(container),
                Action::Scan => bench.scan(),
                Action::Audit => bench.audit(),
            }
        }
        bench.check();
    }
}

/// The one above was there, and its audit has told it.
#[test]
fn what_the_outer_one_told_is_not_told_by_one_whose_removal_is_its_first_word() {
    let mut bench = Bench::new(CgroupDiscovery::Containers);
    bench.create(OUTER, false);
    bench.create(INNER[0], true);
    bench.kill(INNER[0], true);
    bench.audit();
    bench.remove(INNER[0]);
    bench.check();
}

#[test]
fn what_is_lost_in_one_whose_creation_was_lost_is_its_own() {
    let mut bench = Bench::new(CgroupDiscovery::Containers);
    bench.create(ALONE, true);
    bench.kill(ALONE, true);
    bench.kill(ALONE, true);
    let cgroup = bench.cgroups[ALONE].unwrap();
    bench.remove(ALONE);
    assert_eq!(bench.told(&[cgroup.id]), 2);
}

/// Both are found at once. A victim has told of the outer one's counter, and not of the inner one's.
#[test]
fn what_the_inner_one_is_to_tell_is_not_told_by_an_outer_one_found_with_it() {
    let mut bench = Bench::new(CgroupDiscovery::Containers);
    bench.create(OUTER, true);
    bench.create(INNER[0], true);
    bench.create(INNER[1], true);
    bench.kill(INNER[0], true);
    bench.kill(INNER[1], false);
    bench.kill(INNER[0], true);
    bench.check();
}

/// With all leaves as containers: its child's last counters have told it.
#[test]
fn what_a_child_told_is_not_told_by_its_parent_that_is_a_leaf_again() {
    let mut bench = Bench::new(CgroupDiscovery::Leaves);
    bench.create(OUTER, false);
    let outer = bench.cgroups[OUTER].unwrap();
    for inner in INNER {
        bench.create(inner, false);
    }
    bench.kill(INNER[0], true);
    for inner in INNER {
        bench.remove(inner);
    }
    assert!(!bench.engine.has_account(CgroupId(outer.id)));
    bench.register_finds();
    assert!(bench.engine.has_account(CgroupId(outer.id)));
    bench.audit();
    let told: u64 = bench.events.iter().map(|event| event.count).sum();
    assert_eq!(told, 1, "{:?}", bench.events);
}
