//! Ledgers and registrations by hand, from one run of the daemon to the next. The engine knows no store: both come in
//! and go out as plain data.

use hashbrown::{HashMap, HashSet};

use super::Engine;
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::{Identity, Word},
    },
    event::{Kind, OomEvent},
    id::{CgroupId, ContainerId, Css},
    ledger::{Change, Ledger, Reading, Readings},
    log::{info, warn},
    reconcile::UpTo,
};

/// What a person said of a cgroup; `None` if it no longer holds.
pub(crate) type Registration = (CgroupId, Option<Word>);

/// What persons said: nothing finds it again by itself.
#[derive(Debug, Default)]
pub(super) struct ByHand {
    words: HashMap<CgroupId, Word>,
    /// Cgroups that only the store has registered so far in this run.
    restored: HashSet<CgroupId>,
    changed: HashSet<CgroupId>,
}

impl Engine {
    /// From now on changes are remembered. `ledgers` are all that an earlier run had, `None` where there was none.
    /// Call it before the first scan.
    pub(crate) fn resume(
        &mut self,
        ledgers: Option<Vec<(CgroupId, Ledger)>>,
        by_hand: Vec<(CgroupId, Word)>,
    ) {
        self.reconciler.ledgers.keep();
        if let Some(ledgers) = ledgers {
            self.reconciler.ledgers.resume(ledgers);
        }
        self.by_hand.words = by_hand.into_iter().collect();
    }

    /// An earlier run has reported all up to then.
    pub(crate) fn reported_up_to(&mut self, reported: UpTo) {
        self.reconciler.reported_up_to(reported);
    }

    /// An earlier run has reported these events: marks of other threads of their victims are nothing new.
    pub(crate) fn were_reported<'a>(&mut self, events: impl IntoIterator<Item = &'a OomEvent>) {
        for event in events {
            if let Some(pid) = event.victim.pid {
                let killed = event.kind == Kind::Kill;
                let start = event.victim.start_boottime_ns;
                self.reconciler.was_reported(pid, start, killed);
            }
        }
    }

    /// The node's count has nothing beyond what was reported. So no later run reports a mark from before
    /// `boottime_ns`. Another ring may have a record of such a mark that was lost here.
    pub(crate) fn all_is_reported_up_to(&mut self, boottime_ns: u64) {
        self.reconciler.judged_up_to_time(boottime_ns);
    }

    /// The last records that this run or an earlier one has judged.
    pub(crate) fn judged_up_to(&self) -> UpTo {
        self.reconciler.judged_up_to()
    }

    /// Adds up the resumed ledgers, once the tree is known. No counter is read before.
    pub(crate) fn add_up(&mut self) {
        let tree = &self.tree;
        let is_live = |id| tree.is_live(id) || tree.is_root(id);
        self.reconciler.ledgers.add_up(is_live);
    }

    /// After the first scan: adds up the ledgers, and registers again what was registered by hand.
    pub(crate) fn settle_resumed(&mut self) {
        self.add_up();
        let known: Vec<CgroupId> = self.by_hand.words.keys().copied().collect();
        for cgroup in known {
            if self.tree.is_live(cgroup) {
                self.register_again(cgroup);
            } else {
                self.forget_by_hand(cgroup);
            }
        }
    }

    fn register_again(&mut self, cgroup: CgroupId) {
        let id = match self.by_hand.words.get(&cgroup) {
            Some(Word::Is(id)) => id.clone(),
            Some(Word::TakenOut) => {
                self.withdraw(cgroup);
                return;
            }
            None => return,
        };
        let container = Container {
            id: id.clone(),
            cgroup_id: cgroup,
            identity: Identity::Manual,
            inside: None,
            details: ContainerDetails::default(),
        };
        match self.register_by_hand(container) {
            Ok(()) => {
                self.by_hand.restored.insert(cgroup);
                info!(container = %id, cgroup = cgroup.0, "registered again from the store");
            }
            Err(error) => {
                self.forget_by_hand(cgroup);
                warn!(%error, "cannot register a container from the store");
            }
        }
    }

    /// A registration by hand is to outlive this run.
    pub(crate) fn keep_registration(&mut self, cgroup: CgroupId) {
        if let Some(container) = self.container(cgroup) {
            let word = Word::Is(container.id.clone());
            self.by_hand.words.insert(cgroup, word);
            self.by_hand.changed.insert(cgroup);
        }
    }

    pub(super) fn forget_by_hand(&mut self, cgroup: CgroupId) {
        self.by_hand.restored.remove(&cgroup);
        if self.by_hand.words.remove(&cgroup).is_some() {
            self.by_hand.changed.insert(cgroup);
        }
    }

    /// A person took a cgroup's container out.
    pub(super) fn take_out(&mut self, cgroup: CgroupId) {
        self.by_hand.words.insert(cgroup, Word::TakenOut);
        self.by_hand.changed.insert(cgroup);
    }

    /// Whether a person has said what a cgroup is: nothing else registers it.
    pub(super) fn is_said(&self, cgroup: CgroupId) -> bool {
        self.by_hand.words.contains_key(&cgroup)
    }

    pub(super) fn is_taken_out(&self, cgroup: CgroupId) -> bool {
        self.by_hand.words.get(&cgroup) == Some(&Word::TakenOut)
    }

    /// Whether a container is registered because an earlier run had registered it. Returns true once, to its owner
    /// who registers it again.
    pub(crate) fn take_restored(&mut self, id: &ContainerId, cgroup: CgroupId) -> bool {
        self.container(cgroup).is_some_and(|found| found.id == *id)
            && self.by_hand.restored.remove(&cgroup)
    }

    /// What changed since the last call.
    pub(crate) fn take_changes(&mut self) -> (Vec<Change>, Vec<Registration>) {
        let changed = std::mem::take(&mut self.by_hand.changed).into_iter();
        let words = &self.by_hand.words;
        let registrations = changed.map(|id| (id, words.get(&id).cloned()));
        let registrations = registrations.collect();
        (self.reconciler.ledgers.take_changed(), registrations)
    }

    /// Everything to be kept; none of it counts as changed any more.
    pub(crate) fn all_kept(&mut self) -> (Vec<Change>, Vec<Registration>) {
        self.by_hand.changed.clear();
        let ledgers = self.reconciler.ledgers.all().into_iter();
        let words = self.by_hand.words.iter();
        (
            ledgers.map(|(id, ledger)| (id, Some(ledger))).collect(),
            words.map(|(id, word)| (*id, Some(word.clone()))).collect(),
        )
    }

    /// Ledgers begin at these counters: what they have is past.
    pub(crate) fn begin(&mut self, counters: &Readings) {
        self.unread.extend(counters.unread.iter().copied());
        self.reconciler.ledgers.begin(&counters.readings);
    }

    /// The ledger of a cgroup that is met late, and may be old, begins at these counters.
    pub(crate) fn begin_one(&mut self, cgroup: CgroupId, css: Css, own: u64, sum: u64) {
        let lineage = self.charged_lineage(cgroup, |_| None);
        let reading = Reading::of(cgroup, css, own, self.has_sums().then_some(sum));
        self.reconciler.ledgers.begin_one(&lineage, &reading);
    }

    /// Whether an earlier run left its ledgers.
    pub(crate) fn is_resumed(&self) -> bool {
        self.reconciler.ledgers.is_past_known()
    }
}

#[cfg(test)]
mod tests;
