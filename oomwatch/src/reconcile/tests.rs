use super::*;
use crate::record::fixture::{charged, memcg, victim};

const C: u64 = 10;
const POD: u64 = 5;
const COUNTED: Verdict = Verdict::Kill { counted: true };

/// All counters are 0 before the first mark.
fn reconciler() -> Reconciler {
    let mut reconciler = Reconciler::new(Counting::Hierarchical);
    reconciler.ledgers.begin(&[]);
    reconciler
}

fn judge(reconciler: &mut Reconciler, record: &VictimRecord) -> Judged {
    reconciler.victim(record, &[CgroupId(C), CgroupId(POD)], true)
}

/// A mark in the container, whose own counter is `oom_kill`.
fn mark(pid: u32, at_ns: u64, oom_kill: u64) -> VictimRecord {
    victim(pid, at_ns, &[memcg(C, oom_kill), memcg(POD, oom_kill)])
}

fn dying(pid: u32, at_ns: u64, oom_kill: u64) -> VictimRecord {
    VictimRecord {
        counted: Some(false),
        ..mark(pid, at_ns, oom_kill)
    }
}

fn again(pid: u32, at_ns: u64, oom_kill: u64) -> DoubleCount {
    DoubleCount {
        seq: at_ns,
        boottime_ns: at_ns,
        invocation: Some(1),
        pid: Some(pid),
        start_boottime_ns: Some(u64::from(pid)),
        charged: charged(C, oom_kill).unwrap(),
        parent_id: None,
    }
}

fn is(verdict: Verdict, missing: u64) -> Judged {
    Judged { verdict, missing }
}

#[test]
fn a_task_that_was_sent_the_signal_is_a_kill_and_another_was_dying() {
    let mut reconciler = reconciler();
    assert_eq!(judge(&mut reconciler, &mark(1, 1, 1)), is(COUNTED, 0));
    let dying = judge(&mut reconciler, &dying(2, 2, 1));
    assert_eq!(dying, is(Verdict::AlreadyExiting, 0));
    assert_eq!(reconciler.ledgers.sum(CgroupId(POD)), 1);
}

#[test]
fn threads_of_one_process_are_one_kill() {
    let mut reconciler = reconciler();
    assert_eq!(judge(&mut reconciler, &mark(1, 1, 1)), is(COUNTED, 0));
    for at_ns in 2..5 {
        let mut thread = dying(1, at_ns, 1);
        thread.victim.tid = 100 + at_ns as u32;
        let judged = judge(&mut reconciler, &thread);
        assert_eq!(judged, is(Verdict::SameProcess, 0));
    }
}

#[test]
fn a_process_id_used_again_is_another_process() {
    let mut reconciler = reconciler();
    assert_eq!(judge(&mut reconciler, &mark(1, 1, 1)), is(COUNTED, 0));
    let mut other = mark(1, 2, 2);
    other.start_boottime_ns = Some(77);
    assert_eq!(judge(&mut reconciler, &other), is(COUNTED, 0));
}

#[test]
fn a_jump_is_what_was_lost() {
    let mut reconciler = reconciler();
    assert_eq!(judge(&mut reconciler, &mark(1, 1, 4)), is(COUNTED, 3));
    let dying = judge(&mut reconciler, &dying(2, 2, 6));
    assert_eq!(dying, is(Verdict::AlreadyExiting, 2));
    assert_eq!(reconciler.ledgers.reported(), 6);
}

/// Another run reported it, or another ring has it too. Its threads are not dying by themselves either.
#[test]
fn a_record_that_is_not_beyond_the_counter_was_reported() {
    let mut reconciler = reconciler();
    assert_eq!(judge(&mut reconciler, &mark(1, 1, 2)), is(COUNTED, 1));
    assert_eq!(
        judge(&mut reconciler, &mark(7, 0, 1)),
        is(Verdict::Before, 0)
    );
    let thread = judge(&mut reconciler, &dying(7, 3, 2));
    assert_eq!(thread, is(Verdict::SameProcess, 0));
    assert_eq!(reconciler.ledgers.reported(), 2);
}

