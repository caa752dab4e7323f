//! The containers that a source asks its runtime for at the same time: a few, so that neither waits long.

use std::{collections::HashMap, future::Future, hash::Hash};

use tokio::task::{JoinError, JoinSet};

/// Containers that a source asks for at a time.
const MAX_LOOKS: usize = 8;

/// Requests that are under way. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Looks<K, T> {
    running: JoinSet<(K, T)>,
    /// The containers, and whether the answer still counts.
    busy: HashMap<K, bool>,
}

impl<K: Clone + Eq + Hash + Send + 'static, T: Send + 'static> Looks<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            running: JoinSet::new(),
            busy: HashMap::new(),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.running.len() < MAX_LOOKS
    }

    pub(crate) fn is_busy<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.busy.contains_key(key)
    }

    /// Asks for a container, unless somebody waits for it already.
    pub(crate) fn start(&mut self, key: K, look: impl Future<Output = T> + Send + 'static) {
        if self.busy.insert(key.clone(), true).is_none() {
            self.running.spawn(async move { (key, look.await) });
        }
    }

    /// The answer about this container does not count: it was removed meanwhile.
    pub(crate) fn forget(&mut self, key: &K) {
        if let Some(counts) = self.busy.get_mut(key) {
            *counts = false;
        }
    }

    /// The next answer that counts; `None` where nothing is asked for.
    pub(crate) async fn next(&mut self) -> Option<Result<T, JoinError>> {
        loop {
            match self.running.join_next().await? {
                Ok((key, found)) => {
                    if self.busy.remove(&key) == Some(true) {
                        return Some(Ok(found));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_few_are_asked_for_and_what_is_gone_does_not_count() {
        let mut looks = Looks::<u32, u32>::new();
        for number in 0.. {
            if !looks.has_room() {
                break;
            }
            looks.start(number, async move { number });
        }
        looks.start(1, async { panic!("it is asked for already") });
        assert!(looks.is_busy(&1) && !looks.is_busy(&8));
        looks.forget(&1);
        let mut found = Vec::new();
        while let Some(one) = looks.next().await {
            found.push(one.unwrap());
        }
        found.sort_unstable();
        assert_eq!(found, [0, 2, 3, 4, 5, 6, 7]);
        assert!(looks.has_room() && !looks.is_busy(&1));
    }
}
