//! Sends kills that did not happen to an OpenTelemetry collector, as the environment says, and tells what
//! became of each: `ok`, `failed` or `refused`, and at the end of the metrics.
//!
//! `otlp-sender CONTAINER…`: one kill in each of these containers.

use std::sync::Arc;

use anyhow::{Context, Result};
use oomwatch::{Counts, OomEvent, OtlpPublisher, PublishError, Publisher};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    runtime.block_on(send(std::env::args().skip(1)))
}

async fn send(containers: impl Iterator<Item = String>) -> Result<()> {
    let counts = Counts::default();
    let mut publisher = OtlpPublisher::from_env()?.node("node-1").counts(&counts);
    publisher.open().await?;
    for container in containers {
        let event = OomEvent::example(&container)?;
        counts.enter(&event);
        tell(&publisher.publish(Arc::new(event)).await);
    }
    tell(&publisher.flush().await);
    Ok(())
}

fn tell(outcome: &Result<(), PublishError>) {
    match outcome {
        Ok(()) => println!("ok"),
        Err(PublishError::Refused(_)) => println!("refused"),
        Err(PublishError::Failed(cause)) => println!("failed: {cause}"),
        Err(error) => println!("{error}"),
    }
}
