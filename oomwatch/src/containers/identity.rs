//! On what evidence a container has its name. Pure.

use std::fmt;

use crate::id::ContainerId;

/// On what a container's identity rests, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Identity {
    /// Its runtime says that this cgroup is the container's.
    Runtime,
    /// The path of its cgroup, which root made.
    Path,
    /// A person registered it.
    Manual,
    /// A systemd unit, by the path of its cgroup.
    Unit,
    /// A path that somebody else made, or that is below another container: only a claim.
    Claimed,
    /// There is no container.
    Unknown,
}

impl Identity {
    /// The name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Path => "path",
            Self::Manual => "manual",
            Self::Unit => "unit",
            Self::Claimed => "claimed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether more than a claim is known.
    pub(crate) fn is_evidence(self) -> bool {
        !matches!(self, Self::Claimed | Self::Unknown)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A person's word on a cgroup. It stands until a person says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is this container's.
    Is(ContainerId),
    /// Its container was taken out.
    TakenOut,
}
