//! Books: opened, entered into, compared, claimed from, and gone on with.

use super::*;
use crate::record::fixture::memcg;

const C: CgroupId = CgroupId(10);
const POD: CgroupId = CgroupId(5);

#[test]
fn what_is_entered_is_not_missing() {
    let mut accounts = Accounts::default();
    accounts.open(C, 3, 0);
    accounts.enter(&[memcg(10, 4)], Told::Kill, 1);
    assert_eq!(accounts.missing(C, 4, None), 0);
    assert_eq!(accounts.missing(C, 6, None), 2);
    accounts.enter_missing([C].into_iter(), Told::CounterOnly, 2);
    assert_eq!(accounts.missing(C, 6, None), 0);
}

#[test]
fn increments_before_the_registration_are_in_the_base() {
    let mut accounts = Accounts::default();
    accounts.open(C, 3, 0);
    accounts.enter(&[memcg(10, 3)], Told::Kill, 1);
    assert_eq!(accounts.missing(C, 4, None), 1);
}

#[test]
fn a_parents_book_has_its_childrens_entries() {
    let mut accounts = Accounts::default();
    accounts.open(C, 0, 0);
    accounts.open(POD, 0, 0);
    accounts.enter(&[memcg(10, 1), memcg(5, 1)], Told::Kill, 1);
    accounts.enter_missing([C, POD].into_iter(), Told::CounterOnly, 1);
    assert_eq!(accounts.missing(POD, 2, None), 0);
    assert_eq!(accounts.missing(C, 2, None), 0);
}

#[test]
fn counters_that_started_again_start_a_new_page() {
    let mut accounts = Accounts::default();
    accounts.open(C, 7, 0);
    accounts.enter(&[memcg(10, 8)], Told::Kill, 1);
    assert_eq!(accounts.missing(C, 1, Some(2)), 1);
}

fn resumed(page: Page) -> Accounts {
    let mut accounts = Accounts::default();
    accounts.resume(C, page);
    accounts
}

const TOLD_5: Page = Page {
    serial: Some(1),
    base: 3,
    accounted: 2,
};

#[test]
fn a_book_from_an_earlier_run_misses_what_rose_meanwhile() {
    let mut accounts = resumed(TOLD_5);
    accounts.open(C, 9, 0);
    assert!(!accounts.meet_counter(C, 9));
    assert_eq!(accounts.missing(C, 9, None), 4);
    assert!(accounts.take_resumed(C));
    assert!(!accounts.take_resumed(C), "said once");
}

#[test]
fn a_counter_behind_a_book_from_an_earlier_run_began_again() {
    let mut accounts = resumed(TOLD_5);
    assert!(accounts.meet_counter(C, 2));
    assert_eq!(accounts.missing(C, 2, None), 2);
}

#[test]
fn counters_that_another_run_did_not_know_start_a_new_page() {
    let mut accounts = resumed(TOLD_5);
    let mut other = memcg(10, 9);
    other.serial = 2;
    assert_eq!(accounts.enter_unjudged(&[other]), Room::Entered);
    assert_eq!(accounts.missing(C, 9, None), 8);
}

#[test]
fn a_mark_that_an_earlier_run_spoke_of_has_no_room() {
    let mut accounts = resumed(TOLD_5);
    assert_eq!(accounts.enter_unjudged(&[memcg(10, 5)]), Room::None);
    assert_eq!(accounts.enter_unjudged(&[memcg(10, 6)]), Room::Entered);
    assert_eq!(accounts.missing(C, 6, None), 0);
    assert_eq!(accounts.enter_unjudged(&[memcg(11, 6)]), Room::Unknown);
}

#[test]
fn changes_are_remembered_only_where_they_are_kept() {
    let mut accounts = Accounts::default();
    accounts.open(C, 0, 0);
    assert!(accounts.take_changed().is_empty());
    accounts.keep();
    accounts.enter(&[memcg(10, 1), memcg(5, 1)], Told::Kill, 1);
    assert!(accounts.take_changed().contains(&C));
    accounts.close(C);
    accounts.close(POD);
    assert_eq!(accounts.take_changed().into_iter().collect::<Vec<_>>(), [C]);
}

fn numbers(accounts: &Accounts, cgroup: CgroupId) -> Numbers {
    let mut numbers = accounts.numbers();
    numbers.find(|(found, _)| *found == cgroup).unwrap().1
}

#[test]
fn numbers_tell_what_was_entered_as_what() {
    let mut accounts = Accounts::default();
    accounts.open(C, 3, 0);
    accounts.enter(&[memcg(10, 4)], Told::Kill, 1);
    accounts.enter(&[memcg(10, 5)], Told::Recount, 1);
    assert_eq!(accounts.missing(C, 7, None), 2);
    assert_eq!(numbers(&accounts, C).residual(), 2);
    accounts.enter_missing([C].into_iter(), Told::CounterOnly, 2);
    let told = numbers(&accounts, C);
    assert_eq!((told.kills, told.counter_only, told.recounts), (1, 2, 1));
    assert_eq!((told.rise(), told.residual()), (4, 0));
}

#[test]
fn more_told_than_counted_is_a_residual_below_zero() {
    let mut accounts = Accounts::default();
    accounts.open(C, 0, 0);
    accounts.enter(&[memcg(10, 1)], Told::Kill, 1);
    accounts.enter_missing([C].into_iter(), Told::CounterOnly, 1);
    assert_eq!(numbers(&accounts, C).residual(), -1);
}

#[test]
fn the_rise_before_counters_started_again_is_kept() {
    let mut accounts = Accounts::default();
    accounts.open(C, 7, 0);
    accounts.enter(&[memcg(10, 8)], Told::Kill, 1);
    let mut again = memcg(10, 1);
    again.serial += 1;
    accounts.enter(&[again], Told::Kill, 1);
    let kept = numbers(&accounts, C);
    assert_eq!((kept.rise(), kept.kills, kept.residual()), (2, 2, 0));
}

/// The counter moves before its record is made: compared at once, the kill was told twice.
#[test]
fn a_kill_that_was_under_way_when_the_counter_was_read_is_not_missing() {
    let mut accounts = Accounts::default();
    accounts.open(C, 0, 0);
    accounts.note(C, 1);
    accounts.enter(&[memcg(10, 1)], Told::Kill, 1);
    assert_eq!(accounts.missing_noted(C), Some((0, 1)));
    assert_eq!(numbers(&accounts, C).residual(), 0);
}

#[test]
fn kills_after_the_counter_was_read_do_not_hide_a_loss_before() {
    let mut accounts = Accounts::default();
    accounts.open(C, 0, 0);
    accounts.note(C, 2);
    accounts.enter(&[memcg(10, 2)], Told::Kill, 1);
    accounts.enter(&[memcg(10, 3)], Told::Kill, 1);
    assert_eq!(accounts.missing_noted(C), Some((1, 2)));
}

#[test]
fn a_counter_that_was_noted_is_no_word_on_its_successor() {
    let mut accounts = Accounts::default();
    accounts.open(C, 0, 0);
    accounts.enter(&[memcg(10, 1)], Told::Kill, 1);
    accounts.note(C, 5);
    let mut again = memcg(10, 1);
    again.serial += 1;
    accounts.enter(&[again], Told::Kill, 1);
    assert_eq!(accounts.missing_noted(C), None);
}
