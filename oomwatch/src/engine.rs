//! The engine: all state of the daemon, and what each record does to it.
//!
//! Records and counter readings in, events out; topology, attribution and reconciliation in
//! between. Synchronous, and touches no file, ring or channel: [`crate::watcher`] does.

mod claim;
pub(crate) mod compose;
pub(crate) mod counter_reading;
mod discovery;
mod missing;
pub(crate) mod naming;
mod numbers;
mod registration;
mod rescan;
pub(crate) mod resume;
mod unclaimed;
pub(crate) mod waiting;

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use tracing::debug;

use self::{
    counter_reading::Cause,
    numbers::Numbers,
    resume::ByHand,
    waiting::{Pending, Waiting},
};
use crate::{
    attribute::attribute,
    containers::{
        by_path::CgroupDiscovery,
        container::Container,
        names::{Names, SourceNumber},
        registry::Registry,
        sighting::RuntimeKey,
    },
    engine::{
        compose::{EventContext, Origin},
        unclaimed::Unclaimed,
    },
    event::{Kind, Now, OomEvent},
    id::CgroupId,
    ledger::{Counting, Increment, double_count::DoubleCounts, node::Reported},
    reconcile::{Judged, Reconciler, Verdict},
    record::{CgroupChanged, Charged, DoubleCount, Memcg, Record, VictimRecord},
    topology::{
        owners::{MadeBy, Owners},
        tree::{TOMBSTONE_NS, Tree},
    },
};

/// Levels of cgroups at most, as far as sums go.
const MAX_LEVELS: usize = 65_536;
/// No container of Kubernetes or Docker is deeper.
const USUAL_LEVELS: usize = 8;

/// What was seen since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Kills: events of kind `kill`.
    pub kills: u64,
    /// Of those, kills without a registered container.
    pub unregistered: u64,
    /// Kills that a container claimed which was registered after them.
    pub late: u64,
    /// Kills that only a container's counter shows.
    pub counter_only: u64,
    /// Double counts of the kernel (`memory.oom.group`): in its counters, never kills.
    pub double_counts: u64,
    /// Marks of processes that were dying already.
    pub already_exiting: u64,
    /// Marks of further threads, folded into their process's event.
    pub folded: u64,
}

/// The host and the options that an engine works with.
#[derive(Clone, Debug)]
pub(crate) struct EngineConfig {
    pub(crate) origin: Origin,
    pub(crate) discovery: CgroupDiscovery,
    /// Whether systemd's units are registered as containers.
    pub(crate) units: bool,
    /// The cgroup that is mounted.
    pub(crate) root: CgroupId,
    pub(crate) counting: Counting,
    /// Tells who made a cgroup.
    pub(crate) owners: Arc<dyn Owners>,
}

/// The state.
#[derive(Debug)]
pub(crate) struct Engine {
    origin: Origin,
    discovery: CgroupDiscovery,
    units: bool,
    names: Names,
    /// Containers for which sources are to be asked.
    wanted: Vec<(SourceNumber, RuntimeKey)>,
    tree: Tree,
    /// Cgroups below which no walk has been since the start, such as for want of descriptors.
    unseen: HashSet<CgroupId>,
    /// Cgroups below which counters were not read at the start.
    unread: HashSet<CgroupId>,
    registry: Registry,
    owners: Arc<dyn Owners>,
    /// Who makes cgroups in these, as it was looked at for the batch at hand.
    made_in: HashMap<CgroupId, MadeBy>,
    /// Claims of what root made.
    refused: HashSet<CgroupId>,
    /// Containers that were registered above cgroups which were there before.
    borders: HashSet<CgroupId>,
    /// Cgroups of pods and engines, made by root, that are no containers.
    places: HashSet<CgroupId>,
    reconciler: Reconciler,
    waiting: Waiting,
    unclaimed: Unclaimed,
    /// A container was registered since the last claim.
    newly_registered: bool,
    /// The numbers of containers that lost a process.
    numbers: HashMap<CgroupId, Numbers>,
    by_hand: ByHand,
    /// Only where counters are read from files and not carried by records.
    double_counts: DoubleCounts,
    /// Serial of the counters last read, by cgroup; filled only where `double_counts` is.
    serials: HashMap<CgroupId, u32>,
    /// Filled only where `double_counts` is.
    causes: HashMap<CgroupId, Cause>,
    totals: Totals,
    last_seq: u64,
    /// What happened before this moment happened while no daemon ran.
    watching_since_ns: u64,
    /// All cgroups that were there at the start are known.
    is_start_over: bool,
}

