//! One event's tries: again where that was promised, until the publisher accepts or refuses the event.

use std::sync::Arc;

use tracing::debug;

use super::{
    Delivery, PublishError, Publisher,
    progress::{Progress, add},
};
use crate::{
    event::OomEvent,
    log::{info, warn},
    retry::{causes, delays},
};

/// Sends one event. With [`Delivery::AtLeastOnce`], tries until the publisher accepts or refuses it. Tells of each
/// failure in between.
pub(super) async fn send(
    publisher: &mut dyn Publisher,
    destination: Option<&str>,
    event: &Arc<OomEvent>,
    counts: &Progress,
    fails: impl Fn(&PublishError),
) -> Result<(), PublishError> {
    let mut delays = delays();
    let mut failures = 0_u64;
    loop {
        let error = match publisher.publish(Arc::clone(event)).await {
            Err(error @ (PublishError::Failed(_) | PublishError::Unreachable(_)))
                if publisher.delivery() == Delivery::AtLeastOnce =>
            {
                error
            }
            done => {
                if failures > 0 {
                    info!(
                        publisher = publisher.name(),
                        destination, failures, "a publisher works again"
                    );
                }
                return done;
            }
        };
        failures += 1;
        add(&counts.retries, 1);
        fails(&error);
        say(publisher.name(), destination, event, &error, failures);
        tokio::time::sleep(delays.next().unwrap_or_default()).await;
    }
}

/// Warns of the first failure in a row. The others are the same one and go to the debug log.
fn say(
    publisher: &str,
    destination: Option<&str>,
    event: &OomEvent,
    error: &PublishError,
    failures: u64,
) {
    let (event, cause) = (&event.id, causes(error));
    if failures == 1 {
        warn!(publisher, destination, event, %error, cause, "a publisher fails for now: events wait, and it tries again");
    } else {
        debug!(publisher, destination, event, %error, cause, failures, "still not published");
    }
}
