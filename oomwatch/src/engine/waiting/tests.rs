use super::*;
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    event::{Group as Membership, fixture::event_at},
    id::ContainerId,
};

const A: u64 = 5;
const B: u64 = 6;

fn event(seq: u64, container: u64) -> OomEvent {
    let id = ContainerId::new(&format!("c{container}")).unwrap();
    let container = Container {
        id,
        cgroup_id: CgroupId(container),
        identity: Identity::Manual,
        inside: None,
        details: ContainerDetails::default(),
    };
    OomEvent {
        container: Some(Arc::new(container)),
        ..event_at(seq)
    }
}

fn member(seq: u64, invocation: u64) -> OomEvent {
    OomEvent {
        group: Some(Membership {
            invocation,
            index: 0,
            size: None,
        }),
        ..event(seq, A)
    }
}

fn admit_member(waiting: &mut Waiting, seq: u64, invocation: u64, is_nameless: bool, now_ns: u64) {
    waiting.group_mark(invocation);
    waiting.admit(member(seq, invocation), is_nameless, now_ns);
}

/// Numbers of the events to be published now, if nothing more is named.
fn ready(waiting: &mut Waiting, now_ns: u64) -> Vec<u64> {
    ready_if(waiting, now_ns, |_| true)
}

fn ready_if(
    waiting: &mut Waiting,
    now_ns: u64,
    is_nameless: impl Fn(&OomEvent) -> bool,
) -> Vec<u64> {
    waiting.release(now_ns, |event| is_nameless(event));
    std::iter::from_fn(|| waiting.next().map(|event| event.seq)).collect()
}

#[test]
fn what_waits_for_nothing_goes_at_once() {
    let mut waiting = Waiting::default();
    waiting.admit(event(1, A), false, 0);
    assert_eq!(waiting.deadline_ns(), Some(0));
    assert_eq!(ready(&mut waiting, 0), [1]);
    assert!(waiting.is_empty());
    assert_eq!(waiting.deadline_ns(), None);
}

#[test]
fn order_is_kept_in_a_container_and_no_other_is_delayed() {
    let mut waiting = Waiting::default();
    waiting.admit(event(1, A), true, 0);
    waiting.admit(event(2, B), false, 1);
    waiting.admit(event(3, A), false, 2);
    assert_eq!(ready(&mut waiting, 3), [2]);
    assert_eq!(waiting.deadline_ns(), Some(MAX_WAIT_NS));
    assert_eq!(ready(&mut waiting, MAX_WAIT_NS), [1, 3]);
    assert!(waiting.is_empty());
}

#[test]
fn a_name_lets_its_container_go_and_nothing_else() {
    let mut waiting = Waiting::default();
    waiting.admit(event(1, A), true, 0);
    waiting.admit(event(2, B), true, 0);
    waiting.admit(event(3, A), true, 0);
    let b_is_nameless = |event: &OomEvent| line_of(event) == CgroupId(B);
    waiting.names_changed();
    assert_eq!(ready_if(&mut waiting, 1, b_is_nameless), [1, 3]);
    assert_eq!(waiting.deadline_ns(), Some(MAX_WAIT_NS));
}

/// A container that loses a process every 10 ms and that nobody names: each waits for its own time.
#[test]
fn a_crash_loop_without_a_name_has_one_deadline_each() {
    let mut waiting = Waiting::default();
    for seq in 0..20 {
        waiting.admit(event(seq, A), true, seq * 10_000_000);
    }
    assert_eq!(ready(&mut waiting, MAX_WAIT_NS), [0]);
    assert_eq!(ready(&mut waiting, MAX_WAIT_NS + 10_000_000), [1]);
    assert_eq!(ready(&mut waiting, MAX_WAIT_NS + 35_000_000), [2, 3]);
}

#[test]
fn members_of_a_group_learn_their_number() {
    let mut waiting = Waiting::default();
    admit_member(&mut waiting, 1, 9, false, 0);
    admit_member(&mut waiting, 2, 9, false, 1);
    assert!(ready(&mut waiting, 2).is_empty());
    waiting.group_end(8, 2);
    assert!(ready(&mut waiting, 3).is_empty(), "another's end");
    waiting.group_end(9, 2);
    waiting.release(4, |_| false);
    let group = |event: OomEvent| event.group.map(|group| (group.index, group.size));
    let members: Vec<_> = std::iter::from_fn(|| waiting.next()).map(group).collect();
    assert_eq!(members, [Some((0, Some(2))), Some((1, Some(2)))]);
}

