//! One scrape: everything known at a moment, written as metrics. Pure.

mod lines;

use std::{collections::HashMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, histogram::Histogram},
};

use self::lines::Lines;
use super::labels::{Labels, Pairs, text};
use crate::{
    containers::{container::Container, identity::Identity},
    counts::{Losses, Series, Snapshot},
    engine::naming::Registered,
    event::Scope,
    publish::PublisherReport,
    record::Constraint,
    watcher::{Report, SourceReport, Status},
};

/// Whose limit was hit, and what confined the allocation.
type Kind = (Scope, Constraint);

const AT_ITS_LIMIT: [Kind; 1] = [(Scope::Container, Constraint::Memcg)];
const AT_SOME_LIMIT: [Kind; 1] = [(Scope::Unknown, Constraint::Unknown)];
const BY_COUNTER: [Kind; 2] = [
    (Scope::Container, Constraint::Unknown),
    (Scope::Unknown, Constraint::Unknown),
];

/// Everything that a scrape writes.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) snapshot: Snapshot,
    pub(super) status: Option<Status>,
    /// The containers that exist.
    pub(super) containers: Vec<Registered>,
    pub(super) max_containers: usize,
    pub(super) cadvisor: bool,
}

/// A container with series of its own: it exists, or lost a process, or both.
struct Row<'a> {
    container: &'a Container,
    labels: Labels,
    live: Option<&'a Registered>,
    losses: Option<&'a Arc<Losses>>,
}

impl<'a> Row<'a> {
    /// A row of an existing container has its current names.
    fn new(
        live: Option<&'a Registered>,
        losses: Option<&'a Arc<Losses>>,
        ids: &Ids<'a>,
    ) -> Option<Self> {
        let of_losses = losses.map(|losses| &losses.container);
        let container = live.map(|live| &live.container).or(of_losses)?;
        Some(Self {
            container,
            labels: Labels::of(container, ids.is_unique(container)),
            live,
            losses,
        })
    }
}

/// Which ids several containers have.
struct Ids<'a>(HashMap<&'a str, Option<Series>>);

impl<'a> Ids<'a> {
    fn of(containers: impl Iterator<Item = &'a Container>) -> Self {
        let mut ids = HashMap::new();
        for container in containers {
            let series = Some(Series::of(container));
            let first = ids.entry(container.id.as_str()).or_insert(series.clone());
            if *first != series {
                *first = None;
            }
        }
        Self(ids)
    }

    fn is_unique(&self, container: &Container) -> bool {
        self.0
            .get(container.id.as_str())
            .is_none_or(Option::is_some)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut lines = Lines::new(encoder);
        let (rows, left_out) = self.rows();
        kills(&mut lines, &rows, self.usual())?;
        group_kills(&mut lines, &rows)?;
        last_kills(&mut lines, &rows)?;
        if self.cadvisor {
            as_cadvisor(&mut lines, &rows)?;
        }
        info(&mut lines, &rows)?;
        self.node(&mut lines)?;
        self.own_events(&mut lines)?;
        self.cardinality(&mut lines, left_out)?;
        latency(&mut lines, &self.snapshot.node.latency)?;
        if let Some(status) = &self.status {
            own_state(&mut lines, status)?;
        }
        build(&mut lines)
    }
}

