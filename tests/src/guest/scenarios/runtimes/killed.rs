//! The ways in which a container loses processes, whatever the runtime.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::{
    Runtime, tools,
    truth::{Lost, compare},
};
use crate::{
    daemon::Daemon,
    guest::{case::Case, context::Context, report::Outcome},
    wait::wait_until,
};

/// The first process is the one that is killed.
const INIT: &str = "exec tail /dev/zero";
/// The same once the runtime has done with the start: until then, Podman answers no question about
/// a container, and only its own events name it.
const INIT_LATER: &str = "sleep 4; exec tail /dev/zero";
/// The first process goes on.
pub(super) const CHILD: &str = "tail /dev/zero; exec sleep 1000";
/// Loses a child for each signal.
pub(super) const ON_SIGNAL: &str = "trap 'tail /dev/zero' USR1; while :; do sleep 1; done";

/// Of the daemon that is asked for its status.
const CONTROL: &str = "/run/oomwatch-runtimes.sock";
const CONNECTED_LIMIT: Duration = Duration::from_secs(60);

/// Containers that are started at the same time. More would only wait for each other.
const LANES: usize = 3;

/// Starts the runtime, and oomwatch, and waits until the one knows the other's containers.
pub(super) fn start(context: &Context, runtime: &dyn Runtime, more: &[&str]) -> Result<Case> {
    runtime.start(context)?;
    let case = Case::start(context, &[&["--discover", "auto"], more].concat())?;
    wait_for_listings(&case, runtime)?;
    Ok(case)
}

/// The same with an environment, for a runtime that was started.
pub(super) fn start_in(
    context: &Context,
    runtime: &dyn Runtime,
    arguments: &[&str],
    environment: [(&str, String); 2],
) -> Result<Case> {
    let mut command = context.command(&["--log-format", "json", "run", "--output", "json"]);
    command.args(["--discover", "auto"]).args(arguments);
    command.envs(environment);
    let case = Case::beside(Some(Daemon::spawn(command)?))?;
    wait_for_listings(&case, runtime)?;
    Ok(case)
}

/// Waits until oomwatch has had the list of containers from every source, and again from those
/// that it lost. containerd 1.6 has no events in CRI: there is no connection to lose then.
fn wait_for_listings(case: &Case, runtime: &dyn Runtime) -> Result<()> {
    for source in runtime.sources() {
        let this = format!(r#""source":"{source}""#);
        let listed = case.wait_for_log(|lines| {
            let number = |what: &str| {
                let lines = lines.iter();
                let told = lines.filter(|line| line.contains(what) && line.contains(&this));
                told.count()
            };
            number(r#""listed""#) > number("cannot follow a container runtime for now")
        });
        ensure!(
            listed,
            "oomwatch never had the list of containers from {source}"
        );
    }
    Ok(())
}

/// Waits until the status says of every source that it is connected: that a connection was lost may be
/// noticed after the runtime is back.
fn wait_for_connections(context: &Context, runtime: &dyn Runtime) -> Result<()> {
    for name in runtime.sources() {
        wait_until(CONNECTED_LIMIT, &format!("{name} connected"), || {
            let command = context.command(&["status", "--output", "json", "--control", CONTROL]);
            let output = context.run_to_end(command)?;
            let errors = String::from_utf8_lossy(&output.stderr);
            let status: Value = serde_json::from_slice(&output.stdout)
                .with_context(|| format!("oomwatch status: {errors}"))?;
            let sources = status.get("sources").and_then(Value::as_array);
            let mut sources = sources.context("no sources in the status")?.iter();
            let source = sources.find(|source| source["api"] == *name);
            let source = source.with_context(|| format!("{name} is not followed"))?;
            Ok((source["connected"] == true).then_some(()))
        })?;
    }
    Ok(())
}

/// The container's init is killed, and the container is left where it is.
pub(super) fn init(context: &Context, runtime: &dyn Runtime) -> Result<Outcome> {
    one(context, runtime, INIT, true)
}

/// The same some time after the start.
pub(super) fn init_later(context: &Context, runtime: &dyn Runtime) -> Result<Outcome> {
    one(context, runtime, INIT_LATER, true)
}

/// A child is killed while the container's init lives: no runtime says anything of that.
pub(super) fn child(context: &Context, runtime: &dyn Runtime) -> Result<Outcome> {
    one(context, runtime, CHILD, false)
}

fn one(context: &Context, runtime: &dyn Runtime, script: &str, init: bool) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let mut case = start(context, runtime, &[])?;
    let name = context.scenario.to_owned();
    let lost = Lost {
        id: runtime.run(context, &name, script)?,
        name,
        kills: 1,
        init,
    };
    case.wait_for_logged(1)?;
    runtime.remove(context, &lost.name)?;
    compare(context, runtime, case, &[lost])
}

/// Containers that run out of memory right after their start, and are removed at once.
pub(super) fn at_once(context: &Context, runtime: &dyn Runtime) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let case = start(context, runtime, &[])?;
    let lost = lose_rounds(context, runtime)?;
    compare(context, runtime, case, &lost)
}

/// As many containers as there are rounds, some at the same time; each is removed as it ends.
pub(super) fn lose_rounds(context: &Context, runtime: &dyn Runtime) -> Result<Vec<Lost>> {
    let next = AtomicU32::new(0);
    let lane = || -> Result<Vec<Lost>> {
        let mut lost = Vec::new();
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= context.rounds {
                return Ok(lost);
            }
            let name = format!("{}-{round}", context.scenario);
            let id = runtime.run_once(context, &name, INIT)?;
            lost.push(Lost {
                name,
                id,
                kills: 1,
                init: true,
            });
        }
    };
    let lanes = thread::scope(|scope| -> Result<Vec<Vec<Lost>>> {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let ended = lanes.into_iter().map(|lane| {
            let ended = lane.join();
            ended.map_err(|_| anyhow!("panicked while starting containers"))?
        });
        ended.collect()
    })?;
    Ok(lanes.concat())
}

/// A container outlives its runtime's daemons: kills while they are down, and after, are its own.
/// So are those of a container that is started then.
pub(super) fn restart(context: &Context, runtime: &dyn Runtime) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let mut case = start(context, runtime, &["--control", CONTROL])?;
    let old = format!("{}-old", context.scenario);
    let id = runtime.run(context, &old, ON_SIGNAL)?;
    let cgroup = runtime.cgroup(&id);
    let kill = || tools::signal_first(context, &cgroup, Signal::USR1);
    let mut logged = 0;
    kill()?;
    logged += 1;
    case.wait_for_logged(logged)?;
    runtime
        .restart(context, &kill)
        .context("restarting the runtime")?;
    // What is started before that is known, but not by all its names.
    wait_for_listings(&case, runtime)?;
    wait_for_connections(context, runtime)?;
    logged += 1;
    case.wait_for_logged(logged)?;
    kill()?;
    logged += 1;
    case.wait_for_logged(logged)?;

    let new = format!("{}-new", context.scenario);
    let new = Lost {
        id: runtime.run(context, &new, INIT)?,
        name: new,
        kills: 1,
        init: true,
    };
    case.wait_for_logged(logged + 1)?;
    for name in [&old, &new.name] {
        runtime.remove(context, name)?;
    }
    let old = Lost {
        name: old,
        id,
        kills: logged,
        init: false,
    };
    compare(context, runtime, case, &[old, new])
}
