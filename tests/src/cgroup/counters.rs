//! Flat `key value` files such as `memory.events`.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context, Result};

/// The keys and values of one file at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("parsing {}", path.display()))
    }

    /// Parses one `key value` pair per line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut values = BTreeMap::new();
        for line in text.lines() {
            let (key, value) = line
                .split_once(' ')
                .with_context(|| format!("no value in `{line}`"))?;
            let value = value
                .trim()
                .parse()
                .with_context(|| format!("no number in `{line}`"))?;
            values.insert(key.to_owned(), value);
        }
        Ok(Self(values))
    }

    /// The value of a key; `None` where this kernel has no such key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }

    /// How much a key rose since `before`; `None` where this kernel has no such key.
    #[must_use]
    pub fn rise(&self, before: &Self, key: &str) -> Option<i64> {
        let now = i64::try_from(self.value(key)?).ok()?;
        let then = i64::try_from(before.value(key).unwrap_or(0)).ok()?;
        Some(now - then)
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(out, "{separator}{key} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rise_of_a_key_the_kernel_lacks_is_unknown_not_zero() {
        let before = Counters::parse("oom 1\noom_kill 2\n").unwrap();
        let after = Counters::parse("oom 4\noom_kill 2\n").unwrap();
        assert_eq!(after.rise(&before, "oom"), Some(3));
        assert_eq!(after.rise(&before, "oom_kill"), Some(0));
        assert_eq!(after.rise(&before, "oom_group_kill"), None);
    }

    #[test]
    fn a_line_without_a_number_is_an_error() {
        assert!(Counters::parse("oom one\n").is_err());
        assert!(Counters::parse("oom\n").is_err());
    }
}
