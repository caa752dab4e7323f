//! The conservation law against a model of the kernel: whatever it does, and whatever of it gets
//! lost on the way, the engine's numbers add up, no process is reported twice, and none in the
//! wrong container.

mod restart;

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::{
    ContainerDetails, ContainerId, Tier,
    account::Book,
    reconcile::Counting,
    record::{
        GroupEnd, Invocation, Memcg,
        fixture::{change, victim},
    },
};

const POD: u64 = 2;
const CONTAINERS: usize = 3;
/// `PROPTEST_CASES` has no say here: each push tries this many.
const CASES: u32 = 2000;

/// What the kernel does. `lost` records find no room in the ring.
#[derive(Clone, Debug)]
enum Action {
    Kill {
        container: usize,
        lost: bool,
    },
    /// Marks a dying process: no counter moves.
    Dying {
        container: usize,
        lost: bool,
    },
    /// One process, several threads marked, one count.
    Threads {
        container: usize,
        marks: u8,
    },
    /// `count` processes, counted once more than that.
    Group {
        container: usize,
        count: u8,
        recount_after: u8,
        lost: u8,
    },
    /// The container goes, with its last counters, and comes back on a new cgroup.
    Replace {
        container: usize,
    },
    Audit,
    /// The counters are read, a kill being under way. Its record arrives after that.
    ReadCounters {
        container: usize,
    },
    /// Their time has come.
    CompareCounters,
    /// From now on nothing reaches the store.
    StoreHangs,
    /// The daemon is killed, and another one goes on with what the store has.
    Restart(Restart),
    /// The same with programs that are pinned: they go on meanwhile.
    Pinned(Vec<Unread>),
}

/// What the kernel does while no daemon reads the ring.
#[derive(Clone, Debug)]
enum Unread {
    Kill {
        container: usize,
        lost: bool,
    },
    Dying {
        container: usize,
    },
    Group {
        container: usize,
        count: u8,
        recount_after: u8,
    },
    Replace {
        container: usize,
    },
}

fn unread() -> impl Strategy<Value = Unread> {
    let container = 0..CONTAINERS;
    prop_oneof![
        4 => (container.clone(), any::<bool>()).prop_map(|(container, lost)| Unread::Kill { container, lost }),
        2 => container.clone().prop_map(|container| Unread::Dying { container }),
        2 => (container.clone(), 1..5_u8, 0..5_u8).prop_map(
            |(container, count, recount_after)| Unread::Group { container, count, recount_after }
        ),
        1 => container.prop_map(|container| Unread::Replace { container }),
    ]
}

#[derive(Clone, Debug)]
struct Restart {
    /// Kills in each container while nobody watches.
    unseen: [u8; CONTAINERS],
    /// A container goes and comes back meanwhile.
    replaced: Option<usize>,
    /// Marks after the new probe is attached and before the counters are read.
    early: Vec<(usize, bool)>,
}

fn restart() -> impl Strategy<Value = Action> {
    let early = proptest::collection::vec((0..CONTAINERS, any::<bool>()), 0..4);
    let replaced = proptest::option::of(0..CONTAINERS);
    (proptest::array::uniform(0..3_u8), replaced, early).prop_map(|(unseen, replaced, early)| {
        Action::Restart(Restart {
            unseen,
            replaced,
            early,
        })
    })
}

fn action() -> impl Strategy<Value = Action> {
    let container = 0..CONTAINERS;
    prop_oneof![
        4 => (container.clone(), any::<bool>()).prop_map(|(container, lost)| Action::Kill { container, lost }),
        2 => (container.clone(), any::<bool>()).prop_map(|(container, lost)| Action::Dying { container, lost }),
        1 => (container.clone(), 1..6_u8).prop_map(|(container, marks)| Action::Threads { container, marks }),
        2 => (container.clone(), 1..5_u8, 0..5_u8, any::<u8>()).prop_map(
            |(container, count, recount_after, lost)| Action::Group { container, count, recount_after, lost }
        ),
        1 => container.clone().prop_map(|container| Action::Replace { container }),
        1 => container.prop_map(|container| Action::ReadCounters { container }),
        1 => Just(Action::CompareCounters),
        1 => Just(Action::Audit),
        1 => Just(Action::StoreHangs),
        2 => restart(),
        2 => proptest::collection::vec(unread(), 0..12).prop_map(Action::Pinned),
    ]
}

