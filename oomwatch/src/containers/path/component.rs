//! One path component at a time: which runtime, if any, names its cgroups like this.
//!
//! One small function per family of layouts, each looking at a component and at most at the two
//! above it. All of them borrow; a [`PathMatch`] becomes owned text only when it is the answer.

use std::borrow::Cow;

use super::{Kind, PathIdentity, Qos, Runtime};

/// One component of a path and everything above it, without surrounding slashes.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    above: &'a str,
}

impl<'a> Place<'a> {
    /// The last component of `path`, `None` for the root.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let above = above.trim_end_matches('/');
        (!name.is_empty()).then_some(Self { name, above })
    }

    pub(super) fn parent(self) -> Option<Self> {
        Self::of(self.above)
    }

    fn parent_name(self) -> &'a str {
        self.parent().map_or("", |parent| parent.name)
    }

    fn depth(self) -> usize {
        let above = self.above.split('/').filter(|name| !name.is_empty());
        above.count() + 1
    }
}

/// A match that still borrows from the path.
pub(super) struct PathMatch<'a> {
    pub(super) kind: Kind,
    pub(super) runtime: Option<Runtime>,
    id: Cow<'a, str>,
}

impl<'a> PathMatch<'a> {
    fn new(kind: Kind, runtime: impl Into<Option<Runtime>>, id: impl Into<Cow<'a, str>>) -> Self {
        Self {
            kind,
            runtime: runtime.into(),
            id: id.into(),
        }
    }

    /// Owns the match and adds what the components above `place` say.
    pub(super) fn into_identity(self, place: Place<'_>) -> PathIdentity {
        let pod = nearest_pod(place);
        PathIdentity {
            kind: self.kind,
            name: self.name().map(str::to_owned),
            runtime: self.runtime,
            pod_uid: pod.map(|pod| pod.uid.replace('_', "-")),
            qos: pod.map(|pod| pod.qos),
            depth: place.depth(),
            id: self.id.into_owned(),
        }
    }

    fn name(&self) -> Option<&str> {
        match (self.kind, self.runtime) {
            (Kind::Pod | Kind::Sandbox | Kind::Build | Kind::Monitor | Kind::Overhead, _) => None,
            (_, Some(Runtime::Libvirt)) => libvirt_guest(&self.id).or(Some(&self.id)),
            _ => (!is_container_id(&self.id)).then_some(&self.id),
        }
    }
}

/// What owns the cgroup at `place`. The order matters where a looser rule would also match.
pub(super) fn classify(place: Place<'_>) -> Option<PathMatch<'_>> {
    if is_excluded(place.name) {
        return None;
    }
    pod(place)
        .or_else(|| monitor(place.name))
        .or_else(|| buildah(place.name))
        .or_else(|| kata(place))
        .or_else(|| engine_scope(place.name))
        .or_else(|| unexpanded_slice(place.name))
        .or_else(|| prefixed_directory(place))
        .or_else(|| lxc(place))
        .or_else(|| bare_id(place))
        .or_else(|| buildkit(place))
        .or_else(|| machine(place))
        .or_else(|| systemd_unit(place.name))
}

/// Of an id that a runtime made up.
const CONTAINER_ID_CHARS: usize = 64;

/// LXC's helpers, which live beside a container but are not it, and mount units, which hold no process.
fn is_excluded(name: &str) -> bool {
    name.ends_with(".mount") || name.starts_with("lxc.monitor.")
}

/// A unit's or directory's name without the suffix of a scope.
fn stem(name: &str) -> &str {
    name.strip_suffix(".scope").unwrap_or(name)
}

/// `libpod-conmon-ID.scope`, `crio-conmon-ID`. The id is required so that a service which merely
/// has `-conmon-` in its name stays a service.
fn monitor(name: &str) -> Option<PathMatch<'_>> {
    let of = |prefix| stem(name).strip_prefix(prefix);
    let (runtime, id) = match (of("crio-conmon-"), of("libpod-conmon-")) {
        (Some(id), _) => (Runtime::CriO, id),
        (_, Some(id)) => (Runtime::Podman, id),
        _ => return None,
    };
    is_container_id(id).then(|| PathMatch::new(Kind::Monitor, runtime, id))
}

