//! On what evidence a container has its name.

use std::sync::Arc;

use super::*;
use crate::{
    containers::{
        container::ContainerDetails,
        identity::Word,
        sighting::{Owner, Realm, RuntimeApi, RuntimeKey, Sighting},
    },
    engine::{EngineConfig, fixture::setting},
    event::{Now, OomEvent},
    record::{
        Record,
        fixture::{memcg, victim},
    },
    topology::owners::Owners,
};

const SYSTEM: CgroupId = CgroupId(2);
const USERS: CgroupId = CgroupId(3);
const A: CgroupId = CgroupId(4);
const B: CgroupId = CgroupId(5);
const INNER: CgroupId = CgroupId(6);
const NOW: Now = Now {
    boottime_ns: 20,
    unix_time_ns: 20,
};

/// A host where `/users` is a user's.
#[derive(Debug)]
struct Mixed;

impl Owners for Mixed {
    fn owner(&self, directory: &[u8]) -> MadeBy {
        if directory == b"/users" {
            MadeBy::User(1000)
        } else {
            MadeBy::Root
        }
    }
}

fn engine() -> Engine {
    let mut engine = Engine::new(EngineConfig {
        owners: Arc::new(Mixed),
        ..setting(CgroupDiscovery::Containers)
    });
    engine.learn(SYSTEM, CgroupId::ROOT, b"system.slice");
    engine.learn(USERS, CgroupId::ROOT, b"users");
    engine
}

fn hex() -> String {
    "b2".repeat(32)
}

fn scope() -> Vec<u8> {
    format!("docker-{}.scope", hex()).into_bytes()
}

fn docker(cgroup_id: Option<CgroupId>, name: &str) -> Sighting {
    let details = ContainerDetails {
        name: Some(name.to_owned()),
        runtime: Some("docker".to_owned()),
        ..ContainerDetails::default()
    };
    Sighting::Seen {
        api: RuntimeApi::Docker,
        key: key(),
        cgroup_id,
        is_running: cgroup_id.is_some(),
        details: Box::new(details),
    }
}

fn key() -> RuntimeKey {
    let realm = Realm::Docker(Owner::Host);
    RuntimeKey { id: hex(), realm }
}

/// As the watcher does.
fn sight(engine: &mut Engine, sighting: Sighting) -> Vec<OomEvent> {
    if let Some((id, cgroup)) = engine.sighted(0, sighting, 1) {
        engine.register_seen(&id, cgroup);
    }
    engine.judge_below_borders();
    let claimed = engine.claim(NOW);
    engine.admit(claimed, NOW);
    ready(engine)
}

fn ready(engine: &mut Engine) -> Vec<OomEvent> {
    engine.let_all_go();
    engine.take_ready(NOW)
}

fn killed(engine: &mut Engine, tid: u32, cgroup: CgroupId) -> OomEvent {
    let record = victim(tid, 10 + u64::from(tid), &[memcg(cgroup.0, u64::from(tid))]);
    engine.work_through(&[Record::Victim(Box::new(record))], NOW);
    let mut events = ready(engine);
    assert_eq!(events.len(), 1);
    events.remove(0)
}

fn identity(engine: &Engine, cgroup: CgroupId) -> Option<Identity> {
    Some(engine.container(cgroup)?.identity)
}

fn remove(engine: &mut Engine, cgroup: CgroupId, at_ns: u64) {
    let change = crate::record::CgroupChanged {
        seq: 0,
        boottime_ns: at_ns,
        cgroup_id: cgroup,
        parent_id: None,
        name: None,
        counters: None,
        charged: None,
    };
    engine.work_through(&[Record::CgroupRemoved(change)], NOW);
}

