use super::*;
use crate::{
    containers::{by_path::CgroupDiscovery, identity::Identity, sighting::Realm},
    engine::{
        EngineConfig,
        fixture::{begin_at, setting},
    },
    event::Now,
    record::{
        Record,
        fixture::{memcg, victim},
    },
};

const SYSTEM: CgroupId = CgroupId(2);
const WEB: CgroupId = CgroupId(3);
const CONTAINERD: RuntimeApi = RuntimeApi::Containerd;

fn engine(discovery: CgroupDiscovery, units: bool) -> Engine {
    let mut engine = Engine::new(EngineConfig {
        units,
        ..setting(discovery)
    });
    engine.learn(SYSTEM, CgroupId::ROOT, b"system.slice");
    engine
}

fn key(namespace: &str, id: &str) -> RuntimeKey {
    RuntimeKey {
        id: id.to_owned(),
        realm: Realm::Containerd(namespace.into()),
    }
}

fn seen(id: &str, cgroup_id: Option<CgroupId>, name: &str) -> Sighting {
    let details = ContainerDetails {
        name: Some(name.to_owned()),
        ..ContainerDetails::default()
    };
    Sighting::Seen {
        api: CONTAINERD,
        key: key("default", id),
        cgroup_id,
        is_running: true,
        details: Box::new(details),
    }
}

/// As the watcher does.
fn sight(engine: &mut Engine, sighting: Sighting) {
    if let Some((id, cgroup)) = engine.sighted(0, sighting, 1) {
        engine.register_seen(&id, cgroup);
    }
}

fn id_of(engine: &Engine, cgroup: CgroupId) -> Option<String> {
    let found = engine.container(cgroup)?;
    Some(found.id.as_str().to_owned())
}

fn killed(engine: &mut Engine, cgroup: CgroupId) -> OomEvent {
    let record = victim(7, 10, &[memcg(cgroup.0, 1)]);
    let now = Now {
        boottime_ns: 20,
        unix_time_ns: 20,
    };
    engine.work_through(&[Record::Victim(Box::new(record))], now);
    // Whether it has a name or not.
    engine.let_all_go();
    let mut events = engine.take_ready(now);
    assert_eq!(events.len(), 1);
    events.remove(0)
}

#[test]
fn a_path_that_says_nothing_is_registered_by_its_runtime() {
    let mut engine = engine(CgroupDiscovery::Containers, false);
    engine.learn(WEB, SYSTEM, b"web");
    sight(&mut engine, seen("web", Some(WEB), "shop"));
    let mut event = killed(&mut engine, WEB);
    assert!(!engine.name(&mut event));
    let container = event.container.unwrap();
    assert_eq!(container.id.as_str(), "web");
    assert_eq!(container.details.name.as_deref(), Some("shop"));

    assert_eq!(engine.registry().live_cgroups(), [WEB]);
    let described = engine.describe(WEB).unwrap();
    assert_eq!(described.container, container);
    assert_eq!(described.cgroup_path.as_deref(), Some("/system.slice/web"));
    assert!(engine.describe(SYSTEM).is_none());
}

#[test]
fn what_was_registered_for_want_of_better_gives_way() {
    for (discovery, units, name) in [
        (CgroupDiscovery::Leaves, false, &b"web"[..]),
        (CgroupDiscovery::Off, true, b"web.service"),
    ] {
        let mut engine = engine(discovery, units);
        engine.learn(WEB, SYSTEM, name);
        assert!(id_of(&engine, WEB).is_some());
        sight(&mut engine, seen("web", Some(WEB), "shop"));
        assert_eq!(id_of(&engine, WEB).as_deref(), Some("web"));
    }
}

/// Of three kills one was lost. Registrations move no number.
#[test]
fn what_was_lost_before_the_name_came_is_told_under_it() {
    let mut engine = engine(CgroupDiscovery::Leaves, false);
    begin_at(&mut engine, &[]);
    engine.learn(WEB, SYSTEM, b"web");
    let now = Now {
        boottime_ns: 20,
        unix_time_ns: 20,
    };
    killed(&mut engine, WEB);
    let (id, cgroup) = engine
        .sighted(0, seen("web", Some(WEB), "shop"), 1)
        .unwrap();
    engine.register_seen(&id, cgroup);
    let record = victim(8, 11, &[memcg(WEB.0, 3)]);
    let events = engine.apply(&[Record::Victim(Box::new(record))], now);
    let counts: Vec<u64> = events.iter().map(|event| event.count).collect();
    assert_eq!(counts, [1, 1]);
    for event in events {
        assert_eq!(event.container.unwrap().id.as_str(), "web");
    }
    assert_eq!(engine.node_reported().all, 3);
}

#[test]
fn what_was_registered_by_hand_stays() {
    let mut engine = engine(CgroupDiscovery::Containers, false);
    engine.learn(WEB, SYSTEM, b"web");
    let mine = Container {
        id: ContainerId::new("mine").unwrap(),
        cgroup_id: WEB,
        identity: Identity::Manual,
        inside: None,
        details: ContainerDetails::default(),
    };
    engine.register(mine).unwrap();
    sight(&mut engine, seen("web", Some(WEB), "shop"));
    assert_eq!(id_of(&engine, WEB).as_deref(), Some("mine"));
}

