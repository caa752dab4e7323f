//! The page in a real browser, with names that try to break it.

use std::{io::Write as _, process::Command, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use super::{
    super::fake::{Fake, Served},
    *,
};
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    event::{Kind, Limit, OomEvent, Scope, Trigger, Victim, fixture::event_at},
    id::{CgroupId, ContainerId},
};

/// Runs, unless a name is text only; and then stands in the page as it is here.
const HOSTILE: &str =
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&amp;";

const DEADLINE: Duration = Duration::from_secs(120);

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

#[test]
fn the_policy_has_the_hashes_of_what_the_page_has() {
    for part in [include_str!("page.css"), include_str!("page.js")] {
        let hash = hash(part);
        assert!(POLICY.contains(&hash), "{hash} is not in the policy");
        assert!(!part.contains("</"), "it would end the element early");
    }
}

#[test]
fn the_page_asks_nobody_else_and_makes_no_markup_of_text() {
    let without_namespace = PAGE.replace("http://www.w3.org/2000/svg", "");
    assert!(!without_namespace.contains("//www."));
    for never in [
        "http:",
        "https:",
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
    ] {
        assert!(!without_namespace.contains(never), "{never}");
    }
}

fn hostile_event(number: u64) -> OomEvent {
    // Now, as the page's time line ends there.
    let now = jiff::Timestamp::now().as_nanosecond();
    let details = ContainerDetails {
        name: Some(HOSTILE.to_owned()),
        namespace: Some(format!("{HOSTILE}{}", number % 3)),
        pod: Some("a".repeat(200)),
        ..ContainerDetails::default()
    };
    OomEvent {
        id: format!("boot-{number}"),
        unix_time_ns: now - i128::from(number) * 7_000_000_000,
        boottime_ns: 1_000_000_000_000 - number * 7_000_000_000,
        kind: if number.is_multiple_of(4) {
            Kind::CounterOnly
        } else {
            Kind::Kill
        },
        scope: if number.is_multiple_of(2) {
            Scope::Pod
        } else {
            Scope::Container
        },
        victim: Victim {
            pid: Some(4711),
            comm: Some("<b>\"'&\u{5d0}".to_owned()),
            cgroup_path: Some(format!("/kubepods.slice/{HOSTILE}")),
            anon_rss_bytes: Some(200 << 20),
            ..Victim::default()
        },
        trigger: Trigger {
            pid: Some(99),
            comm: Some("<i>".to_owned()),
            ..Trigger::default()
        },
        limit: Limit {
            max_bytes: Some(256 << 20),
            usage_bytes: Some((100 + number * 10) << 20),
            ..Limit::default()
        },
        container: Some(Arc::new(Container {
            id: ContainerId::new(HOSTILE).unwrap(),
            cgroup_id: CgroupId(7),
            identity: Identity::Manual,
            inside: None,
            details,
        })),
        ..event_at(number)
    }
}

#[tokio::test]
async fn a_browser_shows_hostile_names_as_text() {
    const NAME: &str = "a_browser_shows_hostile_names_as_text";
    if Command::new("chromium").arg("--version").output().is_err() {
        return skip(
            NAME,
            "chromium is not installed: `cargo xtask setup` does that",
        );
    }
    let fake = Fake::default();
    let details = ContainerDetails {
        name: Some(HOSTILE.to_owned()),
        ..ContainerDetails::default()
    };
    let place = ("/sys/fs/cgroup/<u>".into(), details);
    fake.containers
        .lock()
        .unwrap()
        .insert(HOSTILE.to_owned(), place);
    let mut asked = fake.asked.subscribe();
    let mut served = Served::start(fake).await;
    for number in 7..=12 {
        served.publish(hostile_event(number)).await;
    }
    let url = format!("http://{}/", served.address);
    let profile = served.dir.path().join("profile");
    let dom = tokio::task::spawn_blocking(move || dump(&url, &profile));
    // The page asks at first, and again when its stream is open. From then on it receives events as they happen.
    let opened = asked.wait_for(|&asked| asked >= 2);
    tokio::time::timeout(DEADLINE, opened)
        .await
        .unwrap()
        .unwrap();
    for number in 1..=6 {
        served.publish(hostile_event(number)).await;
    }
    // The browser's own time stands still while a stream is open.
    let Served {
        publisher,
        serving: _serving,
        ..
    } = served;
    drop(publisher);
    let dom = dom.await.unwrap();

    assert!(
        dom.contains("<title>oomwatch</title>"),
        "a script ran:\n{dom}"
    );
    let escaped = "&lt;img src=x onerror=\"document.title='owned'\"&gt;&lt;script&gt;";
    // Events, totals, and containers: all of them are drawn.
    assert!(dom.matches(escaped).count() > 12, "{dom}");
    assert!(!dom.contains("<img") && !dom.contains("<b>\""), "{dom}");
    assert_eq!(dom.matches("<script").count(), 1, "the page's own:\n{dom}");
    for shown in [
        "node-1",
        "1 container",
        "&lt;b&gt;\"'&amp;\u{5d0}[4711]",
        "MiB of 256 MiB",
        "<ellipse",
    ] {
        assert!(dom.contains(shown), "no {shown}:\n{dom}");
    }
}

/// The page's elements once it has drawn its data.
fn dump(url: &str, profile: &std::path::Path) -> String {
    // Without a sandbox of its own, for tests run as root; nothing but this page is opened.
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            "120",
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
        ])
        .args([
            "--disable-background-networking",
            "--no-first-run",
            "--virtual-time-budget=3000",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--dump-dom", url])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// As `oomwatch_tests::host::skip`: the summary of `cargo xtask test` counts it as skipped.
fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
    if let Some(path) = std::env::var_os("OOMWATCH_SKIP_LOG") {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path);
        writeln!(log.unwrap(), "{test}\t{reason}").unwrap();
    }
}
