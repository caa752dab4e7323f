//! Ledgers by themselves: the faults that led to them, by their names in the list of cases. And each function at its
//! edges.

use super::*;
use crate::id::CgroupId;

const POD: CgroupId = CgroupId(5);
const C: CgroupId = CgroupId(10);
const LINEAGE: [CgroupId; 3] = [C, POD, CgroupId::ROOT];
const KILL: Option<Increment> = Some(Increment::Kill);
const DOUBLE: Option<Increment> = Some(Increment::DoubleCount);
const NEW: Entered = Entered::New { missing: 0 };

fn css(inode: u64) -> Css {
    Css {
        inode: Some(inode),
        serial: None,
    }
}

fn charged(cgroup_id: CgroupId, oom_kill: u64) -> Charged {
    Charged {
        cgroup_id,
        css: css(100),
        oom_kill,
    }
}

/// Ledgers that began when nothing was counted.
fn ledgers() -> Ledgers {
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    ledgers.keep();
    ledgers.begin(&[]);
    ledgers
}

fn mark(ledgers: &mut Ledgers, oom_kill: u64, increment: Option<Increment>) -> Entered {
    let is_new = ledgers.is_past_known();
    let record = charged(C, oom_kill);
    ledgers.mark(&record, &LINEAGE, increment, (is_new, oom_kill))
}

fn reading(own: u64, sum: u64) -> Reading {
    Reading::of(C, css(100), own, Some(sum))
}

fn own(own: u64) -> Missing {
    Missing { own, below: 0 }
}

fn ledger(ledgers: &mut Ledgers, id: CgroupId) -> Ledger {
    let all = ledgers.all();
    all.into_iter().find(|(known, _)| *known == id).unwrap().1
}

fn lineage_of(levels: u64) -> Vec<CgroupId> {
    (0..levels).map(|level| CgroupId(100 - level)).collect()
}

/// `ledger-deep-chain`: a kill below more levels than a record has links was reported a second time at its removal.
#[test]
fn a_kill_deeper_than_any_chain_is_in_all_sums() {
    for levels in [16, 17, 20, 60] {
        let mut ledgers = ledgers();
        let lineage = lineage_of(levels);
        ledgers.mark(&charged(lineage[0], 1), &lineage, KILL, (false, 1));
        for (level, id) in lineage.iter().enumerate() {
            let last = Reading::of(*id, css(100), u64::from(level == 0), Some(1));
            assert_eq!(
                ledgers.compare(&lineage[level..], &last),
                Missing::default()
            );
            ledgers.remove(*id);
        }
        assert_eq!(ledgers.reported(), 1);
    }
}

/// `ledger-deep-outer`: two kills of an inner container were reported once more as the outer one's.
#[test]
fn an_outer_cgroup_has_what_an_inner_one_lost() {
    let mut ledgers = ledgers();
    let lineage = lineage_of(18);
    ledgers.mark(&charged(lineage[0], 1), &lineage, KILL, (false, 1));
    ledgers.mark(&charged(lineage[0], 2), &lineage, KILL, (false, 2));
    let outer = lineage[17];
    assert_eq!(ledgers.sum(outer), 2);
    let last = Reading {
        children: vec![(lineage[16], 2)],
        ..Reading::of(outer, css(1), 0, Some(2))
    };
    assert_eq!(ledgers.compare(&lineage[17..], &last), Missing::default());
    assert_eq!(ledgers.reported(), 2);
}

/// `ledger-two-generations`: a double count that two generations of programs saw hid a lost kill.
#[test]
fn a_second_count_that_two_generations_saw_is_one() {
    let mut ledgers = ledgers();
    assert_eq!(mark(&mut ledgers, 1, KILL), NEW);
    assert_eq!(mark(&mut ledgers, 2, DOUBLE), NEW);
    assert_eq!(mark(&mut ledgers, 1, KILL), Entered::Before);
    assert_eq!(mark(&mut ledgers, 2, DOUBLE), Entered::Before);
    assert_eq!(ledgers.double_counts(), 1);
    assert_eq!(ledgers.compare(&LINEAGE, &reading(3, 3)), own(1));
}

