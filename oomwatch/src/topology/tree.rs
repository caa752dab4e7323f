//! The tree of cgroups. It turns an id into a path and gives the way upwards, also after the cgroup is gone.
//!
//! A scan and the kernel's creations and removals feed it in any order: a cgroup is the same whichever came first.
//! Removed cgroups stay as tombstones, bounded in time and number. Pure: no file access, and time is an argument.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};

use super::name::Name;
use crate::id::{CgroupId, into_printable};

/// How long a removed cgroup is remembered: a late event or a slow consumer can still
/// resolve it.
pub(crate) const TOMBSTONE_NS: u64 = 600 * 1_000_000_000;
/// Most removed cgroups that are remembered.
pub(crate) const MAX_TOMBSTONES: usize = 16_384;
/// Levels of the longest path: a deeper cgroup has none. The kernel takes no path over 4,096 bytes. Without the
/// bound, the owner of a delegated cgroup could have paths made that take longer than all else.
const MAX_PATH_LEVELS: usize = 256;
/// Room for a path as Kubernetes makes them; a longer one takes more.
const PATH_BYTES: usize = 256;

#[derive(Debug)]
struct Node {
    parent: CgroupId,
    name: Name,
    live_children: u32,
    removed: bool,
}

/// All known cgroups below a root.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The hierarchy's root; in a foreign cgroup namespace, the cgroup that is mounted as such.
    root: CgroupId,
    nodes: HashMap<CgroupId, Node>,
    /// Removed cgroups by time of removal.
    tombstones: VecDeque<(u64, CgroupId)>,
    /// When the youngest of the forgotten tombstones was made; 0 where there is none.
    forgotten_ns: u64,
    /// Cgroups by their parent, while the parent is unknown.
    orphans: HashMap<CgroupId, Vec<CgroupId>>,
    /// Cgroups whose parent became known since the last [`Tree::take_placed`].
    placed: Vec<CgroupId>,
}

impl Tree {
    pub(crate) fn new(root: CgroupId) -> Self {
        Self {
            root,
            nodes: HashMap::new(),
            tombstones: VecDeque::new(),
            forgotten_ns: 0,
            orphans: HashMap::new(),
            placed: Vec::new(),
        }
    }

