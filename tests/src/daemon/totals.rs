//! What the daemon's log says at its end, of each container and of all: the lines `container totals` and
//! `stopped` of `--log-format json`.

use serde::Deserialize;
use serde_json::Value;

/// The numbers of one container since its registration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ContainerTotals {
    /// The container's id.
    pub container: String,
    /// By how much its `oom_kill` rose.
    pub increase: i64,
    /// Kills that were seen.
    pub kills: i64,
    /// Kills that only the counter told of.
    pub counter_only: i64,
    /// Second counts by the kernel.
    pub double_counts: i64,
    /// What of the rise cannot be explained.
    pub residual: i64,
}

/// The numbers of the whole node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Stopped {
    /// Kills that were seen.
    pub kills: i64,
    /// Kills that only a container's counter told of.
    pub counter_only: i64,
    /// Second counts by the kernel.
    pub double_counts: i64,
    /// Marks of further threads, and of processes that other programs had seen as well.
    #[serde(default)]
    pub folded: i64,
    /// What the node counted that nobody spoke of.
    #[serde(default)]
    pub residual: i64,
}

/// A line of the log that tells numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Summary {
    Container(ContainerTotals),
    Stopped(Stopped),
}

/// Takes a line of the log; `None` if it is another one.
pub(super) fn parse(line: &str) -> Option<Summary> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields")?;
    match fields.get("message")?.as_str()? {
        "container totals" => ContainerTotals::deserialize(fields)
            .ok()
            .map(Summary::Container),
        "stopped" => Stopped::deserialize(fields).ok().map(Summary::Stopped),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_and_the_end_are_found_in_the_log() {
        let book = r#"{"level":"INFO","fields":{"message":"container totals","container":"c","cgroup":7,
            "increase":4,"kills":3,"counter_only":0,"double_counts":1,"residual":0}}"#;
        let expected = ContainerTotals {
            container: "c".to_owned(),
            increase: 4,
            kills: 3,
            double_counts: 1,
            ..ContainerTotals::default()
        };
        assert_eq!(parse(book), Some(Summary::Container(expected)));
        let stopped =
            r#"{"fields":{"message":"stopped","kills":3,"counter_only":0,"double_counts":1}}"#;
        assert!(matches!(parse(stopped), Some(Summary::Stopped(_))));
    }

    #[test]
    fn other_lines_tell_no_numbers() {
        assert_eq!(parse(r#"{"fields":{"message":"ready"}}"#), None);
        assert_eq!(parse("container totals"), None);
        // A book without its numbers is none, and the checks will miss it.
        let cut = r#"{"fields":{"message":"container totals","container":"c"}}"#;
        assert_eq!(parse(cut), None);
    }
}
