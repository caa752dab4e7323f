//! How many Events a pod gets: a bucket of tokens for each pod, and the kills held back meanwhile.
//!
//! Pure: time is an argument. Only an Event that was sent takes a token, so a failure costs none.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::object::{Held, Kill, Pod};

/// Events that a pod gets at once.
const BURST: u32 = 10;
/// Time until it gets another one.
const PERIOD: Duration = Duration::from_secs(60);
/// Pods with a bucket before idle buckets are dropped for a new kill: several times as many as a node has.
const MAX_PODS: usize = 4096;

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// When the last token came in.
    since: Instant,
    held: Option<Held>,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self {
            tokens: BURST,
            since: now,
            held: None,
        }
    }

    fn refill(&mut self, now: Instant) {
        while self.tokens < BURST && self.since + PERIOD <= now {
            self.tokens += 1;
            self.since += PERIOD;
        }
        if self.tokens == BURST {
            self.since = now;
        }
    }

    /// Whether the bucket equals a new one.
    fn is_idle(&self) -> bool {
        self.tokens == BURST && self.held.is_none()
    }

    /// When what is held back may be sent.
    fn due(&self) -> Option<Instant> {
        self.held.as_ref()?;
        Some(match self.tokens {
            0 => self.since + PERIOD,
            _ => self.since,
        })
    }
}

/// All pods' buckets.
#[derive(Debug, Default)]
pub(super) struct Budget(HashMap<Pod, Bucket>);

impl Budget {
    /// The Event to send for a kill, with the kills held back before. `None` if this kill is held back too.
    pub(super) fn admit(&mut self, kill: Kill, now: Instant) -> Option<Held> {
        if self.0.len() >= MAX_PODS {
            self.forget_idle(now);
        }
        let bucket = self.0.entry(kill.pod.clone());
        let bucket = bucket.or_insert_with(|| Bucket::full(now));
        bucket.refill(now);
        if bucket.tokens > 0 {
            // Kept until it is sent.
            return Some(match bucket.held.clone() {
                Some(held) => held.and(kill),
                None => Held::of(kill),
            });
        }
        bucket.held = Some(match bucket.held.take() {
            Some(held) => held.and(kill),
            None => Held::of(kill),
        });
        None
    }

    /// The last Event for a pod was sent.
    pub(super) fn sent(&mut self, pod: &Pod, now: Instant) {
        if let Some(bucket) = self.0.get_mut(pod) {
            bucket.refill(now);
            bucket.tokens = bucket.tokens.saturating_sub(1);
            bucket.held = None;
        }
        self.forget_idle(now);
    }

    /// Kills held back that may be sent now. The caller then calls [`Self::sent`].
    pub(super) fn due(&mut self, now: Instant) -> Option<Held> {
        let mut buckets = self.0.values();
        let bucket = buckets.find(|bucket| bucket.due().is_some_and(|due| due <= now));
        bucket.and_then(|bucket| bucket.held.clone())
    }

    /// When [`Self::due`] has something next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.values().filter_map(Bucket::due).min()
    }

    /// All that was held back, at the end.
    pub(super) fn take_all(&mut self) -> Vec<Held> {
        let buckets = self.0.values_mut();
        buckets.filter_map(|bucket| bucket.held.take()).collect()
    }

    fn forget_idle(&mut self, now: Instant) {
        self.0.retain(|_, bucket| {
            bucket.refill(now);
            !bucket.is_idle()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(pod: &str, seq: u64) -> Kill {
        Kill::for_test(pod, seq)
    }

    /// Sends if it may. Returns the number of kills in the Event.
    fn offer(budget: &mut Budget, kill: Kill, now: Instant) -> u64 {
        let pod = kill.pod.clone();
        let Some(held) = budget.admit(kill, now) else {
            return 0;
        };
        budget.sent(&pod, now);
        held.count
    }

    #[test]
    fn a_pod_gets_some_at_once_and_the_others_together_later() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        for seq in 0..10 {
            assert_eq!(offer(&mut budget, kill("a", seq), start), 1);
        }
        assert_eq!(budget.next_due(), None);
        for seq in 10..15 {
            assert_eq!(offer(&mut budget, kill("a", seq), start), 0);
        }
        assert_eq!(offer(&mut budget, kill("b", 1), start), 1, "another pod");
        let due = budget.next_due().unwrap();
        assert_eq!(due, start + PERIOD);
        assert_eq!(budget.due(start), None);
        let held = budget.due(due).unwrap();
        assert_eq!((held.count, held.first_unix_ns), (5, 10));
        assert_eq!(held.last, kill("a", 14));
        assert_eq!(budget.due(due), Some(held), "until it is sent");
        budget.sent(&kill("a", 0).pod, due);
        assert_eq!((budget.due(due), budget.next_due()), (None, None));
        // One more is held, and goes out with the one that finds a token.
        assert_eq!(offer(&mut budget, kill("a", 15), due), 0);
        assert_eq!(offer(&mut budget, kill("a", 16), due + PERIOD), 2);
    }

    #[test]
    fn what_fails_costs_no_token_and_loses_nothing() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(budget.admit(kill("a", 1), start).unwrap().count, 1);
        }
        for seq in 0..12 {
            offer(&mut budget, kill("a", seq), start);
        }
        let later = start + PERIOD;
        for _ in 0..2 {
            let held = budget.admit(kill("a", 12), later).unwrap();
            assert_eq!(held.count, 3, "both that were held back, and this one once");
        }
        assert_eq!(budget.take_all().len(), 1);
        assert!(budget.take_all().is_empty());
    }

    #[test]
    fn pods_that_lost_nothing_for_long_are_forgotten() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        for pod in 0..100 {
            offer(&mut budget, kill(&pod.to_string(), 1), start);
        }
        assert_eq!(budget.0.len(), 100);
        offer(&mut budget, kill("a", 1), start + PERIOD * BURST);
        assert_eq!(budget.0.len(), 1);
    }
}
