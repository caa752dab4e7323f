//! The choice of the control socket, and who may use it.

use std::path::{self, PathBuf};

/// Default control socket of a daemon.
pub(crate) const DEFAULT_CONTROL: &str = "/run/oomwatch/oomwatch.sock";

/// A control socket, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ControlArg {
    /// None at all.
    Off,
    /// At a path.
    Path(PathBuf),
}

/// Reads a path, `none`, or nothing.
pub(crate) fn parse(text: &str) -> Result<ControlArg, String> {
    match text {
        "" | "none" => Ok(ControlArg::Off),
        path => path::absolute(path)
            .map(ControlArg::Path)
            .map_err(|error| error.to_string()),
    }
}

/// Reads a group's name or number.
pub(crate) fn parse_group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let group = uzers::get_group_by_name(text);
    group.map(|group| group.gid()).ok_or_else(|| {
        format!("there is no group {text:?} on this host; `groupadd {text}` makes it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_none() {
        assert_eq!(parse("none"), Ok(ControlArg::Off));
        assert_eq!(parse(""), Ok(ControlArg::Off));
        assert_eq!(parse("/run/x"), Ok(ControlArg::Path("/run/x".into())));
        assert!(matches!(parse("x"), Ok(ControlArg::Path(path)) if path.is_absolute()));
    }

    #[test]
    fn groups_have_names_and_numbers() {
        assert_eq!(parse_group("12"), Ok(12));
        assert_eq!(parse_group("root"), Ok(0));
        assert!(
            parse_group("no such group")
                .unwrap_err()
                .contains("no such group")
        );
    }
}
