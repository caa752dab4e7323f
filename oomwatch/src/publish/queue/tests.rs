//! The events that publishers get, and the cost of a slow, failing or hanging one.

use std::{collections::VecDeque, path::Path, time::Duration};

use tokio::sync::mpsc::UnboundedSender;

use super::*;
use crate::{
    event::fixture::{BOOT, event_at},
    publish::{PublishError, PublishFuture},
    store::{
        Batch, Limits, Store, StoreConfig,
        fixture::{deadline, hand_over},
    },
};

/// The answer of a test's publisher to an event.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Accept,
    Fail,
    Refuse,
    Block(Duration),
}

/// Gives these answers, then accepts everything. Passes on each accepted event and its time.
struct Scripted {
    delivery: Delivery,
    answers: VecDeque<Answer>,
    accepted: UnboundedSender<(u64, Instant)>,
    down: bool,
}

fn error() -> Box<dyn std::error::Error + Send + Sync> {
    "no".into()
}

impl Publisher for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn delivery(&self) -> Delivery {
        self.delivery
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        let answer = self.answers.pop_front().unwrap_or(Answer::Accept);
        Box::pin(async move {
            match answer {
                _ if self.down => return Err(PublishError::Failed(error())),
                Answer::Fail => return Err(PublishError::Failed(error())),
                Answer::Refuse => return Err(PublishError::Refused(error())),
                Answer::Block(time) => tokio::time::sleep(time).await,
                Answer::Accept => {}
            }
            let accepted = (event.seq, Instant::now());
            self.accepted.send(accepted).unwrap();
            Ok(())
        })
    }
}

type Accepted = mpsc::UnboundedReceiver<(u64, Instant)>;

fn scripted(delivery: Delivery, answers: &[Answer]) -> (Box<Scripted>, Accepted) {
    let (accepted, receiver) = mpsc::unbounded_channel();
    let publisher = Scripted {
        delivery,
        answers: answers.iter().copied().collect(),
        accepted,
        down: false,
    };
    (Box::new(publisher), receiver)
}

async fn finish(queue: &mut Queue) -> PublisherReport {
    queue.finish(Instant::now() + Duration::from_secs(60)).await;
    queue.report(0)
}

fn seqs(accepted: &mut Accepted) -> Vec<u64> {
    let mut seqs = Vec::new();
    while let Ok((seq, _)) = accepted.try_recv() {
        seqs.push(seq);
    }
    seqs
}

/// Time moves only for waits, so any delay would show.
#[tokio::test(start_paused = true)]
async fn one_that_blocks_for_a_minute_changes_nobody_elses_latency() {
    const EVENTS: u64 = 10_000;
    let block = [Answer::Block(Duration::from_secs(60))];
    let (slow, mut slow_accepted) = scripted(Delivery::BestEffort, &block);
    let (quick, mut accepted) = scripted(Delivery::BestEffort, &[]);
    let (retrying, mut retried) = scripted(Delivery::AtLeastOnce, &[]);
    let mut queues = [slow, quick, retrying].map(|publisher| Queue::start(publisher, None, None));
    let step = Duration::from_millis(5);
    for seq in 1..=EVENTS {
        let event = Arc::new(event_at(seq));
        let handed_over = Instant::now();
        for queue in &mut queues {
            queue.push(&event);
        }
        for accepted in [&mut accepted, &mut retried] {
            let (found, at) = accepted.recv().await.unwrap();
            assert_eq!((found, at - handed_over), (seq, Duration::ZERO));
        }
        tokio::time::sleep(step).await;
    }
    for queue in &mut queues[1..] {
        assert_eq!(finish(queue).await.published, EVENTS);
    }
    // 50 s passed: the slow one is still at its first, and has its queue full.
    let report = queues[0].report(0);
    let kept = u64::try_from(PUBLISHER_QUEUE).unwrap() + 1;
    assert_eq!(
        (report.published, report.waiting, report.lost_in_queue),
        (0, kept, EVENTS - kept)
    );
    let report = finish(&mut queues[0]).await;
    assert_eq!((report.published, report.waiting), (kept, 0));
    assert_eq!(seqs(&mut slow_accepted), (1..=kept).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_lost_with_best_effort_and_tried_again_with_at_least_once() {
    let answers = [
        Answer::Accept,
        Answer::Fail,
        Answer::Fail,
        Answer::Refuse,
        Answer::Fail,
    ];
    for (delivery, expected, numbers) in [
        // published, retries, lost_by_publisher
        (Delivery::BestEffort, vec![1, 6], (2, 0, 4)),
        (Delivery::AtLeastOnce, vec![1, 3, 4, 5, 6], (5, 3, 1)),
    ] {
        let (publisher, mut accepted) = scripted(delivery, &answers);
        let mut queue = Queue::start(publisher, None, None);
        for seq in 1..=6 {
            queue.push(&Arc::new(event_at(seq)));
        }
        let report = finish(&mut queue).await;
        assert_eq!(seqs(&mut accepted), expected);
        assert_eq!(
            (report.published, report.retries, report.lost_by_publisher),
            numbers
        );
        assert_eq!((report.waiting, report.lost_in_queue), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_in_memory_after_the_time_of_grace_is_counted() {
    let (mut publisher, mut accepted) = scripted(Delivery::AtLeastOnce, &[]);
    publisher.down = true;
    let mut queue = Queue::start(publisher, None, None);
    for seq in 1..=7 {
        queue.push(&Arc::new(event_at(seq)));
    }
    let report = finish(&mut queue).await;
    assert_eq!((report.published, report.lost_in_queue), (0, 7));
    assert!(report.retries > 1, "{report:?}");
    assert!(seqs(&mut accepted).is_empty());
}

fn store(dir: &Path) -> Store {
    let config = StoreConfig {
        dir: dir.to_owned(),
        limits: Limits {
            // The tests' events are from 1970.
            max_age: Duration::from_secs(1 << 40),
            ..Limits::default()
        },
        publishers: vec!["scripted".into()],
    };
    Store::open(config, BOOT).unwrap().0
}

/// A collector that is down while events come, and while the daemon is restarted.
#[tokio::test]
async fn what_a_collector_missed_comes_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut publisher, _) = scripted(Delivery::AtLeastOnce, &[]);
    publisher.down = true;
    let mut first = store(dir.path());
    let mut queue = Queue::start(publisher, first.take_outbox("scripted"), None);
    for seq in 1..=200 {
        let event = Arc::new(event_at(seq));
        queue.push(&event);
        hand_over(
            &mut first,
            Batch {
                events: vec![event],
                ..Batch::default()
            },
        );
    }
    first.close();
    queue.finish(Instant::now()).await;
    assert_eq!(first.finish(deadline()).await, 0);
    let report = queue.report(3);
    assert!(report.from_store);
    assert_eq!(report.lost_in_queue, 3, "what the store lost");
    assert_eq!((report.published, report.waiting), (0, 200));

    let (publisher, mut accepted) = scripted(Delivery::AtLeastOnce, &[]);
    let mut second = store(dir.path());
    let mut queue = Queue::start(publisher, second.take_outbox("scripted"), None);
    second.close();
    let report = finish(&mut queue).await;
    assert_eq!(second.finish(deadline()).await, 0);
    assert_eq!((report.published, report.waiting), (200, 0));
    assert_eq!(seqs(&mut accepted), (1..=200).collect::<Vec<_>>());
}
