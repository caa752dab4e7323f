//! Reconciliation: which marks were kills, held against the kernel's own counters.
//!
//! The kernel raises `oom_kill` before `mark_victim` fires, both under `oom_lock`, and every
//! mark carries the counters of all memory cgroups above its victim. So each of those is a
//! gap-free sequence number: it advanced, then the mark is a counted kill; it did not, then
//! the task was dying already; it jumped, then the kernel counted more than it marked.
//!
//! A pure state machine: records and counter readings in, verdicts out. Reads no file.

mod books;
mod exited;

use std::collections::VecDeque;

use hashbrown::{HashMap, hash_map::Entry};

use self::exited::Exits;
use crate::{
    CgroupId,
    account::{Accounts, Numbers, Room, Told},
    log::warn,
    record::{GroupEnd, Memcg, VictimRecord},
};

/// How many processes are remembered to fold their other threads' marks into one kill.
const MAX_REMEMBERED: usize = 16_384;

/// Ledgers of memory cgroups of a v1 hierarchy; as many as the kernel side keeps last counts of.
const MAX_V1_LEDGERS: usize = 1024;

/// What one mark turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A kill. `counted` tells whether a counter confirmed it; without one it is the
    /// tracepoint's word alone.
    Kill { counted: bool },
    /// The task was dying already: reported once a process, never counted.
    AlreadyExiting,
    /// Another thread of a process that was reported before.
    SameProcess,
}

/// What the counters in a record's chain mean on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// Each cgroup's counter includes its descendants'.
    Hierarchical,
    /// Only the counter of the victim's own memory cgroup moves (`memory_localevents`).
    Local,
    /// As `Local`, and the cgroups are those of a v1 hierarchy, of which nothing is known but
    /// what the records say.
    LocalV1,
}

/// The last known value of one memory cgroup's hierarchical `oom_kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ledger {
    /// Serial of the counters; `None` until a record told it.
    serial: Option<u32>,
    oom_kill: u64,
    /// When the value was true, `CLOCK_BOOTTIME`: marks made earlier are not judged by it.
    as_of_ns: u64,
}

/// Process id and start time: together they are not used twice.
type Process = (u32, Option<u64>);

/// The state machine.
#[derive(Debug)]
pub(crate) struct Reconciler {
    counting: Counting,
    ledgers: HashMap<CgroupId, Ledger>,
    /// Processes that were reported, and whether as killed.
    remembered: HashMap<Process, bool>,
    by_age: VecDeque<Process>,
    recounts: HashMap<CgroupId, u64>,
    /// Double counts of the kernel wherever they were in this run, each once.
    all_recounts: u64,
    accounts: Accounts,
    members: Members,
    /// Processes that told of themselves when they exited.
    exits: Exits,
}

/// How far the group kill under way was seen: calls are numbered from 1.
#[derive(Debug, Default)]
struct Members {
    invocation: u64,
    /// Place of the next mark, if none is lost.
    next_index: u32,
}

impl Members {
    /// How many of `extra` increments before the mark at `index` were the kernel's second count of
    /// the first victim: one at most, and never before the first mark. Where the record before it was
    /// lost, the kernel side has counted it, and the end of the call tells.
    fn recounts(&mut self, invocation: u64, index: u32, extra: u64) -> u64 {
        let is_next = self.invocation == invocation && self.next_index == index;
        *self = Self {
            invocation,
            next_index: index.saturating_add(1),
        };
        if is_next { extra.min(1) } else { 0 }
    }
}

impl Reconciler {
    pub(crate) fn new(counting: Counting) -> Self {
        Self {
            counting,
            ledgers: HashMap::new(),
            remembered: HashMap::new(),
            by_age: VecDeque::new(),
            recounts: HashMap::new(),
            all_recounts: 0,
            accounts: Accounts::default(),
            members: Members::default(),
            exits: Exits::default(),
        }
    }

