//! What takes a container's name without being it, beside real runtimes.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::chown,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::{
    Cri, Docker, HOG_IMAGE, LIMIT_BYTES, Podman, Runtime,
    ctr::{Ctr, OOM},
    killed::{self, ON_SIGNAL},
    tools,
};
use crate::{
    api_server::ApiServer,
    cgroup::Cgroup,
    event::Event,
    guest::{
        case::{Case, KILL_LIMIT},
        context::Context,
        report::Outcome,
    },
    wait::wait_until,
};

const HOG: &str = "claimed-hog";
const NOBODY: u32 = 65_534;
const METRICS: &str = "127.0.0.1:9464";
const CONTROL: &str = "/run/oomwatch-claimed.sock";
/// Where a pod has it.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const WAITS: &str = "exec sleep 1000";

/// A user's cgroup with the id of a real Docker container, of which all is published: the event is a claim without
/// a name, the list says so, containerd hears nothing of it, and a kill in the real container is told as ever.
pub(super) fn forged(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    Docker.start(context)?;
    let events = Ctr::start()?;
    let more = ["--publish", "containerd=always", "--control", CONTROL];
    let mut case = killed::start(context, &Docker, &more)?;
    let id = Docker.run(context, context.scenario, WAITS)?;
    let (_user, forged) = forge(context, &Docker.cgroup(&id))?;

    let claim = lose(context, &mut case, &forged)?;
    ensure!(claim.text("quality.identity")? == "claimed", "{claim}");
    for name in [
        "container.name",
        "container.image",
        "container.containerd_namespace",
    ] {
        ensure!(claim.text_or_null(name)?.is_none(), "{name} of {claim}");
    }
    let listed = identities(context, &id)?;
    ensure!(
        listed == ["claimed", "runtime"],
        "the list has {listed:?} for the id"
    );
    ensure!(
        events.count(OOM, &id) == 0,
        "containerd was told of a claim"
    );

    tools::tool(
        context,
        &[
            "docker",
            "exec",
            "--detach",
            context.scenario,
            "tail",
            "/dev/zero",
        ],
    )?;
    case.wait_for_kills(2);
    let findings = case.finish()?;
    let mut kills = findings.events().iter().filter(|event| event.is_kill());
    let real = kills.next_back().context("no second kill")?;
    ensure!(real.text("quality.identity")? == "runtime", "{real}");
    ensure!(real.text("container.name")? == context.scenario, "{real}");
    Docker.remove(context, context.scenario)?;
    ensure!(
        events.count(OOM, &id) > 0,
        "containerd was not told of the container's own kill"
    );
    Ok(Outcome::Passed(format!(
        "a claim without a name, and the container's own kill; {} OOM events of containerd",
        events.count(OOM, &id)
    )))
}

