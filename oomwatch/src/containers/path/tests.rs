//! Real paths, hostile paths, and what must hold for every path.

use proptest::prelude::*;

use super::{PathIdentity, identify, innermost, invariants};

const ID: &str = "3f4e8a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b";
const ID2: &str = "00aa11bb22cc33dd44ee55ff66778899aabbccddeeff00112233445566778899";
const UID: &str = "d0c1f8aa-3b52-4a7e-9d0f-5e1b2c3d4e5f";
const UID_: &str = "d0c1f8aa_3b52_4a7e_9d0f_5e1b2c3d4e5f";
const MD5: &str = "8f2c1d0e9b7a6c5d4e3f2a1b0c9d8e7f";

/// `path => innermost identity`, written as [`shown`] does. `{ID}`, `{UID}` (dashes), `{UID_}`
/// (underscores) and `{MD5}` (a static pod) stand for the constants above.
const INNERMOST: &str = r"
# Docker
/system.slice/docker-{ID}.scope => Container docker {ID} @2
/system.slice/docker-{ID}.scope/init.scope => Container docker {ID} @2
/system.slice/docker-{ID}.scope/system.slice/nginx.service => Container docker {ID} @2
/system.slice/docker-{ID}.scope (deleted) => Container docker {ID} @2
/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope => Container docker {ID} @5
/tenants.slice/tenants-a.slice/docker-{ID}.scope => Container docker {ID} @3
/docker/{ID} => Container docker {ID} @2
/docker/{ID}/docker/{ID2} => Container docker {ID2} @4
/docker/{ID}/init => Container docker {ID} @2
/system.slice/docker-{ID}.scope/docker/{ID2} => Container docker {ID2} @4
/tenant-a/{ID} => Container - {ID} @2
/system.slice:docker:{ID} => Container docker {ID} @1
/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope => Container docker {ID} @3 pod={UID} Guaranteed
/system.slice/docker.service => SystemdUnit systemd docker.service name=docker.service @2

# containerd CRI, systemd driver
/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope => Container containerd {ID} @4 pod={UID} Burstable
/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope => Container containerd {ID} @4 pod={UID} BestEffort
/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope => Container containerd {ID} @3 pod={UID} Guaranteed
/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{MD5}.slice/cri-containerd-{ID}.scope => Container containerd {ID} @4 pod={MD5} Burstable
/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope/init.scope => Container containerd {ID} @4 pod={UID} Burstable
/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope/docker/{ID2} => Container docker {ID2} @5 pod={UID} Guaranteed
/system.slice/docker-{ID2}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope => Container containerd {ID} @7 pod={UID} Burstable
/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice => Pod - {UID} @3 pod={UID} Guaranteed
/system.slice/docker-{ID2}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice => Pod - {UID} @5 pod={UID} Guaranteed
/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope => Container containerd {ID} @5 pod={UID} BestEffort
/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{MD5}.slice/cri-containerd-{ID}.scope => Container containerd {ID} @4 pod={MD5} Guaranteed
/k8s.io/{ID} => Container containerd {ID} @2

# the systemd form of the name, never expanded
/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID} => Container containerd {ID} @1 pod={UID} BestEffort
/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID} => Container containerd {ID} @3 pod={UID} Burstable
/system.slice/containerd.service/kubepods-pod{MD5}.slice:cri-containerd:{ID}/child => Container containerd {ID} @3 pod={MD5} Guaranteed

# Kubernetes, cgroupfs driver
/kubepods/burstable/pod{UID}/{ID} => Container - {ID} @4 pod={UID} Burstable
/kubepods/besteffort/pod{UID}/{ID} => Container - {ID} @4 pod={UID} BestEffort
/kubepods/pod{UID}/{ID} => Container - {ID} @3 pod={UID} Guaranteed
/kubepods/burstable/pod{MD5}/{ID} => Container - {ID} @4 pod={MD5} Burstable
/kubelet/kubepods/burstable/pod{UID}/{ID} => Container - {ID} @5 pod={UID} Burstable
/system.slice/kubelet.service/kubepods/pod{UID}/{ID}/init.scope => Container - {ID} @5 pod={UID} Guaranteed
/system.slice/kubelet.service/kubepods/pod{UID} => Pod - {UID} @4 pod={UID} Guaranteed
/docker/{ID2}/kubepods/besteffort/pod{UID}/{ID} => Container - {ID} @6 pod={UID} BestEffort

