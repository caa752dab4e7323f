//! The details of a container that both daemons give, in the forms that they have in common.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Told;
use crate::{
    containers::container::ContainerDetails,
    runtimes::source::{ContainerPlace, Seen},
};

/// Labels. No value is ever null, but nothing depends on that.
pub(in crate::runtimes) type Labels = BTreeMap<String, Option<String>>;

/// The state of a container that was asked for.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::runtimes) struct State {
    pub(in crate::runtimes) pid: Option<i64>,
}

/// What is known of a container, from any answer. An empty text and process 0 mean none.
#[derive(Default)]
pub(in crate::runtimes) struct ListedContainers {
    pub(in crate::runtimes) name: Option<String>,
    pub(in crate::runtimes) image: Option<String>,
    pub(in crate::runtimes) labels: Option<Labels>,
    pub(in crate::runtimes) pid: Option<i64>,
    pub(in crate::runtimes) pod: Option<String>,
    pub(in crate::runtimes) is_sandbox: Option<bool>,
}

impl From<Told> for ListedContainers {
    fn from(told: Told) -> Self {
        Self {
            name: told.name,
            image: told.image,
            labels: Some(told.labels),
            ..Self::default()
        }
    }
}

impl ListedContainers {
    /// The container of a runtime. Its place leaves out the path of the cgroup, because that path holds the id. The
    /// daemon's configured path may also be in systemd's form.
    pub(in crate::runtimes) fn seen(self, runtime: &str, id: String) -> Seen {
        let labels = self.labels.unwrap_or_default().into_iter();
        let pid = self.pid.and_then(process);
        Seen {
            id,
            is_running: pid.is_some(),
            place: ContainerPlace {
                cgroups_path: None,
                pid,
            },
            details: ContainerDetails {
                name: self.name.filter(|name| !name.is_empty()),
                runtime: Some(runtime.to_owned()),
                image: self.image.filter(|image| !image.is_empty()),
                pod: self.pod.filter(|pod| !pod.is_empty()),
                is_sandbox: self.is_sandbox,
                labels: labels
                    .filter_map(|(key, value)| Some((key, value?)))
                    .collect(),
                ..ContainerDetails::default()
            },
        }
    }
}

fn process(pid: i64) -> Option<u32> {
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}
