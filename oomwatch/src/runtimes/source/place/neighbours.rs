//! The cgroups and processes that a runtime's containers have by its word. Two containers with one of them have none.
//! Pure.

use std::collections::{HashMap, hash_map::Entry};

use crate::{containers::sighting::RuntimeKey, id::CgroupId};

/// Most cgroups and processes that are kept. Beyond this, those without a name in their path prove nothing.
const MAX_NEIGHBOURS: usize = 65_536;

/// What each container of a runtime has.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    cgroups: HashMap<CgroupId, Holder>,
    /// The first process of each.
    processes: HashMap<RuntimeKey, u32>,
}

/// Who has a cgroup, and whether the runtime has configured it so.
#[derive(Debug)]
struct Holder {
    key: RuntimeKey,
    is_configured: bool,
}

impl Neighbours {
    /// Notes which process a container has.
    pub(super) fn mention(&mut self, key: &RuntimeKey, pid: u32) {
        if let Some(known) = self.processes.get_mut(key) {
            *known = pid;
        } else if self.processes.len() < MAX_NEIGHBOURS {
            self.processes.insert(key.clone(), pid);
        }
    }

    /// Whether another container has the process too, as in a virtual machine that several containers run in.
    pub(super) fn is_shared(&self, key: &RuntimeKey, pid: u32) -> bool {
        let mut having = self.processes.iter().filter(|(_, known)| **known == pid);
        let is_full = self.processes.len() >= MAX_NEIGHBOURS;
        is_full || having.any(|(other, _)| other != key)
    }

    /// Gives a container a cgroup, unless another container has it. The path that a runtime configures beats a process.
    pub(super) fn take(&mut self, cgroup: CgroupId, key: &RuntimeKey, is_configured: bool) -> bool {
        let has_room = self.cgroups.len() < MAX_NEIGHBOURS;
        let holder = || Holder {
            key: key.clone(),
            is_configured,
        };
        match self.cgroups.entry(cgroup) {
            Entry::Occupied(mut entry) => {
                let is_better = is_configured && !entry.get().is_configured;
                if is_better {
                    entry.insert(holder());
                }
                entry.get().key == *key
            }
            Entry::Vacant(entry) if has_room => {
                entry.insert(holder());
                true
            }
            Entry::Vacant(_) => false,
        }
    }

    /// Keeps what the containers have that are still there.
    pub(super) fn retain(&mut self, is_known: impl Fn(&RuntimeKey) -> bool) {
        self.cgroups.retain(|_, holder| is_known(&holder.key));
        self.processes.retain(|key, _| is_known(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::sighting::{Realm, RuntimeApi};

    fn key(id: &str) -> RuntimeKey {
        let realm = Realm::of(RuntimeApi::Cri);
        RuntimeKey {
            id: id.to_owned(),
            realm,
        }
    }

    #[test]
    fn a_process_of_two_is_nobodys() {
        let mut neighbours = Neighbours::default();
        neighbours.mention(&key("app"), 7);
        neighbours.mention(&key("app"), 7);
        assert!(!neighbours.is_shared(&key("app"), 7));
        neighbours.mention(&key("sandbox"), 7);
        assert!(neighbours.is_shared(&key("app"), 7) && neighbours.is_shared(&key("sandbox"), 7));
        neighbours.retain(|known| *known == key("sandbox"));
        neighbours.mention(&key("sandbox"), 7);
        assert!(!neighbours.is_shared(&key("sandbox"), 7));
    }

    #[test]
    fn a_cgroup_is_one_containers() {
        let mut neighbours = Neighbours::default();
        let mut take =
            |id: &str, is_configured| neighbours.take(CgroupId(1), &key(id), is_configured);
        assert!(take("a", false) && take("a", false));
        assert!(!take("b", false));
        assert!(take("c", true), "a configured path beats a process");
        assert!(!take("a", false) && !take("a", true));
        neighbours.retain(|known| *known != key("c"));
        assert!(neighbours.take(CgroupId(1), &key("b"), false));
    }
}
