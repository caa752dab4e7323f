//! How much of a kill this host lets us see.

/// How victims are found on this kernel, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// `mark_victim` passes the task, and BTF gives the kernel's layout.
    Btf,
    /// The same, but `mark_victim` passes a thread id only. The task comes from the SIGKILL just before it.
    BtfPid,
    /// Without BTF: `mark_victim` passes a thread id, and the victim's exit shows its cgroup. Limits and memory are
    /// unknown, and counters are read from files.
    Pid,
    /// Without eBPF: `memory.events` shows how many were killed, and nothing shows who.
    Counters,
}

/// Which tier a watcher is to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TierChoice {
    /// The best that this host allows. Without privilege for eBPF this is an error, not [`Tier::Counters`]: a user
    /// without privilege should notice.
    #[default]
    Auto,
    /// The best tier that uses eBPF.
    Ebpf,
    /// This tier, or an error.
    Only(Tier),
}

impl TierChoice {
    /// Whether a tier may be used.
    #[must_use]
    pub fn allows(self, tier: Tier) -> bool {
        match self {
            Self::Auto => true,
            Self::Ebpf => tier != Tier::Counters,
            Self::Only(only) => tier == only,
        }
    }
}

impl Tier {
    /// The tier's name in events and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::BtfPid => "btf-pid",
            Self::Pid => "pid",
            Self::Counters => "counters",
        }
    }

    /// What `mark_victim` passes, as far as this tier relies on it: `task`, a thread id (`pid`), or `none`.
    pub(crate) fn layout(self) -> &'static str {
        match self {
            Self::Btf => "task",
            Self::BtfPid | Self::Pid => "pid",
            Self::Counters => "none",
        }
    }

    /// Whether limits are known from containers' counters alone.
    pub(crate) fn reads_counters(self) -> bool {
        matches!(self, Self::Pid | Self::Counters)
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
