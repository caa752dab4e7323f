//! The model's daemon: it drives the engine as the watcher's task does, and reads the model's counters file by
//! file. Whatever the kernel does may come between two of them.

use std::collections::BTreeSet;

use super::{
    Model,
    kernel::{Note, ROOT},
    store::Unsaved,
};
use crate::{
    containers::{
        by_path::CgroupDiscovery,
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    engine::{Engine, fixture::setting},
    event::{Now, OomEvent},
    id::{CgroupId, ContainerId, Css},
    ledger::{Reading, node::NodeLedger},
    record::Record,
    topology::walk::{LiveCgroup, Walk},
};

/// One run.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) engine: Engine,
    /// The generation whose ring it reads, and up to where it has.
    pub(super) generation: u64,
    pub(super) read: u64,
    drops: (u64, u64),
    pub(super) audit_due: bool,
    pub(super) scan_due: bool,
    noted: Option<(Vec<Reading>, bool)>,
    walk: Option<Walk>,
    pub(super) book: Option<NodeLedger>,
    /// What the store has yet to be given.
    pub(super) unsaved: Unsaved,
    pub(super) has_saved: bool,
    pub(super) is_past_open: bool,
}

impl Daemon {
    pub(super) fn new(generation: u64, read: u64) -> Self {
        Self {
            engine: Engine::new(setting(CgroupDiscovery::Off)),
            generation,
            read,
            drops: (0, 0),
            audit_due: false,
            scan_due: false,
            noted: None,
            walk: None,
            book: None,
            unsaved: Unsaved::default(),
            has_saved: false,
            is_past_open: false,
        }
    }
}

impl Model {
    pub(super) fn now(&self) -> Now {
        Now {
            boottime_ns: self.kernel.clock,
            unix_time_ns: i128::from(self.kernel.clock),
        }
    }

    /// A file is about to be read: the kernel has gone on since the last read.
    fn tick(&mut self) {
        if self.kernel.step() {
            return;
        }
        match self.between.front_mut() {
            Some((0, _)) => {
                let (_, act) = self.between.pop_front().unwrap();
                self.kernel.act(&act);
            }
            Some((gap, _)) => *gap -= 1,
            None => {}
        }
    }

    /// `/proc/vmstat`.
    pub(super) fn read_node(&mut self) -> u64 {
        self.tick();
        self.kernel.node
    }

    fn read_sum(&mut self, id: u64) -> Option<u64> {
        self.tick();
        let counters = self.kernel.cgroups.get(&id)?.counters?;
        Some(counters.sum)
    }

    fn read_own(&mut self, id: u64) -> Option<(Css, u64)> {
        self.tick();
        let counters = self.kernel.cgroups.get(&id)?.counters?;
        let css = Css {
            serial: None,
            ..counters.css()
        };
        Some((css, counters.own))
    }

    /// As `CounterWalk` does it, with its `known`; without a daemon everything is read.
    pub(super) fn read_counters(&mut self, is_running: bool) -> Vec<Reading> {
        let mut readings = Vec::new();
        let mut next = self.read_children(ROOT, is_running);
        while let Some((id, parent, sum)) = next.pop() {
            let Some((css, own)) = self.read_own(id) else {
                continue;
            };
            let children = self.children_with_counters(id);
            readings.push(Reading {
                cgroup_id: CgroupId(id),
                parent: Some(CgroupId(parent)),
                css,
                own,
                sum: Some(sum),
                children: children
                    .iter()
                    .map(|(id, _, sum)| (CgroupId(*id), *sum))
                    .collect(),
            });
            next.extend(self.with_news(children, is_running));
            if is_running && self.kernel.clock.is_multiple_of(3) {
                self.drain();
            }
        }
        readings
    }

    fn read_children(&mut self, id: u64, is_running: bool) -> Vec<(u64, u64, u64)> {
        let children = self.children_with_counters(id);
        self.with_news(children, is_running)
    }

