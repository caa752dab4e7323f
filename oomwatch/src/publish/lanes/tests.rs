//! Destinations that fail, hang or are not there, beside ones that work.

use std::{collections::HashMap, path::Path, sync::Mutex, time::Duration};

use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Instant, timeout},
};

use super::*;
use crate::{
    event::fixture::{BOOT, event_at},
    publish::{Delivery, PublishFuture, PublisherReport, queue::Queue},
    store::{
        Batch, Limits, Store, StoreConfig,
        fixture::{deadline, hand_over},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Fail,
    Unreachable,
    Hang,
    Close,
    Panic,
}

/// A publisher whose destinations are events' nodes. A destination accepts unless it has another answer.
#[derive(Clone)]
struct Post {
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    accepted: UnboundedSender<u64>,
    flushed: Arc<Mutex<usize>>,
}

impl Post {
    fn answer(&self, node: &str, answer: Option<Answer>) {
        let mut answers = self.answers.lock().unwrap();
        match answer {
            Some(answer) => answers.insert(node.to_owned(), answer),
            None => answers.remove(node),
        };
    }
}

impl Publisher for Post {
    fn name(&self) -> &'static str {
        "post"
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        Box::pin(async move {
            let node = event.node.as_deref().unwrap_or_default();
            let answer = self.answers.lock().unwrap().get(node).copied();
            match answer {
                Some(Answer::Fail) => return Err(PublishError::Failed("no".into())),
                Some(Answer::Unreachable) => return Err(PublishError::Unreachable("no".into())),
                Some(Answer::Close) => return Err(PublishError::Closed),
                Some(Answer::Hang) => std::future::pending().await,
                Some(Answer::Panic) => panic!("as asked for"),
                None => {}
            }
            self.accepted.send(event.seq).unwrap();
            Ok(())
        })
    }

    fn destination(&self, event: &OomEvent) -> Option<String> {
        event.node.as_deref().map(str::to_owned)
    }

    fn only_to(&self, _destination: &str) -> Option<Box<dyn Publisher>> {
        Some(Box::new(self.clone()))
    }

    fn flush(&mut self) -> PublishFuture<'_> {
        *self.flushed.lock().unwrap() += 1;
        Box::pin(async { Ok(()) })
    }
}

type Accepted = mpsc::UnboundedReceiver<u64>;

fn post(answers: &[(&str, Answer)]) -> (Post, Accepted) {
    let (accepted, receiver) = mpsc::unbounded_channel();
    let post = Post {
        answers: Arc::default(),
        accepted,
        flushed: Arc::default(),
    };
    for &(node, answer) in answers {
        post.answer(node, Some(answer));
    }
    (post, receiver)
}

fn to(node: &str, seq: u64) -> Arc<OomEvent> {
    let mut event = event_at(seq);
    event.node = Some(node.into());
    Arc::new(event)
}

/// The next event that was accepted. Lanes that fail let a clock that stands go on for ever, so there is a deadline.
async fn next(accepted: &mut Accepted) -> Option<u64> {
    let hour = Duration::from_secs(3600);
    timeout(hour, accepted.recv()).await.unwrap()
}

/// Waits for a report without advancing a clock that stands.
async fn report_with(
    queue: &Queue,
    is_right: impl Fn(&PublisherReport) -> bool,
) -> PublisherReport {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let report = queue.report(0);
        if is_right(&report) {
            return report;
        }
        assert!(std::time::Instant::now() < deadline, "{report:?}");
        tokio::task::yield_now().await;
    }
}

async fn finish(queue: &mut Queue) -> PublisherReport {
    queue.finish(Instant::now() + Duration::from_secs(60)).await;
    queue.report(0)
}

fn all(accepted: &mut Accepted) -> Vec<u64> {
    let mut seqs: Vec<u64> = std::iter::from_fn(|| accepted.try_recv().ok()).collect();
    seqs.sort_unstable();
    seqs
}

