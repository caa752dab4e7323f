//! The conservation law against a model of the kernel: each kill is reported once and none twice. It holds whatever
//! the kernel does and whatever is lost on the way. It holds whenever containers are registered, and wherever the
//! daemon is killed.
//!
//! [`kernel`] has cgroups, counters and rings. [`daemon`] drives the engine as the watcher's task does. [`store`] has
//! what outlives a run, [`action`] what may happen, and [`check`] what must hold in the end.

mod action;
mod check;
mod daemon;
mod kernel;
mod store;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
};

use proptest::{prelude::*, test_runner::RngSeed};

use self::{
    action::{Action, action},
    daemon::Daemon,
    kernel::{Act, Kernel, Note},
    store::{Programs, Store},
};
use crate::event::OomEvent;

/// Number of cases at each push, always the same ones. `OOMWATCH_MODEL_CASES` tries others, and sets their number.
const CASES: u32 = 2000;
const SEED: u64 = 1;

#[derive(Debug)]
struct Model {
    kernel: Kernel,
    /// What happens while files are read, each after so many reads.
    between: VecDeque<(u8, Act)>,
    daemon: Option<Daemon>,
    has_store: bool,
    store: Store,
    /// Programs that were loaded so far.
    generation: u64,
    /// When each generation was loaded.
    attached: Vec<u64>,
    /// How many steps are left of a start that is killed.
    dies_after: Option<u8>,
    /// Turns of the loop that reach no store, because the store is slow.
    skip_saves: u8,
    /// Cgroups that are registered as containers, dead or alive.
    labels: BTreeSet<u64>,
    next_label: u64,
    /// Events that were handed over: with a store, what is in it.
    history: Vec<OomEvent>,
    /// Increments and removals whose records a run took in, and whose events it handed over; with the time when they
    /// were read.
    known: HashMap<Note, u64>,
    /// Increments that are of no concern: counted before watching began.
    past: HashSet<usize>,
    /// Increments of which nobody can say whether they are past.
    unsure: HashSet<usize>,
    /// The container of each process, if any, where that was certain when the process was reported.
    owners: HashMap<u32, Option<Option<u64>>>,
}

impl Model {
    fn new(
        (has_store, may_switch): (bool, bool),
        before: &[Act],
        during: Vec<(u8, Act)>,
        programs: Programs,
    ) -> Self {
        let mut model = Self {
            kernel: Kernel::new(),
            between: VecDeque::new(),
            daemon: None,
            has_store,
            store: Store::default(),
            generation: 0,
            attached: Vec::new(),
            dies_after: None,
            skip_saves: 0,
            labels: BTreeSet::new(),
            next_label: 0,
            history: Vec::new(),
            known: HashMap::new(),
            past: HashSet::new(),
            unsure: HashSet::new(),
            owners: HashMap::new(),
        };
        model.kernel.may_switch = may_switch;
        for act in before {
            model.kernel.act(act);
        }
        model.kernel.finish();
        model.between = during.into();
        model.start(programs, None);
        model
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Kernel { ref act, is_slow } => {
                self.kernel.act(act);
                if !is_slow {
                    self.kernel.finish();
                }
            }
            Action::Steps(steps) => (0..steps).for_each(|_| {
                self.kernel.step();
            }),
            Action::Between(ref acts) => self.between.extend(acts.iter().cloned()),
            Action::Lose(which) => self.kernel.lose = which.into(),
            Action::Drain => self.drain(),
            Action::StoreIsSlow(turns) => self.skip_saves = turns,
            Action::Audit => self.audit(true),
            Action::AuditIfDue => self.audit(false),
            Action::BeginScan => self.begin_scan(),
            Action::EndScan => self.end_scan(),
            Action::Register(at) => {
                if let Some(id) = self.kernel.pick(at) {
                    self.register(id);
                }
            }
            Action::Unregister(at) => self.unregister(at),
            Action::Pass { seconds } => {
                // No audit is under way for longer than a second.
                self.compare_counters();
                self.drain();
                self.kernel.clock += u64::from(seconds) * 1_000_000_000;
            }
            Action::Restart {
                programs,
                dies_after,
                ref meanwhile,
                ref during,
            } => {
                self.crash();
                for act in meanwhile {
                    self.kernel.act(act);
                    self.kernel.finish();
                }
                self.between = during.clone().into();
                self.start(programs, dies_after);
            }
        }
        self.turn();
    }
}

fn config() -> ProptestConfig {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let (cases, seed) = match number("OOMWATCH_MODEL_CASES") {
        Some(cases) => {
            let random = || RandomState::new().hash_one(cases);
            (cases, number("OOMWATCH_MODEL_SEED").unwrap_or_else(random))
        }
        None => (u64::from(CASES), SEED),
    };
    eprintln!("{cases} cases, OOMWATCH_MODEL_SEED={seed}");
    let (cases, rng_seed) = (u32::try_from(cases).unwrap(), RngSeed::Fixed(seed));
    ProptestConfig {
        rng_seed,
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_law_holds_whatever_the_kernel_does(
        has_store in proptest::bool::weighted(0.8),
        may_switch in proptest::bool::weighted(0.15),
        programs in action::programs(),
        before in proptest::collection::vec(action::act(), 0..12),
        during in action::during(),
        actions in proptest::collection::vec(action(), 0..40),
    ) {
        let mut model = Model::new((has_store, may_switch), &before, during, programs);
        for action in &actions {
            model.act(action);
        }
        model.check();
    }
}
