//! What is written can be read, whatever was in it.

use proptest::{collection::btree_map, option, prelude::*, sample::select};

use super::*;
use crate::{containers::identity::Identity, event::fixture::event_at, id::printable};

/// Text as it gets into events.
fn text() -> impl Strategy<Value = Option<String>> {
    option::of(any::<String>().prop_map(|text| printable(text.as_bytes())))
}

fn cgroup() -> impl Strategy<Value = Option<CgroupId>> {
    option::of(any::<u64>().prop_map(CgroupId))
}

fn victims() -> impl Strategy<Value = Victim> {
    let ids = (any::<[Option<u32>; 3]>(), any::<Option<bool>>(), cgroup());
    let memory = (any::<[Option<u64>; 6]>(), any::<Option<i32>>());
    (ids, memory, text(), text()).prop_map(|(ids, memory, comm, cgroup_path)| {
        let ([pid, tid, uid], is_init, cgroup_id) = ids;
        let ([start, total, anon, file, shmem, tables], oom_score_adj) = memory;
        Victim {
            pid,
            tid,
            comm,
            uid,
            is_init,
            start_boottime_ns: start,
            cgroup_id,
            cgroup_path,
            oom_score_adj,
            total_vm_bytes: total,
            anon_rss_bytes: anon,
            file_rss_bytes: file,
            shmem_rss_bytes: shmem,
            pgtables_bytes: tables,
        }
    })
}

fn triggers() -> impl Strategy<Value = Trigger> {
    let ids = (any::<[Option<u32>; 2]>(), cgroup());
    (ids, text(), text()).prop_map(|(([pid, uid], cgroup_id), comm, cgroup_path)| Trigger {
        pid,
        comm,
        uid,
        cgroup_id,
        cgroup_path,
    })
}

fn limits() -> impl Strategy<Value = Limit> {
    let numbers = any::<([Option<u64>; 2], Option<i32>, Option<u32>)>();
    (cgroup(), text(), numbers).prop_map(|(cgroup_id, path, numbers)| {
        let ([max_bytes, usage_bytes], order, gfp_mask) = numbers;
        Limit {
            cgroup_id,
            path,
            max_bytes,
            usage_bytes,
            order,
            gfp_mask,
        }
    })
}

fn counters() -> impl Strategy<Value = Counter> {
    (cgroup(), any::<[Option<u64>; 4]>()).prop_map(|(cgroup_id, counts)| {
        let [oom_kill, oom, oom_group_kill, recounts] = counts;
        Counter {
            cgroup_id,
            oom_kill,
            oom,
            oom_group_kill,
            recounts,
        }
    })
}

fn containers() -> impl Strategy<Value = Option<Arc<Container>>> {
    let label = || any::<String>().prop_map(|text| printable(text.as_bytes()));
    let names = (text(), text(), text(), text(), text());
    let more = (text(), text(), text(), any::<(Option<u32>, Option<bool>)>());
    let labels = btree_map(label(), label(), 0..4);
    let of = ("[a-zä/. -]{1,80}", any::<u64>(), names, more, labels);
    option::of(of.prop_map(|(id, cgroup, names, more, labels)| {
        let (name, runtime, image, pod, pod_uid) = names;
        let (namespace, containerd_namespace, containerd_address, numbers) = more;
        Arc::new(Container {
            id: ContainerId::new(&id).unwrap(),
            cgroup_id: CgroupId(cgroup),
            identity: Identity::Manual,
            inside: None,
            details: ContainerDetails {
                name,
                runtime,
                image,
                pod,
                pod_uid,
                namespace,
                containerd_namespace,
                containerd_address,
                realm: None,
                attempt: numbers.0,
                is_sandbox: numbers.1,
                labels,
            },
        })
    }))
}

