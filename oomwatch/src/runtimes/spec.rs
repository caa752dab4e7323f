//! A container's OCI specification, of which only the path of its cgroup matters. Pure.

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Spec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    cgroups_path: Option<String>,
}

impl Spec {
    /// The configured path of the cgroup, if the specification has one.
    pub(super) fn cgroups_path(self) -> Option<String> {
        self.linux?.cgroups_path.filter(|path| !path.is_empty())
    }
}

/// The same of a specification as JSON.
pub(super) fn cgroups_path(spec: &[u8]) -> Option<String> {
    let spec: Spec = serde_json::from_slice(spec).ok()?;
    spec.cgroups_path()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_is_read() {
        let path = |spec: &str| cgroups_path(spec.as_bytes());
        let spec = r#"{"ociVersion":"1.1","process":{"env":["A=b"]},"linux":{"cgroupsPath":"/default/web","seccomp":{}}}"#;
        assert_eq!(path(spec).as_deref(), Some("/default/web"));
        for none in [
            "",
            "{}",
            "[]",
            r#"{"linux":null}"#,
            r#"{"linux":{"cgroupsPath":""}}"#,
        ] {
            assert_eq!(path(none), None, "{none}");
        }
    }
}
