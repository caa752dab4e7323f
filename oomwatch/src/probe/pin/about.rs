//! The description of pinned programs. From it, another daemon knows whether it would load the same programs.

use std::{fmt, str::FromStr};

use oomwatch_common::{config::Config, record::WIRE_VERSION};
use zerocopy::IntoBytes as _;

use crate::tier::Tier;

/// The first word. A link's text must begin with it to be ours.
const NAME: &str = "oomwatch";

/// The description of pinned programs. Two programs with the same one are the same, except for `sees_oom_control` and
/// `links`. The first daemon found those out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    wire: u16,
    /// Hashes of the loaded object, and of the config written into it.
    object: u64,
    config: u64,
    tier: String,
    ring_bytes: u32,
    log: bool,
    pub(crate) sees_oom_control: bool,
    pub(crate) links: usize,
}

impl About {
    /// The description of the programs that this build would load here.
    pub(crate) fn new(
        object: &[u8],
        config: &Config,
        tier: Tier,
        ring_bytes: u32,
        log: bool,
    ) -> Self {
        Self {
            wire: WIRE_VERSION,
            object: hash(object),
            config: hash(config.as_bytes()),
            tier: tier.as_str().to_owned(),
            ring_bytes,
            log,
            sees_oom_control: false,
            links: 0,
        }
    }

    /// Version of the records that they write.
    pub(crate) fn wire_version(&self) -> u16 {
        self.wire
    }

    /// Whether a daemon that would load `wanted` can continue with programs like this. Programs that log cannot be
    /// continued, because the log's ring is not pinned.
    pub(crate) fn is_good_for(&self, wanted: &Self) -> bool {
        let found = Self {
            sees_oom_control: wanted.sees_oom_control,
            links: wanted.links,
            ..self.clone()
        };
        found == *wanted && !wanted.log
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wire,
            object,
            config,
            tier,
            ring_bytes,
            log,
            sees_oom_control,
            links,
        } = self;
        write!(
            f,
            "{NAME} wire={wire} object={object:016x} config={config:016x} tier={tier} ring={ring_bytes} log={log} limits={sees_oom_control} links={links}"
        )
    }
}

/// Another form than this version's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OtherForm;

impl FromStr for About {
    type Err = OtherForm;

    fn from_str(text: &str) -> Result<Self, OtherForm> {
        let mut words = text.split(' ');
        if words.next() != Some(NAME) {
            return Err(OtherForm);
        }
        let mut value = |key: &str| {
            let word = words.next().ok_or(OtherForm)?;
            let (found, value) = word.split_once('=').ok_or(OtherForm)?;
            (found == key).then_some(value).ok_or(OtherForm)
        };
        let about = Self {
            wire: parse(value("wire")?)?,
            object: parse_hash(value("object")?)?,
            config: parse_hash(value("config")?)?,
            tier: value("tier")?.to_owned(),
            ring_bytes: parse(value("ring")?)?,
            log: parse(value("log")?)?,
            sees_oom_control: parse(value("limits")?)?,
            links: parse(value("links")?)?,
        };
        match words.next() {
            None => Ok(about),
            Some(_) => Err(OtherForm),
        }
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, OtherForm> {
    text.parse().map_err(|_| OtherForm)
}

fn parse_hash(text: &str) -> Result<u64, OtherForm> {
    u64::from_str_radix(text, 16).map_err(|_| OtherForm)
}

/// FNV-1a. It separates builds from each other, not from forgeries. It is the same in every version.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(object: &[u8]) -> About {
        About::new(object, &Config::UNKNOWN, Tier::Btf, 4096, false)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut written = about(b"object");
        written.sees_oom_control = true;
        written.links = 5;
        assert_eq!(written.to_string().parse(), Ok(written));
    }

    #[test]
    fn other_forms_are_not_guessed_at() {
        for text in [
            "",
            "oomwatch",
            "cilium wire=1",
            "oomwatch wire=x",
            "oomwatch wire=1 object=0",
            &format!("{} more=1", about(b"")),
        ] {
            assert_eq!(text.parse::<About>(), Err(OtherForm), "{text:?}");
        }
    }

    #[test]
    fn only_the_same_programs_are_gone_on_with() {
        let wanted = about(b"object");
        let mut found = wanted.clone();
        found.sees_oom_control = true;
        found.links = 5;
        assert!(found.is_good_for(&wanted));
        let mut config = Config::UNKNOWN;
        config.task_pid = 8;
        let others = [
            about(b"another"),
            About::new(b"object", &config, Tier::Btf, 4096, false),
            About::new(b"object", &Config::UNKNOWN, Tier::BtfPid, 4096, false),
            About::new(b"object", &Config::UNKNOWN, Tier::Btf, 8192, false),
            About::new(b"object", &Config::UNKNOWN, Tier::Btf, 4096, true),
            About {
                wire: WIRE_VERSION + 1,
                ..wanted.clone()
            },
        ];
        for other in others {
            assert!(!other.is_good_for(&wanted), "{other}");
        }
        let logging = About::new(b"object", &Config::UNKNOWN, Tier::Btf, 4096, true);
        assert!(!logging.is_good_for(&logging), "nobody reads its log");
    }
}