# pods and the groups above them
/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice => Pod - {UID} @3 pod={UID} Burstable
/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/other => Pod - {UID} @3 pod={UID} Burstable
/kubepods/burstable/pod{UID} => Pod - {UID} @3 pod={UID} Burstable
/kubepods/pod{MD5} => Pod - {MD5} @2 pod={MD5} Guaranteed
/kubepods.slice/kubepods-burstable.slice => none
/kubepods.slice => none
/kubepods/burstable => none

# nerdctl
/system.slice/nerdctl-{ID}.scope => Container nerdctl {ID} @2
/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{ID}.scope => Container nerdctl {ID} @5
/default/{ID} => Container nerdctl {ID} @2

# plain containerd: cannot be told from any other directory
/default/web => none
/default/redis-1/child => none

# CRI-O
/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{ID}.scope => Container cri-o {ID} @4 pod={UID} Burstable
/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope/container => Container cri-o {ID} @3 pod={UID} Guaranteed
/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope/container => Container cri-o {ID} @4 pod={UID} BestEffort
/kubepods/besteffort/pod{UID}/crio-{ID} => Container cri-o {ID} @4 pod={UID} BestEffort
/kubepods/pod{UID}/crio-{ID}/container => Container cri-o {ID} @3 pod={UID} Guaranteed
/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID} => Sandbox cri-o {ID} @3 pod={UID} Guaranteed
/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope => Pod - {UID} @2 pod={UID} Guaranteed
/kubepods/burstable/pod{UID}/crio-{ID} => Container cri-o {ID} @4 pod={UID} Burstable
/crio/crio-{ID} => Container cri-o {ID} @2
/crio/crio-conmon-{ID} => none
/system.slice/crio-{ID}.scope => Container cri-o {ID} @2
/system.slice/crio-conmon-{ID}.scope => none

# podman
/machine.slice/libpod-{ID}.scope => Container podman {ID} @2
/machine.slice/libpod-{ID}.scope/container => Container podman {ID} @2
/machine.slice/libpod-{ID}.scope/container/system.slice/sshd.service => Container podman {ID} @2
/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container => Container podman {ID} @5
/machine.slice/machine-libpod_pod_{ID2}.slice => Pod podman {ID2} @2
/machine.slice/machine-libpod_pod_{ID2}.slice/libpod-{ID}.scope => Container podman {ID} @3
/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{ID2}.slice/libpod-{ID}.scope => Container podman {ID} @6
/machine.slice/libpod-conmon-{ID}.scope => none
/system.slice/nginx.service/libpod-payload-{ID} => Container podman {ID} @3
/user.slice/user-1000.slice/user@1000.service/app.slice/redis.service/libpod-payload-{ID}/x => Container podman {ID} @6
/system.slice/nginx.service/libpod-payload-{ID}/container => Container podman {ID} @3
/system.slice/nginx.service/runtime => SystemdUnit systemd nginx.service name=nginx.service @2
/libpod_parent/libpod-{ID} => Container podman {ID} @2
/libpod_parent/{ID2} => Pod podman {ID2} @2
/libpod_parent/{ID2}/libpod-{ID} => Container podman {ID} @3
/libpod_parent/libpod-conmon-{ID} => none
/user.slice/podman-4711.scope/{ID} => Container podman {ID} @3
/user.slice/podman-4711.scope => SystemdUnit systemd podman-4711.scope name=podman-4711.scope @2

# youki
/system.slice/youki-my-box_1.scope => Container youki my-box_1 name=my-box_1 @2
/system.slice/youki-{ID}.scope/init.scope => Container youki {ID} @2
/system.slice/youki-.scope => SystemdUnit systemd youki-.scope name=youki-.scope @2

