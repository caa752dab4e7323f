//! Where the watcher's knowledge comes from: the probe, the counters' files, or both. It decides which of them this
//! host allows.

use std::{collections::VecDeque, io, path::Path};

use super::{Options, StartError};
use crate::{
    cgroup::hierarchy::Hierarchy,
    clock,
    counters::CounterWatch,
    drill::reached,
    engine::counter_reading::CounterReading,
    log::warn,
    probe::{
        Attached, DecodeError, Drops, PinDir, Position, Probe, ProbeConfig, ProbeError, ProgramLog,
    },
    record::Record,
    tier::{Tier, TierChoice},
};

/// Between two sweeps where all counters are watched: for changes of which the kernel gives no notification.
const SWEEP_NS: u64 = 60_000_000_000;
/// The same where some counters cannot be watched.
const LIMITED_SWEEP_NS: u64 = 5_000_000_000;
/// Until the first sweep for the counters of a container that has none yet; doubled each time.
const FIRST_SWEEP_NS: u64 = 500_000_000;

/// Longest time from a counter's increase to the exit of the process that it counts. If the exit comes later, the
/// kill is reported by number only.
const DEATH_NS: u64 = 2_000_000_000;

/// How well the counters are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// All of them.
    All,
    /// Some have no memory controller, or not yet.
    NotYet,
    /// Descriptors or watches ran out.
    Limited,
}

/// The probe in all tiers but `counters`; the files in `pid` and `counters`.
pub(super) struct KillSource {
    tier: Tier,
    probe: Option<Probe>,
    pub(super) counters: Option<CounterWatch>,
    /// Readings that wait for the victims' own records, oldest first.
    waiting: VecDeque<(u64, Vec<CounterReading>)>,
    sweep_at_ns: Option<u64>,
    sweep_wait_ns: u64,
}

