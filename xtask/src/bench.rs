//! `cargo xtask bench`: what oomwatch costs and how quick it is, against what it is meant to be.
//!
//! Reports and never fails on a number: a machine that others use too makes any of them larger.
//! What cannot be measured here is said, with the reason.

mod daemon;
mod engine;
mod table;

use std::path::Path;

use anyhow::Result;

use self::table::Table;
use crate::{build, ebpf, paths::Workspace, toolchain};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer repetitions: to see whether it works, not for numbers to quote.
    #[arg(long)]
    quick: bool,
    /// Only those whose name has this in it: records, ring, state, registered, start, listed, latency.
    filter: Option<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()))
    }
}

/// One measurement: its name, and what takes it.
type Measurement = (&'static str, fn(&Subject<'_>, &mut Table) -> Result<()>);

/// What is measured, and how thoroughly.
struct Subject<'a> {
    workspace: &'a Workspace,
    object: &'a Path,
    quick: bool,
}

const MEASUREMENTS: [Measurement; 7] = [
    ("records", engine::records),
    ("ring", engine::ring),
    ("state", engine::state),
    ("start", daemon::start),
    ("registered", daemon::registered),
    ("listed", daemon::listed),
    ("latency", daemon::latency),
];

/// Builds everything in release, measures, and prints a table in Markdown.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    toolchain::for_build(workspace)?;
    let object = ebpf::build(workspace)?;
    build::for_vm(workspace, &object)?;
    let subject = Subject {
        workspace,
        object: &object,
        quick: options.quick,
    };
    let mut table = Table::default();
    for (name, measure) in MEASUREMENTS {
        if options.wants(name) {
            eprintln!("measuring: {name}");
            if let Err(error) = measure(&subject, &mut table) {
                table.not_measured(name, &format!("{error:#}"));
            }
        }
    }
    print!("{table}");
    Ok(())
}
