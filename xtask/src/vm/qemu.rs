//! One virtual machine: the QEMU command line, and the guest's lines until it ends.
//!
//! The guest's second serial line is QEMU's standard output, so results are read as they come;
//! the first one, the kernel's console, goes to a file. A machine never outlives its time limit
//! nor the [`Machine`] that holds it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    ops::ControlFlow,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::process;

/// How long a guest may take to power off after it has said that it is done.
const POWER_OFF_GRACE: Duration = Duration::from_secs(15);

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    /// Emulation: ten times slower, and works everywhere.
    Tcg,
}

impl Accel {
    /// The word for it on QEMU's command line, in the environment and in the cache.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    const fn options(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // One thread for all CPUs of a machine: with a thread each, QEMU 7.2 now and then
            // loses a machine while its kernel patches its own code, and is no quicker on a host
            // with two CPUs and two machines. Without cx16: cmpxchg16b is emulated wrongly with
            // several threads, should anyone ask for them.
            Self::Tcg => ["-accel", "tcg,thread=single", "-cpu", "qemu64,-cx16"],
        }
    }
}

/// How a machine ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// QEMU ended by itself: the guest has powered off, or QEMU has failed.
    Exited(ExitStatus),
    /// It was stopped, being done or out of time.
    Stopped,
    /// It was stopped because nothing had come from it for [`Limits::silence`].
    Silent,
}

/// How long a machine may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) total: Duration,
    /// Between two lines.
    pub(crate) silence: Duration,
}

/// The command line that all machines share. `kernel_arguments` follow the usual ones.
pub(crate) fn command(accel: Accel, kernel: &Path, kernel_arguments: &str) -> Command {
    // setpriv becomes QEMU, and has the kernel end it with us should we be killed.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args(accel.options())
        .args(["-smp", "2", "-nic", "none", "-no-reboot"])
        .args(["-display", "none", "-monitor", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-append")
        .arg(format!("console=ttyS0 panic=-1 {kernel_arguments}"));
    qemu
}

/// Gives the machine a disk. What it writes there is thrown away at its end.
pub(crate) fn disk(qemu: &mut Command, image: &Path) {
    // QEMU takes a comma in a value when it is doubled.
    let image = image.display().to_string().replace(',', ",,");
    qemu.arg("-drive")
        .arg(format!("file={image},if=virtio,format=raw,snapshot=on"));
}

/// Connects the next serial line to QEMU's standard output.
pub(crate) fn serial_to_stdout(qemu: &mut Command) {
    qemu.args(["-chardev", "stdio,id=out,signal=off"]);
    qemu.args(["-serial", "chardev:out"]);
}

/// A running QEMU. Dropping it ends it.
pub(crate) struct Machine {
    child: Child,
    lines: Receiver<String>,
}

impl Machine {
    /// Starts QEMU; its complaints go to `log`.
    pub(crate) fn start(mut qemu: Command, log: File) -> Result<Self> {
        let shown = process::describe(&qemu);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = qemu
            .spawn()
            .with_context(|| format!("starting `{shown}`"))?;
        let stdout = child.stdout.take().context("QEMU has no standard output")?;
        Ok(Self {
            child,
            lines: read_lines(stdout),
        })
    }

    /// Hands every line to `on_line` until QEMU ends or one of `limits` is over. `Break` means
    /// that nothing more is expected: the guest then has a short while to power off.
    pub(crate) fn watch(
        mut self,
        limits: Limits,
        mut on_line: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Ending> {
        let mut deadline = Instant::now() + limits.total;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(limits.silence)) {
                Ok(line) => {
                    if on_line(&line).is_break() {
                        deadline = deadline.min(Instant::now() + POWER_OFF_GRACE);
                    }
                }
                Err(RecvTimeoutError::Timeout) if left > limits.silence => {
                    return Ok(Ending::Silent);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(Ending::Stopped),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("waiting for QEMU")?;
                    return Ok(Ending::Exited(status));
                }
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads in a thread of its own, because a pipe cannot be read with a time limit. The channel is
/// unbounded: a guest's results are some dozens of lines.
fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(program: &str, args: &[&str]) -> Machine {
        let mut command = Command::new(program);
        command.args(args);
        Machine::start(command, tempfile::tempfile().unwrap()).unwrap()
    }

    fn limits(total_ms: u64, silence_ms: u64) -> Limits {
        Limits {
            total: Duration::from_millis(total_ms),
            silence: Duration::from_millis(silence_ms),
        }
    }

    #[test]
    fn a_comma_in_the_name_of_an_image_stays_in_it() {
        let mut qemu = Command::new("qemu");
        disk(&mut qemu, Path::new("/a,b/root.img"));
        let shown = process::describe(&qemu);
        assert!(shown.contains("file=/a,,b/root.img,if=virtio"), "{shown}");
    }

    #[test]
    fn lines_come_through_until_the_end() {
        let mut seen = Vec::new();
        let ending = machine("printf", &["a\\r\\nb"]).watch(limits(10_000, 10_000), |line| {
            seen.push(line.to_owned());
            ControlFlow::Continue(())
        });
        assert!(matches!(ending.unwrap(), Ending::Exited(status) if status.success()));
        assert_eq!(seen, ["a\r", "b"]);
    }

    #[test]
    fn a_machine_out_of_time_is_stopped() {
        let started = Instant::now();
        let ending =
            machine("sleep", &["60"]).watch(limits(50, 60_000), |_| ControlFlow::Continue(()));
        assert!(matches!(ending.unwrap(), Ending::Stopped));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_machine_that_says_nothing_is_stopped_early() {
        let started = Instant::now();
        let ending =
            machine("sleep", &["60"]).watch(limits(60_000, 50), |_| ControlFlow::Continue(()));
        assert!(matches!(ending.unwrap(), Ending::Silent));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