    fn children_with_counters(&mut self, id: u64) -> Vec<(u64, u64, u64)> {
        let mut children = Vec::new();
        for child in self.kernel.children(id) {
            if let Some(sum) = self.read_sum(child) {
                children.push((child, id, sum));
            }
        }
        children
    }

    fn with_news(
        &self,
        mut children: Vec<(u64, u64, u64)>,
        is_running: bool,
    ) -> Vec<(u64, u64, u64)> {
        let daemon = self.daemon.as_ref().filter(|_| is_running);
        let known = |id| daemon.map_or(0, |daemon| daemon.engine.last_known(CgroupId(id)));
        children.retain(|&(id, _, sum)| sum != known(id));
        children
    }

    /// The hierarchy as it is, and the cgroups of the tree that are not in it.
    pub(super) fn look(&self, engine: &Engine) -> Walk {
        let known: Vec<CgroupId> = engine.tree().live().collect();
        let mut found = Vec::new();
        let mut next = vec![ROOT];
        while let Some(id) = next.pop() {
            for child in self.kernel.children(id) {
                found.push(LiveCgroup {
                    id: CgroupId(child),
                    parent: CgroupId(id),
                    name: format!("c{child}").into_bytes().into(),
                });
                next.push(child);
            }
        }
        let there: BTreeSet<CgroupId> = found.iter().map(|found| found.id).collect();
        Walk {
            began_ns: self.kernel.clock,
            missing: known.into_iter().filter(|id| !there.contains(id)).collect(),
            found,
            ..Walk::default()
        }
    }

