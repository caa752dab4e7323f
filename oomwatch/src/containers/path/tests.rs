//! Real paths, hostile paths, and what must hold for every path.

use proptest::prelude::*;

use super::{PathIdentity, identify, innermost, invariants};

const ID: &str = "3f4e8a0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b";
const ID2: &str = "00aa11bb22cc33dd44ee55ff66778899aabbccddeeff00112233445566778899";
const UID: &str = "d0c1f8aa-3b52-4a7e-9d0f-5e1b2c3d4e5f";
const UID_: &str = "d0c1f8aa_3b52_4a7e_9d0f_5e1b2c3d4e5f";
const MD5: &str = "8f2c1d0e9b7a6c5d4e3f2a1b0c9d8e7f";
const STEP: &str = "tz1q5vkxw0b7c3r2m9n8p6y4d";

/// `path => innermost identity`, written as [`shown`] does. `{ID}`, `{UID}` (dashes), `{UID_}`
/// (underscores), `{MD5}` (a static pod) and `{STEP}` (a build's) stand for the constants above.
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
/mydocker/{ID} => Container - {ID} @2
/my.slice/docker-{ID}.scope => Container docker {ID} @2
/ecs/{MD5}/{ID} => Container docker {ID} @3
/ecs/task-1/{ID}/init.scope => Container docker {ID} @3
/ecstasks.slice/ecstasks-{MD5}.slice/docker-{ID}.scope => Container docker {ID} @3
/ecs/task-1 => none
/ecs/a/b/{ID} => none
/x/ecs/task-1/{ID} => none
/system.slice:docker:{ID} => Container docker {ID} @1
/kubepods.slice/kubepods-pod{UID_}.slice/docker-{ID}.scope => Container docker {ID} @3 pod={UID} Guaranteed
/system.slice/docker.service => SystemdUnit systemd docker.service name=docker.service @2

# Docker in Docker: Sysbox, kind, k3d
/docker/{ID}/syscont-cgroup-root/docker/{ID2} => Container docker {ID2} @5
/docker/{ID}/syscont-cgroup-root/init.scope => Container docker {ID} @2
/system.slice/docker-{ID}.scope/syscont-cgroup-root/system.slice/docker-{ID2}.scope => Container docker {ID2} @5
/system.slice/docker-{ID}.scope/init.scope/system.slice/docker-{ID2}.scope/init.scope => Container docker {ID2} @5
/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID2}.scope => Container containerd {ID2} @7 pod={UID} BestEffort
/docker/{ID}/kubelet/kubepods/burstable/pod{UID}/{ID2} => Container - {ID2} @7 pod={UID} Burstable
/docker/{ID}/kubelet/kubepods/pod{MD5} => Pod - {MD5} @5 pod={MD5} Guaranteed
/docker/{ID}/kubelet.slice/kubelet.service => Container docker {ID} @2
/docker/{ID}/k3s => Container docker {ID} @2
/docker/{ID}/k3s/kubepods/burstable/pod{UID}/{ID2} => Container - {ID2} @7 pod={UID} Burstable

# BuildKit's steps
/system.slice/system.slice:docker:{STEP} => Build docker {STEP} @2
/user.slice/user-1000.slice/user@1000.service/user.slice:docker:{STEP}/x => Build docker {STEP} @4
/system.slice/docker-{STEP}.scope => Build docker {STEP} @2
/docker/buildkit/{STEP} => Build docker {STEP} @3
/docker/{ID}/docker/buildkit/{STEP} => Build docker {STEP} @5
/tenant-a/buildkit/{STEP} => Build - {STEP} @3
/buildkit/{STEP} => Build - {STEP} @2
/docker/{ID}/buildkit/{STEP}x => Container docker {ID} @2
/system.slice/buildkit.service => SystemdUnit systemd buildkit.service name=buildkit.service @2

# buildah's steps
/system.slice/crun-buildah-buildah2365838308.scope => Build buildah buildah-buildah2365838308 @2
/user.slice/user-1000.slice/user@1000.service/app.slice/runc-buildah-buildah1059824916.scope/container => Build buildah buildah-buildah1059824916 @5
/user.slice/user-1000.slice/user@1000.service/user.slice/buildah-buildah7.scope => Build buildah buildah-buildah7 @5
/system.slice/youki-buildah-buildah7.scope => Build buildah buildah-buildah7 @2
/buildah-buildah7 => Build buildah buildah-buildah7 @1
/system.slice/xbuildah-buildah7.scope => SystemdUnit systemd xbuildah-buildah7.scope name=xbuildah-buildah7.scope @2
/system.slice/buildah-buildah.scope => SystemdUnit systemd buildah-buildah.scope name=buildah-buildah.scope @2
/system.slice/buildah-buildah7x.scope => SystemdUnit systemd buildah-buildah7x.scope name=buildah-buildah7x.scope @2

