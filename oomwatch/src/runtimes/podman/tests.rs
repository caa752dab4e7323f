use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{
    containers::{
        container::ContainerDetails,
        sighting::{RuntimeKey, Sighting},
    },
    runtimes::http::fake::{Fake, Followed, Reply},
};

const API: RuntimeApi = RuntimeApi::Podman;

fn realm() -> Realm {
    Realm::Podman(Owner::Host)
}

fn key(id: &str) -> RuntimeKey {
    let id = id.to_owned();
    RuntimeKey { id, realm: realm() }
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn pod_id() -> String {
    "f".repeat(64)
}

/// An element of `GET /libpod/containers/json`, as Podman 4.3 and later write it.
fn listed(id: &str, name: &str, pod: Option<&str>, is_infra: bool) -> Value {
    json!({
        "AutoRemove": false,
        "Command": ["postgres"],
        "Created": "2026-11-24T12:00:00.000000001Z",
        "CreatedAt": "",
        "ExitCode": 0,
        "Exited": false,
        "ExitedAt": -62_135_596_800_i64,
        "Id": id,
        "Image": "docker.io/library/postgres:16",
        "ImageID": "8e4fc9e184489d8a4a5e7f1a2bd7b9ee2f0ac9e6ec1f9a1c3a0c3b3ccbd8a2f1",
        "IsInfra": is_infra,
        "Labels": {"tier": "db"},
        "Mounts": [],
        "Names": [name],
        "Namespaces": {},
        "Networks": [],
        "Pid": 4_194_304,
        "Pod": pod.map(|_| pod_id()).unwrap_or_default(),
        "PodName": pod.unwrap_or_default(),
        "Ports": null,
        "Size": null,
        "StartedAt": 1_764_000_000,
        "State": "running",
        "Status": ""
    })
}

/// `GET /libpod/containers/{id}/json`.
fn inspected(id: &str, name: &str, pod: &str) -> Value {
    json!({
        "Id": id,
        "Created": "2026-11-24T12:00:00.000000001Z",
        "State": {
            "OciVersion": "1.0.2-dev", "Status": "running", "Running": true, "OOMKilled": false,
            "Pid": 4_194_304, "ConmonPid": 4_194_303,
            "CgroupPath": format!("/machine.slice/libpod-{id}.scope")
        },
        "Image": "8e4fc9e184489d8a4a5e7f1a2bd7b9ee2f0ac9e6ec1f9a1c3a0c3b3ccbd8a2f1",
        "ImageName": "docker.io/library/postgres:16",
        "Name": name,
        "Pod": pod,
        "IsInfra": false,
        "IsService": false,
        "Config": {"Hostname": "x", "Labels": {"tier": "db"}, "Image": "docker.io/library/postgres:16"},
        "HostConfig": {"CgroupMode": "private", "Cgroups": "default"}
    })
}

fn event(action: &str, id: &str, name: &str) -> Value {
    json!({
        "status": action, "id": id, "from": "docker.io/library/postgres:16",
        "Type": "container", "Action": action,
        "Actor": {"ID": id, "Attributes": {
            "image": "docker.io/library/postgres:16", "name": name, "podId": "", "tier": "db"
        }},
        "scope": "local", "time": 1_764_000_000, "timeNano": 1_764_000_000_000_000_001_u64,
        "HealthStatus": ""
    })
}

fn details(name: &str, pod: Option<&str>) -> ContainerDetails {
    ContainerDetails {
        name: Some(name.to_owned()),
        runtime: Some("podman".to_owned()),
        image: Some("docker.io/library/postgres:16".to_owned()),
        pod: pod.map(str::to_owned),
        is_sandbox: Some(false),
        labels: [("tier".to_owned(), "db".to_owned())].into(),
        ..ContainerDetails::default()
    }
}

/// A container of which nobody knows whether it runs.
fn stopped(id: &str, details: ContainerDetails) -> Sighting {
    Sighting::Seen {
        api: API,
        key: key(id),
        cgroup_id: None,
        is_running: false,
        details: Box::new(details),
    }
}

/// The sighting that an event alone gives.
fn said(id: &str, name: &str) -> Sighting {
    let mut details = details(name, None);
    details.is_sandbox = None;
    Sighting::Details {
        api: API,
        key: key(id),
        details: Box::new(details),
    }
}

fn sighting(id: &str, details: ContainerDetails) -> Sighting {
    Sighting::Seen {
        api: API,
        key: key(id),
        cgroup_id: None,
        is_running: true,
        details: Box::new(details),
    }
}

/// A daemon with this listing. `reply` answers every other path.
fn daemon(listing: Value, reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::new(move |path, _| {
        let path = path.strip_prefix("/v4.0.0/libpod").unwrap();
        if path.starts_with("/events?stream=true&filters=") {
            Reply::Events(Vec::new())
        } else if path == "/containers/json?all=true" {
            Reply::Json(listing.clone())
        } else {
            reply(path)
        }
    })
}

fn follow(fake: &Fake) -> Followed {
    Followed::new(Podman::new(fake.socket()))
}

fn missing(_: &str) -> Reply {
    Reply::Refused(
        404,
        "{\"cause\":\"no such container\",\"message\":\"no container with name or ID\",\"response\":404}",
    )
}

#[tokio::test]
async fn the_listing_has_pods_and_their_infra_containers() {
    let fake = daemon(
        json!([
            listed(&id(1), "web", Some("shop"), false),
            listed(&id(2), "shop-infra", Some("shop"), true),
            listed(&id(3), "alone", None, false),
        ]),
        missing,
    );
    let (seen, ids) = follow(&fake).listed().await;
    let mut infra = details("shop-infra", Some("shop"));
    infra.is_sandbox = Some(true);
    assert_eq!(
        seen,
        [
            sighting(&id(1), details("web", Some("shop"))),
            sighting(&id(2), infra),
            sighting(&id(3), details("alone", None)),
        ]
    );
    assert_eq!(ids, [id(1), id(2), id(3)]);
    let (events, listing) = ("/v4.0.0/libpod/events", "/v4.0.0/libpod/containers/json");
    assert_eq!(fake.asked(), [events, listing]);
}

#[tokio::test]
async fn a_container_is_asked_for_and_so_is_its_pod() {
    let fake = daemon(json!([]), |path| {
        if path == format!("/pods/{}/json", pod_id()) {
            return Reply::Json(json!({"Id": pod_id(), "Name": "shop", "State": "Running"}));
        }
        let id = &path[12..76];
        let pod = if id == self::id(1) {
            pod_id()
        } else {
            String::new()
        };
        Reply::Json(inspected(id, "web", &pod))
    });
    let mut followed = follow(&fake);
    followed.listed().await;
    fake.events().send(&event("start", &id(1), "web"));
    assert_eq!(followed.next().await, said(&id(1), "web"));
    let in_pod = sighting(&id(1), details("web", Some("shop")));
    assert_eq!(followed.next().await, in_pod);
    fake.events().send(&event("init", &id(2), "web"));
    assert_eq!(followed.next().await, said(&id(2), "web"));
    let alone = sighting(&id(2), details("web", None));
    assert_eq!(followed.next().await, alone);
    fake.events().send(&event("health_status", &id(2), "web"));
    fake.events().send(&event("remove", &id(2), "web"));
    let gone = Sighting::Gone {
        api: API,
        key: key(&id(2)),
    };
    assert_eq!(followed.next().await, gone);
}

#[tokio::test]
async fn a_container_that_is_gone_or_broken_has_the_name_of_its_event() {
    let fake = daemon(json!([]), |path| {
        if path.contains(&id(1)) {
            return missing(path);
        }
        Reply::Refused(500, "{\"message\":\"container state improper\"}")
    });
    let mut followed = follow(&fake);
    followed.listed().await;
    for number in [1, 2] {
        fake.events().send(&event("create", &id(number), "brief"));
        assert_eq!(followed.next().await, said(&id(number), "brief"));
        let mut expected = details("brief", None);
        expected.is_sandbox = None;
        expected.labels.clear();
        assert_eq!(followed.next().await, stopped(&id(number), expected));
    }
}

#[tokio::test]
async fn a_pod_that_is_none_goes_into_no_path() {
    let fake = daemon(json!([]), |path| {
        Reply::Json(inspected(&path[12..76], "web", "../../images/json?x="))
    });
    let mut followed = follow(&fake);
    followed.listed().await;
    fake.events().send(&event("start", &id(1), "web"));
    assert_eq!(followed.next().await, said(&id(1), "web"));
    let seen = sighting(&id(1), details("web", None));
    assert_eq!(followed.next().await, seen);
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test]
async fn it_is_listed_again_once_its_subscription_stands() {
    let fake = daemon(json!([listed(&id(1), "web", None, false)]), missing);
    let mut followed = follow(&fake);
    followed.listed().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    let (seen, ids) = followed.listed().await;
    assert_eq!((seen.len(), ids), (1, vec![id(1)]));
}

#[tokio::test]
async fn a_service_that_ends_is_closed_or_cannot_be_reached() {
    let fake = Fake::new(|_, _| Reply::Raw(Vec::new()));
    let error = follow(&fake).error().await;
    assert!(matches!(error, SourceError::Request { .. }), "{error:?}");
    let socket = fake.socket();
    drop(fake);
    let error = Followed::new(Podman::new(socket)).error().await;
    assert!(matches!(error, SourceError::Connect(_)), "{error:?}");
}

fn place_of(change: impl Fn(&mut Value)) -> ContainerPlace {
    let mut answer = inspected(&id(1), "web", "");
    change(&mut answer);
    let answer: Inspected = serde_json::from_value(answer).unwrap();
    answer.seen(None, Asked::now()).unwrap().place
}

#[test]
fn a_running_container_is_where_podman_says() {
    let place = place_of(|_| {});
    let path = format!("/machine.slice/libpod-{}.scope", id(1));
    assert_eq!(place.configured, [path]);
    assert_eq!(place.process.map(|process| process.pid), Some(4_194_304));
}

/// `podman run --cgroups=disabled` runs in the cgroup of the session.
#[test]
fn a_container_without_a_cgroup_has_no_place() {
    let disabled = |answer: &mut Value| {
        answer["HostConfig"]["Cgroups"] = "disabled".into();
    };
    let empty = |answer: &mut Value| answer["State"]["CgroupPath"] = "".into();
    let stopped = |answer: &mut Value| {
        answer["State"]["Running"] = false.into();
        answer["State"]["Status"] = "exited".into();
    };
    for change in [&disabled as &dyn Fn(&mut Value), &empty, &stopped] {
        assert_eq!(place_of(change), ContainerPlace::default());
    }
}
