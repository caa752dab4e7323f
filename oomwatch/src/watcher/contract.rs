//! The contract of the watcher that oomwatch replaces, and the bugs of that watcher and its like, each stated once.
//!
//! The old watcher is containerd's `pkg/oom/v2`: `New(publisher)`, `Add(id, cgroup)`, `Run(ctx)`, `Close()`. The
//! tests hold both ways of finding kills to it: by marks, and by counters alone.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    cgroup::hierarchy::Hierarchy,
    containers::{
        by_path::CgroupDiscovery,
        container::{Container, ContainerDetails},
        identity::Identity,
        registry::RegistryError,
    },
    engine::{
        Engine, EngineConfig, compose::Origin, counter_reading::CounterReading, fixture::begin_at,
    },
    event::{Attribution, Kind, Now, OomEvent, fixture::event_at},
    id::{CgroupId, ContainerId},
    ledger::Counting,
    memory_events::MemoryEvents,
    publish::{PublishError, PublishFuture, Publisher, queue::Queue},
    record::{
        Record,
        fixture::{change, charged, memcg, victim},
    },
    tier::Tier,
    topology::owners::AllRoots,
};

const POD: u64 = 2;
const WEB: u64 = 3;
const OTHER: u64 = 4;

fn now(at_ns: u64) -> Now {
    Now {
        boottime_ns: at_ns,
        unix_time_ns: i128::from(at_ns),
    }
}

/// A pod with two cgroups, whose counters are `oom_kill`; no container is registered.
fn engine(tier: Tier, oom_kill: u64) -> Engine {
    let mut engine = Engine::new(EngineConfig {
        origin: Origin {
            boot_id: "boot".into(),
            node: None,
            tier,
        },
        discovery: CgroupDiscovery::Off,
        units: false,
        root: CgroupId::ROOT,
        counting: Counting::Hierarchical,
        owners: Arc::new(AllRoots),
    });
    let both = oom_kill * 2;
    begin_at(
        &mut engine,
        &[(POD, 1, both), (WEB, POD, oom_kill), (OTHER, POD, oom_kill)],
    );
    for (id, parent, name) in [(POD, 1, "pod"), (WEB, POD, "web"), (OTHER, POD, "other")] {
        engine.learn(CgroupId(id), CgroupId(parent), name.as_bytes());
    }
    engine
}

fn container(id: &str, cgroup: u64) -> Container {
    Container {
        id: ContainerId::new(id).unwrap(),
        cgroup_id: CgroupId(cgroup),
        identity: Identity::Manual,
        inside: None,
        details: ContainerDetails::default(),
    }
}

/// As [`engine`], with `Add("web", …)` and `Add("other", …)`.
fn watching(tier: Tier, oom_kill: u64) -> Engine {
    let mut engine = engine(tier, oom_kill);
    engine.register_by_hand(container("web", WEB)).unwrap();
    engine.register_by_hand(container("other", OTHER)).unwrap();
    engine
}

/// A mark in `cgroup`, with the counters of it and of its pod.
fn mark(pid: u32, at_ns: u64, cgroup: u64, own: u64, pod: u64) -> Record {
    let chain = [memcg(cgroup, own), memcg(POD, pod)];
    Record::Victim(Box::new(victim(pid, at_ns, &chain)))
}

fn reading(cgroup: u64, oom: u64, oom_kill: u64) -> CounterReading {
    CounterReading {
        cgroup_id: CgroupId(cgroup),
        serial: Some(1),
        events: MemoryEvents {
            oom: Some(oom),
            oom_kill: Some(oom_kill),
            oom_group_kill: Some(0),
        },
    }
}

/// Whose kills, and how many.
fn told(events: &[OomEvent]) -> Vec<(&str, u64)> {
    let named = events.iter().map(|event| {
        let container = event.container.as_ref();
        let id = container.map_or("(none)", |container| container.id.as_str());
        (id, event.count)
    });
    named.collect()
}

// The contract.

#[test]
fn a_rise_of_oom_kill_in_an_added_cgroup_is_told_under_its_id() {
    let events = watching(Tier::Counters, 0).read(&[reading(WEB, 1, 1)], now(5));
    assert_eq!(told(&events), [("web", 1)]);
    let events = watching(Tier::Btf, 0).apply(&[mark(7, 5, WEB, 1, 1)], now(6));
    assert_eq!(told(&events), [("web", 1)]);
}

/// Under Kubernetes a pod and its container have the same limit, and the kernel counts `oom` at the parent. So `oom`
/// may stay 0 where a process was killed, and rise where none was.
#[test]
fn oom_alone_is_nothing_and_oom_kill_without_oom_is_a_kill() {
    let mut engine = watching(Tier::Counters, 0);
    assert!(engine.read(&[reading(WEB, 3, 0)], now(5)).is_empty());
    let events = engine.read(&[reading(OTHER, 0, 1)], now(6));
    assert_eq!(told(&events), [("other", 1)]);
}