/// The kernel and the watcher's loop around the engine, without files and rings.
struct Model {
    engine: Engine,
    clock: u64,
    next_cgroup: u64,
    next_pid: u32,
    invocation: u64,
    /// Cgroup of each container.
    cgroups: Vec<u64>,
    counters: HashMap<u64, u64>,
    /// Counters at registration.
    bases: HashMap<u64, u64>,
    /// Where each process was, and whether it was counted.
    processes: HashMap<u32, (u64, bool)>,
    events: Vec<OomEvent>,
    /// The kernel side's map: the counter of each cgroup at its last mark.
    last_counts: HashMap<u64, u64>,
    /// Second counts that the kernel made, and whether something was lost that tells of one.
    recounts_made: u64,
    recount_lost: bool,
    /// The node's count when this run had spoken of nothing.
    node_base: u64,
    /// The ring, while nobody reads it.
    ring: Option<Vec<Record>>,
    store: ModelStore,
}

/// What `kill -9` leaves.
#[derive(Debug, Default)]
struct ModelStore {
    books: HashMap<CgroupId, Book>,
    /// How many of the events are stored.
    events: usize,
    /// The node's count up to which all was spoken of.
    node_told_up_to: Option<u64>,
    hangs: bool,
}

fn new_engine() -> Engine {
    Engine::new(Setting {
        origin: Origin {
            boot_id: "boot".into(),
            node: None,
            tier: Tier::Btf,
        },
        discovery: CgroupDiscovery::Off,
        units: false,
        root: CgroupId::ROOT,
        counting: Counting::Hierarchical,
    })
}

impl Model {
    /// The first container is registered when it is created, the others are there before.
    fn new(past: [u8; CONTAINERS]) -> Self {
        let mut model = Self {
            engine: new_engine(),
            clock: 1,
            next_cgroup: 10,
            next_pid: 1,
            invocation: 0,
            cgroups: Vec::new(),
            counters: HashMap::new(),
            bases: HashMap::new(),
            processes: HashMap::new(),
            events: Vec::new(),
            last_counts: HashMap::new(),
            recounts_made: 0,
            recount_lost: false,
            node_base: 0,
            ring: None,
            store: ModelStore::default(),
        };
        model.engine.resume(Vec::new());
        model.engine.learn(CgroupId(POD), CgroupId::ROOT, b"pod");
        let whole: u64 = past.iter().map(|&count| u64::from(count)).sum();
        model.counters.insert(POD, whole);
        model.node_base = whole;
        model.engine.baseline(CgroupId(POD), whole, 1);
        model.register(POD, "pod");
        for (index, count) in past.into_iter().enumerate() {
            let cgroup = model.next_cgroup;
            model.next_cgroup += 1;
            model.counters.insert(cgroup, u64::from(count));
            model.engine.learn(CgroupId(cgroup), CgroupId(POD), b"c");
            model.engine.baseline(CgroupId(cgroup), u64::from(count), 1);
            model.cgroups.push(cgroup);
            model.register(cgroup, &format!("c{index}"));
        }
        model
    }

    fn register(&mut self, cgroup: u64, id: &str) {
        self.register_again(cgroup, id);
        self.bases.insert(cgroup, self.counters[&cgroup]);
    }

    fn register_again(&mut self, cgroup: u64, id: &str) {
        let container = Container {
            id: ContainerId::new(id).unwrap(),
            cgroup_id: CgroupId(cgroup),
            details: ContainerDetails::default(),
        };
        self.engine.register(container).unwrap();
    }

    fn feed(&mut self, record: Record) {
        if let Some(ring) = &mut self.ring {
            return ring.push(record);
        }
        let now = self.now();
        self.events.extend(self.engine.apply(&[record], now));
        self.save();
    }

    /// As the watcher's task does after each batch.
    fn save(&mut self) {
        if self.store.hangs || self.engine.holds_events() {
            return;
        }
        let changes = self.engine.take_changes();
        for book in changes.books {
            self.store.books.insert(book.cgroup_id, book);
        }
        for cgroup in changes.closed {
            self.store.books.remove(&cgroup);
        }
        self.store.events = self.events.len();
        self.store.node_told_up_to = Some(self.node_base + self.engine.node_told());
    }

