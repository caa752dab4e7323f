//! The programs' log, passed to `tracing` by way of `log`.

use aya::Ebpf;
use tokio::io::unix::AsyncFd;
use tracing::debug;

use super::register;

/// The programs' log.
pub(crate) struct ProgramLog(AsyncFd<aya_log::EbpfLogger<&'static dyn log::Log>>);

impl ProgramLog {
    /// Waits for entries and passes them on.
    pub(crate) async fn forward(&mut self) {
        match self.0.readable_mut().await {
            Ok(mut ready) => {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
            Err(error) => {
                debug!(%error, "the eBPF log cannot be read any more");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Programs that log nothing have no log to read. That is no reason to fail.
pub(super) fn start(programs: &mut Ebpf) -> Option<ProgramLog> {
    let logger = aya_log::EbpfLogger::init(programs)
        .inspect_err(|error| debug!(%error, "the eBPF programs have no log"))
        .ok()?;
    register(logger).ok().map(ProgramLog)
}
