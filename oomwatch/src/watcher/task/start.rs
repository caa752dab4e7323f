//! The start, in the order that loses nothing: steps that may fail come before steps that cannot be undone.
//!
//! Until the loop runs, nothing is read from a pinned ring for good, and no older generation of programs is removed.
//! So a start that fails, or is killed after any of its steps, leaves everything to the next start.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tracing::info;

use super::{
    super::{AddError, Options, StartError, has_counters, source::KillSource},
    BOOT_ID, Drops, Task,
    drain::understood,
    node,
    persist::{LOST_IN_RING, Persist},
    sources::Sources,
};
use crate::{
    cgroup::hierarchy::{CgroupError, Hierarchy, MemoryMode},
    clock,
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
        registry::RegistryError,
    },
    counters::walk::CounterWalk,
    drill::reached,
    engine::{Engine, EngineConfig, compose::Origin},
    id::{CgroupId, ContainerId},
    ledger::{Counting, Readings},
    log::warn,
    probe::Position,
    publish::{Delivery, Publisher},
    record::Record,
    store::StoreConfig,
    watcher::Report,
};

/// Most records that a ring of 96 MiB holds. The rest of a larger ring follows in batches.
const MOST_RECORDS: usize = 1 << 20;

/// Longer than the kernel takes from its count to the record.
pub(super) const RECORD_MADE: Duration = Duration::from_millis(1);
/// Most readings at the start, until no kill comes between the first file and the last.
const MAX_READS: usize = 8;

/// The counters from before anything is attached.
struct Past {
    counters: Readings,
    /// The node's count, before and after.
    node: Option<u64>,
}

/// What an earlier run left.
struct Left {
    /// Programs that are pinned, and their ring.
    is_ring: bool,
    /// Ledgers in the store.
    is_ledgers: bool,
    /// How far the store has the rings.
    rings: Vec<Position>,
    /// The node's count up to which everything was reported.
    reported_up_to: Option<u64>,
}

/// A container that is registered from the start.
struct Given {
    container: Container,
    path: PathBuf,
}

impl Task {
    /// Attaches, scans and registers: no kill from now on is missed.
    pub(in super::super) fn start(
        options: Options,
        publishers: Vec<Box<dyn Publisher>>,
        containers: &[(String, PathBuf)],
    ) -> Result<Self, StartError> {
        let started_ns = clock::now().boottime_ns;
        let hierarchy = Hierarchy::find()?;
        let root = hierarchy.root()?;
        let given = given(&hierarchy, containers)?;
        let sockets = (options.sockets.clone(), options.possible_sockets.clone());
        reached("checked");
        let past = read_past(&hierarchy, root);
        let mut source = KillSource::start(&options, &hierarchy)?;
        reached("attached");
        forward_log(&mut source);
        let (mut task, left) = Self::take_up(options, &publishers, root, (hierarchy, source));
        let registered = task.scan_first(given, &past, &left)?;
        task.report_past(past, &left, started_ns);
        // What their counters had by then is reported, or past.
        for cgroup in registered {
            task.watch_counter(cgroup);
        }
        task.drain();
        task.engine.start_is_over();
        task.begin_node_audit(left.reported_up_to);
        // After the scan, so that no name waits for it. It is the last step that may fail.
        task.sources =
            Sources::start(&sockets.0, &sockets.1, &task.hierarchy).map_err(StartError::Sources)?;
        task.publish_first(publishers);
        task.warn_of_limits(root);
        info!(
            tier = %task.source.tier(),
            cgroups = task.engine.tree().live_count(),
            containers = task.engine.registry().live_count(),
            "watching"
        );
        Ok(task)
    }

    /// Opens the store, and takes up the ledgers of an earlier run.
    fn take_up(
        options: Options,
        publishers: &[Box<dyn Publisher>],
        root: CgroupId,
        (hierarchy, source): (Hierarchy, KillSource),
    ) -> (Self, Left) {
        let boot_id = boot_id(BOOT_ID);
        let store = options.state_dir.clone().map(|dir| StoreConfig {
            dir,
            limits: options.limits,
            publishers: readers(publishers),
        });
        let (persist, saved) = Persist::open(store, &boot_id);
        reached("opened");
        let reported_up_to = saved.meta.get(node::REPORTED_UP_TO).copied();
        let rings = positions(&saved.rings);
        warn_of_losses(source.lost_before(), saved.meta.get(LOST_IN_RING).copied());
        let parts = (hierarchy, source, Sources::default(), persist);
        let mut task = Self::new(options, boot_id, root, parts);
        task.resume(saved);
        let left = Left {
            is_ring: task.source.goes_on(),
            is_ledgers: task.engine.is_resumed(),
            rings,
            reported_up_to,
        };
        (task, left)
    }

