//! Judges victims that are recorded when they exit, where the mark carried no counter. The evidence is a counter that
//! was read after the mark.
//!
//! The kernel raises the counter before the mark. If the counter rose by more than was reported, one increment is
//! this victim's. If it did not, the task was dying already.

use std::collections::HashMap;

use super::{Reconciler, Verdict};
use crate::{id::CgroupId, ledger::Increment, record::VictimRecord};

/// Threads of one process are marked and exit within 60 s; after that the id may be another process's.
const SAME_PROCESS_NS: u64 = 60_000_000_000;
/// Beyond this the old ones are forgotten.
const MAX_EXITS: usize = 1024;

/// When a process was marked, and whether it was reported as killed, by process id.
pub(super) type Exits = HashMap<u32, (u64, bool)>;

impl Reconciler {
    /// Judges a victim by the `counter` of the cgroup that its kill was charged to (`lineage`,
    /// itself first); without one nobody can tell.
    pub(crate) fn exited(
        &mut self,
        record: &VictimRecord,
        lineage: &[CgroupId],
        counter: Option<u64>,
    ) -> Verdict {
        let pid = record.victim.pid.unwrap_or(record.victim.tid);
        let before = self
            .exits
            .get(&pid)
            .copied()
            .filter(|(at_ns, _)| record.boottime_ns.abs_diff(*at_ns) < SAME_PROCESS_NS);
        if let Some((_, true)) = before {
            return Verdict::SameProcess;
        }
        let counted = lineage
            .first()
            .zip(counter)
            .map(|(&cgroup, oom_kill)| self.ledgers.beyond(cgroup, oom_kill) > 0);
        self.remember_exit(pid, record.boottime_ns, counted != Some(false));
        if counted == Some(false) {
            return match before {
                Some(_) => Verdict::SameProcess,
                None => Verdict::AlreadyExiting,
            };
        }
        self.ledgers.enter(lineage, 1, Some(Increment::Kill));
        Verdict::Kill {
            counted: counted.is_some(),
        }
    }

    fn remember_exit(&mut self, pid: u32, at_ns: u64, killed: bool) {
        if self.exits.len() >= MAX_EXITS {
            self.exits
                .retain(|_, (then_ns, _)| at_ns.abs_diff(*then_ns) < SAME_PROCESS_NS);
        }
        self.exits.insert(pid, (at_ns, killed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::Css,
        ledger::{Counting, Reading},
        record::fixture::victim,
    };

    const C: CgroupId = CgroupId(10);
    const POD: CgroupId = CgroupId(5);
    const KILL: Verdict = Verdict::Kill { counted: true };

    fn reconciler() -> Reconciler {
        let mut reconciler = Reconciler::new(Counting::Hierarchical);
        let reading = |cgroup_id, parent, own, children| Reading {
            parent,
            children,
            ..Reading::of(cgroup_id, Css::default(), own, Some(3))
        };
        reconciler.ledgers.begin(&[
            reading(POD, None, 0, vec![(C, 3)]),
            reading(C, Some(POD), 3, Vec::new()),
        ]);
        reconciler
    }

    fn unexplained(reconciler: &mut Reconciler, cgroup: CgroupId, oom_kill: u64) -> u64 {
        reconciler.ledgers.beyond(cgroup, oom_kill)
    }

    fn exit(reconciler: &mut Reconciler, pid: u32, at_ns: u64, oom_kill: u64) -> Verdict {
        let record = victim(pid, at_ns, &[]);
        reconciler.exited(&record, &[C, POD], Some(oom_kill))
    }

    #[test]
    fn two_killed_before_the_first_exits_are_two() {
        let mut reconciler = reconciler();
        assert_eq!(exit(&mut reconciler, 1, 10, 5), KILL);
        assert_eq!(exit(&mut reconciler, 2, 11, 5), KILL);
        assert_eq!(unexplained(&mut reconciler, C, 5), 0);
        assert_eq!(unexplained(&mut reconciler, POD, 5), 0);
    }

    #[test]
    fn one_that_the_counter_does_not_know_was_dying_already() {
        let mut reconciler = reconciler();
        assert_eq!(exit(&mut reconciler, 1, 10, 3), Verdict::AlreadyExiting);
        assert_eq!(exit(&mut reconciler, 1, 11, 3), Verdict::SameProcess);
        // And was killed for good after that.
        assert_eq!(exit(&mut reconciler, 1, 12, 4), KILL);
    }

    #[test]
    fn threads_of_one_process_are_one_kill() {
        let mut reconciler = reconciler();
        assert_eq!(exit(&mut reconciler, 1, 10, 5), KILL);
        assert_eq!(exit(&mut reconciler, 1, 11, 5), Verdict::SameProcess);
        assert_eq!(unexplained(&mut reconciler, C, 5), 1);
    }

    #[test]
    fn an_id_that_was_used_again_is_another_process() {
        let mut reconciler = reconciler();
        assert_eq!(exit(&mut reconciler, 1, 10, 4), KILL);
        assert_eq!(exit(&mut reconciler, 1, 10 + SAME_PROCESS_NS, 5), KILL);
    }

    #[test]
    fn without_a_counter_it_is_the_tracepoints_word() {
        let mut reconciler = reconciler();
        let record = victim(1, 10, &[]);
        let verdict = reconciler.exited(&record, &[C, POD], None);
        assert_eq!(verdict, Verdict::Kill { counted: false });
        // An increment that the parent's counter shows later is this kill.
        assert_eq!(unexplained(&mut reconciler, C, 4), 0);
    }
}
