//! What arrives at an OpenTelemetry collector, as read by another's library.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{path::Path, process::Command};

use oomwatch_tests::{
    collector::{self, Collector},
    daemon::Daemon,
    host,
};
use serde_json::{Value, json};

const HOG: &str = env!("CARGO_BIN_EXE_oom-hog");
const SENDER: &str = env!("CARGO_BIN_EXE_otlp-sender");
const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];

/// A collector, unless there is nothing to make one of, which is then said for `test`.
fn collector_or_skip(test: &str, arguments: &[&str]) -> Option<Collector> {
    match collector::python() {
        Ok(python) => Some(Collector::start(&python, arguments).unwrap()),
        Err(error) => {
            host::skip(test, &format!("{error:#}"));
            None
        }
    }
}

/// Sends a kill in each container; returns what became of them.
fn send(variables: &[(&str, String)], containers: &[&str]) -> Vec<String> {
    let mut sender = Command::new(SENDER);
    sender.args(containers).env_clear();
    for (name, value) in variables {
        sender.env(name, value);
    }
    let output = sender.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    stdout.lines().map(str::to_owned).collect()
}

/// A kill's record and the metrics, which come in any order.
fn both(collector: &Collector) -> (Value, Value) {
    let (first, second) = (collector.next().unwrap(), collector.next().unwrap());
    match first["signal"] == "logs" {
        true => (first, second),
        false => (second, first),
    }
}

/// The one record of a request, and its resource.
fn record(arrived: &Value) -> (&Value, &Value) {
    assert_eq!(arrived["signal"], "logs", "{arrived}");
    let of_resource = &arrived["request"]["resourceLogs"][0];
    let of_scope = &of_resource["scopeLogs"][0];
    assert_eq!(of_scope["scope"]["name"], "oomwatch", "{arrived}");
    assert_eq!(
        of_scope["logRecords"].as_array().unwrap().len(),
        1,
        "{arrived}"
    );
    (&of_scope["logRecords"][0], &of_resource["resource"])
}

