//! The only process a test machine boots: runs the scenarios as PID 1 and powers off.
//!
//! Outside such a machine it is the memory eater (`vm-guest hog …`) and nothing else.

use std::process::ExitCode;

use oomwatch_tests::{guest, hog};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::run_as_init();
    }
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|word| word != "hog") {
        eprintln!("vm-guest mounts file systems and powers the machine off: it runs as PID 1 only");
        return ExitCode::from(2);
    }
    match hog::body::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm-guest hog: {error:#}");
            ExitCode::FAILURE
        }
    }
}
