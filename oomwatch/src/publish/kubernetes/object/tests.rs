//! The object within the API's bounds, whatever the names.

use proptest::prelude::*;

use super::*;
use crate::{
    containers::container::ContainerDetails,
    event::{Group, fixture::event_in},
};

fn details(name: &str, pod: &str) -> ContainerDetails {
    ContainerDetails {
        name: Some(name.to_owned()),
        pod: Some(pod.to_owned()),
        pod_uid: Some("0f2a5c1e-8a3b".into()),
        namespace: Some("shop".into()),
        ..ContainerDetails::default()
    }
}

fn killed(name: &str, pod: &str, comm: &str) -> OomEvent {
    let mut event = event_in(1_787_394_225, "c1", details(name, pod));
    event.victim.comm = Some(printable(comm.as_bytes()));
    event.victim.pid = Some(1234);
    event.victim.anon_rss_bytes = Some(250 << 20);
    event.trigger.comm = Some(printable(comm.as_bytes()));
    event.trigger.pid = Some(99);
    event.limit.max_bytes = Some(256 << 20);
    event.limit.usage_bytes = Some(256 << 20);
    event.node = Some("n1".into());
    event
}

fn held(event: &OomEvent, count: u64) -> Held {
    let last = Kill::of(event).unwrap();
    Held {
        count,
        first_unix_ns: last.unix_ns - 5_000_000_000 * i128::from(count > 1),
        last,
    }
}

#[test]
fn the_object_as_the_api_server_gets_it() {
    let mut group = killed("web", "web-1", "java");
    group.group = Some(Group {
        invocation: 1,
        index: 0,
        size: Some(4),
    });
    let object = event(&held(&group, 3), Some("spec.containers{web}"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&object).unwrap());
}

#[test]
fn a_kill_that_only_the_counter_tells_of_says_so() {
    let mut only = killed("web", "web-1", "java");
    only.kind = Kind::CounterOnly;
    only.count = 3;
    let object = event(&held(&only, 1), None);
    assert_eq!(
        object["note"],
        "OOM kills that only the kernel's counter tells of: 3"
    );
    assert_eq!(object["series"], Value::Null);
    assert_eq!(object["regarding"]["fieldPath"], Value::Null);
}

#[test]
fn what_is_no_name_of_a_pod_is_none() {
    for bad in [
        "",
        "a/b",
        "A",
        "-a",
        "a-",
        "a b",
        "../x",
        "ä",
        "a\n",
        "a..b",
        "a.-b",
        &"a".repeat(254),
    ] {
        assert!(Kill::of(&killed("web", bad, "x")).is_none(), "{bad:?}");
    }
    for good in ["a", "web-1.example", &"a".repeat(253)] {
        assert!(Kill::of(&killed("web", good, "x")).is_some(), "{good:?}");
    }
    let mut dotted = killed("web", "web-1", "x");
    let container = std::sync::Arc::make_mut(dotted.container.as_mut().unwrap());
    container.details.namespace = Some("kube.system".into());
    assert!(Kill::of(&dotted).is_none(), "a namespace has no dots");
}

proptest! {
    #[test]
    fn all_texts_are_within_the_apis_bounds(
        name in any::<String>(),
        comm in any::<String>(),
        node in any::<String>(),
        id in "[A-Za-z0-9_-]{1,70}",
        pod in r"([a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?\.){0,3}[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?",
        count in 1_u64..,
    ) {
        let mut event = killed(&name.repeat(40), &pod, &comm.repeat(40));
        event.node = Some(node.repeat(40).into());
        event.id = format!("b{id}1");
        let object = super::event(&held(&event, count), None);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let printed = object.to_string();
        prop_assert!(!printed.chars().any(char::is_control));
        prop_assert!(text(&object["note"]).len() <= 1024);
        prop_assert!(text(&object["reportingInstance"]).len() <= 128);
        prop_assert!(is_name(&text(&object["metadata"]["name"]), 253), "{printed}");
        if count > 1 {
            prop_assert!(object["series"]["count"].as_i64().unwrap() >= 2);
        }
    }
}
