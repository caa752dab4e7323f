//! What the tests of the engine begin with.

use std::sync::Arc;

use super::{Engine, EngineConfig};
use crate::{
    containers::by_path::CgroupDiscovery,
    engine::compose::Origin,
    id::{CgroupId, Css},
    ledger::{Counting, Reading, Readings},
    tier::Tier,
    topology::owners::AllRoots,
};

/// A host with hierarchical counters, seen in full, without a name.
pub(super) fn setting(discovery: CgroupDiscovery) -> EngineConfig {
    EngineConfig {
        origin: Origin {
            boot_id: "boot".into(),
            node: None,
            tier: Tier::Btf,
        },
        discovery,
        units: false,
        root: CgroupId::ROOT,
        counting: Counting::Hierarchical,
        owners: Arc::new(AllRoots),
    }
}

/// Ledgers begin at these hierarchical counters: `(cgroup, parent, counter)`.
pub(crate) fn begin_at(engine: &mut Engine, counters: &[(u64, u64, u64)]) {
    let readings = counters.iter().map(|&(id, parent, sum)| {
        let below = counters.iter().filter(|(_, parent, _)| *parent == id);
        let children: Vec<_> = below.map(|&(id, _, sum)| (CgroupId(id), sum)).collect();
        let living: u64 = children.iter().map(|(_, sum)| sum).sum();
        Reading {
            parent: Some(CgroupId(parent)),
            children,
            ..Reading::of(
                CgroupId(id),
                Css::default(),
                sum.saturating_sub(living),
                Some(sum),
            )
        }
    });
    engine.begin(&Readings {
        readings: readings.collect(),
        unread: Vec::new(),
    });
}
