//! `--publish`: where events go besides stdout.

use std::{
    io::{stderr, stdout},
    os::fd::AsFd,
};

use oomwatch::{Builder, Counts, JournaldPublisher, RuntimeSocket};

/// Which kills are published into containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Containerd {
    /// Kills that no shim announces.
    Missing,
    Always,
}

/// One value of `--publish`. The last value for each place counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishArg {
    /// Which kills are published into containerd; `None` is none.
    Containerd(Option<Containerd>),
    Kubernetes(bool),
    Journald(bool),
    /// An OpenTelemetry collector.
    Otlp(bool),
}

impl PublishArg {
    /// Whether the last value for containerd publishes anything.
    pub(crate) fn wants_containerd(all: &[Self]) -> bool {
        containerd(all).is_some()
    }
}

/// Places that need a feature of the build, and whether this build lacks it.
const LACKS: &[(&str, bool)] = &[
    ("containerd", cfg!(not(feature = "containerd"))),
    ("kubernetes", cfg!(not(feature = "kubernetes"))),
    ("otlp", cfg!(not(feature = "otlp"))),
];

/// Reads `TO` or `TO=MODE`.
pub(crate) fn parse(text: &str) -> Result<PublishArg, String> {
    let (to, mode) = match text.split_once('=') {
        Some((to, mode)) => (to, Some(mode)),
        None => (text, None),
    };
    is_built(to, mode, LACKS)?;
    Ok(match (to, mode) {
        ("containerd", None | Some("missing")) => PublishArg::Containerd(Some(Containerd::Missing)),
        ("containerd", Some("always")) => PublishArg::Containerd(Some(Containerd::Always)),
        ("containerd", Some("off")) => PublishArg::Containerd(None),
        ("kubernetes", None) => PublishArg::Kubernetes(true),
        ("kubernetes", Some("off")) => PublishArg::Kubernetes(false),
        ("journald", None) => PublishArg::Journald(true),
        ("journald", Some("off")) => PublishArg::Journald(false),
        ("otlp", None) => PublishArg::Otlp(true),
        ("otlp", Some("off")) => PublishArg::Otlp(false),
        _ => {
            return Err(
                "expected containerd, containerd=missing, containerd=always, kubernetes, journald, \
                 otlp, or one of them with =off"
                    .to_owned(),
            );
        }
    })
}

/// Whether this build can publish there. `off` is valid without the feature too.
fn is_built(to: &str, mode: Option<&str>, lacks: &[(&str, bool)]) -> Result<(), String> {
    if lacks.contains(&(to, true)) && mode != Some("off") {
        return Err(format!(
            "this oomwatch was built without the feature `{to}`: build it with `--features {to}`"
        ));
    }
    Ok(())
}

/// Adds the chosen publishers. Each followed containerd gets one, because a container's kill is announced where it
/// lives.
///
/// # Errors
/// When Kubernetes is asked for outside of a cluster.
pub(crate) fn configure(
    mut builder: Builder,
    wanted: &[PublishArg],
    followed: &[RuntimeSocket],
) -> anyhow::Result<Builder> {
    if let Some(mode) = containerd(wanted) {
        builder = add_containerd(builder, mode, followed);
    }
    if kubernetes(wanted) {
        builder = add_kubernetes(builder)?;
    }
    if journald(wanted) {
        builder = builder.publisher(JournaldPublisher::new());
    }
    Ok(builder)
}

#[cfg(feature = "containerd")]
fn add_containerd(mut builder: Builder, mode: Containerd, followed: &[RuntimeSocket]) -> Builder {
    use oomwatch::{ContainerdMode, ContainerdPublisher, RuntimeApi};
    let mode = match mode {
        Containerd::Missing => ContainerdMode::Missing,
        Containerd::Always => ContainerdMode::Always,
    };
    let containerds = followed
        .iter()
        .filter(|socket| socket.api == RuntimeApi::Containerd);
    for socket in containerds {
        builder = builder.publisher(ContainerdPublisher::new(&socket.path, mode));
    }
    builder
}

#[cfg(feature = "kubernetes")]
fn add_kubernetes(builder: Builder) -> anyhow::Result<Builder> {
    use anyhow::Context as _;
    let publisher = oomwatch::KubernetesPublisher::in_cluster().context("--publish kubernetes")?;
    Ok(builder.publisher(publisher))
}

/// Adds the publisher to an OpenTelemetry collector, if it was chosen.
///
/// # Errors
/// When an environment variable for the exporter cannot be followed.
#[cfg(feature = "otlp")]
pub(crate) fn add_otlp(
    builder: Builder,
    wanted: &[PublishArg],
    node: Option<&str>,
    counts: &Counts,
) -> anyhow::Result<Builder> {
    if !otlp(wanted) {
        return Ok(builder);
    }
    let mut publisher = oomwatch::OtlpPublisher::from_env()?.counts(counts);
    if let Some(node) = node {
        publisher = publisher.node(node);
    }
    Ok(builder.publisher(publisher))
}