#[test]
fn no_rise_is_nothing() {
    let mut engine = watching(Tier::Counters, 4);
    let same = [reading(WEB, 9, 4), reading(OTHER, 9, 4)];
    assert!(engine.read(&same, now(5)).is_empty());
    assert!(engine.read(&same, now(6)).is_empty());
}

#[test]
fn a_removed_cgroup_is_no_error_and_ends_its_watch() {
    let mut engine = watching(Tier::Btf, 0);
    let removed = Record::CgroupRemoved(change(WEB, POD, "web", 4));
    assert!(engine.apply(&[removed], now(4)).is_empty());
    assert_eq!(engine.registry().live_count(), 1);
    let gone = Hierarchy::at("/nonexistent").memory_events(b"/web");
    assert!(matches!(gone, Ok(None)), "{gone:?}");
}

#[test]
fn adding_what_is_no_cgroup_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let hierarchy = Hierarchy::at(directory.path());
    let missing = directory.path().join("missing");
    let error = hierarchy.id(&missing).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
}

/// containerd 2.3.0 to 2.3.4: adding an id again silently ended its watch.
#[test]
fn adding_an_id_again_is_an_error_and_the_first_is_watched_on() {
    let mut engine = watching(Tier::Btf, 0);
    let again = engine.register_by_hand(container("web", OTHER));
    assert!(matches!(again, Err(RegistryError::DuplicateId(_))));
    let events = engine.apply(&[mark(7, 5, WEB, 1, 1)], now(6));
    assert_eq!(told(&events), [("web", 1)]);
}

#[tokio::test]
async fn events_go_to_the_publisher_in_order_and_closing_flushes_it() {
    let (sender, mut published) = mpsc::unbounded_channel();
    let mut queue = Queue::start(Box::new(Collect(sender)), None, None);
    for second in 1..=100 {
        queue.push(&Arc::new(event_at(second)));
    }
    queue.finish(Instant::now() + Duration::from_secs(20)).await;
    assert_eq!(queue.report(0).published, 100);
    for second in 1..=100 {
        assert_eq!(published.recv().await, Some(second));
    }
    assert_eq!(published.recv().await, Some(0), "flushed");
}

// The bugs.

/// The old watcher's baseline at `Add` is 0, so an old count becomes a new event.
#[test]
fn what_was_counted_before_it_was_added_is_not_told() {
    let mut engine = watching(Tier::Counters, 5);
    assert!(engine.read(&[reading(WEB, 5, 5)], now(5)).is_empty());
    assert_eq!(
        told(&engine.read(&[reading(WEB, 6, 6)], now(6))),
        [("web", 1)]
    );
    let mut engine = watching(Tier::Btf, 5);
    let events = engine.apply(&[mark(7, 5, WEB, 6, 6)], now(6));
    assert_eq!(told(&events), [("web", 1)]);
}

/// The old watcher has one event for an increase, however many kills it stands for.
#[test]
fn every_kill_of_a_rise_counts() {
    let events = watching(Tier::Counters, 0).read(&[reading(WEB, 3, 3)], now(5));
    assert_eq!(told(&events), [("web", 3)]);
    let marks =
        [1, 2, 3].map(|kill| mark(kill, 4 + u64::from(kill), WEB, kill.into(), kill.into()));
    let events = watching(Tier::Btf, 0).apply(&marks, now(9));
    assert_eq!(told(&events), [("web", 1); 3]);
}

/// The old watcher never clears its last counts. An id that is used again has a stale baseline, and its first kills
/// are taken for old ones.
#[test]
fn an_id_that_is_used_again_begins_anew() {
    let mut engine = watching(Tier::Btf, 0);
    engine.apply(&[mark(7, 5, WEB, 1, 1)], now(5));
    let again = [
        Record::CgroupRemoved(change(WEB, POD, "web", 6)),
        Record::CgroupCreated(change(9, POD, "web", 7)),
    ];
    engine.apply(&again, now(7));
    engine.register_by_hand(container("web", 9)).unwrap();
    let events = engine.apply(&[mark(8, 8, 9, 1, 2)], now(8));
    assert_eq!(told(&events), [("web", 1)]);
    assert_eq!(events[0].container.as_ref().unwrap().cgroup_id, CgroupId(9));
}

/// The old watcher publishes inline: one slow publish delays every container.
#[tokio::test]
async fn a_publisher_that_hangs_delays_no_other() {
    let (sender, mut published) = mpsc::unbounded_channel();
    let (_never, hangs) = oneshot::channel();
    let mut slow = Queue::start(Box::new(Hang(Some(hangs))), None, None);
    let mut quick = Queue::start(Box::new(Collect(sender)), None, None);
    for second in 1..=100 {
        let event = Arc::new(event_at(second));
        slow.push(&event);
        quick.push(&event);
    }
    for second in 1..=100 {
        assert_eq!(published.recv().await, Some(second));
    }
}