#[test]
fn an_event_waits_only_for_a_source_that_is_there() {
    let mut engine = engine(CgroupDiscovery::Containers, false);
    let id = "a".repeat(64);
    let name = format!("cri-containerd-{id}.scope");
    engine.learn(WEB, SYSTEM, name.as_bytes());
    let mut event = killed(&mut engine, WEB);
    assert!(!engine.name(&mut event));
    assert!(!event.quality.missing.contains(&NAME));
    let keys = Vec::new();
    sight(
        &mut engine,
        Sighting::Listed {
            api: CONTAINERD,
            keys,
        },
    );
    assert!(engine.name(&mut event));
    assert!(event.quality.missing.contains(&NAME));
    sight(&mut engine, seen(&id, None, "app"));
    assert!(!engine.name(&mut event));
    assert!(!event.quality.missing.contains(&NAME));
    let container = event.container.unwrap();
    assert_eq!(container.details.name.as_deref(), Some("app"));
    assert_eq!(container.details.runtime.as_deref(), Some("containerd"));
}

#[test]
fn a_source_is_asked_for_a_container_whose_cgroup_comes_first() {
    let mut engine = engine(CgroupDiscovery::Containers, false);
    let named = |digit: &str| format!("docker-{}.scope", digit.repeat(64));
    engine.learn(WEB, SYSTEM, named("a").as_bytes());
    // Who does not follow yet has a listing to come.
    assert_eq!(engine.take_wanted(), []);
    for (source, api) in [(0, CONTAINERD), (1, RuntimeApi::Docker)] {
        let keys = Vec::new();
        engine.sighted(source, Sighting::Listed { api, keys }, 1);
    }
    engine.learn(CgroupId(4), SYSTEM, named("b").as_bytes());
    let wanted = RuntimeKey {
        id: "b".repeat(64),
        realm: Realm::of(RuntimeApi::Docker),
    };
    assert_eq!(engine.take_wanted(), [(1, wanted)]);
    assert_eq!(engine.take_wanted(), []);
}

#[test]
fn an_event_says_that_only_anothers_words_are_known() {
    let mut engine = engine(CgroupDiscovery::Containers, false);
    let id = "a".repeat(64);
    let api = RuntimeApi::Podman;
    let podmans = RuntimeKey {
        id: id.clone(),
        realm: Realm::of(api),
    };
    let keys = Vec::new();
    sight(&mut engine, Sighting::Listed { api, keys });
    engine.learn(WEB, SYSTEM, format!("libpod-{id}.scope").as_bytes());
    let details = Box::new(ContainerDetails {
        name: Some("web".to_owned()),
        ..ContainerDetails::default()
    });
    let told = Sighting::Details {
        api,
        key: podmans.clone(),
        details: details.clone(),
    };
    sight(&mut engine, told);
    let mut event = killed(&mut engine, WEB);
    assert!(engine.name(&mut event));
    let missing = |event: &OomEvent| -> Vec<&str> {
        let missing = event.quality.missing.iter().copied();
        missing
            .filter(|name| name.starts_with("container"))
            .collect()
    };
    assert_eq!(missing(&event), [POD]);
    let seen = Sighting::Seen {
        api,
        key: podmans,
        cgroup_id: None,
        is_running: true,
        details,
    };
    sight(&mut engine, seen);
    assert!(!engine.name(&mut event));
    assert!(missing(&event).is_empty());
}

#[test]
fn units_are_containers_where_they_are_wanted() {
    let mut engine = engine(CgroupDiscovery::Containers, true);
    engine.learn(WEB, SYSTEM, b"nginx.service");
    assert_eq!(id_of(&engine, WEB).as_deref(), Some("nginx.service"));
    let event = killed(&mut engine, WEB);
    let runtime = event.container.unwrap().details.runtime.clone();
    assert_eq!(runtime.as_deref(), Some("systemd"));
}

#[test]
fn a_unit_inside_a_container_is_the_containers() {
    let mut engine = engine(CgroupDiscovery::Containers, true);
    let name = format!("docker-{}.scope", "b".repeat(64));
    engine.learn(WEB, SYSTEM, name.as_bytes());
    engine.learn(CgroupId(4), WEB, b"system.slice");
    engine.learn(CgroupId(5), CgroupId(4), b"nginx.service");
    assert_eq!(id_of(&engine, CgroupId(5)), None);
}

#[test]
fn a_users_unit_has_its_path_for_a_name() {
    let mut engine = engine(CgroupDiscovery::Containers, true);
    engine.learn(CgroupId(4), CgroupId::ROOT, b"user.slice");
    engine.learn(CgroupId(5), CgroupId(4), b"user@1000.service");
    engine.learn(CgroupId(6), CgroupId(5), b"web.service");
    assert_eq!(
        id_of(&engine, CgroupId(5)).as_deref(),
        Some("user@1000.service")
    );
    let path = "/user.slice/user@1000.service/web.service";
    assert_eq!(id_of(&engine, CgroupId(6)).as_deref(), Some(path));
}

#[test]
fn an_id_that_is_none_is_left_out() {
    let mut engine = engine(CgroupDiscovery::Containers, false);
    engine.learn(WEB, SYSTEM, b"web");
    for bad in ["", "a\nb"] {
        sight(&mut engine, seen(bad, Some(WEB), "x"));
    }
    assert_eq!(id_of(&engine, WEB), None);
}