/// `crun-buildah-buildahN.scope`, `buildah-buildahN`. buildah makes an id of its name and its temporary directory's
/// (`run_linux.go`). It asks for no path, so the low-level runtime chooses parent and prefix.
fn buildah(name: &str) -> Option<PathMatch<'_>> {
    const ID: &str = "buildah-buildah";
    let stem = stem(name);
    // Most names hold a container's id. Every container's path is read at each of its kills.
    if stem.len() >= CONTAINER_ID_CHARS {
        return None;
    }
    let start = stem.rfind(ID)?;
    let (prefix, id) = stem.split_at_checked(start)?;
    let own = prefix.is_empty() || prefix.ends_with('-');
    let numbered = id.strip_prefix(ID).is_some_and(is_number);
    (own && numbered).then(|| PathMatch::new(Kind::Build, Runtime::Buildah, id))
}

/// `PARENT/buildkit/ID`, as BuildKit makes it for any parent but a systemd form (`executor/oci/spec.go`). A
/// standalone buildkitd on containerd has `/buildkit/ID`, after its namespace.
fn buildkit(place: Place<'_>) -> Option<PathMatch<'_>> {
    let parent = place.parent().filter(|parent| parent.name == "buildkit")?;
    let runtime = (parent.parent_name() == "docker").then_some(Runtime::Docker);
    is_build_id(place.name).then(|| PathMatch::new(Kind::Build, runtime, place.name))
}

/// Kata's cgroups for a sandbox. The virtual machine is in `kata_ID`, beside the path that the engine asked for
/// (`RenameCgroupPath`). What is not to be limited is below `kata_overhead`. The runtime in Rust writes the latter as
/// `kata-overhead.slice:runtime-rs:ID` for systemd (`cgroups/utils.rs`).
fn kata(place: Place<'_>) -> Option<PathMatch<'_>> {
    let (kind, runtime, id) = match place.parent_name() {
        "kata_overhead" => (Kind::Overhead, Some(Runtime::Kata), place.name),
        "kata_sandboxed_pod" => (Kind::Sandbox, None, place.name),
        parent => match kata_overhead_scope(parent, place.name) {
            Some(id) => (Kind::Overhead, Some(Runtime::Kata), id),
            None => kata_sandbox(place.name)?,
        },
    };
    is_container_id(id).then(|| PathMatch::new(kind, runtime, id))
}

fn kata_overhead_scope<'a>(parent: &str, name: &'a str) -> Option<&'a str> {
    if parent == "kata-overhead.slice" {
        return name.strip_prefix("runtime-rs-")?.strip_suffix(".scope");
    }
    name.strip_prefix("kata-overhead.slice:runtime-rs:")
}

/// `kata_ID`, `kata_crio-ID`, and `kata_ID` as the name in an engine's systemd form.
fn kata_sandbox(name: &str) -> Option<(Kind, Option<Runtime>, &str)> {
    // Few names have one: every container's path is read at each of its kills.
    let stem = Some(stem(name)).filter(|stem| stem.contains('_'))?;
    let (before, id) = stem.rsplit_once("kata_")?;
    let crio = id.strip_prefix("crio-");
    let engine = match before {
        "" if crio.is_some() => "crio",
        "" => "",
        _ => before.strip_suffix(['-', ':'])?.rsplit(':').next()?,
    };
    let runtime = match engine {
        "" => None,
        "cri-containerd" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        _ => return None,
    };
    Some((Kind::Sandbox, runtime, crio.unwrap_or(id)))
}

/// `docker-ID.scope` and its relatives: the systemd driver under any slice.
fn engine_scope(name: &str) -> Option<PathMatch<'_>> {
    let stem = name.strip_suffix(".scope")?;
    // youki's names are free text and may hold dashes, the other ids never do.
    let (prefix, id) = match stem.strip_prefix("youki-") {
        Some(id) => ("youki", id),
        None => stem.rsplit_once('-')?,
    };
    engine_container(prefix, id)
}

