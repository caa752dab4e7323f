//! The conservation law against a model of the kernel: whatever it does, and whatever of it gets
//! lost on the way, and whenever containers are registered, the engine's numbers add up, no process is
//! reported twice, and none in the wrong container.

mod action;
mod check;
mod register;
mod restart;

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use self::action::{Action, Restart, Unread, What, action};
use super::*;
use crate::{
    ContainerDetails, ContainerId, Evidence,
    account::Book,
    engine::fixture::setting,
    record::{
        GroupEnd, Invocation, Memcg,
        fixture::{change, victim},
    },
};

const POD: u64 = 2;
const CONTAINERS: usize = 3;
/// `PROPTEST_CASES` has no say here: each push tries this many.
const CASES: u32 = 2000;

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
    /// Registrations by cgroup, also of those that are gone.
    registered: HashMap<u64, Registered>,
    /// Ids that were given so far.
    next_id: u32,
    /// Victims of no container that can still be claimed.
    waiting: HashSet<u32>,
    /// The cgroup of the container that a process is to be told of, if of any.
    owners: HashMap<u32, Option<u64>>,
    /// Increments that nobody can speak of, at most: they were lost where no container was.
    untold: u64,
    waits: u8,
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

/// A registration, and where its rise begins.
#[derive(Clone, Debug)]
struct Registered {
    id: String,
    /// The counter that its rise is counted from.
    base: u64,
    /// Second counts of the kernel before that.
    recounts_before: u64,
    /// Events that were there before it.
    since: usize,
}

/// What `kill -9` leaves.
#[derive(Debug, Default)]
struct ModelStore {
    books: HashMap<CgroupId, Book>,
    /// How many of the events are stored, and those that wait to be published.
    events: usize,
    pending: Vec<OomEvent>,
    /// The node's count up to which all was spoken of.
    node_told_up_to: Option<u64>,
    hangs: bool,
}

fn new_engine() -> Engine {
    Engine::new(setting(CgroupDiscovery::Off))
}

impl Model {
    /// All are there before, and registered or not.
    fn new(past: [u8; CONTAINERS], registered: [bool; CONTAINERS + 1]) -> Self {
        let mut model = Self {
            engine: new_engine(),
            clock: 1,
            next_cgroup: 10,
            next_pid: 1,
            invocation: 0,
            cgroups: Vec::new(),
            counters: HashMap::new(),
            registered: HashMap::new(),
            next_id: 0,
            waiting: HashSet::new(),
            owners: HashMap::new(),
            untold: 0,
            waits: 0,
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
        for count in past {
            let cgroup = model.next_cgroup;
            model.next_cgroup += 1;
            model.counters.insert(cgroup, u64::from(count));
            model.engine.learn(CgroupId(cgroup), CgroupId(POD), b"c");
            model.engine.baseline(CgroupId(cgroup), u64::from(count), 1);
            model.cgroups.push(cgroup);
        }
        let all = (0..CONTAINERS).map(What::Container).chain([What::Pod]);
        for (what, _) in all.zip(registered).filter(|(_, registered)| *registered) {
            model.register(what);
        }
        model
    }

    fn feed(&mut self, record: Record) {
        self.note_owner(&record);
        if let Some(ring) = &mut self.ring {
            return ring.push(record);
        }
        let now = self.now();
        self.events.extend(self.engine.apply(&[record], now));
        self.save();
    }

    /// As the watcher's task does after each batch.
    fn save(&mut self) {
        if self.store.hangs {
            return;
        }
        let now = Now {
            boottime_ns: self.clock,
            unix_time_ns: 0,
        };
        self.events.extend(self.engine.take_ready(now));
        self.store.pending = self.engine.waiting.events().cloned().collect();
        self.store.pending.sort_by_key(|event| event.seq);
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

    /// Nothing waits for the rest of its group any more.
    fn release_all(&mut self) {
        self.engine.let_all_go();
        let now = self.now();
        self.events.extend(self.engine.take_ready(now));
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
                if lost {
                    self.lose(container, 1);
                } else {
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
            Action::Register { what } => self.register(what),
            Action::RegisterMeanwhile { what, container } => {
                self.register_meanwhile(what, container);
            }
            Action::Unregister { what } => self.unregister(what),
            Action::Wait => self.wait(),
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
            if is_lost {
                self.lose(container, 1);
            } else {
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
            self.lose(container, 1);
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
        self.register_successor(old, new);
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
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn the_law_holds_whatever_the_kernel_does(
        past in any::<[u8; CONTAINERS]>(),
        registered in any::<[bool; CONTAINERS + 1]>(),
        actions in proptest::collection::vec(action(), 0..60),
    ) {
        let mut model = Model::new(past, registered);
        for action in &actions {
            model.act(action);
        }
        model.check();
    }
}