# LXC, LXD, Incus, Proxmox
/lxc.payload.web => Container lxc web name=web @1
/lxc.payload.web-1/system.slice/nginx.service => Container lxc web-1 name=web-1 @1
/lxc.payload.proj_db/lxc.payload.inner => Container lxc inner name=inner @2
/lxc.payload.web/system.slice/docker-{ID}.scope => Container docker {ID} @3
/user.slice/foo.scope/lxc.payload/c1/init.scope => Container lxc c1 name=c1 @4
/lxc/c1 => Container lxc c1 name=c1 @2
/lxc/101/ns/system.slice/ssh.service => Container lxc 101 name=101 @2
/lxc/outer/lxc/inner => Container lxc inner name=inner @4
/lxc.monitor.web => none
/lxc.monitor/c1 => none
/lxc.monitor.web.service => none
/lxc.payload/run-data.mount => none
/build/tools/lxc/c1 => none

# machines
/machine.slice/machine-web.scope/payload => Machine systemd-nspawn web name=web @2
/machine.slice/machine-web.scope => Machine systemd-nspawn web name=web @2
/machine.slice/machine-my\x2dbox.scope/payload/init.scope => Machine systemd-nspawn my-box name=my-box @2
/machine.slice/machine-my\x2dbox.scope/supervisor => none
/machine.slice/systemd-nspawn@my-box.service/payload/system.slice/a.service => Machine systemd-nspawn my-box name=my-box @2
/machine.slice/systemd-nspawn@web.service/supervisor => none
/machine.slice/machine-web.scope/payload/machine.slice/machine-in.scope/supervisor => Machine systemd-nspawn web name=web @2
/machine.slice/machine-qemu\x2d3\x2dweb\x2d01.scope/libvirt/emulator => Machine libvirt qemu-3-web-01 name=web-01 @2
/machine.slice/machine-prod.slice/machine-lxc\x2d9192\x2ddb.scope => Machine libvirt lxc-9192-db name=db @3
/machine/qemu-3-web.libvirt-qemu/vcpu0 => Machine libvirt qemu-3-web name=web @2
/machine.slice/machine-qemu\x2d3.scope => Machine systemd-nspawn qemu-3 name=qemu-3 @2
/user.slice/user-1000.slice/user@1000.service/app.slice/machine-learning.scope => SystemdUnit systemd machine-learning.scope name=machine-learning.scope @5

# systemd units
/init.scope => SystemdUnit systemd init.scope name=init.scope @1
/system.slice/sshd.service => SystemdUnit systemd sshd.service name=sshd.service @2
/system.slice/system-getty.slice/getty@tty1.service => SystemdUnit systemd getty@tty1.service name=getty@tty1.service @3
/system.slice/foo.service/worker/1 => SystemdUnit systemd foo.service name=foo.service @2
/system.slice/my-conmon-reader.service => SystemdUnit systemd my-conmon-reader.service name=my-conmon-reader.service @2
/user.slice/user-1000.slice/user@1000.service/app.slice/_io.podman.service => SystemdUnit systemd io.podman.service name=io.podman.service @5
/user.slice/user-1000.slice/session-3.scope => SystemdUnit systemd session-3.scope name=session-3.scope @3
/system.slice/boot-efi.mount => none
/system.slice => none
/ => none

# a cgroup outside our own namespace
/../docker-{ID}.scope/init => Container docker {ID} @2
/../../../lxc.payload.web => Container lxc web name=web @4
";

/// `path => what identify says`, for paths where it differs from [`innermost`] or nearly does.
const IDENTIFY: &str = r"
/system.slice/docker-{ID}.scope => Container docker {ID} @2
/system.slice/docker-{ID}.scope/init.scope => SystemdUnit systemd init.scope name=init.scope @3
/system.slice/docker-{ID}.scope/child => none
/machine.slice/libpod-{ID}.scope/container => none
/machine.slice/machine-web.scope/payload => none
/machine.slice/machine-web.scope => Machine systemd-nspawn web name=web @2
/kubepods/burstable/pod{UID} => Pod - {UID} @3 pod={UID} Burstable
/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope => none
/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope/system.slice/a.service => SystemdUnit systemd a.service name=a.service @5 pod={UID} Guaranteed
/lxc/101/ns => none
/system.slice/nginx.service/runtime => none
";