/// `ledger-one-ahead`: a ledger beyond its counter was taken for one whose counter began again, and everything was
/// reported anew.
#[test]
fn a_ledger_beyond_its_counter_tells_nothing() {
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    let kept = Ledger {
        parent: Some(POD),
        css: css(100),
        counter: 101,
        reported: 100,
        double_counts: 1,
        ..Ledger::default()
    };
    ledgers.resume(vec![(C, kept)]);
    ledgers.add_up(|_| true);
    assert_eq!(
        ledgers.compare(&LINEAGE, &reading(100, 100)),
        Missing::default()
    );
    assert_eq!(ledgers.reported(), 0);
}

/// `ledger-audit-in-a-call`: an audit amid a group kill reported the double count, and its record was entered too.
#[test]
fn an_audit_amid_a_group_kill_and_the_second_count_are_one() {
    let mut ledgers = ledgers();
    mark(&mut ledgers, 1, KILL);
    let noted = reading(2, 2);
    // The record comes between the reading and the comparison.
    assert_eq!(mark(&mut ledgers, 2, DOUBLE), NEW);
    assert_eq!(ledgers.compare(&LINEAGE, &noted), Missing::default());
    // Or after the comparison, which reported it by number.
    assert_eq!(ledgers.compare(&LINEAGE, &reading(3, 3)), own(1));
    assert_eq!(mark(&mut ledgers, 3, DOUBLE), Entered::Before);
    let ledger = ledger(&mut ledgers, C);
    assert_eq!(ledger.counter, ledger.reported + ledger.double_counts);
}

/// `ledger-baseline-between`: a kill between the time of a baseline and its reading was reported as a dying task.
#[test]
fn what_was_read_before_the_attach_is_past_and_nothing_else() {
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    ledgers.begin(&[reading(1, 1)]);
    assert_eq!(mark(&mut ledgers, 2, KILL), NEW);
    assert_eq!(
        mark(&mut ledgers, 2, None),
        NEW,
        "of a dying task: nothing is counted"
    );
    assert_eq!(mark(&mut ledgers, 1, KILL), Entered::Before);
    assert_eq!(ledgers.reported(), 1);
}

/// `ledger-v1-forgotten`: ledgers of v1 cgroups stayed forever.
#[test]
fn ledgers_of_a_v1_hierarchy_are_bounded() {
    let mut ledgers = Ledgers::new(Counting::LocalV1);
    for id in 0..3000 {
        let id = CgroupId(500_000 + id);
        ledgers.mark(&charged(id, 1), &[id], KILL, (false, id.0));
    }
    assert_eq!(ledgers.entries.len(), MAX_V1_LEDGERS);
    assert!(
        ledgers.entries.contains_key(&CgroupId(502_999)),
        "the oldest went"
    );
    assert_eq!(ledgers.reported(), 3000);
}

#[test]
fn a_gap_before_a_record_is_missing_and_counts_above() {
    let mut ledgers = ledgers();
    assert_eq!(mark(&mut ledgers, 3, KILL), Entered::New { missing: 2 });
    assert_eq!(ledgers.sum(POD), 3);
    assert_eq!(mark(&mut ledgers, 4, None), Entered::New { missing: 1 });
    assert_eq!(ledgers.reported(), 4);
}

#[test]
fn without_a_past_the_first_record_is_where_a_ledger_begins() {
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    assert!(!ledgers.is_past_known());
    assert_eq!(mark(&mut ledgers, 7, KILL), NEW);
    assert_eq!(ledgers.reported(), 1);
}

#[test]
fn a_jump_in_the_root_is_left_to_the_nodes_count() {
    let mut ledgers = ledgers();
    let root = [CgroupId::ROOT];
    let mut at =
        |oom_kill| ledgers.mark(&charged(CgroupId::ROOT, oom_kill), &root, KILL, (true, 1));
    assert_eq!(at(57), NEW);
    assert_eq!(at(60), NEW);
    assert_eq!(at(60), Entered::Before);
    assert_eq!(ledgers.reported(), 2);
}