    pub(super) fn drain(&mut self) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let rings = &self.kernel.rings;
        let Some(ring) = rings
            .iter()
            .find(|ring| ring.generation == daemon.generation)
        else {
            return;
        };
        let unread = ring
            .records
            .iter()
            .skip((daemon.read - ring.first) as usize);
        let batch: Vec<(Record, Note)> = unread.cloned().collect();
        daemon.read += batch.len() as u64;
        let drops = (ring.lost_victims, ring.lost_cgroups);
        let before = std::mem::replace(&mut daemon.drops, drops);
        daemon.audit_due |= drops.0 > before.0;
        daemon.scan_due |= drops.1 > before.1;
        self.apply(&batch, false);
    }

    pub(super) fn apply(&mut self, batch: &[(Record, Note)], is_backlog: bool) {
        let now = self.now();
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let records: Vec<Record> = batch.iter().map(|(record, _)| record.clone()).collect();
        daemon.engine.learn_all(&records);
        for (record, note) in batch {
            daemon.unsaved.notes.push((*note, now.boottime_ns));
            if let Record::Victim(victim) = record {
                let place = victim.victim.cgroup_id.unwrap().0;
                let lineage = self.kernel.lineage(place);
                let nearest = lineage.iter().find(|id| self.labels.contains(id));
                let is_placed = daemon.engine.tree().path(CgroupId(place)).is_some();
                let known = (is_placed && !is_backlog).then(|| nearest.copied());
                let owner = self
                    .owners
                    .entry(victim.victim.pid.unwrap())
                    .or_insert(known);
                if is_backlog {
                    // The run that read it before may have been killed before it reported the kill.
                    *owner = None;
                }
            }
        }
        daemon.engine.work_through(&records, now);
    }

    /// Takes the next step of making up for a loss.
    pub(super) fn audit(&mut self, is_wanted: bool) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        if daemon.noted.is_some() {
            self.compare_counters();
        } else if std::mem::take(&mut daemon.audit_due) || is_wanted {
            self.note_counters(false);
        }
    }

    pub(super) fn note_counters(&mut self, is_past: bool) {
        let readings = self.read_counters(true);
        if let Some(daemon) = &mut self.daemon {
            daemon.noted = Some((readings, is_past));
        }
    }

    pub(super) fn is_noted(&self) -> bool {
        let daemon = self.daemon.as_ref();
        daemon.is_some_and(|daemon| daemon.noted.is_some())
    }

    /// Compares the noted readings: everything counted by then has its record by now.
    pub(super) fn compare_counters(&mut self) {
        self.kernel.settle();
        self.drain();
        let now = self.now();
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let Some((readings, is_past)) = daemon.noted.take() else {
            return;
        };
        let events = daemon.engine.compare_all(&readings, is_past, now);
        daemon.engine.admit(events, now);
        self.end_past();
        self.compare_node();
    }

    pub(super) fn compare_node(&mut self) {
        let at_ns = self.kernel.clock;
        let before = self.read_node();
        self.drain();
        let after = self.read_node();
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let reported = daemon.engine.node_reported();
        if let Some(book) = &mut daemon.book
            && book.compare((before, after), reported) == 0
        {
            daemon.engine.all_is_reported_up_to(at_ns);
        }
    }

    pub(super) fn end_past(&mut self) {
        let at_ns = self.kernel.clock;
        let Some(oom_kill) = self.node_at_rest() else {
            return;
        };
        let now = self.now();
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        if daemon.audit_due || !std::mem::take(&mut daemon.is_past_open) {
            return;
        }
        let told = daemon.engine.node_reported();
        let residual = daemon
            .book
            .as_mut()
            .map_or(0, |book| book.compare((oom_kill, oom_kill), told));
        let event = daemon.engine.end_past(residual, at_ns, now);
        daemon.engine.admit(event, now);
        self.compare_node();
    }

    pub(super) fn node_at_rest(&mut self) -> Option<u64> {
        let mut before = self.read_node();
        for _ in 0..16 {
            self.kernel.settle();
            self.drain();
            let after = self.read_node();
            if std::mem::replace(&mut before, after) == after {
                return Some(after);
            }
        }
        None
    }

    pub(super) fn begin_scan(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        if daemon.walk.is_none() && std::mem::take(&mut daemon.scan_due) {
            daemon.walk = Some(self.look(&daemon.engine));
        }
        self.daemon = Some(daemon);
    }

    pub(super) fn end_scan(&mut self) {
        self.drain();
        let now = self.now();
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let Some(walk) = daemon.walk.take() else {
            return;
        };
        let walked = daemon.engine.walked_again(&walk, now);
        assert!(walked.unread.is_empty());
        daemon.scan_due |= walked.is_outdated;
        self.claim();
    }

    pub(super) fn claim(&mut self) {
        let now = self.now();
        if let Some(daemon) = &mut self.daemon
            && daemon.engine.may_claim()
        {
            let events = daemon.engine.claim(now);
            daemon.engine.admit(events, now);
        }
    }

    pub(super) fn register(&mut self, id: u64) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        if !daemon.engine.tree().is_live(CgroupId(id)) {
            return;
        }
        self.next_label += 1;
        let container = Container {
            id: ContainerId::new(&format!("label-{}", self.next_label)).unwrap(),
            cgroup_id: CgroupId(id),
            identity: Identity::Manual,
            inside: None,
            details: ContainerDetails::default(),
        };
        if daemon.engine.register_by_hand(container).is_ok() {
            self.labels.insert(id);
            self.claim();
        }
    }

    pub(super) fn unregister(&mut self, at: u8) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let labels: Vec<u64> = self.labels.iter().copied().collect();
        if labels.is_empty() {
            return;
        }
        let id = labels[usize::from(at) % labels.len()];
        if let Some(container) = daemon.engine.container(CgroupId(id))
            && daemon.engine.unregister(&container.id).is_ok()
        {
            self.labels.remove(&id);
        }
    }

    /// What follows each event of the loop.
    pub(super) fn turn(&mut self) {
        self.publish();
        if self.skip_saves > 0 {
            self.skip_saves -= 1;
        } else {
            self.save();
        }
    }

    fn publish(&mut self) {
        let now = self.now();
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        daemon.engine.release(now.boottime_ns);
        let events: Vec<OomEvent> = std::iter::from_fn(|| daemon.engine.next_ready()).collect();
        if self.has_store {
            daemon.unsaved.events.extend(events);
        } else {
            self.history.extend(events);
        }
    }

    pub(super) fn publish_all(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.engine.let_all_go();
        }
        self.publish();
        self.save();
    }
}
