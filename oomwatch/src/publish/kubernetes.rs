//! Kubernetes as a publisher: an Event on the pod that lost a process, for `kubectl describe pod`.
//!
//! The publisher creates one Event for each kill, and one for all members of a group kill. A pod with many kills gets
//! some of them as a series ([`budget`]). [`object`] makes the Event, [`client`] sends it. Both belong to a task of
//! its own, because a series may be due while no kill comes. Kills outside of pods are ignored.

mod budget;
mod client;
mod object;

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
    client::Client,
    object::{Held, Kill, Pod},
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
    client: Option<Client>,
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
    /// to `create` `events` in the group `events.k8s.io`.
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
            client: Some(client),
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
        if let Some(client) = self.client.take() {
            // Each waits for its answer, so there is one at a time.
            let (requests, receiver) = mpsc::channel(1);
            let task = tokio::spawn(work(client, receiver));
            self.worker = Some(Worker { requests, task });
        }
        Box::pin(async { Ok(()) })
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
async fn work(client: Client, mut requests: mpsc::Receiver<Request>) {
    let mut budget = Budget::default();
    let mut waits = delays();
    let mut not_before = Instant::now();
    loop {
        let due = budget.next_due().map(|due| due.max(not_before));
        tokio::select! {
            request = requests.recv() => match request {
                Some((kill, answer)) => {
                    let done = take(&client, &mut budget, kill).await;
                    // A daemon that stops waits for it no longer.
                    let _ = answer.send(done);
                }
                None => break,
            },
            () = until(due) => match send_due(&client, &mut budget, Instant::now()).await {
                Ok(()) => waits = delays(),
                Err(error) => {
                    debug!(publisher = "kubernetes", %error, cause = causes(&error), "kills that were held back wait");
                    not_before = Instant::now() + waits.next().unwrap_or_default();
                }
            },
        }
    }
    for held in budget.take_all() {
        if let Err(error) = send(&client, &held).await {
            warn!(publisher = "kubernetes", kills = held.count, %error, cause = causes(&error), "the publisher dropped kills that it held back");
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn take(client: &Client, budget: &mut Budget, kill: Kill) -> Result<(), PublishError> {
    let now = Instant::now();
    let Some(held) = budget.admit(kill, now) else {
        return Ok(());
    };
    let sent = send(client, &held).await;
    match &sent {
        // The same kill comes again, together with the ones held back.
        Err(PublishError::Failed(_)) => {}
        _ => budget.sent(&held.last.pod, now),
    }
    sent
}

async fn send_due(client: &Client, budget: &mut Budget, now: Instant) -> Result<(), PublishError> {
    while let Some(held) = budget.due(now) {
        match send(client, &held).await {
            Err(error @ PublishError::Failed(_)) => return Err(error),
            Err(error) => {
                let cause = causes(&error);
                warn!(publisher = "kubernetes", kills = held.count, %error, cause, "the publisher dropped kills that it held back");
            }
            Ok(()) => {}
        }
        budget.sent(&held.last.pod, now);
    }
    Ok(())
}

async fn send(client: &Client, held: &Held) -> Result<(), PublishError> {
    let body = object::event(held).to_string();
    let created = client.create_event(&held.last.pod.namespace, body).await;
    created.map_err(|error| match error.is_final() {
        true => PublishError::Refused(Box::new(error)),
        false => PublishError::Failed(Box::new(error)),
    })
}

#[cfg(test)]
mod tests;
