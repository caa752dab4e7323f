//! Whether this process may load eBPF programs.

use rustix::thread::{CapabilitySet, capabilities};

/// Whether this process has the capabilities to load the programs. The kernel may refuse still.
pub(crate) fn may_load_programs() -> bool {
    capabilities(None).is_ok_and(|sets| {
        let has = |capability| sets.effective.contains(capability);
        has(CapabilitySet::SYS_ADMIN) || has(CapabilitySet::BPF | CapabilitySet::PERFMON)
    })
}
