use std::sync::{Arc, Mutex};

use tokio::{sync::mpsc, task::JoinHandle};

use super::*;
use crate::{
    cgroup::hierarchy::Hierarchy,
    discover::{
        http::fake::{Reply, Server},
        podman::Podman,
        source::Sighting,
    },
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// A daemon whose events the test makes; `list` is its containers, `one` what is said of a new one.
pub(in crate::discover) struct Fake {
    server: Server,
    events: mpsc::UnboundedSender<String>,
}

impl Fake {
    pub(in crate::discover) fn start(list: String, one: String) -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        let receiver = Mutex::new(Some(receiver));
        let server = Server::start(move |path| {
            if path.contains("/events?") {
                Reply::Stream(receiver.lock().unwrap().take().unwrap())
            } else if path.contains("%22id%22") {
                Reply::Json(one.clone())
            } else if receiver.lock().unwrap().is_none() {
                Reply::Json(list.clone())
            } else {
                panic!("listed before it has subscribed")
            }
        });
        Self { server, events }
    }

    pub(in crate::discover) fn tell(&self, line: &str) {
        self.events.send(format!("{line}\n")).unwrap();
    }

    pub(in crate::discover) fn follow(
        &self,
        api: RuntimeApi,
    ) -> (
        mpsc::Receiver<Sighting>,
        JoinHandle<Result<(), SourceError>>,
    ) {
        let (sender, receiver) = mpsc::channel(8);
        let hierarchy = Arc::new(Hierarchy::at("/nowhere"));
        let sightings = Sightings::new(api, hierarchy, sender);
        let socket = self.server.socket();
        let mut source: Box<dyn Source> = match api {
            RuntimeApi::Podman => Box::new(Podman::new(socket)),
            _ => Box::new(Docker::new(socket)),
        };
        let task = tokio::spawn(async move { source.follow(&sightings).await });
        (receiver, task)
    }
}

/// What was told of a container.
pub(in crate::discover) async fn seen(
    sightings: &mut mpsc::Receiver<Sighting>,
) -> (String, ContainerDetails) {
    match sightings.recv().await.unwrap() {
        Sighting::Seen { id, details, .. } => (id, *details),
        other => panic!("{other:?}"),
    }
}

fn event(action: &str, id: &str) -> String {
    format!(
        r#"{{"status":"{action}","id":"{id}","from":"busybox","Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{"image":"busybox","name":"web"}}}},"scope":"local","time":1787394225,"timeNano":1787394225123456789}}"#
    )
}

fn listed(id: &str, name: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Names":["/other/alias","/{name}"],"Image":"busybox:1","ImageID":"sha256:1","Command":"sh","Created":1787394225,"Ports":[],"Labels":{{"com.docker.compose.project":"shop"}},"State":"running","Status":"Up 2 seconds","HostConfig":{{"NetworkMode":"none"}},"NetworkSettings":{{"Networks":{{}}}},"Mounts":[]}}"#
    )
}

#[tokio::test]
async fn what_is_there_is_listed_then_events_are_followed() {
    let list = format!("[{}]", listed(ID, "web"));
    let fake = Fake::start(list, format!("[{}]", listed(OTHER, "db")));
    fake.tell(&event("start", OTHER));
    let (mut sightings, following) = fake.follow(RuntimeApi::Docker);
    let (id, details) = seen(&mut sightings).await;
    assert_eq!(id, ID);
    assert_eq!(details.name.as_deref(), Some("web"));
    assert_eq!(details.image.as_deref(), Some("busybox:1"));
    assert_eq!(details.runtime.as_deref(), Some("docker"));
    assert_eq!(details.is_sandbox, Some(false));
    assert_eq!(details.labels["com.docker.compose.project"], "shop");
    let api = RuntimeApi::Docker;
    let ids = vec![ID.to_owned()];
    let next = sightings.recv().await.unwrap();
    assert_eq!(next, Sighting::Listed { api, ids });
    assert_eq!(seen(&mut sightings).await.0, OTHER);

    fake.tell("not JSON");
    fake.tell("{\"Action\":\"start\"}");
    fake.tell(&event("start", "../../etc/passwd"));
    fake.tell(&event("destroy", ID));
    let id = ID.to_owned();
    let next = sightings.recv().await.unwrap();
    assert_eq!(next, Sighting::Gone { api, id });

    drop(fake);
    let ended = following.await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn one_that_is_gone_before_it_is_looked_at_is_nothing() {
    let fake = Fake::start("[]".to_owned(), "[]".to_owned());
    let (mut sightings, _following) = fake.follow(RuntimeApi::Docker);
    assert!(matches!(
        sightings.recv().await,
        Some(Sighting::Listed { .. })
    ));
    fake.tell(&event("create", ID));
    fake.tell(&event("destroy", ID));
    assert!(matches!(
        sightings.recv().await,
        Some(Sighting::Gone { .. })
    ));
}

#[tokio::test]
async fn five_thousand_are_listed_without_a_look_at_each() {
    let all: Vec<_> = (0..5_000)
        .map(|number| listed(&format!("{number:064x}"), &format!("c{number}")))
        .collect();
    let fake = Fake::start(format!("[{}]", all.join(",")), "no look".to_owned());
    let (mut sightings, _following) = fake.follow(RuntimeApi::Docker);
    for number in 0..5_000 {
        let (_, details) = seen(&mut sightings).await;
        assert_eq!(details.name, Some(format!("c{number}")));
    }
    assert!(matches!(
        sightings.recv().await,
        Some(Sighting::Listed { ids, .. }) if ids.len() == 5_000
    ));
}

#[test]
fn what_a_daemon_leaves_out_is_not_known() {
    let bare: Listed = serde_json::from_str(r#"{"Id":"x","Names":null,"Labels":null}"#).unwrap();
    let seen = Seen::from(bare);
    assert_eq!(seen.details.name, None);
    assert_eq!(seen.details.image, None);
    assert!(seen.details.labels.is_empty());
}

#[test]
fn cri_dockerds_containers_have_pods() {
    let listed: Listed = serde_json::from_str(
        r#"{"Id":"x","Names":["/k8s_app_web_shop_0"],"Image":"sha256:1","Labels":{"io.kubernetes.docker.type":"podsandbox","io.kubernetes.pod.name":"web","io.kubernetes.pod.namespace":"shop","io.kubernetes.container.name":"app"}}"#,
    )
    .unwrap();
    let details = Seen::from(listed).details;
    assert_eq!(details.name.as_deref(), Some("app"));
    assert_eq!(details.pod.as_deref(), Some("web"));
    assert_eq!(details.namespace.as_deref(), Some("shop"));
    assert_eq!(details.is_sandbox, Some(true));
}
