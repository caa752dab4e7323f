use rustix::io::Errno;

use super::*;

/// A scan that ends at once.
fn run(scans: &mut Scans, walk: io::Result<Walk>) {
    scans.want();
    assert!(scans.take_due());
    scans.running = Some(task::spawn_blocking(|| walk));
}

fn skipped(may_pass: bool) -> Skipped {
    Skipped {
        below: vec![CgroupId(7)],
        failed: 1,
        first_failed: Some((b"/a".to_vec(), "too many open files".to_owned())),
        may_pass,
        ..Skipped::default()
    }
}

#[test]
fn a_loss_asks_for_one_scan() {
    let mut scans = Scans::default();
    assert!(scans.is_idle() && !scans.take_due());
    scans.want();
    scans.want();
    assert!(!scans.is_idle());
    assert!(scans.take_due());
    assert!(!scans.take_due());
}

#[tokio::test]
async fn a_loss_during_a_scan_asks_for_another_after_it() {
    let mut scans = Scans::default();
    let (go, gone_on) = std::sync::mpsc::channel::<()>();
    scans.want();
    assert!(scans.take_due());
    scans.running = Some(task::spawn_blocking(move || {
        gone_on.recv().unwrap();
        Ok(Walk::default())
    }));
    scans.want();
    assert!(!scans.take_due(), "one at a time");
    go.send(()).unwrap();
    let Outcome::Walked(Ok(Ok(walk))) = scans.next().await else {
        panic!("a walk");
    };
    assert_eq!(walk, Walk::default());
    assert!(scans.take_due(), "what was lost meanwhile");
    assert!(scans.is_idle());
}

/// `scan-fails-once`: it was only tried again when something else was lost.
#[tokio::test(start_paused = true)]
async fn a_scan_that_fails_is_made_again_after_a_delay_that_grows() {
    let mut scans = Scans::default();
    for expected_s in [1, 2, 4, 8, 16, 32, 60, 60] {
        run(&mut scans, Err(Errno::MFILE.into()));
        assert!(matches!(scans.next().await, Outcome::Walked(Ok(Err(_)))));
        scans.retry_later();
        assert!(scans.is_idle(), "not at once");
        let since = Instant::now();
        assert!(matches!(scans.next().await, Outcome::Retry));
        assert_eq!(since.elapsed().as_secs(), expected_s);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_skipped_and_may_pass_is_looked_at_again_and_then_all_is_well() {
    let mut scans = Scans::default();
    scans.ended(&skipped(true));
    assert!(matches!(scans.next().await, Outcome::Retry));
    scans.ended(&Skipped::default());
    assert_eq!(scans.retry_at, None);
    scans.ended(&skipped(true));
    let since = Instant::now();
    assert!(matches!(scans.next().await, Outcome::Retry));
    assert_eq!(since.elapsed(), FIRST_RETRY, "from the beginning");
}

#[tokio::test]
async fn what_stays_skipped_is_not_looked_at_again() {
    let mut scans = Scans::default();
    scans.ended(&skipped(false));
    assert_eq!(scans.retry_at, None);
}

#[tokio::test]
async fn a_loss_does_not_wait_for_the_retry() {
    let mut scans = Scans::default();
    scans.retry_later();
    scans.want();
    assert!(scans.take_due());
    assert_eq!(scans.retry_at, None, "that was it");
}

#[tokio::test]
async fn at_the_end_there_is_one_more_try() {
    let mut scans = Scans::default();
    assert!(!scans.take_retry());
    scans.retry_later();
    assert!(scans.take_retry());
    assert!(!scans.take_retry());
}