# Kata
/kubepods/burstable/pod{UID}/kata_{ID} => Sandbox - {ID} @4 pod={UID} Burstable
/kubepods/burstable/pod{UID}/kata_{ID}/vcpu => Sandbox - {ID} @4 pod={UID} Burstable
/kubepods/pod{MD5}/kata_crio-{ID} => Sandbox cri-o {ID} @3 pod={MD5} Guaranteed
/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/kata_{ID} => Sandbox - {ID} @4 pod={UID} Burstable
/kubepods.slice/kubepods-pod{UID_}.slice/kata_{ID}.scope => Sandbox - {ID} @3 pod={UID} Guaranteed
/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-kata_{ID}.scope => Sandbox containerd {ID} @3 pod={UID} Guaranteed
/kubepods-besteffort-pod{UID_}.slice:cri-containerd:kata_{ID} => Sandbox containerd {ID} @1 pod={UID} BestEffort
/kubepods-pod{UID_}.slice:crio:kata_{ID} => Sandbox cri-o {ID} @1 pod={UID} Guaranteed
/kata_sandboxed_pod/{ID} => Sandbox - {ID} @2
/docker/kata_{ID} => Sandbox - {ID} @2
/kata_overhead/{ID} => Overhead kata {ID} @2
/kata_overhead/{ID}/x => Overhead kata {ID} @2
/system.slice/kata_overhead/{ID} => Overhead kata {ID} @3
/kata.slice/kata-overhead.slice/runtime-rs-{ID}.scope => Overhead kata {ID} @3
/kata-overhead.slice:runtime-rs:{ID} => Overhead kata {ID} @1
/kata_overhead => none
/kata_overhead/web => none
/kubepods/burstable/pod{UID}/kata_web => Pod - {UID} @3 pod={UID} Burstable
/system.slice/runtime-rs-{ID}.scope => SystemdUnit systemd runtime-rs-{ID}.scope name=runtime-rs-{ID}.scope @2

# gVisor: runsc takes the path that the engine asks for, its sandbox's process included
/kubepods/burstable/pod{UID}/{ID}/sandbox => Container - {ID} @4 pod={UID} Burstable
/system.slice/docker-{ID}.scope/runsc => Container docker {ID} @2

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
/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope => Monitor cri-o {ID} @3 pod={UID} Guaranteed
/kubepods/burstable/pod{UID}/crio-{ID} => Container cri-o {ID} @4 pod={UID} Burstable
/crio/crio-{ID} => Container cri-o {ID} @2
/crio/crio-conmon-{ID} => Monitor cri-o {ID} @2
/kubepods/besteffort/pod{UID}/crio-conmon-{ID} => Monitor cri-o {ID} @4 pod={UID} BestEffort
/system.slice/crio-{ID}.scope => Container cri-o {ID} @2
/system.slice/crio-conmon-{ID}.scope => Monitor cri-o {ID} @2
/system.slice/mycrio-conmon-{ID}.scope => SystemdUnit systemd mycrio-conmon-{ID}.scope name=mycrio-conmon-{ID}.scope @2

