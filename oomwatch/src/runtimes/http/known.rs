//! The details of a container that both daemons give, in the forms that they have in common.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::Told;
use crate::{
    containers::container::ContainerDetails,
    runtimes::{
        labels,
        source::{Asked, ContainerPlace, Process, Seen},
    },
};

/// Labels. A value that is null counts as none, though no daemon writes any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::runtimes) struct Labels(pub(in crate::runtimes) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                    if let Some(value) = value {
                        labels.insert(key, value);
                    }
                }
                Ok(Labels(labels))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

/// The state of a container that was asked for.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::runtimes) struct State {
    pid: Option<i64>,
    running: Option<bool>,
    status: Option<String>,
    pub(in crate::runtimes) cgroup_path: Option<String>,
}

impl State {
    /// Whether the daemon says that it has processes. A paused container has some.
    pub(in crate::runtimes) fn is_running(&self) -> bool {
        let by_status = || self.status.as_deref().is_some_and(is_running);
        self.running == Some(true) || by_status()
    }

    /// Its first process, if it runs. A container that stopped may keep the number.
    pub(in crate::runtimes) fn process(&self, asked: Asked) -> Option<Process> {
        let pid = self.pid.and_then(pid).filter(|_| self.is_running());
        pid.and_then(|pid| asked.process(pid))
    }
}

/// Whether a state's name means that there are processes.
pub(in crate::runtimes) fn is_running(state: &str) -> bool {
    matches!(state, "running" | "paused" | "initialized" | "stopping")
}

/// What is known of a container, from any answer. An empty text means none.
#[derive(Default)]
pub(in crate::runtimes) struct KnownContainer {
    pub(in crate::runtimes) name: Option<String>,
    pub(in crate::runtimes) image: Option<String>,
    pub(in crate::runtimes) labels: Option<Labels>,
    pub(in crate::runtimes) is_running: bool,
    pub(in crate::runtimes) place: ContainerPlace,
    pub(in crate::runtimes) pod: Option<String>,
    pub(in crate::runtimes) is_sandbox: Option<bool>,
}

impl From<Told> for KnownContainer {
    fn from(told: Told) -> Self {
        Self {
            name: told.name,
            image: told.image,
            labels: Some(told.labels),
            ..Self::default()
        }
    }
}

impl KnownContainer {
    /// The container of a runtime.
    pub(in crate::runtimes) fn seen(self, runtime: &str, id: String) -> Seen {
        Seen {
            id,
            is_running: self.is_running,
            place: self.place,
            details: ContainerDetails {
                name: self.name.filter(|name| !name.is_empty()),
                runtime: Some(runtime.to_owned()),
                image: self.image.and_then(labels::tag),
                pod: self.pod.filter(|pod| !pod.is_empty()),
                is_sandbox: self.is_sandbox,
                labels: self.labels.unwrap_or_default().0,
                ..ContainerDetails::default()
            },
        }
    }
}

/// A process's number. 0 means none.
pub(in crate::runtimes) fn pid(pid: i64) -> Option<u32> {
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_container_has_no_process() {
        let state = |json: &str| serde_json::from_str::<State>(json).unwrap();
        let asked = Asked::now();
        for (json, pid) in [
            (r#"{"Pid":7,"Running":true,"Status":"running"}"#, Some(7)),
            (
                r#"{"Pid":7,"Running":true,"Paused":true,"Status":"paused"}"#,
                Some(7),
            ),
            (r#"{"Pid":7,"Running":false,"Status":"paused"}"#, Some(7)),
            (r#"{"Pid":7,"Running":false,"Status":"exited"}"#, None),
            (r#"{"Pid":7}"#, None),
            (r#"{"Pid":0,"Running":true}"#, None),
            (r#"{"Pid":-7,"Running":true}"#, None),
        ] {
            let process = state(json).process(asked);
            assert_eq!(process.map(|process| process.pid), pid, "{json}");
        }
    }
}
