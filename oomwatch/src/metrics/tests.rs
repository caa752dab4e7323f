//! Whole scrapes, of a watcher that is made up.

use std::{path::Path, sync::Mutex};

use super::*;
use crate::{
    containers::{
        container::{Container, ContainerDetails},
        identity::Identity,
        sighting::{RuntimeApi, RuntimeSocket},
    },
    engine::{Totals, naming::Registered},
    event::{Attribution, Evidence, Group, Kind, OomEvent, Scope, fixture::event_in},
    id::{CgroupId, ContainerId},
    publish::{Delivery, PublisherReport},
    record::Constraint,
    tier::Tier,
    watcher::{AddError, Lost, Report, SourceReport, Status, Stopped, requests::Answer},
};

/// A watcher with made-up answers.
struct Fake {
    containers: Arc<Mutex<Vec<Registered>>>,
    tier: Tier,
    sees_limits: bool,
}

impl Requests for Fake {
    fn status(&self) -> Answer<'_, Status> {
        let containers = self.containers.lock().unwrap().len();
        let (tier, sees_limits) = (self.tier, self.sees_limits);
        Box::pin(async move {
            Ok(Status {
                node: None,
                tier,
                sees_limits,
                has_counters: true,
                cgroups: 12,
                containers,
                sources: vec![SourceReport {
                    socket: RuntimeSocket::new(RuntimeApi::Docker, "/run/docker.sock"),
                    connected: true,
                }],
                report: Report {
                    totals: Totals {
                        double_counts: 3,
                        ..Totals::default()
                    },
                    lost: Lost {
                        ring: 5,
                        queue: 5,
                        publisher: 1,
                        ..Lost::default()
                    },
                    residual: 7,
                    publishers: vec![PublisherReport {
                        name: "otlp".to_owned(),
                        delivery: Delivery::AtLeastOnce,
                        from_store: true,
                        published: 8,
                        retries: 9,
                        waiting: 10,
                        lost_in_queue: 2,
                        lost_by_publisher: 1,
                    }],
                    ..Report::default()
                },
            })
        })
    }

    fn containers(&self) -> Answer<'_, Vec<Registered>> {
        let containers = self.containers.lock().unwrap().clone();
        Box::pin(async move { Ok(containers) })
    }

    fn add<'a>(&'a self, _id: &'a str, _cgroup: &'a Path) -> Answer<'a, (), AddError> {
        Box::pin(async { Err(Stopped.into()) })
    }

    fn remove<'a>(&'a self, _id: &'a str) -> Answer<'a, (), AddError> {
        Box::pin(async { Err(Stopped.into()) })
    }
}

/// Metrics, their counts, and the containers that exist.
struct Node {
    metrics: Metrics,
    counts: Counts,
    containers: Arc<Mutex<Vec<Registered>>>,
}

impl Node {
    fn with(counts: Counts, containers: Vec<Registered>) -> Self {
        let containers = Arc::new(Mutex::new(containers));
        let metrics = Metrics {
            watched: Arc::new(Fake {
                containers: Arc::clone(&containers),
                tier: Tier::Btf,
                sees_limits: true,
            }),
            counts: counts.clone(),
            cadvisor: false,
        };
        Self {
            metrics,
            counts,
            containers,
        }
    }

    fn of(containers: Vec<Registered>) -> Self {
        Self::with(Counts::default(), containers)
    }

    async fn lines(&self, with: &str) -> Vec<String> {
        let text = self.metrics.render().await;
        let lines = text.lines().filter(|line| line.starts_with(with));
        lines.map(str::to_owned).collect()
    }
}

fn registered(id: &str, details: ContainerDetails) -> Registered {
    Registered {
        container: Arc::new(Container {
            id: ContainerId::new(id).unwrap(),
            cgroup_id: CgroupId(3),
            identity: Identity::Manual,
            inside: None,
            details,
        }),
        cgroup_path: Some(format!("/kubepods/{id}")),
        kills: 0,
        counter_only: 0,
        double_counts: 0,
    }
}

fn web() -> ContainerDetails {
    ContainerDetails {
        name: Some("app".into()),
        namespace: Some("shop".into()),
        pod: Some("web-1".into()),
        pod_uid: Some("0f2a".into()),
        image: Some("registry/web:1".into()),
        runtime: Some("containerd".into()),
        ..ContainerDetails::default()
    }
}

