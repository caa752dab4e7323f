//! `run`: the sockets of the API, and the API's sources.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use clap::ValueEnum;
use oomwatch::{Api, Builder, ControlAccess, ControlSocket, Metrics, ReadOnlyListener};
use tracing::{info, warn};

use super::{
    ApiArgs, RunArgs, history,
    socket::{ControlArg, DEFAULT_CONTROL},
};

/// Other programs whose names of metrics exist here too, for existing dashboards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compat {
    /// `container_oom_events_total`.
    Cadvisor,
}

/// Answers `/metrics`.
pub(crate) fn with_metrics(api: Api, metrics: Metrics) -> Api {
    let metrics = Arc::new(metrics);
    api.metrics(move || {
        let metrics = Arc::clone(&metrics);
        Box::pin(async move { metrics.render().await })
    })
}

/// Begins to keep events for the API, and makes its sockets. Without a socket there is no API, and no events are
/// kept. Clients are answered once the watcher has started.
///
/// # Errors
/// When a socket that was asked for cannot be made.
pub(crate) async fn prepare(
    builder: Builder,
    args: &RunArgs,
) -> anyhow::Result<(Builder, Option<Api>)> {
    let listener = listener(&args.api).await?;
    let control = control(&args.api).await?;
    if control.is_none() && listener.is_none() {
        return Ok((builder, None));
    }
    let (mut api, publisher) = Api::new();
    if let Some(listener) = listener {
        info!(address = %listener.address(), "listening");
        api = api.read_only(listener);
    }
    if let Some(control) = control {
        info!(path = %control.path().display(), "control socket");
        api = api.control(control);
    }
    if let Some(dir) = history::kept_in(&args.store) {
        api = api.state_dir(dir);
    }
    Ok((builder.publisher(publisher), Some(api)))
}

async fn control(args: &ApiArgs) -> anyhow::Result<Option<ControlSocket>> {
    let access = args
        .control_group
        .map_or(ControlAccess::Owner, ControlAccess::Group);
    match &args.control {
        Some(ControlArg::Off) => Ok(None),
        Some(ControlArg::Path(path)) => Ok(Some(ControlSocket::bind(path, access).await?)),
        None => Ok(default_control(access).await),
    }
}

/// Makes the default socket. Nobody asked for it, so the daemon watches without it if it fails.
async fn default_control(access: ControlAccess) -> Option<ControlSocket> {
    let path = Path::new(DEFAULT_CONTROL);
    if let Some(dir) = path.parent()
        && let Err(error) = make_dir(dir)
    {
        warn!(%error, dir = %dir.display(), "cannot make the directory of the control socket: oomwatch runs without one; choose another with --control PATH, or none with --control none");
        return None;
    }
    match ControlSocket::bind(path, access).await {
        Ok(socket) => Some(socket),
        Err(error) => {
            let error = anyhow::Error::from(error);
            warn!(error = %format_args!("{error:#}"), "cannot listen on the control socket: oomwatch runs without one; choose another with --control PATH, or none with --control none");
            None
        }
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    // Independent of the umask: whoever may write here could replace our socket.
    match DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

async fn listener(args: &ApiArgs) -> anyhow::Result<Option<ReadOnlyListener>> {
    match args.listen.as_deref() {
        None | Some("") => Ok(None),
        Some(address) => {
            let listener = ReadOnlyListener::bind(address, args.listen_public).await?;
            Ok(Some(listener))
        }
    }
}
