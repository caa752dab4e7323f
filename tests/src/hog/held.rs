//! Ends of processes: one that is held back, and those of processes that are nobody's children.

use std::{io, time::Duration};

use anyhow::{Context, Result, ensure};

use super::Hog;
use crate::wait::wait_until;

const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A process that was killed, and that a tracer (the thread which made this) holds on its way out,
/// with all of its memory.
#[derive(Debug)]
pub struct Held {
    pid: libc::pid_t,
}

impl Held {
    /// Sends SIGKILL and waits until the process is at its exit.
    pub fn kill(hog: &Hog) -> Result<Self> {
        let pid = libc::pid_t::try_from(hog.pid()).context("the process id")?;
        trace(libc::PTRACE_SEIZE, pid, libc::PTRACE_O_TRACEEXIT).context("PTRACE_SEIZE")?;
        // SAFETY: a child that has not been waited for, so the id is still its own.
        let sent = unsafe { libc::kill(pid, libc::SIGKILL) };
        ensure!(sent == 0, "SIGKILL: {}", io::Error::last_os_error());
        wait_until(STOP_LIMIT, "the stop at the exit", || {
            let mut status = 0;
            // SAFETY: the kernel writes an integer to where it is told.
            let found = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
            ensure!(found >= 0, "waitpid: {}", io::Error::last_os_error());
            ensure!(
                found == 0 || libc::WIFSTOPPED(status),
                "process {pid} was not stopped on its way out (status {status:#x})"
            );
            Ok((found == pid).then_some(()))
        })?;
        Ok(Self { pid })
    }

    /// Lets the process die, and collects it.
    pub fn release(self, limit: Duration) -> Result<()> {
        trace(libc::PTRACE_CONT, self.pid, 0).context("PTRACE_CONT")?;
        wait_until(limit, "the end of a process", || gone(self.pid))
    }
}

fn trace(request: libc::c_uint, pid: libc::pid_t, data: libc::c_int) -> Result<()> {
    // SAFETY: these requests take numbers, no addresses.
    let done = unsafe { libc::ptrace(request, pid, 0, libc::c_long::from(data)) };
    ensure!(done == 0, "ptrace: {}", io::Error::last_os_error());
    Ok(())
}

/// Collects processes whose parent has died, so that they are init's, which is us.
pub fn reap(pids: &[u32], limit: Duration) -> Result<()> {
    for pid in pids {
        let pid = libc::pid_t::try_from(*pid).context("the process id")?;
        wait_until(limit, &format!("the end of process {pid}"), || gone(pid))?;
    }
    Ok(())
}

/// Whether a child has ended; one that is not ours yet has not.
fn gone(pid: libc::pid_t) -> Result<Option<()>> {
    let mut status = 0;
    // SAFETY: the kernel writes an integer to where it is told.
    let found = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    let ended = libc::WIFSIGNALED(status) || libc::WIFEXITED(status);
    Ok((found == pid && ended).then_some(()))
}
