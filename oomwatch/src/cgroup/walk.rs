//! A walk over the whole hierarchy as plain data: the cgroups that exist, and the known ones that are missing.
//!
//! A walk may run on any thread and takes its time. Records may bring newer changes before the tree takes it in. It
//! knows neither the tree nor the ring.

use std::{collections::HashSet, io, time::Duration};

use super::hierarchy::Hierarchy;
use crate::{
    id::CgroupId,
    topology::{
        skipped::Skipped,
        walk::{LiveCgroup, Walk},
    },
};

/// How long a record may come before its directory shows up. `cgroup_mkdir()` fires the tracepoint, then activates
/// the directory.
const SHOWS_UP: Duration = Duration::from_millis(100);

/// Looks once, for a tree that has no other news meanwhile.
pub(crate) fn once(hierarchy: &Hierarchy, known: Vec<CgroupId>, began_ns: u64) -> io::Result<Walk> {
    let (found, skipped) = look(hierarchy)?;
    Ok(Walk {
        began_ns,
        missing: not_among(known, &found),
        found,
        skipped,
    })
}

/// Looks once, and a second time for what is missing. Blocks.
pub(crate) fn careful(
    hierarchy: &Hierarchy,
    known: Vec<CgroupId>,
    began_ns: u64,
) -> io::Result<Walk> {
    confirmed(once(hierarchy, known, began_ns)?, || {
        std::thread::sleep(SHOWS_UP);
        look(hierarchy)
    })
}

/// Keeps only those missing cgroups that a second look does not find either.
fn confirmed(
    mut walk: Walk,
    look_again: impl FnOnce() -> io::Result<(Vec<LiveCgroup>, Skipped)>,
) -> io::Result<Walk> {
    if !walk.missing.is_empty() {
        let (found, skipped) = look_again()?;
        walk.missing = not_among(walk.missing, &found);
        walk.skipped.add(skipped);
    }
    Ok(walk)
}

fn look(hierarchy: &Hierarchy) -> io::Result<(Vec<LiveCgroup>, Skipped)> {
    let mut found = Vec::new();
    let skipped = hierarchy.scan(|id, parent, name| {
        let name = name.into();
        found.push(LiveCgroup { id, parent, name });
    })?;
    Ok((found, skipped))
}

fn not_among(mut known: Vec<CgroupId>, found: &[LiveCgroup]) -> Vec<CgroupId> {
    let found: HashSet<CgroupId> = found.iter().map(|cgroup| cgroup.id).collect();
    known.retain(|id| !found.contains(id));
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: u64) -> LiveCgroup {
        LiveCgroup {
            id: CgroupId(id),
            parent: CgroupId::ROOT,
            name: b"a".as_slice().into(),
        }
    }

    #[test]
    fn what_shows_up_late_is_not_missing() {
        let first = Walk {
            began_ns: 1,
            found: vec![found(2)],
            missing: vec![CgroupId(3), CgroupId(4)],
            skipped: Skipped::default(),
        };
        let again = || Ok((vec![found(2), found(4)], Skipped::default()));
        let walk = confirmed(first, again).unwrap();
        assert_eq!(walk.missing, [CgroupId(3)]);
    }

    #[test]
    fn what_only_the_second_look_skips_is_skipped() {
        let first = Walk {
            missing: vec![CgroupId(3)],
            ..Walk::default()
        };
        let skipped = Skipped {
            below: vec![CgroupId(2)],
            failed: 1,
            may_pass: true,
            ..Skipped::default()
        };
        let again = || Ok((vec![found(2)], skipped.clone()));
        let walk = confirmed(first, again).unwrap();
        assert_eq!(walk.missing, [CgroupId(3)]);
        assert_eq!(walk.skipped, skipped);
    }

    #[test]
    fn where_nothing_is_missing_nobody_looks_again() {
        let first = Walk {
            began_ns: 1,
            found: vec![found(2)],
            missing: Vec::new(),
            skipped: Skipped::default(),
        };
        let walk = confirmed(first.clone(), || panic!("a second look")).unwrap();
        assert_eq!(walk, first);
    }

    #[test]
    fn directories_are_found_and_others_are_missing() {
        let mount = tempfile::tempdir().unwrap();
        let directory = mount.path().join("a");
        std::fs::create_dir(&directory).unwrap();
        let id = CgroupId(rustix::fs::stat(&directory).unwrap().st_ino);
        let gone = CgroupId(id.0.wrapping_add(1));
        let hierarchy = Hierarchy::at(mount.path());
        let walk = once(&hierarchy, vec![id, gone], 7).unwrap();
        let [found] = walk.found.as_slice() else {
            panic!("one directory: {walk:?}");
        };
        assert_eq!((found.id, &*found.name), (id, b"a".as_slice()));
        assert_eq!((walk.began_ns, walk.missing), (7, vec![gone]));
    }
}