impl Scrape {
    /// The kinds of most kills, as this host sees them.
    fn usual(&self) -> &'static [Kind] {
        match &self.status {
            Some(status) if status.sees_limits => &AT_ITS_LIMIT,
            Some(status) if status.tier.reads_counters() => &BY_COUNTER,
            Some(_) => &AT_SOME_LIMIT,
            None => &[],
        }
    }

    /// The containers to write, by id, and the number left out. Containers that lost no process are left out first.
    fn rows(&self) -> (Vec<Row<'_>>, usize) {
        let losses = &self.snapshot.losses;
        let of_losses = losses.iter();
        let mut others: HashMap<Series, &Arc<Losses>> = of_losses
            .map(|losses| (Series::of(&losses.container), losses))
            .collect();
        let mut room = self.max_containers.saturating_sub(losses.len());
        let mut left_out = 0;
        let mut rows = Vec::with_capacity(self.containers.len() + losses.len());
        // A claim has no series of its own, and takes nobody's place.
        let is_series = |live: &&Registered| live.container.identity != Identity::Claimed;
        let mut live: Vec<_> = self.containers.iter().filter(is_series).collect();
        let ids = Ids::of(
            live.iter()
                .map(|live| &*live.container)
                .chain(losses.iter().map(|losses| &*losses.container)),
        );
        live.sort_unstable_by(|left, right| left.container.id.cmp(&right.container.id));
        for live in live {
            let lost = others.remove(&Series::of(&live.container));
            if lost.is_none() && room == 0 {
                left_out += 1;
                continue;
            }
            room -= usize::from(lost.is_none());
            rows.extend(Row::new(Some(live), lost, &ids));
        }
        rows.extend(
            others
                .into_values()
                .filter_map(|lost| Row::new(None, Some(lost), &ids)),
        );
        rows.sort_unstable_by(|left, right| left.container.id.cmp(&right.container.id));
        (rows, left_out)
    }

    fn node(&self, lines: &mut Lines<'_>) -> fmt::Result {
        let by_scope = self.snapshot.node.kills.iter();
        lines.counters(
            "node_oom_kills",
            "OOM kills on this node, in containers and elsewhere, by whose limit was hit",
            by_scope.map(|(scope, kills)| ([("scope", *scope)], *kills)),
        )
    }

    fn own_events(&self, lines: &mut Lines<'_>) -> fmt::Result {
        let node = &self.snapshot.node;
        lines.counters(
            "oomwatch_events",
            "Events told, by kind and by what they rest on",
            node.events.iter().map(|((kind, evidence), events)| {
                ([("kind", *kind), ("evidence", *evidence)], *events)
            }),
        )?;
        lines.counters(
            "oomwatch_attribution",
            "Events told, by how the container was found; late ones were unregistered before",
            node.attribution
                .iter()
                .map(|(found, events)| ([("attribution", *found)], *events)),
        )?;
        lines.counter(
            "oomwatch_unseen_kills",
            "Kills that only a counter told of; they are in all other numbers",
            node.recovered,
        )
    }

    fn cardinality(&self, lines: &mut Lines<'_>, left_out: usize) -> fmt::Result {
        let node = &self.snapshot.node;
        lines.counter(
            "oomwatch_evicted_containers",
            "Containers whose series were dropped for want of room",
            node.evicted_containers,
        )?;
        lines.counter(
            "oomwatch_evicted_kills",
            "Kills of evicted containers; node_oom_kills_total still has them",
            node.evicted_kills,
        )?;
        lines.gauge(
            "oomwatch_containers_without_series",
            "Containers without a kill that have no series for want of room",
            left_out as u64,
        )
    }
}

/// Every container that exists has the series of the usual kills, as 0 at first.
fn kills(lines: &mut Lines<'_>, rows: &[Row<'_>], usual: &[Kind]) -> fmt::Result {
    let mut family = lines.family(
        "container_oom_kills",
        "OOM kills in the container, by whose limit was hit and what confined the allocation",
        None,
        MetricType::Counter,
    )?;
    for row in rows {
        let losses = row.losses.map(|losses| losses.kills.as_slice());
        let losses = losses.unwrap_or_default();
        let usual = usual.iter().filter(|_| row.live.is_some());
        let is_new = |kind: &&Kind| !losses.iter().any(|kills| kills.kind() == **kind);
        for kind in usual.filter(is_new) {
            let labels = (row.labels.pairs(), kind_labels(*kind));
            lines::counter(&mut family, &labels, 0)?;
        }
        for kills in losses {
            let labels = (row.labels.pairs(), kind_labels(kills.kind()));
            lines::counter_with_victim(&mut family, &labels, kills)?;
        }
    }
    Ok(())
}

fn kind_labels((scope, constraint): Kind) -> Pairs<'static, 2> {
    [
        ("scope", scope.as_str()),
        ("constraint", constraint.as_str()),
    ]
}

fn group_kills(lines: &mut Lines<'_>, rows: &[Row<'_>]) -> fmt::Result {
    lines.counters(
        "container_oom_group_kills",
        "Group kills (memory.oom.group) that the container lost processes in",
        rows.iter().map(|row| {
            let group_kills = row.losses.map_or(0, |losses| losses.group_kills);
            (row.labels.pairs(), group_kills)
        }),
    )
}

fn last_kills(lines: &mut Lines<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let last = || {
        let lost = rows.iter().filter_map(|row| Some((row, row.losses?)));
        lost.map(|(row, losses)| (row.labels.pairs(), losses.last))
    };
    lines.gauges(
        ("container_oom_last_kill_timestamp", Some("seconds")),
        "Time of the container's last OOM kill",
        last().map(|(labels, last)| (labels, seconds(last.unix_time_ns))),
    )?;
    lines.gauges(
        ("container_oom_last_limit", Some("bytes")),
        "The limit that was hit at the container's last OOM kill; the node's memory where it was no cgroup's",
        last().filter_map(|(labels, last)| Some((labels, last.limit_bytes? as f64))),
    )?;
    lines.gauges(
        ("container_oom_last_usage", Some("bytes")),
        "Memory in use below that limit at the container's last OOM kill",
        last().filter_map(|(labels, last)| Some((labels, last.usage_bytes? as f64))),
    )
}

fn seconds(unix_time_ns: i128) -> f64 {
    unix_time_ns as f64 / 1e9
}

