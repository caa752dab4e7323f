//! The exit codes, which others build on.

use std::process::ExitCode;

use oomwatch::{AddError, ListenError, PinError, ProbeError, StartError};

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failure,
    /// Wrong usage or configuration.
    Usage,
    /// `check`: works, with something missing.
    Degraded,
    /// More privilege is needed (`EX_NOPERM`).
    NoPrivilege,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Degraded => 3,
            Exit::NoPrivilege => 77,
        })
    }
}

impl Exit {
    /// The code for an error that ended a command.
    #[must_use]
    pub(crate) fn for_error(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<StartError>() {
            Some(StartError::Probe(ProbeError::Privilege(_))) => Self::NoPrivilege,
            Some(StartError::Probe(ProbeError::Pin(error))) if error.is_privilege() => {
                Self::NoPrivilege
            }
            Some(StartError::Probe(ProbeError::RingSize(_)) | StartError::Add(_)) => Self::Usage,
            _ if error
                .downcast_ref::<PinError>()
                .is_some_and(PinError::is_privilege) =>
            {
                Self::NoPrivilege
            }
            _ if matches!(
                error.downcast_ref(),
                Some(ListenError::Public { .. } | ListenError::Address { .. })
            ) =>
            {
                Self::Usage
            }
            _ if error.downcast_ref::<AddError>().is_some() => Self::Usage,
            #[cfg(feature = "otlp")]
            _ if error.downcast_ref::<oomwatch::OtlpError>().is_some() => Self::Usage,
            _ => Self::Failure,
        }
    }
}