/// Almost right, and therefore nothing: one path per line, in Rust's string escapes.
const NOTHING: &[&str] = &[
    "",
    "////",
    "/..",
    "/../..",
    ".",
    "/docker-{ID}.scope/..",
    "/docker/./{ID}",
    "/a/../docker/{ID}",
    "/docker-{ID}.scop",
    "/docker-{ID}",
    "docker-{ID}.mount",
    "/docker/{ID}0",
    "/docker-{ID}.scope\n",
    "/a/docker/{ID}\u{1b}[31m",
    "/a/b/{ID}",
    "/{ID}",
    "/system.slice/{ID}",
    "/.hidden/{ID}",
    "/a--b/{ID}",
    "/kubepods/burstable/pod{UID_}x/a",
    "/kubepods/burstable/pod/a",
    "/pods/burstable/pod{UID}",
    "/xkubepods-pod{UID_}.slice",
    "/kubepods-podd0c1f8aa_3b52-4a7e_9d0f_5e1b2c3d4e5f.slice",
    "/kubepods-pod.slice",
    "/kubepods-burstable-pod{UID_}.slice:cri-containerd",
    "/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}:x",
    "/kubepods-burstable-pod{UID_}:cri-containerd:{ID}",
    "/lxc.payload.",
    "/lxc.payload.web\u{fffd}",
    "/lxc.payload.two words",
    "/lxc/\u{202e}bew",
    "/machine-libpod_pod_.slice",
    "/xlibpod_pod_{ID}.slice",
    "/.service",
    "/_.scope",
    "/a b.service",
    "/n\0.service",
    "/.libvirt-qemu",
    "/a.libvirt-xen",
];

/// A unit by its suffix, but not the container or machine it resembles.
const ONLY_UNITS: &[&str] = &[
    // 63 digits, upper case, a non-hex digit
    "/docker-3f4e8a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2.scope",
    "/docker-3F4E8A0B1C2D3E4F5A6B7C8D9E0F1A2B3C4D5E6F708192A3B4C5D6E7F8091A2B.scope",
    "/docker-gf4e8a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b.scope",
    "/docker-{ID}.service",
    "/xdocker-{ID}.scope",
    "/docker--{ID}.scope",
    "/libpod-payload-{ID}.scope",
    "/podman-x.scope/{ID}",
    "/machine.slice/machine-.scope",
    "/machine.slice/machine-a\\x0ab.scope",
    "/machine.slice/machine-a\\x2.scope",
    "/machine.slice/machine-a\\x+f.scope",
    "/machine.slice/machine-a\\x2Db.scope",
    "/machine.slice/machine-a\\x2f\\x2e\\x2e.scope",
    "/machine.slice/machine-a\\.scope",
    "/machine.slice/machine-\\xe2\\x82\\xac.scope",
    "/systemd-nspawn@.service",
];

fn filled(text: &str) -> String {
    [
        ("{ID}", ID),
        ("{ID2}", ID2),
        ("{UID}", UID),
        ("{UID_}", UID_),
        ("{MD5}", MD5),
    ]
    .iter()
    .fold(text.to_owned(), |text, (hole, value)| {
        text.replace(hole, value)
    })
}

/// `KIND RUNTIME ID [name=NAME] @DEPTH [pod=UID QOS]`, or `none`.
fn shown(identity: Option<&PathIdentity>) -> String {
    let Some(identity) = identity else {
        return "none".to_owned();
    };
    let runtime = identity.runtime.map_or("-", |runtime| runtime.as_str());
    let mut text = format!("{:?} {runtime} {}", identity.kind, identity.id);
    if let Some(name) = &identity.name {
        text += &format!(" name={name}");
    }
    text += &format!(" @{}", identity.depth);
    if let (Some(uid), Some(qos)) = (&identity.pod_uid, identity.qos) {
        text += &format!(" pod={uid} {qos:?}");
    }
    text
}

fn rows(table: &str) -> Vec<(String, String)> {
    table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| filled(line).split_once(" => ").map(owned).unwrap())
        .collect()
}

fn owned((left, right): (&str, &str)) -> (String, String) {
    (left.to_owned(), right.to_owned())
}

#[test]
fn innermost_owner_of_real_paths() {
    for (path, expected) in rows(INNERMOST) {
        assert_eq!(shown(innermost(&path).as_ref()), expected, "{path}");
    }
}

