use std::sync::Mutex;

use prost::Message;
use tokio::{sync::mpsc, task::JoinHandle};

use super::*;
use crate::{
    containers::sighting::{Realm, Sighting},
    runtimes::{
        grpc::{
            containerd::messages::{
                Any, ContainerAnswer, ContainerRequest, Namespace, NamespacesAnswer, Process,
                TaskAnswer, TasksAnswer,
            },
            fake::{Asked, Reply, Server},
        },
        source::speaker::Speaker,
    },
};

/// containerd with two namespaces, and a container of one name in each.
struct Runtime {
    server: Server,
    events: mpsc::UnboundedSender<bytes::Bytes>,
}

impl Runtime {
    fn start(containers: impl Fn(&str) -> Vec<Container> + Send + Sync + 'static) -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        let receiver = Mutex::new(Some(receiver));
        let server = Server::start(move |asked| answer(asked, &containers, &receiver));
        Self { server, events }
    }

    fn follow(
        &self,
    ) -> (
        mpsc::Receiver<Sighting>,
        JoinHandle<Result<(), SourceError>>,
    ) {
        let (sender, receiver) = mpsc::channel(8);
        let sightings = Sightings::as_if(RuntimeApi::Containerd, Speaker::host(), sender);
        let mut source = Containerd::new(self.server.socket());
        let task =
            tokio::spawn(async move { source.follow(&sightings, &mut Wanted::channel().1).await });
        (receiver, task)
    }

    fn tell(&self, topic: &str, event: &impl Message) {
        let envelope = Envelope {
            namespace: "default".to_owned(),
            topic: topic.to_owned(),
            event: Some(Any {
                type_url: String::new(),
                value: event.encode_to_vec(),
            }),
            timestamp: None,
        };
        self.events.send(envelope.encode_to_vec().into()).unwrap();
    }
}

fn answer(
    asked: &Asked,
    containers: &dyn Fn(&str) -> Vec<Container>,
    events: &Mutex<Option<mpsc::UnboundedReceiver<bytes::Bytes>>>,
) -> Reply {
    let namespace = asked.metadata.get("containerd-namespace");
    let namespace = namespace.map_or("", |namespace| namespace.to_str().unwrap());
    let method = asked.method.rsplit('.').next().unwrap();
    match method {
        "Events/Subscribe" => Reply::Stream(events.lock().unwrap().take().unwrap()),
        "Namespaces/List" => {
            let named = |name: &str| Namespace {
                name: name.to_owned(),
            };
            Reply::one(&NamespacesAnswer::from(vec![
                named("default"),
                named("k8s.io"),
            ]))
        }
        "Tasks/List" => Reply::one(&TasksAnswer::from(vec![task()])),
        "Tasks/Get" => Reply::one(&TaskAnswer { task: Some(task()) }),
        "Containers/ListStream" => {
            let all = containers(namespace).into_iter();
            let all = all.map(|container| ContainerAnswer::from(vec![container]));
            Reply::all(&all.collect::<Vec<_>>())
        }
        "Containers/Get" => {
            let id = asked.message::<ContainerRequest>().id;
            let found = containers(namespace)
                .into_iter()
                .find(|container| container.id == id);
            match found {
                Some(found) => Reply::one(&ContainerAnswer::from(vec![found])),
                None => Reply::Refused(tonic::Code::NotFound, "no such container"),
            }
        }
        other => panic!("{other}"),
    }
}

fn task() -> Process {
    Process {
        id: "web".to_owned(),
        pid: 0,
        status: 2,
    }
}

fn web(namespace: &str) -> Vec<Container> {
    vec![Container {
        id: "web".to_owned(),
        labels: std::collections::BTreeMap::new(),
        image: format!("{namespace}.example/web:1"),
    }]
}

const SOCKET: &str = "/run/containerd/containerd.sock";

fn container(id: &str, labels: &[(&str, &str)]) -> Container {
    let labels = labels.iter();
    Container {
        id: id.to_owned(),
        labels: labels
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        image: "busybox".to_owned(),
    }
}

