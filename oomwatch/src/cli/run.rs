//! `oomwatch run`: the daemon.

use std::io::{self, stdout};

use anyhow::Context as _;
use oomwatch::{
    Builder, CgroupDiscovery, Counts, Metrics, PublisherReport, Report, WatchError, Watcher,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, info, warn};

use super::{
    Color, Output, RunArgs, api,
    discover::{Discover, Sources},
    exit::Exit,
    history, limits, memory,
    output::{self, Ended},
    publish::{self, PublishArg},
};

/// Watches until a signal stops it, or until nobody reads stdout any more.
///
/// # Errors
/// When it cannot start, or stdout fails in another way than by being closed.
pub(crate) async fn run(args: RunArgs, color: Color) -> anyhow::Result<Exit> {
    limits::raise_open_files();
    // Before anything is attached: a signal in the middle of the start still stops in order.
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let color = color.applies_to(&stdout());
    let counts = Counts::default();
    let output = match args.output {
        // The journal would have each line twice.
        Output::Text if publish::journal_has_stdout(&args.publish) => Output::None,
        output => output,
    };
    let (builder, mut stdout_ended) = with_stdout(configure(&args, &counts)?, output, color)?;
    let (builder, api) = api::prepare(builder, &args).await?;
    let mut watcher = builder.start().await?;
    let metrics = Metrics::new(watcher.handle(), counts)
        .cadvisor(args.api.compat.contains(&api::Compat::Cadvisor));
    let mut serving = api.map(|api| api::with_metrics(api, metrics).serve(watcher.handle()));
    memory::give_back();
    announce_ready();
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = hangup.recv() => None,
        _ = interrupt.recv() => None,
        ended = wait(&mut stdout_ended) => Some(ended),
        // `shutdown` returns the reason.
        () = watcher.ended() => None,
    };
    announce_stopping();
    if let Some(serving) = &mut serving {
        serving.stop();
    }
    let outcome = watcher.shutdown().await;
    if let Some(serving) = serving {
        serving.finish().await;
    }
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            if let WatchError::Ring { report, .. } = &error {
                summarize(report);
            }
            return Err(error.into());
        }
    };
    summarize(&report);
    // stdout may have failed while the last events were written.
    let at_last = stdout_ended.and_then(|mut ended| ended.try_recv().ok());
    let ended = ended.or(at_last.filter(Result::is_err));
    if ended.is_none() && report.lost_while_stopping > 0 {
        warn!(
            lost = report.lost_while_stopping,
            "stdout did not take all events before the end"
        );
        return Ok(Exit::Failure);
    }
    match ended {
        // The reader of the events has seen enough.
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("writing events to stdout")
        }
        _ => Ok(Exit::Done),
    }
}

fn configure(args: &RunArgs, counts: &Counts) -> anyhow::Result<Builder> {
    let mut discover = args.discover.clone();
    if PublishArg::wants_containerd(&args.publish) {
        // Only containerd itself knows its namespaces.
        discover.push(Discover::Containerd);
    }
    let sources = Sources::choose(&discover, &args.socket);
    let discovery = match (sources.by_path, args.all_cgroups) {
        (_, true) => CgroupDiscovery::Leaves,
        (true, false) => CgroupDiscovery::Containers,
        (false, false) => CgroupDiscovery::Off,
    };
    let mut builder = Watcher::builder()
        .discover_cgroups(discovery)
        .discover_units(sources.units)
        .ring_bytes(args.ring_size)
        .tier(args.tier.into());
    #[cfg(feature = "probe-log")]
    {
        builder = builder.log_probe(super::logging::wants_probe_log());
    }
    if let Some(dir) = history::kept_in(&args.store) {
        builder = builder
            .state_dir(dir)
            .history_max_age(args.store.history_max_age)
            .history_max_bytes(args.store.history_max_size.as_u64());
    }
    builder = builder.counts(counts);
    builder = publish::configure(builder, &args.publish, &sources.sockets)?;
    builder = publish::add_otlp(builder, &args.publish, args.node.as_deref(), counts)?;
    for socket in sources.sockets {
        builder = builder.runtime(socket);
    }
    for socket in sources.possible {
        builder = builder.runtime_if_present(socket);
    }
    if let Some(dir) = &args.pin {
        builder = builder.pin(dir);
    }
    for container in &args.container {
        builder = builder.container(&container.id, &container.path);
    }
    if let Some(node) = &args.node {
        builder = builder.node(node.as_str());
    }
    Ok(builder)
}

fn with_stdout(
    builder: Builder,
    output: Output,
    color: bool,
) -> anyhow::Result<(Builder, Option<Ended>)> {
    if output == Output::None {
        return Ok((builder, None));
    }
    let (publisher, ended) = output::start(output, color).context("starting the stdout thread")?;
    Ok((builder.publisher(publisher), Some(ended)))
}

/// How writing to stdout ended; never returns where nothing is written.
async fn wait(ended: &mut Option<Ended>) -> io::Result<()> {
    match ended {
        Some(ended) => ended.await.unwrap_or(Ok(())),
        None => std::future::pending().await,
    }
}

fn announce_ready() {
    info!("ready");
    notify(&[sd_notify::NotifyState::Ready]);
}

fn announce_stopping() {
    notify(&[sd_notify::NotifyState::Stopping]);
}

fn notify(states: &[sd_notify::NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager was not notified");
    }
}

fn summarize(report: &Report) {
    info!(
        kills = report.totals.kills,
        counter_only = report.totals.counter_only,
        double_counts = report.totals.double_counts,
        unregistered = report.totals.unregistered,
        already_exiting = report.totals.already_exiting,
        folded = report.totals.folded,
        late = report.totals.late,
        residual = report.residual,
        "stopped"
    );
    let lost = report.lost;
    let stages = [
        lost.ring,
        lost.decode,
        lost.queue,
        lost.publisher,
        lost.store,
    ];
    if stages.iter().any(|&lost| lost > 0) {
        warn!(
            ring = lost.ring,
            decode = lost.decode,
            queue = lost.queue,
            publisher = lost.publisher,
            store = lost.store,
            "events were lost"
        );
    }
    for publisher in &report.publishers {
        summarize_publisher(publisher);
    }
}

fn summarize_publisher(report: &PublisherReport) {
    let (queue, refused) = (report.lost_in_queue, report.lost_by_publisher);
    let (name, waiting) = (&report.name, report.waiting);
    if queue + refused > 0 {
        warn!(
            publisher = name,
            queue, refused, waiting, "a publisher missed events"
        );
    } else if waiting > 0 {
        info!(
            publisher = name,
            waiting, "events wait in the store for the next start"
        );
    }
}