#[test]
fn a_users_cgroup_gets_no_name_and_takes_no_place() {
    let mut engine = engine();
    sight(&mut engine, docker(None, "billing"));
    engine.learn(A, USERS, &scope());
    let event = killed(&mut engine, 1, A);
    let claim = event.container.as_deref().unwrap();
    assert_eq!(event.identity(), Identity::Claimed);
    assert_eq!(claim.details.name, None);
    assert_eq!(claim.details.realm.as_deref(), Some("uid:1000"));
    assert!(event.answerable().is_none());

    engine.learn(B, SYSTEM, &scope());
    let event = killed(&mut engine, 2, B);
    let real = event.container.as_deref().unwrap();
    assert_eq!(real.id.as_str(), hex());
    assert_eq!(real.details.name.as_deref(), Some("billing"));
    assert_eq!(event.identity(), Identity::Runtime);
    assert_eq!(identity(&engine, A), Some(Identity::Claimed));
}

#[test]
fn a_users_unit_has_no_name() {
    let mut engine = Engine::new(EngineConfig {
        owners: Arc::new(Mixed),
        units: true,
        ..setting(CgroupDiscovery::Containers)
    });
    engine.learn(SYSTEM, CgroupId::ROOT, b"system.slice");
    engine.learn(USERS, CgroupId::ROOT, b"users");
    engine.learn(A, SYSTEM, b"sshd.service");
    engine.learn(B, USERS, b"sshd.service");
    let found = |cgroup| engine.container(cgroup).unwrap();
    assert_eq!(found(A).details.name.as_deref(), Some("sshd.service"));
    assert_eq!(found(A).identity, Identity::Unit);
    let forged = found(B);
    assert_eq!(
        (forged.id.as_str(), forged.identity),
        ("/users/sshd.service", Identity::Claimed)
    );
    assert_eq!(forged.details.name, None);
    assert_eq!(forged.details.realm.as_deref(), Some("uid:1000"));
}

/// A container of Docker that was taken out, and one inside it.
fn nested() -> Engine {
    let mut engine = engine();
    engine.learn(A, SYSTEM, &scope());
    let inner = format!("docker-{}.scope", "c3".repeat(32));
    engine.learn(INNER, A, inner.as_bytes());
    assert_eq!(identity(&engine, INNER), Some(Identity::Claimed));
    let outer = ContainerId::new(&hex()).unwrap();
    engine.unregister(&outer).unwrap();
    engine
}

#[test]
fn what_is_in_a_container_that_was_taken_out_stays_a_claim() {
    let mut engine = nested();
    assert_eq!(identity(&engine, INNER), Some(Identity::Claimed));
    let later = format!("docker-{}.scope", "d4".repeat(32));
    engine.learn(B, A, later.as_bytes());
    assert_eq!(identity(&engine, B), Some(Identity::Claimed));
}

#[test]
fn what_is_in_a_container_by_hand_is_in_that_one() {
    let mut engine = nested();
    register_mine(&mut engine);
    let inner = engine.container(INNER).unwrap();
    assert_eq!(inner.identity, Identity::Claimed);
    let outer = inner.inside.as_ref().map(|outer| outer.id.as_str());
    assert_eq!(outer, Some("mine"));
}

#[test]
fn a_word_of_an_earlier_run_beats_what_the_scan_finds() {
    let mut engine = engine();
    let mine = ContainerId::new("mine").unwrap();
    engine.resume(None, vec![(A, Word::Is(mine.clone()))]);
    engine.learn(A, SYSTEM, &scope());
    engine.settle_resumed();
    assert_eq!(engine.container(A).unwrap().id, mine);
    assert_eq!(identity(&engine, A), Some(Identity::Manual));
}

#[test]
fn a_container_that_moved_leaves_its_cgroup() {
    let mut engine = engine();
    engine.learn(A, SYSTEM, b"one");
    engine.learn(B, SYSTEM, b"two");
    sight(&mut engine, docker(Some(A), "web"));
    assert_eq!(identity(&engine, A), Some(Identity::Runtime));
    sight(&mut engine, docker(Some(B), "web"));
    assert_eq!(identity(&engine, A), None);
    assert_eq!(identity(&engine, B), Some(Identity::Runtime));
}

