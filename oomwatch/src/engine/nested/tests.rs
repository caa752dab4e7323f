//! Containers in one another, registered in any order: each kill is told once, and all books add up.

use super::*;
use crate::{
    CgroupDiscovery, Container, ContainerDetails, ContainerId, OomEvent,
    engine::fixture::setting,
    event::build::Now,
    record::{
        GroupEnd, Record,
        fixture::{change, memcg, victim},
    },
};

const SLICE: u64 = 2;
const POD: u64 = 3;
const C: u64 = 4;

/// A slice with a pod with a container, whose counters are the same: all happens in the container.
struct Bench {
    engine: Engine,
    oom_kill: u64,
    clock: u64,
    events: Vec<OomEvent>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            engine: engine(),
            oom_kill: 0,
            clock: 1,
            events: Vec::new(),
        };
        bench.engine.resume(Vec::new());
        for (id, parent, name) in [(SLICE, 1, "slice"), (POD, SLICE, "pod"), (C, POD, "c")] {
            let created = Record::CgroupCreated(change(id, parent, name, 1));
            bench.feed(&created);
        }
        bench
    }

    /// Another run of the daemon, which reads the counters in this order.
    fn restart(&mut self, order: [u64; 3]) {
        let books = self.engine.all_books();
        self.engine = engine();
        self.engine.resume(books);
        for (id, parent, name) in [(SLICE, 1, "slice"), (POD, SLICE, "pod"), (C, POD, "c")] {
            let parent = CgroupId(parent);
            self.engine.learn(CgroupId(id), parent, name.as_bytes());
        }
        for id in order {
            self.engine.baseline(CgroupId(id), self.oom_kill, 100);
        }
        self.clock = 100;
    }

    fn now(&mut self) -> Now {
        self.clock += 1;
        Now {
            boottime_ns: self.clock,
            unix_time_ns: 0,
        }
    }

    fn feed(&mut self, record: &Record) {
        let now = self.now();
        let events = self.engine.apply(std::slice::from_ref(record), now);
        self.events.extend(events);
    }

    /// A kill; its record is what is returned, and lost unless it is fed.
    fn kill(&mut self) -> Record {
        self.oom_kill += 1;
        self.clock += 1;
        let chain = [C, POD, SLICE].map(|id| memcg(id, self.oom_kill));
        let pid = u32::try_from(self.oom_kill).unwrap();
        Record::Victim(Box::new(victim(pid, self.clock, &chain)))
    }

    fn register(&mut self, cgroup: u64) {
        let ids = self.engine.to_be_read(CgroupId(cgroup));
        let read: Vec<_> = ids.iter().map(|&id| (id, self.oom_kill)).collect();
        self.engine.register_late(container(cgroup), &read).unwrap();
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
            let event = self.engine.audit_one(id, self.oom_kill, None, now);
            self.events.extend(event);
        }
    }

    fn read_counters(&mut self) {
        for id in self.engine.audited() {
            self.engine.note_counter(id, self.oom_kill);
        }
    }

    fn compare_counters(&mut self) {
        for id in self.engine.audited() {
            let now = self.now();
            let event = self.engine.audit_noted(id, now);
            self.events.extend(event);
        }
    }

    /// Who told how many; and each book has told exactly its rise.
    fn told(&self) -> Vec<(u64, u64)> {
        for (container, numbers) in self.engine.numbers() {
            assert_eq!(numbers.residual(), 0, "{}: {numbers:?}", container.id);
        }
        for cgroup in self.engine.reconciler.booked() {
            let page = self.engine.reconciler.page(cgroup).unwrap();
            assert_eq!(page.base + page.accounted, self.oom_kill, "{cgroup:?}");
        }
        let of = |event: &OomEvent| event.container.as_ref().map_or(0, |of| of.cgroup_id.0);
        let events = self.events.iter();
        events.map(|event| (of(event), event.count)).collect()
    }
}

fn engine() -> Engine {
    Engine::new(setting(CgroupDiscovery::Off))
}