// `parse` refuses publishers that a build lacks.
#[cfg(not(feature = "containerd"))]
fn add_containerd(builder: Builder, _mode: Containerd, _followed: &[RuntimeSocket]) -> Builder {
    builder
}

#[cfg(not(feature = "kubernetes"))]
fn add_kubernetes(builder: Builder) -> anyhow::Result<Builder> {
    Ok(builder)
}

#[cfg(not(feature = "otlp"))]
pub(crate) fn add_otlp(
    builder: Builder,
    _wanted: &[PublishArg],
    _node: Option<&str>,
    _counts: &Counts,
) -> anyhow::Result<Builder> {
    Ok(builder)
}

/// Whether the journal gets each event as an entry, and would get it as a line of stdout too.
pub(crate) fn journal_has_stdout(wanted: &[PublishArg]) -> bool {
    journald(wanted) && is_journal(stdout())
}

/// The last value for one place.
fn last<T>(wanted: &[PublishArg], word: impl Fn(&PublishArg) -> Option<T>) -> Option<T> {
    wanted.iter().rev().find_map(word)
}

fn containerd(wanted: &[PublishArg]) -> Option<Containerd> {
    let word = last(wanted, |wanted| match wanted {
        PublishArg::Containerd(mode) => Some(*mode),
        _ => None,
    });
    word.flatten()
}

fn kubernetes(wanted: &[PublishArg]) -> bool {
    let word = last(wanted, |wanted| match wanted {
        PublishArg::Kubernetes(on) => Some(*on),
        _ => None,
    });
    word.unwrap_or(false)
}

#[cfg(feature = "otlp")]
fn otlp(wanted: &[PublishArg]) -> bool {
    let word = last(wanted, |wanted| match wanted {
        PublishArg::Otlp(on) => Some(*on),
        _ => None,
    });
    word.unwrap_or(false)
}

/// On by default where systemd has connected one of the streams to the journal.
fn journald(wanted: &[PublishArg]) -> bool {
    let word = last(wanted, |wanted| match wanted {
        PublishArg::Journald(on) => Some(*on),
        _ => None,
    });
    word.unwrap_or_else(|| is_journal(stderr()) || is_journal(stdout()))
}

/// Whether a stream is the one in `$JOURNAL_STREAM`. The variable alone proves nothing: every child of a service has
/// it too.
fn is_journal(stream: impl AsFd) -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let found = rustix::fs::fstat(stream);
    found.is_ok_and(|found| is_stream(&journal, found.st_dev, found.st_ino))
}

/// `journal` is the numbers of a device and an inode, with a colon between them.
fn is_stream(journal: &str, device: u64, inode: u64) -> bool {
    let numbers = journal.split_once(':');
    let numbers =
        numbers.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    numbers == Some((device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_the_build_lacks_is_named_with_its_feature() {
        let lacks = &[("otlp", true), ("kubernetes", false)];
        let error = is_built("otlp", None, lacks).unwrap_err();
        assert!(error.contains("without the feature `otlp`"), "{error}");
        assert_eq!(is_built("otlp", Some("off"), lacks), Ok(()));
        assert_eq!(is_built("kubernetes", None, lacks), Ok(()));
    }

    fn parsed(words: &[&str]) -> Vec<PublishArg> {
        words.iter().map(|text| parse(text).unwrap()).collect()
    }

    #[test]
    fn the_last_word_counts() {
        let all = parsed(&[
            "containerd",
            "containerd=always",
            "journald",
            "containerd=off",
        ]);
        assert!(!PublishArg::wants_containerd(&all));
        assert_eq!(containerd(&all[..3]), Some(Containerd::Always));
        assert_eq!(containerd(&all[..1]), Some(Containerd::Missing));
        assert_eq!(containerd(&[]), None);
    }

    #[test]
    fn each_place_has_its_own_word() {
        let all = parsed(&["kubernetes", "journald", "containerd=off", "journald=off"]);
        assert!(kubernetes(&all));
        assert!(!journald(&all));
        assert!(journald(&all[..2]));
        assert!(!kubernetes(&parsed(&["kubernetes", "kubernetes=off"])));
        let all = parsed(&["otlp", "containerd=always", "otlp=off", "otlp"]);
        assert!(otlp(&all) && otlp(&all[..2]) && !otlp(&all[..3]) && !otlp(&[]));
        assert!(!kubernetes(&[]));
    }

    #[test]
    fn anything_else_is_told_with_what_is_expected() {
        for bad in [
            "",
            "containerd=",
            "containerd=sometimes",
            "docker",
            "kubernetes=always",
            "journald=",
            "otlp=",
        ] {
            let error = parse(bad).unwrap_err();
            for word in ["containerd=always", "kubernetes", "journald", "otlp"] {
                assert!(error.contains(word), "{bad}");
            }
        }
    }

    #[test]
    fn the_journals_stream_is_told_by_its_numbers() {
        assert!(is_stream("9:1234", 9, 1234));
        for other in ["", "9", "9:", ":1234", "8:1234", "9:123", "9:1234:5", "a:b"] {
            assert!(!is_stream(other, 9, 1234), "{other}");
        }
    }
}