#[test]
fn a_users_runtime_takes_no_id_from_the_host() {
    let mut engine = engine();
    engine.learn(A, USERS, b"one");
    let details = ContainerDetails {
        namespace: Some("prod".to_owned()),
        pod: Some("billing-0".to_owned()),
        pod_uid: Some("u".to_owned()),
        runtime: Some("docker".to_owned()),
        ..ContainerDetails::default()
    };
    let realm = Realm::Docker(Owner::User(1000));
    let users = Sighting::Seen {
        api: RuntimeApi::Docker,
        key: RuntimeKey { id: hex(), realm },
        cgroup_id: Some(A),
        is_running: true,
        details: Box::new(details),
    };
    sight(&mut engine, users);
    engine.learn(B, SYSTEM, &scope());
    assert_eq!(identity(&engine, A), Some(Identity::Runtime));
    assert_eq!(identity(&engine, B), Some(Identity::Path));
    // Nor does it name a pod of the cluster.
    let event = killed(&mut engine, 1, A);
    let details = &event.container.as_deref().unwrap().details;
    assert_eq!(
        (&details.pod, &details.namespace, &details.pod_uid),
        (&None, &None, &None)
    );
}

#[test]
fn a_container_is_taken_out_by_the_key_that_is_listed() {
    let mut engine = engine();
    engine.learn(A, SYSTEM, b"one");
    sight(&mut engine, docker(Some(A), "web"));
    let key = engine.describe(A).and_then(|listed| listed.container.key());
    let key = ContainerId::new(&key.unwrap()).unwrap();
    engine.unregister(&key).unwrap();
    assert_eq!(identity(&engine, A), None);
}

#[test]
fn what_root_made_below_a_users_directory_is_a_claim() {
    let mut engine = engine();
    engine.learn(INNER, USERS, b"roots.slice");
    engine.learn(A, INNER, &scope());
    assert_eq!(identity(&engine, A), Some(Identity::Claimed));
    let realm = engine
        .container(A)
        .and_then(|there| there.details.realm.clone());
    assert_eq!(realm.as_deref(), Some("uid:1000"));
}

#[test]
fn an_instance_inside_another_is_claimed_and_says_where() {
    let mut engine = engine();
    engine.learn(A, CgroupId::ROOT, b"lxc.payload.outer");
    engine.learn(INNER, A, b"lxc.payload.db");
    engine.learn(B, CgroupId::ROOT, b"lxc.payload.db");
    assert_eq!(identity(&engine, INNER), Some(Identity::Claimed));
    assert_eq!(identity(&engine, B), Some(Identity::Path));
    let event = killed(&mut engine, 1, INNER);
    assert_eq!(event.container.as_ref().unwrap().id.as_str(), "db");
    assert_eq!(event.answerable().unwrap().id.as_str(), "outer");
    let event = killed(&mut engine, 2, B);
    assert_eq!(event.answerable().unwrap().cgroup_id, B);
    let db = ContainerId::new("db").unwrap();
    assert_eq!(
        engine.registry().meant(engine.tree(), &db, &|_| None),
        Ok(B)
    );
}

#[test]
fn an_id_that_becomes_free_is_offered_again() {
    let mut engine = engine();
    engine.learn(A, SYSTEM, &scope());
    engine.learn(B, CgroupId::ROOT, &scope());
    assert_eq!(identity(&engine, B), Some(Identity::Claimed));
    remove(&mut engine, A, 11);
    assert_eq!(identity(&engine, B), Some(Identity::Path));
}

