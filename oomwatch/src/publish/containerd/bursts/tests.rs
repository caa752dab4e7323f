use super::*;

const SECOND_NS: i128 = 1_000_000_000;

fn task(id: &str) -> Task {
    Task {
        namespace: "k8s.io".to_owned(),
        id: id.to_owned(),
    }
}

fn kill(id: &str, second: i128) -> Kill {
    Kill {
        task: task(id),
        unix_ns: second * SECOND_NS,
        is_exact: true,
    }
}

struct Clock(Instant);

impl Clock {
    fn at(&self, seconds: u64) -> Instant {
        self.0 + Duration::from_secs(seconds)
    }
}

/// At the same second on both clocks.
fn start() -> (Bursts, Clock) {
    (Bursts::default(), Clock(Instant::now()))
}

/// The announcements sent by now, in order.
fn sent(bursts: &mut Bursts, now: Instant) -> Vec<(String, i128)> {
    let mut sent = Vec::new();
    while let Some((task, unix_ns)) = bursts.due(now) {
        bursts.sent();
        sent.push((task.id, unix_ns / SECOND_NS));
    }
    sent
}

fn expected(all: &[(&str, i128)]) -> Vec<(String, i128)> {
    let all = all.iter();
    all.map(|(id, second)| ((*id).to_owned(), *second))
        .collect()
}

#[test]
fn a_kill_that_no_shim_announces_is_sent_once_for_its_burst() {
    let (mut bursts, clock) = start();
    bursts.kill(kill("a", 10), clock.at(10));
    bursts.kill(kill("b", 10), clock.at(10));
    bursts.kill(kill("a", 11), clock.at(11));
    assert_eq!(sent(&mut bursts, clock.at(11)), []);
    assert_eq!(bursts.next_due(), Some(clock.at(12)));
    assert_eq!(
        sent(&mut bursts, clock.at(12)),
        expected(&[("a", 10), ("b", 10)])
    );
    bursts.kill(kill("a", 13), clock.at(13));
    assert_eq!(sent(&mut bursts, clock.at(15)), expected(&[("a", 13)]));
    assert!(bursts.is_empty());
}

#[test]
fn what_a_shim_announces_is_not_sent_whoever_is_first() {
    let (mut bursts, clock) = start();
    bursts.kill(kill("a", 10), clock.at(10));
    bursts.announced(task("a"), 10 * SECOND_NS + 1);
    bursts.announced(task("b"), 11 * SECOND_NS);
    bursts.kill(kill("b", 11), clock.at(12));
    bursts.kill(kill("c", 12), clock.at(12));
    assert_eq!(sent(&mut bursts, clock.at(15)), expected(&[("c", 12)]));
}

#[test]
fn an_old_announcement_says_nothing_of_a_new_kill() {
    let (mut bursts, clock) = start();
    bursts.announced(task("a"), 9 * SECOND_NS);
    bursts.kill(kill("a", 10), clock.at(10));
    assert_eq!(sent(&mut bursts, clock.at(12)), expected(&[("a", 10)]));
}

#[test]
fn an_announcement_is_of_its_own_namespace() {
    let (mut bursts, clock) = start();
    bursts.kill(kill("a", 10), clock.at(10));
    let namespace = "moby".to_owned();
    let id = "a".to_owned();
    bursts.announced(Task { namespace, id }, 10 * SECOND_NS);
    assert_eq!(sent(&mut bursts, clock.at(12)).len(), 1);
}

#[test]
fn a_kill_from_the_counter_alone_may_come_long_after_the_shim() {
    let (mut bursts, clock) = start();
    bursts.announced(task("a"), 9 * SECOND_NS);
    let counted = Kill {
        is_exact: false,
        ..kill("a", 11)
    };
    bursts.kill(counted, clock.at(11));
    assert_eq!(sent(&mut bursts, clock.at(13)), []);
}

#[test]
fn our_own_words_are_no_shims() {
    let (mut bursts, clock) = start();
    bursts.kill(kill("a", 10), clock.at(10));
    assert_eq!(sent(&mut bursts, clock.at(12)).len(), 1);
    let counted = Kill {
        is_exact: false,
        ..kill("a", 12)
    };
    bursts.announced(task("a"), 10 * SECOND_NS);
    bursts.kill(counted, clock.at(13));
    assert_eq!(sent(&mut bursts, clock.at(15)).len(), 1);
}

#[test]
fn what_was_not_sent_stays_the_first_in_line() {
    let (mut bursts, clock) = start();
    bursts.kill(kill("a", 10), clock.at(10));
    let first = bursts.due(clock.at(12));
    assert!(first.is_some());
    assert_eq!(bursts.due(clock.at(12)), first);
    // The connection is new: a shim may have held something back.
    bursts.listening(clock.at(13));
    assert_eq!(bursts.due(clock.at(14)), None);
    assert_eq!(bursts.due(clock.at(15)), first);
}

#[test]
fn no_more_wait_than_there_is_room_for() {
    let (mut bursts, clock) = start();
    for number in 0..MAX_BURSTS {
        assert!(bursts.has_room());
        bursts.kill(kill(&number.to_string(), 10), clock.at(10));
    }
    assert!(!bursts.has_room());
    for second in 0..2 * MAX_ANNOUNCEMENTS {
        bursts.announced(task("b"), second as i128);
    }
    assert_eq!(bursts.announced.len(), MAX_ANNOUNCEMENTS);
}
