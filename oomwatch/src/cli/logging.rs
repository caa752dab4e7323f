//! Logs: on stderr, never on stdout.

use std::io::stderr;

use tracing::{Level, level_filters::LevelFilter, warn};
use tracing_subscriber::{
    Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::{Color, LogFormat};

/// Sets up the log. `RUST_LOG` filters it by level and module (`info,oomwatch_ebpf=debug`); the
/// default is `info`. Filters by span or field, and so the regular expressions that they cost at
/// every start, are left out.
pub(crate) fn init(format: LogFormat, color: Color) {
    let (filter, complaint) = filter(std::env::var("RUST_LOG").ok().as_deref());
    let log = fmt::layer()
        .with_writer(stderr)
        .with_ansi(color.applies_to(&stderr()));
    let log = match format {
        LogFormat::Text => log.with_target(false).boxed(),
        LogFormat::Json => log.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .init();
    if let Some(complaint) = complaint {
        warn!("{complaint}");
    }
}

/// What to log; a setting that cannot be read is complained of and not followed.
fn filter(setting: Option<&str>) -> (Targets, Option<String>) {
    let default = Targets::new().with_default(LevelFilter::INFO);
    match setting.map(str::parse::<Targets>) {
        None => (default, None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (
            default,
            Some(format!(
                "RUST_LOG is not understood and not followed: {error}"
            )),
        ),
    }
}

/// Whether the log shows what the eBPF programs say (`RUST_LOG=oomwatch_ebpf=debug`).
/// Otherwise they are loaded without a word of it.
#[must_use]
pub(crate) fn wants_probe_log() -> bool {
    tracing::enabled!(target: "oomwatch_ebpf", Level::DEBUG)
}
