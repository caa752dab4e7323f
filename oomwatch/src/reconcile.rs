//! Reconciliation: which marks were kills, and which of them are new.
//!
//! The kernel counts a kill, sends SIGKILL and marks the task, in this order and under `oom_lock`. A task that
//! was dying already is marked without the other two, so the signal tells them apart. The counter says whether
//! the mark was reported before, and what was lost before it: see [`Ledgers`].
//!
//! A pure state machine: records in, verdicts out. Reads no file.

mod exited;

use std::collections::VecDeque;

use hashbrown::HashMap;

use self::exited::Exits;
use crate::{
    id::CgroupId,
    ledger::{Counting, Entered, Increment, Ledgers},
    record::{Charged, DoubleCount, VictimRecord},
};

/// How many processes are remembered to fold their other threads' marks into one kill.
const MAX_REMEMBERED: usize = 16_384;

/// What one mark turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A kill. `counted` tells whether a counter confirmed it. Without a counter, the tracepoint is the only
    /// evidence.
    Kill { counted: bool },
    /// The task was dying already: reported once a process, never counted.
    AlreadyExiting,
    /// Another thread of a process that was reported before.
    SameProcess,
    /// An earlier run reported it, or it came from another ring.
    Before,
}

/// A verdict, and how many kills the kernel counted before this mark whose records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) missing: u64,
}

/// Process id and start time: together they are not used twice.
type Process = (u32, Option<u64>);

/// The last records that were judged. The kernel makes marks and double counts under one lock, and removals under
/// another. So marks have one order and removals another, and none between the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UpTo {
    pub(crate) mark_ns: u64,
    pub(crate) removal_ns: u64,
}

impl UpTo {
    fn max(self, other: Self) -> Self {
        Self {
            mark_ns: self.mark_ns.max(other.mark_ns),
            removal_ns: self.removal_ns.max(other.removal_ns),
        }
    }
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Reconciler {
    pub(crate) ledgers: Ledgers,
    /// Processes that were reported, and whether as killed.
    remembered: HashMap<Process, bool>,
    by_age: VecDeque<Process>,
    /// Processes that were recorded when they exited, in tier `pid`.
    exits: Exits,
    judged: UpTo,
    /// Up to here, earlier runs reported everything.
    reported: UpTo,
}

impl Reconciler {
    pub(crate) fn new(counting: Counting) -> Self {
        Self {
            ledgers: Ledgers::new(counting),
            remembered: HashMap::new(),
            by_age: VecDeque::new(),
            exits: Exits::default(),
            judged: UpTo::default(),
            reported: UpTo::default(),
        }
    }

    /// An earlier run has reported everything up to then. That includes marks that no counter tells apart, and marks
    /// in cgroups that are forgotten by now.
    pub(crate) fn reported_up_to(&mut self, reported: UpTo) {
        self.reported = reported;
    }

    /// Everything counted up to this moment is reported by its number.
    pub(crate) fn counted_up_to(&mut self, boottime_ns: u64) {
        self.judged_up_to_time(boottime_ns);
        self.ledgers.counted_elsewhere();
    }

    /// All that was counted up to this moment is reported.
    pub(crate) fn judged_up_to_time(&mut self, boottime_ns: u64) {
        self.judged = self.judged.max(UpTo {
            mark_ns: boottime_ns,
            removal_ns: boottime_ns,
        });
    }

    /// An earlier run has reported this process.
    pub(crate) fn was_reported(&mut self, pid: u32, start_boottime_ns: Option<u64>, killed: bool) {
        self.remember_process((pid, start_boottime_ns), killed);
    }

    /// The last records that were judged, by this run or an earlier one.
    pub(crate) fn judged_up_to(&self) -> UpTo {
        self.judged.max(self.reported)
    }

    /// Judges a removal. Tells whether an earlier run has reported what its counters show, and its ledger is
    /// forgotten.
    pub(crate) fn removal(&mut self, charged: &Charged, boottime_ns: u64) -> bool {
        self.judged.removal_ns = self.judged.removal_ns.max(boottime_ns);
        boottime_ns <= self.reported.removal_ns && !self.ledgers.is_known(charged)
    }

