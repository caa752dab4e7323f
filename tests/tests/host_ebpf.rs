//! A real kill on the machine the tests run on, through the real eBPF probe.
//!
//! See `oomwatch_tests::host::Layout` for how that is made where the memory controller is on
//! cgroup v1.

use std::{path::Path, time::Duration};

use oomwatch_tests::{daemon::Daemon, event::Event, host};

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_real_kill_is_reported_for_the_registered_container() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_real_kill_is_reported_for_the_registered_container";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let (web, other) = (
        layout.limited("web").unwrap(),
        layout.limited("other").unwrap(),
    );
    let registration = format!("web-1={}", web.identity().path().display());
    let arguments = ["--discover", "none", "--container", &registration];
    let daemon = Daemon::start(&oomwatch, &arguments).unwrap();

    let stranger = other
        .kill_a_hog(Path::new(HOG), "stranger", other.identity())
        .unwrap();
    let victim = web
        .kill_a_hog(Path::new(HOG), "web-hog", web.identity())
        .unwrap();
    let of = |pid| move |event: &Event| event.victim_pid().is_ok_and(|found| found == pid);
    let named = daemon
        .wait_for_event(LIMIT, "for web-1", of(victim))
        .unwrap();
    let unnamed = daemon
        .wait_for_event(LIMIT, "for nobody", of(stranger))
        .unwrap();
    let output = daemon.stop().unwrap();

    for event in [&named, &unnamed] {
        assert_eq!(event.kind().unwrap(), "kill", "{event}");
        assert_eq!(event.count().unwrap(), 1, "{event}");
        assert!(event.has_evidence("tracepoint").unwrap(), "{event}");
    }
    assert_eq!(
        named.container_id().unwrap().as_deref(),
        Some("web-1"),
        "{named}"
    );
    assert_eq!(named.attribution().unwrap(), "exact", "{named}");
    assert_eq!(named.text("victim.comm").unwrap(), "web-hog", "{named}");
    assert_eq!(
        named.victim_cgroup_id().unwrap(),
        web.identity().id().unwrap(),
        "{named}"
    );
    assert_eq!(unnamed.container_id().unwrap(), None, "{unnamed}");
    assert_eq!(unnamed.attribution().unwrap(), "unregistered", "{unnamed}");
    assert_eq!(
        unnamed.victim_cgroup_id().unwrap(),
        other.identity().id().unwrap(),
        "{unnamed}"
    );

    // Others may be killed on this machine too, so only our own are counted.
    for pid in [victim, stranger] {
        let reports = output.events.iter().filter(|event| of(pid)(event)).count();
        assert_eq!(reports, 1, "reports of {pid}: {:?}", output.events);
    }
    assert!(output.malformed.is_empty(), "{:?}", output.malformed);
}

#[test]
fn a_cgroup_made_after_the_start_is_discovered_by_its_path() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_cgroup_made_after_the_start_is_discovered_by_its_path";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let daemon = Daemon::start(&oomwatch, &["--discover", "cgroup"]).unwrap();
    let id = format!(
        "{:064x}",
        0xfeed_0000_0000_u64 + u64::from(std::process::id())
    );
    let limited = layout.limited("discover").unwrap();
    let container = limited.below(&format!("docker-{id}.scope")).unwrap();

    let victim = limited
        .kill_a_hog(Path::new(HOG), "docker-hog", &container)
        .unwrap();
    let event = daemon
        .wait_for_event(LIMIT, "for the new container", |event| {
            event.victim_pid().is_ok_and(|pid| pid == victim)
        })
        .unwrap();
    daemon.stop().unwrap();
    assert_eq!(event.container_id().unwrap(), Some(id), "{event}");
    assert_eq!(
        event.victim_cgroup_id().unwrap(),
        container.id().unwrap(),
        "{event}"
    );
}

/// The watcher that this one replaces has an inotify instance and a goroutine for each container,
/// and gives neither back.
#[test]
fn a_container_costs_no_descriptor() {
    let oomwatch = host::oomwatch().unwrap();
    let test = "a_container_costs_no_descriptor";
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let daemon = Daemon::start(&oomwatch, &["--discover", "cgroup"]).unwrap();
    let descriptors = || {
        let all = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
        all.unwrap().count()
    };
    let before = descriptors();
    let limited = layout.limited("descriptors").unwrap();
    let base = 0xfade_0000_0000_u64 + (u64::from(std::process::id()) << 8);
    let containers: Vec<_> = (0..100)
        .map(|number| {
            let name = format!("docker-{:064x}.scope", base + number);
            limited.below(&name).unwrap()
        })
        .collect();
    // A kill in the last one tells that all were seen.
    let last = containers.last().unwrap();
    let victim = limited
        .kill_a_hog(Path::new(HOG), "last-hog", last)
        .unwrap();
    let event = daemon
        .wait_for_event(LIMIT, "for the last container", |event| {
            event.victim_pid().is_ok_and(|pid| pid == victim)
        })
        .unwrap();
    assert!(event.container_id().unwrap().is_some(), "{event}");
    // The start may still have had one open.
    let after = descriptors();
    assert!(after <= before, "{before} descriptors became {after}");
    daemon.stop().unwrap();
}