    /// Learns which cgroups there are, and registers containers that are given.
    fn scan_first(
        &mut self,
        given: Vec<Given>,
        past: &Past,
        left: &Left,
    ) -> Result<Vec<CgroupId>, StartError> {
        if !left.is_ring && !left.is_ledgers {
            self.engine.begin(&past.counters);
        }
        self.scan_tree().map_err(|source| StartError::Scan {
            mount: self.hierarchy.mount().to_owned(),
            source,
        })?;
        reached("scanned");
        if !left.is_ring {
            self.engine.add_up();
        }
        self.watch_counters();
        let mut registered = Vec::with_capacity(given.len());
        for given in given {
            registered.push(self.register_given(given)?);
        }
        reached("registered");
        Ok(registered)
    }

    /// Reports what happened while no daemon ran.
    fn report_past(&mut self, past: Past, left: &Left, started_ns: u64) {
        let backlog = left
            .is_ring
            .then(|| self.read_backlog(started_ns, &left.rings));
        reached("read");
        self.engine.settle_resumed();
        match backlog {
            // Judged by what the marks say of each other, so before later counters are read.
            Some(backlog) => {
                self.work_off(&backlog);
                self.meet_counters(left.is_ledgers);
            }
            None => self.tell_past(past, left.is_ledgers),
        }
    }

    fn new(
        options: Options,
        boot_id: Arc<str>,
        root: CgroupId,
        (hierarchy, source, sources, persist): (Hierarchy, KillSource, Sources, Persist),
    ) -> Self {
        let origin = Origin {
            boot_id,
            node: options.node.or_else(host_name),
            tier: source.tier(),
        };
        let engine = Engine::new(EngineConfig {
            origin,
            discovery: options.discovery,
            units: options.units,
            root,
            counting: counting(&hierarchy),
            owners: Arc::new(hierarchy.clone()),
        });
        Self {
            engine,
            queues: Vec::new(),
            grace: options.grace,
            subscribers: Vec::new(),
            on_publish: options.on_publish,
            drops: Drops::default(),
            report: Report::default(),
            batch: Vec::new(),
            has_more: false,
            scans: super::Scans::default(),
            audit: super::Audit::default(),
            noted: super::Noted::default(),
            node: super::NodeAudit::default(),
            persist,
            sources,
            started: Instant::now(),
            is_backlog_over: false,
            is_blind: false,
            source,
            hierarchy,
        }
    }

    /// Takes in the counters from before anything was attached. With an earlier run's ledgers they show what happened
    /// since that run ended. Without such a run, ledgers begin at them.
    fn tell_past(&mut self, past: Past, is_resumed: bool) {
        if is_resumed {
            let told = self
                .engine
                .compare_past(&past.counters.readings, clock::now());
            self.admit(told);
        }
        if past.node != node::read() {
            // An increment was counted before the programs were attached, or has its record in the ring by now.
            self.note_counters(true);
        }
    }

    /// Takes in the counters as they are after the records of a pinned ring. Increments that no record showed were
    /// lost while no daemon ran, if an earlier run's ledgers can say so.
    fn meet_counters(&mut self, is_resumed: bool) {
        if !has_counters(&self.hierarchy) {
            return;
        }
        if is_resumed {
            return self.note_counters(true);
        }
        let counters = self.read_all_counters();
        // What they counted has its record in the ring, except a record that is being made.
        std::thread::sleep(RECORD_MADE);
        self.drain_ring();
        self.engine.begin(&counters);
    }

    /// Registers a container that was checked before the programs were attached. By now it may be gone, or found
    /// under another name.
    fn register_given(&mut self, given: Given) -> Result<CgroupId, AddError> {
        let (id, cgroup_id) = (given.container.id.clone(), given.container.cgroup_id);
        if !self.engine.tree().contains(cgroup_id) {
            return Err(CgroupError::NotFound { path: given.path }.into());
        }
        self.engine.register_by_hand(given.container)?;
        info!(container = %id, cgroup = cgroup_id.0, "registered");
        Ok(cgroup_id)
    }

    /// Reads all records from before this daemon began, and learns which cgroups came and went. Their containers must
    /// be known before any kill is reported. Reading begins after the records that an earlier daemon has stored. The
    /// records stay in the ring until they are handed over.
    fn read_backlog(&mut self, started_ns: u64, stored: &[Position]) -> Vec<Record> {
        self.engine.watching_since(started_ns);
        let mut backlog = Vec::new();
        let report = &mut self.report;
        self.source.read_backlog(stored, |record| {
            backlog.extend(understood(record, report));
        });
        self.read_ring(MOST_RECORDS, &mut backlog);
        // There may be several rings: a counter numbers what was counted in all of them.
        backlog.sort_by_key(Record::boottime_ns);
        self.engine.learn_all(&backlog);
        info!(records = backlog.len(), "oomwatch uses the pinned programs");
        backlog
    }

