//! The daemon of the model is killed, and another one goes on: with what the store has, and with the
//! ring or without it.

use super::*;

impl Model {
    pub(super) fn restart(&mut self, restart: &Restart) {
        self.recount_lost = true;
        self.forget_unstored();
        for (container, &kills) in restart.unseen.iter().enumerate() {
            (0..kills).for_each(|_| self.count(container));
            self.lose_unseen(container, u64::from(kills));
        }
        if let Some(container) = restart.replaced {
            let (old, new) = (self.cgroups[container], self.next_cgroup);
            self.cgroups[container] = new;
            self.counters.insert(new, 0);
            self.next_cgroup += 1;
            if let Some(registered) = self.registered.get(&old).cloned() {
                self.registered.insert(new, registered);
            }
            self.count(container);
            self.lose_unseen(container, 1);
            // What it lost last, of which only the pod tells.
            self.lose_last(old);
        }
        let late = self.take_late(restart);
        self.rebase(&[]);
        // Attached: from here on there are records, and the new probe knows no counter.
        self.last_counts.clear();
        let records = self.early_marks(&restart.early);
        self.engine = new_engine();
        self.resume();
        self.scan();
        self.engine.settle_resumed();
        let resumed = self.store.node_told_up_to;
        self.node_base = resumed.unwrap_or(0);
        self.save();
        for record in records {
            self.feed(record);
        }
        if resumed.is_none() {
            // Nobody knows what was before.
            self.node_base = self.counters[&POD] - self.engine.node_told();
            self.save();
        }
        let told = self.events.len();
        self.audit();
        for (cgroup, registered) in late {
            self.found_late(cgroup, registered);
        }
        self.audit();
        let missed = &self.events[told..];
        assert!(missed.iter().all(|event| event.while_down), "{missed:?}");
    }

    /// What the store has: books, and events that waited to be published.
    fn resume(&mut self) {
        let books = self.store.books.values().cloned().collect();
        self.engine.resume(books);
        let now = self.now();
        let pending = std::mem::take(&mut self.store.pending);
        self.engine.resume_waiting(pending, now);
        self.release_all();
    }

    /// Registrations that are made again only after the first audit. What is marked in such a container
    /// meanwhile would be the pod's, and none of it is.
    fn take_late(&mut self, restart: &Restart) -> Vec<(u64, Registered)> {
        let mut late = Vec::new();
        for (container, _) in restart.late.iter().enumerate().filter(|(_, late)| **late) {
            let is_marked = restart.early.iter().any(|(early, _)| *early == container);
            let cgroup = self.cgroups[container];
            if !is_marked && let Some(registered) = self.registered.remove(&cgroup) {
                late.push((cgroup, registered));
            }
        }
        late
    }

    /// It goes on with its book, unless the pod has told what was missing from it.
    fn found_late(&mut self, cgroup: u64, registered: Registered) {
        let waiting = self.engine.kept.waiting(CgroupId(cgroup));
        if waiting.is_some_and(|id| id.as_str() == registered.id) {
            self.register_late(cgroup, &registered.id);
            self.registered.insert(cgroup, registered);
            self.save();
        } else {
            self.enter(cgroup, registered.id);
        }
    }

    /// The ring and the programs go on without a daemon, and the next one works off all of it.
    pub(super) fn restart_pinned(&mut self, unread: &[Unread]) {
        self.recount_lost = true;
        self.forget_unstored();
        let gone: Vec<u64> = unread
            .iter()
            .filter_map(|unread| match unread {
                Unread::Replace { container } => Some(self.cgroups[*container]),
                _ => None,
            })
            .collect();
        self.rebase(&gone);
        self.ring = Some(Vec::new());
        for unread in unread {
            self.act_unread(unread);
        }
        let backlog = self.ring.take().unwrap_or_default();
        self.engine = new_engine();
        self.engine.watching_since(self.clock + 1);
        self.resume();
        let told = self.events.len();
        // As the watcher's task does: the tree, who is in it, what happened, the counters.
        self.engine.learn(CgroupId(POD), CgroupId::ROOT, b"pod");
        for cgroup in self.cgroups.clone() {
            self.engine.learn(CgroupId(cgroup), CgroupId(POD), b"c");
        }
        self.engine.learn_all(&backlog);
        self.register_all();
        self.register_removed(&backlog);
        self.engine.settle_resumed();
        let resumed = self.store.node_told_up_to;
        self.node_base = resumed.unwrap_or(0);
        let now = self.now();
        self.events.extend(self.engine.apply(&backlog, now));
        if resumed.is_none() {
            self.node_base = self.counters[&POD] - self.engine.node_told();
        }
        self.save();
        let now = self.now().boottime_ns;
        for cgroup in self.cgroups.iter().copied().chain([POD]) {
            self.engine
                .baseline(CgroupId(cgroup), self.counters[&cgroup], now);
        }
        self.save();
        self.audit();
        let missed = &self.events[told..];
        assert!(missed.iter().all(|event| event.while_down), "{missed:?}");
    }

    fn act_unread(&mut self, unread: &Unread) {
        match *unread {
            Unread::Kill { container, lost } => {
                // What is lost of a container that no store knows, nobody can make up for.
                let cgroup = self.cgroups[container];
                let is_known = self.is_stored(cgroup);
                let lost = lost && is_known;
                self.act(&Action::Kill { container, lost });
            }
            Unread::Dying { container } => {
                // Without a mark before it, it can be told from a kill only where all was told.
                let cgroup = self.cgroups[container];
                if self.last_counts.contains_key(&cgroup) {
                    let lost = false;
                    self.act(&Action::Dying { container, lost });
                }
            }
            Unread::Group {
                container,
                count,
                recount_after,
            } => self.act(&Action::Group {
                container,
                count,
                recount_after,
                lost: 0,
            }),
            Unread::Replace { container } => self.act(&Action::Replace { container }),
        }
    }

