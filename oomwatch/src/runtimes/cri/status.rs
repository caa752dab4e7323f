//! The answer to who asks for one container or sandbox in full: its state, and what the runtime says beyond the
//! interface.

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, message},
};
use serde::Deserialize;

use crate::runtimes::{
    grpc::{Element, Elements},
    source::{Asked, ContainerPlace},
    spec::Spec,
};

/// The entry that containerd and CRI-O fill.
const INFO: &str = "info";
const INFO_FIELD: u32 = 2;
const STATUS_FIELD: u32 = 1;

/// The state of a container or a sandbox.
#[derive(Clone, PartialEq, Message)]
pub(super) struct State {
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
}

/// An entry of the additional information.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

impl Element for Entry {
    fn is_valid(&self) -> bool {
        self.key == INFO
    }
}

/// The answer to `ContainerStatus` and `PodSandboxStatus`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct StatusAnswer {
    pub(super) status: Option<State>,
    pub(super) info: Elements<Entry, INFO_FIELD>,
}

impl Message for StatusAnswer {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if let Some(status) = &self.status {
            message::encode(STATUS_FIELD, status, buffer);
        }
        self.info.encode_raw(buffer);
    }

    fn merge_field(
        &mut self,
        field: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if field == STATUS_FIELD {
            let status = self.status.get_or_insert_default();
            return message::merge(wire_type, status, buffer, context);
        }
        self.info.merge_field(field, wire_type, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        let status = self.status.as_ref();
        let status = status.map(|status| message::encoded_len(STATUS_FIELD, status));
        status.unwrap_or_default() + self.info.encoded_len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What both runtimes write there, as far as it matters.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    pid: Option<u32>,
    runtime_spec: Option<Spec>,
}

impl StatusAnswer {
    /// Where the container is, if its state says that it runs.
    pub(super) fn place(&self, asked: Asked, is_running: impl Fn(i32) -> bool) -> ContainerPlace {
        let runs = self
            .status
            .as_ref()
            .is_some_and(|status| is_running(status.state));
        if !runs {
            return ContainerPlace::default();
        }
        let info = self.info.kept.first();
        let info = info.and_then(|info| serde_json::from_str::<Info>(&info.value).ok());
        let info = info.unwrap_or_default();
        let configured = info.runtime_spec.and_then(Spec::cgroups_path);
        ContainerPlace {
            configured: configured.into_iter().collect(),
            process: info.pid.and_then(|pid| asked.process(pid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: i32, info: &str) -> StatusAnswer {
        let entry = |key: &str, value: &str| Entry {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let answer = StatusAnswer {
            status: Some(State { state }),
            info: vec![entry("other", "{}"), entry(INFO, info)].into(),
        };
        StatusAnswer::decode(answer.encode_to_vec().as_slice()).unwrap()
    }

    #[test]
    fn what_runs_has_the_place_that_the_runtime_says() {
        let info = r#"{"sandboxID":"p","pid":7,"runtimeSpec":{"linux":{"cgroupsPath":"kubepods.slice:cri-containerd:x"}},"config":{}}"#;
        let asked = Asked::now();
        let place = answer(1, info).place(asked, |state| state == 1);
        assert_eq!(place.configured, ["kubepods.slice:cri-containerd:x"]);
        assert_eq!(place.process, asked.process(7));
        let stopped = answer(2, info).place(asked, |state| state == 1);
        assert_eq!(stopped, ContainerPlace::default());
        for garbage in ["", "[]", r#"{"pid":-1}"#, r#"{"runtimeSpec":7}"#] {
            let place = answer(1, garbage).place(asked, |_| true);
            assert_eq!(place, ContainerPlace::default(), "{garbage}");
        }
    }
}