#[test]
fn a_kill_arrives_by_both_protocols() {
    let test = "a_kill_arrives_by_both_protocols";
    let Some(collector) = collector_or_skip(test, &[]) else {
        return;
    };
    for protocol in PROTOCOLS {
        let mut variables = collector.variables(protocol, "http").to_vec();
        variables.push(("OTEL_EXPORTER_OTLP_HEADERS", "x-token=a%20b".to_owned()));
        variables.push((
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test,host.name=other".to_owned(),
        ));
        assert_eq!(send(&variables, &["c0ffee"]), ["ok", "ok"], "{protocol}");
        let (record, metrics) = both(&collector);
        for arrived in [&record, &metrics] {
            assert_eq!(arrived["headers"]["x-token"], "a b", "{arrived}");
        }
        check_record(&record);
        check_metrics(&metrics, &["c0ffee"]);
    }
    let rest = collector.stop().unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

fn check_record(arrived: &Value) {
    let (record, resource) = record(arrived);
    assert_eq!(record["eventName"], "oomwatch.oom.kill");
    assert_eq!(record["severityNumber"], "SEVERITY_NUMBER_ERROR");
    assert_eq!(record["severityText"], "ERROR");
    // The kernel's time, to the nanosecond.
    assert_eq!(record["timeUnixNano"], "1787394225123456789");
    assert!(record["observedTimeUnixNano"].is_string(), "{record}");
    let body = record["body"]["stringValue"].as_str().unwrap();
    assert!(
        body.contains("KILL shop/web-1/app lost java[1234]"),
        "{body}"
    );
    let attributes = collector::attributes(record).unwrap();
    let expected = [
        ("container.id", json!("c0ffee")),
        ("container.name", json!("app")),
        ("container.image.name", json!("registry:5000/shop/web")),
        (
            "container.image.tags",
            json!({"values": [{"stringValue": "1.2"}]}),
        ),
        ("container.runtime.name", json!("containerd")),
        ("k8s.namespace.name", json!("shop")),
        ("k8s.pod.name", json!("web-1")),
        ("k8s.pod.uid", json!("0f2a5c1e-8a3b-4d6f-9e10-1234567890ab")),
        ("k8s.container.name", json!("app")),
        ("process.pid", json!("1234")),
        ("process.title", json!("java")),
        ("oomwatch.oom.kind", json!("kill")),
        ("oomwatch.oom.count", json!("1")),
        ("oomwatch.oom.scope", json!("pod")),
        ("oomwatch.oom.constraint", json!("memcg")),
        ("oomwatch.oom.limit_bytes", json!("268435456")),
        ("oomwatch.oom.usage_bytes", json!("268435456")),
        ("oomwatch.oom.trigger.pid", json!("99")),
        ("oomwatch.oom.attribution", json!("exact")),
    ];
    for (name, value) in expected {
        assert_eq!(
            attributes.get(name),
            Some(&value),
            "{name} in {attributes:?}"
        );
    }
    let sender = collector::attributes(resource).unwrap();
    assert_eq!(sender["service.name"], "oomwatch");
    assert_eq!(sender["k8s.node.name"], "node-1");
    assert_eq!(sender["deployment.environment.name"], "test");
    assert_eq!(
        sender["host.name"], "other",
        "the environment has the last word"
    );
    for name in ["service.version", "service.instance.id"] {
        assert!(sender.contains_key(name), "{name} in {sender:?}");
    }
}

fn check_metrics(arrived: &Value, containers: &[&str]) {
    assert_eq!(arrived["signal"], "metrics", "{arrived}");
    let metrics = &arrived["request"]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    let metrics = metrics.as_array().unwrap();
    let named = |name: &str| {
        metrics
            .iter()
            .find(|metric| metric["name"] == name)
            .unwrap()
    };
    let kills = &named("oomwatch.container.oom.kills")["sum"];
    assert_eq!(kills["isMonotonic"], true);
    assert_eq!(
        kills["aggregationTemporality"],
        "AGGREGATION_TEMPORALITY_CUMULATIVE"
    );
    let points = kills["dataPoints"].as_array().unwrap();
    let mut of = Vec::new();
    for point in points {
        assert_eq!(point["asInt"], "1", "{point}");
        let attributes = collector::attributes(point).unwrap();
        assert_eq!(attributes["oomwatch.oom.scope"], "pod");
        of.push(attributes["container.id"].as_str().unwrap().to_owned());
    }
    of.sort();
    assert_eq!(of, containers);
    let groups = &named("oomwatch.container.oom.group_kills")["sum"];
    assert_eq!(
        groups["dataPoints"].as_array().unwrap().len(),
        containers.len()
    );
}

#[test]
fn metrics_wait_for_their_interval_or_the_end() {
    let test = "metrics_wait_for_their_interval_or_the_end";
    let Some(collector) = collector_or_skip(test, &[]) else {
        return;
    };
    let mut variables = collector.variables("grpc", "http").to_vec();
    variables.push(("OTEL_METRIC_EXPORT_INTERVAL", "3600000".to_owned()));
    assert_eq!(send(&variables, &["a", "b", "c"]), ["ok", "ok", "ok", "ok"]);
    let arrived = collector.stop().unwrap();
    let arrived = arrived
        .iter()
        .map(|line| serde_json::from_str(line).unwrap());
    let metrics: Vec<Value> = arrived
        .filter(|arrived: &Value| arrived["signal"] == "metrics")
        .collect();
    assert!(metrics.len() <= 2, "at once, and at the end: {metrics:?}");
    check_metrics(metrics.last().unwrap(), &["a", "b", "c"]);
}

#[test]
fn what_a_collector_refuses_for_good_is_told_from_what_may_pass() {
    let test = "what_a_collector_refuses_for_good_is_told_from_what_may_pass";
    for protocol in PROTOCOLS {
        // What is unavailable is tried four times before it has failed.
        let answers = "unavailable,unavailable,unavailable,unavailable,invalid,unavailable";
        let Some(collector) = collector_or_skip(test, &["--answers", answers]) else {
            return;
        };
        let mut variables = collector.variables(protocol, "http").to_vec();
        variables.push((
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "http://localhost:1".to_owned(),
        ));
        let outcomes = send(&variables, &["a", "b", "c"]);
        assert!(
            outcomes[0].starts_with("failed"),
            "{protocol}: {outcomes:?}"
        );
        assert_eq!(
            outcomes[1..3],
            ["refused", "ok"],
            "{protocol}: {outcomes:?}"
        );
        assert!(outcomes[3].starts_with("failed"), "metrics: {outcomes:?}");
        let arrived = (0..7).map(|_| collector.next().unwrap());
        let ids: Vec<_> = arrived
            .map(|arrived| {
                collector::attributes(record(&arrived).0).unwrap()["container.id"].clone()
            })
            .collect();
        assert_eq!(ids, ["a", "a", "a", "a", "b", "c", "c"], "{protocol}");
    }
}

/// Only HTTP: the library for gRPC does not let its caller see this answer.
#[test]
fn an_answer_that_takes_back_what_its_status_says_is_a_refusal() {
    let test = "an_answer_that_takes_back_what_its_status_says_is_a_refusal";
    let Some(collector) = collector_or_skip(test, &["--answers", "partial"]) else {
        return;
    };
    let variables = collector.variables("http/protobuf", "http");
    assert_eq!(send(&variables, &["a", "b"]), ["refused", "ok", "ok"]);
}

#[test]
fn nobody_there_is_a_failure_that_may_pass() {
    for protocol in PROTOCOLS {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "http://127.0.0.1:1".to_owned(),
            ),
        ];
        let outcomes = send(&variables, &["a"]);
        assert!(
            outcomes.iter().all(|outcome| outcome.starts_with("failed")),
            "{protocol}: {outcomes:?}"
        );
        assert_eq!(outcomes.len(), 2);
    }
}

