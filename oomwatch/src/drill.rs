//! Fire drills: ends the process, or lets it panic, where a test wants to know what that leaves. Debug builds
//! only; a release build has none of it.
//!
//! `OOMWATCH_DRILL=PLACE=kill` or `PLACE=panic` names the place and what happens there.

/// The process has come to this place.
#[cfg(debug_assertions)]
pub(crate) fn reached(place: &str) {
    let Ok(drill) = std::env::var("OOMWATCH_DRILL") else {
        return;
    };
    match drill.split_once('=') {
        Some((wanted, "kill")) if wanted == place => {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        Some((wanted, "panic")) if wanted == place => panic!("a drill at {place}"),
        _ => {}
    }
}

/// The process has come to this place.
#[cfg(not(debug_assertions))]
pub(crate) fn reached(_place: &str) {}
