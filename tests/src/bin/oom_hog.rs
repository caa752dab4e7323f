//! The memory eater for tests on the host: `oom-hog hog [OPTIONS]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|word| word != "hog") {
        eprintln!("usage: oom-hog hog [--comm NAME] [--threads N] [--oom-score-adj N]");
        return ExitCode::from(2);
    }
    match oomwatch_tests::hog::body::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oom-hog: {error:#}");
            ExitCode::FAILURE
        }
    }
}
