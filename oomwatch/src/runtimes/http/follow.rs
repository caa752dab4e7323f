//! Following a daemon: subscribe, list, then ask for each container that an event names.
//!
//! The source reads the events all the time, also while it waits for an answer or the watcher. A daemon silently
//! drops events that nobody takes. A container waits once, however many events it had.

use std::{future::Future, path::Path, pin::pin, time::Duration};

use super::{
    Change, Client, Event, Told,
    event::{Changes, Pending},
    lines::Lines,
};
use crate::{
    containers::{
        names::is_runtimes_id,
        sighting::{Owner, Realm, RuntimeApi},
    },
    log::{info, warn},
    runtimes::source::{FollowFuture, RuntimeSource, Seen, Sightings, SourceError, Wanted, key},
};

/// A daemon answers the subscription before it subscribes. If the daemon is not [`Daemon::GAPLESS`], the source lists
/// again after this long.
const SUBSCRIBED: Duration = Duration::from_secs(2);

/// What differs between the daemons.
pub(in crate::runtimes) trait Daemon: Send + Sync + 'static {
    /// Whose interface it is. Podman answers at Docker's socket and interface as well, but knows less there.
    const API: RuntimeApi;

    /// The realm of its containers.
    fn realm(owner: Owner) -> Realm;

    /// Whether the events hold everything that happened since the source asked for them.
    const GAPLESS: bool;

    /// Where it listens.
    fn client(&self) -> &Client;

    /// Path of the events, with a filter.
    fn events(&self) -> String;

    /// The change that an action makes, if it matters.
    fn change(&self, action: &str) -> Option<Change>;

    /// All containers, by as few requests as there can be.
    fn list(&self) -> impl Future<Output = Result<Vec<Seen>, SourceError>> + Send;

    /// One container, if the daemon still knows it.
    fn look(&self, id: &str) -> impl Future<Output = Result<Option<Seen>, SourceError>> + Send;

    /// A container known only from an event.
    fn told(&self, id: String, told: Told) -> Seen;
}

impl<D: Daemon> RuntimeSource for D {
    fn api(&self) -> RuntimeApi {
        D::API
    }

    fn socket(&self) -> &Path {
        self.client().socket()
    }

    fn follow<'a>(
        &'a mut self,
        sightings: &'a Sightings,
        wanted: &'a mut Wanted,
    ) -> FollowFuture<'a> {
        Box::pin(follow(&*self, sightings, wanted))
    }
}

/// Follows a daemon until the connection ends.
async fn follow<D: Daemon>(
    daemon: &D,
    sightings: &Sightings,
    wanted: &mut Wanted,
) -> Result<(), SourceError> {
    let mut events = daemon.client().events(&daemon.events()).await?;
    if events.is_podman && D::API != RuntimeApi::Podman {
        info!(socket = %daemon.client().socket().display(), "Podman listens at another runtime's socket: left to its own source");
        return outlast(&mut events.lines).await;
    }
    let realm = &D::realm(Owner::Host);
    let mut feed = Feed {
        daemon,
        realm,
        sightings,
        lines: events.lines,
        pending: Pending::default(),
        said: false,
    };
    wanted.clear();
    feed.during(list(daemon, realm, sightings)).await?;
    let mut again = pin!(tokio::time::sleep(SUBSCRIBED));
    let mut is_complete = D::GAPLESS;
    loop {
        if let Some((id, changes)) = feed.pending.next() {
            feed.during(tell(daemon, realm, sightings, id, changes))
                .await?;
            continue;
        }
        tokio::select! {
            read = feed.read() => read?,
            key = wanted.next() => feed.pending.ask(key.id),
            () = &mut again, if !is_complete => {
                is_complete = true;
                feed.during(list(daemon, realm, sightings)).await?;
            }
        }
    }
}

/// Waits for the connection to end: another daemon may listen there then.
async fn outlast(lines: &mut Lines) -> Result<(), SourceError> {
    loop {
        lines.next().await?;
    }
}

async fn list<D: Daemon>(
    daemon: &D,
    realm: &Realm,
    sightings: &Sightings,
) -> Result<(), SourceError> {
    let mut all = daemon.list().await?;
    all.retain(|seen| is_runtimes_id(&seen.id));
    let keys = all.iter().map(|seen| key(realm, seen.id.clone())).collect();
    for seen in all {
        sightings.seen(realm, seen).await?;
    }
    sightings.listed(keys).await
}

async fn tell<D: Daemon>(
    daemon: &D,
    realm: &Realm,
    sightings: &Sightings,
    id: String,
    changes: Changes,
) -> Result<(), SourceError> {
    let found = if changes.gone {
        None
    } else {
        daemon.look(&id).await?
    };
    // Another id would bring another container's names.
    let found = found.filter(|seen| seen.id == id);
    let told = || changes.new.map(|told| daemon.told(id.clone(), told));
    if let Some(seen) = found.or_else(told) {
        sightings.seen(realm, seen).await?;
    }
    if changes.gone {
        sightings.gone(realm, id).await?;
    }
    Ok(())
}

/// The events of a daemon, and the containers still to pass on.
struct Feed<'a, D> {
    daemon: &'a D,
    realm: &'a Realm,
    sightings: &'a Sightings,
    lines: Lines,
    pending: Pending,
    /// Whether the log has a warning about an event that is not understood.
    said: bool,
}

impl<D: Daemon> Feed<'_, D> {
    /// Does `work`, and reads events meanwhile.
    async fn during(
        &mut self,
        work: impl Future<Output = Result<(), SourceError>>,
    ) -> Result<(), SourceError> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                read = self.read() => read?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), SourceError> {
        let line = self.lines.next().await?;
        match Event::parse(&line) {
            Ok(Some(event)) => self.add(event),
            Ok(None) => Ok(()),
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    warn!(%error, "cannot read a runtime's event");
                }
                Ok(())
            }
        }
    }

    fn add(&mut self, event: Event) -> Result<(), SourceError> {
        let Some(change) = self.daemon.change(&event.action) else {
            return Ok(());
        };
        if change == Change::New {
            // The event's own details come first: while Podman starts a container, it answers no question about it.
            let told = self.daemon.told(event.id.clone(), event.told.clone());
            self.sightings.told(self.realm, told);
        }
        let added = self.pending.add(event.id, change, event.told);
        added.map_err(|error| error.of("the events"))
    }
}
