//! Ledgers: what each memory cgroup counted, and what of that was reported.
//!
//! The kernel counts each kill once, in one memory cgroup's own counter. That counter lives as long as its css. So a
//! ledger is keyed by the cgroup and its css, and registrations move no number in it. Only the few cgroups that
//! counted something, and those above them, have a ledger: the counter of any other cgroup is 0.
//!
//! The law, for each: `counter - base == reported + double_counts`. The sum of a ledger with those below it, cgroups
//! that are gone included, is the kernel's hierarchical counter, unless something was lost.
//!
//! Pure: counters come in as values. It knows no container and makes no event.

pub(crate) mod double_count;
mod kept;
pub(crate) mod node;
mod reading;

use hashbrown::{HashMap, HashSet};

pub(crate) use self::reading::{Missing, Reading, Readings};
use crate::{
    id::{CgroupId, Css},
    record::Charged,
};

/// Most ledgers of memory cgroups of a v1 hierarchy: nothing reports when one of those is gone.
const MAX_V1_LEDGERS: usize = 1024;

/// What the counters mean on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// `memory.events` of a cgroup includes its descendants'.
    Hierarchical,
    /// It does not (`memory_localevents`): there are no sums.
    Local,
    /// As `Local`, in a v1 hierarchy: only the records tell anything about its cgroups.
    LocalV1,
}

/// What an increment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Increment {
    Kill,
    /// A kill that only a counter shows.
    CounterOnly,
    /// A double count: the kernel counts a group kill's first victim twice.
    DoubleCount,
}

/// One memory cgroup's ledger, as the store keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The cgroup whose sum has this one's; `None` while it is unknown, and for the root.
    pub(crate) parent: Option<CgroupId>,
    pub(crate) css: Css,
    /// Its own counter when watching began.
    pub(crate) base: u64,
    /// Its own counter, up to which all was reported.
    pub(crate) counter: u64,
    /// Kills and counter-only kills since the base.
    pub(crate) reported: u64,
    pub(crate) double_counts: u64,
    /// What was counted below it, in cgroups that are gone.
    pub(crate) below: u64,
}

/// A ledger, and what follows from others.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    ledger: Ledger,
    /// Its counter with those of all below it: the hierarchical counter.
    sum: u64,
    sum_double_counts: u64,
    is_gone: bool,
    /// It is gone, and its last hierarchical counter was compared: that includes everything ever counted below it.
    is_settled: bool,
    /// It comes from an earlier run, and no record of this run was entered. On v1: none since the node's count
    /// reported everything.
    is_resumed: bool,
    /// Time of the last record, to find the ledger whose last record is the oldest.
    as_of_ns: u64,
}

/// A ledger; `None` if there is none any more.
pub(crate) type Change = (CgroupId, Option<Ledger>);

/// What became of an increment's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It was reported before, by another run or from another ring.
    Before,
    /// It is new, and so are `missing` increments before it whose records were lost.
    New { missing: u64 },
}

/// All ledgers.
#[derive(Debug)]
pub(crate) struct Ledgers {
    counting: Counting,
    /// The cgroup that is mounted as the root. Its counters are in no file that is read.
    root: CgroupId,
    entries: HashMap<CgroupId, Entry>,
    /// Whether the counters of all cgroups were read: one without a ledger had 0 then.
    is_past_known: bool,
    /// Increments of this run that were reported, wherever they were counted; and those of them that were
    /// double counts.
    reported: u64,
    double_counts: u64,
    /// Cgroups that were gone when an earlier run's ledgers were taken up, and when they are forgotten.
    gone_before: (Vec<CgroupId>, Option<u64>),
    /// Ledgers that changed since they were asked for; `None` where nobody keeps them.
    changed: Option<HashSet<CgroupId>>,
}

impl Ledgers {
    pub(crate) fn new(counting: Counting) -> Self {
        Self {
            counting,
            root: CgroupId::ROOT,
            entries: HashMap::new(),
            is_past_known: false,
            reported: 0,
            double_counts: 0,
            gone_before: (Vec::new(), None),
            changed: None,
        }
    }

    /// The cgroup that is mounted, where it is not the hierarchy's root.
    pub(crate) fn set_root(&mut self, root: CgroupId) {
        self.root = root;
    }

    /// Whether only records show a cgroup's own counter. Increments missing between them are in the node's count, and
    /// may have been reported from there.
    fn is_root(&self, id: CgroupId) -> bool {
        id == self.root || id == CgroupId::ROOT
    }