/// The next sighting, in short.
async fn next(sightings: &mut mpsc::Receiver<Sighting>) -> String {
    match sightings.recv().await.unwrap() {
        Sighting::Seen { key, details, .. } => format!(
            "{}/{} {}",
            details.containerd_namespace.unwrap(),
            key.id,
            details.image.as_deref().unwrap_or("?")
        ),
        Sighting::Details { key, .. } => format!("{} told", key.id),
        Sighting::Gone { key, .. } => format!("{} gone", key.id),
        Sighting::Listed { keys, .. } => {
            let ids: Vec<_> = keys.into_iter().map(|key| key.id).collect();
            ids.join(" ")
        }
        Sighting::Lost { .. } => "lost".to_owned(),
    }
}

#[tokio::test]
async fn all_namespaces_are_listed_then_changes_are_followed() {
    let runtime = Runtime::start(web);
    // Before anybody has listed anything.
    let task = TaskCreate {
        container_id: "web".to_owned(),
        pid: 0,
    };
    runtime.tell("/tasks/create", &task);
    let (mut sightings, following) = runtime.follow();
    assert_eq!(
        next(&mut sightings).await,
        "default/web default.example/web:1"
    );
    assert_eq!(
        next(&mut sightings).await,
        "k8s.io/web k8s.io.example/web:1"
    );
    assert_eq!(next(&mut sightings).await, "web web");
    // Its place at once, its names then.
    assert_eq!(next(&mut sightings).await, "default/web ?");
    assert_eq!(
        next(&mut sightings).await,
        "default/web default.example/web:1"
    );

    let change = |id: &str| ContainerChange {
        id: id.to_owned(),
        image: "busybox".to_owned(),
    };
    runtime.tell("/containers/create", &change("brief"));
    assert_eq!(next(&mut sightings).await, "default/brief busybox");
    runtime.tell("/tasks/create", &7_u64);
    runtime.tell("/tasks/paused", &task);
    runtime.tell("/containers/delete", &change("web"));
    assert_eq!(next(&mut sightings).await, "web gone");

    drop(runtime);
    let ended = following.await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn five_thousand_containers_come_one_by_one() {
    let runtime = Runtime::start(|namespace| {
        let all = (0..5_000).map(|number| container(&format!("c{number}"), &[]));
        all.take_while(|_| namespace == "default").collect()
    });
    let (mut sightings, following) = runtime.follow();
    for number in 0..5_000 {
        let told = next(&mut sightings).await;
        assert_eq!(told, format!("default/c{number} busybox"));
    }
    let listed = next(&mut sightings).await;
    assert_eq!(listed.split(' ').count(), 5_000);
    following.abort();
}

#[tokio::test]
async fn a_runtime_that_refuses_is_an_error() {
    let server = Server::start(|_| Reply::Refused(tonic::Code::PermissionDenied, "no"));
    let (sender, _receiver) = mpsc::channel(8);
    let sightings = Sightings::as_if(RuntimeApi::Containerd, Speaker::host(), sender);
    let mut source = Containerd::new(server.socket());
    let ended = source.follow(&sightings, &mut Wanted::channel().1).await;
    assert!(
        matches!(ended, Err(SourceError::Request { .. })),
        "{ended:?}"
    );
}

#[test]
fn kubernetes_labels_are_names() {
    let hex = "0123456789abcdef".repeat(4);
    let labels = [
        ("io.kubernetes.pod.name", "web-7d4"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.pod.uid", "a-b-c"),
        ("io.kubernetes.container.name", "app"),
        (CRI_KIND, "container"),
    ];
    let app = details(SOCKET.as_ref(), "k8s.io", container(&hex, &labels));
    assert_eq!(app.name.as_deref(), Some("app"));
    assert_eq!(app.pod.as_deref(), Some("web-7d4"));
    assert_eq!(app.namespace.as_deref(), Some("shop"));
    assert_eq!(app.pod_uid.as_deref(), Some("a-b-c"));
    assert_eq!(app.containerd_namespace.as_deref(), Some("k8s.io"));
    assert_eq!(app.containerd_address.as_deref(), Some(SOCKET));
    assert_eq!(app.is_sandbox, Some(false));
    assert_eq!(app.labels.len(), 5);

    let pause = details(
        SOCKET.as_ref(),
        "k8s.io",
        container(&hex, &[(CRI_KIND, "sandbox")]),
    );
    assert_eq!((pause.name, pause.is_sandbox), (None, Some(true)));
}

#[test]
fn who_made_a_container_is_told() {
    let hex = "0123456789abcdef".repeat(4);
    let plain = details(SOCKET.as_ref(), "default", container("web", &[]));
    assert_eq!(plain.name.as_deref(), Some("web"));
    assert_eq!(plain.runtime.as_deref(), Some("containerd"));
    assert_eq!(plain.namespace.as_deref(), Some("default"));

    let nerdctl = details(
        SOCKET.as_ref(),
        "default",
        container(&hex, &[(NERDCTL_NAME, "db")]),
    );
    assert_eq!(nerdctl.name.as_deref(), Some("db"));
    assert_eq!(nerdctl.runtime.as_deref(), Some("nerdctl"));

    // Docker names it better, and knows what a sandbox is.
    let docker = details(SOCKET.as_ref(), "moby", container(&hex, &[]));
    assert_eq!(docker.runtime.as_deref(), Some("docker"));
    assert_eq!(
        (docker.name, docker.namespace, docker.is_sandbox),
        (None, None, None)
    );
}

/// A stopped task keeps a number that another process may have by now.
#[test]
fn only_tasks_that_are_there_run() {
    let running = (0..=6).filter(|&status| Process { status, ..task() }.is_running());
    assert_eq!(running.collect::<Vec<_>>(), [1, 2, 4, 5]);
}

fn key(namespace: &str) -> RuntimeKey {
    let realm = Realm::Containerd(namespace.into());
    let id = "web".to_owned();
    RuntimeKey { id, realm }
}

#[tokio::test]
async fn a_container_is_asked_for_in_its_namespace() {
    let runtime = Runtime::start(web);
    let (sender, mut sightings) = mpsc::channel(8);
    let told = Sightings::as_if(RuntimeApi::Containerd, Speaker::host(), sender);
    let mut source = Containerd::new(runtime.server.socket());
    let (asker, mut wanted) = Wanted::channel();
    tokio::spawn(async move { source.follow(&told, &mut wanted).await });
    for _ in 0..3 {
        next(&mut sightings).await;
    }
    for namespace in ["k8s.io", "default"] {
        asker.send(key(namespace)).await.unwrap();
        let Some(Sighting::Seen {
            key: found,
            is_running,
            ..
        }) = sightings.recv().await
        else {
            panic!("nothing was found");
        };
        assert_eq!((found, is_running), (key(namespace), true));
    }
}

/// A user's containerd could keep anybody's id in a namespace of any name.
#[tokio::test]
async fn a_users_containerd_has_realms_of_its_own() {
    let runtime = Runtime::start(web);
    let (sender, mut sightings) = mpsc::channel(8);
    let told = Sightings::as_if(RuntimeApi::Containerd, Speaker::user(1000), sender);
    let mut source = Containerd::new(runtime.server.socket());
    let (asker, mut wanted) = Wanted::channel();
    tokio::spawn(async move { source.follow(&told, &mut wanted).await });
    for _ in 0..2 {
        match sightings.recv().await.unwrap() {
            Sighting::Seen { key, details, .. } => {
                assert!(
                    matches!(&key.realm, Realm::Containerd(name) if name.starts_with("uid:1000/"))
                );
                assert_eq!(*details, ContainerDetails::default());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next(&mut sightings).await, "web web");
    // Of another realm it knows nothing.
    asker.send(key("default")).await.unwrap();
    asker.send(key("uid:1000/default")).await.unwrap();
    match sightings.recv().await.unwrap() {
        Sighting::Seen { key: found, .. } => assert_eq!(found, key("uid:1000/default")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_event_is_as_old_as_it_says() {
    let envelope = |timestamp| Envelope {
        timestamp,
        ..Envelope::default()
    };
    let at = |seconds, nanos| {
        let told = told_at(&envelope(Some(messages::Timestamp { seconds, nanos })));
        told.process(1)
    };
    assert!(at(i64::MAX, i32::MAX).is_some() && at(i64::MIN, i32::MIN).is_some());
    let old = at(0, 0);
    assert_ne!(old, told_at(&envelope(None)).process(1));
}
