//! Copies of a hog: forked, not started anew, so that thousands of them fit into a small machine.
//!
//! Only for a hog of one thread: what another thread held when it was forked would be held for
//! ever in the copy.

use std::{
    io::{PipeReader, PipeWriter, Read, pipe},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, bail, ensure};

use super::body::eat;

/// Stack of a process that shares its parent's memory: it does nothing but sleep.
const STACK_BYTES: usize = 64 * 1024;

/// Copies that wait for [`Brood::release`]; killed on drop.
#[derive(Debug)]
pub(super) struct Brood {
    children: Vec<libc::pid_t>,
    gate: Option<PipeWriter>,
}

impl Brood {
    /// Forks `number` processes. Once released, each allocates `bytes` and ends; with 0 bytes
    /// they sleep until they are killed.
    pub(super) fn fork(number: u32, bytes: u64) -> Result<Self> {
        let (mut closed, gate) = pipe().context("making a pipe")?;
        let mut brood = Self {
            children: Vec::new(),
            gate: None,
        };
        for _ in 0..number {
            // SAFETY: this process has one thread, so the copy finds every lock free.
            match unsafe { libc::fork() } {
                -1 => return Err(std::io::Error::last_os_error()).context("forking"),
                0 => child(&mut closed, &gate, bytes),
                pid => brood.children.push(pid),
            }
        }
        brood.gate = Some(gate);
        Ok(brood)
    }

    /// The copies' process ids.
    pub(super) fn pids(&self) -> &[libc::pid_t] {
        &self.children
    }

    /// Lets all copies allocate, waits for their ends, and tells which were killed.
    pub(super) fn release(mut self) -> Result<Vec<libc::pid_t>> {
        drop(self.gate.take());
        let mut killed = Vec::new();
        for pid in std::mem::take(&mut self.children) {
            let mut status = 0;
            // SAFETY: the kernel writes an integer to where it is told.
            let found = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            ensure!(found == pid, "waiting for {pid} gave {found}");
            if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL {
                killed.push(pid);
            }
        }
        Ok(killed)
    }
}

impl Drop for Brood {
    fn drop(&mut self) {
        for &pid in &self.children {
            // SAFETY: a child of ours that has not been waited for, so the id is still its own.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// What a copy does. It keeps both ends of the pipe open where it shall sleep: the parent's death
/// would end it before the kernel gets to kill it.
fn child(closed: &mut PipeReader, gate: &PipeWriter, bytes: u64) -> ! {
    if bytes == 0 {
        sleep_for_ever();
    }
    // SAFETY: this copy's own descriptor, which nothing in it uses any more.
    unsafe { libc::close(gate.as_raw_fd()) };
    // The end of the pipe, or an error: either way it is time.
    let _ = closed.read(&mut [0]);
    std::hint::black_box(eat(bytes));
    // SAFETY: ends the process; what the parent has at exit is not for the copy to do.
    unsafe { libc::_exit(0) }
}

fn sleep_for_ever() -> ! {
    loop {
        // SAFETY: needs nothing.
        unsafe { libc::pause() };
    }
}

/// Starts a process that shares this one's memory without being a thread of it, as `vfork` does
/// for a moment. Its stack is never given back.
pub(super) fn share_memory() -> Result<libc::pid_t> {
    extern "C" fn body(_: *mut libc::c_void) -> libc::c_int {
        sleep_for_ever()
    }
    let stack = vec![0_u128; STACK_BYTES / size_of::<u128>()].leak();
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is the new process's alone, aligned, and grows down from its end. It only
    // sleeps, so it touches nothing that this process uses.
    let pid = unsafe {
        libc::clone(
            body,
            top.cast(),
            libc::CLONE_VM | libc::SIGCHLD,
            std::ptr::null_mut(),
        )
    };
    if pid == -1 {
        bail!("clone: {}", std::io::Error::last_os_error());
    }
    Ok(pid)
}