impl Engine {
    pub(crate) fn new(setting: EngineConfig) -> Self {
        let mut reconciler = Reconciler::new(setting.counting);
        reconciler.ledgers.set_root(setting.root);
        Self {
            origin: setting.origin,
            discovery: setting.discovery,
            units: setting.units,
            names: Names::default(),
            wanted: Vec::new(),
            tree: Tree::new(setting.root),
            unseen: HashSet::new(),
            unread: HashSet::new(),
            registry: Registry::new(setting.units),
            owners: setting.owners,
            made_in: HashMap::new(),
            refused: HashSet::new(),
            borders: HashSet::new(),
            places: HashSet::new(),
            reconciler,
            waiting: Waiting::default(),
            unclaimed: Unclaimed::default(),
            newly_registered: false,
            numbers: HashMap::new(),
            by_hand: ByHand::default(),
            double_counts: DoubleCounts::default(),
            serials: HashMap::new(),
            causes: HashMap::new(),
            totals: Totals::default(),
            last_seq: 0,
            watching_since_ns: 0,
            is_start_over: false,
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
            double_counts: self.reconciler.ledgers.double_counts(),
            ..self.totals
        }
    }

    /// Takes in that a cgroup exists, from whichever source, and registers it as a container if its path says so. The
    /// same holds for cgroups below it that were known before. Tells whether it was new.
    pub(crate) fn learn(&mut self, id: CgroupId, parent: CgroupId, name: &[u8]) -> bool {
        if !self.insert(id, parent, name) {
            return false;
        }
        self.discover(id);
        true
    }

    /// Takes in the places of cgroups whose parents were learnt after them.
    fn learn_placed(&mut self) {
        for below in self.tree.take_placed() {
            self.link(below);
            if !self.registry.contains(below) {
                self.discover(below);
            }
        }
    }

    /// Puts a cgroup into the tree, and what it counted into the sums above it.
    fn insert(&mut self, id: CgroupId, parent: CgroupId, name: &[u8]) -> bool {
        if !self.tree.insert(id, parent, name) {
            return false;
        }
        self.leaf_gained_child(parent);
        self.link(id);
        true
    }

    fn link(&mut self, id: CgroupId) {
        let ledgers = &mut self.reconciler.ledgers;
        if ledgers.counting() == Counting::Hierarchical && ledgers.is_unlinked(id) {
            let lineage: Vec<CgroupId> = self.tree.lineage(id).collect();
            ledgers.link(&lineage);
        }
    }

    /// How many increments of the node's `oom_kill` were reported so far.
    pub(crate) fn node_reported(&self) -> Reported {
        Reported {
            all: self.reconciler.ledgers.reported(),
            counter_only: self.totals.counter_only,
        }
    }

    /// The cgroup that an increment was charged to, and those whose sums include it. If the tree does not know a
    /// parent, the record gives it, or an earlier record did.
    fn charged_lineage(
        &self,
        charged: CgroupId,
        in_record: impl Fn(CgroupId) -> Option<CgroupId>,
    ) -> Vec<CgroupId> {
        let ledgers = &self.reconciler.ledgers;
        if ledgers.counting() != Counting::Hierarchical {
            return vec![charged];
        }
        let above = |&id: &CgroupId| {
            let known = self.tree.parent(id).or_else(|| in_record(id));
            known.or_else(|| ledgers.parent(id))
        };
        // No way up is longer: more levels would be a loop made of wrong records.
        let above = std::iter::successors(Some(charged), above).take(MAX_LEVELS);
        let mut lineage = Vec::with_capacity(USUAL_LEVELS);
        lineage.extend(above);
        lineage
    }

    /// All cgroups that were there at the start are known, and so is what was counted before.
    pub(crate) fn start_is_over(&mut self) {
        self.is_start_over = true;
    }

    /// Records may come that are older than `boottime_ns`: of kills while no daemon ran.
    pub(crate) fn watching_since(&mut self, boottime_ns: u64) {
        self.watching_since_ns = boottime_ns;
    }

    fn is_while_down(&self, boottime_ns: u64) -> bool {
        boottime_ns < self.watching_since_ns
    }

