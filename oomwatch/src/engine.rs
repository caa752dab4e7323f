//! The engine: all state of the daemon, and what each record does to it.
//!
//! Records and counter readings in, events out; topology, attribution and reconciliation in
//! between. Synchronous, and touches no file, ring or channel: [`crate::watcher`] does.

pub(crate) mod books;
mod claim;
mod discovery;
mod found;
pub(crate) mod naming;
mod nested;
pub(crate) mod reading;
pub(crate) mod waiting;
mod walked;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tracing::debug;

use self::{
    reading::Cause,
    waiting::{Pending, Waiting},
};
use crate::{
    CgroupDiscovery, CgroupId, Container, ContainerId, OomEvent,
    account::Numbers,
    attribute::attribute,
    cgroup::tree::Tree,
    discover::names::{Names, SourceNumber},
    event::{
        Kind,
        build::{Known, Now, Origin},
    },
    late::Late,
    reconcile::{Counting, Reconciler, Verdict},
    record::{CgroupChanged, Record, VictimRecord},
    recount::Recounts,
    registry::{Registry, RegistryError},
};

/// What was seen since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Kills: events of kind `kill`.
    pub kills: u64,
    /// Of those, kills without a registered container.
    pub unregistered: u64,
    /// Kills that a container claimed, which was registered after them.
    pub late: u64,
    /// Kills that only a container's counter told of.
    pub counter_only: u64,
    /// Second counts of one kill by the kernel (`memory.oom.group`): in its counters, never kills.
    pub recounts: u64,
    /// Marks of processes that were dying already.
    pub already_exiting: u64,
    /// Marks of further threads, folded into their process's event.
    pub folded: u64,
}

/// What an engine works in.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) origin: Origin,
    pub(crate) discovery: CgroupDiscovery,
    /// Whether systemd's units are registered as containers.
    pub(crate) units: bool,
    /// The cgroup that is mounted.
    pub(crate) root: CgroupId,
    pub(crate) counting: Counting,
}

/// The state.
#[derive(Debug)]
pub(crate) struct Engine {
    origin: Origin,
    discovery: CgroupDiscovery,
    units: bool,
    names: Names,
    /// Containers that sources are to be asked for.
    wanted: Vec<(SourceNumber, ContainerId)>,
    tree: Tree,
    /// Cgroups below which no walk has been since the start, for want of descriptors and the like.
    unseen: HashSet<CgroupId>,
    registry: Registry,
    reconciler: Reconciler,
    waiting: Waiting,
    late: Late,
    /// Since the last claim.
    newly_registered: bool,
    finds: found::Finds,
    kept: books::Kept,
    /// Only where counters are read and not carried by records.
    recounts: Recounts,
    /// As `recounts`.
    causes: HashMap<CgroupId, Cause>,
    totals: Totals,
    last_seq: u64,
    /// What happened before it did so while no daemon ran.
    watching_since_ns: u64,
}

impl Engine {
    pub(crate) fn new(setting: Setting) -> Self {
        Self {
            origin: setting.origin,
            discovery: setting.discovery,
            units: setting.units,
            names: Names::default(),
            wanted: Vec::new(),
            tree: Tree::new(setting.root),
            unseen: HashSet::new(),
            registry: Registry::new(setting.units),
            reconciler: Reconciler::new(setting.counting),
            waiting: Waiting::default(),
            late: Late::default(),
            newly_registered: false,
            finds: found::Finds::default(),
            kept: books::Kept::default(),
            recounts: Recounts::default(),
            causes: HashMap::new(),
            totals: Totals::default(),
            last_seq: 0,
            watching_since_ns: 0,
        }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Name of the node.
    pub(crate) fn node(&self) -> Option<&Arc<str>> {
        self.origin.node.as_ref()
    }

    /// The container registered on exactly this cgroup, dead or alive.
    pub(crate) fn container(&self, cgroup: CgroupId) -> Option<Arc<Container>> {
        self.registry.get(&self.tree, cgroup)
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            recounts: self.reconciler.all_recounts(),
            ..self.totals
        }
    }

    /// The numbers of all containers that lost a process in this run, by id.
    pub(crate) fn numbers(&self) -> Vec<(Arc<Container>, Numbers)> {
        let mut numbers: Vec<_> = self
            .reconciler
            .numbers()
            .filter(|(_, numbers)| numbers.rise() > 0 || numbers.residual() != 0)
            .filter_map(|(cgroup, numbers)| Some((self.registry.get(&self.tree, cgroup)?, numbers)))
            .collect();
        numbers.sort_by(|(left, _), (right, _)| {
            (left.id.as_str(), left.cgroup_id).cmp(&(right.id.as_str(), right.cgroup_id))
        });
        numbers
    }

