//! Records as they are sent. `tests/tests/otlp.rs` tests the arriving ones with another's reader.

use opentelemetry::logs::AnyValue;
use opentelemetry_sdk::logs::SdkLogRecord;

use super::*;
use crate::event::fixture::event_at;

fn record_of(event: &OomEvent) -> SdkLogRecord {
    let logger = SdkLoggerProvider::builder().build().logger(SCOPE);
    let mut record = logger.create_log_record();
    record::fill(&mut record, event);
    record
}

fn show(value: &AnyValue) -> String {
    match value {
        AnyValue::Int(value) => value.to_string(),
        AnyValue::Boolean(value) => value.to_string(),
        AnyValue::String(value) => format!("{:?}", value.as_str()),
        AnyValue::ListAny(values) => {
            let values: Vec<_> = values.iter().map(show).collect();
            format!("[{}]", values.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn attributes(event: &OomEvent) -> String {
    let record = record_of(event);
    let lines = record.attributes_iter();
    let lines = lines.map(|(name, value)| format!("{name} = {}", show(value)));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_kill_has_the_conventions_names() {
    let event = OomEvent::example("c0ffee").unwrap();
    let record = record_of(&event);
    assert_eq!(record.event_name(), Some("oomwatch.oom.kill"));
    assert_eq!(record.severity_text(), Some("ERROR"));
    let time = record.timestamp().unwrap();
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(since_1970.as_nanos(), 1_787_394_225_123_456_789);
    assert_eq!(record.body(), Some(&event.to_text(false).into()));
    insta::assert_snapshot!(attributes(&event), @r#"
    oomwatch.oom.event.id = "fe267c54-0aa2-43eb-82aa-b4fdccdd949b-123456789012"
    oomwatch.oom.kind = "kill"
    oomwatch.oom.count = 1
    oomwatch.oom.while_down = false
    oomwatch.oom.evidence = ["tracepoint", "counter"]
    oomwatch.oom.scope = "pod"
    oomwatch.oom.constraint = "memcg"
    oomwatch.oom.attribution = "exact"
    oomwatch.oom.tier = "btf"
    process.pid = 1234
    process.title = "java"
    oomwatch.oom.victim.uid = 1000
    oomwatch.oom.victim.cgroup = "/kubepods/pod0f2a5c1e-8a3b-4d6f-9e10-1234567890ab/c0ffee"
    oomwatch.oom.victim.anon_bytes = 262144000
    oomwatch.oom.victim.file_bytes = 1048576
    oomwatch.oom.victim.shmem_bytes = 0
    oomwatch.oom.trigger.pid = 99
    oomwatch.oom.trigger.comm = "conmon"
    oomwatch.oom.limit_bytes = 268435456
    oomwatch.oom.usage_bytes = 268435456
    oomwatch.oom.limit.cgroup = "/kubepods/pod0f2a5c1e-8a3b-4d6f-9e10-1234567890ab"
    container.id = "c0ffee"
    oomwatch.container.identity = "runtime"
    container.name = "app"
    container.runtime.name = "containerd"
    container.image.name = "registry:5000/shop/web"
    container.image.tags = ["1.2"]
    k8s.pod.uid = "0f2a5c1e-8a3b-4d6f-9e10-1234567890ab"
    k8s.pod.name = "web-1"
    k8s.namespace.name = "shop"
    k8s.container.name = "app"
    k8s.container.restart_count = 2
    "#);
}

#[test]
fn what_is_not_known_is_left_out() {
    insta::assert_snapshot!(attributes(&event_at(1)), @r#"
    oomwatch.oom.event.id = "boot-1"
    oomwatch.oom.kind = "kill"
    oomwatch.oom.count = 1
    oomwatch.oom.while_down = false
    oomwatch.oom.scope = "container"
    oomwatch.oom.constraint = "memcg"
    oomwatch.oom.attribution = "exact"
    oomwatch.oom.tier = "btf"
    "#);
}

#[test]
fn untrusted_text_is_printable() {
    let mut event = OomEvent::example("c0ffee").unwrap();
    let container = Arc::make_mut(event.container.as_mut().unwrap());
    container.details.pod = Some("a\nb\u{202e}".to_owned());
    let attributes = attributes(&event);
    assert!(
        attributes.contains(r#"k8s.pod.name = "a\\x0ab\\xe2\\x80\\xae""#),
        "{attributes}"
    );
}

#[test]
fn an_image_is_name_and_tag() {
    use record::image_name;
    assert_eq!(image_name("web"), ("web", None));
    assert_eq!(image_name("registry:5000/web"), ("registry:5000/web", None));
    assert_eq!(
        image_name("registry:5000/web:1"),
        ("registry:5000/web", Some("1"))
    );
    assert_eq!(image_name("web:1@sha256:00ff"), ("web", Some("1")));
    let mut event = OomEvent::example("c0ffee").unwrap();
    let container = Arc::make_mut(event.container.as_mut().unwrap());
    container.details.image = Some("sha256:00ff".to_owned());
    let attributes = attributes(&event);
    assert!(
        attributes.contains(r#"container.image.id = "sha256:00ff""#),
        "{attributes}"
    );
    assert!(!attributes.contains("container.image.name"), "{attributes}");
}
