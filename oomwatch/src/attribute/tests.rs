use super::*;
use crate::{
    containers::{container::ContainerDetails, identity::Identity},
    id::ContainerId,
    record::fixture::{memcg, victim},
};

const SLICE: u64 = 2;
const POD: u64 = 3;
const APP: u64 = 4;
const SUB: u64 = 5;

/// `/slice/pod/app/sub`, with `app` registered.
fn host() -> (Tree, Registry) {
    let mut tree = Tree::new(CgroupId::ROOT);
    tree.insert(CgroupId(SLICE), CgroupId::ROOT, b"slice");
    tree.insert(CgroupId(POD), CgroupId(SLICE), b"pod");
    tree.insert(CgroupId(APP), CgroupId(POD), b"app");
    tree.insert(CgroupId(SUB), CgroupId(APP), b"sub");
    let mut registry = Registry::default();
    register(&mut registry, "app", APP);
    (tree, registry)
}

fn register(registry: &mut Registry, id: &str, cgroup: u64) {
    let container = Container {
        id: ContainerId::new(id).unwrap(),
        cgroup_id: CgroupId(cgroup),
        identity: Identity::Manual,
        inside: None,
        details: ContainerDetails::default(),
    };
    registry.add(&Tree::new(CgroupId::ROOT), container).unwrap();
}

fn in_cgroup(cgroup: u64, limit: Option<LimitHit>) -> VictimRecord {
    let mut record = victim(1, 1, &[memcg(cgroup, 1)]);
    record.limit = limit;
    record
}

fn limit(cgroup: u64) -> Option<LimitHit> {
    Some(LimitHit::Memcg {
        cgroup_id: CgroupId(cgroup),
        max_bytes: None,
        usage_bytes: None,
    })
}

fn id(attributed: &Attributed) -> Option<&str> {
    attributed.container.as_ref().map(|found| found.id.as_str())
}

#[test]
fn the_container_itself_is_exact_and_a_cgroup_below_is_ancestor() {
    let (tree, registry) = host();
    let own = attribute(&tree, &registry, &in_cgroup(APP, limit(APP)));
    assert_eq!(
        (id(&own), own.attribution),
        (Some("app"), Attribution::Exact)
    );
    let below = attribute(&tree, &registry, &in_cgroup(SUB, limit(APP)));
    assert_eq!(
        (id(&below), below.attribution),
        (Some("app"), Attribution::Ancestor)
    );
}

#[test]
fn the_nearest_container_wins() {
    let (tree, mut registry) = host();
    register(&mut registry, "outer", POD);
    register(&mut registry, "inner", SUB);
    let found = |cgroup| {
        let attributed = attribute(&tree, &registry, &in_cgroup(cgroup, limit(APP)));
        id(&attributed).map(str::to_owned)
    };
    assert_eq!(found(SUB).as_deref(), Some("inner"));
    assert_eq!(found(APP).as_deref(), Some("app"));
    assert_eq!(found(POD).as_deref(), Some("outer"));
    assert_eq!(found(SLICE), None);
}

/// DataDog before 28939: the allocating task's container was blamed.
#[test]
fn the_triggers_cgroup_plays_no_part() {
    let (tree, mut registry) = host();
    register(&mut registry, "other", SLICE);
    let mut record = in_cgroup(APP, limit(POD));
    record.trigger.cgroup_id = Some(CgroupId(SLICE));
    assert_eq!(id(&attribute(&tree, &registry, &record)), Some("app"));
}

#[test]
fn the_scope_is_the_limits_place_above_the_container() {
    let (tree, registry) = host();
    let scope = |limit| attribute(&tree, &registry, &in_cgroup(APP, limit)).scope;
    assert_eq!(scope(limit(APP)), Scope::Container);
    assert_eq!(scope(limit(SUB)), Scope::Container);
    assert_eq!(scope(limit(POD)), Scope::Pod);
    assert_eq!(scope(limit(SLICE)), Scope::Ancestor);
    assert_eq!(
        scope(Some(LimitHit::Node { total_bytes: None })),
        Scope::Node
    );
    assert_eq!(scope(None), Scope::Unknown);
}

#[test]
fn without_a_container_the_scope_is_told_from_the_cgroup() {
    let (tree, _) = host();
    let registry = Registry::default();
    let own = attribute(&tree, &registry, &in_cgroup(APP, limit(APP)));
    assert_eq!(
        (own.scope, own.attribution),
        (Scope::Cgroup, Attribution::Unregistered)
    );
    let above = attribute(&tree, &registry, &in_cgroup(APP, limit(POD)));
    assert_eq!(above.scope, Scope::Ancestor);
}

#[test]
fn the_records_chain_helps_where_the_tree_does_not_know_the_cgroup() {
    let (tree, registry) = host();
    let mut record = in_cgroup(99, limit(APP));
    record.chain = vec![memcg(99, 1), memcg(SUB, 1)];
    let attributed = attribute(&tree, &registry, &record);
    assert_eq!(id(&attributed), Some("app"));
    // Ids of a v1 hierarchy collide with those of v2 and must not be looked up.
    record.chain_is_v1 = true;
    let attributed = attribute(&tree, &registry, &record);
    assert_eq!((id(&attributed), attributed.scope), (None, Scope::Unknown));
}
