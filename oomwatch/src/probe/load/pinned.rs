//! Pinned programs: continuing with them, and starting without pinning where it is not possible.

use tracing::debug;

use super::{
    super::{
        Probe, ProbeConfig, ProbeError,
        older::Older,
        pin::{Opened, PinDir, PinnedGenerations},
    },
    Started, probe, start_with_btf,
};
use crate::log::warn;

/// The classic tracepoint of tier `pid` has no link that every kernel can pin.
pub(super) fn warn_unpinned(pin: Option<&PinDir>) {
    if pin.is_some() {
        warn!("tier pid cannot be pinned: kills while no daemon runs have no details");
    }
}

/// Starts without pinned programs where they cannot be pinned or used.
pub(super) fn start_or_without(
    config: &ProbeConfig,
    pin: Option<&PinDir>,
) -> Result<Probe, ProbeError> {
    match start_with_btf(config, pin) {
        Err(ProbeError::Pin(error)) => {
            let error = ProbeError::Pin(error).with_causes();
            warn!(%error, "oomwatch watches without --pin: kills while no daemon runs will have no details");
            start_with_btf(config, None)
        }
        started => started,
    }
}

/// Continues where an earlier daemon ended.
pub(super) fn go_on(
    opened: Opened,
    started: Started,
    found: PinnedGenerations,
    number: u64,
) -> Result<Probe, ProbeError> {
    debug!(number, "going on with what is pinned");
    let mut probe = probe(opened, started, None)?;
    probe.drops_before = probe
        .drops()
        .map_err(|error| ProbeError::Load(error.into()))?;
    probe.older = found.older.into_iter().map(Older::open).collect();
    probe.generation = number;
    probe.is_pinned = true;
    probe.goes_on = true;
    Ok(probe)
}