#[test]
fn younger_counters_begin_again_and_their_parent_keeps_what_the_older_had() {
    let mut ledgers = ledgers();
    mark(&mut ledgers, 1, KILL);
    mark(&mut ledgers, 2, KILL);
    let younger = Charged {
        css: css(200),
        ..charged(C, 1)
    };
    assert_eq!(ledgers.mark(&younger, &LINEAGE, KILL, (false, 3)), NEW);
    assert_eq!((ledgers.sum(C), ledgers.sum(POD)), (1, 3));
    let last = Reading {
        children: vec![(C, 1)],
        ..Reading::of(POD, css(1), 0, Some(3))
    };
    assert_eq!(ledgers.compare(&LINEAGE[1..], &last), Missing::default());
    // A mark of the older counters, which was still in the ring.
    assert_eq!(mark(&mut ledgers, 3, KILL), NEW);
    assert_eq!((ledgers.sum(C), ledgers.sum(POD)), (1, 4));
}

#[test]
fn what_is_gone_without_a_record_stays_with_its_parent() {
    let mut ledgers = ledgers();
    mark(&mut ledgers, 1, KILL);
    ledgers.remove(C);
    ledgers.remove(C);
    let alone = Reading::of(POD, css(1), 0, Some(2));
    assert_eq!(
        ledgers.compare(&LINEAGE[1..], &alone),
        Missing { own: 0, below: 1 }
    );
    assert_eq!(ledgers.compare(&LINEAGE[1..], &alone), Missing::default());
    // Increments entered later are below it too.
    mark(&mut ledgers, 2, KILL);
    let alone = Reading::of(POD, css(1), 0, Some(3));
    assert_eq!(ledgers.compare(&LINEAGE[1..], &alone), Missing::default());
}

#[test]
fn one_that_went_after_the_reading_was_among_the_living_then() {
    let mut ledgers = ledgers();
    mark(&mut ledgers, 1, KILL);
    let pod = Reading {
        children: vec![(C, 1)],
        ..Reading::of(POD, css(1), 0, Some(1))
    };
    ledgers.remove(C);
    assert_eq!(ledgers.compare(&LINEAGE[1..], &pod), Missing::default());
}

#[test]
fn one_whose_place_is_learnt_late_counts_above_then() {
    let mut ledgers = ledgers();
    ledgers.mark(&charged(C, 1), &[C], KILL, (false, 1));
    assert!(ledgers.is_unlinked(C));
    assert_eq!((ledgers.sum(POD), ledgers.parent(C)), (0, None));
    ledgers.link(&LINEAGE);
    ledgers.link(&LINEAGE);
    assert_eq!((ledgers.sum(POD), ledgers.parent(C)), (1, Some(POD)));
    // Without `link` the next record does it.
    let (inner, outer) = (CgroupId(30), CgroupId(31));
    ledgers.mark(&charged(inner, 1), &[inner], KILL, (false, 1));
    ledgers.mark(&charged(inner, 2), &[inner, outer], DOUBLE, (false, 2));
    assert_eq!(
        (ledgers.sum(outer), ledgers.double_counts_of(outer)),
        (2, 1)
    );
}

#[test]
fn a_child_that_went_before_it_was_read_is_past() {
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    ledgers.begin(&[Reading {
        children: vec![(C, 2)],
        ..Reading::of(POD, css(1), 0, Some(2))
    }]);
    let later = Reading::of(POD, css(1), 0, Some(2));
    assert_eq!(ledgers.compare(&LINEAGE[1..], &later), Missing::default());
}

#[test]
fn a_ledger_that_begins_late_moves_no_sum_above() {
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    ledgers.begin(&[Reading::of(POD, css(1), 0, Some(3))]);
    ledgers.begin_one(&LINEAGE, &reading(2, 3));
    ledgers.begin_one(&LINEAGE, &reading(9, 9));
    ledgers.begin_one(&[], &reading(9, 9));
    assert_eq!((ledgers.sum(C), ledgers.sum(POD)), (3, 3));
    assert_eq!(mark(&mut ledgers, 3, KILL), NEW);
    assert_eq!((ledgers.sum(C), ledgers.sum(POD)), (4, 4));
}

#[test]
fn what_is_entered_without_a_counter_of_its_own_is_below() {
    let mut ledgers = ledgers();
    mark(&mut ledgers, 1, KILL);
    ledgers.enter(&LINEAGE, 0, KILL);
    ledgers.enter(&LINEAGE, 2, DOUBLE);
    ledgers.enter(&LINEAGE, 1, None);
    assert_eq!((ledgers.sum(POD), ledgers.reported()), (4, 3));
    assert_eq!(
        (ledgers.double_counts_of(POD), ledgers.double_counts()),
        (2, 2)
    );
    assert_eq!(ledgers.beyond(C, 6), 2);
    assert_eq!(ledgers.beyond(CgroupId(77), 6), 6);
    ledgers.report_elsewhere(5);
    assert_eq!(ledgers.reported(), 8);
}