#[test]
fn a_runtimes_word_moves_a_registration_and_its_last_kills() {
    let mut engine = engine();
    let api = RuntimeApi::Docker;
    let keys = Vec::new();
    sight(&mut engine, Sighting::Listed { api, keys });
    engine.learn(A, SYSTEM, &scope());
    engine.learn(B, SYSTEM, b"elsewhere");
    let by_path = killed(&mut engine, 1, A);
    let nobodys = killed(&mut engine, 2, B);
    assert_eq!(by_path.identity(), Identity::Path);
    assert!(nobodys.container.is_none());

    let again = sight(&mut engine, docker(Some(B), "shop"));
    let of = |first: &OomEvent| {
        let mut again = again.iter();
        let found = again.find(|event| event.supersedes == Some(first.seq));
        let found = found.unwrap();
        assert_eq!(found.id, first.id);
        found
    };
    assert_eq!(of(&by_path).identity(), Identity::Claimed);
    let moved = of(&nobodys);
    assert_eq!(moved.identity(), Identity::Runtime);
    let shop = moved.container.as_ref().unwrap();
    assert_eq!(shop.details.name.as_deref(), Some("shop"));
    assert_eq!(again.len(), 2);
    let kills = |cgroup| engine.describe(cgroup).unwrap().kills;
    assert_eq!((kills(A), kills(B)), (1, 1));
    assert_eq!(engine.totals().kills, 2);
}

#[test]
fn a_container_named_by_its_runtime_is_a_border_for_what_was_there_before() {
    let mut engine = engine();
    engine.learn(A, SYSTEM, b"kind");
    engine.learn(INNER, A, &scope());
    assert_eq!(identity(&engine, INNER), Some(Identity::Path));
    let named = Sighting::Seen {
        api: RuntimeApi::Containerd,
        key: RuntimeKey {
            id: "kind".to_owned(),
            realm: Realm::Containerd("default".into()),
        },
        cgroup_id: Some(A),
        is_running: true,
        details: Box::default(),
    };
    sight(&mut engine, named);
    assert_eq!(identity(&engine, INNER), Some(Identity::Claimed));
    let event = killed(&mut engine, 1, INNER);
    assert_eq!(event.answerable().unwrap().id.as_str(), "kind");
}

fn register_mine(engine: &mut Engine) {
    let mine = Container {
        id: ContainerId::new("mine").unwrap(),
        cgroup_id: A,
        identity: Identity::Manual,
        inside: None,
        details: ContainerDetails::default(),
    };
    engine.register_by_hand(mine).unwrap();
}

#[test]
fn a_persons_word_beats_a_claim() {
    let mut engine = engine();
    engine.learn(A, USERS, &scope());
    register_mine(&mut engine);
    assert_eq!(identity(&engine, A), Some(Identity::Manual));
}

#[test]
fn a_persons_word_stands() {
    let mut engine = engine();
    engine.learn(A, SYSTEM, &scope());
    engine
        .unregister(&ContainerId::new(&hex()).unwrap())
        .unwrap();
    sight(&mut engine, docker(Some(A), "shop"));
    assert_eq!(identity(&engine, A), None);
    register_mine(&mut engine);
    sight(&mut engine, docker(Some(A), "shop"));
    let event = killed(&mut engine, 1, A);
    assert_eq!(event.container.as_ref().unwrap().id.as_str(), "mine");
    assert_eq!(event.identity(), Identity::Manual);
}

/// Kata: all containers of a pod are in the sandbox's cgroup.
#[test]
fn a_cgroup_of_several_containers_is_the_sandboxs() {
    let mut engine = engine();
    engine.learn(A, SYSTEM, b"kata");
    let seen = |id: &str, is_sandbox: bool| Sighting::Seen {
        api: RuntimeApi::Containerd,
        key: RuntimeKey {
            id: id.to_owned(),
            realm: Realm::Containerd("k8s.io".into()),
        },
        cgroup_id: Some(A),
        is_running: true,
        details: Box::new(ContainerDetails {
            is_sandbox: Some(is_sandbox),
            ..ContainerDetails::default()
        }),
    };
    for sighting in [
        seen("app", false),
        seen("sandbox", true),
        seen("logger", false),
    ] {
        sight(&mut engine, sighting);
    }
    assert_eq!(engine.container(A).unwrap().id.as_str(), "sandbox");
}