/// `SLICE:PREFIX:ID` as one directory: an engine that asks for the systemd driver with a low-level
/// runtime that uses cgroupfs, so nobody expanded the name.
fn unexpanded_slice(name: &str) -> Option<PathMatch<'_>> {
    let (slice, rest) = name.split_once(':')?;
    let (prefix, id) = rest.split_once(':')?;
    slice.strip_suffix(".slice")?;
    engine_container(prefix, id)
}

fn engine_container<'a>(prefix: &str, id: &'a str) -> Option<PathMatch<'a>> {
    let runtime = match prefix {
        "docker" => Runtime::Docker,
        "cri-containerd" => Runtime::Containerd,
        "nerdctl" => Runtime::Nerdctl,
        "crio" => Runtime::CriO,
        "libpod" => Runtime::Podman,
        "youki" if is_plain(id) => {
            return Some(PathMatch::new(Kind::Container, Runtime::Youki, id));
        }
        _ => return None,
    };
    // dockerd gives its BuildKit `SLICE:docker:` for a parent, and BuildKit appends its own id.
    let kind = match runtime {
        Runtime::Docker if is_build_id(id) => Kind::Build,
        _ if is_container_id(id) => Kind::Container,
        _ => return None,
    };
    Some(PathMatch::new(kind, runtime, id))
}

