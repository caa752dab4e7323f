//! Where a classic tracepoint's record has its fields, from tracefs. PREEMPT_RT and RHEL have them 4 bytes later than
//! other kernels, so nothing is assumed. Knows text, and no program.

use std::{fs, io, path::PathBuf};

/// Where tracefs may be.
const MOUNTS: [&str; 2] = [
    "/sys/kernel/tracing/events",
    "/sys/kernel/debug/tracing/events",
];

/// Why the place of a field is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("tracefs is not mounted: mount -t tracefs none /sys/kernel/tracing")]
    NotMounted,
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has no field {field} of 4 bytes", path.display())]
    NoField { path: PathBuf, field: &'static str },
}

/// The tracepoints of this host.
pub(super) struct Events(PathBuf);

/// The format of one tracepoint.
#[derive(Debug)]
pub(super) struct Format {
    path: PathBuf,
    text: String,
}

impl Events {
    pub(super) fn find() -> Result<Self, FormatError> {
        let mut mounts = MOUNTS.map(PathBuf::from).into_iter();
        let mounted = mounts.find(|path| path.is_dir());
        mounted.map(Self).ok_or(FormatError::NotMounted)
    }

    /// The format of `category/name`.
    pub(super) fn format(&self, tracepoint: &str) -> Result<Format, FormatError> {
        let path = self.0.join(tracepoint).join("format");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Format { path, text }),
            Err(source) => Err(FormatError::Read { path, source }),
        }
    }
}

impl Format {
    /// The offset of a number of 4 bytes.
    pub(super) fn offset(&self, field: &'static str) -> Result<u32, FormatError> {
        let mut fields = self.text.lines().filter_map(parse);
        let found = fields.find(|found| found.name == field && found.bytes == 4);
        found.map(|found| found.offset).ok_or_else(|| {
            let path = self.path.clone();
            FormatError::NoField { path, field }
        })
    }
}

struct Field<'a> {
    name: &'a str,
    offset: u32,
    bytes: u32,
}

/// A line such as `field:int pid;  offset:8;  size:4;  signed:1;`.
fn parse(line: &str) -> Option<Field<'_>> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declared = parts.next()?.strip_prefix("field:")?;
    let offset = parts.next()?.strip_prefix("offset:")?;
    let bytes = parts.next()?.strip_prefix("size:")?;
    Some(Field {
        name: declared.rsplit(' ').next()?,
        offset: offset.parse().ok()?,
        bytes: bytes.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(text: &str) -> Format {
        Format {
            path: "events/oom/mark_victim/format".into(),
            text: text.to_owned(),
        }
    }

    /// Debian's 6.1.0-50-rt; elsewhere `pid` is at 8.
    const REAL_TIME: &str = "\
name: signal_generate
ID: 131
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
\tfield:unsigned char common_preempt_lazy_count;\toffset:8;\tsize:1;\tsigned:0;

\tfield:int sig;\toffset:12;\tsize:4;\tsigned:1;
\tfield:int errno;\toffset:16;\tsize:4;\tsigned:1;
\tfield:int code;\toffset:20;\tsize:4;\tsigned:1;
\tfield:char comm[16];\toffset:24;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:40;\tsize:4;\tsigned:1;
\tfield:int group;\toffset:44;\tsize:4;\tsigned:1;

print fmt: \"sig=%d errno=%d code=%d\", REC->sig, REC->errno, REC->code
";

    #[test]
    fn fields_are_where_the_kernel_says() {
        let format = format(REAL_TIME);
        let offsets = ["sig", "code", "pid"].map(|field| format.offset(field).unwrap());
        assert_eq!(offsets, [12, 20, 40]);
    }

    #[test]
    fn what_is_missing_or_of_another_size_is_named() {
        for text in [
            "",
            "field:int pid",
            "\tfield:long pid;\toffset:8;\tsize:8;\tsigned:1;",
        ] {
            let error = format(text).offset("pid").unwrap_err();
            assert!(error.to_string().contains("no field pid"), "{error}");
        }
    }
}
