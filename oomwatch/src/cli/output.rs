//! Events on stdout, by a thread of their own: a slow reader holds up only this thread. An event counts as published
//! once it is written.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use oomwatch::{OomEvent, PublishError, PublishFuture, Publisher};
use tokio::sync::{mpsc, oneshot};

use super::{Output, exit::Exit, stream::write_whole};

/// Events that the thread has. The publisher's queue is before it.
const THREAD_QUEUE: usize = 1;

/// How writing ended.
pub(crate) type Ended = oneshot::Receiver<io::Result<()>>;

/// An event for the thread, and a channel for its confirmation.
type Line = (Arc<OomEvent>, oneshot::Sender<()>);

/// The publisher; the thread ends when it is dropped.
pub(crate) struct Stdout(mpsc::Sender<Line>);

/// Starts the thread. `Ended` reports how writing ended.
///
/// # Errors
/// When no thread can be made.
pub(crate) fn start(output: Output, color: bool) -> io::Result<(Stdout, Ended)> {
    let (sender, events) = mpsc::channel(THREAD_QUEUE);
    let (end, ended) = oneshot::channel();
    thread::Builder::new()
        .name("oomwatch-stdout".into())
        .spawn(move || {
            // Nobody may be waiting for the end any more.
            let _ = end.send(write(events, output, color));
        })?;
    Ok((Stdout(sender), ended))
}

impl Publisher for Stdout {
    fn name(&self) -> &str {
        "stdout"
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        Box::pin(async {
            let (done, written) = oneshot::channel();
            let sent = self.0.send((event, done)).await;
            sent.map_err(|_| PublishError::Closed)?;
            written.await.map_err(|_| PublishError::Closed)
        })
    }
}

fn write(mut lines: mpsc::Receiver<Line>, output: Output, color: bool) -> io::Result<()> {
    // Bypasses the library's buffer: a written event must be out.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    while let Some((event, done)) = lines.blocking_recv() {
        write_event(&mut stdout, &event, output, color)?;
        // The time of grace may be over.
        let _ = done.send(());
    }
    Ok(())
}

/// The exit code after writing to stdout. A reader that has seen enough is no failure.
///
/// # Errors
/// When writing failed in another way.
pub(crate) fn written(written: io::Result<()>) -> anyhow::Result<Exit> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to stdout")
        }
        _ => Ok(Exit::Done),
    }
}

/// Writes one event as a line, at once.
///
/// # Errors
/// When the stream does not take it.
pub(crate) fn write_event(
    stream: &mut (impl Write + AsFd),
    event: &OomEvent,
    output: Output,
    color: bool,
) -> io::Result<()> {
    let mut line = match output {
        Output::Json => event.to_json(),
        Output::Text => event.to_text(color),
        Output::None => return Ok(()),
    };
    line.push('\n');
    write_whole(stream, line.as_bytes())?;
    stream.flush()
}
