//! Owners of the hierarchy's directories, as `lstat` has them.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use super::hierarchy::Hierarchy;
use crate::topology::owners::{MadeBy, Owners};

/// Others than the owner may make cgroups: write permission of the group, or of all.
const WRITABLE_BY_OTHERS: u32 = 0o022;

impl Owners for Hierarchy {
    fn made_in(&self, parent: &[u8]) -> MadeBy {
        let mut directory = self.mount().to_owned();
        let mut made_by = made_in(&directory);
        let names = parent.split(|&byte| byte == b'/');
        for name in names.filter(|name| !name.is_empty()) {
            if made_by != MadeBy::Root {
                break;
            }
            directory.push(OsStr::from_bytes(name));
            made_by = made_in(&directory);
        }
        made_by
    }
}

fn made_in(directory: &Path) -> MadeBy {
    let Ok(metadata) = directory.symlink_metadata() else {
        return MadeBy::Unknown;
    };
    match metadata.uid() {
        0 if metadata.mode() & WRITABLE_BY_OTHERS == 0 => MadeBy::Root,
        0 => MadeBy::Unknown,
        user => MadeBy::User(user),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn the_first_that_is_not_roots_decides() {
        if !rustix::process::geteuid().is_root() {
            println!("not run: needs root");
            return;
        }
        let mount = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(mount.path().join("a/b/c")).unwrap();
        let hierarchy = Hierarchy::at(mount.path());
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(mount.path(), open).unwrap();
        assert_eq!(hierarchy.made_in(b"/a/b/c"), MadeBy::Root);
        chown(mount.path().join("a/b"), Some(1000), None).unwrap();
        assert_eq!(hierarchy.made_in(b"/a"), MadeBy::Root);
        assert_eq!(hierarchy.made_in(b"/a/b"), MadeBy::User(1000));
        assert_eq!(hierarchy.made_in(b"/a/b/c"), MadeBy::User(1000));
        let shared = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(mount.path().join("a"), shared).unwrap();
        assert_eq!(hierarchy.made_in(b"/a"), MadeBy::Unknown);
        assert_eq!(hierarchy.made_in(b"/gone"), MadeBy::Unknown);
    }
}
