//! Reading one `oomwatch.oom/1` event, with errors that name the field.
//!
//! Deliberately not the program's own types: a renamed field must fail here.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The value of `schema` in every event.
pub const SCHEMA: &str = "oomwatch.oom/1";

/// One event as it came out of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Event(Value);

impl Event {
    /// Takes a JSON object for an event if it says so.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let schema = value.get("schema")?.as_str()?;
        (schema == SCHEMA).then(|| Self(value.clone()))
    }

    /// A field by its dotted path. `null` on the way there makes the field `null`.
    pub fn field(&self, path: &str) -> Result<&Value> {
        let mut value = &self.0;
        for key in path.split('.') {
            if value.is_null() {
                break;
            }
            value = value
                .get(key)
                .with_context(|| format!("the event has no field `{path}`"))?;
        }
        Ok(value)
    }

    /// A text, or `None` for `null`.
    pub fn text_or_null(&self, path: &str) -> Result<Option<String>> {
        match self.field(path)? {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            other => bail!("`{path}` is {other}, not a text"),
        }
    }

    /// A text that must be known.
    pub fn text(&self, path: &str) -> Result<String> {
        self.text_or_null(path)?
            .with_context(|| format!("`{path}` is null"))
    }

    /// A number, or `None` for `null`.
    pub fn number_or_null(&self, path: &str) -> Result<Option<u64>> {
        match self.field(path)? {
            Value::Null => Ok(None),
            other => match other.as_u64() {
                Some(number) => Ok(Some(number)),
                None => bail!("`{path}` is {other}, not a number"),
            },
        }
    }

    /// A number that must be known.
    pub fn number(&self, path: &str) -> Result<u64> {
        self.number_or_null(path)?
            .with_context(|| format!("`{path}` is null"))
    }

    /// `kill`, `already_exiting` or `counter_only`.
    pub fn kind(&self) -> Result<String> {
        self.text("kind")
    }

    /// Whether this is a kill that was seen happening.
    #[must_use]
    pub fn is_kill(&self) -> bool {
        self.kind().is_ok_and(|kind| kind == "kill")
    }

    /// How many kills the event stands for.
    pub fn count(&self) -> Result<u64> {
        self.number("count")
    }

    /// The thread group id of the victim.
    pub fn victim_pid(&self) -> Result<u32> {
        let pid = self.number("victim.pid")?;
        u32::try_from(pid).with_context(|| format!("`victim.pid` is {pid}"))
    }

    /// The cgroup the victim was in.
    pub fn victim_cgroup_id(&self) -> Result<u64> {
        self.number("victim.cgroup_id")
    }

    /// The process that was allocating.
    pub fn trigger_pid(&self) -> Result<u32> {
        let pid = self.number("trigger.pid")?;
        u32::try_from(pid).with_context(|| format!("`trigger.pid` is {pid}"))
    }

    /// The registered container, or `None` for a victim in none.
    pub fn container_id(&self) -> Result<Option<String>> {
        self.text_or_null("container.id")
    }

    /// The cgroup whose limit was hit, or `None` for the node itself.
    pub fn limit_cgroup_id(&self) -> Result<Option<u64>> {
        self.number_or_null("limit.cgroup_id")
    }

    /// A number of the container's `memory.events`, as oomwatch last knew it.
    pub fn counter(&self, key: &str) -> Result<u64> {
        self.number(&format!("counter.{key}"))
    }

    /// How sure the container is: `exact`, `ancestor`, `late` or `unregistered`.
    pub fn attribution(&self) -> Result<String> {
        self.text("quality.attribution")
    }

    /// Whether `witness` (`tracepoint`, `counter`) vouches for the event.
    pub fn has_evidence(&self, witness: &str) -> Result<bool> {
        let evidence = self.field("evidence")?;
        let list = evidence.as_array().context("`evidence` is not a list")?;
        Ok(list.iter().any(|entry| entry.as_str() == Some(witness)))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        Event::from_json(&json!({"schema": SCHEMA, "kind": "kill", "container": null,
            "victim": {"pid": 7}, "evidence": ["counter"]}))
        .unwrap()
    }

    #[test]
    fn missing_and_null_are_told_apart() {
        assert_eq!(event().container_id().unwrap(), None);
        let missing = event().victim_cgroup_id().unwrap_err();
        assert_eq!(
            missing.to_string(),
            "the event has no field `victim.cgroup_id`"
        );
        let null = event().text("container.id").unwrap_err();
        assert_eq!(null.to_string(), "`container.id` is null");
    }

    #[test]
    fn another_schema_is_no_event() {
        assert!(Event::from_json(&json!({"schema": "oomwatch.oom/2"})).is_none());
    }

    #[test]
    fn evidence_is_searched() {
        assert!(event().has_evidence("counter").unwrap());
        assert!(!event().has_evidence("tracepoint").unwrap());
    }
}