#[test]
fn where_one_went_before_none_learns_it() {
    let mut waiting = Waiting::default();
    admit_member(&mut waiting, 1, 9, false, 0);
    admit_member(&mut waiting, 2, 9, false, 10);
    assert_eq!(ready(&mut waiting, MAX_WAIT_NS), [1]);
    assert_eq!(
        ready(&mut waiting, MAX_WAIT_NS),
        [2],
        "they wait for nothing"
    );
    admit_member(&mut waiting, 3, 9, false, MAX_WAIT_NS);
    waiting.group_end(9, 3);
    let last = waiting.next().unwrap();
    assert_eq!(
        last.group.map(|group| (group.index, group.size)),
        Some((2, None))
    );
}

/// Its record found no room: those that did are not all.
#[test]
fn where_a_mark_was_lost_nobody_learns_the_number() {
    let mut waiting = Waiting::default();
    admit_member(&mut waiting, 1, 9, false, 0);
    waiting.group_end(9, 2);
    waiting.release(1, |_| false);
    let only = waiting.next().unwrap();
    assert_eq!(only.group.map(|group| group.size), Some(None));
}

/// A mark of a further thread, or of a task that was exiting, is seen and is no member.
#[test]
fn marks_that_are_no_members_do_not_count() {
    let mut waiting = Waiting::default();
    admit_member(&mut waiting, 1, 9, false, 0);
    waiting.group_mark(9);
    waiting.group_end(9, 2);
    waiting.release(1, |_| false);
    let only = waiting.next().unwrap();
    assert_eq!(only.group.map(|group| group.size), Some(Some(1)));
}

#[test]
fn a_large_group_waits_for_no_number() {
    let mut waiting = Waiting::default();
    let all = MAX_MEMBERS as u64 + 1;
    for seq in 1..=all {
        admit_member(&mut waiting, seq, 9, false, 0);
    }
    assert_eq!(ready(&mut waiting, 0).len() as u64, all);
}

#[test]
fn a_group_without_an_end_waits_until_its_time_is_over() {
    let mut waiting = Waiting::default();
    admit_member(&mut waiting, 1, 9, false, 0);
    admit_member(&mut waiting, 2, 10, false, 0);
    assert_eq!(ready(&mut waiting, 1), [1], "there is a next one");
    assert_eq!(ready(&mut waiting, MAX_WAIT_NS), [2]);
}

#[test]
fn a_nameless_member_waits_for_both_and_for_one_time() {
    let mut waiting = Waiting::default();
    admit_member(&mut waiting, 1, 9, true, 0);
    waiting.group_end(9, 1);
    assert!(ready(&mut waiting, 1).is_empty());
    assert_eq!(ready(&mut waiting, MAX_WAIT_NS), [1]);
}

#[test]
fn more_than_there_is_room_for_go_as_they_are() {
    let mut waiting = Waiting::default();
    for seq in 0..=MAX_WAITING as u64 {
        waiting.admit(event(seq, A), true, 1);
    }
    assert_eq!(ready(&mut waiting, 1).len(), MAX_WAITING + 1);
}

#[test]
fn the_store_gets_what_waits_and_hears_when_it_goes() {
    let mut waiting = Waiting::default();
    let seqs =
        |pending: &Pending| -> Vec<u64> { pending.events.iter().map(|event| event.seq).collect() };
    waiting.admit(event(1, A), true, 0);
    assert_eq!(seqs(&waiting.take_pending(false)), [1]);
    assert_eq!(waiting.take_pending(false), Pending::default());
    waiting.admit(event(2, A), true, 0);
    assert_eq!(seqs(&waiting.take_pending(false)), [2]);
    assert_eq!(ready(&mut waiting, MAX_WAIT_NS), [1, 2]);
    assert_eq!(waiting.take_pending(false).gone, [1, 2]);
    // The store never receives an event that came and went between two batches.
    waiting.admit(event(3, A), false, 0);
    assert_eq!(ready(&mut waiting, 0), [3]);
    assert_eq!(waiting.take_pending(false), Pending::default());
}

#[test]
fn a_new_store_gets_all_of_it() {
    let mut waiting = Waiting::default();
    waiting.admit(event(1, A), true, 0);
    waiting.take_pending(false);
    let pending = waiting.take_pending(true);
    assert_eq!((pending.events.len(), pending.gone.len()), (1, 0));
}
