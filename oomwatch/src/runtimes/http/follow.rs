//! Following a daemon: subscribe, list, then ask for each container that an event names.
//!
//! The source reads the events all the time, also while it waits for an answer or the watcher. A daemon silently
//! drops events that nobody takes. A container waits once, however many events it had.

use std::{future::Future, path::Path, pin::pin, time::Duration};

use serde::de::DeserializeOwned;

use super::{
    Change, Client, Event, Told,
    event::{Changes, Pending},
    failed,
    lines::Lines,
};
use crate::{
    containers::{
        names::is_runtimes_id,
        sighting::{Owner, Realm, RuntimeApi},
    },
    log::{info, warn},
    runtimes::source::{
        Connected, FollowFuture, Listing, Looks, RuntimeSource, Seen, Sightings, SourceError,
        Wanted,
    },
};

/// A daemon answers the subscription before it subscribes. If the daemon is not [`Daemon::GAPLESS`], the source lists
/// again after this long.
const SUBSCRIBED: Duration = Duration::from_secs(2);
/// Containers of a listing that are asked for because the listing has no name of their image.
const MAX_NAMELESS: usize = 1024;

/// What differs between the daemons.
pub(in crate::runtimes) trait Daemon: Clone + Send + Sync + 'static {
    /// A container as the listing has it.
    type Listed: DeserializeOwned + Send;

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

    /// Learns what holds for the whole connection.
    fn begin(&mut self) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Path of the listing of all containers.
    fn listing(&self) -> String;

    /// A container of the listing, and its first process.
    fn listed(&self, listed: Self::Listed) -> Option<Listed>;

    /// One container, if the daemon still knows it.
    fn look(&self, id: &str) -> impl Future<Output = Result<Option<Seen>, SourceError>> + Send;

    /// A container known only from an event.
    fn told(&self, id: String, told: Told) -> Seen;
}

/// A container of a listing.
pub(in crate::runtimes) struct Listed {
    pub(in crate::runtimes) seen: Seen,
    /// Its first process. It was not looked at: a listing is old before it is read.
    pub(in crate::runtimes) pid: Option<u32>,
    /// Whether only the answer to a question about it has the names that people use.
    pub(in crate::runtimes) lacks_names: bool,
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
        Box::pin(follow(self, sightings, wanted))
    }
}

/// Follows a daemon until the connection ends.
async fn follow<D: Daemon>(
    daemon: &mut D,
    sightings: &Sightings,
    wanted: &mut Wanted,
) -> Result<(), SourceError> {
    let mut events = daemon.client().events(&daemon.events()).await?;
    if events.is_podman && D::API != RuntimeApi::Podman {
        info!(socket = %daemon.client().socket().display(), "Podman listens at another runtime's socket: left to its own source");
        return outlast(&mut events.lines).await;
    }
    let mut connected = sightings.of(events.peer);
    let realm = &D::realm(connected.owner());
    daemon.begin().await?;
    let mut feed = Feed {
        daemon,
        realm,
        sightings: (!connected.is_partial()).then_some(sightings),
        lines: events.lines,
        pending: Pending::default(),
        said: false,
    };
    // A container is asked for once at a time: of two answers, the older might come later.
    let mut looks = Looks::<String, _>::new();
    let mut again = pin!(tokio::time::sleep(SUBSCRIBED));
    let mut is_complete = D::GAPLESS;
    list(&mut feed, &mut connected, wanted).await?;
    loop {
        while looks.has_room()
            && let Some((id, changes)) = feed.pending.next(|id| looks.is_busy(id))
        {
            looks.start(id.clone(), look(feed.daemon.clone(), id, changes));
        }
        tokio::select! {
            read = feed.read() => read?,
            key = wanted.next(), if feed.pending.has_room() => feed.pending.ask(key.id),
            Some(looked) = looks.next() => {
                let looked = looked.map_err(|error| failed("a container", error))??;
                feed.during(tell(realm, &mut connected, looked)).await?;
            }
            () = &mut again, if !is_complete => {
                is_complete = true;
                list(&mut feed, &mut connected, wanted).await?;
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

/// Passes on all containers. Meanwhile events are read, and what the watcher asks for is kept.
async fn list<D: Daemon>(
    feed: &mut Feed<'_, D>,
    connected: &mut Connected<'_>,
    wanted: &mut Wanted,
) -> Result<(), SourceError> {
    let daemon = feed.daemon.clone();
    let realm = feed.realm;
    let mut nameless = Vec::new();
    let work = pass_on(&daemon, realm, connected, &mut nameless);
    feed.during(wanted.during(work)).await?;
    for id in nameless {
        feed.pending.ask(id);
    }
    Ok(())
}

async fn pass_on<D: Daemon>(
    daemon: &D,
    realm: &Realm,
    connected: &mut Connected<'_>,
    nameless: &mut Vec<String>,
) -> Result<(), SourceError> {
    let mut elements = daemon.client().list(&daemon.listing()).await?;
    let mut listing = Listing::default();
    while let Some(piece) = elements.next::<D::Listed>().await? {
        listing.skip(piece.invalid);
        for element in piece.elements {
            let listed = daemon.listed(element);
            let Some(listed) = listed.filter(|listed| is_runtimes_id(&listed.seen.id)) else {
                listing.skip(1);
                continue;
            };
            if let Some(pid) = listed.pid {
                connected.mention(realm, &listed.seen.id, pid);
            }
            if listed.lacks_names && nameless.len() < MAX_NAMELESS {
                nameless.push(listed.seen.id.clone());
            }
            connected.lists(&mut listing, realm, listed.seen).await?;
        }
    }
    connected.listed(listing).await
}

/// A container that was asked for, or that is to be passed on without.
struct Looked {
    id: String,
    seen: Option<Seen>,
    is_gone: bool,
}

async fn look<D: Daemon>(daemon: D, id: String, changes: Changes) -> Result<Looked, SourceError> {
    let found = if changes.gone {
        None
    } else {
        daemon.look(&id).await?
    };
    // Another id would bring another container's names.
    let found = found.filter(|seen| seen.id == id);
    let told = || changes.new.map(|told| daemon.told(id.clone(), told));
    let seen = found.or_else(told);
    let is_gone = changes.gone;
    Ok(Looked { id, seen, is_gone })
}

async fn tell(
    realm: &Realm,
    connected: &mut Connected<'_>,
    looked: Looked,
) -> Result<(), SourceError> {
    if let Some(seen) = looked.seen {
        connected.seen(realm, seen).await?;
    }
    if looked.is_gone {
        connected.gone(realm, looked.id).await?;
    }
    Ok(())
}

/// The events of a daemon, and the containers still to pass on.
struct Feed<'a, D> {
    daemon: &'a D,
    realm: &'a Realm,
    /// Where an event's own details go, if they are to be believed.
    sightings: Option<&'a Sightings>,
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
        if change == Change::New
            && let Some(sightings) = self.sightings
        {
            // The event's own details come first: while Podman starts a container, it answers no question about it.
            let told = self.daemon.told(event.id.clone(), event.told.clone());
            sightings.told(self.realm, told);
        }
        let added = self.pending.add(event.id, change, event.told);
        added.map_err(|error| error.of("the events"))
    }
}
