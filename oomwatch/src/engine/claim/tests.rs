//! Late registration: what is claimed, how it is reported, and that the numbers still add up.

use std::collections::HashMap;

use proptest::prelude::*;

use crate::{
    containers::{
        by_path::CgroupDiscovery,
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    engine::{
        Engine,
        fixture::{begin_at, setting},
    },
    event::{Attribution, Kind, Now, OomEvent},
    id::{CgroupId, ContainerId},
    record::{
        DoubleCount, GroupEnd, Invocation, Record,
        fixture::{change, charged, memcg, victim},
    },
};

const C: CgroupId = CgroupId(10);
const SECOND: u64 = 1_000_000_000;

/// A kernel with one cgroup, and the loop around the engine.
struct Bench {
    engine: Engine,
    clock_ns: u64,
    oom_kill: u64,
    next_pid: u32,
    invocation: u64,
    /// By how much the wall clock was set forward.
    step_ns: i128,
    events: Vec<OomEvent>,
}

impl Bench {
    fn new() -> Self {
        let mut engine = Engine::new(setting(CgroupDiscovery::Off));
        begin_at(&mut engine, &[]);
        let now = Now {
            boottime_ns: 1,
            unix_time_ns: 1,
        };
        let created = Record::CgroupCreated(change(C.0, CgroupId::ROOT.0, "c", 1));
        assert!(engine.apply(&[created], now).is_empty());
        Self {
            engine,
            clock_ns: 1,
            oom_kill: 0,
            next_pid: 1,
            invocation: 0,
            step_ns: 0,
            events: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            boottime_ns: self.clock_ns,
            unix_time_ns: i128::from(self.clock_ns) + self.step_ns,
        }
    }

    fn feed(&mut self, record: Record) {
        let events = self.engine.apply(&[record], self.now());
        self.events.extend(events);
    }

    /// `size` processes; more than one are a group, and counted once more.
    fn kill(&mut self, size: u32) {
        self.invocation += 1;
        for index in 0..size {
            self.clock_ns += 1;
            self.oom_kill += 1;
            let mut record = victim(self.next_pid, self.clock_ns, &[memcg(C.0, self.oom_kill)]);
            self.next_pid += 1;
            record.invocation = Some(Invocation {
                number: self.invocation,
                index,
                kills_group: size > 1,
            });
            self.feed(Record::Victim(Box::new(record)));
        }
        if size > 1 {
            self.oom_kill += 1;
            self.feed(Record::DoubleCount(DoubleCount {
                seq: 0,
                boottime_ns: self.clock_ns,
                invocation: Some(self.invocation),
                pid: None,
                start_boottime_ns: None,
                charged: charged(C.0, self.oom_kill).unwrap(),
                parent_id: None,
            }));
            self.feed(Record::GroupEnd(GroupEnd {
                seq: 0,
                boottime_ns: self.clock_ns,
                invocation: self.invocation,
                marks: size,
            }));
        }
    }

    fn register(&mut self) {
        let container = Container {
            id: ContainerId::new("web-1").unwrap(),
            cgroup_id: C,
            identity: Identity::Manual,
            inside: None,
            details: ContainerDetails::default(),
        };
        self.engine.register(container).unwrap();
        if self.engine.may_claim() {
            let claimed = self.engine.claim(self.now());
            self.engine.admit(claimed, self.now());
            self.events.extend(self.engine.take_ready(self.now()));
        }
    }

    /// The last event of each kill.
    fn last_words(&self) -> HashMap<&str, &OomEvent> {
        self.events
            .iter()
            .map(|event| (event.id.as_str(), event))
            .collect()
    }

    fn told_of_container(&self) -> u64 {
        self.last_words()
            .values()
            .filter(|event| event.container.is_some())
            .map(|event| event.count)
            .sum()
    }
}

#[test]
fn a_late_container_claims_its_kill() {
    let mut bench = Bench::new();
    bench.kill(1);
    bench.register();
    let [at_once, late] = bench.events.as_slice() else {
        panic!("two events: {:?}", bench.events);
    };
    assert_eq!(at_once.quality.attribution, Attribution::Unregistered);
    assert_eq!(late.quality.attribution, Attribution::Late);
    assert_eq!(late.id, at_once.id);
    assert_eq!(late.supersedes, Some(at_once.seq));
    assert_eq!((late.kind, late.count), (Kind::Kill, 1));
    assert_eq!(late.unix_time_ns, at_once.unix_time_ns);
    let totals = bench.engine.totals();
    assert_eq!((totals.kills, totals.unregistered, totals.late), (1, 0, 1));
}

/// It is the same kill: whoever looks for it by its time finds the second event where the first was.
#[test]
fn a_claim_has_the_time_of_what_it_supersedes_whatever_the_clock_does() {
    let mut bench = Bench::new();
    bench.kill(1);
    bench.step_ns = 1_000_000_007;
    bench.register();
    let times: Vec<i128> = bench
        .events
        .iter()
        .map(|event| event.unix_time_ns)
        .collect();
    assert_eq!(times.len(), 2);
    assert_eq!(times[0], times[1]);
}

/// The members of a group are held back for their number: the container does not overtake them.
#[test]
fn a_claim_does_not_overtake_what_it_supersedes() {
    let mut bench = Bench::new();
    bench.invocation = 1;
    let mut record = victim(1, 2, &[memcg(C.0, 1)]);
    record.invocation = Some(Invocation {
        number: 1,
        index: 0,
        kills_group: true,
    });
    bench.feed(Record::Victim(Box::new(record)));
    assert!(bench.events.is_empty(), "held back");
    bench.register();
    let seqs: Vec<u64> = bench.events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2]);
    assert!(bench.events.iter().all(|event| event.group.is_some()));
}

#[test]
fn a_container_claims_nothing_from_elsewhere() {
    let mut bench = Bench::new();
    let elsewhere = victim(1, 2, &[memcg(77, 1)]);
    bench.feed(Record::Victim(Box::new(elsewhere)));
    bench.register();
    assert_eq!(bench.engine.totals().late, 0);
}

/// Groups and single kills, each some seconds after the one before.
fn kills() -> impl Strategy<Value = Vec<(u64, u32)>> {
    proptest::collection::vec((0..20_u64, 1..4_u32), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_numbers_are_those_of_the_events(
        before in kills(),
        wait_s in 0..20_u64,
        after in kills(),
    ) {
        let mut bench = Bench::new();
        for (gap_s, size) in before {
            bench.clock_ns += gap_s * SECOND;
            bench.kill(size);
        }
        bench.clock_ns += wait_s * SECOND + 100;
        bench.register();
        for (gap_s, size) in after {
            bench.clock_ns += gap_s * SECOND;
            bench.kill(size);
        }
        let numbers = bench.engine.numbers_of(C);
        prop_assert_eq!(numbers.kills, bench.told_of_container());
        prop_assert_eq!(bench.engine.node_reported().all, bench.oom_kill);
        let kills: u64 = bench.last_words().values().map(|event| event.count).sum();
        prop_assert_eq!(kills, u64::from(bench.next_pid - 1));
    }
}
