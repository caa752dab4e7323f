//! `cargo xtask vm`: the scenarios that need a real kernel and a real OOM kill, in machines of
//! their own, on every kernel of the matrix.
//!
//! What the scenarios do is the business of the guest programme (`vm-guest` of the tests
//! package); this module boots it and counts what it reports.

mod accel;
mod guest;
mod initramfs;
pub(crate) mod kernel;
mod qemu;
mod results;
mod table;

use std::env;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use self::guest::{Boot, Guest};
use self::kernel::{Kernel, Spec};
use self::qemu::{Accel, Limits};
use crate::paths::{self, Workspace};
use crate::summary::{Summary, Tally};
use crate::{apt, build, ebpf, setup, toolchain};

/// Machines at a time. Each has two CPUs, so two of them keep a small machine busy; more would
/// only make each other miss deadlines.
const CONCURRENT: usize = 2;

/// Seconds a machine may take, where [`LIMIT_ENV`] does not say otherwise.
const LIMIT_SECONDS: u64 = 900;
/// A guest gives a sign of life every five seconds; before that, it boots in less than this.
const SILENCE: Duration = Duration::from_secs(90);
const LIMIT_ENV: &str = "OOMWATCH_VM_LIMIT_SECONDS";

/// The command line of `cargo xtask vm`.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// A kernel of the matrix (5.10, 6.1, 6.12, 7.3) or the path of a bzImage; may be repeated.
    /// All of the matrix if left out.
    #[arg(long, value_name = "NAME|PATH")]
    kernel: Vec<String>,
    /// Take the binaries as the last build left them.
    #[arg(long)]
    no_build: bool,
    /// Run only scenarios whose name contains this.
    filter: Option<String>,
}

/// Builds, gets what is missing, runs the machines and prints the summary.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let (specs, mut kernels) = select(&options.kernel)?;
    if !options.no_build {
        toolchain::for_build(workspace)?;
        let object = ebpf::build(workspace)?;
        build::for_vm(workspace, &object)?;
    }
    apt::install(setup::VM_PACKAGES)?;
    for spec in &specs {
        kernels.push(kernel::fetch(&workspace.cache, spec)?);
    }
    let mut summary = Summary::default();
    let filter = options.filter.as_deref().unwrap_or_default();
    test(workspace, &kernels, filter, &mut summary)?;
    Ok(summary.print())
}

/// Splits the kernels asked for into those of the matrix and images of the user's own.
fn select(wanted: &[String]) -> Result<(Vec<Spec>, Vec<Kernel>)> {
    let mut specs = Vec::new();
    let mut kernels = Vec::new();
    for wanted in wanted {
        if let Some(spec) = kernel::ALL.iter().find(|spec| spec.name == wanted) {
            specs.push(*spec);
        } else if wanted.contains('/') || Path::new(wanted).is_file() {
            kernels.push(Kernel::from_path(Path::new(wanted))?);
        } else {
            let names: Vec<_> = kernel::ALL.iter().map(|spec| spec.name).collect();
            let names = names.join(", ");
            bail!("there is no kernel {wanted}: give one of {names}, or the path of a bzImage");
        }
    }
    if wanted.is_empty() {
        specs.extend(kernel::ALL);
    }
    Ok((specs, kernels))
}

/// Boots every kernel, some at a time, and adds a row for each. Goes on after a failed one.
pub(crate) fn test(
    workspace: &Workspace,
    kernels: &[Kernel],
    filter: &str,
    summary: &mut Summary,
) -> Result<()> {
    let boot = prepare(workspace, kernels, filter)?;
    let queue = Mutex::new(kernels.iter());
    let finished = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..CONCURRENT {
            scope.spawn(|| {
                loop {
                    // Taken in a statement of its own: in a `while let`, the lock would be held
                    // through the body, and the machines would run one after the other.
                    let next = lock(&queue).next();
                    let Some(kernel) = next else { return };
                    let guest = run_one(&boot, kernel);
                    lock(&finished).push((kernel.name.as_str(), guest));
                }
            });
        }
    });
    let mut finished = finished
        .into_inner()
        .unwrap_or_else(|error| error.into_inner());
    finished.sort_by_key(|(name, _)| kernels.iter().position(|kernel| kernel.name == *name));
    for kernel in kernels {
        let guest = finished.iter().find(|(name, _)| *name == kernel.name);
        let (_, guest) = guest.with_context(|| format!("kernel {} was not run", kernel.name))?;
        add_rows(summary, kernel, guest);
    }
    print_laws(&finished);
    Ok(())
}

