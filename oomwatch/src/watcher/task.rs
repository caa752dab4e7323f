//! The watcher's task: the loop between the ring, the commands and the publishers.

mod audit;
mod catch_up;
mod counted;
mod node;
mod persist;
mod scan;
mod sources;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    node::NodeAudit,
    persist::Persist,
    scan::Scans,
    sources::{Sources, Unnamed},
};
use super::{
    AddError, Command, Options, Report, SourceReport, StartError, Status, audit::Audit,
    has_counters, source::Source,
};
use crate::{
    CgroupId, Container, ContainerDetails, ContainerId, Counts, Delivery, OomEvent, Publisher,
    cgroup::{
        hierarchy::{Hierarchy, MemoryMode},
        walk::Walk,
    },
    clock,
    discover::{names::SourceNumber, source::Sighting},
    engine::{Engine, Setting},
    event::build::Origin,
    probe::{DecodeError, Drops, Position},
    publish::{
        queue::Queue,
        stream::{self, Sent, Subscriber},
    },
    reconcile::Counting,
    record::Record,
    store::StoreConfig,
};

/// Records worked through at a time, so that commands are not kept waiting in a storm.
const BATCH: usize = 256;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the loop waits for.
enum Event {
    Scanned(scan::Outcome),
    Readable(io::Result<()>),
    Command(Option<Command>),
    Sighted(SourceNumber, Sighting),
    NameDeadline,
    GroupDeadline,
    AuditDeadline,
    NodeAudit,
    BooksWanted,
    SourceTimer,
    Stop,
}

/// All that the watcher owns.
pub(super) struct Task {
    source: Source,
    hierarchy: Hierarchy,
    engine: Engine,
    queues: Vec<Queue>,
    grace: Duration,
    subscribers: Vec<Subscriber>,
    counts: Option<Counts>,
    drops: Drops,
    report: Report,
    batch: Vec<Record>,
    /// How far records were worked through, where the ring outlives us.
    taken_up_to: Option<Position>,
    scans: Scans,
    /// How far all counters are held against what was said; only after a loss.
    audit: Audit,
    node: NodeAudit,
    persist: Persist,
    sources: Sources,
    unnamed: Unnamed,
}

impl Task {
    /// Attaches, scans and registers: what happens from now on is not missed.
    pub(super) fn start(
        options: Options,
        publishers: Vec<Box<dyn Publisher>>,
        containers: &[(String, PathBuf)],
    ) -> Result<Self, StartError> {
        let started_ns = clock::now().boottime_ns;
        let hierarchy = Hierarchy::find()?;
        let root = hierarchy.root()?;
        let sources = Sources::start(&options.sockets, &options.possible_sockets, &hierarchy)
            .map_err(StartError::Sources)?;
        let mut source = Source::start(&options, &hierarchy)?;
        forward_log(&mut source);
        let boot_id = boot_id();
        let store = options.state_dir.map(|dir| StoreConfig {
            dir,
            limits: options.limits,
            publishers: readers(&publishers),
        });
        let (mut persist, saved) = Persist::open(store, &boot_id);
        let origin = Origin {
            boot_id,
            node: options.node.or_else(host_name),
            tier: source.tier(),
        };
        let mut task = Self {
            engine: Engine::new(Setting {
                origin,
                discovery: options.discovery,
                units: options.units,
                root,
                counting: counting(&hierarchy),
            }),
            queues: publishers
                .into_iter()
                .map(|publisher| persist.publish(publisher))
                .collect(),
            grace: options.grace,
            subscribers: Vec::new(),
            counts: options.counts,
            drops: Drops::default(),
            report: Report::default(),
            batch: Vec::with_capacity(BATCH),
            taken_up_to: None,
            scans: Scans::default(),
            audit: Audit::default(),
            node: NodeAudit::default(),
            persist,
            sources,
            unnamed: Unnamed::default(),
            source,
            hierarchy,
        };
        let told_up_to = saved.meta.get(node::TOLD_UP_TO).copied();
        let stored_up_to = persist::position(&saved);
        task.resume(saved);
        let new = task.scan_tree().map_err(|source| StartError::Scan {
            mount: task.hierarchy.mount().to_owned(),
            source,
        })?;
        let backlog = task
            .source
            .goes_on()
            .then(|| task.read_backlog(started_ns, stored_up_to));
        if backlog.is_none() {
            task.read_baselines(&new);
        }
        task.watch_counters();
        for (id, cgroup) in containers {
            // The counters were read just now, or are to be read after the ring.
            task.add(id, cgroup, |_, _| Vec::new())?;
        }
        task.engine.settle_resumed();
        if let Some(backlog) = backlog {
            // Judged by what the marks say of each other, so before later counters are read.
            task.work_off(&backlog);
            task.read_baselines(&new);
        }
        task.drain();
        task.taken_up_to = task.source.position();
        task.engine.start_is_over();
        task.begin_node_audit(told_up_to);
        task.save();
        task.warn_of_limits(root);
        info!(
            tier = %task.source.tier(),
            cgroups = task.engine.tree().live_count(),
            containers = task.engine.registry().live_count(),
            "watching"
        );
        Ok(task)
    }

