//! Fire drills: end the process, or let it panic, where a test checks what that leaves. Debug builds only; a release
//! build has no drills.
//!
//! `OOMWATCH_DRILL=PLACE=kill`, `PLACE=panic` or `PLACE=fail` names the place and what happens there.

/// The process has come to this place. Tells whether the step there is to fail.
#[cfg(debug_assertions)]
pub(crate) fn reached(place: &str) -> bool {
    use rustix::process::{Signal, getpid, kill_process};
    let drill = std::env::var("OOMWATCH_DRILL").unwrap_or_default();
    let what = drill.split_once('=').filter(|(wanted, _)| *wanted == place);
    match what {
        Some((_, "kill")) => kill_process(getpid(), Signal::KILL).is_err(),
        Some((_, "panic")) => panic!("a drill at {place}"),
        Some((_, "fail")) => true,
        _ => false,
    }
}

/// The process has come to this place, and goes on.
#[cfg(not(debug_assertions))]
pub(crate) const fn reached(_place: &str) -> bool {
    false
}