    /// Makes events of the backlog.
    fn work_off(&mut self, backlog: &[Record]) {
        self.check_drops();
        self.apply_batch(backlog);
    }

    /// The last step of the start: from here on it does not fail.
    fn publish_first(&mut self, publishers: Vec<Box<dyn Publisher>>) {
        self.source.keep();
        if self.source.pinned_at().is_some() && self.persist.follow_publishers() {
            info!("--pin without --state-dir: after a crash, a kill may be reported a second time");
        }
        let persist = &mut self.persist;
        let queues = publishers.into_iter();
        self.queues = queues
            .map(|publisher| persist.start_publisher(publisher))
            .collect();
        self.turn();
        reached("published");
    }

    /// Warns of what this host does not allow; `oomwatch check` says what to do about it.
    fn warn_of_limits(&self, root: CgroupId) {
        if !has_counters(&self.hierarchy) {
            warn!(
                "the memory controller is on cgroup v1: oomwatch reports kills from the tracepoint alone and has no counters to compare them with"
            );
        }
        if root != CgroupId::ROOT {
            warn!("oomwatch runs in a cgroup namespace: victims outside of it have no path");
        }
        if self.source.lacks_oom_control() {
            warn!("cannot hook out_of_memory(): events do not say which limit was hit");
        }
    }
}

/// Reads all counters at one moment: as often as it takes for the node's count to stand still meanwhile, at most 8
/// times.
fn read_past(hierarchy: &Hierarchy, root: CgroupId) -> Past {
    let mut node = node::read();
    let mut counters = Readings::default();
    if has_counters(hierarchy) {
        for _ in 0..MAX_READS {
            // By then, all counters include what the node counted.
            std::thread::sleep(RECORD_MADE);
            let nothing = |_| 0;
            let mut walk = CounterWalk::begin(hierarchy, root, &nothing);
            while walk.step(usize::MAX, &nothing) {}
            counters = walk.done();
            let after = node::read();
            if std::mem::replace(&mut node, after) == after {
                break;
            }
        }
    }
    Past { counters, node }
}

/// Warns of records of a pinned ring that were lost and that no earlier run reported.
fn warn_of_losses(lost: u64, said: Option<u64>) {
    // The ring of another generation counts anew.
    let said = said.filter(|said| *said <= lost).unwrap_or(0);
    if lost > said {
        warn!(
            lost = lost - said,
            "the pinned ring dropped records of victims: only ledgers in --state-dir tell of kills while no daemon ran"
        );
    }
}

/// Checks the containers to begin with, as long as nothing is attached yet.
fn given(hierarchy: &Hierarchy, containers: &[(String, PathBuf)]) -> Result<Vec<Given>, AddError> {
    let mut given: Vec<Given> = Vec::new();
    for (id, path) in containers {
        let id = ContainerId::new(id)?;
        let cgroup_id = hierarchy.id(path)?;
        for other in &given {
            if other.container.id == id {
                return Err(RegistryError::DuplicateId(id).into());
            }
            if other.container.cgroup_id == cgroup_id {
                let other = other.container.id.clone();
                return Err(RegistryError::DuplicateCgroup { id, other }.into());
            }
        }
        let details = ContainerDetails::default();
        given.push(Given {
            container: Container {
                id,
                cgroup_id,
                identity: Identity::Manual,
                inside: None,
                details,
            },
            path: path.clone(),
        });
    }
    Ok(given)
}

fn positions(rings: &[(u32, u64)]) -> Vec<Position> {
    let rings = rings.iter();
    rings
        .map(|&(ring, bytes)| Position { ring, bytes })
        .collect()
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
fn forward_log(source: &mut KillSource) {
    if let Some(mut log) = source.take_log() {
        tokio::spawn(async move {
            loop {
                log.forward().await;
            }
        });
    }
}

/// The kernel's boot id. If it cannot be read, an id for this run: then nothing of an earlier run is resumed.
fn boot_id(path: &str) -> Arc<str> {
    match std::fs::read_to_string(path) {
        Ok(id) => id.trim().into(),
        Err(error) => {
            warn!(%error, path, "the boot id is unknown: oomwatch resumes nothing of an earlier run");
            let random = || RandomState::new().hash_one(path);
            format!("unknown-{:016x}{:016x}", random(), random()).into()
        }
    }
}

fn host_name() -> Option<Arc<str>> {
    let name = rustix::system::uname();
    Some(crate::id::printable(name.nodename().to_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two boots that could not be distinguished were taken for one. The containers of the first were put on whatever
    /// had their cgroups' numbers in the second.
    #[test]
    fn a_boot_without_an_id_is_like_no_other() {
        let path = "/proc/self/no-such-file";
        let (first, second) = (boot_id(path), boot_id(path));
        assert!(first.starts_with("unknown-"), "{first}");
        assert_ne!(first, second);
    }
}