    /// Takes in that a cgroup exists, from whichever source, and registers it as a container
    /// if its path says so. Tells whether it was new.
    pub(crate) fn learn(&mut self, id: CgroupId, parent: CgroupId, name: &[u8]) -> bool {
        if !self.tree.insert(id, parent, name) {
            return false;
        }
        self.leaf_gained_child(parent);
        self.discover(id, &[]);
        true
    }

    /// How many increments of the node's `oom_kill` were spoken of so far.
    pub(crate) fn node_told(&self) -> u64 {
        self.reconciler.node_told()
    }

    /// A counter was read, not before `as_of_ns`.
    pub(crate) fn baseline(&mut self, id: CgroupId, oom_kill: u64, as_of_ns: u64) {
        self.reconciler.baseline(id, oom_kill, as_of_ns);
        self.read_resumed(id, oom_kill);
        // A container found by a scan is registered before its counter is read.
        if self.registry.contains(id) {
            self.open_account(id, &[(id, oom_kill)]);
        }
    }

    /// Registers a container whose counter, as far as known, is what records said last.
    pub(crate) fn register(&mut self, container: Container) -> Result<(), RegistryError> {
        self.register_late(container, &[])
    }

    /// As [`Self::register`], with the counters of [`Self::to_be_read`].
    pub(crate) fn register_late(
        &mut self,
        container: Container,
        read: &[(CgroupId, u64)],
    ) -> Result<(), RegistryError> {
        let (cgroup, id) = (container.cgroup_id, container.id.clone());
        self.registry.add(&self.tree, container)?;
        self.registered(cgroup, &id, read);
        Ok(())
    }

    /// As [`Self::register`], for a container that is what its path says.
    fn register_found(
        &mut self,
        container: Container,
        read: &[(CgroupId, u64)],
    ) -> Result<(), RegistryError> {
        let (cgroup, id) = (container.cgroup_id, container.id.clone());
        let asked = self.names.askable(&container);
        self.registry.add_found(&self.tree, container)?;
        let wanted = asked.into_iter().map(|source| (source, id.clone()));
        self.wanted.extend(wanted);
        self.registered(cgroup, &id, read);
        Ok(())
    }

    fn registered(&mut self, cgroup: CgroupId, id: &ContainerId, read: &[(CgroupId, u64)]) {
        if self.kept.registered(cgroup, id) {
            self.reconciler.close_account(cgroup);
        } else if self.reconciler.is_resumed(cgroup) {
            self.want_audit(cgroup);
        }
        self.open_account(cgroup, read);
        self.newly_registered = true;
    }

    pub(crate) fn unregister(&mut self, id: &ContainerId) -> Result<Arc<Container>, RegistryError> {
        let container = self.registry.remove(&self.tree, id)?;
        self.reconciler.close_account(container.cgroup_id);
        self.kept.unregistered(container.cgroup_id);
        self.reconciler.touch(container.cgroup_id);
        self.recounts.forget(container.cgroup_id);
        Ok(container)
    }

    /// Records may come that are older than this: of kills while no daemon ran.
    pub(crate) fn watching_since(&mut self, boottime_ns: u64) {
        self.watching_since_ns = boottime_ns;
    }

    /// Takes in the topology of a batch, before its victims: after a start a removal may be the only
    /// word of a cgroup whose victim comes before it. A parent's removal comes after its children's, and
    /// their paths need it: so these from the last one back, and before what was created in them.
    pub(crate) fn learn_all(&mut self, records: &[Record]) {
        for record in records.iter().rev() {
            if let Record::CgroupRemoved(change) = record {
                self.learn_from(change, false);
                // It may come back in this very batch.
                self.registry.cgroup_removed(&self.tree, change.cgroup_id);
            }
        }
        for record in records {
            if let Record::CgroupCreated(change) = record {
                self.learn_from(change, true);
            }
        }
    }

