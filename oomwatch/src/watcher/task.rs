//! The watcher's task: the loop between the ring, the commands and the publishers.
//!
//! No function of the task is entered again from within. Handling an event puts events into the waiting room. After
//! that the loop publishes the events that wait no longer, and saves ([`Task::turn`]).

mod apply;
mod audit;
mod commands;
mod counters;
mod drain;
mod finish;
mod node;
mod persist;
mod publish;
mod scan;
mod sources;
mod start;
mod topology;

use std::{
    io,
    ops::ControlFlow::{self, Break, Continue},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::{audit::Noted, node::NodeAudit, persist::Persist, scan::Scans, sources::Sources};
use super::{
    Command, OnPublish, Report, WatchError, audit::Audit, has_counters, source::KillSource,
};
use crate::{
    cgroup::{hierarchy::Hierarchy, walk},
    clock,
    containers::{names::SourceNumber, sighting::Sighting},
    counters::walk::own,
    drill::reached,
    engine::Engine,
    id::CgroupId,
    probe::Drops,
    publish::{queue::Queue, stream::Subscriber},
    record::Record,
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the loop waits for.
enum Event {
    Scanned(scan::Outcome),
    Readable(io::Result<()>),
    Command(Option<Command>),
    Sighted(SourceNumber, Sighting),
    /// Something in the waiting room waits no longer.
    Released,
    AuditDeadline,
    NodeAudit,
    /// The store is done with a batch, or asks for all ledgers.
    Stored,
    SourceTimer,
    Stop,
}

/// All that the watcher owns.
pub(super) struct Task {
    source: KillSource,
    hierarchy: Hierarchy,
    engine: Engine,
    queues: Vec<Queue>,
    grace: Duration,
    subscribers: Vec<Subscriber>,
    on_publish: Option<OnPublish>,
    drops: Drops,
    report: Report,
    batch: Vec<Record>,
    /// The ring was not read to its end.
    has_more: bool,
    scans: Scans,
    /// How far the audit is that compares all counters with the ledgers; only after a loss.
    audit: Audit,
    noted: Noted,
    node: NodeAudit,
    persist: Persist,
    sources: Sources,
    started: Instant,
    /// The task has warned that the probe sees nothing.
    is_blind: bool,
    /// Records from before the start were handed over, or have had their time.
    is_backlog_over: bool,
}

impl Task {
    /// Runs until it is stopped, or until the ring cannot be waited for any more.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Result<Report, WatchError> {
        self.begin_scan();
        let failure = loop {
            let event = self.next(&mut commands, &stop).await;
            if let Break(failure) = self.handle(event) {
                break failure;
            }
            self.begin_scan();
            self.turn();
            reached("running");
            // A storm keeps the ring readable: let the publishers' tasks have their turn.
            tokio::task::yield_now().await;
        };
        let report = self.finish().await;
        match failure {
            None => Ok(report),
            Some(source) => Err(WatchError::Ring {
                source,
                report: Box::new(report),
            }),
        }
    }

    async fn next(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Event {
        let released = self.engine.deadline_ns();
        let timer = self.source.timer_ns();
        let has_more = self.has_more;
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            // Before the ring: a storm must not put off what makes up for it.
            outcome = self.scans.next() => Event::Scanned(outcome),
            () = until(released) => Event::Released,
            () = std::future::ready(()), if has_more => Event::Readable(Ok(())),
            ready = self.source.readable() => Event::Readable(ready),
            command = commands.recv() => Event::Command(command),
            (source, sighting) = self.sources.next() => Event::Sighted(source, sighting),
            () = until(self.audit.deadline_ns()) => Event::AuditDeadline,
            () = until(self.node.at_ns()) => Event::NodeAudit,
            () = self.persist.wanted() => Event::Stored,
            () = until(timer) => Event::SourceTimer,
        }
    }

    /// Handles one event. Breaks at the end, with the error that made the ring unreadable, if there is one.
    fn handle(&mut self, event: Event) -> ControlFlow<Option<io::Error>> {
        match event {
            Event::Scanned(outcome) => self.scanned(outcome),
            Event::Readable(Ok(())) => self.drain_some(),
            Event::Readable(Err(error)) => {
                error!(%error, "cannot wait for the ring any more");
                return Break(Some(error));
            }
            Event::Command(Some(command)) => self.command(command),
            Event::Command(None) | Event::Stop => return Break(None),
            Event::Sighted(source, sighting) => self.sighted_all(source, sighting),
            Event::AuditDeadline => self.audit_after_loss(),
            Event::NodeAudit => self.audit_node(),
            // The turn after each event does what they ask for.
            Event::Released | Event::Stored => {}
            Event::SourceTimer => self.source_timer(),
        }
        Continue(())
    }

    /// Brings the tree up to what the hierarchy is now.
    fn scan_tree(&mut self) -> io::Result<()> {
        let known = self.engine.tree().live().collect();
        let walk = walk::once(&self.hierarchy, known, clock::now().boottime_ns)?;
        self.scans.ended(&walk.skipped);
        self.engine.walked(&walk, clock::now());
        Ok(())
    }

    fn read_baselines(&mut self, cgroups: &[CgroupId]) {
        if !has_counters(&self.hierarchy) {
            return;
        }
        for &id in cgroups {
            let Some(path) = self.engine.tree().path(id) else {
                continue;
            };
            let own = own(&self.hierarchy.directory(&path));
            if let (Some(sum), Ok(Some((css, own)))) = (self.read_counter(id), own) {
                self.engine.begin_one(id, css, own, sum);
            }
        }
    }

    /// Makes events of the kills that a container lost before it was registered just now.
    fn claim(&mut self) {
        if self.engine.may_claim() {
            let events = self.engine.claim(clock::now());
            self.admit(events);
        }
    }
}

/// Waits until a moment on the boot-time clock; forever if there is none.
async fn until(deadline_ns: Option<u64>) {
    match deadline_ns {
        None => std::future::pending().await,
        Some(deadline_ns) => {
            let wait_ns = deadline_ns.saturating_sub(clock::now().boottime_ns);
            tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
        }
    }
}