impl KillSource {
    /// Takes the best tier that was asked for and that works.
    pub(super) fn start(options: &Options, hierarchy: &Hierarchy) -> Result<Self, StartError> {
        let choice = options.tier;
        let pin = options.pin.as_deref().map(PinDir::open).transpose();
        let pin = pin.map_err(ProbeError::Pin)?;
        if choice == TierChoice::Only(Tier::Counters) {
            if pin.is_some() {
                warn!("tier counters has nothing to pin");
            }
            return Self::counters(hierarchy);
        }
        let config = ProbeConfig {
            ring_bytes: options.ring_bytes,
            tier: choice,
            log: options.log_probe,
        };
        match Probe::start(&config, pin) {
            Ok(probe) => Self::probe(probe),
            Err(error) if choice.allows(Tier::Counters) && error.calls_for_lesser_tier() => {
                warn!(
                    error = %error.with_causes(),
                    "no eBPF program can be loaded: kills are counted from memory.events, and who was killed is unknown; `oomwatch check` says what is missing"
                );
                Self::counters(hierarchy)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Without BTF the records know no counters and no cgroups but the victim's.
    fn probe(probe: Probe) -> Result<Self, StartError> {
        let counters = match probe.tier() {
            Tier::Pid => Some(CounterWatch::start().map_err(StartError::Watch)?),
            _ => None,
        };
        Ok(Self {
            tier: probe.tier(),
            probe: Some(probe),
            counters,
            waiting: VecDeque::new(),
            sweep_at_ns: None,
            sweep_wait_ns: 0,
        })
    }

    fn counters(hierarchy: &Hierarchy) -> Result<Self, StartError> {
        if let Some(reason) = hierarchy.lacks_counters() {
            return Err(StartError::NoCounters {
                mount: hierarchy.mount().to_owned(),
                reason,
            });
        }
        Ok(Self {
            tier: Tier::Counters,
            probe: None,
            counters: Some(CounterWatch::start().map_err(StartError::Watch)?),
            waiting: VecDeque::new(),
            sweep_at_ns: None,
            sweep_wait_ns: 0,
        })
    }

    pub(super) fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether events say which limit was hit.
    pub(super) fn sees_oom_control(&self) -> bool {
        self.probe.as_ref().is_some_and(Probe::sees_oom_control)
    }

    /// Whether events of this tier would say which limit was hit, if this host allowed it.
    pub(super) fn lacks_oom_control(&self) -> bool {
        matches!(self.tier, Tier::Btf | Tier::BtfPid) && !self.sees_oom_control()
    }

    /// Whether there may be records from before this daemon began, to be read first.
    pub(super) fn goes_on(&self) -> bool {
        self.probe.as_ref().is_some_and(Probe::goes_on)
    }

    /// See [`Probe::pinned_at`].
    pub(super) fn pinned_at(&self) -> Option<&Path> {
        self.probe.as_ref()?.pinned_at()
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        if reached("readable") {
            return Err(io::Error::other("a drill"));
        }
        match (&mut self.probe, &mut self.counters) {
            (Some(probe), Some(counters)) => tokio::select! {
                ready = probe.readable() => ready,
                ready = counters.readable() => ready,
            },
            (Some(probe), None) => probe.readable().await,
            (None, Some(counters)) => counters.readable().await,
            (None, None) => std::future::pending().await,
        }
    }

    /// See [`Probe::drain`].
    pub(super) fn drain(
        &mut self,
        limit: usize,
        take: impl FnMut(Result<Record, DecodeError>),
    ) -> bool {
        let probe = self.probe.as_mut();
        probe.is_some_and(|probe| probe.drain(limit, take))
    }

    /// See [`Probe::read_backlog`].
    pub(super) fn read_backlog(
        &mut self,
        stored: &[Position],
        take: impl FnMut(Result<Record, DecodeError>),
    ) {
        if let Some(probe) = &mut self.probe {
            probe.read_backlog(stored, take);
        }
    }

    /// See [`Probe::positions`].
    pub(super) fn positions(&self) -> Vec<Position> {
        let probe = self.probe.as_ref();
        probe.map_or_else(Vec::new, Probe::positions)
    }

    /// See [`Probe::handed_over`].
    pub(super) fn handed_over(&mut self, positions: &[Position]) {
        if let Some(probe) = &mut self.probe {
            probe.handed_over(positions);
        }
    }

    /// See [`Probe::relieve`].
    pub(super) fn relieve(&self) {
        if let Some(probe) = &self.probe {
            probe.relieve();
        }
    }

    /// See [`Probe::keep`].
    pub(super) fn keep(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.keep();
        }
    }

    /// See [`Probe::detach`].
    pub(super) fn detach(&mut self) -> Option<Attached> {
        self.probe.as_mut().map(Probe::detach)
    }

    /// See [`Probe::drops`].
    pub(super) fn drops(&self) -> io::Result<Drops> {
        let probe = self.probe.as_ref();
        probe.map_or_else(|| Ok(Drops::default()), Probe::drops)
    }

    /// See [`Probe::lost_before`].
    pub(super) fn lost_before(&self) -> u64 {
        self.probe.as_ref().map_or(0, Probe::lost_before)
    }

    /// See [`Probe::take_log`].
    pub(super) fn take_log(&mut self) -> Option<ProgramLog> {
        self.probe.as_mut()?.take_log()
    }

    /// When to sweep or to settle, on the boot-time clock.
    pub(super) fn timer_ns(&self) -> Option<u64> {
        let settle = self.waiting.front().map(|(at_ns, _)| *at_ns);
        settle.into_iter().chain(self.sweep_at_ns).min()
    }

    /// Whether it is time to look at everything again.
    pub(super) fn is_sweep_due(&self, now_ns: u64) -> bool {
        self.sweep_at_ns.is_some_and(|at_ns| at_ns <= now_ns)
    }

    /// Whether readings wait for the records that victims make at their exit.
    pub(super) fn waits_for_victims(&self) -> bool {
        self.tier == Tier::Pid
    }

    /// Keeps readings until the victims that they count have had 2 s to die.
    pub(super) fn wait(&mut self, readings: Vec<CounterReading>) {
        let at_ns = clock::now().boottime_ns + DEATH_NS;
        self.waiting.push_back((at_ns, readings));
    }

    /// The readings that waited until `now_ns`.
    pub(super) fn settled(&mut self, now_ns: u64) -> Vec<Vec<CounterReading>> {
        let due = self
            .waiting
            .iter()
            .take_while(|(at_ns, _)| *at_ns <= now_ns);
        let due = due.count();
        self.waiting
            .drain(..due)
            .map(|(_, readings)| readings)
            .collect()
    }

    /// Everything was looked at just now, and this much of it is watched.
    pub(super) fn swept(&mut self, watched: Coverage) {
        self.sweep_wait_ns = match watched {
            Coverage::All => SWEEP_NS,
            Coverage::Limited => LIMITED_SWEEP_NS,
            Coverage::NotYet => (self.sweep_wait_ns * 2).clamp(FIRST_SWEEP_NS, SWEEP_NS),
        };
        self.sweep_in(self.sweep_wait_ns);
    }

    /// A container has no counters yet: have a look soon.
    pub(super) fn sweep_soon(&mut self) {
        self.sweep_wait_ns = FIRST_SWEEP_NS;
        self.sweep_in(FIRST_SWEEP_NS);
    }

    /// There is more to read.
    pub(super) fn sweep_now(&mut self) {
        self.sweep_in(0);
    }

    fn sweep_in(&mut self, wait_ns: u64) {
        self.sweep_at_ns = Some(clock::now().boottime_ns + wait_ns);
    }
}
