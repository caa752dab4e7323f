//! Whether the cgroup of a process that a runtime names may be a container's own, by its path. Pure.

use crate::containers::names::is_runtimes_id;

/// What the path of a process's cgroup says of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// It holds the container's id. The path ends there: crun and a systemd inside make cgroups of their own below.
    Own(&'a str),
    /// It names nobody.
    Unclaimed,
    /// It is the root, or somebody else's.
    Refused,
}

/// Judges the path of a process's cgroup.
pub(super) fn judge<'a>(path: &'a str, id: &str) -> Verdict<'a> {
    if let Some(own) = up_to_id(path, id) {
        return Verdict::Own(own);
    }
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let is_root = names.clone().next().is_none();
    let is_slice = path.ends_with(".slice");
    if is_root || is_slice || names.any(|name| is_of_a_unit(name) || has_an_id(name)) {
        return Verdict::Refused;
    }
    Verdict::Unclaimed
}

/// The path down to the component that holds the id. A made-up id is unique, so the outermost counts: what is below is
/// made by the container. A name that a person chose may stand for something else above, so the innermost counts.
fn up_to_id<'a>(path: &'a str, id: &str) -> Option<&'a str> {
    let is_unique = is_runtimes_id(id);
    let holds = |name: &str| match is_unique {
        true => ids(name).any(|found| found == id),
        false => name == id && !is_of_a_unit(name) && !name.ends_with(".slice"),
    };
    let ends = path.match_indices('/').map(|(end, _)| end).skip(1);
    let mut above = ends
        .chain([path.len()])
        .filter_map(|end| path.get(..end))
        .filter(|above| above.rsplit('/').next().is_some_and(holds));
    if is_unique {
        return above.next();
    }
    let own = above.last()?;
    let below = path.get(own.len()..)?.split('/').nth(1);
    below.is_none_or(is_of_an_init).then_some(own)
}

/// Whether a cgroup below a container's is made by crun, or by a systemd that is its init.
fn is_of_an_init(name: &str) -> bool {
    name == "container" || is_of_a_unit(name) || name.ends_with(".slice")
}

/// A service, a session or another scope of the host's service manager.
fn is_of_a_unit(name: &str) -> bool {
    name.ends_with(".service") || name.ends_with(".scope")
}

/// Whether a component holds the id of some container, as `kata_{id}` that of the sandbox.
fn has_an_id(name: &str) -> bool {
    ids(name).next().is_some()
}

/// The made-up ids in a component.
fn ids(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| is_runtimes_id(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn a_path_with_the_id_is_cut_there() {
        let one = id('1');
        for (path, own) in [
            (
                format!("/machine.slice/libpod-{one}.scope/container"),
                format!("/machine.slice/libpod-{one}.scope"),
            ),
            (
                format!("/docker/{one}/docker/{one}"),
                format!("/docker/{one}"),
            ),
            (
                format!("/system.slice/a.service/libpod-payload-{one}"),
                format!("/system.slice/a.service/libpod-payload-{one}"),
            ),
        ] {
            assert_eq!(judge(&path, &one), Verdict::Own(&own), "{path}");
        }
        assert_eq!(
            judge("/default/web/init.scope", "web"),
            Verdict::Own("/default/web")
        );
        // Somebody made another one inside, or the name stands for something else.
        assert_eq!(judge("/web/api", "web"), Verdict::Unclaimed);
        // The namespace has the container's name.
        assert_eq!(judge("/web/web", "web"), Verdict::Own("/web/web"));
    }

    #[test]
    fn what_is_somebody_elses_is_refused() {
        let (one, two) = (id('1'), id('2'));
        for path in [
            "/",
            "",
            "/system.slice",
            "/init.scope",
            "/system.slice/sshd.service",
            "/system.slice/sshd.service/below",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope",
            &format!("/kubepods/pod1/kata_{two}"),
            &format!("/docker/{two}/ours"),
        ] {
            assert_eq!(judge(path, &one), Verdict::Refused, "{path}");
        }
        // A person may call a container like a unit.
        let named = judge("/system.slice/sshd.service", "sshd.service");
        assert_eq!(named, Verdict::Refused);
    }

    #[test]
    fn what_names_nobody_is_unclaimed() {
        assert_eq!(judge("/ecs/task-1/app", &id('1')), Verdict::Unclaimed);
        assert_eq!(judge("/elsewhere", "web"), Verdict::Unclaimed);
    }

    proptest! {
        #[test]
        fn an_own_path_is_a_part_that_ends_in_the_id(path in "(/(web|w|sshd.service|[0-9a-f]{64}|a.slice)){0,5}") {
            for id in ["web", &id('1')] {
                if let Verdict::Own(own) = judge(&path, id) {
                    prop_assert!(path.starts_with(own));
                    prop_assert!(own.ends_with(id));
                    prop_assert!(own.len() > 1);
                }
            }
        }
    }
}
