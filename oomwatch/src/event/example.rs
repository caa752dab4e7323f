//! A made-up kill, for tests of publishers in other crates: events cannot be made there otherwise.

use std::sync::Arc;

use super::{Counter, Evidence, Kind, Limit, OomEvent, Quality, Trigger, Victim};
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
    },
    event::{Attribution, Scope},
    id::{CgroupId, ContainerId, ContainerIdError},
    record::Constraint,
    tier::Tier,
};

const POD: &str = "/kubepods/pod0f2a5c1e-8a3b-4d6f-9e10-1234567890ab";

impl OomEvent {
    /// A kill that did not happen, for tests of publishers: `java` in the container with this id, of a
    /// Kubernetes pod, at the pod's limit. All fields can be changed.
    ///
    /// # Errors
    /// When the id is none.
    ///
    /// ```
    /// let mut event = oomwatch::OomEvent::example("c0ffee")?;
    /// event.victim.comm = Some("node".to_owned());
    /// assert!(event.to_json().contains(r#""comm":"node""#));
    /// # Ok::<(), oomwatch::ContainerIdError>(())
    /// ```
    pub fn example(container_id: &str) -> Result<Self, ContainerIdError> {
        let container = Container {
            id: ContainerId::new(container_id)?,
            cgroup_id: CgroupId(4712),
            identity: Identity::Runtime,
            inside: None,
            details: details(),
        };
        let path = format!("{POD}/{container_id}");
        let boottime_ns = 123_456_789_012;
        Ok(Self {
            id: format!("fe267c54-0aa2-43eb-82aa-b4fdccdd949b-{boottime_ns}"),
            seq: 1,
            unix_time_ns: 1_787_394_225_123_456_789,
            boottime_ns,
            kind: Kind::Kill,
            count: 1,
            supersedes: None,
            while_down: false,
            evidence: vec![Evidence::Tracepoint, Evidence::Counter],
            scope: Scope::Pod,
            constraint: Constraint::Memcg,
            group: None,
            victim: victim(path),
            trigger: Trigger {
                pid: Some(99),
                comm: Some("conmon".to_owned()),
                uid: Some(0),
                ..Trigger::default()
            },
            limit: Limit {
                cgroup_id: Some(CgroupId(4711)),
                path: Some(POD.to_owned()),
                max_bytes: Some(256 << 20),
                usage_bytes: Some(256 << 20),
                order: Some(0),
                gfp_mask: Some(0xcc0),
            },
            counter: Counter {
                cgroup_id: Some(CgroupId(4712)),
                oom_kill: Some(1),
                oom: Some(0),
                oom_group_kill: Some(0),
                recounts: Some(0),
            },
            container: Some(Arc::new(container)),
            place: None,
            node: Some("node-1".into()),
            delivered_ns: Some(41_000),
            quality: Quality {
                tier: Tier::Btf,
                attribution: Attribution::Exact,
                missing: Vec::new(),
            },
        })
    }
}

fn victim(cgroup_path: String) -> Victim {
    Victim {
        pid: Some(1234),
        tid: Some(1234),
        comm: Some("java".to_owned()),
        uid: Some(1000),
        is_init: Some(true),
        start_boottime_ns: Some(100_000_000_000),
        cgroup_id: Some(CgroupId(4712)),
        cgroup_path: Some(cgroup_path),
        oom_score_adj: Some(985),
        total_vm_bytes: Some(4 << 30),
        anon_rss_bytes: Some(250 << 20),
        file_rss_bytes: Some(1 << 20),
        shmem_rss_bytes: Some(0),
        pgtables_bytes: Some(1 << 20),
    }
}

fn details() -> ContainerDetails {
    ContainerDetails {
        name: Some("app".to_owned()),
        runtime: Some("containerd".to_owned()),
        image: Some("registry:5000/shop/web:1.2".to_owned()),
        pod: Some("web-1".to_owned()),
        pod_uid: Some("0f2a5c1e-8a3b-4d6f-9e10-1234567890ab".to_owned()),
        namespace: Some("shop".to_owned()),
        containerd_namespace: Some("k8s.io".to_owned()),
        attempt: Some(2),
        is_sandbox: Some(false),
        ..ContainerDetails::default()
    }
}