#[test]
fn an_endpoint_with_tls_is_believed_only_with_its_authority() {
    let test = "an_endpoint_with_tls_is_believed_only_with_its_authority";
    let dir = tempfile::tempdir().unwrap();
    let tls = ["--tls", dir.path().to_str().unwrap()];
    let Some(collector) = collector_or_skip(test, &tls) else {
        return;
    };
    let other = tempfile::tempdir().unwrap();
    let strange = Collector::start(
        &collector::python().unwrap(),
        &["--tls", other.path().to_str().unwrap()],
    );
    drop(strange.unwrap());
    for protocol in PROTOCOLS {
        let with = |authority: &tempfile::TempDir| {
            let mut variables = collector.variables(protocol, "https").to_vec();
            let certificate = authority.path().join("ca.pem");
            variables.push(("SSL_CERT_FILE", certificate.display().to_string()));
            send(&variables, &["a"])
        };
        assert_eq!(with(&dir), ["ok", "ok"], "{protocol}");
        let (kill, metrics) = both(&collector);
        record(&kill);
        check_metrics(&metrics, &["a"]);
        let refused = with(&other);
        assert!(refused[0].starts_with("failed"), "{protocol}: {refused:?}");
    }
    let rest = collector.stop().unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

/// The whole way, from the kernel to the collector.
#[test]
fn a_real_kill_arrives() {
    let test = "a_real_kill_arrives";
    let oomwatch = host::oomwatch().unwrap();
    let Some(layout) = host::layout_or_skip(test, &oomwatch) else {
        return;
    };
    let Some(collector) = collector_or_skip(test, &[]) else {
        return;
    };
    let limited = layout.limited("otlp").unwrap();
    let registration = format!("web-1={}", limited.identity().path().display());
    let mut run = Command::new(oomwatch);
    run.args([
        "--log-format",
        "json",
        "run",
        "--output",
        "json",
        "--discover",
        "none",
    ]);
    run.args([
        "--container",
        &registration,
        "--publish",
        "otlp",
        "--node",
        "node-1",
    ]);
    run.envs(collector.variables("grpc", "http"));
    let daemon = Daemon::spawn(run).unwrap();
    let hog = limited.kill_a_hog(Path::new(HOG), "otlp-hog", limited.identity());
    let victim = hog.unwrap().to_string();
    // Others may be killed on this machine too.
    let attributes = loop {
        let arrived = collector.next().unwrap();
        if arrived["signal"] == "logs" {
            let attributes = collector::attributes(record(&arrived).0).unwrap();
            if attributes["process.pid"] == victim {
                break attributes;
            }
        }
    };
    assert_eq!(attributes["container.id"], "web-1");
    assert_eq!(attributes["process.title"], "otlp-hog");
    let output = daemon.stop().unwrap();
    let told = output.events.iter().find(|event| {
        event
            .victim_pid()
            .is_ok_and(|pid| pid.to_string() == victim)
    });
    let id = told.unwrap().text("id").unwrap();
    assert_eq!(
        attributes["oomwatch.oom.event.id"], id,
        "the same event as on stdout"
    );
}