fn qualities() -> impl Strategy<Value = Quality> {
    let tiers = select(vec![Tier::Btf, Tier::BtfPid, Tier::Pid, Tier::Counters]);
    let attributions = select(vec![
        Attribution::Exact,
        Attribution::Ancestor,
        Attribution::Late,
        Attribution::Unregistered,
    ]);
    let missing = select(vec!["victim", "container.name", "recounts", "victim.start"]);
    let missing = proptest::collection::vec(missing, 0..4);
    (tiers, attributions, missing).prop_map(|(tier, attribution, missing)| Quality {
        tier,
        attribution,
        missing,
    })
}

fn groups() -> impl Strategy<Value = Option<Group>> {
    any::<Option<(u64, u32, Option<u32>)>>().prop_map(|group| {
        group.map(|(invocation, index, size)| Group {
            invocation,
            index,
            size,
        })
    })
}

fn words() -> impl Strategy<Value = (Kind, Vec<Evidence>, Scope, Constraint)> {
    (
        select(vec![Kind::Kill, Kind::AlreadyExiting, Kind::CounterOnly]),
        proptest::collection::vec(select(vec![Evidence::Tracepoint, Evidence::Counter]), 0..3),
        select(vec![
            Scope::Container,
            Scope::Pod,
            Scope::Ancestor,
            Scope::Cgroup,
            Scope::Node,
            Scope::Unknown,
        ]),
        select(vec![
            Constraint::None,
            Constraint::Cpuset,
            Constraint::MemoryPolicy,
            Constraint::Memcg,
            Constraint::Unknown,
        ]),
    )
}

fn events() -> impl Strategy<Value = OomEvent> {
    // Years that clocks can say, and times that RFC 3339 cannot.
    let time = prop_oneof![any::<i64>().prop_map(i128::from), any::<i128>()];
    let numbers = any::<(u64, u64, u64, Option<u64>, bool, Option<u64>)>();
    let who = (victims(), triggers(), limits(), counters());
    let what = (words(), groups(), qualities());
    let place = (containers(), text(), "[a-z0-9-]{1,60}");
    (time, numbers, who, what, place).prop_map(|(time, numbers, who, what, place)| {
        let ((kind, evidence, scope, constraint), group, quality) = what;
        OomEvent {
            id: place.2,
            seq: numbers.0,
            unix_time_ns: time,
            boottime_ns: numbers.1,
            kind,
            count: numbers.2,
            supersedes: numbers.3,
            while_down: numbers.4,
            evidence,
            scope,
            constraint,
            group,
            victim: who.0,
            trigger: who.1,
            limit: who.2,
            counter: who.3,
            container: place.0,
            place: None,
            node: place.1.map(Arc::from),
            delivered_ns: numbers.5,
            quality,
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(event in events()) {
        let read = OomEvent::from_json(&event.to_json());
        prop_assert_eq!(read.unwrap(), event);
    }

    #[test]
    fn any_text_is_an_event_or_an_error(text in any::<String>()) {
        prop_assert!(OomEvent::from_json(&text).is_err());
    }
}

#[test]
fn what_is_not_known_is_named_and_not_guessed() {
    let json = event_at(5).to_json();
    for (known, unknown, named) in [
        (r#""kind":"kill""#, r#""kind":"parole""#, "no kind"),
        (r#""scope":"container""#, r#""scope":"galaxy""#, "no scope"),
        (r#""tier":"btf""#, r#""tier":"psychic""#, "no tier"),
        (r#""missing":[]"#, r#""missing":["sense"]"#, "sense"),
        ("oomwatch.oom/1", "oomwatch.oom/2", "oomwatch.oom/2"),
        (r#""seq":5,"#, "", "line 1"),
        ("1970-01-01", "1970-13-01", "no time"),
    ] {
        let changed = json.replacen(known, unknown, 1);
        assert_ne!(changed, json, "{known}");
        let error = OomEvent::from_json(&changed).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    let more = json.replacen('{', r#"{"later":1,"#, 1);
    assert!(
        OomEvent::from_json(&more).is_ok(),
        "what was added is ignored"
    );
}
