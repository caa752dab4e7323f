//! Retries: how long to wait between tries, how long one try may take, and how to log its failure.

use std::{error::Error, time::Duration};

use backon::BackoffBuilder as _;

/// Shortest and longest time between two tries to connect.
const FIRST_RETRY: Duration = Duration::from_millis(250);
pub(crate) const LAST_RETRY: Duration = Duration::from_secs(30);
/// Longest time of a source's request; after that the runtime is taken to hang.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The times between tries to connect.
pub(crate) fn delays() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::new()
        .with_min_delay(FIRST_RETRY)
        .with_max_delay(LAST_RETRY)
        .with_jitter()
        .without_max_times()
        .build()
}

/// All causes of an error in a line.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push(error.to_string());
        cause = error.source();
    }
    crate::id::printable(text.join(": ").as_bytes())
}