    /// Compares a container's counter with what was said of it. What is missing is returned once,
    /// and from then on accounted for, in the container and in those above it (`lineage`, itself
    /// first). To be asked from the lowest containers up.
    pub(crate) fn audit(
        &mut self,
        lineage: impl Iterator<Item = CgroupId>,
        cgroup: CgroupId,
        oom_kill: u64,
        serial: Option<u32>,
    ) -> u64 {
        let missing = self.accounts.missing(cgroup, oom_kill, serial);
        if missing > 0 {
            self.accounts
                .enter_missing(lineage, Told::CounterOnly, missing);
        }
        if let Some(ledger) = self.ledgers.get_mut(&cgroup)
            && serial.is_none_or(|serial| ledger.serial == Some(serial))
        {
            ledger.oom_kill = ledger.oom_kill.max(oom_kill);
        }
        missing
    }

    /// Keeps a container's counter for [`Self::audit_noted`].
    pub(crate) fn note_counter(&mut self, cgroup: CgroupId, oom_kill: u64) {
        self.accounts.note(cgroup, oom_kill);
    }

    /// As [`Self::audit`], with the counter that was noted: what was said since is about that, or
    /// later. Returns what is missing, and the counter.
    pub(crate) fn audit_noted(
        &mut self,
        lineage: impl Iterator<Item = CgroupId>,
        cgroup: CgroupId,
    ) -> Option<(u64, u64)> {
        let (missing, oom_kill) = self.accounts.missing_noted(cgroup)?;
        if missing > 0 {
            self.accounts
                .enter_missing(lineage, Told::CounterOnly, missing);
        }
        if let Some(ledger) = self.ledgers.get_mut(&cgroup) {
            ledger.oom_kill = ledger.oom_kill.max(oom_kill);
        }
        Some((missing, oom_kill))
    }

