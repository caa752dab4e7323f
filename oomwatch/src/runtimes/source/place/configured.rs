//! The directories that a runtime's configured path may mean. Pure.

use crate::containers::sighting::Owner;

/// The cgroup that crun makes below a container's own.
const CRUN_CHILD: &str = "/container";
/// Longest path that the kernel takes.
const MAX_PATH_BYTES: usize = 4096;

/// The paths that `configured` may mean, from the root of the runtime's own hierarchy: as a plain path, and as
/// systemd's `slice:prefix:name`. A relative plain path is left out, because its base is not known.
pub(super) fn candidates(
    configured: &str,
    id: &str,
    owner: Owner,
) -> impl Iterator<Item = String> + use<> {
    let plain = is_plain(configured).then(|| without_crun_child(configured, id).to_owned());
    let unit = systemd(configured, owner).filter(|path| is_plain(path));
    plain.into_iter().chain(unit)
}

/// Whether a path leads to a cgroup below the root, and not out of it.
pub(crate) fn is_plain(path: &str) -> bool {
    let Some(names) = path.strip_prefix('/') else {
        return false;
    };
    path.len() <= MAX_PATH_BYTES
        && names
            .split('/')
            .all(|name| !matches!(name, "" | "." | ".."))
        && !path.contains('\0')
}

/// A path below another, which may be the root.
pub(super) fn joined(root: &str, path: &str) -> String {
    [root, path].concat()
}

/// Podman reports crun's inner cgroup, where the container's processes are. The outer one is the container.
fn without_crun_child<'a>(path: &'a str, id: &str) -> &'a str {
    let outer = path.strip_suffix(CRUN_CHILD);
    outer
        .filter(|outer| {
            outer
                .rsplit('/')
                .next()
                .is_some_and(|name| name.contains(id))
        })
        .unwrap_or(path)
}

/// The scope that runc and crun make for `slice:prefix:name`.
fn systemd(configured: &str, owner: Owner) -> Option<String> {
    let mut parts = configured.split(':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || name.is_empty() {
        return None;
    }
    let (manager, default) = match owner {
        Owner::Host => (String::new(), "system.slice"),
        Owner::User(uid) => (
            format!("/user.slice/user-{uid}.slice/user@{uid}.service"),
            "user.slice",
        ),
    };
    let slice = if slice.is_empty() { default } else { slice };
    let slice = expanded(slice)?;
    let dash = if prefix.is_empty() { "" } else { "-" };
    Some(format!("{manager}{slice}/{prefix}{dash}{name}.scope"))
}

/// A slice with those above it: `a-b.slice` is `/a.slice/a-b.slice`, and `-.slice` is the root.
fn expanded(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    if name.contains('/') || name.split('-').any(str::is_empty) {
        return None;
    }
    let ends = name.match_indices('-').map(|(end, _)| end);
    let names = ends.chain([name.len()]).filter_map(|end| name.get(..end));
    let path = names
        .map(|name| format!("/{name}.slice"))
        .collect::<String>();
    (path.len() <= MAX_PATH_BYTES).then_some(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meant(configured: &str, owner: Owner) -> Vec<String> {
        candidates(configured, "web", owner).collect()
    }

    #[test]
    fn systemds_form_is_expanded() {
        let host = |configured: &str| meant(configured, Owner::Host);
        assert_eq!(
            host("a-b-c.slice:cri:x"),
            ["/a.slice/a-b.slice/a-b-c.slice/cri-x.scope"]
        );
        assert_eq!(host("-.slice:docker:x"), ["/docker-x.scope"]);
        assert_eq!(host(":docker:x"), ["/system.slice/docker-x.scope"]);
        assert_eq!(host("system.slice::x"), ["/system.slice/x.scope"]);
        let user = meant("user.slice:libpod:x", Owner::User(1000));
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(user, [format!("{manager}/user.slice/libpod-x.scope")]);
        assert_eq!(meant(":libpod:x", Owner::User(1000)), user);
    }

    #[test]
    fn plain_paths_are_taken_as_they_are() {
        assert_eq!(meant("/default/web", Owner::Host), ["/default/web"]);
        // Both readings are tried.
        assert_eq!(meant("/a.slice:b:c", Owner::Host), ["/a.slice:b:c"]);
        let crun = "/machine.slice/libpod-web.scope/container";
        assert_eq!(
            meant(crun, Owner::Host),
            ["/machine.slice/libpod-web.scope"]
        );
        assert_eq!(meant("/shop/container", Owner::Host), ["/shop/container"]);
    }

    #[test]
    fn what_is_no_path_means_nothing() {
        for bad in [
            "",
            "/",
            "a/b",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a//b",
            "/a/",
            "a:b",
            "a:b:c:d",
            "a:b:c",
            "--.slice:b:c",
            "a--b.slice:b:c",
            "-a.slice:b:c",
            "a/b.slice:b:c",
            "a.slice:b:",
            "a.slice:../..:c",
            "a.slice:b:c/../../..",
        ] {
            assert_eq!(meant(bad, Owner::Host), Vec::<String>::new(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_root(configured in "[a-c./:\\-]{0,24}|.*", uid: u32) {
            for owner in [Owner::Host, Owner::User(uid)] {
                for path in candidates(&configured, "a", owner) {
                    prop_assert!(is_plain(&path), "{path}");
                }
            }
        }

        #[test]
        fn a_slice_is_below_those_that_its_name_has(parts in prop::collection::vec("[a-z]{1,4}", 1..6)) {
            let slice = format!("{}.slice", parts.join("-"));
            let path = expanded(&slice).unwrap();
            let ends_with_it = path.ends_with(&format!("/{slice}"));
            prop_assert!(ends_with_it);
            prop_assert_eq!(path.matches('/').count(), parts.len());
        }
    }
}
