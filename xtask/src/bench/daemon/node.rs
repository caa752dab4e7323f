//! A made-up Kubernetes node: empty cgroups named as the kubelet and containerd name theirs.

use anyhow::Result;
use oomwatch_tests::{cgroup::Cgroup, host::Layout};

/// Containers of one pod.
const OF_A_POD: usize = 10;

/// The subtree, removed on drop.
pub(super) struct Node {
    _root: Cgroup,
}

impl Node {
    /// Makes so many containers, below a cgroup of our own.
    pub(super) fn create(containers: usize) -> Result<Self> {
        let name = format!("oomwatch-bench-{}", std::process::id());
        let root = Cgroup::create(Layout::read()?.unified().join(name))?;
        // Made before what is below, so that a failure removes all of it.
        let node = Self { _root: root };
        let class = node._root.path().join("kubepods.slice");
        let class = class.join("kubepods-burstable.slice");
        for number in 0..containers {
            let pod = number / OF_A_POD;
            let pod = class.join(format!(
                "kubepods-burstable-pod{pod:08x}_0c2d_4f5a_9b1e_{pod:012x}.slice"
            ));
            let id = format!(
                "{:016x}",
                (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            );
            let id = id.repeat(4);
            std::fs::create_dir_all(pod.join(format!("cri-containerd-{id}.scope")))?;
        }
        Ok(node)
    }
}
