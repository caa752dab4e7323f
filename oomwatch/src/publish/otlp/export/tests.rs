use std::collections::HashMap;

use super::*;

fn of<T>(variables: &[(&str, &str)], ask: impl FnOnce(Env<'_>) -> T) -> T {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    ask(&|name| variables.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn a_signals_own_variable_comes_first() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
    ];
    let protocol = |signal: Signal| of(&variables, |env| signal.protocol(env)).unwrap();
    assert_eq!(protocol(Signal::Logs), Protocol::Grpc);
    assert_eq!(protocol(Signal::Metrics), Protocol::HttpBinary);
    let none = of(&[], |env| Signal::Logs.protocol(env)).unwrap();
    assert_eq!(none, Protocol::HttpBinary, "what the specification wants");
}

#[test]
fn what_cannot_be_followed_is_named() {
    let protocol = [("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json")];
    let error = of(&protocol, |env| logs(env).map(drop)).unwrap_err();
    insta::assert_snapshot!(error, @r#"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL is "http/json": grpc or http/protobuf is possible"#);
    let timeout = [("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")];
    let error = of(&timeout, |env| metrics(env).map(drop)).unwrap_err();
    insta::assert_snapshot!(error, @r#"OTEL_EXPORTER_OTLP_TIMEOUT is "10s": a number of milliseconds is expected"#);
    let error = of(&[(INTERVAL, "1m")], interval).unwrap_err();
    assert!(error.to_string().contains(INTERVAL), "{error}");
}

#[test]
fn what_is_set_for_nothing_is_known() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "/ca.pem"),
    ];
    let of = |signal: Signal| {
        let settings = of(&variables, |env| signal.unfollowed(env));
        let names = settings.into_iter().map(|setting| setting.variable);
        names.collect::<Vec<_>>()
    };
    assert_eq!(
        of(Signal::Logs),
        [
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE"
        ]
    );
    assert!(of(Signal::Metrics).is_empty());
}

#[test]
fn times_are_milliseconds() {
    let timeout = [("OTEL_EXPORTER_OTLP_TIMEOUT", "1500")];
    let timeout = of(&timeout, |env| Signal::Logs.timeout(env)).unwrap();
    assert_eq!(timeout, Duration::from_millis(1500));
    assert_eq!(
        of(&[(INTERVAL, "200")], interval).unwrap(),
        Duration::from_millis(200)
    );
    assert_eq!(of(&[], interval).unwrap(), DEFAULT_INTERVAL);
}

#[test]
fn tls_is_for_https_and_for_grpc_without_a_scheme() {
    let wants = |protocol, endpoint, insecure| {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
        ];
        of(&variables, |env| Signal::Logs.wants_tls(protocol, env))
    };
    use Protocol::{Grpc, HttpBinary};
    assert!(wants(HttpBinary, "https://collector", "false"));
    assert!(wants(Grpc, "HTTPS://collector:4317", "true"));
    assert!(wants(Grpc, "collector:4317", "false"));
    assert!(!wants(Grpc, "collector:4317", "True"));
    assert!(!wants(Grpc, "http://collector:4317", "false"));
    assert!(!wants(HttpBinary, "http://collector:4318", "false"));
    assert!(
        !of(&[], |env| Signal::Logs.wants_tls(Grpc, env)),
        "localhost"
    );
}

#[test]
fn only_what_the_specification_calls_final_is() {
    let is_final = |reason: &str| is_final(&OTelSdkError::InternalFailure(reason.to_owned()));
    assert!(is_final("HTTP export failed with status code: 400"));
    assert!(is_final("HTTP export failed with status code: 500"));
    assert!(!is_final("HTTP export failed with status code: 503"));
    assert!(!is_final("HTTP export failed: network error"));
    assert!(is_final(
        "TonicLogsClient export failed with gRPC code: InvalidArgument"
    ));
    assert!(!is_final(
        "TonicLogsClient export failed with gRPC code: Unavailable: transport error"
    ));
    assert!(!is_final("something new"));
}