    /// Says what this host does not allow; `oomwatch check` says what to do about it.
    fn warn_of_limits(&self, root: CgroupId) {
        if !has_counters(&self.hierarchy) {
            warn!(
                "the memory controller is on cgroup v1: kills are reported from the tracepoint alone, without counters to hold them against"
            );
        }
        if root != CgroupId::ROOT {
            warn!("in a foreign cgroup namespace: victims outside of it have no path");
        }
        if self.source.lacks_oom_control() {
            warn!("out_of_memory() cannot be hooked: events do not say which limit was hit");
        }
    }

    /// Runs until told to stop.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Report {
        loop {
            self.register_finds();
            self.begin_scan();
            let deadline = self.engine.deadline_ns();
            let timer = self.source.timer_ns();
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stop,
                // Before the ring: a storm must not put off what makes up for it.
                outcome = self.scans.next() => Event::Scanned(outcome),
                ready = self.source.readable() => Event::Readable(ready),
                command = commands.recv() => Event::Command(command),
                () = until(deadline) => Event::GroupDeadline,
                () = until(self.unnamed.deadline_ns()) => Event::NameDeadline,
                (source, sighting) = self.sources.next() => Event::Sighted(source, sighting),
                () = until(self.audit.deadline_ns()) => Event::AuditDeadline,
                () = until(self.node.at_ns()) => Event::NodeAudit,
                () = self.persist.wanted() => Event::BooksWanted,
                () = until(timer) => Event::SourceTimer,
            };
            if !self.handle(event) {
                break;
            }
            // A storm keeps the ring readable: let the publishers' tasks have their turn.
            tokio::task::yield_now().await;
        }
        self.finish().await
    }

    /// Handles one event; tells whether to go on.
    fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Scanned(outcome) => self.scanned(outcome),
            Event::Readable(Ok(())) => self.drain(),
            Event::Readable(Err(error)) => {
                error!(%error, "what the kernel says cannot be waited for any more");
                return false;
            }
            Event::Command(Some(command)) => self.command(command),
            Event::Command(None) | Event::Stop => return false,
            Event::Sighted(source, sighting) => self.sighted(source, sighting),
            Event::NameDeadline => self.publish_named(clock::now().boottime_ns),
            Event::GroupDeadline => {
                let events = self.engine.release();
                self.publish(events);
            }
            Event::AuditDeadline => self.audit_after_loss(),
            Event::NodeAudit => self.audit_node(),
            Event::BooksWanted => self.save(),
            Event::SourceTimer => self.source_timer(),
        }
        true
    }

    fn command(&mut self, command: Command) {
        // An asker that went away needs no answer.
        match command {
            Command::Add { id, cgroup, answer } => {
                let _ = answer.send(self.add_by_hand(&id, &cgroup));
            }
            Command::Remove { id, answer } => {
                let removed = self.engine.unregister(&id).map(drop);
                self.save();
                let _ = answer.send(removed.map_err(AddError::from));
            }
            Command::Subscribe { answer } => {
                let (subscriber, events) = stream::channel();
                if answer.send(events).is_ok() {
                    self.subscribers.push(subscriber);
                }
            }
            Command::Status { answer } => {
                let _ = answer.send(self.status());
            }
            Command::Cgroups { answer } => {
                let _ = answer.send(self.engine.registry().live_cgroups());
            }
            Command::Describe { cgroups, answer } => {
                let described = cgroups.iter().filter_map(|&id| self.engine.describe(id));
                let _ = answer.send(described.collect());
            }
        }
    }

    /// Works through all that the kernel has said so far.
    fn drain(&mut self) {
        self.drain_ring();
        self.drain_counters();
    }

    /// Works through all that is in the ring.
    fn drain_ring(&mut self) {
        loop {
            let mut batch = std::mem::take(&mut self.batch);
            let more = self.read_ring(BATCH, &mut batch);
            if !batch.is_empty() {
                // Something is lost only while there is something to be read. So this sees all that was
                // lost, and before what came after it.
                self.check_drops();
                let events = self.apply(&batch);
                self.taken_up_to = self.source.position();
                self.publish(events);
                batch.clear();
            }
            self.batch = batch;
            if !more {
                return;
            }
        }
    }

    /// Adds what is in the ring to `batch`, `limit` records at most; tells whether more may be left.
    fn read_ring(&mut self, limit: usize, batch: &mut Vec<Record>) -> bool {
        let report = &mut self.report;
        self.source
            .drain(limit, |record| batch.extend(understood(record, report)))
    }

    /// Brings the tree up to what the hierarchy is now, with a baseline for each new cgroup. For tiers
    /// whose ring has no cgroups.
    fn scan(&mut self) -> io::Result<()> {
        let new = self.scan_tree()?;
        self.read_baselines(&new);
        Ok(())
    }

    /// The same without baselines; returns the new cgroups.
    fn scan_tree(&mut self) -> io::Result<Vec<CgroupId>> {
        let known = self.engine.tree().live().collect();
        let walk = Walk::once(&self.hierarchy, known, clock::now().boottime_ns)?;
        self.scans.ended(&walk.skipped);
        Ok(self.engine.walked(&walk, clock::now()).new)
    }

    fn read_baselines(&mut self, cgroups: &[CgroupId]) {
        if !has_counters(&self.hierarchy) {
            return;
        }
        for &id in cgroups {
            let as_of_ns = clock::now().boottime_ns;
            if let Some(oom_kill) = self.read_counter(id) {
                self.engine.baseline(id, oom_kill, as_of_ns);
            }
        }
    }

    /// Registers a container, with the counters that `read` reads.
    fn add(
        &mut self,
        id: &str,
        cgroup: &Path,
        read: impl FnOnce(&mut Self, CgroupId) -> Vec<(CgroupId, u64)>,
    ) -> Result<(), AddError> {
        let id = ContainerId::new(id)?;
        let cgroup_id = self.hierarchy.id(cgroup)?;
        if !self.engine.tree().contains(cgroup_id) {
            // Created a moment ago: its record is still in the ring.
            self.drain();
        }
        self.read_before(cgroup_id);
        let read = read(self, cgroup_id);
        let container = Container {
            id: id.clone(),
            cgroup_id,
            details: ContainerDetails::default(),
        };
        self.engine.register_late(container, &read)?;
        self.watch_counter(cgroup_id);
        self.claim();
        info!(container = %id, cgroup = cgroup_id.0, "registered");
        Ok(())
    }

    /// Publishes what a container that was just registered has lost before.
    fn claim(&mut self) {
        if self.engine.may_claim() {
            let events = self.engine.claim(clock::now());
            self.publish(events);
        }
    }

    /// Hands an event to the store, all publishers and subscribers.
    fn deliver(&mut self, mut event: OomEvent) {
        let now = clock::now();
        event.delivered_ns = Some(now.boottime_ns.saturating_sub(event.boottime_ns));
        if let Some(counts) = &self.counts {
            counts.enter(&event);
        }
        let event = Arc::new(event);
        self.persist.push(&event);
        for queue in &mut self.queues {
            queue.push(&event);
        }
        let lost = &mut self.report.lost_by_publishers;
        self.subscribers.retain(|subscriber| {
            let sent = subscriber.send(&event);
            *lost += u64::from(sent == Sent::Full);
            sent != Sent::Gone
        });
    }

    fn status(&self) -> Status {
        let followed = self.sources.followed();
        let sources = followed.map(|(number, socket)| SourceReport {
            socket: socket.clone(),
            connected: self.engine.is_following(number, socket.api),
        });
        Status {
            tier: self.source.tier(),
            sees_limits: self.source.sees_oom_control(),
            has_counters: has_counters(&self.hierarchy),
            cgroups: self.engine.tree().live_count(),
            containers: self.engine.registry().live_count(),
            node: self.engine.node().cloned(),
            sources: sources.collect(),
            report: self.current_report(),
        }
    }

    fn current_report(&self) -> Report {
        let lost_by_store = self.persist.lost_events();
        let queues = self.queues.iter();
        let publishers: Vec<_> = queues.map(|queue| queue.report(lost_by_store)).collect();
        let lost = publishers
            .iter()
            .map(|one| one.lost_in_queue + one.lost_by_publisher);
        Report {
            lost_by_publishers: self.report.lost_by_publishers + lost.sum::<u64>(),
            publishers,
            totals: self.engine.totals(),
            dropped_victims: self.drops.victims,
            dropped_cgroups: self.drops.cgroups,
            lost_by_store,
            residual: self.node.residual(),
            ..self.report
        }
    }

    async fn finish(mut self) -> Report {
        self.sweep();
        self.settle(u64::MAX);
        self.finish_scans().await;
        self.register_finds();
        self.last_audit().await;
        let rest = self.engine.release();
        self.publish(rest);
        self.publish_named(u64::MAX);
        self.log_books();
        self.say_what_stays();
        self.subscribers.clear();
        self.finish_publishers().await;
        self.persist.finish().await;
        self.current_report()
    }

    /// Lets them all come to their end, in the same time.
    async fn finish_publishers(&mut self) {
        self.persist.close();
        self.queues.iter_mut().for_each(Queue::close);
        let until = Instant::now() + self.grace;
        for queue in &mut self.queues {
            queue.finish(until).await;
        }
    }
}