    /// Adds a cgroup; tells whether it was new. The root is not added.
    pub(crate) fn insert(&mut self, id: CgroupId, parent: CgroupId, name: &[u8]) -> bool {
        if id == self.root || self.nodes.contains_key(&id) {
            return false;
        }
        let children = self.orphans.remove(&id).unwrap_or_default();
        let live = children.iter().filter(|&&child| self.is_live(child));
        let node = Node {
            parent,
            name: Name::new(name),
            live_children: u32::try_from(live.count()).unwrap_or(u32::MAX),
            removed: false,
        };
        self.nodes.insert(id, node);
        self.placed.extend(children);
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.live_children += 1;
        } else if parent != self.root {
            self.orphans.entry(parent).or_default().push(id);
        }
        true
    }

    /// Takes the cgroups that are placed now: their parent, or a cgroup above it, became known after them. Those
    /// above come before those below.
    pub(crate) fn take_placed(&mut self) -> Vec<CgroupId> {
        if self.placed.is_empty() {
            return Vec::new();
        }
        let mut below: HashMap<CgroupId, Vec<CgroupId>> = HashMap::new();
        for (&id, node) in &self.nodes {
            below.entry(node.parent).or_default().push(id);
        }
        let mut placed = std::mem::take(&mut self.placed);
        placed.retain(|id| self.nodes.contains_key(id));
        let mut next = 0;
        while let Some(id) = placed.get(next) {
            next += 1;
            placed.extend(below.remove(id).unwrap_or_default());
        }
        placed
    }

    /// Makes a cgroup a tombstone; tells whether it was alive.
    pub(crate) fn remove(&mut self, id: CgroupId, now_ns: u64) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        if node.removed {
            return false;
        }
        node.removed = true;
        let parent = node.parent;
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.live_children = parent.live_children.saturating_sub(1);
        }
        self.tombstones.push_back((now_ns, id));
        true
    }

    /// Forgets tombstones that are too old or too many, and returns them.
    ///
    /// A parent is removed after its children and so is forgotten after them: no
    /// remembered cgroup loses its path.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Vec<CgroupId> {
        let mut expired = Vec::new();
        while let Some(&(removed_ns, id)) = self.tombstones.front() {
            let too_many = self.tombstones.len() > MAX_TOMBSTONES;
            if !too_many && now_ns.saturating_sub(removed_ns) < TOMBSTONE_NS {
                break;
            }
            self.tombstones.pop_front();
            if let Some(node) = self.nodes.remove(&id)
                && let Some(orphans) = self.orphans.get_mut(&node.parent)
            {
                orphans.retain(|orphan| *orphan != id);
                if orphans.is_empty() {
                    self.orphans.remove(&node.parent);
                }
            }
            self.forgotten_ns = self.forgotten_ns.max(removed_ns);
            expired.push(id);
        }
        expired
    }

    /// Whether a cgroup that was removed at `since_ns` or later is forgotten already.
    pub(crate) fn has_forgotten_since(&self, since_ns: u64) -> bool {
        self.forgotten_ns >= since_ns
    }

    /// The root of the tree.
    pub(crate) fn root(&self) -> CgroupId {
        self.root
    }

    /// Whether the cgroup is known and not removed.
    pub(crate) fn is_live(&self, id: CgroupId) -> bool {
        self.nodes.get(&id).is_some_and(|node| !node.removed)
    }

    /// Whether this is the root of the tree.
    pub(crate) fn is_root(&self, id: CgroupId) -> bool {
        id == self.root
    }

    /// Whether the cgroup is known, alive or as a tombstone.
    pub(crate) fn contains(&self, id: CgroupId) -> bool {
        id == self.root || self.nodes.contains_key(&id)
    }

    /// Whether a known cgroup has no live children.
    pub(crate) fn is_leaf(&self, id: CgroupId) -> bool {
        self.nodes
            .get(&id)
            .is_some_and(|node| node.live_children == 0)
    }

    /// The parent; `None` for the root and for unknown cgroups.
    pub(crate) fn parent(&self, id: CgroupId) -> Option<CgroupId> {
        self.nodes.get(&id).map(|node| node.parent)
    }

    /// The cgroup itself and its ancestors, the root last. No way up is longer than the number of cgroups: more
    /// levels would be a loop made of wrong records.
    pub(crate) fn lineage(&self, id: CgroupId) -> impl Iterator<Item = CgroupId> + '_ {
        std::iter::successors(Some(id), |&id| self.parent(id)).take(self.nodes.len() + 1)
    }

    /// Those of `ids` that are in `tops` or below. Visits each cgroup once, however deep it is.
    pub(crate) fn within(
        &self,
        ids: impl IntoIterator<Item = CgroupId>,
        tops: &HashSet<CgroupId>,
    ) -> HashSet<CgroupId> {
        let mut known = HashMap::new();
        let mut is_within = |id| {
            let mut passed = Vec::new();
            let mut answer = false;
            for at in self.lineage(id) {
                let before = known.get(&at).copied();
                answer = before.unwrap_or_else(|| tops.contains(&at));
                if before.is_some() || answer {
                    break;
                }
                passed.push(at);
            }
            known.insert(id, answer);
            known.extend(passed.into_iter().map(|at| (at, answer)));
            answer
        };
        ids.into_iter().filter(|&id| is_within(id)).collect()
    }

    /// Ids of all cgroups that are not removed.
    pub(crate) fn live(&self) -> impl Iterator<Item = CgroupId> + '_ {
        self.nodes
            .iter()
            .filter(|(_, node)| !node.removed)
            .map(|(&id, _)| id)
    }

    /// As [`Self::live`], parents before their children. Visits each cgroup once, however deep it is.
    pub(crate) fn live_parents_first(&self) -> Vec<CgroupId> {
        let mut depths: HashMap<CgroupId, usize> = HashMap::new();
        let mut live: Vec<(usize, CgroupId)> = Vec::with_capacity(self.live_count());
        for id in self.live() {
            let unknown: Vec<CgroupId> = self
                .lineage(id)
                .take_while(|at| !depths.contains_key(at))
                .collect();
            let top = unknown.last().and_then(|&top| self.parent(top));
            let mut depth = top.and_then(|top| depths.get(&top)).copied().unwrap_or(0);
            for at in unknown.into_iter().rev() {
                depth += 1;
                depths.insert(at, depth);
            }
            live.push((depths.get(&id).copied().unwrap_or(0), id));
        }
        live.sort_unstable();
        live.into_iter().map(|(_, id)| id).collect()
    }

    /// Number of cgroups that are not removed.
    pub(crate) fn live_count(&self) -> usize {
        self.nodes.len() - self.tombstones.len()
    }

    /// The path from the root of the hierarchy, `/` for the root itself; `None` where an
    /// ancestor is unknown, and for more than [`MAX_PATH_LEVELS`] levels.
    pub(crate) fn path(&self, id: CgroupId) -> Option<Vec<u8>> {
        self.path_within(id, MAX_PATH_LEVELS)
    }

    /// The path, if it has so many levels at most.
    pub(crate) fn path_within(&self, id: CgroupId, levels: usize) -> Option<Vec<u8>> {
        if id == self.root {
            return Some(b"/".to_vec());
        }
        let mut path = Vec::with_capacity(PATH_BYTES);
        self.write_path(id, levels, &mut path)?;
        Some(path)
    }

    fn write_path(&self, id: CgroupId, levels: usize, path: &mut Vec<u8>) -> Option<()> {
        if id == self.root {
            return Some(());
        }
        let node = self.nodes.get(&id)?;
        self.write_path(node.parent, levels.checked_sub(1)?, path)?;
        path.push(b'/');
        node.name.append_to(path);
        Some(())
    }

    /// The path as printable text.
    pub(crate) fn printable_path(&self, id: CgroupId) -> Option<String> {
        self.path(id).map(into_printable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new(CgroupId::ROOT);
        assert!(tree.insert(CgroupId(2), CgroupId::ROOT, b"pod"));
        assert!(tree.insert(CgroupId(3), CgroupId(2), b"app"));
        tree
    }

    #[test]
    fn paths_go_from_the_root() {
        let tree = tree();
        assert_eq!(
            tree.path(CgroupId(3)).as_deref(),
            Some(b"/pod/app".as_slice())
        );
        assert_eq!(tree.path(CgroupId::ROOT).as_deref(), Some(b"/".as_slice()));
        assert_eq!(tree.path(CgroupId(9)), None);
    }

    #[test]
    fn a_cgroup_seen_twice_is_one() {
        let mut tree = tree();
        assert!(!tree.insert(CgroupId(3), CgroupId(2), b"app"));
        assert_eq!(tree.live_count(), 2);
        assert!(!tree.is_leaf(CgroupId(2)));
    }

    #[test]
    fn a_parent_that_is_learnt_late_places_what_is_below_it() {
        let mut tree = Tree::new(CgroupId::ROOT);
        tree.insert(CgroupId(5), CgroupId(4), b"c");
        tree.insert(CgroupId(4), CgroupId(3), b"b");
        tree.insert(CgroupId(6), CgroupId(3), b"d");
        tree.remove(CgroupId(6), 1);
        assert_eq!(tree.take_placed(), [CgroupId(5)]);
        assert_eq!(tree.path(CgroupId(5)), None);
        tree.insert(CgroupId(3), CgroupId::ROOT, b"a");
        let mut placed = tree.take_placed();
        placed[..2].sort_unstable();
        assert_eq!(placed, [CgroupId(4), CgroupId(6), CgroupId(5)]);
        assert!(!tree.is_leaf(CgroupId(3)) && !tree.is_leaf(CgroupId(4)));
        assert_eq!(
            tree.path(CgroupId(5)).as_deref(),
            Some(b"/a/b/c".as_slice())
        );
        assert_eq!(tree.take_placed(), []);
    }

    #[test]
    fn removed_cgroups_keep_their_path_for_a_while() {
        let mut tree = tree();
        assert!(tree.remove(CgroupId(3), 10));
        assert!(!tree.remove(CgroupId(3), 11));
        assert!(tree.is_leaf(CgroupId(2)));
        assert!(tree.path(CgroupId(3)).is_some());
        assert!(tree.expire(10 + TOMBSTONE_NS - 1).is_empty());
        assert_eq!(tree.expire(10 + TOMBSTONE_NS), [CgroupId(3)]);
        assert_eq!(tree.path(CgroupId(3)), None);
        assert!(tree.has_forgotten_since(10) && !tree.has_forgotten_since(11));
    }

    #[test]
    fn tombstones_are_bounded_in_number() {
        let mut tree = Tree::new(CgroupId::ROOT);
        for id in 0..MAX_TOMBSTONES as u64 + 5 {
            tree.insert(CgroupId(id + 2), CgroupId::ROOT, b"x");
            tree.remove(CgroupId(id + 2), 0);
        }
        assert_eq!(tree.expire(0).len(), 5);
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let mut tree = Tree::new(CgroupId::ROOT);
        tree.insert(CgroupId(2), CgroupId(3), b"a");
        tree.insert(CgroupId(3), CgroupId(2), b"b");
        assert_eq!(tree.path(CgroupId(2)), None);
        assert_eq!(tree.lineage(CgroupId(2)).count(), 3);
        assert_eq!(tree.live_parents_first().len(), 2);
        let within = tree.within([CgroupId(2)], &HashSet::from([CgroupId(9)]));
        assert_eq!(within, HashSet::new());
    }

    /// A chain of cgroups from 2 on, each in the one before.
    fn chain(levels: u64) -> Tree {
        let mut tree = Tree::new(CgroupId::ROOT);
        for id in 2..levels + 2 {
            tree.insert(CgroupId(id), CgroupId(id - 1), b"d");
        }
        tree
    }

    #[test]
    fn the_way_up_has_no_limit_and_a_path_has() {
        let tree = chain(10_000);
        let lowest = CgroupId(10_001);
        assert_eq!(tree.lineage(lowest).last(), Some(CgroupId::ROOT));
        assert_eq!(tree.path(lowest), None);
        assert_eq!(tree.path(CgroupId(257)).map(|path| path.len()), Some(512));
        assert_eq!(tree.path(CgroupId(258)), None);
        assert_eq!(tree.path_within(CgroupId(4), 2), None);
    }

    #[test]
    fn what_is_below_others_is_found_in_one_pass() {
        let mut tree = chain(10_000);
        tree.insert(CgroupId(20_000), CgroupId(5), b"beside");
        let tops = HashSet::from([CgroupId(7)]);
        let within = tree.within(tree.live(), &tops);
        assert_eq!(within.len(), 10_001 - 6);
        assert!(within.contains(&CgroupId(7)) && within.contains(&CgroupId(10_001)));
        assert!(!within.contains(&CgroupId(6)) && !within.contains(&CgroupId(20_000)));
    }

    #[test]
    fn parents_come_before_their_children() {
        let mut tree = chain(10_000);
        tree.insert(CgroupId(20_000), CgroupId::ROOT, b"beside");
        let order = tree.live_parents_first();
        assert_eq!(order.len(), 10_001);
        assert_eq!(
            order.get(..3).unwrap(),
            [CgroupId(2), CgroupId(20_000), CgroupId(3)]
        );
        assert_eq!(order.last(), Some(&CgroupId(10_001)));
    }
}
