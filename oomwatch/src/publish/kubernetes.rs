//! Kubernetes as a publisher: an Event on the pod that lost a process, for `kubectl describe pod`.
//!
//! The publisher creates one Event for each kill, and one for all members of a group kill. A pod with many kills gets
//! some of them as a series ([`budget`]). [`object`] makes the Event, [`pods`] knows the pod's containers, [`client`] asks
//! the API server. All belong to a task of its own, because a series may be due while no kill comes. Each namespace has
//! a publisher with such a task: a quota or a webhook may refuse the Events of one. Kills outside of pods are ignored.

mod budget;
mod client;
mod object;
mod pods;

use std::{collections::VecDeque, env, path::PathBuf, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::debug;

pub use self::client::KubernetesError;
use self::{
    budget::Budget,
    client::{Client, Fault},
    object::{Held, Kill, Pod},
    pods::Pods,
};
use super::{Delivery, PublishError, PublishFuture, Publisher};
use crate::{
    event::OomEvent,
    log::warn,
    retry::{causes, delays},
};

/// Where a pod finds its token and the authority that signed the API server's certificate.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Group kills that are remembered.
const MAX_GROUPS: usize = 64;
/// The OOM killer marks all members of one group kill within one call. A mark further apart has the invocation number
/// of an earlier run.
const GROUP_NS: u64 = 60_000_000_000;

/// Publishes kills in pods as Events (`events.k8s.io/v1`), at least once.
///
/// The name of an Event comes from the kill's id, so an Event that is sent again exists once. Each pod gets up to ten
/// Events at once, and one every 60 s after that. The `series` of that Event counts the kills held back. This count
/// is in memory: `kill -9` loses it.
#[derive(Debug)]
pub struct KubernetesPublisher {
    client: Client,
    worker: Option<Worker>,
    groups: VecDeque<Group>,
}

/// A group kill that a pod already has an Event for.
#[derive(Debug)]
struct Group {
    invocation: u64,
    pod: Pod,
    boottime_ns: u64,
}

#[derive(Debug)]
struct Worker {
    requests: mpsc::Sender<Request>,
    task: JoinHandle<()>,
}

/// A kill, and where its outcome goes.
type Request = (Kill, oneshot::Sender<Result<(), PublishError>>);

impl KubernetesPublisher {
    /// Publishes to the API server of this pod's cluster, as the pod's service account. That account must be allowed
    /// to `create` `events` in the group `events.k8s.io`. With `get` on `pods` Events name the container too.
    ///
    /// # Errors
    /// When this is no pod, or its service account is not mounted.
    pub fn in_cluster() -> Result<Self, KubernetesError> {
        let variable = |name| match env::var(name) {
            Ok(value) if !value.is_empty() => Ok(value),
            _ => Err(KubernetesError::NotInCluster { variable: name }),
        };
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        let port = port.parse().map_err(|_| KubernetesError::Port { port })?;
        let client = Client::new(host, port, PathBuf::from(SERVICE_ACCOUNT));
        client.check()?;
        Ok(Self::new(client))
    }

    fn new(client: Client) -> Self {
        Self {
            client,
            worker: None,
            groups: VecDeque::new(),
        }
    }

    /// Whether this pod already has an Event for another member of this group kill.
    fn is_told(&self, kill: &Kill) -> bool {
        kill.group.is_some_and(|invocation| {
            self.groups.iter().any(|told| {
                told.invocation == invocation
                    && told.pod == kill.pod
                    && told.boottime_ns.abs_diff(kill.boottime_ns) < GROUP_NS
            })
        })
    }

    fn remember(&mut self, told: Option<Group>) {
        self.groups.extend(told);
        let old = self.groups.len().saturating_sub(MAX_GROUPS);
        self.groups.drain(..old);
    }
}

impl Publisher for KubernetesPublisher {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn open(&mut self) -> PublishFuture<'_> {
        // Each waits for its answer, so there is one at a time.
        let (requests, receiver) = mpsc::channel(1);
        let task = tokio::spawn(work(Api::new(self.client.clone()), receiver));
        self.worker = Some(Worker { requests, task });
        Box::pin(async { Ok(()) })
    }

    fn destination(&self, event: &OomEvent) -> Option<String> {
        Pod::killed_in(event).map(|pod| pod.namespace)
    }

    fn only_to(&self, _destination: &str) -> Option<Box<dyn Publisher>> {
        Some(Box::new(Self::new(self.client.clone())))
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        Box::pin(async move {
            let Some(kill) = Kill::of(&event) else {
                return Ok(());
            };
            if self.is_told(&kill) {
                return Ok(());
            }
            let worker = self.worker.as_ref().ok_or(PublishError::Closed)?;
            let told = kill.group.map(|invocation| Group {
                invocation,
                pod: kill.pod.clone(),
                boottime_ns: kill.boottime_ns,
            });
            let (answer, answered) = oneshot::channel();
            let sent = worker.requests.send((kill, answer)).await;
            sent.map_err(|_| PublishError::Closed)?;
            answered.await.map_err(|_| PublishError::Closed)??;
            self.remember(told);
            Ok(())
        })
    }

    fn flush(&mut self) -> PublishFuture<'_> {
        Box::pin(async move {
            let Some(Worker { requests, task }) = self.worker.take() else {
                return Ok(());
            };
            drop(requests);
            task.await
                .map_err(|error| PublishError::Failed(Box::new(error)))
        })
    }
}