fn container(cgroup: u64) -> Container {
    Container {
        id: ContainerId::new(&format!("c{cgroup}")).unwrap(),
        cgroup_id: CgroupId(cgroup),
        details: ContainerDetails::default(),
    }
}

/// The container's audit told it, and then the pod's, whose book began where the last record left it.
#[test]
fn a_kill_lost_before_its_pod_was_registered_is_told_once() {
    let mut bench = Bench::new();
    bench.register(C);
    bench.kill();
    bench.register(POD);
    bench.audit();
    bench.audit();
    assert_eq!(bench.told(), [(C, 1)]);
    assert_eq!(bench.engine.node_told(), 1);
}

#[test]
fn a_pod_hides_no_loss_behind_an_older_one_of_its_container() {
    let mut bench = Bench::new();
    bench.register(C);
    bench.kill();
    bench.register(POD);
    // Of the pod's own, which the container's counter has not.
    let container = bench.oom_kill;
    bench.oom_kill += 1;
    for (id, oom_kill) in [(C, container), (POD, bench.oom_kill)] {
        let now = bench.now();
        let event = bench.engine.audit_one(CgroupId(id), oom_kill, None, now);
        bench.events.extend(event);
    }
    let told: Vec<_> = bench.events.iter().map(|event| event.count).collect();
    assert_eq!(told, [1, 1]);
    assert_eq!(bench.engine.node_told(), 2);
}

#[test]
fn a_kill_that_nobody_below_tells_any_more_is_the_pods() {
    let mut bench = Bench::new();
    bench.register(C);
    bench.kill();
    bench.register(POD);
    bench.engine.unregister(&container(C).id).unwrap();
    bench.audit();
    assert_eq!(bench.told(), [(POD, 1)]);
}

/// Mirror: the pod has told it, of a container that was not registered.
#[test]
fn a_kill_that_its_pod_told_is_not_told_by_a_later_container() {
    let mut bench = Bench::new();
    bench.register(POD);
    bench.kill();
    bench.audit();
    bench.register(C);
    bench.audit();
    assert_eq!(bench.told(), [(POD, 1)]);
}

#[test]
fn a_kill_that_its_pod_is_to_tell_is_not_told_by_a_later_container() {
    let mut bench = Bench::new();
    bench.register(POD);
    bench.kill();
    bench.register(C);
    bench.audit();
    assert_eq!(bench.told(), [(POD, 1)]);
}

/// Mirror: the pod's first book of this run is of a counter that has what the container's, from an
/// earlier run, has yet to tell. In whichever order they are read.
#[test]
fn a_new_book_above_one_from_an_earlier_run_has_what_that_missed() {
    for order in [[SLICE, POD, C], [C, POD, SLICE], [POD, C, SLICE]] {
        for late in [false, true] {
            let mut bench = Bench::new();
            bench.register(C);
            bench.kill();
            bench.restart([C, POD, SLICE]);
            bench.engine = engine_with_new_books_above(&mut bench, order, late);
            bench.audit();
            assert_eq!(bench.told(), [(C, 1)], "{order:?} {late}");
            assert!(bench.events.iter().all(|event| event.while_down));
        }
    }
}

/// The container's book goes on; those of the slice and of the pod begin when their counters are read, or
/// right after that.
fn engine_with_new_books_above(bench: &mut Bench, order: [u64; 3], late: bool) -> Engine {
    let books = bench.engine.all_books();
    let mut next = engine();
    next.resume(books);
    let register = |next: &mut Engine| {
        for id in [SLICE, POD, C] {
            next.register(container(id)).unwrap();
        }
    };
    for (id, parent, name) in [(SLICE, 1, "slice"), (POD, SLICE, "pod"), (C, POD, "c")] {
        next.learn(CgroupId(id), CgroupId(parent), name.as_bytes());
    }
    if !late {
        register(&mut next);
    }
    for id in order {
        next.baseline(CgroupId(id), bench.oom_kill, 100);
    }
    if late {
        register(&mut next);
    }
    next
}