/// Directories with an engine's prefix but no unit suffix: the cgroupfs driver and podman's split mode. Also CRI-O's
/// sandbox, which CRI-O makes by hand inside the pod's slice.
fn prefixed_directory(place: Place<'_>) -> Option<PathMatch<'_>> {
    let (prefix, id) = place.name.rsplit_once('-')?;
    let (kind, runtime) = match prefix {
        "crio" if slice_pod(place.parent_name()).is_some() => (Kind::Sandbox, Runtime::CriO),
        "crio" => (Kind::Container, Runtime::CriO),
        "libpod" | "libpod-payload" => (Kind::Container, Runtime::Podman),
        _ => return None,
    };
    is_container_id(id).then(|| PathMatch::new(kind, runtime, id))
}

/// A directory that is only an id: the parent has to say whose it is.
fn bare_id(place: Place<'_>) -> Option<PathMatch<'_>> {
    let id = Some(place.name).filter(|name| is_container_id(name))?;
    let parent = place.parent()?;
    let (kind, runtime) = match parent.name {
        "docker" => (Kind::Container, Some(Runtime::Docker)),
        "libpod_parent" => (Kind::Pod, Some(Runtime::Podman)),
        name if is_old_podman_scope(name) => (Kind::Container, Some(Runtime::Podman)),
        // The ECS agent's cgroup of a task, which it passes to Docker (`task_linux.go`).
        _ if parent.above == "ecs" => (Kind::Container, Some(Runtime::Docker)),
        _ if kube_pod(parent).is_some() => (Kind::Container, None),
        name if parent.above.is_empty() && is_namespace(name) => {
            (Kind::Container, namespace_runtime(name))
        }
        _ => return None,
    };
    Some(PathMatch::new(kind, runtime, id))
}

/// `podman-PID.scope`, in which early rootless podman kept its containers.
fn is_old_podman_scope(name: &str) -> bool {
    let pid = name.strip_prefix("podman-");
    pid.and_then(|rest| rest.strip_suffix(".scope"))
        .is_some_and(is_number)
}

/// Whether a top-level directory can be a containerd namespace (or a docker `--cgroup-parent`,
/// which looks the same). The syntax is containerd's identifier.
fn is_namespace(name: &str) -> bool {
    let unit = [".slice", ".scope", ".service"]
        .iter()
        .any(|suffix| name.ends_with(suffix));
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    name.len() <= 76 && !unit && name.split(['.', '_', '-']).all(word)
}

/// Hex ids in containerd's default namespace come from nerdctl, in `k8s.io` from the CRI plugin.
fn namespace_runtime(namespace: &str) -> Option<Runtime> {
    match namespace {
        "default" => Some(Runtime::Nerdctl),
        "k8s.io" => Some(Runtime::Containerd),
        _ => None,
    }
}

/// LXC's payload directory in its three generations: `lxc.payload.NAME`, `lxc.payload/NAME`
/// (3.1) and `/lxc/NAME`. A directory called `lxc` deep in somebody's tree proves nothing, so the
/// last one has to start at the root.
fn lxc(place: Place<'_>) -> Option<PathMatch<'_>> {
    let oldest = || place.above == "lxc" || place.above.starts_with("lxc/");
    let name = match place.parent_name() {
        "lxc.payload" => place.name,
        "lxc" if oldest() => place.name,
        _ => place.name.strip_prefix("lxc.payload.")?,
    };
    is_plain(name).then(|| PathMatch::new(Kind::Container, Runtime::Lxc, name))
}

/// A machine is the unit, not the `payload` or `libvirt` directory in it: limits sit on the unit.
fn machine(place: Place<'_>) -> Option<PathMatch<'_>> {
    let (runtime, id) = if let Some(instance) = nspawn_instance(place.name) {
        (Runtime::Nspawn, machine_name(instance)?)
    } else if let Some(guest) = libvirt_directory(place.name) {
        (Runtime::Libvirt, machine_name(guest)?)
    } else {
        let id = machine_name(machine_scope(place)?)?;
        let guest = libvirt_guest(&id).is_some();
        let runtime = if guest {
            Runtime::Libvirt
        } else {
            Runtime::Nspawn
        };
        (runtime, id)
    };
    Some(PathMatch::new(Kind::Machine, runtime, id))
}

fn nspawn_instance(name: &str) -> Option<&str> {
    name.strip_prefix("systemd-nspawn@")?
        .strip_suffix(".service")
}

/// `machine-NAME.scope`, but only in the machine slice: anybody may call a scope that.
fn machine_scope(place: Place<'_>) -> Option<&str> {
    let slice = place.parent_name().strip_suffix(".slice")?;
    let in_machines = slice == "machine" || slice.starts_with("machine-");
    let name = place
        .name
        .strip_prefix("machine-")?
        .strip_suffix(".scope")?;
    in_machines.then_some(name)
}

/// `GUEST.libvirt-qemu`: libvirt without systemd-machined.
fn libvirt_directory(name: &str) -> Option<&str> {
    let (guest, driver) = name.rsplit_once(".libvirt-")?;
    is_libvirt_driver(driver).then_some(guest)
}

/// The guest's name in libvirt's machine name `DRIVER-NUMBER-GUEST`.
fn libvirt_guest(machine: &str) -> Option<&str> {
    let (driver, rest) = machine.split_once('-')?;
    let (number, guest) = rest.split_once('-')?;
    (is_libvirt_driver(driver) && is_number(number) && !guest.is_empty()).then_some(guest)
}

fn is_libvirt_driver(name: &str) -> bool {
    matches!(name, "qemu" | "lxc" | "ch")
}

/// Undoes systemd's escaping; `None` unless the result is a machine name, which is a host name.
fn machine_name(escaped: &str) -> Option<Cow<'_, str>> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let name = unescape(escaped)?;
    ((1..=64).contains(&name.len()) && name.bytes().all(allowed)).then_some(name)
}

/// Replaces every `\xNN` with the character of that number; any other backslash is an error.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    let mut pieces = text.split('\\');
    let first = pieces.next()?;
    if first.len() == text.len() {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = first.to_owned();
    for piece in pieces {
        let (digits, rest) = piece.strip_prefix('x')?.split_at_checked(2)?;
        let byte = u8::from_str_radix(digits, 16).ok();
        plain.push(char::from(byte.filter(|_| is_hex(digits))?));
        plain.push_str(rest);
    }
    Some(Cow::Owned(plain))
}

/// Any other service or scope. Slices are groups of units and never own a process.
///
/// systemd puts `_` before a unit whose name would collide with a control file, as in
/// `_io.podman.service`.
fn systemd_unit(name: &str) -> Option<PathMatch<'_>> {
    let unit = name.strip_prefix('_').unwrap_or(name);
    let stem = unit.strip_suffix(".service");
    let stem = stem.or_else(|| unit.strip_suffix(".scope"))?;
    let valid = !stem.is_empty() && is_plain(unit);
    valid.then(|| PathMatch::new(Kind::SystemdUnit, Runtime::Systemd, unit))
}

/// A Kubernetes pod as written in the path.
#[derive(Clone, Copy)]
struct KubePod<'a> {
    uid: &'a str,
    qos: Qos,
}

fn pod(place: Place<'_>) -> Option<PathMatch<'_>> {
    if let Some(pod) = kube_pod(place) {
        return Some(PathMatch::new(Kind::Pod, None, pod.uid.replace('_', "-")));
    }
    podman_pod(place.name)
}

/// `machine-libpod_pod_ID.slice`; `machine` is `user` when rootless, or the `--cgroup-parent`.
fn podman_pod(name: &str) -> Option<PathMatch<'_>> {
    let (parent, id) = name.strip_suffix(".slice")?.rsplit_once("libpod_pod_")?;
    let valid = (parent.is_empty() || parent.ends_with('-')) && is_container_id(id);
    valid.then(|| PathMatch::new(Kind::Pod, Runtime::Podman, id))
}

fn kube_pod(place: Place<'_>) -> Option<KubePod<'_>> {
    slice_pod(place.name).or_else(|| directory_pod(place))
}

/// `kubepods[-QOS]-podUID.slice`, with the `--cgroup-root` before it: `kubelet-kubepods-…` in kind.
fn slice_pod(name: &str) -> Option<KubePod<'_>> {
    let (group, uid) = name.strip_suffix(".slice")?.rsplit_once("-pod")?;
    let (root, qos) = if let Some(root) = group.strip_suffix("-burstable") {
        (root, Qos::Burstable)
    } else if let Some(root) = group.strip_suffix("-besteffort") {
        (root, Qos::BestEffort)
    } else {
        (group, Qos::Guaranteed)
    };
    let kubepods = root == "kubepods" || root.ends_with("-kubepods");
    (kubepods && is_pod_uid(uid)).then_some(KubePod { uid, qos })
}

/// `kubepods/[QOS/]podUID`: the cgroupfs driver, below any prefix.
fn directory_pod(place: Place<'_>) -> Option<KubePod<'_>> {
    let uid = place.name.strip_prefix("pod")?;
    let parent = place.parent()?;
    let (group, qos) = match parent.name {
        "burstable" => (parent.parent_name(), Qos::Burstable),
        "besteffort" => (parent.parent_name(), Qos::BestEffort),
        name => (name, Qos::Guaranteed),
    };
    (group == "kubepods" && is_pod_uid(uid)).then_some(KubePod { uid, qos })
}

/// The pod at `place` or above it, also where the pod's slice is part of an unexpanded name.
fn nearest_pod(place: Place<'_>) -> Option<KubePod<'_>> {
    let mut next = Some(place);
    while let Some(place) = next {
        let slice = place.name.split(':').next()?;
        if let Some(pod) = slice_pod(slice).or_else(|| directory_pod(place)) {
            return Some(pod);
        }
        next = place.parent();
    }
    None
}

/// A UUID, whose dashes the systemd driver writes as `_`, or a static pod's 32 hex digits.
fn is_pod_uid(text: &str) -> bool {
    is_uuid(text, '-') || is_uuid(text, '_') || (text.len() == 32 && is_hex(text))
}

fn is_uuid(text: &str, separator: char) -> bool {
    let groups = text.split(separator);
    text.len() == 36
        && groups
            .map(|group| if is_hex(group) { group.len() } else { 0 })
            .eq([8, 4, 4, 4, 12])
}

fn is_container_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// BuildKit's random ids: 25 digits to the base 36 (`identity/randomid.go`).
fn is_build_id(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    text.len() == 25 && text.bytes().all(is_digit)
}

/// Lower case only: every runtime and systemd write it so, and ids are compared as text.
fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A name fit for logs and labels: visible ASCII no longer than a directory name can be.
fn is_plain(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}