    fn now(&mut self) -> Now {
        self.clock += 1;
        Now {
            boottime_ns: self.clock,
            unix_time_ns: 0,
        }
    }

    fn count(&mut self, container: usize) {
        for cgroup in [self.cgroups[container], POD] {
            *self.counters.get_mut(&cgroup).unwrap() += 1;
        }
    }

    fn memcg(&self, cgroup: u64) -> Memcg {
        crate::record::fixture::memcg(cgroup, self.counters[&cgroup])
    }

    fn process(&mut self, container: usize, counted: bool) -> u32 {
        let pid = self.next_pid;
        self.next_pid += 1;
        self.processes
            .insert(pid, (self.cgroups[container], counted));
        pid
    }

    fn mark(&mut self, container: usize, pid: u32, group: Option<u32>) -> Record {
        self.clock += 1;
        let chain = [self.memcg(self.cgroups[container]), self.memcg(POD)];
        let mut record = victim(pid, self.clock, &chain);
        let count = self.counters[&self.cgroups[container]];
        let last = self.last_counts.insert(self.cgroups[container], count);
        record.counted = last.map(|last| last != count);
        record.invocation = Some(Invocation {
            number: self.invocation,
            index: group.unwrap_or(0),
            kills_group: group.is_some(),
        });
        Record::Victim(Box::new(record))
    }

    fn act(&mut self, action: &Action) {
        self.invocation += 1;
        match *action {
            Action::Kill { container, lost } => {
                self.count(container);
                let pid = self.process(container, true);
                let record = self.mark(container, pid, None);
                if !lost {
                    self.feed(record);
                }
            }
            Action::Dying { container, lost } => {
                let pid = self.process(container, false);
                let record = self.mark(container, pid, None);
                if !lost {
                    self.feed(record);
                }
            }
            Action::Threads { container, marks } => {
                self.count(container);
                let pid = self.process(container, true);
                for _ in 0..marks {
                    let record = self.mark(container, pid, None);
                    self.feed(record);
                }
            }
            Action::Group {
                container,
                count,
                recount_after,
                lost,
            } => self.group(container, count, recount_after.min(count - 1), lost),
            Action::Replace { container } => self.replace(container),
            Action::Audit => self.audit(),
            Action::ReadCounters { container } => {
                self.count(container);
                let pid = self.process(container, true);
                let record = self.mark(container, pid, None);
                self.read_counters();
                self.feed(record);
            }
            Action::CompareCounters => self.compare_counters(),
            Action::StoreHangs => self.store.hangs = true,
            Action::Restart(ref restart) => self.restart(restart),
            Action::Pinned(ref unread) => self.restart_pinned(unread),
        }
    }

    /// The bits of `lost` are the members' records and, the highest, the end's.
    fn group(&mut self, container: usize, count: u8, recount_after: u8, lost: u8) {
        let (mut unseen_recounts, mut gap) = (0, false);
        for index in 0..count {
            self.count(container);
            let pid = self.process(container, true);
            let moved = self.moved(container);
            let record = self.mark(container, pid, Some(u32::from(index)));
            let is_lost = lost & 1 << index != 0;
            // As the kernel side does.
            if index > 0 && (is_lost || gap) {
                unseen_recounts += moved.unwrap_or(1) - 1;
            }
            gap = is_lost;
            if !is_lost {
                self.feed(record);
            }
            if index == recount_after {
                self.count(container);
                self.recounts_made += 1;
            }
        }
        unseen_recounts += self.moved(container).unwrap_or(0);
        let end = Record::GroupEnd(GroupEnd {
            seq: 0,
            boottime_ns: self.clock,
            invocation: self.invocation,
            marks: u32::from(count),
            unseen_recounts,
            first: Some(self.memcg(self.cgroups[container])),
        });
        let cgroup = self.cgroups[container];
        self.last_counts.insert(cgroup, self.counters[&cgroup]);
        if lost & 0x80 == 0 {
            self.feed(end);
        } else {
            self.recount_lost = true;
        }
    }

