//! `cargo xtask vm`: the scenarios that need a real kernel and a real OOM kill, in machines of
//! their own, on every kernel of the matrix.
//!
//! What the scenarios do is the business of the guest programme (`vm-guest` of the tests
//! package); this module boots it and counts what it reports.

mod accel;
mod guest;
mod hog_image;
pub(crate) mod image;
mod initramfs;
pub(crate) mod kernel;
mod modules;
mod plan;
mod qemu;
mod results;
mod table;

use std::{
    env,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

pub(crate) use self::plan::Plan;
use self::{
    guest::{Boot, Guest},
    plan::Trial,
    qemu::{Accel, Limits},
};
use crate::{
    apt, build, ebpf,
    paths::Workspace,
    setup,
    summary::{Summary, Tally},
    toolchain,
};

/// Machines at a time. Each has two CPUs, so two of them keep a small machine busy; more would
/// only make each other miss deadlines.
const CONCURRENT: usize = 2;

/// Seconds a machine may take, where [`LIMIT_ENV`] does not say otherwise.
const LIMIT_SECONDS: u64 = 900;
/// A guest gives a sign of life every five seconds; before that, it boots in less than this.
const SILENCE: Duration = Duration::from_secs(90);
const LIMIT_ENV: &str = "OOMWATCH_VM_LIMIT_SECONDS";

/// Enough to see what happens every time. `--rounds 50` is for what happens now and then.
const ROUNDS: u32 = 3;

/// The command line of `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct Options {
    /// A kernel of the matrix (5.10, 6.1, 6.12, 7.3) or the path of a bzImage; may be repeated.
    #[arg(long, value_name = "NAME|PATH")]
    kernel: Vec<String>,
    /// A machine with container runtimes (runtimes-bookworm, runtimes-sid); may be repeated.
    /// Every kernel and every machine if both are left out.
    #[arg(long, value_name = "NAME")]
    machine: Vec<String>,
    /// Take the binaries as the last build left them.
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    scenarios: Scenarios,
}

/// What is to be run in every machine.
#[derive(Args)]
pub(crate) struct Scenarios {
    /// How often a container of each runtime is started, killed and removed.
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: u32,
    /// Run only scenarios whose name contains this.
    #[arg(default_value = "")]
    filter: String,
}

impl Default for Scenarios {
    fn default() -> Self {
        Self {
            rounds: ROUNDS,
            filter: String::new(),
        }
    }
}

/// Builds, gets what is missing, runs the machines and prints the summary.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let plan = Plan::choose(&options.kernel, &options.machine)?;
    if !options.no_build {
        toolchain::for_build(workspace)?;
        let object = ebpf::build(workspace)?;
        build::for_vm(workspace, &object)?;
    }
    apt::install(setup::VM_PACKAGES)?;
    let mut summary = Summary::default();
    test(workspace, plan, &options.scenarios, &mut summary)?;
    Ok(summary.print())
}

/// Boots every machine, some at a time, and adds a row for each. Goes on after a failed one.
pub(crate) fn test(
    workspace: &Workspace,
    plan: Plan,
    scenarios: &Scenarios,
    summary: &mut Summary,
) -> Result<()> {
    let filter = &scenarios.filter;
    ensure!(
        env::consts::ARCH == "x86_64",
        "the virtual-machine tests run on x86_64 only"
    );
    ensure!(
        !filter.contains(char::is_whitespace),
        "the filter goes onto a kernel command line and cannot have blanks"
    );
    let artifacts = workspace.target.join("vm");
    let ready = plan.prepare(workspace, &artifacts)?;
    if let Some(first) = ready.trials.first() {
        let boot = Boot {
            accel: accel::choose(&workspace.cache, &first.kernel.image)?,
            artifacts,
            filter: filter.clone(),
            rounds: scenarios.rounds,
            limits: Limits {
                total: limit()?,
                silence: SILENCE,
            },
        };
        boot_all(&boot, &ready.trials, summary)?;
    }
    for (row, error) in ready.failed {
        summary.add_not_run(&row, Tally::ONE_FAILED);
        summary.remark(format!("{row}: {error:#}"));
    }
    Ok(())
}

