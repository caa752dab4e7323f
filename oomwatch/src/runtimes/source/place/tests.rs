use std::collections::BTreeMap;

use super::*;
use crate::containers::sighting::{Realm, RuntimeApi};

/// Cgroups with their owners, and the cgroups of processes that run.
#[derive(Debug, Default)]
struct Facts {
    cgroups: BTreeMap<String, u32>,
    processes: BTreeMap<u32, String>,
}

impl Facts {
    fn with(mut self, path: &str, owner: u32) -> Self {
        self.cgroups.insert(path.to_owned(), owner);
        self
    }

    fn running(mut self, pid: u32, path: &str) -> Self {
        self.processes.insert(pid, path.to_owned());
        self.with(path, 0)
    }
}

impl Ground for Facts {
    fn cgroup(&self, path: &str) -> Option<CgroupId> {
        let number = self.cgroups.keys().position(|known| known == path)?;
        Some(CgroupId(u64::try_from(number).unwrap()))
    }

    fn owner(&self, path: &str) -> Option<u32> {
        self.cgroups.get(path).copied()
    }

    fn path_of(&self, process: &Process) -> Option<String> {
        self.processes.get(&process.pid).cloned()
    }
}

fn key(id: &str) -> RuntimeKey {
    let realm = Realm::of(RuntimeApi::Cri);
    let id = id.to_owned();
    RuntimeKey { id, realm }
}

fn configured(path: &str) -> ContainerPlace {
    ContainerPlace {
        configured: vec![path.to_owned()],
        process: None,
    }
}

fn process(pid: u32) -> ContainerPlace {
    ContainerPlace {
        configured: Vec::new(),
        process: Asked::now().process(pid),
    }
}

/// The path of the cgroup that is found.
fn found(places: &mut Places<Facts>, id: &str, place: &ContainerPlace) -> Option<String> {
    let found = places.find(&key(id), place)?;
    let number = usize::try_from(found.0).unwrap();
    places.ground.cgroups.keys().nth(number).cloned()
}

fn host(facts: Facts) -> Places<Facts> {
    Places::new(facts, Speaker::host())
}

#[test]
fn the_one_configured_cgroup_that_exists_counts() {
    let facts = Facts::default()
        .with("/default/web", 0)
        .with("/a.slice/cri-x.scope", 0)
        .with("/twice", 0)
        .with("/thrice", 0);
    let mut places = host(facts);
    let mut at = |path: &str| found(&mut places, path, &configured(path));
    assert_eq!(at("/default/web").as_deref(), Some("/default/web"));
    assert_eq!(at("a.slice:cri:x").as_deref(), Some("/a.slice/cri-x.scope"));
    assert_eq!(at("/default/none"), None);
    assert_eq!(at("/"), None);
    let two = ContainerPlace {
        configured: ["/twice", "/thrice"].map(str::to_owned).into(),
        process: None,
    };
    assert_eq!(found(&mut places, "two", &two), None);
}

#[test]
fn a_process_of_a_unit_is_no_container() {
    let facts = Facts::default()
        .running(7, "/system.slice/sshd.service")
        .running(8, "/user.slice/user-1000.slice/session-3.scope")
        .running(9, "/ecs/task-1/x");
    let mut places = host(facts);
    for (pid, path) in [(7, None), (8, None), (9, Some("/ecs/task-1/x")), (10, None)] {
        let id = format!("c{pid}");
        assert_eq!(found(&mut places, &id, &process(pid)).as_deref(), path);
    }
}

/// Kata: all tasks of a pod have one process, the hypervisor's.
#[test]
fn a_shared_process_is_the_sandboxs_if_anybodys() {
    let (app, sandbox) = ("1".repeat(64), "7".repeat(64));
    let kata = format!("/kubepods/pod1/kata_{sandbox}");
    let mut places = host(Facts::default().running(7, &kata).running(8, "/vm/1"));
    assert_eq!(found(&mut places, &app, &process(7)), None);
    assert_eq!(found(&mut places, &sandbox, &process(7)), Some(kata));
    for id in ["a", "b"] {
        places.mention(&key(id), 8);
    }
    for id in ["a", "b"] {
        assert_eq!(found(&mut places, id, &process(8)), None);
    }
    places.forget(&key("a"));
    assert_eq!(
        found(&mut places, "b", &process(8)).as_deref(),
        Some("/vm/1")
    );
}

#[test]
fn a_cgroup_that_names_nobody_is_one_containers() {
    let facts = Facts::default().running(7, "/vm").running(8, "/vm");
    let mut places = host(facts);
    assert!(found(&mut places, "a", &process(7)).is_some());
    assert_eq!(found(&mut places, "b", &process(8)), None);
    places.retain(|known| *known != key("a"));
    assert!(found(&mut places, "b", &process(8)).is_some());
}

#[test]
fn a_users_runtime_speaks_for_the_users_cgroups() {
    let own = "/user.slice/user-1000.slice/user@1000.service";
    let facts = Facts::default()
        .with(own, 1000)
        .with(&format!("{own}/user.slice/libpod-x.scope"), 1000)
        .running(7, "/docker/web")
        .with("/given", 1000)
        .with("/system.slice/libpod-x.scope", 0);
    let mut places = Places::new(facts, Speaker::user(1000));
    let mut at = |path: &str| found(&mut places, "x", &configured(path));
    assert!(at(":libpod:x").is_some());
    assert_eq!(at("/system.slice/libpod-x.scope"), None);
    assert_eq!(at("/given"), None, "what the user owns is not below it");
    assert_eq!(found(&mut places, "web", &process(7)), None);
    let mut other = Places::new(places.ground, Speaker::user(1001));
    let place = configured(&format!("{own}/user.slice/libpod-x.scope"));
    assert_eq!(found(&mut other, "x", &place), None);
}

/// The containerd of a kind node, given by `--socket`.
#[test]
fn a_runtime_in_a_container_speaks_for_what_is_below_it() {
    let pod = "/docker/node/kubelet.slice/cri-containerd-x.scope";
    let facts = Facts::default()
        .with(pod, 0)
        .with("/kubelet.slice/cri-containerd-x.scope", 0)
        .running(7, "/default/web");
    let mut places = Places::new(facts, Speaker::inside("/docker/node"));
    let place = configured("kubelet.slice:cri-containerd:x");
    assert_eq!(found(&mut places, "x", &place).as_deref(), Some(pod));
    assert_eq!(
        found(&mut places, "web", &process(7)),
        None,
        "its number means another"
    );
}
