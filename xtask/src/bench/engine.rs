//! What the library's own benchmark (`oomwatch/benches/engine.rs`) measures.

use anyhow::{Context as _, Result, bail};

use super::{
    Subject,
    table::{Table, Target},
};
use crate::{ebpf, process};

/// From bytes as the ring has them to events in a publisher's hand.
pub(super) fn records(subject: &Subject<'_>, table: &mut Table) -> Result<()> {
    let rate = run(subject, "records", "records_per_second")?;
    let what = "records: bytes to events, 1,000 containers, chains of 6";
    table.add(what, rate, "per second", Target::AtLeast(200_000.0));
    Ok(())
}

/// From the kernel's ring, filled by test runs of the real program, to verdicts.
pub(super) fn ring(subject: &Subject<'_>, table: &mut Table) -> Result<()> {
    let rate = run(subject, "ring", "ring_records_per_second")?;
    let what = "records: the kernel's ring to verdicts";
    table.add(what, rate, "per second", Target::AtLeast(200_000.0));
    Ok(())
}

/// What the library keeps of an idle container where there are counters, whatever this host has.
pub(super) fn state(subject: &Subject<'_>, table: &mut Table) -> Result<()> {
    let bytes = run(subject, "state", "state_bytes")?;
    let what = "state of an idle container, with counters";
    table.add(what, bytes, "bytes", Target::AtMost(300.0));
    Ok(())
}

/// Runs one part of the benchmark, and takes the number of that name from its lines.
fn run(subject: &Subject<'_>, part: &str, name: &str) -> Result<f64> {
    let mut cargo = process::cargo();
    cargo
        .args(["bench", "--package", "oomwatch", "--features", "bench"])
        .args(["--bench", "engine", "--", part])
        .args(subject.quick.then_some("--quick"))
        .current_dir(&subject.workspace.root)
        .env(ebpf::OBJECT_ENV, subject.object);
    let output = process::capture(&mut cargo)?;
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))
        .with_context(|| format!("the benchmark said nothing of {name}"))?;
    match line.split_once('\t') {
        Some((_, reason)) => bail!("{reason}"),
        None => line.parse().with_context(|| format!("`{line}`")),
    }
}
