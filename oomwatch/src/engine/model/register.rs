//! Registrations in the model: at first, late, taken back, and made again under another id.

use super::*;
use crate::late::CLAIM_NS;

/// Tombstones outlive so many.
const MAX_WAITS: u8 = 10;

impl Model {
    fn cgroup(&self, what: What) -> u64 {
        match what {
            What::Pod => POD,
            What::Container(index) => self.cgroups[index],
        }
    }

    /// As the watcher's task does: registers, and publishes what is claimed.
    pub(super) fn register(&mut self, what: What) {
        let cgroup = self.cgroup(what);
        if self.registered.contains_key(&cgroup) {
            return;
        }
        if cgroup == POD {
            // What is held back was told of another registration of it, and is not counted for this one.
            self.release_all();
        }
        let id = format!("c{}", self.next_id);
        self.next_id += 1;
        self.enter(cgroup, id);
    }

    /// The record of a kill arrives only after a registration that was made with it counted.
    pub(super) fn register_meanwhile(&mut self, what: What, container: usize) {
        self.count(container);
        let pid = self.process(container, true);
        let record = self.mark(container, pid, None);
        let (cgroup, killed) = (self.cgroup(what), self.cgroups[container]);
        // What a book below has yet to tell is in the new one's rise already.
        let is_owed = cgroup == POD && self.engine.has_account(CgroupId(killed));
        let is_new = !self.registered.contains_key(&cgroup);
        self.register(what);
        let registered = self.registered.get_mut(&cgroup).unwrap();
        if is_new && !is_owed && (cgroup == POD || cgroup == killed) {
            registered.base -= 1;
        }
        let base = registered.base;
        self.feed(record);
        let page = self.engine.reconciler.page(CgroupId(cgroup)).unwrap();
        assert!(!is_new || page.base == base, "{page:?}, and not {base}");
    }

    pub(super) fn enter(&mut self, cgroup: u64, id: String) {
        let since = self.events.len();
        self.register_late(cgroup, &id);
        let opened = self.engine.reconciler.page(CgroupId(cgroup)).unwrap().base;
        assert!(opened <= self.counters[&cgroup]);
        if self.engine.may_claim() {
            let now = self.now();
            let claimed = self.engine.claim(now);
            self.engine.admit(claimed, now);
            self.events.extend(self.engine.take_ready(now));
        }
        self.claimed(cgroup, id, since, opened);
        self.save();
    }

    /// Exactly the victims without a container that are below it are told again.
    fn claimed(&mut self, cgroup: u64, id: String, since: usize, opened: u64) {
        let below = |pid: &u32| cgroup == POD || self.processes[pid].0 == cgroup;
        let expected: HashSet<u32> = self.waiting.iter().copied().filter(below).collect();
        let claims = self.events[since..]
            .iter()
            .filter(|event| event.supersedes.is_some());
        let told: HashSet<u32> = claims
            .clone()
            .filter_map(|event| event.victim.pid)
            .collect();
        assert_eq!(told, expected, "claimed by {id}");
        let counted = claims.filter(|event| {
            event.kind == Kind::Kill && event.evidence.contains(&Evidence::Counter)
        });
        let kills: u64 = counted.map(|event| event.count).sum();
        let base = self.engine.reconciler.page(CgroupId(cgroup)).unwrap().base;
        let recounts = (opened - base).checked_sub(kills).unwrap();
        let known = self.engine.reconciler.recounts(CgroupId(cgroup));
        for pid in told {
            self.waiting.remove(&pid);
            self.owners.insert(pid, Some(cgroup));
        }
        let registered = Registered {
            id,
            base,
            recounts_before: known.checked_sub(recounts).unwrap(),
            since,
        };
        self.registered.insert(cgroup, registered);
    }

    fn container(cgroup: u64, id: &str) -> Container {
        Container {
            id: ContainerId::new(id).unwrap(),
            cgroup_id: CgroupId(cgroup),
            details: ContainerDetails::default(),
        }
    }

    pub(super) fn register_again(&mut self, cgroup: u64, id: &str) {
        let container = Self::container(cgroup, id);
        self.engine.register(container).unwrap();
    }

    pub(super) fn register_late(&mut self, cgroup: u64, id: &str) {
        let ids = self.engine.to_be_read(CgroupId(cgroup));
        let read: Vec<_> = ids.iter().map(|&id| (id, self.counters[&id.0])).collect();
        let container = Self::container(cgroup, id);
        self.engine.register_late(container, &read).unwrap();
    }

    pub(super) fn unregister(&mut self, what: What) {
        let cgroup = self.cgroup(what);
        let Some(registered) = self.registered.remove(&cgroup) else {
            return;
        };
        // What is missing from its book by now, nobody may ever speak of.
        let page = self.engine.reconciler.page(CgroupId(cgroup)).unwrap();
        self.untold += self.counters[&cgroup] - (page.base + page.accounted);
        let id = ContainerId::new(&registered.id).unwrap();
        self.engine.unregister(&id).unwrap();
        self.save();
    }

    /// A container came back on a new cgroup: under its id, if it was registered.
    pub(super) fn register_successor(&mut self, old: u64, new: u64) {
        let Some(registered) = self.registered.get(&old) else {
            return;
        };
        let id = registered.id.clone();
        if self.ring.is_none() {
            return self.enter(new, id);
        }
        let since = self.events.len();
        let registered = Registered {
            id,
            base: 0,
            recounts_before: 0,
            since,
        };
        self.registered.insert(new, registered);
    }

    pub(super) fn wait(&mut self) {
        if self.waits < MAX_WAITS {
            self.waits += 1;
            self.clock += CLAIM_NS + 1;
            self.waiting.clear();
        }
    }

    /// The registered container that a kill in a cgroup belongs to.
    fn owner(&self, cgroup: u64) -> Option<u64> {
        let mut nearest = [cgroup, POD].into_iter();
        nearest.find(|cgroup| self.registered.contains_key(cgroup))
    }

    /// Notes of whom a record's process is to be told.
    pub(super) fn note_owner(&mut self, record: &Record) {
        if let Record::Victim(victim) = record {
            let pid = victim.victim.pid.unwrap();
            let owner = self.owner(self.processes[&pid].0);
            self.owners.insert(pid, owner);
            if owner.is_none() {
                self.waiting.insert(pid);
            }
        }
    }

    /// A record finds no room that tells of `count` increments.
    pub(super) fn lose(&mut self, container: usize, count: u64) {
        if self.owner(self.cgroups[container]).is_none() {
            self.untold += count;
        }
    }
}
