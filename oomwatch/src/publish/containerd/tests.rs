use std::sync::Mutex;

use super::*;
use crate::{
    containers::container::ContainerDetails,
    event::fixture::event_in,
    runtimes::grpc::{
        containerd::messages::{ForwardRequest, NamespacesAnswer},
        fake::{Asked, Reply, Server},
    },
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A containerd that keeps what it is sent.
struct Runtime {
    server: Server,
    forwarded: mpsc::UnboundedReceiver<Envelope>,
    announce: mpsc::UnboundedSender<bytes::Bytes>,
}

impl Runtime {
    /// The first `refused` events are not taken.
    fn start(refused: &[Code]) -> Self {
        let (sender, forwarded) = mpsc::unbounded_channel();
        let (announce, announcements) = mpsc::unbounded_channel();
        let announcements = Mutex::new(Some(announcements));
        let refused = Mutex::new(refused.to_vec());
        let server = Server::start(move |asked| match service(asked) {
            "Namespaces/List" => Reply::one(&NamespacesAnswer::default()),
            "Events/Subscribe" => match announcements.lock().unwrap().take() {
                Some(announcements) => Reply::Stream(announcements),
                None => Reply::Nothing,
            },
            "Events/Forward" => {
                let refusal = refused.lock().unwrap().pop();
                if let Some(code) = refusal {
                    return Reply::Refused(code, "not now");
                }
                let request: ForwardRequest = asked.message();
                let _ = sender.send(request.envelope.unwrap());
                Reply::one(&())
            }
            other => panic!("{other}"),
        });
        Self {
            server,
            forwarded,
            announce,
        }
    }

    fn publisher(&self, mode: ContainerdMode) -> ContainerdPublisher {
        ContainerdPublisher::new(self.server.socket(), mode)
    }

    fn details(&self) -> ContainerDetails {
        let socket = self.server.socket();
        ContainerDetails {
            containerd_namespace: Some("k8s.io".to_owned()),
            containerd_address: Some(socket.to_str().unwrap().to_owned()),
            ..ContainerDetails::default()
        }
    }

    async fn next(&mut self) -> (String, String, i64) {
        let envelope = timeout(DEADLINE, self.forwarded.recv()).await;
        let envelope = envelope.unwrap().unwrap();
        assert_eq!(envelope.topic, "/tasks/oom");
        let event = envelope.event.unwrap();
        assert_eq!(event.type_url, "containerd.events.TaskOOM");
        let oom = TaskOom::decode(event.value.as_slice()).unwrap();
        let seconds = envelope.timestamp.unwrap().seconds;
        (envelope.namespace, oom.container_id, seconds)
    }
}

fn service(asked: &Asked) -> &str {
    asked.method.rsplit('.').next().unwrap()
}

fn told(namespace: &str, id: &str, seconds: i64) -> (String, String, i64) {
    (namespace.to_owned(), id.to_owned(), seconds)
}

#[tokio::test]
async fn kills_are_forwarded_in_order_with_the_kernels_time() {
    let mut runtime = Runtime::start(&[]);
    let mut publisher = runtime.publisher(ContainerdMode::Always);
    publisher.open().await.unwrap();
    for (second, id) in [(7, "a"), (8, "k8s.io/b")] {
        let event = event_in(second, id, runtime.details());
        publisher.publish(event.into()).await.unwrap();
    }
    assert_eq!(runtime.next().await, told("k8s.io", "a", 7));
    assert_eq!(runtime.next().await, told("k8s.io", "b", 8));
    publisher.flush().await.unwrap();
}

#[tokio::test]
async fn a_containerd_that_has_a_bad_moment_gets_all_in_order() {
    let refusals = [Code::Internal, Code::Unavailable];
    let mut runtime = Runtime::start(&refusals);
    let mut publisher = runtime.publisher(ContainerdMode::Always);
    publisher.open().await.unwrap();
    assert_eq!(publisher.delivery(), Delivery::AtLeastOnce);
    let first = event_in(1, "a", runtime.details());
    for _ in refusals {
        let failed = publisher.publish(first.clone().into()).await;
        assert!(matches!(failed, Err(PublishError::Failed(_))), "{failed:?}");
    }
    publisher.publish(first.into()).await.unwrap();
    for second in 2..4 {
        let event = event_in(second, "a", runtime.details());
        publisher.publish(event.into()).await.unwrap();
    }
    for second in 1..4 {
        assert_eq!(runtime.next().await, told("k8s.io", "a", second));
    }
}

/// The history has kills from before the start. Earlier announcements do not matter.
#[tokio::test]
async fn always_means_kills_from_before_the_start_too() {
    let mut runtime = Runtime::start(&[]);
    let mut publisher = runtime.publisher(ContainerdMode::Always);
    publisher.open().await.unwrap();
    let mut event = event_in(3, "a", runtime.details());
    event.while_down = true;
    publisher.publish(event.into()).await.unwrap();
    assert_eq!(runtime.next().await, told("k8s.io", "a", 3));
}

/// A burst that waits for shims has not arrived when the next kill comes: a cursor would skip it.
#[test]
fn what_is_missing_is_told_with_best_effort() {
    let publisher = ContainerdPublisher::new("/run/c.sock", ContainerdMode::Missing);
    assert_eq!(publisher.delivery(), Delivery::BestEffort);
    assert_eq!(publisher.name(), "containerd:/run/c.sock");
}

#[tokio::test]
async fn a_containerd_with_a_bad_moment_gets_what_is_missing_in_order() {
    let mut runtime = Runtime::start(&[Code::Unavailable]);
    let mut publisher = runtime.publisher(ContainerdMode::Missing);
    publisher.open().await.unwrap();
    for (second, id) in [(1, "a"), (2, "b"), (3, "c")] {
        let event = event_in(second, id, runtime.details());
        publisher.publish(event.into()).await.unwrap();
    }
    for (second, id) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(runtime.next().await, told("k8s.io", id, second));
    }
}