#[test]
fn a_process_that_is_counted_again_is_a_double_count() {
    let mut reconciler = reconciler();
    judge(&mut reconciler, &mark(1, 1, 1));
    let lineage = [CgroupId(C), CgroupId(POD)];
    assert_eq!(reconciler.counted_again(&again(1, 2, 2), &lineage, true), 0);
    assert_eq!(reconciler.ledgers.double_counts(), 1);
    assert_eq!(reconciler.ledgers.double_counts_of(CgroupId(POD)), 1);
    assert_eq!(judge(&mut reconciler, &mark(2, 3, 3)), is(COUNTED, 0));
    // What a second ring has of it, was reported.
    assert_eq!(reconciler.counted_again(&again(1, 2, 2), &lineage, true), 0);
    assert_eq!(reconciler.ledgers.double_counts(), 1);
}

/// Two generations of programs see one mark, while one takes over from the other.
#[test]
fn a_mark_that_two_rings_have_is_reported_once() {
    let without_counter = |pid| VictimRecord {
        counted: None,
        ..victim(pid, 1, &[])
    };
    for record in [mark(1, 1, 1), dying(2, 1, 0), without_counter(3)] {
        let mut reconciler = reconciler();
        judge(&mut reconciler, &record);
        let reported = reconciler.ledgers.reported();
        let again = judge(&mut reconciler, &record);
        let was_reported = matches!(again.verdict, Verdict::Before | Verdict::SameProcess);
        assert!(was_reported && again.missing == 0, "{record:?}: {again:?}");
        assert_eq!(reconciler.ledgers.reported(), reported);
    }
}

/// The run before ended between the two rings.
#[test]
fn a_mark_that_an_earlier_run_reported_without_a_counter_is_not_reported_again() {
    let mut reconciler = reconciler();
    reconciler.reported_up_to(UpTo {
        mark_ns: 5,
        removal_ns: 0,
    });
    for (at_ns, verdict) in [(5, Verdict::Before), (6, Verdict::Kill { counted: false })] {
        let record = VictimRecord {
            counted: None,
            ..victim(at_ns as u32, at_ns, &[])
        };
        assert_eq!(judge(&mut reconciler, &record), is(verdict, 0));
    }
}

/// The ledger was one ahead where two rings had the end of one group kill: a loss after it was hidden.
#[test]
fn two_rings_that_have_one_double_count_hide_no_loss() {
    let mut reconciler = reconciler();
    let lineage = [CgroupId(C), CgroupId(POD)];
    judge(&mut reconciler, &mark(1, 1, 1));
    reconciler.counted_again(&again(1, 2, 2), &lineage, true);
    reconciler.counted_again(&again(1, 2, 2), &lineage, true);
    assert_eq!(judge(&mut reconciler, &dying(9, 4, 3)).missing, 1);
}

#[test]
fn a_dying_process_that_is_killed_after_all_is_a_kill_that_no_mark_tells_of() {
    let mut reconciler = reconciler();
    let lineage = [CgroupId(C), CgroupId(POD)];
    judge(&mut reconciler, &dying(1, 1, 0));
    assert_eq!(reconciler.counted_again(&again(1, 2, 1), &lineage, true), 1);
    assert_eq!(reconciler.counted_again(&again(1, 3, 2), &lineage, true), 0);
    assert_eq!(reconciler.ledgers.double_counts(), 1);
}

#[test]
fn without_any_past_the_first_mark_is_where_a_ledger_begins() {
    let mut reconciler = Reconciler::new(Counting::LocalV1);
    let lineage = [CgroupId(C)];
    let first = reconciler.victim(&mark(1, 1, 41), &lineage, false);
    assert_eq!(first, is(COUNTED, 0));
    let second = reconciler.victim(&mark(2, 2, 43), &lineage, false);
    assert_eq!(second, is(COUNTED, 1));
}