    /// Judges one mark. `lineage` is the memory cgroup that the mark was charged to, with the cgroups above it whose
    /// sums include the mark. `is_new` says that the charged cgroup was created while it was watched.
    pub(crate) fn victim(
        &mut self,
        record: &VictimRecord,
        lineage: &[CgroupId],
        is_new: bool,
    ) -> Judged {
        if !record.at_exit && self.is_forgotten(record.charged.as_ref(), record.boottime_ns) {
            self.remember(record, true);
            return Judged {
                verdict: Verdict::Before,
                missing: 0,
            };
        }
        let is_past = record.boottime_ns <= self.reported.mark_ns;
        self.judged.mark_ns = self.judged.mark_ns.max(record.boottime_ns);
        let Some(charged) = record.charged.filter(|_| !record.at_exit) else {
            return Judged {
                verdict: self.without_counter(record),
                missing: 0,
            };
        };
        let is_counted = record.counted.unwrap_or(true);
        let increment = is_counted.then_some(Increment::Kill);
        let at = (is_new, record.boottime_ns);
        match self.ledgers.mark(&charged, lineage, increment, at) {
            Entered::Before => {
                // Its other threads are not dying by themselves.
                self.remember(record, true);
                Judged {
                    verdict: Verdict::Before,
                    missing: 0,
                }
            }
            Entered::New { missing } => Judged {
                verdict: if is_counted {
                    self.kill(record, true)
                } else if is_past {
                    Verdict::Before
                } else {
                    self.already_exiting(record)
                },
                missing,
            },
        }
    }

    /// Whether an earlier run has reported a mark that no ledger tells apart. Such a mark has no counter, or its
    /// ledger is forgotten, or other counters took the place of its own. On v1 the earlier run may have reported it
    /// by the node's count alone.
    fn is_forgotten(&self, charged: Option<&Charged>, boottime_ns: u64) -> bool {
        let is_v1 = self.ledgers.counting() == Counting::LocalV1;
        let is_known = |charged: &Charged| !is_v1 && self.ledgers.is_known(charged);
        boottime_ns <= self.reported.mark_ns && !charged.is_some_and(is_known)
    }

    /// Judges a kill that no counter shows, or a mark whose signal was not seen. A record made at the exit with a
    /// chain is no kill: a signal would have named its task at the mark.
    fn without_counter(&mut self, record: &VictimRecord) -> Verdict {
        if record.at_exit && !record.chain.is_empty() {
            return self.already_exiting(record);
        }
        if record.counted == Some(false) {
            return self.already_exiting(record);
        }
        let verdict = self.kill(record, false);
        if verdict != Verdict::SameProcess {
            self.ledgers.report_elsewhere(1);
        }
        verdict
    }

    /// The kernel counted a process that it had marked before. Returns how many kills before that were lost.
    ///
    /// A process that was dying at the mark, and is killed for good now, is such a kill: no mark follows.
    pub(crate) fn counted_again(
        &mut self,
        record: &DoubleCount,
        lineage: &[CgroupId],
        is_new: bool,
    ) -> u64 {
        if self.is_forgotten(Some(&record.charged), record.boottime_ns) {
            return 0;
        }
        self.judged.mark_ns = self.judged.mark_ns.max(record.boottime_ns);
        let process = record.pid.map(|pid| (pid, record.start_boottime_ns));
        let was_exiting = process.is_some_and(|process| self.turns_into_kill(process));
        let increment = if was_exiting {
            Increment::CounterOnly
        } else {
            Increment::DoubleCount
        };
        let at = (is_new, record.boottime_ns);
        match self
            .ledgers
            .mark(&record.charged, lineage, Some(increment), at)
        {
            Entered::Before => 0,
            Entered::New { missing } => missing + u64::from(was_exiting),
        }
    }

    /// Whether a process was reported as dying; it counts as killed from now on.
    fn turns_into_kill(&mut self, process: Process) -> bool {
        let known = self.remembered.get_mut(&process);
        known.is_some_and(|killed| !std::mem::replace(killed, true))
    }

    /// A kill, unless its process was reported as one before.
    fn kill(&mut self, record: &VictimRecord, counted: bool) -> Verdict {
        match self.remember(record, true) {
            Some(true) if !counted => Verdict::SameProcess,
            // It was dying, and has been killed for good since.
            Some(_) | None => Verdict::Kill { counted },
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
        let pid = record.victim.pid.unwrap_or(record.victim.tid);
        self.remember_process((pid, record.start_boottime_ns), killed)
    }

    fn remember_process(&mut self, process: Process, killed: bool) -> Option<bool> {
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
