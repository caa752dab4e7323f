//! The only process a test machine boots: runs the scenarios as PID 1 and powers off. In a machine
//! with a root image it becomes that one's init, and runs its scenarios as a service.
//!
//! Outside such a machine it is the memory eater (`vm-guest hog …`) and nothing else.

use std::process::ExitCode;

use oomwatch_tests::{guest, hog};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::run_as_init();
    }
    let mut arguments = std::env::args_os().skip(1);
    let word = arguments.next().unwrap_or_default();
    let done = match word.to_str() {
        Some("hog") => hog::body::run(arguments),
        Some("scenarios") => guest::run_as_service(),
        _ => {
            eprintln!(
                "vm-guest mounts file systems and powers the machine off: it runs as PID 1 only"
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm-guest {}: {error:#}", word.display());
            ExitCode::FAILURE
        }
    }
}
