use serde_json::{Value, json};

use super::*;
use crate::{
    containers::sighting::{RuntimeKey, Sighting},
    runtimes::{
        http::fake::{Events, Fake, Followed, Reply, whole},
        source::speaker::Speaker,
    },
};

const API: RuntimeApi = RuntimeApi::Docker;

fn realm() -> Realm {
    Realm::Docker(Owner::Host)
}

fn key(id: &str) -> RuntimeKey {
    let id = id.to_owned();
    RuntimeKey { id, realm: realm() }
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// An element of `GET /containers/json`, as dockerd 20.10 and later write it.
fn listed(id: &str, name: &str, labels: &Value) -> Value {
    json!({
        "Id": id,
        "Names": ["/other/alias", format!("/{name}")],
        "Image": "postgres:16",
        "ImageID": "sha256:8e4fc9e184489d8a4a5e7f1a2bd7b9ee2f0ac9e6ec1f9a1c3a0c3b3ccbd8a2f1",
        "Command": "docker-entrypoint.sh postgres",
        "Created": 1_764_000_000,
        "Ports": [{"PrivatePort": 5432, "Type": "tcp"}],
        "Labels": labels,
        "State": "running",
        "Status": "Up 5 minutes",
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAMConfig": null}}},
        "Mounts": []
    })
}

/// `GET /containers/{id}/json`.
fn inspected(id: &str, name: &str, labels: &Value) -> Value {
    json!({
        "Id": id,
        "Created": "2026-11-24T12:00:00.000000001Z",
        "Path": "docker-entrypoint.sh",
        "State": {"Status": "running", "Running": true, "OOMKilled": false, "Pid": 4_194_304},
        "Image": "sha256:8e4fc9e184489d8a4a5e7f1a2bd7b9ee2f0ac9e6ec1f9a1c3a0c3b3ccbd8a2f1",
        "Name": format!("/{name}"),
        "HostConfig": {"CgroupParent": "", "Memory": 67_108_864},
        "Config": {"Image": "postgres:16", "Labels": labels, "Env": ["A=b"]}
    })
}

fn event(action: &str, id: &str, name: &str) -> Value {
    json!({
        "status": action, "id": id, "from": "postgres:16",
        "Type": "container", "Action": action,
        "Actor": {"ID": id, "Attributes": {"image": "postgres:16", "name": name, "tier": "db"}},
        "scope": "local", "time": 1_764_000_000, "timeNano": 1_764_000_000_000_000_001_u64
    })
}

fn details(name: &str) -> ContainerDetails {
    ContainerDetails {
        name: Some(name.to_owned()),
        runtime: Some("docker".to_owned()),
        image: Some("postgres:16".to_owned()),
        ..ContainerDetails::default()
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
    let mut details = details(name);
    details.labels = [("tier".to_owned(), "db".to_owned())].into();
    Sighting::Details {
        api: API,
        key: key(id),
        details: Box::new(details),
    }
}

/// The next sighting that is not this one.
async fn after(followed: &mut Followed, said: &Sighting) -> Sighting {
    loop {
        let next = followed.next().await;
        if next != *said {
            return next;
        }
    }
}

fn gone(id: &str) -> Sighting {
    let key = key(id);
    Sighting::Gone { api: API, key }
}

/// A daemon with this listing. `reply` answers every other path.
fn daemon(
    listing: impl Fn(&Events) -> Reply + Send + Sync + 'static,
    reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> Fake {
    Fake::new(move |path, events| {
        if path.starts_with("/events?since=") {
            Reply::Events(Vec::new())
        } else if path == "/info" {
            Reply::Json(json!({"CgroupDriver": "systemd", "CgroupVersion": "2"}))
        } else if path == "/containers/json?all=true" {
            listing(events)
        } else {
            reply(path)
        }
    })
}

fn follow(fake: &Fake) -> Followed {
    Followed::new(Docker::new(fake.socket()))
}

fn unasked(path: &str) -> Reply {
    panic!("{path} was asked for")
}

fn missing(_: &str) -> Reply {
    Reply::Refused(404, "{\"message\":\"No such container: x\"}")
}

#[tokio::test]
async fn the_listing_names_all_containers_and_nothing_else_is_asked_for() {
    const CONTAINERS: usize = 5_000;
    let labels = json!({"com.docker.compose.project": "shop", "com.docker.compose.service": "db"});
    let all: Vec<Value> = (0..CONTAINERS)
        .map(|number| listed(&id(number), &format!("db-{number}"), &labels))
        .collect();
    let fake = daemon(move |_| Reply::Json(all.clone().into()), unasked);
    let (seen, ids) = follow(&fake).listed().await;
    assert_eq!(fake.asked(), ["/events", "/info", "/containers/json"]);
    assert_eq!((seen.len(), ids.len()), (CONTAINERS, CONTAINERS));
    let mut expected = details("db-4999");
    expected.labels = serde_json::from_value(labels).unwrap();
    assert_eq!(seen.last(), Some(&sighting(&id(4999), expected)));
}

#[tokio::test]
async fn what_happens_between_subscription_and_listing_is_not_lost() {
    let (new, old) = (id(1), id(2));
    let (name, gone_then) = (new.clone(), old.clone());
    let fake = daemon(
        move |events| {
            events.send(&event("create", &name, "db"));
            events.send(&event("destroy", &gone_then, "old"));
            Reply::Json(json!([listed(&gone_then, "old", &Value::Null)]))
        },
        |path| Reply::Json(inspected(&path[12..76], "db", &json!({}))),
    );
    let mut followed = follow(&fake);
    let (mut seen, ids) = followed.listed().await;
    // The time of reading an event is open. The sightings after the listing are not.
    seen.retain(|sighting| *sighting != said(&new, "db"));
    assert_eq!(seen, [sighting(&old, details("old"))]);
    assert_eq!(ids, std::slice::from_ref(&old));
    // Several are asked for at a time.
    let mut changes = [sighting(&new, details("db")), gone(&old)].to_vec();
    while !changes.is_empty() {
        let next = after(&mut followed, &said(&new, "db")).await;
        assert!(changes.contains(&next), "{next:?}");
        changes.retain(|change| *change != next);
    }
}

#[tokio::test]
async fn a_start_is_asked_for_and_a_removal_is_told() {
    let fake = daemon(
        |_| Reply::Json(Value::Null),
        |path| Reply::Json(inspected(&path[12..76], "renamed", &json!({"tier": "db"}))),
    );
    let mut followed = follow(&fake);
    assert_eq!(followed.listed().await, (Vec::new(), Vec::new()));
    let mut expected = details("renamed");
    expected.labels = [("tier".to_owned(), "db".to_owned())].into();
    for action in ["create", "start", "rename"] {
        fake.events().send(&event(action, &id(7), "x"));
        // The event's own details come first.
        assert_eq!(followed.next().await, said(&id(7), "x"), "{action}");
        let asked = sighting(&id(7), expected.clone());
        assert_eq!(followed.next().await, asked, "{action}");
    }
    fake.events().send(&event("exec_create: sh", &id(8), "x"));
    fake.events().send(&event("oom", &id(8), "x"));
    fake.events().send(&event("destroy", &id(7), "x"));
    assert_eq!(followed.next().await, gone(&id(7)));
}

#[tokio::test]
async fn a_container_whose_cgroup_came_first_is_asked_for() {
    let fake = daemon(
        |_| Reply::Json(json!([])),
        |path| {
            if path == format!("/containers/{}/json", id(1)) {
                Reply::Json(inspected(&id(1), "db", &json!({})))
            } else {
                missing(path)
            }
        },
    );
    let mut followed = follow(&fake);
    assert!(matches!(followed.next().await, Sighting::Listed { .. }));
    for asked in [id(2), id(1)] {
        followed.ask(realm(), &asked);
    }
    assert_eq!(followed.next().await, sighting(&id(1), details("db")));
}

#[tokio::test]
async fn a_container_that_is_removed_at_once_has_the_name_of_its_event() {
    let fake = daemon(|_| Reply::Json(json!([])), missing);
    let mut followed = follow(&fake);
    followed.listed().await;
    for action in ["create", "start", "destroy"] {
        fake.events().send(&event(action, &id(1), "brief"));
    }
    let mut told = followed.next().await;
    assert_eq!(told, said(&id(1), "brief"));
    while told != gone(&id(1)) {
        let known = [said(&id(1), "brief"), stopped(&id(1), details("brief"))];
        assert!(known.contains(&told), "{told:?}");
        told = followed.next().await;
    }
}

#[tokio::test]
async fn events_are_read_while_an_answer_is_awaited() {
    let first = std::sync::Arc::new(tokio::sync::Notify::new());
    let asked = first.clone();
    let fake = daemon(
        |_| Reply::Json(json!([])),
        move |_| {
            asked.notify_one();
            Reply::Hang
        },
    );
    let mut followed = follow(&fake);
    followed.listed().await;
    fake.events().send(&event("start", &id(1), "a"));
    first.notified().await;
    // More than fits into the socket.
    let many = (0..20_000).map(|number| format!("{}\n", event("create", &id(number), "many")));
    fake.events().write(many.collect::<String>().as_bytes());
    let error = followed.error().await;
    assert!(matches!(error, SourceError::Request { .. }), "{error:?}");
    assert!(std::error::Error::source(&error).is_some_and(|cause| {
        cause.to_string() == "more than 16384 containers wait to be asked for"
    }));
}

#[tokio::test]
async fn events_that_are_garbage_or_too_long_are_left_out() {
    let fake = daemon(|_| Reply::Json(json!([])), missing);
    let mut followed = follow(&fake);
    followed.listed().await;
    let mut long = event("create", &id(1), "long");
    long["Actor"]["Attributes"]["label"] = "x".repeat(2 << 20).into();
    fake.events().send(&long);
    fake.events().write(b"{\"Type\":\n\n[1,2]\n\xff\n");
    let mut strange = event("create", &id(2), "strange");
    strange["Type"] = "a kind of tomorrow".into();
    fake.events().send(&strange);
    fake.events().send(&event("create", &id(3), "good"));
    assert_eq!(followed.next().await, said(&id(3), "good"));
}

#[tokio::test]
async fn ids_that_are_none_go_into_no_path() {
    let all = json!([
        listed("../../images/json", "a", &Value::Null),
        listed("", "b", &Value::Null),
        {"Id": null, "Names": null, "Image": null, "Labels": null},
        listed(&id(1), "good", &Value::Null),
    ]);
    let fake = daemon(move |_| Reply::Json(all.clone()), unasked);
    let mut followed = follow(&fake);
    let (seen, ids) = followed.listed().await;
    assert_eq!(seen, [sighting(&id(1), details("good"))]);
    assert_eq!(ids, [id(1)]);
    fake.events().send(&event("start", "x?signal=KILL", "x"));
    fake.events().send(&event("destroy", &id(1), "good"));
    assert_eq!(followed.next().await, gone(&id(1)));
}

#[tokio::test]
async fn an_answer_of_another_container_names_none() {
    let fake = daemon(
        |_| Reply::Json(json!([])),
        |_| Reply::Json(inspected(&id(2), "other", &json!({}))),
    );
    let mut followed = follow(&fake);
    followed.listed().await;
    fake.events().send(&event("start", &id(1), "own"));
    assert_eq!(followed.next().await, said(&id(1), "own"));
    assert_eq!(followed.next().await, stopped(&id(1), details("own")));
}

#[tokio::test]
async fn hostile_names_are_passed_on_as_text() {
    let name = "\u{1b}[2J\n\u{202e}";
    let all = json!([listed(
        &id(1),
        name,
        &json!({"\u{0}": "\u{7}", "none": null})
    )]);
    let fake = daemon(move |_| Reply::Json(all.clone()), unasked);
    let (seen, _) = follow(&fake).listed().await;
    let mut expected = details(name);
    expected.labels = [("\u{0}".to_owned(), "\u{7}".to_owned())].into();
    assert_eq!(seen, [sighting(&id(1), expected)]);
}

#[tokio::test]
async fn a_listing_that_fails_ends_the_connection() {
    type Listing = fn() -> Reply;
    let bad: [Listing; 4] = [
        || Reply::Refused(500, "{\"message\":\"broken\"}"),
        || Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n[{".to_vec()),
        || Reply::Raw(whole(200, "[{\"Id\":\"")),
        || Reply::Json(json!({"Id": 1})),
    ];
    for listing in bad {
        let fake = daemon(move |_| listing(), unasked);
        let error = follow(&fake).error().await;
        assert!(matches!(error, SourceError::Request { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn podman_at_dockers_socket_is_left_to_its_own_source() {
    let fake = Fake::new(|path, _| {
        assert!(path.starts_with("/events"), "{path}");
        let head = "HTTP/1.1 200 OK\r\nLibpod-Api-Version: 4.3.1\r\nContent-Length: 1\r\n\r\n\n";
        Reply::Raw(head.as_bytes().to_vec())
    });
    let error = follow(&fake).error().await;
    assert!(matches!(error, SourceError::Closed), "{error:?}");
    assert_eq!(fake.asked(), ["/events"]);
}

/// Labels and name as cri-dockerd gives them.
fn kubernetes(kind: &str, container: &str) -> ContainerDetails {
    let labels = json!({
        "annotation.io.kubernetes.container.restartCount": "3",
        "io.kubernetes.container.name": container,
        "io.kubernetes.docker.type": kind,
        "io.kubernetes.pod.name": "db-0",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": "5b1c6f4e-8f1d-4f0c-9a55-1f6f3f0c2b11"
    });
    let name = format!("k8s_{container}_db-0_shop_5b1c6f4e-8f1d-4f0c-9a55-1f6f3f0c2b11_3");
    let listed: Listed = serde_json::from_value(listed(&id(1), &name, &labels)).unwrap();
    listed.seen().unwrap().details
}

#[test]
fn containers_of_kubernetes_have_their_pod() {
    let details = kubernetes("container", "postgres");
    assert_eq!(details.name.as_deref(), Some("postgres"));
    assert_eq!(details.pod.as_deref(), Some("db-0"));
    assert_eq!(details.namespace.as_deref(), Some("shop"));
    let uid = "5b1c6f4e-8f1d-4f0c-9a55-1f6f3f0c2b11";
    assert_eq!(details.pod_uid.as_deref(), Some(uid));
    assert_eq!(
        (details.attempt, details.is_sandbox),
        (Some(3), Some(false))
    );
    let sandbox = kubernetes("podsandbox", "POD");
    assert_eq!((sandbox.attempt, sandbox.is_sandbox), (None, Some(true)));
}

#[test]
fn an_images_labels_make_no_pod() {
    let labels = json!({
        "io.kubernetes.docker.type": "podsandbox",
        "io.kubernetes.pod.name": "db-0",
        "io.kubernetes.pod.namespace": "kube-system"
    });
    let listed: Listed = serde_json::from_value(listed(&id(1), "web", &labels)).unwrap();
    let details = listed.seen().unwrap().details;
    assert_eq!(details.name.as_deref(), Some("web"));
    assert_eq!((details.pod, details.namespace), (None, None));
    assert_eq!(details.is_sandbox, None);
}

#[test]
fn the_events_are_asked_for_from_now_on() {
    let path = Docker::new(PathBuf::new()).events();
    let since = path.strip_prefix("/events?since=").unwrap();
    let (since, filters) = since.split_once("&filters=").unwrap();
    let (_, fraction) = since.split_once('.').unwrap();
    assert_eq!(fraction.len(), 9);
    assert!(filters.starts_with("%7B"));
}

#[test]
fn the_driver_and_the_parent_make_the_path() {
    let id = id(1);
    let systemd = |parent: &str| Driver::Systemd.configured(parent, &id);
    assert_eq!(systemd(""), [format!(":docker:{id}")]);
    assert_eq!(systemd("pods.slice"), [format!("pods.slice:docker:{id}")]);
    let cgroupfs = |parent: &str| Driver::Cgroupfs.configured(parent, &id);
    assert_eq!(cgroupfs(""), [format!("/docker/{id}")]);
    assert_eq!(cgroupfs("/ecs/task-1"), [format!("/ecs/task-1/{id}")]);
    assert_eq!(cgroupfs("ecs/"), [format!("/ecs/{id}")]);
    assert_eq!(Driver::Unknown.configured("", &id).len(), 2);
    assert!(Driver::None.configured("", &id).is_empty());
}

#[test]
fn only_a_running_container_has_a_place() {
    let place = |json: &Value| {
        let mut answer = inspected(&id(1), "web", &Value::Null);
        answer["State"] = json.clone();
        let answer: Inspected = serde_json::from_value(answer).unwrap();
        let seen = answer.seen(Driver::Cgroupfs, Asked::now()).unwrap();
        (seen.is_running, seen.place)
    };
    let (is_running, place_of_one) =
        place(&json!({"Status": "running", "Running": true, "Pid": 7}));
    assert!(is_running);
    assert_eq!(place_of_one.process.map(|process| process.pid), Some(7));
    assert_eq!(place_of_one.configured, [format!("/docker/{}", id(1))]);
    let stopped = place(&json!({"Status": "exited", "Running": false, "Pid": 7}));
    assert_eq!(stopped, (false, ContainerPlace::default()));
}

/// `docker pull` gave the tag to another image.
#[tokio::test]
async fn an_image_without_a_name_is_asked_for() {
    let mut moved = listed(&id(1), "db", &Value::Null);
    moved["Image"] =
        "sha256:8e4fc9e184489d8a4a5e7f1a2bd7b9ee2f0ac9e6ec1f9a1c3a0c3b3ccbd8a2f1".into();
    let all = json!([moved, listed(&id(2), "web", &Value::Null)]);
    let fake = daemon(
        move |_| Reply::Json(all.clone()),
        |path| {
            assert_eq!(path, format!("/containers/{}/json", id(1)));
            Reply::Json(inspected(&id(1), "db", &json!({})))
        },
    );
    let mut followed = follow(&fake);
    let (seen, _) = followed.listed().await;
    let mut nameless = details("db");
    nameless.image = None;
    assert_eq!(
        seen,
        [sighting(&id(1), nameless), sighting(&id(2), details("web"))]
    );
    assert_eq!(followed.next().await, sighting(&id(1), details("db")));
}

#[tokio::test]
async fn a_listing_says_what_runs() {
    let mut all = [1, 2, 3].map(|number| listed(&id(number), "db", &Value::Null));
    all[1]["State"] = "exited".into();
    all[2]["State"] = "paused".into();
    let all = json!(all);
    let fake = daemon(move |_| Reply::Json(all.clone()), unasked);
    let (seen, _) = follow(&fake).listed().await;
    let expected = [
        sighting(&id(1), details("db")),
        stopped(&id(2), details("db")),
        sighting(&id(3), details("db")),
    ];
    assert_eq!(seen, expected);
}

/// A user's daemon could list anybody's id.
#[tokio::test]
async fn a_users_daemon_names_nothing_without_proof() {
    let all = json!([listed(&id(1), "db", &Value::Null)]);
    let fake = daemon(move |_| Reply::Json(all.clone()), missing);
    let docker = Docker::new(fake.socket());
    let mut followed = Followed::of(docker, Speaker::user(1000));
    let (seen, _) = followed.listed().await;
    let [Sighting::Seen { key, details, .. }] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(key.realm, Realm::Docker(Owner::User(1000)));
    assert_eq!(**details, ContainerDetails::default());
    fake.events().send(&event("create", &id(2), "x"));
    let next = followed.next().await;
    assert!(
        matches!(next, Sighting::Seen { details, .. } if *details == ContainerDetails::default())
    );
}

/// 8 MiB of empty elements took 300 MiB.
#[tokio::test]
async fn a_listing_of_nothing_brings_nothing() {
    let text = format!("[{}{{}}]", "{},".repeat(1 << 20));
    let fake = daemon(move |_| Reply::Raw(whole(200, &text)), unasked);
    assert_eq!(follow(&fake).listed().await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn twenty_thousand_times_one_container_is_one() {
    let all = vec![listed(&id(1), "db", &Value::Null); 20_000];
    let fake = daemon(move |_| Reply::Json(all.clone().into()), unasked);
    let (seen, ids) = follow(&fake).listed().await;
    assert_eq!((seen.len(), ids), (1, vec![id(1)]));
}