/// Prints the numbers of all scenarios of all machines.
fn print_laws(finished: &[(&str, Finished)]) {
    let laws: Vec<(&str, &[results::LawOf])> = finished
        .iter()
        .filter_map(|(kernel, finished)| {
            let guest = finished.guest.as_ref().ok()?;
            Some((*kernel, guest.report.laws.as_slice()))
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

fn prepare(workspace: &Workspace, kernels: &[Kernel], filter: &str) -> Result<Boot> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "the virtual-machine tests run on x86_64 only"
    );
    ensure!(
        !filter.contains(char::is_whitespace),
        "the filter goes onto a kernel command line and cannot have blanks"
    );
    let artifacts = workspace.target.join("vm");
    paths::create_dir(&artifacts)?;
    let initramfs = artifacts.join("initramfs.cpio");
    initramfs::write(workspace, &initramfs)?;
    let first = kernels.first().context("no kernel to boot")?;
    Ok(Boot {
        accel: accel::choose(&workspace.cache, &first.image)?,
        initramfs,
        artifacts,
        filter: filter.to_owned(),
        limits: Limits {
            total: limit()?,
            silence: SILENCE,
        },
    })
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

/// Runs one kernel, and once more if the emulated machine itself stood still: the emulation of
/// several CPUs is not above doubt. The summary says so, with the scenario; a second time is a
/// failure.
fn run_one(boot: &Boot, kernel: &Kernel) -> Finished {
    let started = Instant::now();
    let mut guest = boot.run(kernel);
    let stood_still = guest
        .as_ref()
        .ok()
        .filter(|guest| boot.accel == Accel::Tcg && guest.stood_still())
        .and_then(|guest| Some(guest.report.remarkable().last()?.in_short()));
    if stood_still.is_some() {
        println!(
            "[{}] the emulated machine stood still: once more",
            kernel.name
        );
        guest = boot.run(kernel);
    }
    Finished {
        guest,
        stood_still,
        took: started.elapsed(),
    }
}

fn add_rows(summary: &mut Summary, kernel: &Kernel, finished: &Finished) {
    let row = format!("kernel {} ({})", kernel.name, kernel.version);
    if let Some(how) = &finished.stood_still {
        summary.remark(format!(
            "{}: the emulated machine stood still and was booted once more; at first: {how}",
            kernel.name
        ));
    }
    match &finished.guest {
        Ok(guest) => {
            summary.add(row, guest.report.tally(), finished.took);
            for scenario in guest.report.remarkable() {
                summary.remark(format!("{}: {}", kernel.name, scenario.in_short()));
            }
            if guest.report.tally().failed > 0 {
                summary.remark(format!("{}: see {}", kernel.name, guest.dir.display()));
            }
        }
        Err(error) => {
            summary.add(row, Tally::ONE_FAILED, finished.took);
            summary.remark(format!("{}: {error:#}", kernel.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_choice_means_the_whole_matrix() {
        let (specs, kernels) = select(&[]).unwrap();
        let names: Vec<_> = specs.iter().map(|spec| spec.name).collect();
        assert_eq!(names, ["5.10", "6.1", "6.12", "7.3"]);
        assert!(kernels.is_empty());
    }

    #[test]
    fn an_unknown_kernel_is_told_with_the_known_ones() {
        let error = select(&["4.19".to_owned()]).unwrap_err();
        assert!(
            error.to_string().contains("5.10, 6.1, 6.12, 7.3"),
            "{error}"
        );
        assert!(select(&["./no/such/image".to_owned()]).is_err());
    }
}
