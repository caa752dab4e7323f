//! The owner of a directory of the hierarchy, as `lstat` has it.

use std::os::unix::fs::MetadataExt as _;

use super::hierarchy::Hierarchy;
use crate::topology::owners::{MadeBy, Owners};

/// Others than the owner may make cgroups: write permission of the group, or of all.
const WRITABLE_BY_OTHERS: u32 = 0o022;

impl Owners for Hierarchy {
    fn owner(&self, directory: &[u8]) -> MadeBy {
        let Ok(metadata) = self.directory(directory).symlink_metadata() else {
            return MadeBy::Unknown;
        };
        match metadata.uid() {
            0 if metadata.mode() & WRITABLE_BY_OTHERS == 0 => MadeBy::Root,
            0 => MadeBy::Unknown,
            user => MadeBy::User(user),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    #[test]
    fn a_directory_is_roots_if_nobody_else_writes_to_it() {
        if !rustix::process::geteuid().is_root() {
            println!("not run: needs root");
            return;
        }
        let mount = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(mount.path().join("a/b/c")).unwrap();
        let hierarchy = Hierarchy::at(mount.path());
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(mount.path(), open).unwrap();
        assert_eq!(hierarchy.owner(b"/"), MadeBy::Root);
        assert_eq!(hierarchy.owner(b"/a/b/c"), MadeBy::Root);
        chown(mount.path().join("a/b"), Some(1000), None).unwrap();
        assert_eq!(hierarchy.owner(b"/a"), MadeBy::Root);
        assert_eq!(hierarchy.owner(b"/a/b"), MadeBy::User(1000));
        let shared = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(mount.path().join("a"), shared).unwrap();
        assert_eq!(hierarchy.owner(b"/a"), MadeBy::Unknown);
        assert_eq!(hierarchy.owner(b"/gone"), MadeBy::Unknown);
    }
}
