use std::sync::Mutex;

use bytes::Bytes;
use prost::Message as _;
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::Code;

use super::{messages::ContainerMetadata, *};
use crate::{
    containers::sighting::{RuntimeKey, Sighting},
    runtimes::{
        grpc::fake::{Asked, Reply, Server},
        source::speaker::Speaker,
    },
};

/// A runtime with one pod, `shop/web`, that has as many containers as are asked for.
struct Runtime {
    server: Server,
    events: Option<mpsc::UnboundedSender<Bytes>>,
}

fn pod() -> Pod {
    Pod {
        id: "p".to_owned(),
        metadata: Some(PodMetadata {
            name: "web".to_owned(),
            uid: "u-i-d".to_owned(),
            namespace: "shop".to_owned(),
        }),
        state: 0,
        labels: BTreeMap::new(),
    }
}

fn container(number: usize) -> Container {
    Container {
        id: format!("c{number}"),
        pod_id: "p".to_owned(),
        metadata: Some(ContainerMetadata {
            name: format!("app{number}"),
            attempt: 2,
        }),
        image: Some(Image {
            image: "sha256:1".to_owned(),
            user_specified_image: "busybox:1".to_owned(),
        }),
        state: 0,
        labels: BTreeMap::new(),
    }
}

impl Runtime {
    fn start(containers: usize) -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        let receiver = Mutex::new(Some(receiver));
        let server = Server::start(move |asked| match asked.method.as_str() {
            EVENTS => Reply::Stream(receiver.lock().unwrap().take().unwrap()),
            _ => listing(asked, containers),
        });
        let events = Some(events);
        Self { server, events }
    }

    /// One whose answer to who asks for events is this.
    fn without_events(refusal: fn() -> Reply) -> Self {
        let server = Server::start(move |asked| match asked.method.as_str() {
            EVENTS => refusal(),
            _ => listing(asked, 1),
        });
        let events = None;
        Self { server, events }
    }

    fn tell(&self, id: &str, kind: i32) {
        let id = id.to_owned();
        let event = Event { id, kind }.encode_to_vec();
        self.events.as_ref().unwrap().send(event.into()).unwrap();
    }

    fn follow(
        &self,
    ) -> (
        mpsc::Receiver<Sighting>,
        JoinHandle<Result<(), SourceError>>,
    ) {
        let (receiver, _, task) = self.follow_asked();
        (receiver, task)
    }

    /// The same with where it is asked for containers.
    fn follow_asked(
        &self,
    ) -> (
        mpsc::Receiver<Sighting>,
        mpsc::Sender<RuntimeKey>,
        JoinHandle<Result<(), SourceError>>,
    ) {
        let (sender, receiver) = mpsc::channel(8);
        let sightings = Sightings::as_if(RuntimeApi::Cri, Speaker::host(), sender);
        let mut source = Cri::new(self.server.socket());
        let (asker, mut wanted) = Wanted::channel();
        let task = tokio::spawn(async move { source.follow(&sightings, &mut wanted).await });
        (receiver, asker, task)
    }
}

fn listing(asked: &Asked, containers: usize) -> Reply {
    let wanted = |id: &str| {
        let filter = asked.message::<ListRequest>().filter;
        filter.is_none_or(|filter| filter.id == id)
    };
    match asked.method.as_str() {
        VERSION => Reply::one(&VersionAnswer {
            runtime_name: "containerd".to_owned(),
        }),
        LIST_PODS => {
            let pods = [pod()].into_iter().filter(|pod| wanted(&pod.id));
            Reply::one(&PodsAnswer::from(pods.collect::<Vec<_>>()))
        }
        LIST_CONTAINERS => {
            let all = (0..containers).map(container);
            let all = all.filter(|container| wanted(&container.id));
            Reply::one(&ContainersAnswer::from(all.collect::<Vec<_>>()))
        }
        CONTAINER_STATUS | POD_STATUS => Reply::Refused(Code::Internal, "no"),
        other => panic!("{other}"),
    }
}

