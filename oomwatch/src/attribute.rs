//! Attribution: whose process the victim was, and whose limit was hit.
//!
//! The nearest registered ancestor-or-self of the *victim's* cgroup wins; the trigger's
//! cgroup plays no part. Pure.

use std::sync::Arc;

use crate::{
    containers::{container::Container, registry::Registry},
    event::{Attribution, Scope},
    id::CgroupId,
    record::{LimitHit, VictimRecord},
    topology::tree::Tree,
};

/// The answer for one victim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attributed {
    pub(crate) container: Option<Arc<Container>>,
    pub(crate) attribution: Attribution,
    pub(crate) scope: Scope,
}

/// Attributes one victim.
pub(crate) fn attribute(tree: &Tree, registry: &Registry, victim: &VictimRecord) -> Attributed {
    let is_container = |cgroup: &CgroupId| registry.contains(*cgroup);
    let own = victim.victim.cgroup_id;
    let by_tree = own.and_then(|own| tree.lineage(own).find(is_container));
    let by_record = || beyond_tree(tree, victim).into_iter().find(is_container);
    let container = by_tree
        .or_else(by_record)
        .and_then(|cgroup| registry.get(tree, cgroup));
    let attribution = match &container {
        Some(found) if Some(found.cgroup_id) == own => Attribution::Exact,
        Some(_) => Attribution::Ancestor,
        None => Attribution::Unregistered,
    };
    Attributed {
        scope: scope(tree, container.as_deref(), victim),
        container,
        attribution,
    }
}

/// The way up by the record's own chain of memory cgroups, if the tree does not know it.
fn beyond_tree(tree: &Tree, victim: &VictimRecord) -> Vec<CgroupId> {
    let own = victim.victim.cgroup_id;
    let top = own.and_then(|own| tree.lineage(own).last());
    if victim.chain_is_v1 || top.is_some_and(|top| tree.is_root(top)) {
        return Vec::new();
    }
    let mut chain: Vec<_> = victim.chain.iter().map(|memcg| memcg.cgroup_id).collect();
    if let Some(&last) = chain.last() {
        chain.extend(tree.lineage(last).skip(1));
    }
    chain
}

fn scope(tree: &Tree, container: Option<&Container>, victim: &VictimRecord) -> Scope {
    let limit = match victim.limit {
        None => return Scope::Unknown,
        Some(LimitHit::Node { .. }) => return Scope::Node,
        // The id is one of the v1 hierarchy, which the tree does not know.
        Some(LimitHit::Memcg { .. }) if victim.chain_is_v1 => return Scope::Unknown,
        Some(LimitHit::Memcg { cgroup_id, .. }) => cgroup_id,
    };
    let Some(container) = container else {
        let own = victim.chain.first().map(|memcg| memcg.cgroup_id);
        return if Some(limit) == own || Some(limit) == victim.victim.cgroup_id {
            Scope::Cgroup
        } else {
            Scope::Ancestor
        };
    };
    let own = container.cgroup_id;
    if tree.lineage(limit).any(|cgroup| cgroup == own) {
        Scope::Container
    } else if tree.parent(own) == Some(limit) {
        Scope::Pod
    } else {
        Scope::Ancestor
    }
}

#[cfg(test)]
mod tests;