/// The same with a pod's container, of which Kubernetes is told, and which has metrics.
pub(super) fn forged_pod(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let runtime = Cri::SYSTEMD;
    runtime.start(context)?;
    let server = ApiServer::start(Path::new(SERVICE_ACCOUNT))?;
    let more = ["--publish", "kubernetes", "--listen", METRICS];
    let mut case = killed::start_in(context, &runtime, &more, server.environment())?;
    let id = runtime.run(context, context.scenario, ON_SIGNAL)?;
    let (user, forged) = forge(context, &runtime.cgroup(&id))?;
    let claim = lose(context, &mut case, &forged)?;
    ensure!(claim.text("quality.identity")? == "claimed", "{claim}");
    for name in ["container.name", "container.pod", "container.namespace"] {
        ensure!(claim.text_or_null(name)?.is_none(), "{name} of {claim}");
    }
    let of_pod = |text: &str| {
        let lines = text.lines();
        let ours = lines.filter(|line| {
            line.starts_with("container_oom_kills_total{") && line.contains(r#"namespace="shop""#)
        });
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    let metrics = of_pod(&metrics()?);
    ensure!(
        !metrics.is_empty() && metrics.iter().all(|line| line.ends_with(" 0")),
        "a claim in {metrics:?}"
    );
    ensure!(
        server.events().is_empty(),
        "Events of a claim: {:?}",
        server.events()
    );

    // From here on the container's cgroup is the only one of its name.
    drop((forged, user));
    tools::signal_first(context, &runtime.cgroup(&id), Signal::USR1)?;
    case.wait_for_kills(2);
    let told = wait_until(KILL_LIMIT, "an Event", || Ok(server.events().pop()))?;
    let counted = of_pod(&self::metrics()?);
    ensure!(
        counted.iter().filter(|line| line.contains("} 1 ")).count() == 1,
        "{counted:?}"
    );
    let findings = case.finish()?;
    let mut kills = findings.events().iter().filter(|event| event.is_kill());
    let real = kills.next_back().context("no second kill")?;
    ensure!(real.text("quality.identity")? == "runtime", "{real}");
    runtime.remove(context, context.scenario)?;
    let regarding = told.get("regarding").context("an Event of nothing")?;
    ensure!(server.events().len() == 1, "{:?}", server.events());
    Ok(Outcome::Passed(format!(
        "a claim without a pod, and the container's own kill; one Event, regarding {regarding}; {}",
        counted.join(" ")
    )))
}

/// A cgroup of a user's below one that was given to him; keep both.
fn forge(context: &Context, name: &str) -> Result<(Cgroup, Cgroup)> {
    let user = context.cgroup("claimed-user")?;
    user.enable_memory()?;
    chown(user.path(), Some(NOBODY), Some(NOBODY)).context("giving the cgroup away")?;
    let forged = user.child(name)?;
    chown(forged.path(), Some(NOBODY), Some(NOBODY)).context("giving the cgroup away")?;
    forged.limit_memory(LIMIT_BYTES)?;
    Ok((user, forged))
}

/// What Prometheus would get.
fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS).context(METRICS)?;
    stream.write_all(
        format!("GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("the metrics")?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "{text}");
    Ok(text)
}

/// A container without a cgroup of its own: a kill of another process where it runs is not its kill.
pub(super) fn without_cgroup(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let podman = Podman::CRUN;
    let session = context.cgroup("session")?;
    let mut case = killed::start(context, &podman, &["--control", CONTROL])?;
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec podman run --detach --network=none --cgroups=disabled --name {} {HOG_IMAGE} sleep 1000",
        session.path().display(),
        context.scenario
    );
    let id = tools::tool(context, &["sh", "-c", &script])?;
    let listed = identities(context, &id)?;
    ensure!(listed.is_empty(), "the list has it: {listed:?}");
    // Podman itself needs more.
    session.limit_memory(LIMIT_BYTES)?;
    let event = lose(context, &mut case, &session)?;
    case.finish()?;
    podman.remove(context, context.scenario)?;
    ensure!(event.container_id()?.is_none(), "{event}");
    Ok(Outcome::Passed("no container".to_owned()))
}

/// A process dies of a cgroup's limit; its event.
fn lose(context: &Context, case: &mut Case, cgroup: &Cgroup) -> Result<Event> {
    let pid = context.lose_a_process(HOG, cgroup)?;
    case.wait_for_event(&format!("of {pid}"), |event| {
        event.is_kill() && event.victim_pid().is_ok_and(|victim| victim == pid)
    })
}

/// On what evidence the listed containers with an id have it, in order.
fn identities(context: &Context, id: &str) -> Result<Vec<String>> {
    let command = context.command(&["list", "--output", "json", "--control", CONTROL]);
    let output = context.run_to_end(command)?;
    let listed: Value = serde_json::from_slice(&output.stdout).context("oomwatch list")?;
    let listed = listed
        .get("containers")
        .and_then(Value::as_array)
        .context("no containers")?;
    let of_id = listed
        .iter()
        .filter(|one| one.get("id").and_then(Value::as_str) == Some(id));
    let identity = |one: &Value| one.get("identity")?.as_str().map(str::to_owned);
    let mut identities: Vec<String> = of_id.filter_map(identity).collect();
    identities.sort();
    Ok(identities)
}