#[test]
fn identity_of_exactly_one_cgroup() {
    for (path, expected) in rows(IDENTIFY) {
        assert_eq!(shown(identify(&path).as_ref()), expected, "{path}");
    }
}

/// [`fuzz`] cuts the path at the reported depth and asks again.
#[test]
fn innermost_is_what_identify_says_about_that_cgroup() {
    for (path, _) in rows(INNERMOST).into_iter().chain(rows(IDENTIFY)) {
        invariants::check(path.as_bytes());
    }
}

#[test]
fn near_misses_are_nothing() {
    for path in NOTHING.iter().map(|path| filled(path)) {
        assert_eq!(shown(innermost(&path).as_ref()), "none", "{path:?}");
        assert_eq!(shown(identify(&path).as_ref()), "none", "{path:?}");
    }
}

#[test]
fn near_misses_with_a_unit_suffix_are_only_units() {
    for path in ONLY_UNITS.iter().map(|path| filled(path)) {
        let shown = shown(innermost(&path).as_ref());
        assert!(
            shown.starts_with("SystemdUnit systemd "),
            "{path:?}: {shown}"
        );
    }
}

#[test]
fn slashes_do_not_matter() {
    let expected = innermost(&filled("/system.slice/docker-{ID}.scope"));
    assert!(expected.is_some());
    for path in [
        "system.slice/docker-{ID}.scope",
        "//system.slice///docker-{ID}.scope//",
        "/system.slice/docker-{ID}.scope/child/",
    ] {
        assert_eq!(innermost(&filled(path)), expected, "{path}");
    }
}

#[test]
fn very_long_names_are_nothing() {
    let long = "a".repeat(10_000);
    for path in [
        format!("/{long}.service"),
        format!("/lxc.payload.{long}"),
        format!("/docker-{long}.scope"),
        format!("/{long}/{ID}"),
        format!("/machine.slice/machine-{}.scope", "\\x2d".repeat(2_500)),
        format!("/kubepods/pod{long}"),
    ] {
        assert_eq!(innermost(&path), None);
    }
    let deep = format!("/docker/{ID}{}", "/x".repeat(5_000));
    assert_eq!(innermost(&deep).map(|found| found.id).as_deref(), Some(ID));
}

/// Pieces of names that the matchers look for, so that random paths come close to real ones.
fn fragment() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "docker",
        "docker-",
        "cri-containerd-",
        "crio-",
        "libpod-",
        "libpod-payload-",
        "-conmon-",
        "youki-",
        "lxc",
        "lxc.payload",
        "lxc.payload.",
        "machine.slice",
        "machine-",
        "qemu-1-",
        "systemd-nspawn@",
        "supervisor",
        "payload",
        "kubepods",
        "kubepods-",
        "burstable",
        "-pod",
        "pod",
        "libpod_parent",
        "libpod_pod_",
        "{ID}",
        "{UID}",
        "{UID_}",
        "{MD5}",
        ".scope",
        ".service",
        ".slice",
        ".libvirt-qemu",
        ":docker:",
        "\\x2d",
        "\\x",
        "..",
        "/",
        "/",
        "/",
        " (deleted)",
        "default",
        "container",
        "_",
    ]);
    prop_oneof![8 => known.prop_map(filled), 1 => any::<String>()]
}

proptest! {
    #[test]
    fn any_text_keeps_the_invariants(path in any::<String>()) {
        invariants::check(path.as_bytes());
    }

    #[test]
    fn any_bytes_keep_the_invariants(path in prop::collection::vec(any::<u8>(), 0..300)) {
        invariants::check(&path);
    }

    #[test]
    fn likely_paths_keep_the_invariants(parts in prop::collection::vec(fragment(), 0..12)) {
        invariants::check(parts.concat().as_bytes());
    }

    /// What a container does below its own cgroup never hides the container.
    #[test]
    fn a_container_stays_found_below_itself(child in "([a-z.@:-]{0,12}[a-z@:-]/){0,5}") {
        let own = filled("/system.slice/docker-{ID}.scope");
        let found = innermost(&format!("{own}/{child}"));
        prop_assert!(found.is_some_and(|found| found.depth >= 2));
    }
}
