//! The service manager's side of the readiness protocol: a `$NOTIFY_SOCKET` to wait on.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Child,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How often to look whether the program died instead of becoming ready.
const DEATH_CHECK: Duration = Duration::from_millis(50);

/// A datagram socket in the temporary directory, removed on drop.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// Makes the socket.
    pub fn bind() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("oomwatch-tests-{}-{number}.notify", std::process::id());
        let path = std::env::temp_dir().join(name);
        let socket =
            UnixDatagram::bind(&path).with_context(|| format!("binding {}", path.display()))?;
        // A program without privilege may tell too.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
            .with_context(|| format!("opening {} to all", path.display()))?;
        socket.set_read_timeout(Some(DEATH_CHECK))?;
        Ok(Self { socket, path })
    }

    /// What to put into `NOTIFY_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for `READY=1`, and fails early when the program ends before.
    pub fn wait_ready(&self, program: &mut Child, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0_u8; 4096];
        while Instant::now() < deadline {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let message = String::from_utf8_lossy(buffer.get(..length).unwrap_or(&[]));
                    if message.lines().any(|line| line == "READY=1") {
                        return Ok(());
                    }
                }
                Err(error) if is_timeout(error.kind()) => {}
                Err(error) => return Err(error).context("waiting for readiness"),
            }
            if let Some(status) = program.try_wait()? {
                bail!("ended before it was ready: {status}");
            }
        }
        bail!("not ready within {limit:?}")
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