#[test]
fn changes_are_told_once_and_what_is_gone_is_not_kept() {
    let mut ledgers = ledgers();
    mark(&mut ledgers, 1, KILL);
    let mut changed: Vec<CgroupId> = ledgers.take_changed().iter().map(|(id, _)| *id).collect();
    changed.sort_unstable();
    assert_eq!(changed, [CgroupId::ROOT, POD, C]);
    assert_eq!(ledgers.take_changed(), []);
    ledgers.remove(C);
    let changed = ledgers.take_changed();
    let gone = changed.iter().find(|(id, _)| *id == C).unwrap().1.unwrap();
    assert_eq!(
        (gone.parent, gone.counter),
        (None, 1),
        "its records may be in a pinned ring"
    );
    assert!(
        changed
            .iter()
            .any(|(id, kept)| *id == POD && kept.is_some_and(|kept| kept.below == 1))
    );
    ledgers.forget(C);
    assert_eq!(ledgers.take_changed(), [(C, None)]);
    ledgers.forget(C);
    assert_eq!(ledgers.take_changed(), []);
    assert_eq!(ledgers.sum(POD), 1);
}

#[test]
fn without_anyone_to_keep_them_no_change_is_remembered() {
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    ledgers.begin(&[]);
    mark(&mut ledgers, 1, KILL);
    assert_eq!((ledgers.take_changed(), ledgers.all()), (vec![], vec![]));
}

/// What an earlier run reported is not reported again. The node's count has reported what was counted since.
#[test]
fn of_v1_only_what_was_reported_is_known() {
    let mut of_v1 = Ledgers::new(Counting::LocalV1);
    let ledger = Ledger {
        counter: 2,
        reported: 2,
        ..Ledger::default()
    };
    of_v1.resume(vec![(C, ledger)]);
    assert!(!of_v1.is_past_known());
    assert_eq!(mark(&mut of_v1, 2, KILL), Entered::Before);
    assert_eq!(mark(&mut of_v1, 5, KILL), Entered::New { missing: 0 });
    assert_eq!(mark(&mut of_v1, 8, KILL), Entered::New { missing: 2 });
}

#[test]
fn what_went_while_no_daemon_ran_is_below_its_parent() {
    let mut before = ledgers();
    mark(&mut before, 1, KILL);
    mark(&mut before, 2, DOUBLE);
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    ledgers.resume(before.all());
    ledgers.add_up(|id| id != C);
    assert_eq!(ledgers.sum(POD), 2);
    let alone = Reading::of(POD, css(1), 0, Some(3));
    assert_eq!(
        ledgers.compare(&LINEAGE[1..], &alone),
        Missing { own: 0, below: 1 }
    );
}

#[test]
fn what_was_told_of_one_that_is_gone_is_known_to_the_next_run_for_a_while() {
    let mut before = ledgers();
    mark(&mut before, 1, KILL);
    before.remove(C);
    let mut ledgers = Ledgers::new(Counting::Hierarchical);
    ledgers.resume(before.all());
    ledgers.add_up(|id| id != C);
    assert_eq!(ledgers.sum(POD), 1);
    assert_eq!(mark(&mut ledgers, 1, KILL), Entered::Before);
    assert_eq!(mark(&mut ledgers, 2, KILL), NEW);
    assert_eq!(ledgers.sum(POD), 2);
    ledgers.forget_gone_before(1, 10);
    ledgers.forget_gone_before(10, 10);
    assert_eq!(mark(&mut ledgers, 2, KILL), Entered::Before);
    ledgers.forget_gone_before(11, 10);
    assert_eq!(ledgers.parent(C), None);
}

#[test]
fn a_removal_says_the_same_of_all_that_were_below() {
    let mut ledgers = ledgers();
    mark(&mut ledgers, 1, KILL);
    ledgers.remove_below(POD);
    let last = Reading::of(POD, css(1), 0, Some(1));
    assert_eq!(ledgers.compare(&LINEAGE[1..], &last), Missing::default());
}