#[test]
fn without_counters_the_tracepoint_stands_alone() {
    let mut reconciler = reconciler();
    let record = VictimRecord {
        counted: None,
        ..victim(1, 1, &[])
    };
    let verdict = Verdict::Kill { counted: false };
    assert_eq!(reconciler.victim(&record, &[], true), is(verdict, 0));
    assert_eq!(reconciler.ledgers.reported(), 1);
}

#[test]
fn a_victim_found_at_its_exit_was_dying_where_counters_are_known() {
    let mut reconciler = reconciler();
    let late = VictimRecord {
        at_exit: true,
        ..mark(1, 1, 3)
    };
    let judged = judge(&mut reconciler, &late);
    assert_eq!(judged, is(Verdict::AlreadyExiting, 0));
    assert_eq!(reconciler.ledgers.reported(), 0);
}

#[test]
fn remembered_processes_are_bounded() {
    let mut reconciler = reconciler();
    for pid in 0..MAX_REMEMBERED as u32 + 9 {
        judge(
            &mut reconciler,
            &mark(pid, u64::from(pid), u64::from(pid) + 1),
        );
    }
    assert_eq!(reconciler.remembered.len(), MAX_REMEMBERED);
    assert_eq!(reconciler.by_age.len(), MAX_REMEMBERED);
}

/// Found from outside: a run without the pinned ring reported kills by the node's count. The next run reported the
/// ring's marks of them again.
#[test]
fn of_v1_a_mark_of_the_past_was_reported_whatever_its_ledger_says() {
    let mut reconciler = Reconciler::new(Counting::LocalV1);
    let lineage = [CgroupId(C)];
    reconciler.victim(&mark(1, 1, 2), &lineage, false);
    reconciler.reported_up_to(UpTo {
        mark_ns: 8,
        removal_ns: 0,
    });
    let of_the_past = reconciler.victim(&mark(2, 7, 3), &lineage, false);
    assert_eq!(of_the_past, is(Verdict::Before, 0));
    let new = reconciler.victim(&mark(3, 9, 8), &lineage, false);
    assert_eq!(new.verdict, COUNTED);
}

/// Found from outside: a pinned ring was full, and the node's count reported what was lost. The next mark reported it
/// again.
#[test]
fn of_v1_what_the_nodes_count_told_of_is_not_missing_later() {
    let mut reconciler = Reconciler::new(Counting::LocalV1);
    let lineage = [CgroupId(C)];
    reconciler.victim(&mark(1, 1, 4), &lineage, false);
    reconciler.counted_up_to(5);
    let next = reconciler.victim(&mark(2, 6, 41), &lineage, false);
    assert_eq!(next, is(COUNTED, 0));
    let gap = reconciler.victim(&mark(3, 7, 43), &lineage, false);
    assert_eq!(gap, is(COUNTED, 1), "and from then on all counts");
}

/// Found from outside: another thread of a killed process was marked after a restart, and the process was reported
/// again as dying.
#[test]
fn a_thread_of_a_process_that_an_earlier_run_reported_is_no_news() {
    let mut reconciler = reconciler();
    let thread = dying(7, 3, 0);
    reconciler.was_reported(7, thread.start_boottime_ns, true);
    assert_eq!(judge(&mut reconciler, &thread), is(Verdict::SameProcess, 0));
}

/// Found by the model: the counts of a forgotten cgroup were reported again by its removal. That removal was in a
/// ring that was left unread for long.
#[test]
fn a_removal_that_an_earlier_run_judged_is_told_apart() {
    let mut reconciler = reconciler();
    reconciler.reported_up_to(UpTo {
        mark_ns: 0,
        removal_ns: 8,
    });
    let charged = charged(C, 3).unwrap();
    assert!(reconciler.removal(&charged, 8));
    assert!(!reconciler.removal(&charged, 9));
    assert_eq!(reconciler.judged_up_to().removal_ns, 9);
}