/// Sends each kill, and the ones held back when they are due. Sends the rest at the end.
async fn work(mut api: Api, mut requests: mpsc::Receiver<Request>) {
    let mut budget = Budget::default();
    let mut waits = delays();
    let mut not_before = Instant::now();
    loop {
        let due = budget.next_due().map(|due| due.max(not_before));
        tokio::select! {
            request = requests.recv() => match request {
                Some((kill, answer)) => {
                    let done = take(&mut api, &mut budget, kill).await;
                    // A daemon that stops waits for it no longer.
                    let _ = answer.send(done);
                }
                None => break,
            },
            () = until(due) => match send_due(&mut api, &mut budget, Instant::now()).await {
                Ok(()) => waits = delays(),
                Err(error) => {
                    debug!(publisher = "kubernetes", %error, cause = causes(&error), "kills that were held back wait");
                    not_before = Instant::now() + waits.next().unwrap_or_default();
                }
            },
        }
    }
    for held in budget.take_all() {
        if let Err(error) = api.send(&held).await {
            warn_dropped(&held, &error);
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn take(api: &mut Api, budget: &mut Budget, kill: Kill) -> Result<(), PublishError> {
    let now = Instant::now();
    let Some(held) = budget.admit(kill, now) else {
        return Ok(());
    };
    let sent = api.send(&held).await;
    // Otherwise the same kill comes again, together with the ones held back.
    if !sent.as_ref().is_err_and(is_for_now) {
        budget.sent(&held.last.pod, now);
    }
    sent
}

async fn send_due(api: &mut Api, budget: &mut Budget, now: Instant) -> Result<(), PublishError> {
    while let Some(held) = budget.due(now) {
        match api.send(&held).await {
            Err(error) if is_for_now(&error) => return Err(error),
            Err(error) => warn_dropped(&held, &error),
            Ok(()) => {}
        }
        budget.sent(&held.last.pod, now);
    }
    Ok(())
}

fn is_for_now(error: &PublishError) -> bool {
    matches!(
        error,
        PublishError::Failed(_) | PublishError::Unreachable(_)
    )
}

fn warn_dropped(held: &Held, error: &PublishError) {
    warn!(publisher = "kubernetes", kills = held.count, %error, cause = causes(error), "the publisher dropped kills that it held back");
}

/// The API server, and what is known of its pods.
struct Api {
    client: Client,
    pods: Pods,
}

impl Api {
    fn new(client: Client) -> Self {
        Self {
            client,
            pods: Pods::default(),
        }
    }

    async fn send(&mut self, held: &Held) -> Result<(), PublishError> {
        let field = self.field_path(&held.last).await;
        let body = object::event(held, field.as_deref()).to_string();
        let created = self.client.create_event(&held.last.pod.namespace, body);
        created.await.map_err(|error| match error.fault() {
            Fault::Server => PublishError::Unreachable(Box::new(error)),
            Fault::Namespace => PublishError::Failed(Box::new(error)),
            Fault::Event => PublishError::Refused(Box::new(error)),
        })
    }

    /// The field of the pod that has the kill's container. `None` where the pod cannot be read: its Event goes out
    /// all the same.
    async fn field_path(&mut self, kill: &Kill) -> Option<String> {
        let (container, uid) = (kill.container.as_deref()?, kill.pod.uid.as_deref()?);
        if !self.pods.knows(uid, container, Instant::now()) {
            self.read_pod(&kill.pod, uid).await;
        }
        self.pods.field_path(uid, container)
    }

    async fn read_pod(&mut self, pod: &Pod, uid: &str) {
        let containers = match self.client.pod(&pod.namespace, &pod.name).await {
            Ok(pod) => pod.containers_of(uid),
            // Its Event cannot be sent now either, so the pod is read again then.
            Err(error) if error.fault() == Fault::Server => return,
            Err(error) => {
                debug!(publisher = "kubernetes", %error, cause = causes(&error), "cannot read a pod: its Events name no container");
                None
            }
        };
        let containers = containers.unwrap_or_default();
        self.pods.learn(uid, containers, Instant::now());
    }
}

#[cfg(test)]
mod tests;
