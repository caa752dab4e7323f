//! What the tests of the engine begin with.

use super::Setting;
use crate::{CgroupDiscovery, CgroupId, Tier, event::build::Origin, reconcile::Counting};

/// A host with hierarchical counters, seen in full, without a name.
pub(super) fn setting(discovery: CgroupDiscovery) -> Setting {
    Setting {
        origin: Origin {
            boot_id: "boot".into(),
            node: None,
            tier: Tier::Btf,
        },
        discovery,
        units: false,
        root: CgroupId::ROOT,
        counting: Counting::Hierarchical,
    }
}