fn understood(record: Result<Record, DecodeError>, report: &mut Report) -> Option<Record> {
    record
        .inspect_err(|error| {
            report.undecodable += 1;
            if report.undecodable.is_power_of_two() {
                warn!(%error, count = report.undecodable, "a record was not understood");
            }
        })
        .ok()
}

/// Names of the publishers that read the store.
fn readers(publishers: &[Box<dyn Publisher>]) -> Vec<Arc<str>> {
    let readers = publishers
        .iter()
        .filter(|publisher| publisher.delivery() == Delivery::AtLeastOnce);
    readers.map(|publisher| publisher.name().into()).collect()
}

fn counting(hierarchy: &Hierarchy) -> Counting {
    match (hierarchy.mode(), hierarchy.counts_locally()) {
        (MemoryMode::Hybrid, _) => Counting::LocalV1,
        (MemoryMode::Unified, true) => Counting::Local,
        (MemoryMode::Unified, false) => Counting::Hierarchical,
    }
}

/// The programs' log has a task of its own: it must not keep the loop awake.
fn forward_log(source: &mut Source) {
    if let Some(mut log) = source.take_log() {
        tokio::spawn(async move {
            loop {
                log.forward().await;
            }
        });
    }
}

/// Waits until a moment on the boot-time clock; for ever if there is none.
async fn until(deadline_ns: Option<u64>) {
    match deadline_ns {
        None => std::future::pending().await,
        Some(deadline_ns) => {
            let wait_ns = deadline_ns.saturating_sub(clock::now().boottime_ns);
            tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
        }
    }
}

fn boot_id() -> Arc<str> {
    match std::fs::read_to_string(BOOT_ID) {
        Ok(id) => id.trim().into(),
        Err(error) => {
            warn!(%error, path = BOOT_ID, "the boot id is unknown");
            "unknown".into()
        }
    }
}

fn host_name() -> Option<Arc<str>> {
    let name = rustix::system::uname();
    Some(crate::id::printable(name.nodename().to_bytes()).into())
}
