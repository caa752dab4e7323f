use super::*;
use crate::record::{
    Invocation,
    fixture::{memcg, victim},
};

const C: u64 = 10;
const POD: u64 = 5;
const COUNTED: Verdict = Verdict::Kill { counted: true };

fn audit(reconciler: &mut Reconciler, cgroup: u64, oom_kill: u64) -> u64 {
    let lineage = [CgroupId(C), CgroupId(POD)];
    let above = lineage.into_iter().skip_while(|id| id.0 != cgroup);
    reconciler.note_counter(CgroupId(cgroup), oom_kill);
    reconciler
        .audit_noted(above, CgroupId(cgroup))
        .map_or(0, |(missing, _)| missing)
}

/// The ring was full: two kills of three were never seen.
#[test]
fn what_only_the_counter_tells_is_told_once() {
    let mut reconciler = watching_c();
    reconciler.open_account(CgroupId(C), None, 0);
    reconciler.open_account(CgroupId(POD), None, 0);
    reconciler.victim(&victim(1, 1, &[memcg(C, 3), memcg(POD, 3)]));
    assert_eq!(audit(&mut reconciler, C, 3), 2);
    assert_eq!(audit(&mut reconciler, POD, 3), 0);
    assert_eq!(audit(&mut reconciler, C, 3), 0);
}

#[test]
fn recounts_are_never_missing() {
    let mut reconciler = watching_c();
    reconciler.open_account(CgroupId(C), None, 0);
    for (index, (pid, counter)) in [(1, 1), (2, 3), (3, 4)].into_iter().enumerate() {
        let mark = victim(
            pid,
            u64::from(pid),
            &[memcg(C, counter), memcg(POD, counter)],
        );
        reconciler.victim(&in_group(mark, 7, index as u32));
    }
    assert_eq!(audit(&mut reconciler, C, 4), 0);
}

#[test]
fn kills_before_the_registration_are_not_missing() {
    let mut reconciler = watching_c();
    reconciler.victim(&victim(1, 1, &[memcg(C, 1), memcg(POD, 1)]));
    reconciler.open_account(CgroupId(C), None, 0);
    reconciler.victim(&victim(2, 2, &[memcg(C, 2), memcg(POD, 2)]));
    assert_eq!(audit(&mut reconciler, C, 2), 0);
}

fn watching_c() -> Reconciler {
    let mut reconciler = Reconciler::new(Counting::Hierarchical);
    reconciler.baseline(CgroupId(C), 0, 0);
    reconciler.baseline(CgroupId(POD), 0, 0);
    reconciler
}

fn in_group(mut record: VictimRecord, invocation: u64, index: u32) -> VictimRecord {
    record.invocation = Some(Invocation {
        number: invocation,
        index,
        kills_group: true,
    });
    record
}

#[test]
fn a_counter_that_advanced_is_a_kill() {
    let mut reconciler = watching_c();
    let first = victim(1, 1, &[memcg(C, 1), memcg(POD, 1)]);
    let second = victim(2, 2, &[memcg(C, 2), memcg(POD, 2)]);
    assert_eq!(reconciler.victim(&first), COUNTED);
    assert_eq!(reconciler.victim(&second), COUNTED);
}

/// S5b, S13: the task was dying already.
#[test]
fn a_counter_that_stood_still_is_no_kill() {
    let mut reconciler = watching_c();
    let dying = victim(1, 1, &[memcg(C, 0), memcg(POD, 0)]);
    assert_eq!(reconciler.victim(&dying), Verdict::AlreadyExiting);
}

/// S5 on 6.16 and later: twelve threads are marked, the counter moves once.
#[test]
fn threads_of_one_process_are_one_kill() {
    let mut reconciler = watching_c();
    let mut marks = (0..12).map(|tid| {
        let mut mark = victim(1, 1 + u64::from(tid), &[memcg(C, 1)]);
        mark.victim.tid = tid;
        mark
    });
    assert_eq!(reconciler.victim(&marks.next().unwrap()), COUNTED);
    for mark in marks {
        assert_eq!(reconciler.victim(&mark), Verdict::SameProcess);
    }
}

#[test]
fn a_process_id_used_again_is_another_process() {
    let mut reconciler = watching_c();
    assert_eq!(reconciler.victim(&victim(1, 1, &[memcg(C, 1)])), COUNTED);
    let mut reused = victim(1, 2, &[memcg(C, 2)]);
    reused.start_boottime_ns = Some(777);
    assert_eq!(reconciler.victim(&reused), COUNTED);
}