    /// The numbers of all containers in this run, in no order.
    pub(crate) fn numbers_of(&self, cgroup: CgroupId) -> Option<Numbers> {
        self.accounts.numbers_of(cgroup)
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = (CgroupId, Numbers)> {
        self.accounts.numbers()
    }

    /// Double counts of the kernel on the whole node in this run, as far as seen.
    pub(crate) fn all_recounts(&self) -> u64 {
        self.all_recounts
    }

    /// A counter was read from a cgroup's `memory.events`, not before `as_of_ns`. A record's
    /// word is newer and stands: the ring may hold kills that the file already counts.
    pub(crate) fn baseline(&mut self, cgroup: CgroupId, oom_kill: u64, as_of_ns: u64) {
        if self.counting != Counting::LocalV1
            && let Entry::Vacant(unknown) = self.ledgers.entry(cgroup)
        {
            unknown.insert(Ledger {
                serial: None,
                oom_kill,
                as_of_ns,
            });
            if self.accounts.meet_counter(cgroup, oom_kill) {
                warn!(
                    cgroup = cgroup.0,
                    "a counter began again at 0 while no daemon ran"
                );
            }
        }
    }

    /// A cgroup was created: its counters start at 0.
    pub(crate) fn created(&mut self, cgroup: CgroupId, at_ns: u64) {
        self.baseline(cgroup, 0, at_ns);
    }

    /// The last known value of a cgroup's counter.
    pub(crate) fn last_known(&self, cgroup: CgroupId) -> Option<u64> {
        self.ledgers.get(&cgroup).map(|ledger| ledger.oom_kill)
    }

    /// A counter was read, and what it rose by since was told or is past: it is the baseline of a
    /// registration to come. `told` of that was in cgroups below, so it is in those above
    /// (`lineage`, itself first) too.
    pub(crate) fn read(
        &mut self,
        lineage: &[CgroupId],
        oom_kill: u64,
        serial: Option<u32>,
        told: u64,
        as_of_ns: u64,
    ) {
        let Some((&cgroup, above)) = lineage.split_first() else {
            return;
        };
        let known = self.ledgers.get(&cgroup).and_then(|ledger| ledger.serial);
        let seen = Ledger {
            serial: serial.or(known),
            oom_kill,
            as_of_ns,
        };
        let ledger = self.ledgers.entry(cgroup).or_insert(seen);
        // Victims may have told of more since the counter was read.
        if ledger.serial != seen.serial || ledger.oom_kill < oom_kill {
            *ledger = seen;
        }
        for id in above {
            if let Some(ledger) = self.ledgers.get_mut(id) {
                ledger.oom_kill += told;
            }
        }
    }

    /// Takes in double counts of the kernel in a cgroup (`lineage`, itself first).
    pub(crate) fn recounted(&mut self, lineage: &[CgroupId], count: u64) {
        self.all_recounts += count;
        self.accounts.were_recounts(lineage.iter().copied(), count);
        for &cgroup in lineage {
            *self.recounts.entry(cgroup).or_default() += count;
        }
    }

    /// A cgroup is forgotten. Memory cgroups of a v1 hierarchy have numbers of their own, which may be the same.
    pub(crate) fn forget(&mut self, cgroup: CgroupId) {
        if self.counting != Counting::LocalV1 {
            self.ledgers.remove(&cgroup);
            self.recounts.remove(&cgroup);
        }
        self.accounts.close(cgroup);
    }

    /// Nothing tells that a memory cgroup of a v1 hierarchy is gone: the one that was heard of least lately gives
    /// way. Where it lives, the kernel side's word stands in for its ledger.
    fn limit_v1(&mut self) {
        if self.counting != Counting::LocalV1 || self.ledgers.len() <= MAX_V1_LEDGERS {
            return;
        }
        let oldest = self
            .ledgers
            .iter()
            .min_by_key(|(_, ledger)| ledger.as_of_ns);
        if let Some((&oldest, _)) = oldest {
            self.ledgers.remove(&oldest);
            self.recounts.remove(&oldest);
        }
    }

    /// Double counts of the kernel in a cgroup's subtree, as far as seen.
    pub(crate) fn recounts(&self, cgroup: CgroupId) -> u64 {
        self.recounts.get(&cgroup).copied().unwrap_or(0)
    }

    /// Judges one mark.
    pub(crate) fn victim(&mut self, record: &VictimRecord) -> Verdict {
        if record.at_exit {
            // With the counters at hand, a counted kill is found when it is marked: what is
            // left for the exit was dying already. Without them nobody can tell.
            return if record.chain.is_empty() {
                self.accounts.tell_outside(1);
                self.kill(record, false)
            } else {
                self.already_exiting(record)
            };
        }
        let chain = self.meaningful(&record.chain);
        let at_ns = record.boottime_ns;
        // The lowest cgroup with a known past decides: kills elsewhere do not move it.
        let advance = chain.iter().find_map(|memcg| self.advance(memcg, at_ns));
        self.settle(chain, at_ns);
        // The kernel side's word comes first: it saw the marks whose records were lost.
        match record.counted.map_or(advance, |counted| {
            Some(if counted {
                advance.unwrap_or(1).max(1)
            } else {
                0
            })
        }) {
            None => match self.accounts.enter_unjudged(chain) {
                Room::None => self.already_exiting(record),
                Room::Unknown | Room::Entered => {
                    // Its group's further marks, and its end, are judged by this one.
                    if let Some(call) = record.invocation.filter(|call| call.kills_group) {
                        self.members.recounts(call.number, call.index, 0);
                    }
                    self.kill(record, false)
                }
            },
            Some(0) => self.already_exiting(record),
            Some(advance) => {
                let verdict = self.kill(record, true);
                if verdict == Verdict::SameProcess {
                    // This very mark is the second count. What the counter rose beyond it belongs
                    // to marks that were lost.
                    self.add_recounts(chain, 1);
                    return verdict;
                }
                self.accounts.enter(chain, Told::Kill, 1);
                if let Some(call) = record.invocation.filter(|call| call.kills_group) {
                    let extra = self.members.recounts(call.number, call.index, advance - 1);
                    self.add_recounts(chain, extra);
                }
                verdict
            }
        }
    }

    /// The part of a chain whose counters tell of this mark.
    fn meaningful<'a>(&self, chain: &'a [Memcg]) -> &'a [Memcg] {
        match self.counting {
            Counting::Hierarchical => chain,
            Counting::Local | Counting::LocalV1 => chain.get(..1).unwrap_or(chain),
        }
    }

    /// A group kill is over, with the kernel's second counts of its first victim that no mark told
    /// of. They were charged to that victim's memory cgroup and to those above it (`lineage`, itself
    /// first).
    pub(crate) fn group_end(&mut self, end: &GroupEnd, lineage: &[CgroupId]) {
        let Some(first) = end.first else {
            return;
        };
        let extra = end.unseen_recounts;
        let before = self.ledgers.get(&first.cgroup_id).copied();
        self.settle(&[first], end.boottime_ns);
        if extra == 0 {
            return;
        }
        self.all_recounts += extra;
        self.accounts
            .enter_missing(lineage.iter().copied(), Told::Recount, extra);
        for &cgroup in lineage {
            *self.recounts.entry(cgroup).or_default() += extra;
            // The ledgers above moved with it, and the record has only the first one's. Those of which a
            // later mark told may have it.
            if cgroup != first.cgroup_id
                && let (Some(before), Some(oom_kill)) = (before, first.oom_kill)
                && let Some(ledger) = self.ledgers.get_mut(&cgroup)
                && ledger.as_of_ns <= before.as_of_ns
            {
                ledger.oom_kill += extra.min(oom_kill.saturating_sub(before.oom_kill));
            }
        }
    }

    /// How far a cgroup's counter is beyond what is known; `None` where nothing is.
    fn advance(&self, memcg: &Memcg, at_ns: u64) -> Option<u64> {
        let ledger = self
            .ledgers
            .get(&memcg.cgroup_id)
            .filter(|ledger| ledger.as_of_ns <= at_ns)?;
        let now = memcg.oom_kill?;
        let started_again =
            ledger.serial.is_some_and(|serial| serial != memcg.serial) || now < ledger.oom_kill;
        Some(if started_again {
            now
        } else {
            now - ledger.oom_kill
        })
    }

    fn settle(&mut self, chain: &[Memcg], at_ns: u64) {
        for memcg in chain {
            let Some(oom_kill) = memcg.oom_kill else {
                continue;
            };
            let seen = Ledger {
                serial: Some(memcg.serial),
                oom_kill,
                as_of_ns: at_ns,
            };
            self.ledgers
                .entry(memcg.cgroup_id)
                .and_modify(|ledger| {
                    if ledger.as_of_ns <= at_ns {
                        *ledger = seen;
                    }
                })
                .or_insert(seen);
        }
        self.limit_v1();
    }

    /// The kernel counted a kill again, in all of a chain.
    fn add_recounts(&mut self, chain: &[Memcg], extra: u64) {
        if extra == 0 {
            return;
        }
        self.all_recounts += extra;
        self.accounts.enter(chain, Told::Recount, extra);
        for memcg in chain {
            *self.recounts.entry(memcg.cgroup_id).or_default() += extra;
        }
    }

    /// A kill, unless its process was reported as one before.
    fn kill(&mut self, record: &VictimRecord, counted: bool) -> Verdict {
        match self.remember(record, true) {
            Some(true) => Verdict::SameProcess,
            // It was dying, and has been killed for good since.
            Some(false) | None => Verdict::Kill { counted },
        }
    }

    fn already_exiting(&mut self, record: &VictimRecord) -> Verdict {
        match self.remember(record, false) {
            Some(_) => Verdict::SameProcess,
            None => Verdict::AlreadyExiting,
        }
    }

    /// Remembers how a process is reported; returns how it was before.
    fn remember(&mut self, record: &VictimRecord, killed: bool) -> Option<bool> {
        let process = (
            record.victim.pid.unwrap_or(record.victim.tid),
            record.start_boottime_ns,
        );
        if let Some(known) = self.remembered.get_mut(&process) {
            return Some(std::mem::replace(known, *known || killed));
        }
        self.remembered.insert(process, killed);
        self.by_age.push_back(process);
        if self.by_age.len() > MAX_REMEMBERED
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.remembered.remove(&oldest);
        }
        None
    }
}

#[cfg(test)]
mod tests;