    /// Takes in the topology of a batch before its victims. After a start, a removal may be the only record of a
    /// cgroup whose victim comes before it. A parent's removal comes after its children's, and their paths need the
    /// parent. So removals are taken in from the last one back. They are taken in before the cgroups that were
    /// created in them.
    pub(crate) fn learn_all(&mut self, records: &[Record]) {
        self.look_anew();
        for record in records.iter().rev() {
            if let Record::CgroupRemoved(change) = record {
                self.learn_from(change, false);
                // It may come back in this very batch.
                self.cgroup_removed(change.cgroup_id);
            }
        }
        for record in records {
            if let Record::CgroupCreated(change) = record {
                self.learn_from(change, true);
            }
        }
        self.learn_placed();
        self.judge_refused();
        self.judge_below_borders();
    }

    /// Works through records in kernel order; their events are in the waiting room afterwards.
    pub(crate) fn work_through(&mut self, records: &[Record], now: Now) {
        self.learn_all(records);
        for record in records {
            match record {
                Record::Victim(victim) => {
                    let events = self.victim(victim, now);
                    self.admit(events, now);
                }
                Record::DoubleCount(count) => {
                    let event = self.double_count(count, now);
                    self.admit(event, now);
                }
                // Its counters are known since it was learnt of.
                Record::CgroupCreated(_) => {}
                Record::CgroupRemoved(change) => {
                    // The removal ends the records of its kills: all of them came before.
                    let events = self.settle_removed(change, now);
                    self.admit(events, now);
                    self.removed(change);
                }
                Record::GroupEnd(end) => self.waiting.group_end(end.invocation, end.marks),
            }
        }
        if self.may_claim() {
            let claimed = self.claim(now);
            self.admit(claimed, now);
        }
        let ledgers = &mut self.reconciler.ledgers;
        ledgers.forget_gone_before(now.boottime_ns, TOMBSTONE_NS);
        for id in self.tree.expire(now.boottime_ns) {
            self.registry.forget(id);
            self.places.remove(&id);
            self.reconciler.ledgers.forget(id);
            self.numbers.remove(&id);
            self.forget_by_hand(id);
            self.double_counts.forget(id);
            self.causes.remove(&id);
            self.serials.remove(&id);
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

    /// Nothing in the waiting room waits for anything any more.
    pub(crate) fn let_all_go(&mut self) {
        self.waiting.let_all_go();
    }

    /// Makes the events ready that wait no longer.
    pub(crate) fn release(&mut self, now_ns: u64) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.release(now_ns, |event| self.name(event));
        self.waiting = waiting;
    }

    /// The next event to be published.
    pub(crate) fn next_ready(&mut self) -> Option<OomEvent> {
        let event = self.waiting.next()?;
        self.unclaimed.published(&event);
        Some(event)
    }

    /// The events of the waiting room that the store lacks; with `all`, every event.
    pub(crate) fn take_pending(&mut self, all: bool) -> Pending {
        self.waiting.take_pending(all)
    }

    /// Works through records, and returns the events to be published now.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn apply(&mut self, records: &[Record], now: Now) -> Vec<OomEvent> {
        self.work_through(records, now);
        self.take_ready(now)
    }

