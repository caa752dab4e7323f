//! Entries for the benchmarks in `benches/`: the watcher's path from bytes to events, without its task. The feature
//! `bench` is for them alone and no part of the library's interface.

mod wire;

use std::{io, sync::Arc};

use oomwatch_common::record::Victim;
use zerocopy::IntoBytes as _;

use self::wire::Storm;
use crate::{
    clock,
    containers::by_path::CgroupDiscovery,
    engine::{Engine, EngineConfig, compose::Origin},
    event::OomEvent,
    id::CgroupId,
    ledger::{Counting, Readings},
    probe::{Probe, ProbeConfig, ProbeError, bench},
    record::Record,
    tier::{Tier, TierChoice},
    topology::owners::AllRoots,
};

/// As many records at a time as the watcher's task takes.
const BATCH: usize = 256;
const PAGE_BYTES: u64 = 4096;
/// Room of the probe's ring, in bytes. The benchmark does not measure the kernel side.
const RING_BYTES: u32 = 16 * 1024 * 1024;
/// Containers of one pod, in a node full of them.
const CONTAINERS_OF_A_POD: u64 = 10;

/// An engine with registered containers, as after the first scan of a host with cgroup v2.
pub struct Host {
    engine: Engine,
    storm: Storm,
}

impl Host {
    /// Registers containers by their path.
    #[must_use]
    pub fn with_containers(containers: u64) -> Self {
        let mut engine = engine();
        for (id, parent, name) in wire::topology(containers, CONTAINERS_OF_A_POD) {
            engine.learn(id, parent, name.as_bytes());
        }
        Self {
            engine,
            storm: Storm::new(containers, CONTAINERS_OF_A_POD),
        }
    }

    /// Gives each container a cgroup inside, which holds every other victim.
    #[must_use]
    pub fn with_inner_cgroups(mut self) -> Self {
        for (id, parent, name) in wire::inner(self.storm.containers) {
            self.engine.learn(id, parent, name.as_bytes());
        }
        self
    }

    /// Containers that are registered.
    #[must_use]
    pub fn containers(&self) -> usize {
        self.engine.registry().live_count()
    }

    /// The next victims, as the bytes that the ring would have.
    pub fn next_records(&mut self, records: usize) -> Wire {
        Wire((0..records).map(|_| self.storm.next()).collect())
    }

    /// Works from bytes to events, in batches, and hands each event to `publish` as the watcher's task does.
    pub fn work_through(&mut self, wire: &Wire, mut publish: impl FnMut(&Arc<OomEvent>)) {
        let mut batch = Vec::with_capacity(BATCH);
        for records in wire.0.chunks(BATCH) {
            let decoded = records
                .iter()
                .map(|record| bench::decode(record.as_bytes(), PAGE_BYTES));
            batch.extend(decoded.filter_map(Result::ok));
            apply(&mut self.engine, &batch, &mut publish);
            batch.clear();
        }
    }
}

/// Records as bytes.
pub struct Wire(Vec<Victim>);

/// The real probe, attached, with an engine behind it.
pub struct Ring {
    probe: Probe,
    engine: Engine,
}

impl Ring {
    /// Loads and attaches. Needs a tokio runtime with I/O enabled, and the privilege.
    ///
    /// # Errors
    /// Where the best tier is not possible.
    pub fn start() -> Result<Self, ProbeError> {
        let config = ProbeConfig {
            ring_bytes: RING_BYTES,
            tier: TierChoice::Only(Tier::Btf),
            log: false,
        };
        Ok(Self {
            probe: Probe::start(&config, None)?,
            engine: engine(),
        })
    }

    /// Has the kernel side put `marks` marks of the task at this address into the ring.
    ///
    /// # Errors
    /// Where the kernel has no test runs of raw tracepoint programs.
    pub fn fill(&self, marks: usize, task: u64) -> io::Result<()> {
        (0..marks).try_for_each(|_| self.probe.run_mark(task))
    }

    /// From the ring to verdicts; returns the number of records.
    pub fn drain(&mut self, mut publish: impl FnMut(&Arc<OomEvent>)) -> usize {
        let mut batch = Vec::with_capacity(BATCH);
        let mut records = 0;
        loop {
            let more = self.probe.drain(BATCH, |record| batch.extend(record));
            records += batch.len();
            apply(&mut self.engine, &batch, &mut publish);
            batch.clear();
            if !more {
                return records;
            }
        }
    }
}

fn apply(engine: &mut Engine, batch: &[Record], publish: &mut impl FnMut(&Arc<OomEvent>)) {
    for mut event in engine.apply(batch, clock::now()) {
        let now = clock::now();
        event.delivered_ns = Some(now.boottime_ns.saturating_sub(event.boottime_ns));
        publish(&Arc::new(event));
    }
}

fn engine() -> Engine {
    let mut engine = Engine::new(EngineConfig {
        origin: Origin {
            boot_id: "5f2f0d37-6a5c-4f4e-9a0e-3a4a2f9a4a11".into(),
            node: Some("node-1".into()),
            tier: Tier::Btf,
        },
        discovery: CgroupDiscovery::Containers,
        units: false,
        root: CgroupId::ROOT,
        counting: Counting::Hierarchical,
        owners: Arc::new(AllRoots),
    });
    // Nothing was counted before.
    engine.begin(&Readings::default());
    engine
}