/// Writes cadvisor's metric, only for containers that exist.
fn as_cadvisor(lines: &mut Lines<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut family = lines.family(
        "container_oom_events",
        "OOM kills in the container, as cadvisor has them",
        None,
        MetricType::Counter,
    )?;
    for row in rows {
        let Some(path) = row.live.and_then(|live| live.cgroup_path.as_deref()) else {
            continue;
        };
        let image = text(row.container.details.image.as_deref());
        let kills = row.losses.map_or(0, |losses| losses.total());
        lines::counter(&mut family, &row.labels.cadvisor(path, &image), kills)?;
    }
    Ok(())
}

fn info(lines: &mut Lines<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut family = lines.family(
        "oomwatch_container",
        "What is known of the container",
        None,
        MetricType::Info,
    )?;
    for row in rows {
        let details = &row.container.details;
        let (pod_uid, image) = (
            text(details.pod_uid.as_deref()),
            text(details.image.as_deref()),
        );
        let runtime = text(details.runtime.as_deref());
        let more = [
            ("pod_uid", pod_uid.as_str()),
            ("image", image.as_str()),
            ("runtime", runtime.as_str()),
        ];
        family.encode_info(&(row.labels.pairs(), more))?;
    }
    Ok(())
}

fn latency(lines: &mut Lines<'_>, latency: &Histogram) -> fmt::Result {
    let family = lines.family(
        "oomwatch_delivery_latency",
        "From the kernel's time stamp of a mark to the publishers' queues",
        Some("seconds"),
        MetricType::Histogram,
    )?;
    latency.encode(family)
}

fn own_state(lines: &mut Lines<'_>, status: &Status) -> fmt::Result {
    lines.counters(
        "oomwatch_lost",
        "Lost on the way: records for want of room in the ring or not understood, events at a publisher or the store",
        lost(&status.report).map(|(stage, lost)| ([("stage", stage)], lost)),
    )?;
    publishers(lines, &status.report.publishers)?;
    lines.counter(
        "oomwatch_double_counts",
        "Second counts of one kill by the kernel, which are no kills",
        status.report.totals.double_counts,
    )?;
    lines.gauge(
        "oomwatch_residual",
        "OOM kills that the node counted and that neither a record nor a container's counter told of",
        status.report.residual,
    )?;
    lines.gauge(
        "oomwatch_registered_containers",
        "Containers that are registered and exist",
        status.containers as u64,
    )?;
    sources(lines, &status.sources)?;
    let kernel = rustix::system::uname();
    let kernel = crate::id::printable(kernel.release().to_bytes());
    lines.info(
        "oomwatch_probe",
        "How kills are seen, and in which kernel",
        &[
            ("tier", status.tier.as_str()),
            ("layout", status.tier.layout()),
            ("kernel", &kernel),
        ],
    )
}

/// A runtime that is down leaves its containers without names. This metric shows it before one of them is killed.
fn sources(lines: &mut Lines<'_>, sources: &[SourceReport]) -> fmt::Result {
    let each = sources.iter().map(|source| {
        let socket = source.socket.path.to_string_lossy();
        let labels = [
            ("api", source.socket.api.as_str().into()),
            ("socket", socket),
        ];
        (labels, f64::from(u8::from(source.connected)))
    });
    lines.gauges(
        ("oomwatch_source_connected", None),
        "Whether a runtime that is followed tells of its containers",
        each,
    )
}

/// Each publisher has its own series. They separate one that is behind from one that loses events.
fn publishers(lines: &mut Lines<'_>, publishers: &[PublisherReport]) -> fmt::Result {
    let each = |number: fn(&PublisherReport) -> u64| {
        publishers
            .iter()
            .map(move |one| ([("publisher", one.name.as_str())], number(one)))
    };
    lines.counters(
        "oomwatch_published",
        "Events that the publisher accepted",
        each(|one| one.published),
    )?;
    lines.counters(
        "oomwatch_publisher_retries",
        "Times that an event failed at the publisher and is tried again",
        each(|one| one.retries),
    )?;
    let waiting = each(|one| one.waiting);
    lines.gauges(
        ("oomwatch_publisher_waiting", Some("events")),
        "Events that wait for the publisher, in its queue or in the store",
        waiting.map(|(labels, waiting)| (labels, waiting as f64)),
    )
}

fn lost(report: &Report) -> impl Iterator<Item = (&'static str, u64)> {
    let lost = report.lost;
    [
        ("ring", lost.ring),
        ("decode", lost.decode),
        ("queue", lost.queue),
        ("publisher", lost.publisher),
        ("store", lost.store),
    ]
    .into_iter()
}

fn build(lines: &mut Lines<'_>) -> fmt::Result {
    let version = env!("CARGO_PKG_VERSION");
    lines.info(
        "oomwatch_build",
        "What is running",
        &[("version", version), ("arch", std::env::consts::ARCH)],
    )
}
