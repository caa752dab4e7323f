//! `--publish`: where events go besides stdout.

use oomwatch::{Builder, ContainerdMode, ContainerdPublisher, RuntimeApi, RuntimeSocket};

/// What is published into containerd; `None` is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishArg(Option<ContainerdMode>);

impl PublishArg {
    /// Whether the last word on the matter asks for anything.
    pub(crate) fn wants_containerd(all: &[Self]) -> bool {
        mode(all).is_some()
    }
}

/// Reads `containerd` or `containerd=MODE`.
pub(crate) fn parse(text: &str) -> Result<PublishArg, String> {
    let (to, mode) = text.split_once('=').unwrap_or((text, "missing"));
    let mode = match (to, mode) {
        ("containerd", "missing") => Some(ContainerdMode::Missing),
        ("containerd", "always") => Some(ContainerdMode::Always),
        ("containerd", "off") => None,
        _ => {
            return Err(
                "expected containerd, containerd=missing, containerd=always or containerd=off"
                    .to_owned(),
            );
        }
    };
    Ok(PublishArg(mode))
}

/// Adds the publishers that were asked for: one for each containerd that is followed, since a
/// container is announced where it lives.
pub(crate) fn configure(
    builder: Builder,
    wanted: &[PublishArg],
    followed: &[RuntimeSocket],
) -> Builder {
    let Some(mode) = mode(wanted) else {
        return builder;
    };
    let containerds = followed
        .iter()
        .filter(|socket| socket.api == RuntimeApi::Containerd);
    containerds.fold(builder, |builder, socket| {
        builder.publisher(ContainerdPublisher::new(&socket.path, mode))
    })
}

/// The last one counts.
fn mode(wanted: &[PublishArg]) -> Option<ContainerdMode> {
    wanted.last().and_then(|wanted| wanted.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let all = ["containerd", "containerd=always", "containerd=off"];
        let all: Vec<_> = all.iter().map(|text| parse(text).unwrap()).collect();
        assert!(!PublishArg::wants_containerd(&all));
        assert_eq!(mode(&all[..2]), Some(ContainerdMode::Always));
        assert_eq!(mode(&all[..1]), Some(ContainerdMode::Missing));
        assert_eq!(mode(&[]), None);
    }

    #[test]
    fn anything_else_is_told_with_what_is_expected() {
        for bad in ["", "containerd=", "containerd=sometimes", "docker"] {
            assert!(
                parse(bad).unwrap_err().contains("containerd=always"),
                "{bad}"
            );
        }
    }
}
