//! `oomwatch check`: the abilities of this host.

use std::io::{self, Write, stdout};

use anyhow::Context as _;
use oomwatch::host::{HostReport, Severity};

use super::{Color, exit::Exit};

/// Looks at the host and prints the findings.
///
/// # Errors
/// When stdout fails in another way than by being closed.
pub(crate) fn check(color: Color) -> anyhow::Result<Exit> {
    let report = HostReport::collect();
    match write(&report, &mut stdout().lock(), color.applies_to(&stdout())) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to stdout")
        }
        _ => Ok(exit(&report)),
    }
}

fn exit(report: &HostReport) -> Exit {
    match report.severity() {
        Severity::Good => Exit::Done,
        Severity::Degraded => Exit::Degraded,
        Severity::NoPrivilege => Exit::NoPrivilege,
        _ => Exit::Failure,
    }
}

fn write(report: &HostReport, stream: &mut impl Write, color: bool) -> io::Result<()> {
    for finding in &report.findings {
        let (code, mark) = match finding.severity {
            Severity::Good => ("32", "ok"),
            Severity::Degraded => ("33", "degraded"),
            Severity::NoPrivilege => ("31", "no privilege"),
            _ => ("31", "broken"),
        };
        let mark = format!("{mark:<12}");
        let mark = if color {
            format!("\x1b[{code}m{mark}\x1b[0m")
        } else {
            mark
        };
        writeln!(stream, "{mark} {:<18} {}", finding.subject, finding.found)?;
        if let Some(remedy) = finding.remedy {
            writeln!(stream, "{:<31} -> {remedy}", "")?;
        }
    }
    let verdict = match report.severity() {
        Severity::Good => "oomwatch works fully on this host",
        Severity::Degraded => "oomwatch works on this host, with something missing",
        Severity::NoPrivilege => "oomwatch needs more privilege",
        _ => "oomwatch does not work on this host",
    };
    writeln!(stream, "{verdict}")
}