    /// Containers that were created or removed meanwhile are found by their paths.
    fn register_removed(&mut self, backlog: &[Record]) {
        for record in backlog {
            let Record::CgroupRemoved(change) = record else {
                continue;
            };
            if !self.engine.registry.contains(change.cgroup_id) {
                let Some(known) = self.registered.get(&change.cgroup_id.0) else {
                    continue;
                };
                let id = known.id.as_str();
                self.engine.register_removed(Container {
                    id: ContainerId::new(id).unwrap(),
                    cgroup_id: change.cgroup_id,
                    details: ContainerDetails::default(),
                });
            }
        }
    }

    /// What the law is about after a restart: of a cgroup that is gone only the pod still tells,
    /// and a container that the store does not know is new. `gone` will be by then.
    fn rebase(&mut self, gone: &[u64]) {
        let here: Vec<u64> = self.cgroups.iter().copied().chain([POD]).collect();
        self.registered.retain(|cgroup, _| here.contains(cgroup));
        let not_stored: Vec<u64> = here
            .into_iter()
            .filter(|&cgroup| !self.is_stored(cgroup))
            .collect();
        for cgroup in not_stored {
            // What books below have yet to tell is entered into a new one of the pod.
            let owed = if cgroup == POD {
                self.untold_below(gone)
            } else {
                0
            };
            if let Some(registered) = self.registered.get_mut(&cgroup) {
                registered.base = self.counters[&cgroup] - owed;
                // A book of another registration may have some.
                let book = self.store.books.get(&CgroupId(cgroup));
                registered.recounts_before = book.map_or(0, |book| book.recounts);
                // What waited to be published comes first, and was counted before.
                registered.since = self.events.len() + self.store.pending.len();
            }
        }
    }

    /// What the stored books of containers have not spoken of.
    fn untold_below(&self, gone: &[u64]) -> u64 {
        let stored = self.cgroups.iter().filter(|&&cgroup| {
            // Also one of a registration that was taken back, of which the store did not hear.
            let is_waiting = !self.registered.contains_key(&cgroup) && !gone.contains(&cgroup);
            is_waiting || self.is_stored(cgroup)
        });
        let untold = |&cgroup: &u64| {
            let page = self.store.books.get(&CgroupId(cgroup))?.page?;
            Some(self.counters[&cgroup] - (page.base + page.accounted))
        };
        stored.filter_map(untold).sum()
    }

    /// Marks that are older than the counters that are read after them. One of a dying process can
    /// be told from a kill only where nothing happened while nobody watched, and stands alone here.
    fn early_marks(&mut self, early: &[(usize, bool)]) -> Vec<Record> {
        let mut records = Vec::new();
        for &(container, dying) in early {
            self.invocation += 1;
            let told = self.store.books.get(&CgroupId(self.cgroups[container]));
            let told = told.and_then(|book| Some(book.page?.base + book.page?.accounted));
            let cgroup = self.cgroups[container];
            let is_known = self.is_stored(cgroup) && told == Some(self.counters[&cgroup]);
            if dying && !is_known {
                continue;
            }
            if !dying {
                self.count(container);
            }
            let pid = self.process(container, !dying);
            records.push(self.mark(container, pid, None));
        }
        records
    }

    /// The first of a run: all cgroups and their counters, and the containers on them.
    fn scan(&mut self) {
        let now = self.now().boottime_ns;
        self.engine.learn(CgroupId(POD), CgroupId::ROOT, b"pod");
        self.engine
            .baseline(CgroupId(POD), self.counters[&POD], now);
        for cgroup in self.cgroups.clone() {
            self.engine.learn(CgroupId(cgroup), CgroupId(POD), b"c");
            self.engine
                .baseline(CgroupId(cgroup), self.counters[&cgroup], now);
        }
        self.register_all();
    }

    /// What was registered, is so again.
    fn register_all(&mut self) {
        for cgroup in self.cgroups.clone().into_iter().chain([POD]) {
            if let Some(registered) = self.registered.get(&cgroup).cloned() {
                self.register_again(cgroup, &registered.id);
            }
        }
    }

    /// Events that were not stored are gone, and what waited to be claimed.
    fn forget_unstored(&mut self) {
        self.check_processes();
        if !self.is_stored(POD) && self.store.hangs {
            // What was told and not stored, or is counted from now on: only the pod could tell.
            self.untold = u64::MAX / 2;
        }
        self.events.truncate(self.store.events);
        for event in self.events.iter().chain(&self.store.pending) {
            if let Some(pid) = event.victim.pid {
                let container = event.container.as_ref();
                let owner = container.map(|found| found.cgroup_id.0);
                self.owners.insert(pid, owner);
            }
        }
        self.waiting.clear();
        self.store.hangs = false;
    }

    /// Whether the next daemon knows of a registration.
    fn is_stored(&self, cgroup: u64) -> bool {
        let book = self.store.books.get(&CgroupId(cgroup));
        let registered = self.registered.get(&cgroup);
        book.zip(registered)
            .is_some_and(|(book, registered)| book.container_id.as_str() == registered.id)
    }

    /// Kills while nobody watches: only books that go on tell of them.
    fn lose_unseen(&mut self, container: usize, kills: u64) {
        if !self.is_stored(POD) && !self.is_stored(self.cgroups[container]) {
            self.untold = self.untold.saturating_add(kills);
        }
    }

    /// A cgroup is gone, and its last counters were not seen.
    fn lose_last(&mut self, cgroup: u64) {
        if !self.is_stored(POD) {
            self.untold = self.untold.saturating_add(self.counters[&cgroup]);
        }
    }
}