    /// Works through records in kernel order; their events are in the waiting room then.
    pub(crate) fn work_through(&mut self, records: &[Record], now: Now) {
        self.learn_all(records);
        for record in records {
            match record {
                Record::Victim(victim) => {
                    let event = self.victim(victim, now);
                    self.admit(event, now);
                }
                // Its counters are known since it was learnt of.
                Record::CgroupCreated(_) => {}
                Record::CgroupRemoved(change) => {
                    self.find_removed(change.cgroup_id);
                    // The last word on its kills, and all their records came before.
                    if let Some(last) = &change.counters
                        && let Some(oom_kill) = last.oom_kill
                    {
                        let serial = Some(last.serial);
                        let told = self.audit_one(change.cgroup_id, oom_kill, serial, now);
                        let is_past = change.boottime_ns < self.watching_since_ns;
                        let told = told.map(|mut event| {
                            event.while_down |= is_past;
                            event
                        });
                        self.admit(told, now);
                    }
                    self.removed(change);
                }
                Record::GroupEnd(end) => {
                    let first = end.first.map(|memcg| memcg.cgroup_id);
                    let lineage = first.map_or_else(Vec::new, |id| self.tree.lineage(id).collect());
                    self.reconciler.group_end(end, &lineage);
                    self.waiting.group_end(end.invocation, end.marks);
                }
            }
        }
        if self.may_claim() {
            let claimed = self.claim(now);
            self.admit(claimed, now);
        }
        for id in self.tree.expire(now.boottime_ns) {
            self.registry.forget(id);
            self.reconciler.forget(id);
            self.kept.unregistered(id);
            self.recounts.forget(id);
            self.causes.remove(&id);
        }
        self.forget_names(now.boottime_ns);
    }

    /// Takes events into the waiting room.
    pub(crate) fn admit(&mut self, events: impl IntoIterator<Item = OomEvent>, now: Now) {
        for mut event in events {
            let is_nameless = self.name(&mut event);
            if event.supersedes.is_some() {
                self.waiting.readmit(event, is_nameless, now.boottime_ns);
            } else {
                self.waiting.admit(event, is_nameless, now.boottime_ns);
            }
        }
    }

    /// Takes in events that waited when an earlier run ended.
    pub(crate) fn resume_waiting(&mut self, events: Vec<OomEvent>, now: Now) {
        for mut event in events {
            self.last_seq += 1;
            event.seq = self.last_seq;
            let is_nameless = self.name(&mut event);
            self.waiting.readmit(event, is_nameless, now.boottime_ns);
        }
    }