# podman
/machine.slice/libpod-{ID}.scope => Container podman {ID} @2
/machine.slice/libpod-{ID}.scope/container => Container podman {ID} @2
/machine.slice/libpod-{ID}.scope/container/system.slice/sshd.service => Container podman {ID} @2
/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container => Container podman {ID} @5
/machine.slice/machine-libpod_pod_{ID2}.slice => Pod podman {ID2} @2
/machine.slice/machine-libpod_pod_{ID2}.slice/libpod-{ID}.scope => Container podman {ID} @3
/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{ID2}.slice/libpod-{ID}.scope => Container podman {ID} @6
/machine.slice/libpod-conmon-{ID}.scope => Monitor podman {ID} @2
/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-{ID}.scope => Monitor podman {ID} @5
/system.slice/nginx.service/libpod-payload-{ID} => Container podman {ID} @3
/user.slice/user-1000.slice/user@1000.service/app.slice/redis.service/libpod-payload-{ID}/x => Container podman {ID} @6
/system.slice/nginx.service/libpod-payload-{ID}/container => Container podman {ID} @3
/system.slice/nginx.service/runtime => SystemdUnit systemd nginx.service name=nginx.service @2
/libpod_parent/libpod-{ID} => Container podman {ID} @2
/libpod_parent/{ID2} => Pod podman {ID2} @2
/libpod_parent/{ID2}/libpod-{ID} => Container podman {ID} @3
/libpod_parent/libpod-conmon-{ID} => Monitor podman {ID} @2
/user.slice/podman-4711.scope/{ID} => Container podman {ID} @3
/user.slice/podman-4711.scope => SystemdUnit systemd podman-4711.scope name=podman-4711.scope @2

# youki
/system.slice/youki-my-box_1.scope => Container youki my-box_1 name=my-box_1 @2
/system.slice/youki-{ID}.scope/init.scope => Container youki {ID} @2
/system.slice/youki-.scope => SystemdUnit systemd youki-.scope name=youki-.scope @2

# LXC, LXD, Incus, Proxmox
/lxc.payload.web => Container lxc web name=web @1
/lxc.payload.outer/lxc.payload.db => Container lxc db name=db @2
/lxc.payload.outer/.lxc/system.slice/a.service => Container lxc outer name=outer @1
/lxc.payload.outer/lxc.monitor.db => Container lxc outer name=outer @1
/lxc.payload.outer/machine.slice/machine-in.scope/payload => Machine systemd-nspawn in name=in @3
/machine.slice/machine-out.scope/payload/lxc.payload.in => Container lxc in name=in @4
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
/capsule.slice/capsule@web.service => SystemdUnit systemd capsule@web.service name=capsule@web.service @2
/capsule.slice/capsule@web.service/app.slice/db.service => SystemdUnit systemd db.service name=db.service @4
/capsule.slice/capsule@web.service/init.scope => SystemdUnit systemd init.scope name=init.scope @3
/capsule.slice/capsule@web.service/user.slice/libpod-{ID}.scope/container => Container podman {ID} @4
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
/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope => Monitor cri-o {ID} @3 pod={UID} Guaranteed
/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{ID}.scope/x => none
/docker/{ID}/buildkit/{STEP} => Build - {STEP} @4
/kata_overhead/{ID}/vcpu => none
/kata_overhead => none
/buildkit => none
/ecs/task-1 => none
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
    // static pods: 31 and 33 digits, upper case
    "/kubepods/pod8f2c1d0e9b7a6c5d4e3f2a1b0c9d8e7",
    "/kubepods/pod{MD5}0",
    "/kubepods/pod8F2C1D0E9B7A6C5D4E3F2A1B0C9D8E7F",
    "/kubepods-pod{MD5}0.slice",
    "/ecs/two words/x/{ID}",
    "/ecs/{ID}x",
    "/crio-conmon-web",
    "/xcrio-conmon-{ID}",
    "/docker-conmon-{ID}",
    "/docker/{STEP}0",
    "/docker/{STEP}",
    "/buildkit/{STEP}0",
    "/buildkit/TZ1Q5VKXW0B7C3R2M9N8P6Y4D",
    "/xbuildkit/{STEP}",
    "/system.slice:docker:{STEP}0",
    "/system.slice:nerdctl:{STEP}",
    "/system:docker:{STEP}",
    "/buildah-buildah",
    "/buildah-buildah7/..",
    "/xbuildah-buildah7",
    "/kata_{ID}0",
    "/xkata_{ID}",
    "/kata-{ID}",
    "/cri-containerdkata_{ID}",
    "/a.slice:docker:kata_{ID}",
    "/kata_overheads/x/{ID}",
    "/kata-overhead.slice/runtime-rs-{ID}",
    "/kata-overhead.slice:runtime-go:{ID}",
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
    "/docker-{STEP}0.scope",
    "/crio-conmon-{STEP}.scope",
    "/xkata_{ID}.scope",
    "/kata-overhead.slice/runtime-go-{ID}.scope",
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
        ("{STEP}", STEP),
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
        "buildkit",
        "buildah-buildah",
        "kata_",
        "kata_overhead",
        "runtime-rs-",
        "ecs",
        "{STEP}",
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
