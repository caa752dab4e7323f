//! Events and books for tests of the store.

use std::sync::Arc;

use crate::{
    Attribution, CgroupId, Constraint, Container, ContainerDetails, ContainerId, Counter, Kind,
    OomEvent, Quality, Scope, Tier, Trigger, Victim,
    account::{Book, Page},
};

pub(super) const BOOT: &str = "boot";

pub(super) fn state_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A kill at a second since 1970.
pub(super) fn event_at(second: u64) -> OomEvent {
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
        limit: crate::Limit::default(),
        counter: Counter::default(),
        container: None,
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
pub(super) fn event_in(second: u64, id: &str, details: ContainerDetails) -> OomEvent {
    let container = Container {
        id: ContainerId::new(id).unwrap(),
        cgroup_id: CgroupId(3),
        details,
    };
    OomEvent {
        container: Some(Arc::new(container)),
        ..event_at(second)
    }
}

/// A book whose container lost `accounted` processes.
pub(super) fn book(cgroup: u64, accounted: u64) -> Book {
    Book {
        cgroup_id: CgroupId(cgroup),
        container_id: ContainerId::new(&format!("c{cgroup}")).unwrap(),
        by_hand: cgroup.is_multiple_of(2),
        page: Some(Page {
            serial: Some(7),
            base: 1,
            accounted,
        }),
        recounts: 1,
    }
}
