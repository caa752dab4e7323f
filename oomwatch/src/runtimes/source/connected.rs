//! The way from a connected runtime to the watcher. Here it is known who speaks, so this module compares the runtime's
//! word with the evidence.

use super::{
    Listing, Seen, Sightings, SourceError, key,
    listing::{self, LeftOut},
    place::Places,
};
use crate::{
    containers::{
        container::ContainerDetails,
        sighting::{Owner, Realm, Sighting},
    },
    log::{info, warn},
};

/// What a connected runtime says goes this way.
#[derive(Debug)]
pub(crate) struct Connected<'a> {
    sightings: &'a Sightings,
    places: Places,
}

impl<'a> Connected<'a> {
    pub(super) fn new(sightings: &'a Sightings, places: Places) -> Self {
        Self { sightings, places }
    }

    pub(crate) fn owner(&self) -> Owner {
        self.places.speaker().owner()
    }

    /// The realm in which the runtime keeps containers under this name, such as a namespace of containerd. That of a
    /// user's runtime, and of a runtime in a container, is never one of the host's.
    pub(crate) fn realm(&self, name: &str) -> Realm {
        match self.places.speaker().part() {
            Some(part) => Realm::Containerd(format!("{part}/{name}").into()),
            None => Realm::Containerd(name.into()),
        }
    }

    /// The name under which the runtime keeps containers of a realm. The reverse of [`Self::realm`].
    pub(crate) fn name_of(&self, realm: &Realm) -> Option<String> {
        let Realm::Containerd(name) = realm else {
            return None;
        };
        let name = match self.places.speaker().part() {
            Some(part) => name.strip_prefix(part.as_str())?.strip_prefix('/')?,
            None => name,
        };
        Some(name.to_owned())
    }

    /// A container exists, or has new details. The source's own task looks up its cgroup here.
    pub(crate) async fn seen(&mut self, realm: &Realm, mut seen: Seen) -> Result<(), SourceError> {
        listing::fit(&mut seen.details);
        self.pass_on(realm, seen).await
    }

    async fn pass_on(&mut self, realm: &Realm, seen: Seen) -> Result<(), SourceError> {
        let key = key(realm, seen.id);
        let cgroup_id = self.places.find(&key, &seen.place);
        let is_proven = cgroup_id.is_some() || !self.is_partial();
        let details = if is_proven {
            seen.details
        } else {
            ContainerDetails::default()
        };
        self.send(Sighting::Seen {
            api: self.sightings.api,
            key,
            cgroup_id,
            is_running: seen.is_running,
            details: Box::new(details),
        })
        .await
    }

    /// Notes that the runtime names this process for a container. Two containers with one process prove nothing by it.
    pub(crate) fn mention(&mut self, realm: &Realm, id: &str, pid: u32) {
        self.places.mention(&key(realm, id.to_owned()), pid);
    }

    /// A container was removed.
    pub(crate) async fn gone(&mut self, realm: &Realm, id: String) -> Result<(), SourceError> {
        let (api, key) = (self.sightings.api, key(realm, id));
        self.places.forget(&key);
        self.send(Sighting::Gone { api, key }).await
    }

    /// A container of a listing.
    pub(crate) async fn lists(
        &mut self,
        listing: &mut Listing,
        realm: &Realm,
        mut seen: Seen,
    ) -> Result<(), SourceError> {
        if listing.admit(realm, &mut seen) {
            self.pass_on(realm, seen).await?;
        }
        Ok(())
    }

    /// The listing is complete.
    pub(crate) async fn listed(&mut self, listing: Listing) -> Result<(), SourceError> {
        let (api, left_out) = (self.sightings.api, listing.left_out);
        info!(source = %api, containers = listing.len(), "listed");
        if left_out.is_any() {
            let LeftOut {
                invalid,
                repeated,
                surplus,
                stripped,
            } = left_out;
            warn!(source = %api, invalid, repeated, surplus, stripped, "a part of a runtime's listing is left out");
        }
        self.places.retain(|key| listing.has(key));
        let keys = listing.into_keys();
        self.send(Sighting::Listed { api, keys }).await
    }

    /// Whether the runtime speaks for a part of the host only.
    pub(crate) fn is_partial(&self) -> bool {
        self.places.speaker().part().is_some()
    }

    async fn send(&self, sighting: Sighting) -> Result<(), SourceError> {
        self.sightings.send(sighting).await
    }
}