    /// When [`Self::next_ready`] has something, on the boot-time clock.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.waiting.deadline_ns()
    }

    /// Whether all events were published.
    pub(crate) fn is_nothing_waiting(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nothing that is in the waiting room waits for anything any more.
    pub(crate) fn let_all_go(&mut self) {
        self.waiting.let_all_go();
    }

    /// Makes those ready that wait no longer.
    pub(crate) fn release(&mut self, now_ns: u64) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.release(now_ns, |event| self.name(event));
        self.waiting = waiting;
    }

    /// The next event to be published.
    pub(crate) fn next_ready(&mut self) -> Option<OomEvent> {
        let event = self.waiting.next()?;
        self.late.published(&event);
        Some(event)
    }

    /// What of the waiting room the store lacks; with `all` it has nothing.
    pub(crate) fn take_pending(&mut self, all: bool) -> Pending {
        self.waiting.take_pending(all)
    }

    /// Works through records, and returns what is to be published now.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn apply(&mut self, records: &[Record], now: Now) -> Vec<OomEvent> {
        self.work_through(records, now);
        self.take_ready(now)
    }

    /// All that is to be published now.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn take_ready(&mut self, now: Now) -> Vec<OomEvent> {
        self.release(now.boottime_ns);
        std::iter::from_fn(|| self.next_ready()).collect()
    }

    /// Containers with a counter to be held against what was said of them, the lowest first.
    pub(crate) fn audited(&self) -> Vec<CgroupId> {
        let mut audited: Vec<(usize, CgroupId)> = self
            .tree
            .live()
            .filter(|&id| self.reconciler.has_account(id) && self.registry.contains(id))
            .map(|id| (self.tree.lineage(id).count(), id))
            .collect();
        audited.sort_unstable_by(|left, right| right.cmp(left));
        audited.into_iter().map(|(_, id)| id).collect()
    }

    /// A container's counter was read, to be compared by [`Self::audit_noted`] later. To be called
    /// for the lowest containers first, and with all records worked through that were there before.
    pub(crate) fn note_counter(&mut self, cgroup: CgroupId, oom_kill: u64) {
        self.reconciler.note_counter(cgroup, oom_kill);
    }

    /// Compares one container's counter, as it was noted, with what was said of it by now. Kills
    /// are counted before they are marked: so long after that all marks of the time have arrived.
    pub(crate) fn audit_noted(&mut self, cgroup: CgroupId, now: Now) -> Option<OomEvent> {
        let container = self.registry.get(&self.tree, cgroup)?;
        let lineage = self.tree.lineage(cgroup);
        let (missing, oom_kill) = self.reconciler.audit_noted(lineage, cgroup)?;
        let while_down = self.reconciler.take_resumed(cgroup);
        self.counter_only(container, (missing, oom_kill), while_down, now)
    }

    /// Compares one container's counter with what was said of it. The counter must have been read
    /// before the ring was drained for the last time, and nothing may be under way, or nothing be
    /// read any more: then every kill in it was seen, or lost.
    pub(crate) fn audit_one(
        &mut self,
        cgroup: CgroupId,
        oom_kill: u64,
        serial: Option<u32>,
        now: Now,
    ) -> Option<OomEvent> {
        // A book from an earlier run may be there before its container: it waits for it.
        let container = self.container(cgroup)?;
        let while_down = self.reconciler.take_resumed(cgroup);
        let lineage = self.tree.lineage(cgroup);
        let missing = self.reconciler.audit(lineage, cgroup, oom_kill, serial);
        self.counter_only(container, (missing, oom_kill), while_down, now)
    }

    /// Speaks of what is `missing` from a container's counter, if anything is.
    fn counter_only(
        &mut self,
        container: Arc<Container>,
        (missing, oom_kill): (u64, u64),
        while_down: bool,
        now: Now,
    ) -> Option<OomEvent> {
        if missing == 0 {
            return None;
        }
        let while_down = self.give_up_below(container.cgroup_id) || while_down;
        self.totals.counter_only += missing;
        self.last_seq += 1;
        let mut event = self
            .known(now)
            .counter_only(self.last_seq, container, missing, oom_kill);
        event.while_down = while_down;
        Some(event)
    }

    /// `is_new` where the record is that of its creation: its counters start at 0.
    fn learn_from(&mut self, change: &CgroupChanged, is_new: bool) {
        match (change.parent_id, &change.name) {
            (Some(parent), Some(name)) => {
                if is_new {
                    self.reconciler
                        .created(change.cgroup_id, change.boottime_ns);
                }
                if is_new {
                    self.learn(change.cgroup_id, parent, name);
                } else if self.tree.insert(change.cgroup_id, parent, name) {
                    self.discover_removed(change.cgroup_id, parent);
                }
                // Where its removal was learnt of first, or a scan that read no counter.
                if is_new && self.registry.contains(change.cgroup_id) {
                    self.open_account(change.cgroup_id, &[]);
                }
            }
            _ => debug!(
                cgroup = change.cgroup_id.0,
                "a cgroup without name or parent"
            ),
        }
    }

    fn removed(&mut self, change: &CgroupChanged) {
        let parent = self.tree.parent(change.cgroup_id);
        if self.tree.remove(change.cgroup_id, change.boottime_ns) {
            self.registry.cgroup_removed(&self.tree, change.cgroup_id);
            // Its book is not needed in another run.
            self.reconciler.touch(change.cgroup_id);
            if self.discovery == CgroupDiscovery::Leaves
                && let Some(parent) = parent.filter(|&id| self.tree.is_leaf(id))
            {
                self.find(parent, false);
            }
        }
    }

    /// What events are made of.
    fn known(&self, now: Now) -> Known<'_> {
        Known {
            origin: &self.origin,
            tree: &self.tree,
            reconciler: &self.reconciler,
            now,
        }
    }

    fn victim(&mut self, record: &VictimRecord, now: Now) -> Option<OomEvent> {
        if let Some(call) = record.invocation.filter(|call| call.kills_group) {
            self.waiting.group_mark(call.number);
        }
        let (kind, counted) = match self.reconciler.victim(record) {
            Verdict::Kill { counted } => (Kind::Kill, counted),
            Verdict::AlreadyExiting => (Kind::AlreadyExiting, false),
            Verdict::SameProcess => {
                self.totals.folded += 1;
                return None;
            }
        };
        Some(self.reported(record, (kind, counted), now))
    }

    /// Counts a judged mark, and makes its event.
    fn reported(
        &mut self,
        record: &VictimRecord,
        (kind, counted): (Kind, bool),
        now: Now,
    ) -> OomEvent {
        let attributed = attribute(&self.tree, &self.registry, record);
        let unregistered = attributed.container.is_none();
        match kind {
            Kind::Kill => {
                self.totals.kills += 1;
                self.totals.unregistered += u64::from(unregistered);
            }
            _ => self.totals.already_exiting += 1,
        }
        self.last_seq += 1;
        if unregistered {
            self.keep_for_claims(record, (kind, counted), now);
        }
        let mut event = self
            .known(now)
            .event(self.last_seq, record, attributed, kind, counted);
        event.while_down = record.boottime_ns < self.watching_since_ns;
        event
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
