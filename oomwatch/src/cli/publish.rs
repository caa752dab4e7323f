//! `--publish`: where events go besides stdout.

use oomwatch::{
    Builder, ContainerdMode, ContainerdPublisher, Counts, OtlpError, OtlpPublisher, RuntimeApi,
    RuntimeSocket,
};

/// One place, and what is published there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishArg {
    /// containerd; `None` is nothing.
    Containerd(Option<ContainerdMode>),
    /// An OpenTelemetry collector, or not.
    Otlp(bool),
}

impl PublishArg {
    /// Whether the last word on the matter asks for anything.
    pub(crate) fn wants_containerd(all: &[Self]) -> bool {
        mode(all).is_some()
    }
}

/// Reads `containerd`, `containerd=MODE`, `otlp` or `otlp=off`.
pub(crate) fn parse(text: &str) -> Result<PublishArg, String> {
    Ok(match text {
        "containerd" | "containerd=missing" => {
            PublishArg::Containerd(Some(ContainerdMode::Missing))
        }
        "containerd=always" => PublishArg::Containerd(Some(ContainerdMode::Always)),
        "containerd=off" => PublishArg::Containerd(None),
        "otlp" => PublishArg::Otlp(true),
        "otlp=off" => PublishArg::Otlp(false),
        _ => {
            return Err(
                "expected containerd, containerd=missing, containerd=always, containerd=off, otlp or otlp=off"
                    .to_owned(),
            );
        }
    })
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

/// Adds the publisher to an OpenTelemetry collector, if it was asked for.
///
/// # Errors
/// When a variable of the environment that says where to cannot be followed.
pub(crate) fn add_otlp(
    builder: Builder,
    wanted: &[PublishArg],
    node: Option<&str>,
    counts: &Counts,
) -> Result<Builder, OtlpError> {
    if !wants_otlp(wanted) {
        return Ok(builder);
    }
    let mut publisher = OtlpPublisher::from_env()?.counts(counts);
    if let Some(node) = node {
        publisher = publisher.node(node);
    }
    Ok(builder.publisher(publisher))
}

/// The last one counts.
fn mode(wanted: &[PublishArg]) -> Option<ContainerdMode> {
    let modes = wanted.iter().rev();
    let mut modes = modes.filter_map(|wanted| match wanted {
        PublishArg::Containerd(mode) => Some(*mode),
        PublishArg::Otlp(_) => None,
    });
    modes.next().flatten()
}

/// As well.
fn wants_otlp(wanted: &[PublishArg]) -> bool {
    let answers = wanted.iter().rev();
    let mut answers = answers.filter_map(|wanted| match wanted {
        PublishArg::Otlp(wanted) => Some(*wanted),
        PublishArg::Containerd(_) => None,
    });
    answers.next().unwrap_or(false)
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
    fn each_place_has_a_last_word_of_its_own() {
        let all = ["otlp", "containerd=always", "otlp=off", "otlp"];
        let all: Vec<_> = all.iter().map(|text| parse(text).unwrap()).collect();
        assert_eq!(mode(&all), Some(ContainerdMode::Always));
        assert!(wants_otlp(&all) && wants_otlp(&all[..2]));
        assert!(!wants_otlp(&all[..3]) && !wants_otlp(&[]));
    }

    #[test]
    fn anything_else_is_told_with_what_is_expected() {
        for bad in ["", "containerd=", "containerd=sometimes", "docker", "otlp="] {
            assert!(
                parse(bad).unwrap_err().contains("containerd=always"),
                "{bad}"
            );
        }
    }
}
