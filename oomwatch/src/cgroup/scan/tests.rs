use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use rustix::fs::{Mode, OFlags};

use super::*;

fn open(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn root(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn id(path: &Path) -> CgroupId {
    CgroupId(rustix::fs::stat(path).unwrap().st_ino)
}

/// A directory with these below it.
fn directories(paths: &[&str]) -> tempfile::TempDir {
    let mount = tempfile::tempdir().unwrap();
    for path in paths {
        fs::create_dir_all(mount.path().join(path)).unwrap();
    }
    fs::write(mount.path().join("file"), "").unwrap();
    mount
}

/// The paths that were found, parents first, and the skipped ones.
fn found(
    max_depth: usize,
    mount: &Path,
    open: impl Fn(BorrowedFd<'_>, &CStr) -> Result<OwnedFd, Errno>,
) -> (BTreeSet<String>, Skipped) {
    let mut paths = BTreeMap::from([(id(mount), String::new())]);
    let skipped = scan_to(max_depth, &root(mount), open, |id, parent, name| {
        let above = paths.get(&parent).expect("its parent came before");
        let path = format!("{above}/{}", String::from_utf8_lossy(name));
        paths.insert(id, path);
    })
    .unwrap();
    paths.remove(&id(mount));
    (paths.into_values().collect(), skipped)
}

const TREE: &[&str] = &["a/b/c", "a/b/d/e", "a/f", "g/h/i", "j", "k/l/m/n"];

fn all_of_tree() -> BTreeSet<String> {
    let all = "a a/b a/b/c a/b/d a/b/d/e a/f g g/h g/h/i j k k/l k/l/m k/l/m/n";
    all.split(' ').map(|path| format!("/{path}")).collect()
}

#[test]
fn every_directory_is_found_and_nothing_else() {
    let mount = directories(TREE);
    let (paths, skipped) = found(MAX_DEPTH, mount.path(), open);
    assert_eq!(paths, all_of_tree());
    assert_eq!(skipped, Skipped::default());
}

#[test]
fn one_that_cannot_be_opened_costs_its_own_subtree() {
    for (error, may_pass) in [
        (Errno::ACCESS, false),
        (Errno::PERM, false),
        (Errno::MFILE, true),
        (Errno::NFILE, true),
        (Errno::NOMEM, true),
        (Errno::IO, true),
    ] {
        let mount = directories(TREE);
        let failing = |at: BorrowedFd<'_>, name: &CStr| match name {
            name if name == c"b" => Err(error),
            _ => open(at, name),
        };
        let (paths, skipped) = found(MAX_DEPTH, mount.path(), failing);
        let mut rest = all_of_tree();
        rest.retain(|path| !path.starts_with("/a/b/"));
        assert_eq!(paths, rest);
        assert_eq!(skipped.below, [id(&mount.path().join("a/b"))]);
        assert_eq!(skipped.failed, 1);
        assert_eq!(
            skipped.first_failed,
            Some((b"/a/b".to_vec(), std::io::Error::from(error).to_string()))
        );
        assert_eq!(skipped.may_pass, may_pass, "{error}");
    }
}

#[test]
fn one_that_is_gone_is_not_skipped() {
    let mount = directories(TREE);
    let failing = |at: BorrowedFd<'_>, name: &CStr| match name {
        name if name == c"k" => Err(Errno::NOENT),
        _ => open(at, name),
    };
    let (paths, skipped) = found(MAX_DEPTH, mount.path(), failing);
    assert!(paths.contains("/k") && !paths.contains("/k/l"));
    assert_eq!(skipped, Skipped::default());
}

#[test]
fn where_the_way_up_fails_it_is_gone_down_again() {
    let mount = directories(TREE);
    let failing = |at: BorrowedFd<'_>, name: &CStr| match name {
        name if name == c".." => Err(Errno::STALE),
        _ => open(at, name),
    };
    let (paths, skipped) = found(MAX_DEPTH, mount.path(), failing);
    assert_eq!(paths, all_of_tree());
    assert_eq!(skipped, Skipped::default());
}

/// From some point on there is no descriptor.
#[test]
fn whatever_fails_the_rest_is_found_or_skipped() {
    for allowed in 0..12 {
        let mount = directories(TREE);
        let left = Cell::new(allowed);
        let failing = |at: BorrowedFd<'_>, name: &CStr| {
            left.set(i32::max(left.get() - 1, -1));
            if left.get() < 0 {
                return Err(Errno::MFILE);
            }
            open(at, name)
        };
        let (paths, skipped) = found(MAX_DEPTH, mount.path(), failing);
        let skips: Vec<String> = all_of_tree()
            .into_iter()
            .filter(|path| skipped.below.contains(&id(&mount.path().join(&path[1..]))))
            .collect();
        for path in all_of_tree() {
            let is_skipped = skips.iter().any(|top| path.starts_with(&format!("{top}/")));
            assert!(
                paths.contains(&path) || is_skipped,
                "{allowed}: {path} is neither found nor below {skips:?}"
            );
        }
        assert_eq!(skipped.may_pass, skipped.failed > 0);
    }
}

#[test]
fn what_is_too_deep_is_counted_and_named() {
    let mount = directories(TREE);
    let (paths, skipped) = found(2, mount.path(), open);
    let mut rest = all_of_tree();
    rest.retain(|path| path.matches('/').count() <= 2);
    assert_eq!(paths, rest);
    assert_eq!(skipped.too_deep, 3, "a/b, g/h and k/l");
    assert_eq!(skipped.below.len(), 3);
    assert!(skipped.first_too_deep.is_some());
    assert!(!skipped.may_pass && skipped.failed == 0);
}

/// Deeper than any path, and than a stack that is used for each level.
#[test]
fn a_chain_of_directories_needs_neither_stack_nor_descriptors() {
    let mount = directories(&[]);
    let levels = 5_000;
    let mut at = root(mount.path());
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
        at = open(at.as_fd(), c"d").unwrap();
    }
    let mut count = 0;
    let most = Cell::new(0);
    let counting = |at: BorrowedFd<'_>, name: &CStr| {
        let opened = open(at, name)?;
        most.set(most.get().max(std::os::fd::AsRawFd::as_raw_fd(&opened)));
        Ok(opened)
    };
    let skipped = scan(&root(mount.path()), counting, |_, _, _| count += 1).unwrap();
    assert_eq!((count, skipped), (levels, Skipped::default()));
    // Other tests have descriptors too, but not thousands.
    assert!(most.get() < 1_000, "{}", most.get());
    for _ in 0..levels {
        at = open(at.as_fd(), c"..").unwrap();
        rustix::fs::unlinkat(&at, c"d", AtFlags::REMOVEDIR).unwrap();
    }
}

#[test]
fn a_long_path_is_cut() {
    let name = "x".repeat(200);
    let mount = directories(&[&format!("{name}/{name}/{name}/a")]);
    let (_, skipped) = found(2, mount.path(), open);
    let path = skipped.first_too_deep.unwrap();
    assert!(path.len() < 300 && path.ends_with("…".as_bytes()));
}
