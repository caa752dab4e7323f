//! One machine's run: artifacts, the machine, its lines on the terminal, its report.

use std::{
    fs::{self, File},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    plan::Trial,
    qemu::{self, Accel, Ending, Limits, Machine},
    results::{Report, Show},
};
use crate::paths;

/// Lines of the kernel's console to show for a failed guest.
const CONSOLE_TAIL: usize = 60;

/// Warnings and worse on the console; and a CPU stuck for a minute ends the guest with a trace,
/// where it would otherwise sit there until the time limit. (The kernel's own limit of 20 s is
/// too short under emulation on a busy host: it panics after twice the threshold.) And a log with
/// room for thousands of kills: scenarios hold it against what they did themselves.
const KERNEL_ARGUMENTS: &str = "loglevel=5 softlockup_panic=1 watchdog_thresh=30 log_buf_len=4M";

/// For a root image: Docker asks for a profile where the kernel has AppArmor, and the images have
/// nothing to load one with.
const IMAGE_ARGUMENTS: &str = "apparmor=0";

/// What a guest with container runtimes gets for each round: one container of every runtime.
const ROUND_LIMIT: Duration = Duration::from_secs(60);

/// What all guests of a run have in common.
pub(crate) struct Boot {
    pub(crate) accel: Accel,
    /// Each machine gets a directory in here.
    pub(crate) artifacts: PathBuf,
    /// Substring of the scenarios to run; empty for all.
    pub(crate) filter: String,
    /// How often scenarios with container runtimes repeat what needs repeating.
    pub(crate) rounds: u32,
    /// Of one guest, in wall-clock time, where it repeats nothing.
    pub(crate) limits: Limits,
}

/// A guest that has ended.
pub(crate) struct Guest {
    pub(crate) report: Report,
    ending: Ending,
    /// Where its console and results are kept.
    pub(crate) dir: PathBuf,
}

impl Guest {
    /// Whether the machine itself stood still, and not a scenario: even its sign of life stopped,
    /// or the kernel ended it for a CPU that was stuck.
    pub(crate) fn stood_still(&self) -> bool {
        let console = fs::read(self.dir.join("console.log")).unwrap_or_default();
        let silent = matches!(self.ending, Ending::Silent);
        self.report.ended_early()
            && (silent || String::from_utf8_lossy(&console).contains("soft lockup"))
    }
}

impl Boot {
    /// Boots a machine and waits for the guest's end.
    pub(crate) fn run(&self, trial: &Trial) -> Result<Guest> {
        let (name, kernel) = (&trial.name, &trial.kernel);
        let dir = self.artifacts.join(name);
        paths::fresh_dir(&dir)?;
        let console = dir.join("console.log");
        let log = create(&dir.join("qemu.log"))?;
        let accel = self.accel.name();
        println!("[{name}] booting {} with {accel}", kernel.version);

        let mut raw = String::new();
        let mut report = Report::default();
        let machine = Machine::start(self.command(trial, &console), log)?;
        let limits = self.limits(trial);
        let ending = machine.watch(limits, |line| {
            raw.push_str(line.trim_end());
            raw.push('\n');
            print(name, report.accept(line));
            if report.done {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        paths::write(&dir.join("results.jsonl"), &raw)?;
        report.finish(&describe(&ending, limits));
        if report.tally().failed > 0 {
            print_tail(name, &dir)?;
        }
        Ok(Guest {
            report,
            ending,
            dir,
        })
    }

    fn command(&self, trial: &Trial, console: &Path) -> std::process::Command {
        let mut arguments = KERNEL_ARGUMENTS.to_owned();
        if !self.filter.is_empty() {
            arguments.push_str(" oomwatch.filter=");
            arguments.push_str(&self.filter);
        }
        if let Some(image) = &trial.image {
            let rounds = self.rounds;
            let image = image.recipe.name;
            arguments.push_str(&format!(
                " {IMAGE_ARGUMENTS} oomwatch.image={image} oomwatch.rounds={rounds}"
            ));
        }
        let mut qemu = qemu::command(self.accel, &trial.kernel.image, &arguments);
        qemu.arg("-initrd").arg(&trial.initramfs);
        qemu.args(["-m", trial.memory]);
        if let Some(image) = &trial.image {
            qemu::disk(&mut qemu, &image.path);
        }
        qemu.arg("-serial")
            .arg(format!("file:{}", console.display()));
        qemu::serial_to_stdout(&mut qemu);
        qemu
    }

    fn limits(&self, trial: &Trial) -> Limits {
        let rounds = if trial.image.is_some() {
            self.rounds
        } else {
            0
        };
        Limits {
            total: self.limits.total + ROUND_LIMIT * rounds,
            ..self.limits
        }
    }
}

fn describe(ending: &Ending, limits: Limits) -> String {
    match ending {
        Ending::Exited(status) => format!("QEMU ended ({status})"),
        Ending::Stopped => format!("stopped after {} s", limits.total.as_secs()),
        Ending::Silent => {
            let silence = limits.silence.as_secs();
            format!("stopped after {silence} s without a sign of life")
        }
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("creating {}", path.display()))
}

/// Prints with one call per message, because several guests print at a time.
fn print(machine: &str, show: Show) {
    match show {
        Show::Text(text) => println!("[{machine}] {text}"),
        Show::Nothing => {}
    }
}

fn print_tail(machine: &str, dir: &Path) -> Result<()> {
    for name in ["qemu.log", "console.log"] {
        let path = dir.join(name);
        // The console may have bytes of a firmware's terminal play, and may not exist when QEMU
        // refused to start.
        let bytes = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let tail = last_lines(&text, CONSOLE_TAIL);
        if !tail.is_empty() {
            println!("[{machine}] end of {}:\n{tail}", path.display());
        }
    }
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    let skip = lines.len().saturating_sub(count);
    let tail: Vec<_> = lines.into_iter().skip(skip).collect();
    tail.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_is_the_end_and_no_more() {
        assert_eq!(last_lines("a\r\nb\r\nc\r\n", 2), "b\nc");
        assert_eq!(last_lines("a\n", 60), "a");
        assert_eq!(last_lines("", 60), "");
    }
}