/// S3: three processes, `oom_kill` 4; facts: local 1, 3, 4.
#[test]
fn a_group_kill_counts_its_first_victim_twice() {
    let mut reconciler = watching_c();
    for (index, (pid, counter)) in [(1, 1), (2, 3), (3, 4)].into_iter().enumerate() {
        let mark = victim(
            pid,
            u64::from(pid),
            &[memcg(C, counter), memcg(POD, counter)],
        );
        assert_eq!(reconciler.victim(&in_group(mark, 7, index as u32)), COUNTED);
    }
    assert_eq!(reconciler.recounts(CgroupId(C)), 1);
    assert_eq!(reconciler.recounts(CgroupId(POD)), 1);
}

/// S2: a group of one process, `oom_kill` 2, and only the end of the group tells.
#[test]
fn a_recount_after_the_last_mark_is_seen_at_the_end() {
    let mut reconciler = watching_c();
    let mark = in_group(victim(1, 1, &[memcg(C, 1)]), 7, 0);
    assert_eq!(reconciler.victim(&mark), COUNTED);
    reconciler.group_end(
        &GroupEnd {
            seq: 2,
            boottime_ns: 2,
            invocation: 7,
            marks: 1,
            unseen_recounts: 1,
            first: Some(memcg(C, 2)),
        },
        &[CgroupId(C), CgroupId(POD)],
    );
    assert_eq!(reconciler.recounts(CgroupId(POD)), 1);
    assert_eq!(reconciler.recounts(CgroupId(C)), 1);
    // The next kill is one, not two.
    assert_eq!(reconciler.victim(&victim(2, 3, &[memcg(C, 3)])), COUNTED);
    assert_eq!(reconciler.recounts(CgroupId(C)), 1);
}

/// Seen on 6.1 to 7.3: the leader loses its mm during the walk, and the kernel kills and counts
/// another thread of the same process.
#[test]
fn a_process_counted_again_is_a_recount() {
    let mut reconciler = watching_c();
    let leader = in_group(victim(1, 1, &[memcg(C, 1)]), 7, 0);
    assert_eq!(reconciler.victim(&leader), COUNTED);
    let mut thread = in_group(victim(1, 2, &[memcg(C, 2)]), 7, 1);
    thread.victim.tid = 11;
    assert_eq!(reconciler.victim(&thread), Verdict::SameProcess);
    assert_eq!(reconciler.recounts(CgroupId(C)), 1);
    let next = in_group(victim(2, 3, &[memcg(C, 3)]), 7, 2);
    assert_eq!(reconciler.victim(&next), COUNTED);
    assert_eq!(reconciler.recounts(CgroupId(C)), 1);
}

/// The second count was taken for all that the counter had risen by, and the two kills whose records
/// were lost before it were told twice: as recounts, and as missing.
#[test]
fn a_second_count_does_not_swallow_kills_that_were_lost() {
    let mut reconciler = watching_c();
    reconciler.open_account(CgroupId(C), None, 0);
    assert_eq!(reconciler.victim(&victim(1, 1, &[memcg(C, 1)])), COUNTED);
    let mut thread = victim(1, 2, &[memcg(C, 4)]);
    thread.victim.tid = 11;
    assert_eq!(reconciler.victim(&thread), Verdict::SameProcess);
    assert_eq!(reconciler.recounts(CgroupId(C)), 1);
    assert_eq!(audit(&mut reconciler, C, 4), 2);
    let (_, numbers) = reconciler.numbers().next().unwrap();
    assert_eq!(numbers.residual(), 0, "{numbers:?}");
}

#[test]
fn a_dying_process_that_is_killed_after_all_is_a_kill() {
    let mut reconciler = watching_c();
    assert_eq!(
        reconciler.victim(&victim(1, 1, &[memcg(C, 0)])),
        Verdict::AlreadyExiting
    );
    assert_eq!(reconciler.victim(&victim(1, 2, &[memcg(C, 1)])), COUNTED);
    assert_eq!(
        reconciler.victim(&victim(1, 3, &[memcg(C, 1)])),
        Verdict::SameProcess
    );
}

/// Seen on a hybrid host: v1 raises the victim's own cgroup only, so its ancestors stand still.
#[test]
fn where_only_the_own_counter_moves_ancestors_do_not_decide() {
    for counting in [Counting::Local, Counting::LocalV1] {
        let mut reconciler = Reconciler::new(counting);
        let first = victim(1, 1, &[memcg(C, 1), memcg(POD, 0)]);
        assert_eq!(reconciler.victim(&first), Verdict::Kill { counted: false });
        let elsewhere = victim(2, 2, &[memcg(11, 1), memcg(POD, 0)]);
        assert_eq!(
            reconciler.victim(&elsewhere),
            Verdict::Kill { counted: false }
        );
        let again = victim(3, 3, &[memcg(C, 2), memcg(POD, 0)]);
        assert_eq!(reconciler.victim(&again), COUNTED);
    }
}