/// The clock stands unless all wait for it, so any delay would show.
#[tokio::test(start_paused = true)]
async fn one_that_fails_and_one_that_hangs_delay_no_other() {
    let (post, mut accepted) = post(&[("fails", Answer::Fail), ("hangs", Answer::Hang)]);
    let mut queue = Queue::start(Box::new(post.clone()), None, None);
    let start = Instant::now();
    queue.push(&to("fails", 1));
    queue.push(&to("hangs", 2));
    for seq in 3..1_000 {
        queue.push(&to("works", seq));
        assert_eq!(next(&mut accepted).await, Some(seq));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    let report = report_with(&queue, |report| report.published == 997).await;
    assert_eq!((report.waiting, report.lost_by_publisher), (2, 0));
    post.answer("fails", None);
    assert_eq!(next(&mut accepted).await, Some(1));
    let report = finish(&mut queue).await;
    assert_eq!((report.published, report.lost_in_queue), (998, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_failing_destination_has_no_room_for_is_counted() {
    let (post, mut accepted) = post(&[("fails", Answer::Fail)]);
    let mut queue = Queue::start(Box::new(post.clone()), None, None);
    queue.push(&to("fails", 1));
    report_with(&queue, |report| report.retries == 1).await;
    for seq in 2..=100 {
        queue.push(&to("fails", seq));
    }
    queue.push(&to("works", 101));
    assert_eq!(next(&mut accepted).await, Some(101));
    let report = report_with(&queue, |report| report.published == 1).await;
    assert_eq!((report.waiting, report.lost_by_publisher), (64, 36));
    post.answer("fails", None);
    let report = finish(&mut queue).await;
    assert_eq!((report.published, report.lost_by_publisher), (65, 36));
    assert_eq!(all(&mut accepted), (1..=64).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_works_is_waited_for() {
    let (post, mut accepted) = post(&[]);
    let mut queue = Queue::start(Box::new(post), None, None);
    for seq in 1..=1_000 {
        queue.push(&to("works", seq));
    }
    let report = finish(&mut queue).await;
    assert_eq!((report.published, report.lost_by_publisher), (1_000, 0));
    assert_eq!(all(&mut accepted).len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_can_be_reached_all_wait() {
    let nodes: Vec<String> = (0..LANES + 10).map(|node| node.to_string()).collect();
    let (post, mut accepted) = post(&[]);
    for node in &nodes {
        post.answer(node, Some(Answer::Unreachable));
    }
    let mut queue = Queue::start(Box::new(post.clone()), None, None);
    queue.push(&to("0", 1));
    report_with(&queue, |report| report.retries == 1).await;
    for seq in 2..=200 {
        queue.push(&to("0", seq));
    }
    for (node, seq) in nodes.iter().zip(201..) {
        queue.push(&to(node, seq));
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    let report = queue.report(0);
    let events = 200 + u64::try_from(nodes.len()).unwrap();
    assert_eq!((report.waiting, report.lost_by_publisher), (events, 0));
    for node in &nodes {
        post.answer(node, None);
    }
    let report = finish(&mut queue).await;
    assert_eq!((report.published, report.waiting), (events, 0));
    assert_eq!(all(&mut accepted), (1..=events).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn more_destinations_than_lanes_are_served_in_turn() {
    let (post, mut accepted) = post(&[("fails", Answer::Fail)]);
    let mut queue = Queue::start(Box::new(post.clone()), None, None);
    queue.push(&to("fails", 1));
    for seq in 2..=200 {
        queue.push(&to(&seq.to_string(), seq));
        assert_eq!(next(&mut accepted).await, Some(seq));
    }
    let ended = 200 - LANES;
    while *post.flushed.lock().unwrap() < ended {
        tokio::task::yield_now().await;
    }
    post.answer("fails", None);
    let report = finish(&mut queue).await;
    assert_eq!((report.published, report.lost_by_publisher), (200, 0));
    // Each lane, and the publisher itself.
    assert_eq!(*post.flushed.lock().unwrap(), 201);
}

#[tokio::test(start_paused = true)]
async fn no_lane_is_taken_from_a_destination_that_fails() {
    let nodes: Vec<String> = (0..LANES).map(|node| node.to_string()).collect();
    let (post, mut accepted) = post(&[]);
    for node in &nodes {
        post.answer(node, Some(Answer::Fail));
    }
    let mut queue = Queue::start(Box::new(post.clone()), None, None);
    for (node, seq) in nodes.iter().zip(1..) {
        queue.push(&to(node, seq));
    }
    report_with(&queue, |report| report.retries >= 64).await;
    queue.push(&to("another", 65));
    let report = report_with(&queue, |report| report.lost_by_publisher == 1).await;
    assert_eq!(report.waiting, 64);
    // As soon as one works, there is a lane again.
    post.answer("0", None);
    assert_eq!(next(&mut accepted).await, Some(1));
    queue.push(&to("another", 66));
    assert_eq!(next(&mut accepted).await, Some(66));
    drop(queue);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_closes_or_panics_ends_the_publisher() {
    for answer in [Answer::Close, Answer::Panic] {
        let (post, mut accepted) = post(&[("ends", answer)]);
        let mut queue = Queue::start(Box::new(post), None, None);
        queue.push(&to("works", 1));
        assert_eq!(next(&mut accepted).await, Some(1));
        queue.push(&to("ends", 2));
        // The sender is dropped with all lanes.
        assert_eq!(next(&mut accepted).await, None, "{answer:?}");
        let report = finish(&mut queue).await;
        assert_eq!((report.published, report.lost_in_queue), (1, 1));
    }
}

fn store(dir: &Path) -> Store {
    let config = StoreConfig {
        dir: dir.to_owned(),
        limits: Limits {
            // The tests' events are from 1970.
            max_age: Duration::from_secs(1 << 40),
            ..Limits::default()
        },
        publishers: vec!["post".into()],
    };
    Store::open(config, BOOT).unwrap().0
}

/// The cursor stays before what is not sent, and what was sent out of turn may come again.
#[tokio::test]
async fn what_a_failing_destination_missed_comes_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (down, mut accepted) = post(&[("fails", Answer::Fail)]);
    let mut first = store(dir.path());
    let mut queue = Queue::start(Box::new(down), first.take_outbox("post"), None);
    let node = |seq| match seq {
        10 | 20 => "fails",
        _ => "works",
    };
    for seq in 1..=30 {
        let batch = Batch {
            events: vec![to(node(seq), seq)],
            ..Batch::default()
        };
        hand_over(&mut first, batch);
    }
    // What the writer stored may be read before it announces it.
    let is_right = |report: &PublisherReport| (report.published, report.waiting) == (28, 2);
    let report = report_with(&queue, is_right).await;
    assert_eq!(report.lost_by_publisher, 0);
    first.close();
    queue.finish(Instant::now()).await;
    assert_eq!(first.finish(deadline()).await, 0);
    let works: Vec<u64> = (1..=30).filter(|seq| node(*seq) == "works").collect();
    assert_eq!(all(&mut accepted), works);

    let (up, mut accepted) = post(&[]);
    let mut second = store(dir.path());
    let mut queue = Queue::start(Box::new(up), second.take_outbox("post"), None);
    second.close();
    let report = finish(&mut queue).await;
    assert_eq!(second.finish(deadline()).await, 0);
    assert_eq!((report.published, report.waiting), (21, 0));
    assert_eq!(all(&mut accepted), (10..=30).collect::<Vec<_>>());
}