/// The old watcher's `Add` comes after the workload has started: it misses early kills.
#[test]
fn a_kill_from_before_it_was_added_is_claimed() {
    let mut engine = engine(Tier::Btf, 0);
    let events = engine.apply(&[mark(7, 5, WEB, 1, 1)], now(5));
    assert_eq!(told(&events), [("(none)", 1)]);
    engine.register_by_hand(container("web", WEB)).unwrap();
    let events = engine.claim(now(50_000_000));
    assert_eq!(told(&events), [("web", 1)]);
    assert_eq!(events[0].quality.attribution, Attribution::Late);
}

/// Watchers of files lose the kill if the cgroup is removed before they read the file (containerd #8893, CRI-O #7035,
/// conmon #426, podman #25990).
#[test]
fn a_kill_in_a_cgroup_that_is_gone_at_once_is_told() {
    let mut engine = watching(Tier::Btf, 0);
    let records = [
        mark(7, 5, WEB, 1, 1),
        Record::CgroupRemoved(change(WEB, POD, "web", 6)),
    ];
    assert_eq!(told(&engine.apply(&records, now(7))), [("web", 1)]);
    // The same where the mark found no room: the removal brings the last counters.
    let mut engine = watching(Tier::Btf, 0);
    let mut last = change(OTHER, POD, "other", 6);
    last.counters = Some(memcg(OTHER, 2));
    last.charged = charged(OTHER, 2);
    let events = engine.apply(&[Record::CgroupRemoved(last)], now(7));
    assert_eq!(told(&events), [("other", 2)]);
}

/// inotify notifies of a file once in 10 ms.
#[test]
fn kills_within_a_moment_are_as_many_as_they_are() {
    let marks: Vec<_> = (1..=50)
        .map(|kill| mark(kill, 5_000 + u64::from(kill), WEB, kill.into(), kill.into()))
        .collect();
    let events = watching(Tier::Btf, 0).apply(&marks, now(6_000));
    assert_eq!(told(&events), [("web", 1); 50]);
}

/// conmon stops at the first change that is no kill, conmon-rs after the first kill.
#[test]
fn watching_goes_on_after_a_change_and_after_a_kill() {
    let mut engine = watching(Tier::Counters, 0);
    assert!(engine.read(&[reading(WEB, 1, 0)], now(5)).is_empty());
    assert_eq!(
        told(&engine.read(&[reading(WEB, 1, 1)], now(6))),
        [("web", 1)]
    );
    assert_eq!(
        told(&engine.read(&[reading(WEB, 1, 2)], now(7))),
        [("web", 1)]
    );
}

/// conmon-rs compares the parent's counter with 0, so that a sibling's kill counts.
#[test]
fn a_siblings_kill_is_the_siblings() {
    let mut engine = watching(Tier::Btf, 3);
    let events = engine.apply(&[mark(7, 5, OTHER, 4, 7)], now(6));
    assert_eq!(told(&events), [("other", 1)]);
    let mut engine = watching(Tier::Counters, 3);
    let readings = [reading(POD, 0, 7), reading(OTHER, 0, 4), reading(WEB, 0, 3)];
    assert_eq!(told(&engine.read(&readings, now(5))), [("other", 1)]);
}

/// Other watchers take the allocating task for the victim (DataDog agent before #28939, tapio before #611).
#[test]
fn whose_allocation_it_was_is_not_who_was_killed() {
    let mut record = victim(7, 5, &[memcg(WEB, 1), memcg(POD, 1)]);
    record.trigger.cgroup_id = Some(CgroupId(OTHER));
    let record = Record::Victim(Box::new(record));
    let events = watching(Tier::Btf, 0).apply(&[record], now(6));
    assert_eq!(told(&events), [("web", 1)]);
    assert_eq!(events[0].trigger.cgroup_id, Some(CgroupId(OTHER)));
}

/// Readers of the kernel's log take a task that was dying already for a kill.
#[test]
fn a_task_that_was_dying_already_is_no_kill() {
    let mut engine = watching(Tier::Btf, 3);
    let mut record = victim(7, 5, &[memcg(WEB, 3), memcg(POD, 6)]);
    record.counted = Some(false);
    let events = engine.apply(&[Record::Victim(Box::new(record))], now(6));
    assert_eq!(events[0].kind, Kind::AlreadyExiting);
    assert_eq!(told(&events), [("web", 0)]);
}

/// Hands on the second of each event, and 0 for a flush.
struct Collect(mpsc::UnboundedSender<u64>);

impl Publisher for Collect {
    fn name(&self) -> &'static str {
        "collect"
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        let sent = self.0.send(event.seq).map_err(|_| PublishError::Closed);
        Box::pin(async { sent })
    }

    fn flush(&mut self) -> PublishFuture<'_> {
        let sent = self.0.send(0).map_err(|_| PublishError::Closed);
        Box::pin(async { sent })
    }
}

/// Never comes back from its first event.
struct Hang(Option<oneshot::Receiver<()>>);

impl Publisher for Hang {
    fn name(&self) -> &'static str {
        "hang"
    }

    fn publish(&mut self, _event: Arc<OomEvent>) -> PublishFuture<'_> {
        let never = self.0.take();
        Box::pin(async {
            if let Some(never) = never {
                let _ = never.await;
            }
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(())
        })
    }
}