/// Ids of v1 and v2 cgroups collide.
#[test]
fn v2_cgroups_are_no_past_for_v1_counters() {
    let mut reconciler = Reconciler::new(Counting::LocalV1);
    reconciler.created(CgroupId(C), 0);
    let first = victim(1, 1, &[memcg(C, 0)]);
    assert_eq!(reconciler.victim(&first), Verdict::Kill { counted: false });
}

/// S12: the controller was switched off and on, and counts from 0 again.
#[test]
fn counters_that_start_again_are_no_standstill() {
    let mut reconciler = watching_c();
    assert_eq!(reconciler.victim(&victim(1, 1, &[memcg(C, 1)])), COUNTED);
    let mut again = memcg(C, 1);
    again.serial = 2;
    assert_eq!(reconciler.victim(&victim(2, 2, &[again])), COUNTED);
}

#[test]
fn without_any_past_the_tracepoint_stands_alone() {
    let mut reconciler = Reconciler::new(Counting::Hierarchical);
    let mark = victim(1, 1, &[memcg(C, 3)]);
    assert_eq!(reconciler.victim(&mark), Verdict::Kill { counted: false });
    // From then on there is a past.
    let dying = victim(2, 2, &[memcg(C, 3)]);
    assert_eq!(reconciler.victim(&dying), Verdict::AlreadyExiting);
}

/// S8 and unknown sub-cgroups: an ancestor's counter decides where the own one has no past.
#[test]
fn an_ancestors_counter_decides_for_an_unknown_cgroup() {
    let mut reconciler = Reconciler::new(Counting::Hierarchical);
    reconciler.baseline(CgroupId(POD), 4, 0);
    let dying = victim(1, 1, &[memcg(C, 3), memcg(POD, 4)]);
    assert_eq!(reconciler.victim(&dying), Verdict::AlreadyExiting);
    let killed = victim(2, 2, &[memcg(C, 4), memcg(POD, 5)]);
    assert_eq!(reconciler.victim(&killed), COUNTED);
}

/// The ring held a kill that the file read afterwards counts already.
#[test]
fn a_mark_older_than_the_baseline_is_not_judged_by_it() {
    let mut reconciler = Reconciler::new(Counting::Hierarchical);
    reconciler.baseline(CgroupId(C), 1, 100);
    let before = victim(1, 50, &[memcg(C, 1)]);
    assert_eq!(reconciler.victim(&before), Verdict::Kill { counted: false });
    let after = victim(2, 150, &[memcg(C, 2)]);
    assert_eq!(reconciler.victim(&after), COUNTED);
}

#[test]
fn a_victim_found_at_its_exit_was_dying_where_counters_are_known() {
    let mut reconciler = watching_c();
    let mut late = victim(1, 1, &[memcg(C, 5)]);
    late.at_exit = true;
    assert_eq!(reconciler.victim(&late), Verdict::AlreadyExiting);
    let mut blind = victim(2, 2, &[]);
    blind.at_exit = true;
    assert_eq!(reconciler.victim(&blind), Verdict::Kill { counted: false });
}

#[test]
fn remembered_processes_are_bounded() {
    let mut reconciler = watching_c();
    for pid in 0..MAX_REMEMBERED as u32 + 10 {
        reconciler.victim(&victim(
            pid,
            1 + u64::from(pid),
            &[memcg(C, 1 + u64::from(pid))],
        ));
    }
    assert_eq!(reconciler.remembered.len(), MAX_REMEMBERED);
    assert_eq!(reconciler.by_age.len(), MAX_REMEMBERED);
}

/// Numbers of cgroups of one hierarchy were forgotten in the other: those of a v1 hierarchy stayed for ever, and one
/// that happened to have the number of a v2 cgroup that went was forgotten with it.
#[test]
fn ledgers_of_a_v1_hierarchy_are_bounded_and_their_own() {
    let mut reconciler = Reconciler::new(Counting::LocalV1);
    let last = 5 * MAX_V1_LEDGERS as u64;
    for number in 1..=last {
        let id = 500_000 + number;
        reconciler.victim(&victim(
            u32::try_from(number).unwrap(),
            number,
            &[memcg(id, 1)],
        ));
        reconciler.forget(CgroupId(id));
    }
    assert_eq!(reconciler.ledgers.len(), MAX_V1_LEDGERS);
    assert!(
        reconciler.last_known(CgroupId(500_000 + last)).is_some(),
        "the latest is there"
    );
    assert!(reconciler.last_known(CgroupId(500_001)).is_none());
}