    /// All events to be published now.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn take_ready(&mut self, now: Now) -> Vec<OomEvent> {
        self.release(now.boottime_ns);
        std::iter::from_fn(|| self.next_ready()).collect()
    }

    /// `is_new` where the record is that of its creation: its counters start at 0.
    fn learn_from(&mut self, change: &CgroupChanged, is_new: bool) {
        match (change.parent_id, &change.name) {
            (Some(parent), Some(name)) if is_new => {
                self.learn(change.cgroup_id, parent, name);
            }
            (Some(parent), Some(name)) => {
                if self.insert(change.cgroup_id, parent, name) {
                    self.discover_removed(change.cgroup_id);
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
        self.reconciler.ledgers.remove(change.cgroup_id);
        if self.tree.remove(change.cgroup_id, change.boottime_ns) {
            self.cgroup_removed(change.cgroup_id);
            self.refused.remove(&change.cgroup_id);
            self.forget_by_hand(change.cgroup_id);
            if self.discovery == CgroupDiscovery::Leaves
                && let Some(parent) = parent.filter(|&id| self.tree.is_leaf(id))
            {
                self.discover(parent);
            }
        }
    }

    /// What events are made of.
    fn event_context(&self, now: Now) -> EventContext<'_> {
        EventContext {
            origin: &self.origin,
            tree: &self.tree,
            ledgers: &self.reconciler.ledgers,
            now,
        }
    }

    fn victim(&mut self, record: &VictimRecord, now: Now) -> Vec<OomEvent> {
        if let Some(call) = record.invocation.filter(|call| call.kills_group) {
            self.waiting.group_mark(call.number);
        }
        let charged = record.charged.as_ref();
        let lineage = charged.map_or_else(Vec::new, |charged| {
            self.charged_lineage(charged.cgroup_id, |id| in_chain(&record.chain, id))
        });
        let is_new = charged.is_some_and(|charged| self.began_at_zero(charged));
        let Judged { verdict, missing } = self.reconciler.victim(record, &lineage, is_new);
        let mut events = Vec::new();
        if missing > 0 {
            // On v1 only the victim says where the kills were.
            let place = charged.filter(|_| !record.chain_is_v1);
            let place = place.map(|charged| charged.cgroup_id);
            let while_down = self.is_while_down(record.boottime_ns);
            let place = place.or(record.victim.cgroup_id);
            events.push(self.missing(place, missing, while_down, now));
        }
        let judged = match verdict {
            Verdict::Kill { counted } => (Kind::Kill, counted),
            Verdict::AlreadyExiting => (Kind::AlreadyExiting, false),
            Verdict::SameProcess => {
                self.totals.folded += 1;
                return events;
            }
            Verdict::Before => return events,
        };
        if judged.0 == Kind::Kill
            && let Some(cgroup) = record.victim.cgroup_id
        {
            self.count(cgroup, Increment::Kill, 1);
        }
        events.push(self.reported(record, judged, now));
        events
    }

    /// Whether everything that a memory cgroup counted was counted while it was watched.
    fn began_at_zero(&self, charged: &Charged) -> bool {
        let is_seen = self.unseen.is_empty() || self.tree.contains(charged.cgroup_id);
        let mut above = self.tree.lineage(charged.cgroup_id);
        let was_read = self.unread.is_empty() || !above.any(|id| self.unread.contains(&id));
        // In a foreign cgroup namespace nothing is read outside of it.
        let root = self.tree.root();
        let mut above = self.tree.lineage(charged.cgroup_id);
        let is_inside = root == CgroupId::ROOT || above.any(|id| id == root);
        is_seen && was_read && is_inside && self.reconciler.ledgers.is_past_known()
    }

    fn double_count(&mut self, record: &DoubleCount, now: Now) -> Option<OomEvent> {
        let cgroup = record.charged.cgroup_id;
        let above = |id| {
            record
                .parent_id
                .filter(|&above| id == cgroup && above != id)
        };
        let lineage = self.charged_lineage(cgroup, above);
        let is_new = self.began_at_zero(&record.charged);
        let before = self.reconciler.ledgers.double_counts();
        let missing = self.reconciler.counted_again(record, &lineage, is_new);
        let doubles = self.reconciler.ledgers.double_counts() - before;
        // On v1 nothing says where the kills were.
        let is_v1 = self.reconciler.ledgers.counting() == Counting::LocalV1;
        let place = (!is_v1).then_some(cgroup);
        if let Some(cgroup) = place {
            self.count(cgroup, Increment::DoubleCount, doubles);
        }
        let while_down = self.is_while_down(record.boottime_ns);
        (missing > 0).then(|| self.missing(place, missing, while_down, now))
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
        if self.may_change(attributed.container.as_deref()) {
            let owner = attributed.container.as_deref();
            self.keep_for_claims(record, owner, (kind, counted), now);
        }
        let mut event =
            self.event_context(now)
                .event(self.last_seq, record, attributed, kind, counted);
        event.while_down = self.is_while_down(record.boottime_ns);
        if unregistered {
            event.place = record.victim.cgroup_id.and_then(|id| self.place_of(id));
        }
        event
    }
}

/// The memory cgroup above one, by a record's chain.
fn in_chain(chain: &[Memcg], id: CgroupId) -> Option<CgroupId> {
    let mut links = chain.iter().skip_while(|link| link.cgroup_id != id);
    links.nth(1).map(|link| link.cgroup_id)
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