fn key(id: &str) -> RuntimeKey {
    let realm = Realm::of(RuntimeApi::Cri);
    let id = id.to_owned();
    RuntimeKey { id, realm }
}

async fn seen(sightings: &mut mpsc::Receiver<Sighting>) -> (String, ContainerDetails) {
    match sightings.recv().await.unwrap() {
        Sighting::Seen { key, details, .. } => (key.id, *details),
        other => panic!("{other:?}"),
    }
}

async fn listed(sightings: &mut mpsc::Receiver<Sighting>) -> usize {
    match sightings.recv().await.unwrap() {
        Sighting::Listed { keys, .. } => keys.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn containers_have_pods_and_events_are_followed() {
    let runtime = Runtime::start(1);
    runtime.tell("c0", messages::STARTED);
    let (mut sightings, following) = runtime.follow();
    let (id, app) = seen(&mut sightings).await;
    assert_eq!(id, "c0");
    let expected = ContainerDetails {
        name: Some("app0".to_owned()),
        runtime: Some("containerd".to_owned()),
        image: Some("busybox:1".to_owned()),
        pod: Some("web".to_owned()),
        pod_uid: Some("u-i-d".to_owned()),
        namespace: Some("shop".to_owned()),
        attempt: Some(2),
        is_sandbox: Some(false),
        ..ContainerDetails::default()
    };
    assert_eq!(app, expected);
    let (id, sandbox) = seen(&mut sightings).await;
    assert_eq!((id.as_str(), sandbox.is_sandbox), ("p", Some(true)));
    assert_eq!((sandbox.name, sandbox.pod.as_deref()), (None, Some("web")));
    assert_eq!(listed(&mut sightings).await, 2);
    assert_eq!(seen(&mut sightings).await, ("c0".to_owned(), expected));
    let (id, again) = seen(&mut sightings).await;
    assert_eq!((id.as_str(), again.is_sandbox), ("p", Some(true)));

    runtime.tell("p", messages::CREATED);
    assert_eq!(seen(&mut sightings).await.0, "p");
    runtime.tell("gone at once", messages::CREATED);
    runtime.tell("c0", 77);
    runtime.tell("c0", messages::DELETED);
    assert!(matches!(
        sightings.recv().await,
        Some(Sighting::Gone { key, .. }) if key.id == "c0"
    ));
    drop(runtime);
    assert!(following.await.unwrap().is_err());
}

#[tokio::test]
async fn a_container_whose_cgroup_came_first_is_asked_for() {
    let refused = || Reply::Refused(Code::Unimplemented, "unknown method");
    for runtime in [Runtime::start(1), Runtime::without_events(refused)] {
        let (mut sightings, asker, _following) = runtime.follow_asked();
        seen(&mut sightings).await;
        seen(&mut sightings).await;
        assert_eq!(listed(&mut sightings).await, 2);
        for unknown in ["gone at once", "c0"] {
            asker.send(key(unknown)).await.unwrap();
        }
        assert_eq!(seen(&mut sightings).await.0, "c0");
        let (id, sandbox) = seen(&mut sightings).await;
        assert_eq!(id, "p", "told with its container");
        assert_eq!(sandbox.is_sandbox, Some(true));
    }
}

#[tokio::test]
async fn five_thousand_are_listed_by_two_requests() {
    let runtime = Runtime::start(5_000);
    let (mut sightings, _following) = runtime.follow();
    for number in 0..5_000 {
        let (id, _) = seen(&mut sightings).await;
        assert_eq!(id, format!("c{number}"));
    }
    seen(&mut sightings).await;
    assert_eq!(listed(&mut sightings).await, 5_001);
}

#[tokio::test]
async fn a_runtime_without_events_is_listed_again() {
    let refusals: [fn() -> Reply; 2] = [
        || Reply::Refused(Code::Unimplemented, "unknown method"),
        || Reply::Messages(Vec::new()),
    ];
    for refusal in refusals {
        let runtime = Runtime::without_events(refusal);
        let (mut sightings, _following) = runtime.follow();
        for _ in 0..2 {
            seen(&mut sightings).await;
            seen(&mut sightings).await;
            assert_eq!(listed(&mut sightings).await, 2);
            // The next listing is due at once: nothing else is under way that takes real time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            tokio::time::pause();
            tokio::time::advance(LIST_EVERY).await;
            tokio::time::resume();
        }
    }
}

#[tokio::test]
async fn a_socket_without_the_interface_is_told_from_one_that_fails() {
    let follow = |code| async move {
        let server = Server::start(move |_| Reply::Refused(code, "no"));
        let (sender, _receiver) = mpsc::channel(8);
        let sightings = Sightings::as_if(RuntimeApi::Cri, Speaker::host(), sender);
        let mut source = Cri::new(server.socket());
        source.follow(&sightings, &mut Wanted::channel().1).await
    };
    let ended = follow(Code::Unimplemented).await;
    assert!(matches!(ended, Err(SourceError::Unsupported)), "{ended:?}");
    let ended = follow(Code::Unavailable).await;
    assert!(
        matches!(ended, Err(SourceError::Request { .. })),
        "{ended:?}"
    );
}

#[test]
fn a_digest_is_no_name() {
    let image = |image: &str, specified: &str| {
        reference(Image {
            image: image.to_owned(),
            user_specified_image: specified.to_owned(),
        })
    };
    assert_eq!(image("sha256:1", ""), None);
    assert_eq!(image("sha256:1", "web:2").as_deref(), Some("web:2"));
    assert_eq!(
        image("docker.io/web:2", "").as_deref(),
        Some("docker.io/web:2")
    );
    assert_eq!(image("", ""), None);
}

#[tokio::test]
async fn a_place_is_asked_for_when_the_watcher_asks() {
    let (asked, mut statuses) = mpsc::unbounded_channel();
    let refused = Reply::Refused;
    let server = Server::start(move |request| match request.method.as_str() {
        EVENTS => refused(Code::Unimplemented, "unknown method"),
        CONTAINER_STATUS | POD_STATUS => {
            let StatusRequest { id, verbose } = request.message();
            assert!(verbose);
            asked.send(id).unwrap();
            refused(Code::Internal, "no")
        }
        _ => listing(request, 1),
    });
    let runtime = Runtime {
        server,
        events: None,
    };
    let (mut sightings, asker, _following) = runtime.follow_asked();
    for _ in 0..2 {
        seen(&mut sightings).await;
    }
    assert_eq!(listed(&mut sightings).await, 2);
    assert!(statuses.try_recv().is_err());
    for id in ["c0", "p"] {
        asker.send(key(id)).await.unwrap();
        assert_eq!(statuses.recv().await.as_deref(), Some(id));
        assert_eq!(seen(&mut sightings).await.0, id);
        if id == "c0" {
            assert_eq!(seen(&mut sightings).await.0, "p", "told with its container");
        }
    }
}

/// The listing of a million empty messages took 360 MiB and logged a line for each.
#[tokio::test]
async fn a_million_empty_containers_are_none() {
    let server = Server::start(|asked| match asked.method.as_str() {
        EVENTS => Reply::Refused(Code::Unimplemented, "unknown method"),
        LIST_CONTAINERS => Reply::Messages(vec![[0x0a, 0x00].repeat(1_000_000).into()]),
        _ => listing(asked, 1),
    });
    let runtime = Runtime {
        server,
        events: None,
    };
    let (mut sightings, _following) = runtime.follow();
    assert_eq!(seen(&mut sightings).await.0, "p");
    assert_eq!(listed(&mut sightings).await, 1);
}

#[test]
fn what_has_processes_is_running() {
    let states = |is_running: fn(i32) -> bool| [0, 1, 2, 3].map(is_running);
    assert_eq!(states(is_container_running), [true, true, false, false]);
    assert_eq!(states(is_sandbox_running), [true, false, false, false]);
}