    /// Whether a cgroup without a ledger is known to have counted nothing before.
    pub(crate) fn is_past_known(&self) -> bool {
        self.is_past_known
    }

    pub(crate) fn counting(&self) -> Counting {
        self.counting
    }

    /// Whether there is a ledger of these counters, not only of what is below them, or none is needed.
    pub(crate) fn is_known(&self, charged: &Charged) -> bool {
        let known = self.entries.get(&charged.cgroup_id);
        let known = known.map(|entry| entry.ledger.css);
        let is_theirs = |css: Css| css != Css::default() && charged.css.compare(&css).is_eq();
        self.is_root(charged.cgroup_id) || known.is_some_and(is_theirs)
    }

    /// Whether a record or a reading had this cgroup's own counter, and not only what is below it.
    pub(crate) fn is_met(&self, id: CgroupId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.is_resumed || entry.ledger.css != Css::default())
    }

    /// Increments that were reported in this run.
    pub(crate) fn reported(&self) -> u64 {
        self.reported
    }

    /// Double counts of the kernel in this run, on the whole node.
    pub(crate) fn double_counts(&self) -> u64 {
        self.double_counts
    }

    /// An increment was reported of which no counter is known.
    pub(crate) fn report_elsewhere(&mut self, count: u64) {
        self.reported = self.reported.saturating_add(count);
    }

    /// The node's count has reported everything counted by now. On v1, only increments after the next mark in each
    /// cgroup are missing then: its counters are in no file that is read.
    pub(crate) fn counted_elsewhere(&mut self) {
        if self.counting == Counting::LocalV1 {
            for entry in self.entries.values_mut() {
                entry.is_resumed = true;
            }
        }
    }

    /// Double counts in a cgroup and below it, as far as seen.
    pub(crate) fn double_counts_of(&self, id: CgroupId) -> u64 {
        self.entries
            .get(&id)
            .map_or(0, |entry| entry.sum_double_counts)
    }

    /// A cgroup's hierarchical counter, up to which all was reported or is past.
    pub(crate) fn sum(&self, id: CgroupId) -> u64 {
        self.entries.get(&id).map_or(0, |entry| entry.sum)
    }

    /// Takes in the record of an increment, or of a mark. `increment` is `None` for a mark that was not counted.
    /// `lineage` is the charged cgroup and those above it whose sums include it. `is_new`: everything that the cgroup
    /// counted was counted while it was watched.
    pub(crate) fn mark(
        &mut self,
        charged: &Charged,
        lineage: &[CgroupId],
        increment: Option<Increment>,
        (is_new, at_ns): (bool, u64),
    ) -> Entered {
        let own = u64::from(increment.is_some());
        let is_root = self.is_root(charged.cgroup_id);
        let is_first = !self.is_met(charged.cgroup_id);
        if is_first {
            self.limit_v1();
        }
        match self.meet(charged.cgroup_id, charged.css) {
            Meeting::Same => {}
            Meeting::Older => return self.enter_older(lineage, own, increment),
        }
        let entry = self.entries.entry(charged.cgroup_id).or_default();
        entry.as_of_ns = at_ns;
        if is_first && !is_new {
            entry.ledger.base = charged.oom_kill.saturating_sub(own);
            entry.ledger.counter = entry.ledger.base;
        }
        let beyond = charged.oom_kill.saturating_sub(entry.ledger.counter);
        if beyond < own {
            return Entered::Before;
        }
        let mut missing = beyond - own;
        entry.ledger.counter = entry.ledger.counter.saturating_add(beyond);
        let was_resumed = std::mem::take(&mut entry.is_resumed);
        if is_root || was_resumed && self.counting == Counting::LocalV1 {
            let past = std::mem::take(&mut missing);
            entry.ledger.base = entry.ledger.base.saturating_add(past);
        }
        entry.ledger.reported = entry.ledger.reported.saturating_add(missing);
        match increment {
            Some(Increment::DoubleCount) => entry.ledger.double_counts += 1,
            Some(_) => entry.ledger.reported += 1,
            None => {}
        }
        let doubles = u64::from(increment == Some(Increment::DoubleCount));
        self.report(missing + own, doubles);
        self.raise(lineage, missing + own, doubles);
        Entered::New { missing }
    }

    /// The counters that counted it are gone: the sums above have it.
    fn enter_older(
        &mut self,
        lineage: &[CgroupId],
        own: u64,
        increment: Option<Increment>,
    ) -> Entered {
        let doubles = u64::from(increment == Some(Increment::DoubleCount));
        self.report(own, doubles);
        if let [_, above @ ..] = lineage {
            self.raise(above, own, doubles);
            self.add_below(above.first().copied(), own);
        }
        Entered::New { missing: 0 }
    }

    /// Whether a cgroup counted something, and the sums above that include it are unknown.
    pub(crate) fn is_unlinked(&self, id: CgroupId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.ledger.parent.is_none())
    }

    /// The parent of a cgroup, as far as a record or a reading had it.
    pub(crate) fn parent(&self, id: CgroupId) -> Option<CgroupId> {
        self.entries.get(&id)?.ledger.parent
    }

    /// The place of a cgroup became known: those above it include what it counted, and what those between counted.
    pub(crate) fn link(&mut self, lineage: &[CgroupId]) {
        for place in (0..lineage.len().saturating_sub(1)).rev() {
            let from = lineage.get(place..).unwrap_or_default();
            let entry = from.first().and_then(|id| self.entries.get(id));
            if let Some(entry) = entry.filter(|entry| entry.ledger.parent.is_none()) {
                let (sum, doubles) = (entry.sum, entry.sum_double_counts);
                self.raise_above(from, sum, doubles);
            }
        }
    }

    /// A cgroup is gone: what it and those below it counted stays with its parent.
    pub(crate) fn remove(&mut self, id: CgroupId) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.is_gone) else {
            return;
        };
        entry.is_gone = true;
        let (parent, sum) = (entry.ledger.parent, entry.sum);
        self.touch(id);
        self.add_below(parent, sum);
    }

    /// A cgroup was removed, so all cgroups below it are gone too, whether or not a record reported that.
    fn remove_below(&mut self, id: CgroupId) {
        if !self.entries.contains_key(&id) {
            return;
        }
        let mut tops = vec![id];
        while let Some(top) = tops.pop() {
            let entries = self.entries.iter();
            let below =
                entries.filter(|(_, entry)| entry.ledger.parent == Some(top) && !entry.is_gone);
            let below: Vec<CgroupId> = below.map(|(&id, _)| id).collect();
            for &id in &below {
                self.remove(id);
            }
            tops.extend(below);
        }
    }

    /// A cgroup that is gone is forgotten.
    pub(crate) fn forget(&mut self, id: CgroupId) {
        if self.counting != Counting::LocalV1 && self.entries.remove(&id).is_some() {
            self.touch(id);
        }
    }

    fn report(&mut self, count: u64, doubles: u64) {
        self.reported = self.reported.saturating_add(count);
        self.double_counts = self.double_counts.saturating_add(doubles);
    }

    /// Adds to the sums of a cgroup and of those above it.
    fn raise(&mut self, lineage: &[CgroupId], count: u64, doubles: u64) {
        let Some(&id) = lineage.first() else {
            return;
        };
        self.link(lineage);
        let entry = self.entries.entry(id).or_default();
        entry.sum = entry.sum.saturating_add(count);
        entry.sum_double_counts = entry.sum_double_counts.saturating_add(doubles);
        self.touch(id);
        self.raise_above(lineage, count, doubles);
    }

    /// The same without the first cgroup, which is linked to the second.
    fn raise_above(&mut self, lineage: &[CgroupId], count: u64, doubles: u64) {
        for pair in lineage.windows(2) {
            let &[id, above] = pair else {
                return;
            };
            let entry = self.entries.entry(id).or_default();
            let is_gone = entry.is_gone;
            if entry.ledger.parent != Some(above) {
                entry.ledger.parent = Some(above);
                self.touch(id);
            }
            let is_new = !self.entries.contains_key(&above);
            let entry = self.entries.entry(above).or_default();
            entry.sum = entry.sum.saturating_add(count);
            entry.sum_double_counts = entry.sum_double_counts.saturating_add(doubles);
            if is_gone {
                entry.ledger.below = entry.ledger.below.saturating_add(count);
            }
            if is_new || is_gone {
                self.touch(above);
            }
        }
    }

    fn add_below(&mut self, parent: Option<CgroupId>, count: u64) {
        if let Some(parent) = parent
            && let Some(entry) = self.entries.get_mut(&parent)
        {
            entry.ledger.below = entry.ledger.below.saturating_add(count);
            self.touch(parent);
        }
    }

    /// Takes in the css of a record or a reading. A younger css has taken the place of the known one.
    fn meet(&mut self, id: CgroupId, css: Css) -> Meeting {
        let Some(entry) = self.entries.get_mut(&id) else {
            let ledger = Ledger {
                css,
                ..Ledger::default()
            };
            let entry = Entry {
                ledger,
                ..Entry::default()
            };
            self.entries.insert(id, entry);
            return Meeting::Same;
        };
        let known = &mut entry.ledger.css;
        match css.compare(known) {
            std::cmp::Ordering::Less => return Meeting::Older,
            std::cmp::Ordering::Greater => self.reset(id, Some(css)),
            std::cmp::Ordering::Equal => {}
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.ledger.css = Css {
                inode: css.inode.or(entry.ledger.css.inode),
                serial: css.serial.or(entry.ledger.css.serial),
            };
        }
        Meeting::Same
    }

    /// A cgroup's hierarchical counter was not 0, and is now: other counters took its place.
    pub(crate) fn begin_again(&mut self, id: CgroupId) {
        let entry = self.entries.get(&id);
        if entry.is_some_and(|entry| !entry.is_gone && entry.sum > 0) {
            self.reset(id, None);
        }
    }

    /// The counters of a cgroup began again at 0, and so did all below it: the controller was off. Its parent has
    /// what they had. `css` is the new one: a ledger below with a younger css began after it, and stays.
    fn reset(&mut self, top: CgroupId, css: Option<Css>) {
        let ways = self.ways_to(top);
        let is_young = |id: &CgroupId| {
            let known = self.entries.get(id).map(|entry| entry.ledger.css);
            css.zip(known)
                .is_some_and(|(css, known)| known.compare(&css).is_gt())
        };
        let is_kept = |way: &[CgroupId]| way.iter().any(|id| *id != top && is_young(id));
        let (kept, begun): (Vec<_>, Vec<_>) = ways.into_iter().partition(|way| is_kept(way));
        let highest = kept
            .iter()
            .filter(|way| !is_kept(way.get(1..).unwrap_or_default()));
        let highest: Vec<(&[CgroupId], u64, u64)> = highest
            .filter_map(|way| {
                let entry = self.entries.get(way.first()?)?;
                Some((&**way, entry.sum, entry.sum_double_counts))
            })
            .collect();
        if let Some(entry) = self.entries.get(&top) {
            let sums = highest.iter().map(|(_, sum, _)| sum);
            let had = entry.sum.saturating_sub(sums.sum());
            self.add_below(entry.ledger.parent, had);
        }
        for id in begun.iter().filter_map(|way| way.first()) {
            if let Some(entry) = self.entries.get_mut(id) {
                let parent = entry.ledger.parent;
                *entry = Entry {
                    is_gone: entry.is_gone,
                    ..Entry::default()
                };
                entry.ledger.parent = parent;
                self.touch(*id);
            }
        }
        for (way, sum, doubles) in highest {
            self.raise_above(way, sum, doubles);
        }
    }

    /// Of each ledger in a cgroup or below it, the cgroups from itself up to that one.
    fn ways_to(&self, top: CgroupId) -> Vec<Vec<CgroupId>> {
        let up = |id: &CgroupId| self.entries.get(id)?.ledger.parent.filter(|_| *id != top);
        let way = |&id: &CgroupId| {
            let way = std::iter::successors(Some(id), up).take(self.entries.len());
            let way: Vec<CgroupId> = way.collect();
            way.last().is_some_and(|last| *last == top).then_some(way)
        };
        self.entries.keys().filter_map(way).collect()
    }

    /// Drops the v1 ledger whose last record is the oldest. If its cgroup still lives, the next record begins a new
    /// ledger.
    fn limit_v1(&mut self) {
        if self.counting != Counting::LocalV1 || self.entries.len() < MAX_V1_LEDGERS {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.as_of_ns);
        if let Some((&oldest, _)) = oldest {
            self.entries.remove(&oldest);
            self.touch(oldest);
        }
    }

    fn touch(&mut self, id: CgroupId) {
        if let Some(changed) = &mut self.changed {
            changed.insert(id);
        }
    }
}

/// How counters compare with the ledger's, after younger counters have taken the place of the ledger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meeting {
    Same,
    /// They are gone: the ledger's are younger.
    Older,
}

#[cfg(test)]
mod tests;
