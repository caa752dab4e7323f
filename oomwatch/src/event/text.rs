//! The event as one line for a person.
//!
//! ```text
//! 2026-08-22 10:23:45.123 KILL  web-1 lost java[1234] (anon 250 MiB): its own limit of 256 MiB was hit by conmon[99]; /kubepods.slice/…
//! ```

use std::fmt::{self, Write as _};

use super::{Kind, OomEvent, json::format_time};
use crate::{
    containers::{container::Container, identity::Identity},
    event::Scope,
    id::printable,
};

/// Colours of a terminal.
const RED: &str = "\x1b[1;31m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

impl OomEvent {
    /// The event as one line of text, without a line break; with colours of a terminal if
    /// asked for. Untrusted text in it has no control characters.
    #[must_use]
    pub fn to_text(&self, color: bool) -> String {
        let mut line = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut line, color);
        line
    }

    fn write_text(&self, line: &mut String, color: bool) -> fmt::Result {
        let (red, dim, reset) = if color {
            (RED, DIM, RESET)
        } else {
            ("", "", "")
        };
        let time = format_time(self.unix_time_ns).replace('T', " ");
        let time = time.get(..23).unwrap_or(&time);
        write!(line, "{dim}{time}{reset} ")?;
        match self.kind {
            Kind::Kill => write!(line, "{red}KILL{reset} ")?,
            Kind::AlreadyExiting => line.push_str("EXITING "),
            Kind::CounterOnly => write!(line, "{red}KILL{reset} ×{} ", self.count)?,
        }
        self.write_owner(line)?;
        if self.kind == Kind::CounterOnly {
            line.push_str(" lost processes that only the kernel's counter tells of");
            if self.while_down {
                line.push_str(" (while no daemon ran)");
            }
            return Ok(());
        }
        self.write_victim(line)?;
        self.write_cause(line)?;
        if let Some(path) = &self.victim.cgroup_path {
            write!(line, " {dim}{path}{reset}")?;
        }
        if let Some(seq) = self.supersedes {
            write!(line, " (registered late: this replaces event {seq})")?;
        }
        Ok(())
    }

    fn write_owner(&self, line: &mut String) -> fmt::Result {
        let Some(container) = &self.container else {
            return line.write_str("(no container)");
        };
        let details = &container.details;
        let name = details
            .name
            .as_deref()
            .unwrap_or(short_id(container.id.as_str()));
        let name = printable(name.as_bytes());
        match (&details.namespace, &details.pod) {
            (Some(namespace), Some(pod)) => write!(
                line,
                "{}/{}/{name}",
                printable(namespace.as_bytes()),
                printable(pod.as_bytes())
            ),
            _ => line.write_str(&name),
        }?;
        write_claim(line, container)
    }

    fn write_victim(&self, line: &mut String) -> fmt::Result {
        let verb = match self.kind {
            Kind::AlreadyExiting => "was losing",
            _ => "lost",
        };
        write!(line, " {verb} ")?;
        write_task(line, self.victim.comm.as_deref(), self.victim.pid)?;
        if self.victim.is_init == Some(true) {
            line.push_str(", its init");
        }
        if let Some(bytes) = self.victim.anon_rss_bytes {
            write!(line, " (anon {})", Bytes(bytes))?;
        }
        Ok(())
    }

    fn write_cause(&self, line: &mut String) -> fmt::Result {
        let whose = match self.scope {
            Scope::Container => "its own limit",
            Scope::Pod => "the pod's limit",
            Scope::Ancestor => "a limit further up",
            Scope::Cgroup => "the cgroup's limit",
            Scope::Node => "the node's memory",
            Scope::Unknown => "a limit",
        };
        write!(line, ": {whose}")?;
        if let Some(bytes) = self.limit.max_bytes {
            write!(line, " of {}", Bytes(bytes))?;
        }
        if let (Scope::Pod | Scope::Ancestor, Some(path)) = (self.scope, &self.limit.path) {
            write!(line, " at {path}")?;
        }
        line.push_str(" was hit");
        if self.trigger.pid.is_some() && self.trigger.pid != self.victim.pid {
            line.push_str(" by ");
            write_task(line, self.trigger.comm.as_deref(), self.trigger.pid)?;
        }
        line.push(';');
        Ok(())
    }
}

/// The first twelve digits of a long id, as container tools print it; the cgroup's path at the
/// end of the line has it whole.
fn short_id(id: &str) -> &str {
    match id.get(..12) {
        Some(short) if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => short,
        _ => id,
    }
}

/// Of a claim: who it is inside of, or who made it.
fn write_claim(line: &mut String, container: &Container) -> fmt::Result {
    if container.identity != Identity::Claimed {
        return Ok(());
    }
    let made_by = container.details.realm.as_deref();
    match (&container.inside, made_by) {
        (Some(outer), _) => {
            let name = outer.details.name.as_deref();
            let name = name.unwrap_or(short_id(outer.id.as_str()));
            write!(line, " (claimed, in {})", printable(name.as_bytes()))
        }
        (None, Some(made_by)) => write!(line, " (claimed, by {})", printable(made_by.as_bytes())),
        (None, None) => line.write_str(" (claimed)"),
    }
}

fn write_task(line: &mut String, comm: Option<&str>, pid: Option<u32>) -> fmt::Result {
    line.push_str(comm.unwrap_or("?"));
    match pid {
        Some(pid) => write!(line, "[{pid}]"),
        None => line.write_str("[?]"),
    }
}

/// A size with the unit that suits it.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = UNITS.iter();
        let mut name = unit.next().unwrap_or(&"");
        while value >= 1024.0 {
            let Some(next) = unit.next() else { break };
            value /= 1024.0;
            name = next;
        }
        // 256 MiB and not 256.0 MiB, but 1.5 GiB.
        if value >= 100.0 || value.fract() < 0.05 {
            write!(f, "{value:.0} {name}")
        } else {
            write!(f, "{value:.1} {name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!(text(256 << 20), "256 MiB");
        assert_eq!(text(3 << 29), "1.5 GiB");
        assert_eq!(text(0), "0 KiB");
        assert_eq!(text(u64::MAX), "16384 PiB");
    }
}
