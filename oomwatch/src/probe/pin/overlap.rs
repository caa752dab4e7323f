//! Marks that two generations of programs saw: new ones are attached before old ones are detached,
//! so that between them nothing is missed.

use std::collections::HashSet;

use crate::{CgroupId, record::VictimRecord};

/// A mark: the thread, and the counter that its kill moved or did not move.
type Mark = (u32, Option<(CgroupId, Option<u64>)>);

/// After this the newest generation tells nothing that others saw.
const OVERLAP_NS: u64 = 10_000_000_000;

/// The marks of the generations read so far.
#[derive(Debug, Default)]
pub(crate) struct Overlap {
    marks: HashSet<Mark>,
    newest_ns: u64,
}

impl Overlap {
    /// Takes in a mark of an older generation; tells whether another one had it already.
    pub(crate) fn is_repeated(&mut self, victim: &VictimRecord) -> bool {
        self.newest_ns = self.newest_ns.max(victim.boottime_ns);
        !self.marks.insert(mark(victim))
    }

    /// Whether an older generation told of this mark of the newest one.
    pub(crate) fn told(&mut self, victim: &VictimRecord) -> bool {
        if victim.boottime_ns.saturating_sub(self.newest_ns) > OVERLAP_NS {
            self.marks = HashSet::new();
        }
        self.marks.remove(&mark(victim))
    }
}

fn mark(victim: &VictimRecord) -> Mark {
    let owner = victim.chain.first();
    (
        victim.victim.tid,
        owner.map(|memcg| (memcg.cgroup_id, memcg.oom_kill)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture::{memcg, victim};

    #[test]
    fn a_mark_that_both_saw_is_told_once() {
        let mut overlap = Overlap::default();
        assert!(!overlap.is_repeated(&victim(1, 10, &[memcg(5, 1)])));
        assert!(!overlap.is_repeated(&victim(2, 11, &[memcg(5, 2)])));
        // The programs look at the clock one after the other.
        assert!(overlap.told(&victim(2, 12, &[memcg(5, 2)])));
        assert!(!overlap.told(&victim(3, 13, &[memcg(5, 3)])));
    }

    #[test]
    fn a_thread_id_that_was_used_again_is_another_mark() {
        let mut overlap = Overlap::default();
        overlap.is_repeated(&victim(1, 10, &[memcg(5, 1)]));
        assert!(!overlap.told(&victim(1, 20, &[memcg(5, 2)])));
    }

    #[test]
    fn what_is_much_later_is_not_held_against_it() {
        let mut overlap = Overlap::default();
        overlap.is_repeated(&victim(1, 10, &[memcg(5, 1)]));
        assert!(!overlap.told(&victim(1, 11 + OVERLAP_NS, &[memcg(5, 1)])));
    }
}
