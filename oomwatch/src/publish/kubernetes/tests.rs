//! The requests that an API server gets for kills, and the outcome of its answers.

use std::{fs, net::Ipv4Addr, sync::Mutex, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::*;
use crate::{
    containers::container::ContainerDetails,
    event::{
        Group, Kind,
        fixture::{event_at, event_in},
    },
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A request as the server saw it.
#[derive(Debug)]
struct Asked {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

/// A made-up API server, and the service account for it.
struct Api {
    account: TempDir,
    port: u16,
    asked: mpsc::UnboundedReceiver<Asked>,
    answers: mpsc::UnboundedSender<(u16, &'static str)>,
    rules: Arc<Mutex<Rules>>,
}

/// What the server answers by path, before the answers in a row.
#[derive(Default)]
struct Rules {
    /// To `GET`, by the end of the path. Other pods are not there.
    pods: Vec<(&'static str, Reply)>,
    /// To an Event, by its namespace.
    namespaces: Vec<(&'static str, Reply)>,
}

#[derive(Clone)]
enum Reply {
    Now(u16, String),
    Never,
}

impl Api {
    /// Answers each request with one of `answers`, and with 201 after them.
    async fn start(answers: &[(u16, &'static str)]) -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let account = tempfile::tempdir().unwrap();
        fs::write(account.path().join("ca.crt"), key.cert.pem()).unwrap();
        fs::write(account.path().join("token"), "first\n").unwrap();
        let secret = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], PrivateKeyDer::from(secret))
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked_sender, asked) = mpsc::unbounded_channel();
        let (answers_sender, receiver) = mpsc::unbounded_channel();
        for &answer in answers {
            answers_sender.send(answer).unwrap();
        }
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let rules = Arc::<Mutex<Rules>>::default();
        let server = Server {
            asked: asked_sender,
            answers: Arc::new(Mutex::new(receiver)),
            rules: Arc::clone(&rules),
        };
        tokio::spawn(serve(listener, acceptor, server));
        Self {
            account,
            port,
            asked,
            answers: answers_sender,
            rules,
        }
    }

    fn pod(&self, name: &'static str, reply: Reply) {
        self.rules.lock().unwrap().pods.push((name, reply));
    }

    fn namespace(&self, name: &'static str, reply: Reply) {
        self.rules.lock().unwrap().namespaces.push((name, reply));
    }

    fn client(&self) -> Client {
        let account = self.account.path().to_owned();
        Client::new("127.0.0.1".to_owned(), self.port, account)
    }

    async fn publisher(&self) -> KubernetesPublisher {
        let mut publisher = KubernetesPublisher::new(self.client());
        publisher.open().await.unwrap();
        publisher
    }

    async fn asked(&mut self) -> Asked {
        timeout(DEADLINE, self.asked.recv()).await.unwrap().unwrap()
    }
}

#[derive(Clone)]
struct Server {
    asked: mpsc::UnboundedSender<Asked>,
    answers: Arc<Mutex<mpsc::UnboundedReceiver<(u16, &'static str)>>>,
    rules: Arc<Mutex<Rules>>,
}

impl Server {
    /// What a request gets. Only Events count as asked for.
    fn reply(&self, asked: Asked) -> Reply {
        let rules = self.rules.lock().unwrap();
        if asked.method == "GET" {
            let pods = rules.pods.iter();
            let mut found = pods.filter(|(name, _)| asked.path.ends_with(&format!("/pods/{name}")));
            let missing = Reply::Now(404, r#"{"message":"no pod"}"#.to_owned());
            return found.next().map_or(missing, |(_, reply)| reply.clone());
        }
        let mut ruled = rules.namespaces.iter();
        let ruled = ruled.find(|(name, _)| asked.body["metadata"]["namespace"] == *name);
        let reply = ruled.map(|(_, reply)| reply.clone());
        self.asked.send(asked).unwrap();
        reply.unwrap_or_else(|| {
            let next = self.answers.lock().unwrap().try_recv();
            let (status, body) = next.unwrap_or((201, "{}"));
            Reply::Now(status, body.to_owned())
        })
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, server: Server) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, server) = (acceptor.clone(), server.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let answer = service_fn(|request| answer(request, server.clone()));
            // One request each: the connection ends with it.
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            let _ = connection.await;
        });
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    server: Server,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, text) = request.into_parts();
    let text = text.collect().await?.to_bytes();
    let headers = head.headers.iter();
    let heard = Asked {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: headers
            .map(|(key, value)| (key.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        body: serde_json::from_slice(&text).unwrap_or_default(),
    };
    let Reply::Now(status, body) = server.reply(heard) else {
        return std::future::pending().await;
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
    Ok(response)
}

fn in_pod(seq: u64, pod: &str) -> OomEvent {
    let details = ContainerDetails {
        name: Some("web".into()),
        pod: Some(pod.into()),
        pod_uid: Some("0f2a5c1e".into()),
        namespace: Some("shop".into()),
        ..ContainerDetails::default()
    };
    event_in(seq, "c1", details)
}

fn publish(
    publisher: &mut KubernetesPublisher,
    event: OomEvent,
) -> impl Future<Output = Result<(), PublishError>> {
    publisher.publish(Arc::new(event))
}

#[tokio::test]
async fn a_kill_in_a_pod_is_an_event_on_it() {
    let mut api = Api::start(&[]).await;
    api.client().check().unwrap();
    let mut publisher = api.publisher().await;
    assert_eq!(publisher.delivery(), Delivery::AtLeastOnce);
    let mut kill = in_pod(5, "web-1");
    kill.node = Some("n1".into());
    publish(&mut publisher, kill.clone()).await.unwrap();
    let asked = api.asked().await;
    assert_eq!(
        (asked.method.as_str(), asked.path.as_str()),
        ("POST", "/apis/events.k8s.io/v1/namespaces/shop/events")
    );
    assert_eq!(asked.header("authorization"), "Bearer first");
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!(asked.header("host"), format!("127.0.0.1:{}", api.port));
    assert!(asked.header("user-agent").starts_with("oomwatch/"));
    let held = Held {
        count: 1,
        first_unix_ns: kill.unix_time_ns,
        last: Kill::of(&kill).unwrap(),
    };
    let told = object::event(&held, None);
    assert_eq!(asked.body, told);

    // The token changes while the daemon runs.
    fs::write(api.account.path().join("token"), "second").unwrap();
    publish(&mut publisher, in_pod(6, "web-1")).await.unwrap();
    assert_eq!(api.asked().await.header("authorization"), "Bearer second");
}

#[tokio::test]
async fn what_is_no_kill_in_a_pod_is_not_told() {
    let mut api = Api::start(&[]).await;
    let mut publisher = api.publisher().await;
    let mut exiting = in_pod(1, "web-1");
    exiting.kind = Kind::AlreadyExiting;
    let mut of_podman = in_pod(2, "web-1");
    Arc::make_mut(of_podman.container.as_mut().unwrap())
        .details
        .namespace = None;
    let mut elsewhere = in_pod(3, "web-1");
    Arc::make_mut(elsewhere.container.as_mut().unwrap())
        .details
        .namespace = Some("../../secrets".into());
    for event in [exiting, of_podman, elsewhere, event_at(4)] {
        publish(&mut publisher, event).await.unwrap();
    }
    publish(&mut publisher, in_pod(5, "web-1")).await.unwrap();
    assert_eq!(api.asked().await.body["metadata"]["name"], "web-1.boot-5");
}

#[tokio::test]
async fn a_group_kill_is_one_event_for_each_pod() {
    let mut api = Api::start(&[(503, "{}")]).await;
    let mut publisher = api.publisher().await;
    let member = |seq, index, pod| OomEvent {
        group: Some(Group {
            invocation: 7,
            index,
            size: Some(3),
        }),
        ..in_pod(seq, pod)
    };
    let failed = publish(&mut publisher, member(1, 0, "a")).await;
    assert!(matches!(failed, Err(PublishError::Failed(_))), "{failed:?}");
    for event in [
        member(1, 0, "a"),
        member(2, 1, "a"),
        member(3, 2, "b"),
        in_pod(4, "a"),
    ] {
        publish(&mut publisher, event).await.unwrap();
    }
    // The same number from a run before.
    let later = OomEvent {
        boottime_ns: GROUP_NS * 2,
        ..member(5, 0, "a")
    };
    publish(&mut publisher, later).await.unwrap();
    let mut names = Vec::new();
    for _ in 0..5 {
        let name = api.asked().await.body["metadata"]["name"].clone();
        names.push(name.as_str().unwrap().to_owned());
    }
    assert_eq!(
        names,
        ["a.boot-1", "a.boot-1", "b.boot-3", "a.boot-4", "a.boot-5"]
    );
}

#[tokio::test]
async fn answers_say_whether_it_is_worth_another_try() {
    let reason = r#"{"kind":"Status","message":"no\n\u001b[31m"}"#;
    let mut api = Api::start(&[]).await;
    let mut publisher = api.publisher().await;
    for (status, again) in [
        (500, true),
        (503, true),
        (429, true),
        (408, true),
        (401, true),
        (400, false),
        (403, false),
        (404, false),
        (422, false),
        (301, true),
    ] {
        api.answers.send((status, reason)).unwrap();
        let answer = publish(&mut publisher, in_pod(status.into(), "a")).await;
        let error = answer.unwrap_err();
        assert_eq!(is_for_now(&error), again, "{status}");
        let everywhere = matches!(error, PublishError::Unreachable(_));
        assert_eq!(everywhere, status == 401, "{status}");
        assert_eq!(
            matches!(error, PublishError::Refused(_)),
            !again,
            "{status}"
        );
        let cause = causes(&error);
        assert!(
            cause.contains(&format!("{status}: no\\x0a\\x1b[31m")),
            "{cause}"
        );
        api.asked().await;
    }
    // It is there already: what was lost is the answer.
    api.answers.send((409, reason)).unwrap();
    publish(&mut publisher, in_pod(409, "a")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_the_right_one_is_tried_again() {
    let mut api = Api::start(&[]).await;
    let other = Api::start(&[]).await;
    let mut strangers = KubernetesPublisher::new(Client::new(
        "127.0.0.1".to_owned(),
        api.port,
        other.account.path().to_owned(),
    ));
    strangers.open().await.unwrap();
    let error = publish(&mut strangers, in_pod(1, "a")).await.unwrap_err();
    assert!(matches!(error, PublishError::Unreachable(_)), "{error}");
    assert!(causes(&error).contains("ertificate"), "{}", causes(&error));
    assert!(api.asked.try_recv().is_err(), "nothing was said to it");

    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let account = api.account.path().to_owned();
    let mut nobody = KubernetesPublisher::new(Client::new("127.0.0.1".to_owned(), port, account));
    nobody.open().await.unwrap();
    let error = publish(&mut nobody, in_pod(1, "a")).await.unwrap_err();
    assert!(matches!(error, PublishError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_pod_that_loses_many_gets_a_series_at_the_end() {
    let mut api = Api::start(&[]).await;
    let mut publisher = api.publisher().await;
    for seq in 1..=15 {
        publish(&mut publisher, in_pod(seq, "a")).await.unwrap();
    }
    publish(&mut publisher, in_pod(16, "b")).await.unwrap();
    publisher.flush().await.unwrap();
    let mut told = Vec::new();
    for _ in 0..12 {
        let body = api.asked().await.body;
        told.push((body["metadata"]["name"].clone(), body["series"].clone()));
    }
    assert!(api.asked.try_recv().is_err());
    let single = |pod: &str, seq: u64| (json!(format!("{pod}.boot-{seq}")), Value::Null);
    let mut expected: Vec<_> = (1..=10).map(|seq| single("a", seq)).collect();
    expected.push(single("b", 16));
    let series = json!({"count": 5, "lastObservedTime": "1970-01-01T00:00:15.000000Z"});
    expected.push((json!("a.boot-15"), series));
    assert_eq!(told, expected);
}

#[test]
fn a_service_account_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new("::1".into(), 443, dir.path().to_owned());
    let check = || client.check().unwrap_err();
    let error = check().to_string();
    assert!(error.contains("token"), "{error}");
    fs::write(dir.path().join("token"), " \n").unwrap();
    assert!(matches!(check(), KubernetesError::Token { .. }));
    fs::write(dir.path().join("token"), "t").unwrap();
    let error = check();
    assert!(matches!(error, KubernetesError::ServiceAccount { .. }));
    assert!(error.to_string().contains("ca.crt"), "{error}");
    fs::write(dir.path().join("ca.crt"), "no certificate").unwrap();
    assert!(matches!(check(), KubernetesError::Authority { .. }));
}

const UID: &str = "11111111-3b52-4a7e-9d0f-5e1b2c3d4e5f";
const STATIC_UID: &str = "8f2c1d0e9b7a6c5d4e3f2a1b0c9d8e7f";

fn pod_object(uid: &str, mirror: &str) -> Reply {
    let pod = json!({
        "kind": "Pod",
        "metadata": {"uid": uid, "annotations": {"kubernetes.io/config.mirror": mirror}},
        "spec": {
            "containers": [{"name": "web", "image": "web:1"}],
            "initContainers": [{"name": "init-db"}],
            "ephemeralContainers": [{"name": "debug"}],
        },
        "status": {"phase": "Running"},
    });
    Reply::Now(200, pod.to_string())
}

fn killed_in(seq: u64, (pod, uid, container): (&str, &str, &str)) -> OomEvent {
    let mut event = in_pod(seq, pod);
    let container_of = Arc::make_mut(event.container.as_mut().unwrap());
    container_of.details.pod_uid = Some(uid.to_owned());
    container_of.details.name = Some(container.to_owned());
    event
}

#[tokio::test]
async fn the_container_is_named_as_the_pod_has_it() {
    let mut api = Api::start(&[]).await;
    api.pod("shop-0", pod_object(UID, "x"));
    api.pod("etcd-n1", pod_object(UID, STATIC_UID));
    api.pod("other", pod_object("22222222-3b52", "x"));
    let forbidden = r#"{"message":"pods is forbidden"}"#.to_owned();
    api.pod("secret", Reply::Now(403, forbidden));
    api.pod("broken", Reply::Now(200, "{}".to_owned()));
    api.pod("hangs", Reply::Never);
    let Reply::Now(status, pod) = pod_object("88888888-3b52", "x") else {
        unreachable!();
    };
    api.pod("huge", Reply::Now(status, pod + &" ".repeat(512 << 10)));
    let mut publisher = api.publisher().await;
    for (seq, (killed, field)) in [
        (("shop-0", UID, "web"), Some("spec.containers{web}")),
        (
            ("shop-0", UID, "init-db"),
            Some("spec.initContainers{init-db}"),
        ),
        (
            ("shop-0", UID, "debug"),
            Some("spec.ephemeralContainers{debug}"),
        ),
        (("shop-0", UID, "nobody"), None),
        (("etcd-n1", STATIC_UID, "web"), Some("spec.containers{web}")),
        (("other", "33333333-3b52", "web"), None),
        (("secret", "44444444-3b52", "web"), None),
        (("gone", "55555555-3b52", "web"), None),
        (("broken", "66666666-3b52", "web"), None),
        (("hangs", "77777777-3b52", "web"), None),
        (("huge", "88888888-3b52", "web"), None),
    ]
    .into_iter()
    .enumerate()
    {
        let event = killed_in(u64::try_from(seq).unwrap(), killed);
        publish(&mut publisher, event).await.unwrap();
        let regarding = &api.asked().await.body["regarding"];
        assert_eq!(regarding["fieldPath"].as_str(), field, "{killed:?}");
        assert_eq!(regarding["uid"], killed.1);
    }
    let mut sandbox = killed_in(12, ("shop-0", UID, "web"));
    Arc::make_mut(sandbox.container.as_mut().unwrap())
        .details
        .is_sandbox = Some(true);
    publish(&mut publisher, sandbox).await.unwrap();
    let body = api.asked().await.body;
    assert_eq!(body["regarding"]["fieldPath"], Value::Null, "a sandbox");
}

fn in_namespace(seq: u64, namespace: &str) -> Arc<OomEvent> {
    let mut event = in_pod(seq, "a");
    let container = Arc::make_mut(event.container.as_mut().unwrap());
    container.details.namespace = Some(namespace.to_owned());
    Arc::new(event)
}

/// As shown by the case `kubernetes-one-namespace-down`: the failing namespace's Event was tried over and over, and
/// the other's was never sent.
#[tokio::test]
async fn a_namespace_that_fails_or_hangs_delays_no_other() {
    let mut api = Api::start(&[]).await;
    let failing = || Reply::Now(500, r#"{"message":"webhook"}"#.to_owned());
    api.namespace("fails", failing());
    api.namespace("hangs", Reply::Never);
    api.namespace("forbidden", Reply::Now(403, "{}".to_owned()));
    let publisher = Box::new(KubernetesPublisher::new(api.client()));
    let mut queue = crate::publish::queue::Queue::start(publisher, None, None);
    for (seq, namespace) in [(1, "fails"), (2, "hangs"), (3, "forbidden"), (4, "shop")] {
        queue.push(&in_namespace(seq, namespace));
    }
    let sent = async { while api.asked().await.body["metadata"]["namespace"] != "shop" {} };
    timeout(DEADLINE, sent).await.unwrap();
    let report = || queue.report(0);
    while report().published + report().lost_by_publisher < 2 || report().retries == 0 {
        tokio::task::yield_now().await;
    }
    let report = report();
    assert_eq!((report.published, report.lost_by_publisher), (1, 1));
    assert_eq!((report.waiting, report.lost_in_queue), (2, 0));
    // The failing one gets its Event in the end.
    api.rules.lock().unwrap().namespaces.clear();
    while queue.report(0).published < 2 {
        tokio::task::yield_now().await;
    }
}
