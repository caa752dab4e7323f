//! Keeping the daemon small. The start takes tens of megabytes for a moment, and glibc keeps freed memory by default.
//! Without effect with another C library.

use std::ffi::c_void;

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// Sets one arena for all threads. Only the first arena gives memory at its end back, and the threads that load the
/// programs are gone a moment later. Called before any thread is made.
pub(crate) fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator; the only thread so far is this one.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back free memory, and code that only the start needed.
pub(crate) fn give_back() {
    let_go_of_code();
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the code that ran so far. Most of it runs once, at the start, and would stay resident for good. It stays in
/// the page cache, so code that runs again is mapped without reading a file.
fn let_go_of_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for (start, length) in maps.lines().filter_map(code) {
        // SAFETY: these are files' pages that can be executed and not written, so none of them differs from
        // its file, where the next access finds it again.
        let advised = unsafe { madvise(start as *mut c_void, length, Advice::LinuxDontNeed) };
        if let Err(error) = advised {
            debug!(%error, "code stays resident");
        }
    }
}

/// Where the code of a file is, if a line of `maps` describes such code.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next()? == "r-xp" && fields.nth(3)?.starts_with('/');
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    is_code.then(|| (start, end.saturating_sub(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go_of() {
        let line = "55d0a000-55d0c000 r-xp 00002000 fe:00 42   /usr/bin/oomwatch";
        assert_eq!(code(line), Some((0x55d0_a000, 0x2000)));
        for other in [
            "55d0a000-55d0c000 r--p 00002000 fe:00 42   /usr/bin/oomwatch",
            "55d0a000-55d0c000 rwxp 00002000 fe:00 42   /usr/bin/oomwatch",
            "7ffd1000-7ffd3000 r-xp 00000000 00:00 0    [vdso]",
            "7ffd1000-7ffd3000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn code_that_was_let_go_of_runs_on() {
        let_go_of_code();
        give_back();
    }
}
