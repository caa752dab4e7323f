//! systemd's journal as a publisher: one entry for each event, with fields to search by, over journald's native
//! protocol.
//!
//! [`entry`] makes the bytes. This module has the socket: a new one for each entry, which finds a restarted journald
//! again. Knows nothing of the log that oomwatch writes to stderr.

mod entry;

use std::{
    fs::File,
    io::{self, IoSlice, Write as _},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use tokio::{io::Interest, net::UnixDatagram, time::timeout};

use super::{Delivery, PublishError, PublishFuture, Publisher};
use crate::event::OomEvent;

/// `MESSAGE_ID` of all entries: `journalctl MESSAGE_ID=…` finds them.
pub const JOURNAL_MESSAGE_ID: &str = "36222607e8b04d428f7cddf90967830a";

const SOCKET: &str = "/run/systemd/journal/socket";
/// How long journald may take for an entry. Then the entry is tried again later.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// Why an entry is not in the journal.
#[derive(Debug, thiserror::Error)]
#[error("journald does not take it at {}", socket.display())]
struct SendError {
    socket: PathBuf,
    #[source]
    source: io::Error,
}

/// Publishes events into systemd's journal, at least once.
#[derive(Debug)]
pub struct JournaldPublisher {
    socket: PathBuf,
}

impl JournaldPublisher {
    /// Publishes to this host's journald.
    #[must_use]
    pub fn new() -> Self {
        Self::at(SOCKET)
    }

    /// Publishes to the journald that listens at this socket.
    #[must_use]
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }
}

impl Default for JournaldPublisher {
    fn default() -> Self {
        Self::new()
    }
}

impl Publisher for JournaldPublisher {
    fn name(&self) -> &'static str {
        "journald"
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn publish(&mut self, event: Arc<OomEvent>) -> PublishFuture<'_> {
        Box::pin(async move {
            let entry = entry::entry(&event);
            let sent = timeout(SEND_LIMIT, send(&self.socket, &entry)).await;
            let sent = sent.unwrap_or_else(|error| Err(error.into()));
            sent.map_err(|source| {
                let socket = self.socket.clone();
                PublishError::Failed(Box::new(SendError { socket, source }))
            })
        })
    }
}

async fn send(socket: &Path, entry: &[u8]) -> io::Result<()> {
    let datagrams = UnixDatagram::unbound()?;
    datagrams.connect(socket)?;
    match datagrams.send(entry).await {
        Ok(_) => Ok(()),
        Err(error) if is_too_long(&error) => {
            let sealed = sealed(entry)?;
            let send = || send_file(datagrams.as_fd(), sealed.as_fd());
            datagrams.async_io(Interest::WRITABLE, send).await
        }
        Err(error) => Err(error),
    }
}

/// Whether the entry is more than a datagram may have.
fn is_too_long(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MSGSIZE | Errno::NOBUFS))
}

/// The entry in memory that nobody can change any more. journald asks for that.
fn sealed(entry: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("oomwatch-entry", flags)?);
    file.write_all(entry)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// A datagram of nothing but the descriptor.
fn send_file(socket: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(Errno::NOBUFS.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(&[])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
