//! The text of `memory.events`: `key value` lines, whose keys differ between kernels.

/// The counters of one `memory.events` or `memory.events.local`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryEvents {
    /// Times the limit was about to be exceeded with nothing left to reclaim.
    pub(crate) oom: Option<u64>,
    /// Processes killed, and the kernel's double counts of group kills.
    pub(crate) oom_kill: Option<u64>,
    /// Group kills; since v5.17.
    pub(crate) oom_group_kill: Option<u64>,
}

/// A line that is no `key value`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not `key value`: {text:?}")]
pub struct MemoryEventsError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The line, shortened.
    pub text: String,
}

impl MemoryEvents {
    /// Reads the file's text. Unknown keys are skipped, missing ones are `None`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, MemoryEventsError> {
        let mut events = Self::default();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let (key, value) = parse_line(line).ok_or_else(|| MemoryEventsError {
                line: index + 1,
                text: crate::id::printable(line.get(..64).unwrap_or(line)),
            })?;
            match key {
                b"oom" => events.oom = Some(value),
                b"oom_kill" => events.oom_kill = Some(value),
                b"oom_group_kill" => events.oom_group_kill = Some(value),
                _ => {}
            }
        }
        Ok(events)
    }
}

fn parse_line(line: &[u8]) -> Option<(&[u8], u64)> {
    let space = line.iter().position(|&byte| byte == b' ')?;
    let (key, value) = line.split_at_checked(space)?;
    let value = std::str::from_utf8(value.get(1..)?).ok()?;
    Some((key, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_text() {
        let text =
            b"low 0\nhigh 0\nmax 31\noom 2\noom_kill 1\noom_group_kill 0\nsock_throttled 0\n";
        let events = MemoryEvents::parse(text);
        let expected = MemoryEvents {
            oom: Some(2),
            oom_kill: Some(1),
            oom_group_kill: Some(0),
        };
        assert_eq!(events, Ok(expected));
    }

    #[test]
    fn missing_is_none_and_not_zero() {
        assert_eq!(MemoryEvents::parse(b""), Ok(MemoryEvents::default()));
        assert_eq!(
            MemoryEvents::parse(b"oom_kill 18446744073709551615"),
            Ok(MemoryEvents {
                oom_kill: Some(u64::MAX),
                ..MemoryEvents::default()
            })
        );
    }

    #[test]
    fn malformed_lines_are_named() {
        for text in [
            "oom_kill",
            "oom_kill x",
            "oom_kill 18446744073709551616",
            " ",
        ] {
            let error = MemoryEvents::parse(format!("low 0\n{text}").as_bytes());
            assert_eq!(error.map_err(|error| error.line), Err(2), "{text:?}");
        }
    }
}