#[test]
fn a_child_with_nothing_is_of_other_counters_than_before() {
    let mut ledgers = ledgers();
    mark(&mut ledgers, 1, KILL);
    ledgers.begin_again(C);
    ledgers.begin_again(C);
    let pod = Reading {
        children: vec![(C, 0)],
        ..Reading::of(POD, css(1), 0, Some(1))
    };
    assert_eq!(ledgers.compare(&LINEAGE[1..], &pod), Missing::default());
    assert_eq!((ledgers.sum(C), ledgers.sum(POD)), (0, 1));
}

#[test]
fn without_sums_only_its_own_counter_is_compared() {
    let mut ledgers = Ledgers::new(Counting::Local);
    ledgers.begin(&[Reading::of(C, css(100), 1, None)]);
    let later = Reading::of(C, css(100), 3, None);
    assert_eq!(ledgers.compare(&[C], &later), own(2));
    assert_eq!(ledgers.compare(&[], &later), Missing::default());
}

/// A tier that reads hierarchical counters alone entered it below. A cgroup that went after the reading was there
/// then.
#[test]
fn what_an_earlier_run_entered_below_may_be_its_own_but_not_what_a_living_child_had() {
    let (top, child) = (CgroupId(10), CgroupId(11));
    let read = |own, sum, children: &[(CgroupId, u64)]| Reading {
        children: children.to_vec(),
        ..Reading::of(top, css(1), own, Some(sum))
    };
    let kept = |below| Ledger {
        parent: Some(CgroupId::ROOT),
        css: css(1),
        below,
        ..Ledger::default()
    };
    let resumed = |ledgers: Vec<(CgroupId, Ledger)>, is_live: fn(CgroupId) -> bool| {
        let mut resumed = Ledgers::new(Counting::Hierarchical);
        resumed.resume(ledgers);
        resumed.add_up(is_live);
        resumed
    };
    let mut entered_below = resumed(vec![(top, kept(1))], |_| true);
    let reading = read(1, 1, &[]);
    entered_below.place(&reading);
    assert_eq!(entered_below.compare(&[top], &reading), Missing::default());

    let of_child = Ledger {
        parent: Some(top),
        counter: 1,
        reported: 1,
        ..kept(0)
    };
    let mut went = resumed(vec![(top, kept(0)), (child, of_child)], |id| {
        id != CgroupId(11)
    });
    let reading = read(1, 2, &[(child, 1)]);
    went.place(&reading);
    assert_eq!(went.compare(&[top], &reading), own(1));
}

/// Found by the model: a reading was taken before both cgroups were removed, and the inner one's removal was lost.
/// The outer one's removal reported the kill, and the reading was compared after that.
#[test]
fn what_the_removal_above_told_of_is_not_told_by_an_older_reading_below() {
    let mut ledgers = ledgers();
    let older = reading(1, 1);
    let last = Reading::of(POD, css(50), 0, Some(1));
    let missing = ledgers.settle(&LINEAGE[1..], &last);
    assert_eq!(missing, Missing { own: 0, below: 1 });
    assert_eq!(ledgers.compare(&LINEAGE, &older), Missing::default());
    assert_eq!(ledgers.reported(), 1);
}

/// Found by the model: the mark came before the reading that showed that the counters above had begun again too, and
/// the ledger of its cgroup began again with them.
#[test]
fn a_ledger_that_began_after_those_above_it_stays_when_they_begin_again() {
    let mut ledgers = ledgers();
    let old = |own, sum| Reading::of(POD, css(50), own, Some(sum));
    assert_eq!(ledgers.compare(&LINEAGE[1..], &old(2, 2)), own(2));
    assert_eq!(mark(&mut ledgers, 1, KILL), NEW);
    ledgers.met(&Reading::of(POD, css(60), 0, Some(1)));
    assert_eq!(
        (
            ledgers.sum(C),
            ledgers.sum(POD),
            ledgers.sum(CgroupId::ROOT)
        ),
        (1, 1, 3)
    );
    assert_eq!(mark(&mut ledgers, 1, KILL), Entered::Before);
    assert_eq!(ledger(&mut ledgers, CgroupId::ROOT).below, 2);
}