/// Mirror: both books are from an earlier run, and the container is found when the pod has told.
#[test]
fn what_a_pod_told_of_a_container_not_found_yet_is_not_told_by_that() {
    let mut bench = Bench::new();
    bench.register(POD);
    bench.register(C);
    bench.kill();
    bench.restart([POD, C, SLICE]);
    bench.register(POD);
    bench.audit();
    bench.register(C);
    bench.audit();
    assert_eq!(bench.told(), [(POD, 1)]);
    assert!(bench.events.iter().all(|event| event.while_down));
}

#[test]
fn a_container_found_while_its_pod_is_audited_tells_itself_what_it_missed() {
    let mut bench = Bench::new();
    bench.register(POD);
    bench.register(C);
    bench.kill();
    bench.restart([POD, C, SLICE]);
    bench.register(POD);
    bench.read_counters();
    bench.register(C);
    assert!(bench.engine.take_audit_wanted());
    bench.compare_counters();
    assert!(bench.events.is_empty(), "for the audit that is wanted");
    bench.read_counters();
    bench.compare_counters();
    assert_eq!(bench.told(), [(C, 1)]);
}

#[test]
fn a_container_found_late_goes_on_where_its_pod_had_nothing_to_tell() {
    let mut bench = Bench::new();
    bench.register(POD);
    bench.register(C);
    bench.restart([POD, C, SLICE]);
    bench.register(POD);
    bench.audit();
    bench.register(C);
    bench.kill();
    bench.audit();
    assert_eq!(bench.told(), [(C, 1)]);
}

/// It is counted in both books' beginnings, and told for them.
#[test]
fn a_kill_under_way_when_its_container_is_registered_is_in_the_book() {
    for order in [[C, POD], [POD, C]] {
        let mut bench = Bench::new();
        let record = bench.kill();
        for id in order {
            bench.register(id);
        }
        bench.feed(&record);
        let after = bench.kill();
        bench.feed(&after);
        bench.kill();
        bench.audit();
        assert_eq!(bench.told(), [(C, 1); 3]);
        for id in order {
            let page = bench.engine.reconciler.page(CgroupId(id)).unwrap();
            assert_eq!((page.base, page.accounted), (0, 3), "{id}");
        }
    }
}

#[test]
fn a_kill_under_way_when_its_pod_is_registered_is_in_both_books_once() {
    let mut bench = Bench::new();
    bench.register(C);
    let record = bench.kill();
    bench.register(POD);
    bench.feed(&record);
    bench.audit();
    assert_eq!(bench.told(), [(C, 1)]);
}

#[test]
fn a_claimed_kill_is_in_the_books_above_that_are_as_new() {
    let mut bench = Bench::new();
    let record = bench.kill();
    bench.feed(&record);
    for id in [POD, C] {
        bench.engine.register(container(id)).unwrap();
    }
    let now = bench.now();
    let claimed = bench.engine.claim(now);
    assert_eq!(claimed.len(), 1);
    for id in [POD, C].map(CgroupId) {
        let page = bench.engine.reconciler.page(id).unwrap();
        assert_eq!((page.base, page.accounted), (0, 1), "{id:?}");
    }
    bench.audit();
    assert_eq!(bench.told(), [(0, 1)]);
}

/// The end of a group told of a second count that a later mark's counters had already: the pod's was
/// taken to be further than it is, and its book began there.
#[test]
fn a_second_count_that_a_mark_has_told_of_moves_no_counter_above_again() {
    let mut bench = Bench::new();
    let first = bench.kill();
    bench.feed(&first);
    // Counted again, and another member after that.
    bench.oom_kill += 1;
    let second = bench.kill();
    bench.feed(&second);
    bench.feed(&Record::GroupEnd(GroupEnd {
        seq: 9,
        boottime_ns: bench.clock,
        invocation: 1,
        marks: 2,
        unseen_recounts: 1,
        first: Some(memcg(C, bench.oom_kill)),
    }));
    let known = bench.engine.reconciler.last_known(CgroupId(POD));
    assert_eq!(known, Some(bench.oom_kill));
}
