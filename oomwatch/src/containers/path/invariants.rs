//! What holds for every path, for the tests and the fuzzer. No part of a normal build.

use super::{Kind, PathIdentity, identify, innermost};

/// Both functions on any bytes, and what must hold for their results.
///
/// # Panics
/// When an invariant is broken, which is what a fuzzer looks for.
pub(crate) fn check(bytes: &[u8]) {
    let path = String::from_utf8_lossy(bytes);
    let (exact, innermost) = (identify(&path), innermost(&path));
    for identity in [&exact, &innermost].into_iter().flatten() {
        holds(identity, &path);
    }
    // What is more than a unit is its own innermost owner.
    let owner = exact.filter(|found| found.kind != Kind::SystemdUnit);
    assert!(owner.is_none() || owner == innermost);
}

fn holds(identity: &PathIdentity, path: &str) {
    assert!(identity.id.len() <= 255 && identity.id.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(crate::id::ContainerId::new(&identity.id).is_ok());
    assert_eq!(identity.pod_uid.is_some(), identity.qos.is_some());
    let names = || path.split('/').filter(|name| !name.is_empty());
    assert!((1..=names().count()).contains(&identity.depth));
    let own: Vec<&str> = names().take(identity.depth).collect();
    let own = own.join("/");
    assert_eq!(identify(&own).as_ref(), Some(identity));
    for told in [
        Some(&identity.id),
        identity.name.as_ref(),
        identity.pod_uid.as_ref(),
    ] {
        assert!(told.is_none_or(|told| says(&own, told)), "{told:?}");
    }
}

/// Whether a text is in a path: as it is, or as systemd escapes it, or with the kubelet's dashes.
fn says(path: &str, text: &str) -> bool {
    let escaped = text.replace('-', "\\x2d");
    let underscored = text.replace('-', "_");
    path.contains(text) || path.contains(&escaped) || path.contains(&underscored) || {
        let bytes = text.bytes();
        let any =
            |byte: u8| path.contains(char::from(byte)) || path.contains(&format!("\\x{byte:02x}"));
        path.contains("\\x") && bytes.into_iter().all(any)
    }
}