    /// By how much a container's counter moved since its last mark.
    fn moved(&self, container: usize) -> Option<u64> {
        let cgroup = self.cgroups[container];
        Some(self.counters[&cgroup] - self.last_counts.get(&cgroup)?)
    }

    fn replace(&mut self, container: usize) {
        let old = self.cgroups[container];
        let mut gone = change(old, POD, "c", self.clock);
        gone.counters = Some(self.memcg(old));
        self.feed(Record::CgroupRemoved(gone));
        let new = self.next_cgroup;
        self.next_cgroup += 1;
        self.counters.insert(new, 0);
        self.cgroups[container] = new;
        self.feed(Record::CgroupCreated(change(new, POD, "c", self.clock)));
        if self.ring.is_some() {
            self.bases.insert(new, 0);
        } else {
            self.register(new, &format!("c{container}"));
        }
    }

    fn read_counters(&mut self) {
        for cgroup in self.engine.audited() {
            self.engine.note_counter(cgroup, self.counters[&cgroup.0]);
        }
    }

    fn compare_counters(&mut self) {
        for cgroup in self.engine.audited() {
            let now = self.now();
            let event = self.engine.audit_noted(cgroup, now);
            self.events.extend(event);
        }
        self.save();
    }

    fn audit(&mut self) {
        for cgroup in self.engine.audited() {
            let now = self.now();
            let oom_kill = self.counters[&cgroup.0];
            let event = self.engine.audit_one(cgroup, oom_kill, None, now);
            self.events.extend(event);
        }
        self.save();
    }

    /// Kills and counter-only kills told of a container's cgroup.
    fn told(&self, cgroup: u64) -> u64 {
        let of_cgroup = |event: &&OomEvent| {
            event
                .container
                .as_ref()
                .is_some_and(|found| found.cgroup_id.0 == cgroup)
        };
        self.events
            .iter()
            .filter(of_cgroup)
            .map(|event| event.count)
            .sum()
    }

    fn check(&mut self) {
        self.audit();
        let rest = self.engine.release();
        self.events.extend(rest);
        let mut seen = HashSet::new();
        let mut ids = HashSet::new();
        for event in &self.events {
            assert!(ids.insert(&event.id), "two events are {}", event.id);
            let Some(pid) = event.victim.pid else {
                continue;
            };
            assert!(
                seen.insert((pid, event.kind)),
                "process {pid} is reported twice"
            );
            let (cgroup, counted) = self.processes[&pid];
            assert_eq!(event.kind == Kind::Kill, counted, "process {pid}");
            let container = event.container.as_ref().unwrap();
            assert_eq!(
                container.cgroup_id.0, cgroup,
                "process {pid} is in the wrong container"
            );
        }
        self.check_law();
    }

    /// `rise == kills + counter_only + recounts` for each container, and for the pod with those
    /// of its containers.
    fn check_law(&self) {
        for (container, numbers) in self.engine.numbers() {
            let id = &container.id;
            assert_eq!(numbers.residual(), 0, "{id}: {numbers:?}");
        }
        // Here all cgroups of the node are in the pod.
        let node_told = self.node_base + self.engine.node_told();
        assert_eq!(self.counters[&POD], node_told, "the node");
        let all_told: u64 = self.events.iter().map(|event| event.count).sum();
        for (&cgroup, base) in self.bases.iter().filter(|(cgroup, _)| **cgroup != POD) {
            let told = self.told(cgroup);
            let rise = self.counters[&cgroup] - base;
            let recounts = self.engine.reconciler.recounts(CgroupId(cgroup));
            assert_eq!(
                rise,
                told + recounts,
                "cgroup {cgroup}: recounts {recounts}"
            );
        }
        let rise = self.counters[&POD] - self.bases[&POD];
        let recounts = self.engine.reconciler.recounts(CgroupId(POD));
        if !self.recount_lost {
            assert_eq!(recounts, self.recounts_made, "a second count is no kill");
        }
        assert_eq!(rise, all_told + recounts, "the pod: recounts {recounts}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn the_law_holds_whatever_the_kernel_does(
        past in any::<[u8; CONTAINERS]>(),
        actions in proptest::collection::vec(action(), 0..60),
    ) {
        let mut model = Model::new(past);
        for action in &actions {
            model.act(action);
        }
        model.check();
    }
}
