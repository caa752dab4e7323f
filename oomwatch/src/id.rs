//! Identities: of cgroups, of containers, and text that the kernel handed over.

use std::{cmp::Ordering, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Id of a cgroup on the v2 hierarchy: the inode number of its directory. The kernel
/// does not use one twice between boots (64-bit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CgroupId(pub u64);

impl CgroupId {
    /// The root of the hierarchy, on every kernel.
    pub const ROOT: Self = Self(1);
}

impl fmt::Display for CgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Longest container id accepted, in bytes. containerd allows 76; with `--all-cgroups` a path is one.
pub const MAX_CONTAINER_ID_BYTES: usize = 4096;

/// Name under which a container was registered.
///
/// Not empty, at most [`MAX_CONTAINER_ID_BYTES`] bytes, no control characters: it is
/// printed, and used as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(Arc<str>);

/// Why a text is no container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerIdError {
    /// The empty text.
    #[error("a container id must not be empty")]
    Empty,
    /// More than [`MAX_CONTAINER_ID_BYTES`].
    #[error("a container id has at most {MAX_CONTAINER_ID_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// A control character.
    #[error("the container id {0:?} has a control character in it")]
    ControlCharacter(String),
}

impl ContainerId {
    /// Checks `id`.
    ///
    /// # Errors
    /// When `id` is empty, too long or has control characters.
    ///
    /// ```
    /// let id = oomwatch::ContainerId::new("web-1")?;
    /// assert_eq!(id.as_str(), "web-1");
    /// assert!(oomwatch::ContainerId::new("web\n1").is_err());
    /// # Ok::<(), oomwatch::ContainerIdError>(())
    /// ```
    pub fn new(id: &str) -> Result<Self, ContainerIdError> {
        Self::check(id)?;
        Ok(Self(id.into()))
    }

    /// Whether [`Self::new`] would take it.
    pub(crate) fn check(id: &str) -> Result<(), ContainerIdError> {
        if id.is_empty() {
            return Err(ContainerIdError::Empty);
        }
        if id.len() > MAX_CONTAINER_ID_BYTES {
            return Err(ContainerIdError::TooLong(id.len()));
        }
        let has_control = if id.is_ascii() {
            id.bytes().any(|byte| byte.is_ascii_control())
        } else {
            id.chars().any(char::is_control)
        };
        if has_control {
            return Err(ContainerIdError::ControlCharacter(id.to_owned()));
        }
        Ok(())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Untrusted bytes from a process or a container as printable text. Bytes that are not UTF-8, and every control
/// character, become `\xNN`. Ordinary names are unchanged, a backslash in them included. So the result is for
/// reading, not for reversing.
///
/// ```
/// assert_eq!(oomwatch::printable(b"java"), "java");
/// assert_eq!(oomwatch::printable(b"a\nb\x1b[31m\xff"), r"a\x0ab\x1b[31m\xff");
/// ```
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    if is_plain(bytes)
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return text.to_owned();
    }
    escaped(bytes)
}

/// The same, in place where nothing is escaped: every event has several long paths.
pub(crate) fn into_printable(bytes: Vec<u8>) -> String {
    if !is_plain(&bytes) {
        return escaped(&bytes);
    }
    String::from_utf8(bytes).unwrap_or_else(|error| escaped(error.as_bytes()))
}

/// Nearly all text there is.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

fn escaped(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_harmless(character) {
                text.push(character);
            } else {
                let mut utf8 = [0; 4];
                for byte in character.encode_utf8(&mut utf8).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Neither a control character nor one that reorders or hides its neighbours.
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Identifies the counters of a memory cgroup. Switching the controller off and on makes other counters, which begin
/// at 0. Either number alone shows that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Css {
    /// Inode of its `memory.events.local`: the higher one is the younger.
    pub(crate) inode: Option<u64>,
    /// The kernel's serial number of the css.
    pub(crate) serial: Option<u64>,
}

impl Css {
    /// Compares by age: the younger counters are greater. Equal where nothing distinguishes them.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let by_inode = self.inode.zip(other.inode);
        let numbers = by_inode.or_else(|| self.serial.zip(other.serial));
        numbers.map_or(Ordering::Equal, |(own, others)| own.cmp(&others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direction_overrides_are_escaped() {
        assert_eq!(printable("a\u{202e}b".as_bytes()), r"a\xe2\x80\xaeb");
    }

    #[test]
    fn ids_are_checked() {
        assert_eq!(ContainerId::new(""), Err(ContainerIdError::Empty));
        assert_eq!(
            ContainerId::new(&"x".repeat(4097)),
            Err(ContainerIdError::TooLong(4097))
        );
        assert!(ContainerId::new("a\u{7f}").is_err());
        assert!(ContainerId::new("grün").is_ok());
    }
}
