//! The thread that the sources run on, with a runtime of its own.
//!
//! Sources read what others wrote: answers of any length, `/proc`, places where a runtime may be. That takes as long
//! as others like, so the thread that drains the ring does not do it. The thread knows no engine: it fills the
//! sources' bounded queues. Nobody waits for its end, because it may be in a file that hangs.

use std::{future::Future, io, sync::Arc, thread, time::Duration};

use tokio::{runtime, sync::mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

use crate::{
    cgroup::hierarchy::Hierarchy,
    containers::sighting::{RuntimeKey, RuntimeSocket, Sighting},
    runtimes::source::{self, RuntimeSource, SIGHTING_QUEUE, Sightings, Wanted},
};

/// The kernel shows the first 15 bytes.
const NAME: &str = "oomwatch-sources";
/// Between two looks for runtimes that were not there.
const LOOK: Duration = Duration::from_secs(60);

/// A source as the watcher's task sees it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) socket: RuntimeSocket,
    pub(super) sightings: mpsc::Receiver<Sighting>,
    /// Where it is asked for a container.
    pub(super) asker: mpsc::Sender<RuntimeKey>,
}

/// A source as the thread sees it.
pub(super) struct Driven {
    source: Box<dyn RuntimeSource>,
    sightings: Sightings,
    wanted: Wanted,
}

/// Both sides of a source that is to be followed.
pub(super) fn follow(socket: &RuntimeSocket, hierarchy: &Arc<Hierarchy>) -> (Followed, Driven) {
    info!(source = %socket.api, socket = %socket.path.display(), "following");
    let (sender, sightings) = mpsc::channel(SIGHTING_QUEUE);
    let (asker, wanted) = Wanted::channel();
    let followed = Followed {
        socket: socket.clone(),
        sightings,
        asker,
    };
    let driven = Driven {
        source: source::source(socket),
        sightings: Sightings::new(socket.api, hierarchy.clone(), sender),
        wanted,
    };
    (followed, driven)
}

/// What the thread does.
pub(super) struct Following {
    pub(super) sources: Vec<Driven>,
    /// Runtimes that may be installed or started later.
    pub(super) absent: Vec<RuntimeSocket>,
    pub(super) hierarchy: Arc<Hierarchy>,
    /// Announces to the watcher's task the runtimes that came.
    pub(super) appeared: mpsc::Sender<Followed>,
}

impl Following {
    /// Follows all sources, and looks for those that are absent, until it is dropped.
    pub(super) async fn run(mut self) {
        self.sources.drain(..).for_each(drive);
        while !self.absent.is_empty() && self.look().await {
            tokio::time::sleep(LOOK).await;
        }
        // The tasks end with the runtime.
        std::future::pending::<()>().await;
    }

    /// Follows runtimes that were not there before; tells whether anybody listens.
    async fn look(&mut self) -> bool {
        let is_there = |socket: &mut RuntimeSocket| socket.exists();
        let came: Vec<_> = self.absent.extract_if(.., is_there).collect();
        for socket in came {
            let (followed, driven) = follow(&socket, &self.hierarchy);
            if self.appeared.send(followed).await.is_err() {
                return false;
            }
            drive(driven);
        }
        true
    }
}

fn drive(driven: Driven) {
    tokio::spawn(source::drive(
        driven.source,
        driven.sightings,
        driven.wanted,
    ));
}

/// A thread that runs a future until this is dropped.
#[derive(Debug)]
pub(super) struct Thread {
    _stop: DropGuard,
}

impl Thread {
    /// Returns when the thread has its runtime.
    pub(super) fn start(work: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                let built = runtime::Builder::new_current_thread()
                    .enable_io()
                    .enable_time()
                    .build();
                match built {
                    Ok(runtime) => {
                        let _ = ready.send(Ok(()));
                        runtime.block_on(stopped.run_until_cancelled_owned(work));
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })?;
        let built = is_ready.recv();
        built.unwrap_or_else(|_| Err(io::Error::other("the thread ended")))?;
        Ok(Self {
            _stop: stop.drop_guard(),
        })
    }
}