fn boot_all(boot: &Boot, trials: &[Trial], summary: &mut Summary) -> Result<()> {
    // From the end: the machines with runtimes take longest, and one that starts last runs alone.
    let queue = Mutex::new(trials.iter().rev());
    let finished = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..CONCURRENT {
            scope.spawn(|| {
                loop {
                    // Taken in a statement of its own: in a `while let`, the lock would be held
                    // through the body, and the machines would run one after the other.
                    let next = lock(&queue).next();
                    let Some(trial) = next else { return };
                    let guest = run_one(boot, trial);
                    lock(&finished).push((trial.name.as_str(), guest));
                }
            });
        }
    });
    let mut finished = finished
        .into_inner()
        .unwrap_or_else(|error| error.into_inner());
    finished.sort_by_key(|(name, _)| trials.iter().position(|trial| trial.name == *name));
    for trial in trials {
        let guest = finished.iter().find(|(name, _)| *name == trial.name);
        let (_, guest) = guest.with_context(|| format!("{} was not run", trial.row))?;
        add_rows(summary, trial, guest);
    }
    print_laws(&finished);
    Ok(())
}

/// Prints the numbers of all scenarios of all machines.
fn print_laws(finished: &[(&str, Finished)]) {
    let laws: Vec<(&str, &[results::LawOf])> = finished
        .iter()
        .filter_map(|(machine, finished)| {
            let guest = finished.guest.as_ref().ok()?;
            Some((*machine, guest.report.laws.as_slice()))
        })
        .collect();
    let table = table::markdown(&laws);
    if !table.is_empty() {
        println!("\n{table}");
    }
}

/// A lock whose holder has panicked is still good: it guards a list, not an invariant.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}

fn limit() -> Result<Duration> {
    let seconds = match env::var(LIMIT_ENV) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{LIMIT_ENV}={text} is no number of seconds"))?,
        Err(_) => LIMIT_SECONDS,
    };
    Ok(Duration::from_secs(seconds))
}

/// A finished machine: what it reported, or why it could not be started.
struct Finished {
    guest: Result<Guest>,
    /// Where and how the first try ended, if this is the second.
    stood_still: Option<String>,
    took: Duration,
}

/// Runs one machine, and once more if the emulated machine itself stood still: the emulation of
/// several CPUs is not above doubt. The summary says so, with the scenario; a second time is a
/// failure.
fn run_one(boot: &Boot, trial: &Trial) -> Finished {
    let started = Instant::now();
    let mut guest = boot.run(trial);
    let stood_still = guest
        .as_ref()
        .ok()
        .filter(|guest| boot.accel == Accel::Tcg && guest.stood_still())
        .and_then(|guest| Some(guest.report.remarkable().last()?.in_short()));
    if stood_still.is_some() {
        println!(
            "[{}] the emulated machine stood still: once more",
            trial.name
        );
        guest = boot.run(trial);
    }
    Finished {
        guest,
        stood_still,
        took: started.elapsed(),
    }
}

fn add_rows(summary: &mut Summary, trial: &Trial, finished: &Finished) {
    let name = &trial.name;
    if let Some(how) = &finished.stood_still {
        summary.remark(format!(
            "{name}: the emulated machine stood still and was booted once more; at first: {how}"
        ));
    }
    match &finished.guest {
        Ok(guest) => {
            summary.add(&trial.row, guest.report.tally(), finished.took);
            for scenario in guest.report.remarkable() {
                summary.remark(format!("{name}: {}", scenario.in_short()));
            }
            if guest.report.tally().failed > 0 {
                summary.remark(format!("{name}: see {}", guest.dir.display()));
            }
        }
        Err(error) => {
            summary.add(&trial.row, Tally::ONE_FAILED, finished.took);
            summary.remark(format!("{name}: {error:#}"));
        }
    }
}
