//! Reads events as JSON, one a line, and prints how many kills each container had.
//!
//! ```console
//! $ oomwatch history --output json | read_events
//! ```
//!
//! Needs neither privileges nor a daemon. A line that is no event is named, and makes the exit code 1.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use oomwatch::OomEvent;

/// The kills of one event, and whose they were.
struct Loss {
    owner: String,
    kills: u64,
}

fn main() -> Result<ExitCode> {
    let mut losses = HashMap::new();
    let mut refused = 0;
    for (index, line) in io::stdin().lock().lines().enumerate() {
        let line = line.context("reading standard input")?;
        match OomEvent::from_json(&line) {
            // The last event of an id counts: a later one names the container that was missing.
            Ok(event) => drop(losses.insert(event.id.clone(), loss(&event))),
            Err(error) => {
                refused += 1;
                eprintln!("line {}: {error}", index + 1);
            }
        }
    }
    print(&by_owner(losses.into_values())).context("writing the summary")?;
    Ok(if refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn loss(event: &OomEvent) -> Loss {
    let owner = match &event.container {
        Some(container) => container.id.to_string(),
        None => "(no container)".to_owned(),
    };
    Loss {
        owner,
        kills: event.count,
    }
}

fn by_owner(losses: impl Iterator<Item = Loss>) -> BTreeMap<String, u64> {
    let mut kills = BTreeMap::new();
    for loss in losses {
        *kills.entry(loss.owner).or_default() += loss.kills;
    }
    kills
}

fn print(kills: &BTreeMap<String, u64>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (owner, kills) in kills {
        writeln!(out, "{kills:>8}  {owner}")?;
    }
    writeln!(out, "{:>8}  in all", kills.values().sum::<u64>())
}
