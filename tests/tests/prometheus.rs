//! The metrics and what is made of them in `deploy/`, as Prometheus' own promtool reads them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use oomwatch::{Counts, Metrics, MetricsFormat, Watcher};
use oomwatch_tests::host::{self, Limited};
use serde_json::{Value, json};

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const LIMIT: Duration = Duration::from_secs(20);
/// What the kill is made in: nothing in it may break out of its label.
const CONTAINER: &str = "web \"1\" \\ {a=\"b\"} 7";

fn deploy(file: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap().join("deploy").join(file)
}

/// Whether there is a promtool; else that is said for `test`.
fn promtool_or_skip(test: &str) -> bool {
    let version = Command::new("promtool").arg("--version").output();
    match version {
        Ok(_) => true,
        Err(error) => {
            host::skip(test, &format!("promtool: {error}: run `cargo xtask setup`"));
            false
        }
    }
}

/// Runs promtool with something to read, and expects that it has nothing to say against it.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(stdout).unwrap(),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{arguments:?}: {stdout}{stderr}");
    stdout
}

#[test]
fn the_rules_are_right_and_do_what_their_tests_say() {
    if !promtool_or_skip("the_rules_are_right_and_do_what_their_tests_say") {
        return;
    }
    let rules = deploy("prometheus/oomwatch.rules.yml");
    promtool(
        &["check", "rules", "--lint-fatal", rules.to_str().unwrap()],
        "",
    );
    let tests = deploy("prometheus/oomwatch.test.yml");
    let output = promtool(&["test", "rules", tests.to_str().unwrap()], "");
    assert!(output.contains("SUCCESS"), "{output}");
}

fn dashboard() -> Value {
    let text = std::fs::read_to_string(deploy("grafana/oomwatch.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All queries of the dashboard, with Grafana's own variables filled in.
fn queries() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let queries = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    let variables = [
        ("$__rate_interval", "5m"),
        ("$__interval", "2m"),
        ("$__range_s", "3600"),
        ("$__range", "1h"),
        ("$instance", ".*"),
        ("$namespace", ".*"),
    ];
    queries
        .map(|query| {
            variables
                .iter()
                .fold(query.to_owned(), |query, (name, value)| {
                    query.replace(name, value)
                })
        })
        .collect()
}

#[test]
fn the_dashboards_queries_are_queries() {
    if !promtool_or_skip("the_dashboards_queries_are_queries") {
        return;
    }
    let queries = queries();
    assert!(queries.len() > 20, "{}", queries.len());
    let rules: Vec<_> = (0..)
        .zip(&queries)
        .map(|(number, query)| {
            assert!(!query.contains('$'), "{query}");
            json!({"record": format!("dashboard:query{number}"), "expr": query})
        })
        .collect();
    // JSON is YAML too.
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let output = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert!(
        output.contains(&format!("{} rules found", queries.len())),
        "{output}"
    );
}

#[test]
fn the_dashboards_panels_do_not_overlap_and_have_names_of_their_own() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{}",
            panel["title"]
        );
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} at {x},{y}", panel["title"]);
            }
        }
    }
}

/// A watcher in this process and a place to make a kill, unless that is not possible here, which is
/// then said for `test`.
async fn watching(test: &str, counts: &Counts) -> Option<(Watcher, Limited)> {
    let layout = host::layout_or_skip(test, &host::oomwatch().unwrap())?;
    match Watcher::builder().counts(counts).start().await {
        Ok(watcher) => Some((watcher, layout.limited("metrics").unwrap())),
        // As with the program: only a build without the kernel side excuses.
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            assert!(error.contains("no eBPF object"), "{error}");
            host::skip(test, &error);
            None
        }
    }
}