fn kill(second: u64, id: &str) -> OomEvent {
    let mut event = event_in(second, id, web());
    event.evidence = vec![Evidence::Tracepoint, Evidence::Counter];
    event.victim.pid = Some(1234);
    event.victim.comm = Some("java".into());
    event.limit.max_bytes = Some(64 << 20);
    event.limit.usage_bytes = Some(64 << 20);
    event.delivered_ns = Some(41_000);
    event
}

/// The value at the end of the one line that begins so.
async fn value(node: &Node, with: &str) -> u64 {
    let lines = node.lines(with).await;
    assert_eq!(lines.len(), 1, "{with}: {lines:?}");
    let line = lines[0].split(" # ").next().unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A node with two containers, after a kill and a group kill in the first.
fn small() -> Node {
    let mut node = Node::of(vec![
        registered("c0ffee", web()),
        registered("idle", ContainerDetails::default()),
    ]);
    node.metrics.cadvisor = true;
    node.counts.enter(&kill(1_787_394_225, "c0ffee"));
    for index in 0..2 {
        let mut member = kill(1_787_394_230, "c0ffee");
        member.scope = Scope::Pod;
        member.group = Some(Group {
            invocation: 9,
            index,
            size: Some(2),
        });
        node.counts.enter(&member);
    }
    node
}

#[tokio::test]
async fn a_whole_scrape() {
    let text = small().metrics.render().await;
    let release = rustix::system::uname();
    let release = release.release().to_str().unwrap().to_owned();
    let text = text.replace(&release, "KERNEL");
    insta::assert_snapshot!(text, @r##"
    # HELP container_oom_kills OOM kills in the container, by whose limit was hit and what confined the allocation
    # TYPE container_oom_kills counter
    container_oom_kills_total{namespace="shop",pod="web-1",container="app",container_id="c0ffee",scope="container",constraint="memcg"} 1 # {pid="1234",comm="java"} 1.0 1787394225.0
    container_oom_kills_total{namespace="shop",pod="web-1",container="app",container_id="c0ffee",scope="pod",constraint="memcg"} 2 # {pid="1234",comm="java"} 1.0 1787394230.0
    container_oom_kills_total{namespace="",pod="",container="",container_id="idle",scope="container",constraint="memcg"} 0
    # HELP container_oom_group_kills Group kills (memory.oom.group) that the container lost processes in
    # TYPE container_oom_group_kills counter
    container_oom_group_kills_total{namespace="shop",pod="web-1",container="app",container_id="c0ffee"} 1
    container_oom_group_kills_total{namespace="",pod="",container="",container_id="idle"} 0
    # HELP container_oom_last_kill_timestamp_seconds Time of the container's last OOM kill
    # TYPE container_oom_last_kill_timestamp_seconds gauge
    # UNIT container_oom_last_kill_timestamp_seconds seconds
    container_oom_last_kill_timestamp_seconds{namespace="shop",pod="web-1",container="app",container_id="c0ffee"} 1787394230.0
    # HELP container_oom_last_limit_bytes The limit that was hit at the container's last OOM kill; the node's memory where it was no cgroup's
    # TYPE container_oom_last_limit_bytes gauge
    # UNIT container_oom_last_limit_bytes bytes
    container_oom_last_limit_bytes{namespace="shop",pod="web-1",container="app",container_id="c0ffee"} 67108864.0
    # HELP container_oom_last_usage_bytes Memory in use below that limit at the container's last OOM kill
    # TYPE container_oom_last_usage_bytes gauge
    # UNIT container_oom_last_usage_bytes bytes
    container_oom_last_usage_bytes{namespace="shop",pod="web-1",container="app",container_id="c0ffee"} 67108864.0
    # HELP container_oom_events OOM kills in the container, as cadvisor has them
    # TYPE container_oom_events counter
    container_oom_events_total{id="/kubepods/c0ffee",name="c0ffee",image="registry/web:1",container="app",pod="web-1",namespace="shop"} 3
    container_oom_events_total{id="/kubepods/idle",name="idle",image="",container="",pod="",namespace=""} 0
    # HELP oomwatch_container What is known of the container
    # TYPE oomwatch_container info
    oomwatch_container_info{namespace="shop",pod="web-1",container="app",container_id="c0ffee",pod_uid="0f2a",image="registry/web:1",runtime="containerd"} 1
    oomwatch_container_info{namespace="",pod="",container="",container_id="idle",pod_uid="",image="",runtime=""} 1
    # HELP node_oom_kills OOM kills on this node, in containers and elsewhere, by whose limit was hit
    # TYPE node_oom_kills counter
    node_oom_kills_total{scope="ancestor"} 0
    node_oom_kills_total{scope="cgroup"} 0
    node_oom_kills_total{scope="container"} 1
    node_oom_kills_total{scope="node"} 0
    node_oom_kills_total{scope="pod"} 2
    node_oom_kills_total{scope="unknown"} 0
    # HELP oomwatch_events Events told, by kind and by what they rest on
    # TYPE oomwatch_events counter
    oomwatch_events_total{kind="already_exiting",evidence="tracepoint"} 0
    oomwatch_events_total{kind="counter_only",evidence="counter"} 0
    oomwatch_events_total{kind="kill",evidence="tracepoint"} 0
    oomwatch_events_total{kind="kill",evidence="tracepoint,counter"} 3
    # HELP oomwatch_attribution Events told, by how the container was found; late ones were unregistered before
    # TYPE oomwatch_attribution counter
    oomwatch_attribution_total{attribution="ancestor"} 0
    oomwatch_attribution_total{attribution="exact"} 3
    oomwatch_attribution_total{attribution="late"} 0
    oomwatch_attribution_total{attribution="unregistered"} 0
    # HELP oomwatch_unseen_kills Kills that only a counter told of; they are in all other numbers
    # TYPE oomwatch_unseen_kills counter
    oomwatch_unseen_kills_total 0
    # HELP oomwatch_evicted_containers Containers whose series were dropped for want of room
    # TYPE oomwatch_evicted_containers counter
    oomwatch_evicted_containers_total 0
    # HELP oomwatch_evicted_kills Kills of evicted containers; node_oom_kills_total still has them
    # TYPE oomwatch_evicted_kills counter
    oomwatch_evicted_kills_total 0
    # HELP oomwatch_containers_without_series Containers without a kill that have no series for want of room
    # TYPE oomwatch_containers_without_series gauge
    oomwatch_containers_without_series 0
    # HELP oomwatch_delivery_latency_seconds From the kernel's time stamp of a mark to the publishers' queues
    # TYPE oomwatch_delivery_latency_seconds histogram
    # UNIT oomwatch_delivery_latency_seconds seconds
    oomwatch_delivery_latency_seconds_sum 0.000123
    oomwatch_delivery_latency_seconds_count 3
    oomwatch_delivery_latency_seconds_bucket{le="0.00001"} 0
    oomwatch_delivery_latency_seconds_bucket{le="0.000025"} 0
    oomwatch_delivery_latency_seconds_bucket{le="0.00005"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.0001"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.00025"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.0005"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.001"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.0025"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.005"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.01"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.025"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.05"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.1"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.25"} 3
    oomwatch_delivery_latency_seconds_bucket{le="0.5"} 3
    oomwatch_delivery_latency_seconds_bucket{le="1.0"} 3
    oomwatch_delivery_latency_seconds_bucket{le="+Inf"} 3
    # HELP oomwatch_lost Lost on the way: records for want of room in the ring or not understood, events at a publisher or the store
    # TYPE oomwatch_lost counter
    oomwatch_lost_total{stage="ring"} 5
    oomwatch_lost_total{stage="decode"} 0
    oomwatch_lost_total{stage="queue"} 5
    oomwatch_lost_total{stage="publisher"} 1
    oomwatch_lost_total{stage="store"} 0
    # HELP oomwatch_published Events that the publisher accepted
    # TYPE oomwatch_published counter
    oomwatch_published_total{publisher="otlp"} 8
    # HELP oomwatch_publisher_retries Times that an event failed at the publisher and is tried again
    # TYPE oomwatch_publisher_retries counter
    oomwatch_publisher_retries_total{publisher="otlp"} 9
    # HELP oomwatch_publisher_waiting_events Events that wait for the publisher, in its queue or in the store
    # TYPE oomwatch_publisher_waiting_events gauge
    # UNIT oomwatch_publisher_waiting_events events
    oomwatch_publisher_waiting_events{publisher="otlp"} 10.0
    # HELP oomwatch_double_counts Second counts of one kill by the kernel, which are no kills
    # TYPE oomwatch_double_counts counter
    oomwatch_double_counts_total 3
    # HELP oomwatch_residual OOM kills that the node counted and that neither a record nor a container's counter told of
    # TYPE oomwatch_residual gauge
    oomwatch_residual 7
    # HELP oomwatch_registered_containers Containers that are registered and exist
    # TYPE oomwatch_registered_containers gauge
    oomwatch_registered_containers 2
    # HELP oomwatch_source_connected Whether a runtime that is followed tells of its containers
    # TYPE oomwatch_source_connected gauge
    oomwatch_source_connected{api="docker",socket="/run/docker.sock"} 1.0
    # HELP oomwatch_probe How kills are seen, and in which kernel
    # TYPE oomwatch_probe info
    oomwatch_probe_info{tier="btf",layout="task",kernel="KERNEL"} 1
    # HELP oomwatch_build What is running
    # TYPE oomwatch_build info
    oomwatch_build_info{version="0.1.0",arch="x86_64"} 1
    # EOF
    "##);
}

#[tokio::test]
async fn the_older_format_has_the_same_numbers_and_no_exemplars() {
    let node = small();
    let text = node.metrics.render_as(MetricsFormat::Prometheus).await;
    let open = node.metrics.render().await;
    assert!(open.contains(" # {pid=\"1234\",comm=\"java\"} 1"), "{open}");
    assert!(open.ends_with("# EOF\n"));
    assert!(!text.contains("# EOF") && !text.contains(" # {"), "{text}");
    let samples = |text: &str| -> Vec<String> {
        // The formats write the bounds of buckets differently.
        let is_sample = |line: &&str| !line.starts_with('#') && !line.contains("_bucket");
        let lines = text.lines().filter(is_sample);
        let mut lines: Vec<_> = lines
            .map(|line| line.split(" # ").next().unwrap().to_owned())
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(samples(&text), samples(&open));
}

#[tokio::test]
async fn a_kill_is_told_from_the_tier_that_only_counts() {
    let node = Node::of(vec![registered("a", web())]);
    let mut counted = event_in(1, "a", web());
    counted.kind = Kind::CounterOnly;
    counted.count = 4;
    counted.scope = Scope::Unknown;
    counted.constraint = Constraint::Unknown;
    counted.evidence = vec![Evidence::Counter];
    node.counts.enter(&counted);
    let lines = node.lines("container_oom_kills_total").await;
    assert!(
        lines[0].ends_with(r#"scope="container",constraint="memcg"} 0"#),
        "{lines:?}"
    );
    assert!(
        lines[1].ends_with(r#"scope="unknown",constraint="unknown"} 4"#),
        "{lines:?}"
    );
    assert_eq!(value(&node, "oomwatch_unseen_kills_total").await, 4);
    assert_eq!(
        value(&node, r#"node_oom_kills_total{scope="unknown"}"#).await,
        4
    );
}

/// There `increase()` needs something to rise from too.
#[tokio::test]
async fn where_limits_are_not_seen_what_is_unknown_begins_at_0() {
    let mut node = Node::of(vec![registered("a", web())]);
    for (tier, expected) in [
        (Tier::Btf, &[("unknown", "unknown")][..]),
        (
            Tier::Pid,
            &[("container", "unknown"), ("unknown", "unknown")],
        ),
    ] {
        node.metrics.watched = Arc::new(Fake {
            containers: Arc::clone(&node.containers),
            tier,
            sees_limits: false,
        });
        let lines = node.lines("container_oom_kills_total").await;
        let ends = expected
            .iter()
            .map(|(scope, constraint)| format!(r#"scope="{scope}",constraint="{constraint}"}} 0"#));
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, end) in lines.iter().zip(ends) {
            assert!(line.ends_with(&end), "{line}");
        }
    }
}

#[tokio::test]
async fn what_was_dying_already_is_an_event_and_no_kill() {
    let node = Node::of(vec![registered("a", web())]);
    let mut dying = kill(1, "a");
    dying.kind = Kind::AlreadyExiting;
    dying.count = 0;
    dying.evidence = vec![Evidence::Tracepoint];
    node.counts.enter(&dying);
    assert_eq!(value(&node, "container_oom_kills_total").await, 0);
    let events = r#"oomwatch_events_total{kind="already_exiting",evidence="tracepoint"}"#;
    assert_eq!(value(&node, events).await, 1);
    assert!(node.lines("container_oom_last_kill").await.is_empty());
}

/// oomwatch publishes the same kill twice: first as `unregistered`, then for the container that claims it.
#[tokio::test]
async fn a_late_claim_moves_the_kill_and_adds_none() {
    let node = Node::of(vec![registered("a", web())]);
    let mut nobodys = kill(1, "a");
    nobodys.container = None;
    nobodys.scope = Scope::Cgroup;
    nobodys.quality.attribution = Attribution::Unregistered;
    node.counts.enter(&nobodys);
    assert_eq!(
        node.counts.version(),
        0,
        "no container's numbers have changed"
    );
    assert_eq!(value(&node, "container_oom_kills_total").await, 0);
    let mut claimed = kill(1, "a");
    claimed.seq = 2;
    claimed.supersedes = Some(1);
    claimed.quality.attribution = Attribution::Late;
    node.counts.enter(&claimed);
    assert_eq!(value(&node, "container_oom_kills_total").await, 1);
    let of_node = node.lines("node_oom_kills_total").await;
    let kills = of_node.iter().map(|line| line.rsplit(' ').next().unwrap());
    assert_eq!(
        kills
            .map(|kills| kills.parse::<u64>().unwrap())
            .sum::<u64>(),
        1
    );
    assert_eq!(
        value(&node, r#"node_oom_kills_total{scope="cgroup"}"#).await,
        1
    );
    assert_eq!(
        value(&node, "oomwatch_delivery_latency_seconds_count").await,
        1
    );
}

fn live(ids: &[&str]) -> HashSet<Series> {
    let series = |id: &&str| Series::of(&registered(id, web()).container);
    ids.iter().map(series).collect()
}

/// Two of containerd's namespaces.
#[tokio::test]
async fn two_containers_of_one_id_have_series_of_their_own() {
    let of = |realm: &str| {
        let mut one = registered("web", web());
        let container = Arc::make_mut(&mut one.container);
        container.details.runtime = Some("containerd".to_owned());
        container.details.realm = Some(realm.to_owned());
        one
    };
    let node = Node::of(vec![of("a"), of("b"), registered("other", web())]);
    let mut event = kill(1, "web");
    event.container = Some(of("b").container);
    node.counts.enter(&event);
    let lines = node.lines("container_oom_kills_total").await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    let with = |id: &str, kills: &str| {
        let mut lines = lines.iter();
        lines.any(|line| {
            line.contains(&format!(r#"container_id="{id}""#))
                && line.contains(&format!("}}{kills}"))
        })
    };
    assert!(
        with("containerd/a/web", " 0") && with("containerd/b/web", " 1"),
        "{lines:?}"
    );
    assert!(with("other", " 0"), "{lines:?}");
}

#[tokio::test]
async fn a_claims_kills_are_those_of_the_container_that_it_is_in() {
    let node = Node::of(vec![registered("outer", web())]);
    let claim = |inside: Option<&str>| {
        let mut event = kill(1, "outer");
        let container = event.container.as_mut().map(Arc::make_mut).unwrap();
        container.identity = Identity::Claimed;
        container.inside = inside.map(|id| registered(id, web()).container);
        event
    };
    node.counts.enter(&claim(None));
    node.counts.enter(&claim(Some("outer")));
    let lines = node.lines("container_oom_kills_total").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("} 1"), "{lines:?}");
    let node_kills = value(&node, r#"node_oom_kills_total{scope="container"}"#).await;
    assert_eq!(node_kills, 2);
}

#[tokio::test]
async fn a_removed_containers_series_stay_for_a_while() {
    let node = Node::of(vec![registered("a", web()), registered("b", web())]);
    node.counts.enter(&kill(1, "a"));
    let now_ns = clock::now().boottime_ns;
    node.containers.lock().unwrap().clear();
    let lines = node.lines("container_oom_kills_total").await;
    assert_eq!(lines.len(), 1, "b lost nothing: {lines:?}");
    assert!(lines[0].contains(r#"container_id="a""#), "{lines:?}");

    let none = HashSet::new();
    node.counts
        .retain_live(&none, now_ns + crate::counts::KEPT_NS - 1);
    assert_eq!(node.counts.snapshot().losses.len(), 1);
    node.counts
        .retain_live(&none, now_ns + crate::counts::KEPT_NS + 60_000_000_000);
    assert!(node.lines("container_oom_kills_total").await.is_empty());
    let evicted = value(&node, "oomwatch_evicted_containers_total").await;
    assert_eq!(evicted, 0, "its time was over, which is no want of room");
}

#[test]
fn who_lost_nothing_lately_can_be_left_out() {
    let counts = Counts::default();
    let before_ns = clock::now().boottime_ns;
    counts.enter(&kill(1, "a"));
    let lost = |since_ns| counts.losses_since(since_ns).len();
    assert_eq!(lost(before_ns), 1);
    assert_eq!(lost(clock::now().boottime_ns + 1), 0);
}

/// Docker keeps the id of a container that it starts again, on another cgroup.
#[tokio::test]
async fn an_id_that_comes_back_is_one_series() {
    let node = Node::of(vec![registered("a", web())]);
    node.counts.enter(&kill(1, "a"));
    node.containers.lock().unwrap().clear();
    node.metrics.render().await;
    let mut again = registered("a", web());
    Arc::make_mut(&mut again.container).cgroup_id = CgroupId(99);
    *node.containers.lock().unwrap() = vec![again];
    node.counts.enter(&kill(2, "a"));
    assert_eq!(value(&node, "container_oom_kills_total").await, 2);
    // It lives again, and so for longer than those that are gone.
    let now_ns = clock::now().boottime_ns;
    let live = live(&["a"]);
    node.counts
        .retain_live(&live, now_ns + 2 * crate::counts::KEPT_NS);
    assert_eq!(value(&node, "container_oom_kills_total").await, 2);
}

#[tokio::test]
async fn a_crash_loop_makes_no_more_series_than_there_is_room_for() {
    let node = Node::with(Counts::with_limit(32), Vec::new());
    for number in 0..1_000 {
        let id = format!("c{number:04}");
        *node.containers.lock().unwrap() = vec![registered(&id, web())];
        node.counts.enter(&kill(number, &id));
        if number % 10 == 0 {
            node.metrics.render().await;
        }
        assert!(node.counts.snapshot().losses.len() <= 32);
    }
    let lines = node.lines("container_oom_kills_total").await;
    assert!(lines.len() <= 32, "{}", lines.len());
    assert!(lines.last().unwrap().contains("c0999"), "{lines:?}");
    let kept = lines.len() as u64;
    assert_eq!(
        value(&node, "oomwatch_evicted_kills_total").await,
        1_000 - kept
    );
    assert_eq!(
        value(&node, r#"node_oom_kills_total{scope="container"}"#).await,
        1_000
    );
}

#[tokio::test]
async fn the_longest_removed_go_first() {
    let node = Node::with(Counts::with_limit(4), Vec::new());
    for (second, id) in (1..).zip(["old", "gone-first", "gone-second", "new"]) {
        node.counts.enter(&kill(second, id));
    }
    node.counts
        .retain_live(&live(&["old", "gone-second", "new"]), 100);
    node.counts.retain_live(&live(&["old", "new"]), 200);
    let left = |id| {
        node.counts.enter(&kill(9, id));
        let losses = node.counts.snapshot().losses;
        let ids = losses.iter().map(|losses| losses.container.id.to_string());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(left("x"), ["gone-second", "new", "old", "x"]);
    assert_eq!(left("y"), ["new", "old", "x", "y"]);
    assert_eq!(left("z"), ["new", "x", "y", "z"]);
}

#[tokio::test]
async fn containers_without_a_kill_give_way_and_are_counted() {
    let all = (0..10).map(|number| registered(&format!("c{number}"), web()));
    let node = Node::with(Counts::with_limit(4), all.collect());
    node.counts.enter(&kill(1, "c7"));
    let lines = node.lines("container_oom_kills_total").await;
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().any(|line| line.contains("c7")), "{lines:?}");
    assert_eq!(value(&node, "oomwatch_containers_without_series").await, 6);
}

/// Labels end where they are meant to, whatever is in them.
#[tokio::test]
async fn hostile_names_stay_inside_their_quotes() {
    let hostile = "a\"} 1\nb\\c\u{202e}\u{7f}";
    let details = ContainerDetails {
        name: Some(hostile.into()),
        namespace: Some("\\".into()),
        image: Some("\"".into()),
        ..ContainerDetails::default()
    };
    let mut node = Node::of(vec![registered("x\"y\\z", details.clone())]);
    node.metrics.cadvisor = true;
    let mut event = event_in(1, "x\"y\\z", details);
    event.victim.pid = Some(1);
    event.victim.comm = Some(crate::id::printable(b"\"\n\\\xff"));
    node.counts.enter(&event);
    insta::assert_snapshot!(node.lines("container_oom_kills_total").await.join("\n"), @r##"container_oom_kills_total{namespace="\\",pod="",container="a\"} 1\\x0ab\\c\\xe2\\x80\\xae\\x7f",container_id="x\"y\\z",scope="container",constraint="memcg"} 1 # {pid="1",comm="\"\\x0a\\\\xff"} 1.0 1.0"##);
    insta::assert_snapshot!(node.lines("oomwatch_container_info").await.join("\n"), @r##"oomwatch_container_info{namespace="\\",pod="",container="a\"} 1\\x0ab\\c\\xe2\\x80\\xae\\x7f",container_id="x\"y\\z",pod_uid="",image="\"",runtime=""} 1"##);
    insta::assert_snapshot!(node.lines("container_oom_events_total").await.join("\n"), @r##"container_oom_events_total{id="/kubepods/x\"y\\z",name="a\"} 1\\x0ab\\c\\xe2\\x80\\xae\\x7f",image="\"",container="a\"} 1\\x0ab\\c\\xe2\\x80\\xae\\x7f",pod="",namespace="\\"} 1"##);
    let text = node.metrics.render().await;
    for line in text.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let quotes = line.replace(r"\\", "").replace(r#"\""#, "");
        assert_eq!(quotes.matches('"').count() % 2, 0, "{line}");
    }
}

#[tokio::test]
async fn five_thousand_containers_are_one_scrape() {
    let all = (0..5_000).map(|number| registered(&format!("{number:064x}"), web()));
    let node = Node::of(all.collect());
    node.counts.enter(&kill(1, &format!("{:064x}", 4_711)));
    let text = node.metrics.render().await;
    let count = |with: &str| text.lines().filter(|line| line.starts_with(with)).count();
    assert_eq!(count("container_oom_kills_total{"), 5_000);
    assert_eq!(count("oomwatch_container_info{"), 5_000);
    assert_eq!(count("container_oom_last_kill_timestamp_seconds{"), 1);
}

#[tokio::test]
async fn a_watcher_that_has_stopped_leaves_its_counts() {
    struct Gone;
    impl Requests for Gone {
        fn status(&self) -> Answer<'_, Status> {
            Box::pin(async { Err(Stopped) })
        }

        fn containers(&self) -> Answer<'_, Vec<Registered>> {
            Box::pin(async { Err(Stopped) })
        }

        fn add<'a>(&'a self, _id: &'a str, _cgroup: &'a Path) -> Answer<'a, (), AddError> {
            Box::pin(async { Err(Stopped.into()) })
        }

        fn remove<'a>(&'a self, _id: &'a str) -> Answer<'a, (), AddError> {
            Box::pin(async { Err(Stopped.into()) })
        }
    }
    let mut node = Node::of(Vec::new());
    node.metrics.watched = Arc::new(Gone);
    node.counts.enter(&kill(1, "a"));
    assert_eq!(value(&node, "container_oom_kills_total").await, 1);
    assert!(
        node.lines("oomwatch_residual").await.is_empty(),
        "not known"
    );
}
