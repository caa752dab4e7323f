//! Keeping the daemon small: the start takes tens of megabytes for a moment, and glibc keeps
//! what is freed unless told otherwise. Of no effect with another C library.

/// One arena for all threads: only the first arena gives back the memory at its end, and the
/// programs are loaded by threads that are gone a moment later. Called before any thread is made.
pub(crate) fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator; the only thread so far is this one.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what is free.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
