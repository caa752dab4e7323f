//! `oomwatch events`: the latest events of the running daemon, and new ones as they happen.

use std::io::{self, Write, stdout};

use anyhow::{Context as _, bail};
use hyper::Method;
use oomwatch::printable;
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::warn;

use super::{
    EventsArgs, HistoryOutput,
    client::{Client, Lines},
    exit::Exit,
    output,
};

#[derive(Deserialize)]
struct Events {
    events: Vec<Box<RawValue>>,
}

/// The fields of an event that this command reads.
#[derive(Deserialize)]
struct Event {
    seq: u64,
    text: String,
}

#[derive(Deserialize)]
struct Gap {
    missed: Option<u64>,
}

/// Prints the events, the oldest first.
///
/// # Errors
/// When no daemon answers or it ends, or stdout fails in another way than by being closed.
pub(crate) async fn events(args: &EventsArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.control)?;
    // The stream opens before the list, so that no event falls between the two.
    let stream = match args.follow {
        true => Some(client.lines("/v1/events/stream").await?),
        false => None,
    };
    let path = format!("/v1/events?limit={}", args.limit);
    let list = client.ask(Method::GET, &path, String::new()).await?;
    let list: Events = serde_json::from_slice(&list).context("reading the daemon's events")?;
    let mut printer = Printer {
        output: args.output,
        last: 0,
    };
    for event in &list.events {
        if let Err(error) = printer.print(event.get())? {
            return output::written(Err(error));
        }
    }
    match stream {
        None => Ok(Exit::Done),
        Some(stream) => follow(stream, printer).await,
    }
}

async fn follow(mut stream: Lines, mut printer: Printer) -> anyhow::Result<Exit> {
    let mut is_gap = false;
    while let Some(line) = stream.next().await? {
        if let Some(event) = line.strip_prefix("event: ") {
            is_gap = event == "gap";
        } else if let Some(data) = line.strip_prefix("data: ") {
            if is_gap {
                let gap: Gap = serde_json::from_str(data).context("reading the daemon's events")?;
                warn!(
                    missed = gap.missed,
                    "events were missed: stdout is read too slowly"
                );
            } else if let Err(error) = printer.print(data)? {
                return output::written(Err(error));
            }
        }
    }
    bail!("the daemon has stopped")
}

struct Printer {
    output: HistoryOutput,
    /// Number of the last event that was printed.
    last: u64,
}

impl Printer {
    /// Prints an event, unless it was printed already. The outer error is the event's, the inner one stdout's.
    fn print(&mut self, json: &str) -> anyhow::Result<io::Result<()>> {
        let event: Event = serde_json::from_str(json).context("reading the daemon's events")?;
        if event.seq <= self.last {
            return Ok(Ok(()));
        }
        self.last = event.seq;
        let mut stdout = stdout().lock();
        let written = match self.output {
            HistoryOutput::Json => writeln!(stdout, "{json}"),
            HistoryOutput::Text => writeln!(stdout, "{}", printable(event.text.as_bytes())),
        };
        Ok(written.and_then(|()| stdout.flush()))
    }
}
