//! Events for tests.

use std::sync::Arc;

use super::{Counter, Kind, Limit, OomEvent, Quality, Trigger, Victim};
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    event::{Attribution, Scope},
    id::{CgroupId, ContainerId},
    record::Constraint,
    tier::Tier,
};

/// The boot of the events.
pub(crate) const BOOT: &str = "boot";

/// A kill at a second since 1970.
pub(crate) fn event_at(second: u64) -> OomEvent {
    OomEvent {
        id: format!("{BOOT}-{second}"),
        seq: second,
        unix_time_ns: i128::from(second) * 1_000_000_000,
        boottime_ns: second,
        kind: Kind::Kill,
        count: 1,
        supersedes: None,
        while_down: false,
        evidence: Vec::new(),
        scope: Scope::Container,
        constraint: Constraint::Memcg,
        group: None,
        victim: Victim::default(),
        trigger: Trigger::default(),
        limit: Limit::default(),
        counter: Counter::default(),
        container: None,
        place: None,
        node: None,
        delivered_ns: None,
        quality: Quality {
            tier: Tier::Btf,
            attribution: Attribution::Exact,
            missing: Vec::new(),
        },
    }
}

/// A kill in a container.
pub(crate) fn event_in(second: u64, id: &str, details: ContainerDetails) -> OomEvent {
    let container = Container {
        id: ContainerId::new(id).unwrap(),
        cgroup_id: CgroupId(3),
        identity: Identity::Manual,
        inside: None,
        details,
    };
    OomEvent {
        container: Some(Arc::new(container)),
        ..event_at(second)
    }
}
