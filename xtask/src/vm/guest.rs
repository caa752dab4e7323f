//! One kernel's run: artifacts, the machine, its lines on the terminal, its report.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use super::qemu::{self, Accel, Ending, Limits, Machine};
use super::results::{Report, Show};
use crate::paths;

/// Lines of the kernel's console to show for a failed guest.
const CONSOLE_TAIL: usize = 60;

/// Warnings and worse on the console; and a CPU stuck for a minute ends the guest with a trace,
/// where it would otherwise sit there until the time limit. (The kernel's own limit of 20 s is
/// too short under emulation on a busy host: it panics after twice the threshold.) And a log with
/// room for thousands of kills: scenarios hold it against what they did themselves.
const KERNEL_ARGUMENTS: &str = "loglevel=5 softlockup_panic=1 watchdog_thresh=30 log_buf_len=4M";

/// What all guests of a run have in common.
pub(crate) struct Boot {
    pub(crate) accel: Accel,
    pub(crate) initramfs: PathBuf,
    /// Each kernel gets a directory in here.
    pub(crate) artifacts: PathBuf,
    /// Substring of the scenarios to run; empty for all.
    pub(crate) filter: String,
    /// Of one guest, in wall-clock time.
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
    /// Boots `kernel` and waits for the guest's end.
    pub(crate) fn run(&self, kernel: &Kernel) -> Result<Guest> {
        let dir = self.artifacts.join(&kernel.name);
        paths::fresh_dir(&dir)?;
        let console = dir.join("console.log");
        let log = create(&dir.join("qemu.log"))?;
        let accel = self.accel.name();
        println!("[{}] booting {} with {accel}", kernel.name, kernel.version);

        let mut raw = String::new();
        let mut report = Report::default();
        let machine = Machine::start(self.command(kernel, &console), log)?;
        let ending = machine.watch(self.limits, |line| {
            raw.push_str(line.trim_end());
            raw.push('\n');
            print(&kernel.name, report.accept(line));
            if report.done {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        paths::write(&dir.join("results.jsonl"), &raw)?;
        report.finish(&self.describe(&ending));
        if report.tally().failed > 0 {
            print_tail(&kernel.name, &dir)?;
        }
        Ok(Guest {
            report,
            ending,
            dir,
        })
    }

    fn command(&self, kernel: &Kernel, console: &Path) -> std::process::Command {
        let mut arguments = KERNEL_ARGUMENTS.to_owned();
        if !self.filter.is_empty() {
            arguments.push_str(" oomwatch.filter=");
            arguments.push_str(&self.filter);
        }
        let mut qemu = qemu::command(self.accel, &kernel.image, &arguments);
        qemu.arg("-initrd").arg(&self.initramfs);
        qemu.arg("-serial")
            .arg(format!("file:{}", console.display()));
        qemu::serial_to_stdout(&mut qemu);
        qemu
    }

    fn describe(&self, ending: &Ending) -> String {
        match ending {
            Ending::Exited(status) => format!("QEMU ended ({status})"),
            Ending::Stopped => format!("stopped after {} s", self.limits.total.as_secs()),
            Ending::Silent => {
                let silence = self.limits.silence.as_secs();
                format!("stopped after {silence} s without a sign of life")
            }
        }
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("creating {}", path.display()))
}

/// Prints with one call per message, because several guests print at a time.
fn print(kernel: &str, show: Show) {
    match show {
        Show::Text(text) => println!("[{kernel}] {text}"),
        Show::Nothing => {}
    }
}

fn print_tail(kernel: &str, dir: &Path) -> Result<()> {
    for name in ["qemu.log", "console.log"] {
        let path = dir.join(name);
        // The console may have bytes of a firmware's terminal play, and may not exist when QEMU
        // refused to start.
        let bytes = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let tail = last_lines(&text, CONSOLE_TAIL);
        if !tail.is_empty() {
            println!("[{kernel}] end of {}:\n{tail}", path.display());
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