/// A real kill, seen by a real probe, in both formats.
#[test]
fn a_scrape_is_what_prometheus_expects() {
    let test = "a_scrape_is_what_prometheus_expects";
    if !promtool_or_skip(test) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let counts = Counts::default();
        let Some((watcher, limited)) = watching(test, &counts).await else {
            return;
        };
        watcher
            .add(CONTAINER, limited.identity().path())
            .await
            .unwrap();
        let mut events = watcher.events().await.unwrap();
        let metrics = Metrics::new(watcher.handle(), counts).cadvisor(true);
        assert_eq!(
            kills(&metrics.render().await),
            0,
            "from the registration on"
        );
        let victim = limited
            .kill_a_hog(Path::new(HOG), "metrics-hog", limited.identity())
            .unwrap();
        let reported = async { while events.next().await.unwrap().victim.pid != Some(victim) {} };
        tokio::time::timeout(LIMIT, reported).await.unwrap();
        let open = metrics.render().await;
        let old = metrics.render_as(MetricsFormat::Prometheus).await;
        watcher.shutdown().await.unwrap();

        assert_eq!(kills(&open), 1, "{open}");
        assert!(
            open.contains(&format!(r#"# {{pid="{victim}",comm="metrics-hog"}} 1"#)),
            "{open}"
        );
        promtool(&["check", "metrics"], &old);
        as_openmetrics(&open);
        names_are_there(&old);
    });
}

/// Kills at whichever limit: the tier may not know whose it was.
fn kills(scrape: &str) -> u64 {
    let of_ours = scrape.lines().filter(|line| {
        line.starts_with("container_oom_kills_total{") && line.contains(r#"container_id="web "#)
    });
    let counts: Vec<u64> = of_ours
        .map(|line| {
            let line = line.split(" # {").next().unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        })
        .collect();
    assert!(!counts.is_empty(), "{scrape}");
    counts.iter().sum()
}

/// promtool's reader of OpenMetrics fills a database, and wants a time at each sample for that.
fn as_openmetrics(scrape: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let mut timed = String::new();
    for line in scrape.lines() {
        let (sample, exemplar) = match line.find(" # {") {
            Some(at) => line.split_at(at),
            None => (line, ""),
        };
        timed.push_str(sample);
        if !line.starts_with('#') {
            timed.push_str(&format!(" {now}{exemplar}"));
        }
        timed.push('\n');
    }
    let dir = tempfile::tempdir().unwrap();
    let (text, blocks) = (dir.path().join("scrape.txt"), dir.path().join("blocks"));
    std::fs::write(&text, timed).unwrap();
    // A database that was never written to by a server lacks it, and the dump wants it.
    std::fs::create_dir_all(blocks.join("wal")).unwrap();
    let (text, blocks) = (text.to_str().unwrap(), blocks.to_str().unwrap());
    promtool(
        &["tsdb", "create-blocks-from", "openmetrics", text, blocks],
        "",
    );
    let dump = promtool(&["tsdb", "dump", blocks], "");
    let ours = dump.lines().filter(|line| {
        line.contains(r#"__name__="container_oom_kills_total""#)
            && line.contains(&format!("container_id={CONTAINER:?}"))
    });
    let values: Vec<_> = ours.map(|line| line.rsplit(' ').nth(1).unwrap()).collect();
    assert!(values.contains(&"1"), "{values:?} in {dump}");
}

/// What the rules and the dashboard ask for is there.
fn names_are_there(scrape: &str) {
    let rules = std::fs::read_to_string(deploy("prometheus/oomwatch.rules.yml")).unwrap();
    let asked = format!("{rules}\n{}", queries().join("\n"));
    let words =
        asked.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let metrics: BTreeSet<&str> = words
        .filter(|word| {
            let ours = ["container_oom_", "node_oom_", "oomwatch_"];
            ours.iter().any(|prefix| word.starts_with(prefix))
        })
        // Parts of the names of recorded series.
        .filter(|word| !["container_oom_kills", "node_oom_kills"].contains(word))
        .collect();
    assert!(metrics.len() > 10, "{metrics:?}");
    for metric in metrics {
        // Where no limit can be told, it is described and has no samples.
        let is_there = scrape.lines().any(|line| {
            let line = line.strip_prefix("# TYPE ").unwrap_or(line);
            line.strip_prefix(metric)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        assert!(is_there, "{metric} is asked for and not there:\n{scrape}");
    }
}