#[tokio::test]
async fn what_is_refused_for_good_stops_nothing() {
    let mut runtime = Runtime::start(&[Code::InvalidArgument]);
    let mut publisher = runtime.publisher(ContainerdMode::Always);
    publisher.open().await.unwrap();
    let event = |second| Arc::new(event_in(second, "a", runtime.details()));
    let refused = publisher.publish(event(1)).await;
    assert!(
        matches!(refused, Err(PublishError::Refused(_))),
        "{refused:?}"
    );
    publisher.publish(event(2)).await.unwrap();
    assert_eq!(runtime.next().await, told("k8s.io", "a", 2));
}

#[tokio::test]
async fn the_end_waits_for_shims_and_sends_what_they_left_out() {
    let mut runtime = Runtime::start(&[]);
    let mut publisher = runtime.publisher(ContainerdMode::Missing);
    publisher.open().await.unwrap();
    for (second, id) in [(7, "a"), (7, "a"), (8, "b")] {
        let event = event_in(second, id, runtime.details());
        publisher.publish(event.into()).await.unwrap();
    }
    let task = Task {
        namespace: "k8s.io".to_owned(),
        id: "b".to_owned(),
    };
    let by_shim = envelope(&task, 8 * NANOS + 1);
    runtime
        .announce
        .send(by_shim.encode_to_vec().into())
        .unwrap();
    publisher.flush().await.unwrap();
    assert_eq!(runtime.next().await, told("k8s.io", "a", 7));
    assert!(
        runtime.forwarded.try_recv().is_err(),
        "one for the burst, none for what a shim said"
    );
}

#[test]
fn only_its_own_containers_kills_are_its_business() {
    let publisher = ContainerdPublisher::new("/run/c.sock", ContainerdMode::Missing);
    let own = ContainerDetails {
        containerd_namespace: Some("k8s.io".to_owned()),
        containerd_address: Some("/run/c.sock".to_owned()),
        ..ContainerDetails::default()
    };
    let of = |details: ContainerDetails| publisher.kill(&event_in(1, "a", details));
    assert!(of(own.clone()).is_some());
    let without_namespace = ContainerDetails {
        containerd_namespace: None,
        ..own.clone()
    };
    assert!(of(without_namespace).is_none());
    let elsewhere = ContainerDetails {
        containerd_address: Some("/run/other.sock".to_owned()),
        ..own.clone()
    };
    assert!(of(elsewhere).is_none());
    let sandbox = ContainerDetails {
        is_sandbox: Some(true),
        ..own.clone()
    };
    assert!(of(sandbox).is_none());

    let mut event = event_in(1, "a", own);
    event.while_down = true;
    assert!(
        publisher.kill(&event).is_none(),
        "who knows what was announced"
    );
    event.while_down = false;
    event.kind = Kind::AlreadyExiting;
    assert!(publisher.kill(&event).is_none());
    event.kind = Kind::CounterOnly;
    assert!(publisher.kill(&event).is_some());
    event.container = None;
    assert!(publisher.kill(&event).is_none());
}
