//! Hierarchies as others may make them, and a daemon that has few descriptors to look at them.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use oomwatch_tests::{
    cgroup::Chain,
    daemon::{Daemon, Output},
    host::{self, Limited},
};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(30);
/// Enough for the daemon, and less than two for each of sixty levels.
const FEW: &str = "110";

/// A small ring overflows while thousands of cgroups are made, and a record of another test may be among the lost
/// ones. So these tests run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A kill in the lowest cgroup is told of the container at the top.
fn kill_in_the_deepest(daemon: &Daemon, limited: &Limited, chain: &Chain) -> Result<()> {
    let join = |pid| chain.add(pid);
    let victim = limited.kill_a_hog_that(Path::new(HOG), "deep-hog", join)?;
    let event = daemon.wait_for_event(LIMIT, "for the deepest cgroup", |event| {
        event.victim_pid().is_ok_and(|pid| pid == victim)
    })?;
    assert_eq!(event.kind()?, "kill", "{event}");
    assert_eq!(event.container_id()?.as_deref(), Some("top"), "{event}");
    assert_eq!(event.attribution()?, "ancestor", "{event}");
    assert_eq!(event.victim_cgroup_id()?, chain.id()?, "{event}");
    Ok(())
}

/// There was one open directory for each level, and no start where they did not suffice.
#[test]
fn nested_cgroups_take_no_descriptors() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let oomwatch = host::oomwatch().unwrap();
    let Some(layout) = host::layout_or_skip("nested_cgroups_take_no_descriptors", &oomwatch) else {
        return;
    };
    let limited = layout.limited("nested").unwrap();
    let chain = Chain::create(limited.identity().path(), 60).unwrap();
    let registration = format!("top={}", limited.identity().path().display());
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n \"$0\" && exec \"$@\"", FEW])
        .arg(&oomwatch)
        .args(["--log-format", "json", "run", "--output", "json"])
        .args(["--discover", "none", "--container", &registration]);
    let daemon = Daemon::spawn(command).unwrap();
    kill_in_the_deepest(&daemon, &limited, &chain).unwrap();
    daemon.stop().unwrap();
}

/// A user with a delegated cgroup can make them. The scan used some of its stack for each level, and one that
/// is made while the daemon runs had none left at some 5,700. To make more takes the kernel minutes.
#[test]
fn thousands_of_nested_cgroups_are_scanned() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let oomwatch = host::oomwatch().unwrap();
    let test = "thousands_of_nested_cgroups_are_scanned";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited("nested-deep").unwrap();
    let chain = Chain::create(limited.identity().path(), 6_000).unwrap();
    let registration = format!("top={}", limited.identity().path().display());
    let arguments = ["--discover", "cgroup", "--container", &registration];
    let daemon = Daemon::start(&oomwatch, &arguments).unwrap();
    kill_in_the_deepest(&daemon, &limited, &chain).unwrap();
    daemon.stop().unwrap();
}

/// `scan-fails-once`: it was only made again when records were lost again.
#[test]
fn a_scan_that_has_no_descriptor_is_made_again() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_scan_that_has_no_descriptor_is_made_again";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let limited = layout.limited("scan-fails").unwrap();
    let arguments = [
        "--discover",
        "cgroup",
        "--tier",
        "btf",
        "--ring-size",
        "4096",
    ];
    let daemon = Daemon::start(&oomwatch, &arguments).unwrap();
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    let id = format!(
        "{:064x}",
        0xfa11_0000_0000_u64 + u64::from(std::process::id())
    );

    // It reads nothing while the ring fills up, so the last record finds no room.
    kill_process(pid, Signal::STOP).unwrap();
    let fill: Vec<_> = (0..200)
        .map(|number| limited.below(&format!("fill-{number}")).unwrap())
        .collect();
    let container = limited.below(&format!("docker-{id}.scope")).unwrap();
    let enough = getrlimit(Resource::Nofile);
    let none = Rlimit {
        current: Some(0),
        ..enough
    };
    prlimit(Some(pid), Resource::Nofile, none).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let says = |output: &Output, message: &str| {
        let mut lines = output.errors.iter();
        lines.any(|line| line.contains(message))
    };
    let failed = |output: &Output| says(output, "cannot scan the cgroup hierarchy");
    assert!(
        daemon.wait_for_output(LIMIT, failed),
        "{:?}",
        daemon.so_far().errors
    );
    prlimit(Some(pid), Resource::Nofile, enough).unwrap();

    // It is registered by then, or claims the kill as soon as it is.
    let victim = limited
        .kill_a_hog(Path::new(HOG), "lost-hog", &container)
        .unwrap();
    daemon
        .wait_for_event(LIMIT, "for the container whose record was lost", |event| {
            event.victim_pid().is_ok_and(|pid| pid == victim)
                && event
                    .container_id()
                    .is_ok_and(|found| found.as_ref() == Some(&id))
        })
        .unwrap();
    let output = daemon.stop().unwrap();
    assert!(
        says(&output, "the ring dropped records"),
        "{:?}",
        output.errors
    );
    drop(fill);
}
