//! `oomwatch run --publish journald`: what `journalctl` finds of a kill, also of one that happened
//! while journald was down.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{LIMIT_BYTES, Runtime, Systemd, killed, tools};
use crate::{
    event::Event,
    guest::{checks::Checks, context::Context, report::Outcome},
    wait::wait_until,
};

const ENTRY_LIMIT: Duration = Duration::from_secs(60);
/// They would start journald again.
const SOCKETS: &[&str] = &[
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-journald-audit.socket",
];
const JOURNALD: &str = "systemd-journald.service";

/// One kill while journald runs, and one while it is down.
pub(super) fn read_back(context: &Context) -> Result<Outcome> {
    if let Some(skip) = context.dry_skip() {
        return Ok(skip);
    }
    let mut case = killed::start(context, &Systemd, &["--publish", "journald"])?;
    let names = ["up", "down"].map(|when| format!("{}-{when}", context.scenario));
    Systemd.run(context, &names[0], killed::CHILD)?;
    case.wait_for_logged(1)?;
    case.wait_for_kills(1);
    // What a service is started with is written to the journal, so it is started before.
    let waiting = format!(
        "until [ -e /run/{0} ]; do sleep 1; done; {1}",
        names[1],
        killed::CHILD
    );
    Systemd.run(context, &names[1], &waiting)?;
    tools::tool(
        context,
        &[&["systemctl", "stop"], SOCKETS, &[JOURNALD]].concat(),
    )?;
    std::fs::write(format!("/run/{}", names[1]), "").context("letting the second one go on")?;
    case.wait_for_logged(2)?;
    case.wait_for_kills(2);
    tools::tool(
        context,
        &[&["systemctl", "start"], SOCKETS, &[JOURNALD]].concat(),
    )?;
    let entries = wait_until(ENTRY_LIMIT, "both kills in the journal", || {
        let entries = entries(context)?;
        Ok((entries.len() >= names.len()).then_some(entries))
    })?;
    let findings = case.finish()?;
    for name in &names {
        Systemd.remove(context, name)?;
    }

    let mut checks = Checks::new(&findings);
    let events = checks.kills(names.len()).unwrap_or_default();
    checks.eq("entries", Ok(entries.len()), events.len());
    for (event, entry) in events.into_iter().zip(&entries) {
        compare(&mut checks, event, entry)?;
        context.report.note(&format!("journalctl: {entry}"));
    }
    checks.finish(&format!("{} kills in the journal", entries.len()))
}

/// All entries of this boot, in the order in which they came.
fn entries(context: &Context) -> Result<Vec<Value>> {
    let message_id = format!("MESSAGE_ID={}", oomwatch::JOURNAL_MESSAGE_ID);
    let words = [
        "journalctl",
        "--boot",
        "--all",
        "--output=json",
        &message_id,
    ];
    let lines = tools::tool(context, &words)?;
    let entries = lines.lines().filter(|line| line.starts_with('{'));
    let parsed = entries.map(|line| serde_json::from_str(line).context("an entry"));
    parsed.collect()
}

fn compare(checks: &mut Checks<'_>, event: &Event, entry: &Value) -> Result<()> {
    let field = |name: &str| {
        let value = entry.get(name).and_then(Value::as_str);
        value.with_context(|| format!("{name} in {entry}"))
    };
    let limit = LIMIT_BYTES.to_string();
    let pid = event.victim_pid()?.to_string();
    let id = event.text("id")?;
    let container = event.text("container.id")?;
    let comm = event.text("victim.comm")?;
    for (name, expected) in [
        ("PRIORITY", "3"),
        ("SYSLOG_IDENTIFIER", "oomwatch"),
        ("OOMWATCH_KIND", "kill"),
        ("OOMWATCH_SCOPE", "container"),
        ("OOMWATCH_CONSTRAINT", "memcg"),
        ("OOMWATCH_EVENT_ID", &id),
        ("OOMWATCH_CONTAINER_ID", &container),
        ("OOMWATCH_VICTIM_PID", &pid),
        ("OOMWATCH_VICTIM_COMM", &comm),
        ("OOMWATCH_LIMIT_BYTES", &limit),
    ] {
        checks.eq(name, field(name), expected);
    }
    let message = field("MESSAGE")?;
    let about_it = message.contains(&comm) && message.contains(&pid);
    checks.that("the message names the victim", about_it);
    Ok(())
}
