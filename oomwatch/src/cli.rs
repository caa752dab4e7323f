//! The command line: its options and arguments, parsed into types that cannot be wrong.

pub(crate) mod api;
pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod control;
pub(crate) mod demo;
pub(crate) mod discover;
pub(crate) mod events;
pub(crate) mod exit;
pub(crate) mod generate;
pub(crate) mod history;
pub(crate) mod limits;
pub(crate) mod logging;
pub(crate) mod memory;
pub(crate) mod output;
pub(crate) mod publish;
pub(crate) mod run;
mod socket;
pub(crate) mod stream;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod unpin;

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use oomwatch::{Tier, TierChoice};

use self::{
    discover::{Discover, SocketArg},
    publish::PublishArg,
    socket::ControlArg,
};

/// Report, for every OOM kill, which container lost which process, and why.
#[derive(Debug, Parser)]
#[command(name = "oomwatch", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Choose when to use colours. NO_COLOR turns them off too.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,

    /// Choose the form of the log on stderr. RUST_LOG chooses what is logged.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "OOMWATCH_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// The commands. clap builds only the one in use, which saves a third of the time until a kill is seen.
///
/// clap builds an `Args` so late that its doc comment would replace the command's. So those types have plain
/// comments.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Watch, and report every OOM kill until stopped.
    Run(RunArgs),
    /// Tell what this host can do, and what is missing.
    Check,
    /// Make a harmless OOM kill in a throw-away cgroup and show its event.
    Demo(DemoArgs),
    /// Register a container with the running daemon.
    Add(AddArgs),
    /// Take a container out of the running daemon.
    Remove(RemoveArgs),
    /// List the containers that the running daemon watches.
    List(AskArgs),
    /// Tell how the running daemon works, and what it saw.
    Status(AskArgs),
    /// Show the events of the running daemon, the oldest first.
    Events(EventsArgs),
    /// Show the events of the past, the oldest first.
    History(HistoryArgs),
    /// Remove what `run --pin` left in the kernel.
    Unpin(UnpinArgs),
    /// Write a completion script for a shell to stdout.
    Completions(CompletionsArgs),
    /// Write the manual page of oomwatch, or of one of its commands, to stdout.
    Man(ManArgs),
    /// The process that `demo` has killed.
    #[command(hide = true)]
    DemoHog,
}

// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Choose the form of the events on stdout.
    #[arg(long, value_enum, default_value_t = Output::Text, env = "OOMWATCH_OUTPUT")]
    pub(crate) output: Output,

    /// Choose where to find containers and their names.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "auto",
        env = "OOMWATCH_DISCOVER"
    )]
    pub(crate) discover: Vec<Discover>,

    /// Follow the runtime at this socket, instead of where its kind usually listens: containerd, cri, docker or
    /// podman, and the path. May be repeated.
    #[arg(long, value_name = "API=PATH", value_parser = discover::parse_socket)]
    pub(crate) socket: Vec<SocketArg>,

    /// Publish kills elsewhere too. Commas separate several, and `…=off` turns one off.
    ///
    /// `containerd` sends a TaskOOM on /tasks/oom, for CRI and Docker. `containerd=missing` waits 2 s for containerd's
    /// own shim and sends one for each container and burst; `containerd=always` sends all.
    /// `kubernetes` creates Events on pods, from a pod of the cluster.
    /// `otlp` sends to an OpenTelemetry collector, by OTEL_EXPORTER_OTLP_ENDPOINT and its like.
    /// `journald` writes entries with fields to systemd's journal. It is on where the log goes there.
    #[arg(
        long,
        value_name = "TO[=MODE]",
        value_delimiter = ',',
        value_parser = publish::parse,
        env = "OOMWATCH_PUBLISH"
    )]
    pub(crate) publish: Vec<PublishArg>,

    /// Also register every other cgroup without children, under its path.
    #[arg(long)]
    pub(crate) all_cgroups: bool,

    /// Register a container by hand: its id, and the path of its cgroup.
    #[arg(long, value_name = "ID=PATH", value_parser = parse_container)]
    pub(crate) container: Vec<ContainerArg>,

    /// Size the ring buffer between kernel and daemon, in bytes: a power of two of pages.
    #[arg(long, value_name = "BYTES", default_value_t = oomwatch::DEFAULT_RING_BYTES, env = "OOMWATCH_RING_SIZE")]
    pub(crate) ring_size: u32,

    /// Choose how to find victims. `auto` takes the best tier that this host allows, and `ebpf` the best that is not
    /// `counters`. `counters` needs no privilege, and cannot tell who was killed.
    #[arg(long, value_enum, default_value_t = TierArg::Auto, env = "OOMWATCH_TIER")]
    pub(crate) tier: TierArg,

    /// Name this node in events. Default is the host name.
    #[arg(long, env = "OOMWATCH_NODE")]
    pub(crate) node: Option<String>,

    /// Leave the eBPF programs and their ring in the kernel when stopping, in this directory below
    /// /sys/fs/bpf. The next start uses them again: no kill in between loses its details.
    #[arg(long, value_name = "DIR", env = "OOMWATCH_PIN")]
    pub(crate) pin: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

// Where the daemon can be asked.
#[derive(Debug, Args)]
pub(crate) struct ApiArgs {
    /// Answer HTTP requests on this unix socket, for the user that this daemon runs as. `none` turns it off. Default
    /// is /run/oomwatch/oomwatch.sock, where that can be made.
    #[arg(long, value_name = "PATH", value_parser = socket::parse, env = "OOMWATCH_CONTROL")]
    pub(crate) control: Option<ControlArg>,

    /// Let this group use the control socket too: its name or number.
    #[arg(long, value_name = "GROUP", value_parser = socket::parse_group, env = "OOMWATCH_CONTROL_GROUP")]
    pub(crate) control_group: Option<u32>,

    /// Also listen here, such as on 127.0.0.1:9187, for a status page, metrics, health and events. Clients cannot
    /// change anything there, and need no password.
    #[arg(long, value_name = "HOST:PORT", env = "OOMWATCH_LISTEN")]
    pub(crate) listen: Option<String>,

    /// Allow an address for --listen that others can reach.
    #[arg(long, requires = "listen")]
    pub(crate) listen_public: bool,

    /// Add metrics under the names of others, for existing dashboards: `cadvisor` is container_oom_events_total.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        requires = "listen",
        env = "OOMWATCH_COMPAT"
    )]
    pub(crate) compat: Vec<api::Compat>,
}

// Arguments that name the daemon.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Ask the daemon at this control socket. Default is /run/oomwatch/oomwatch.sock.
    #[arg(long, value_name = "PATH", value_parser = socket::parse, env = "OOMWATCH_CONTROL")]
    pub(crate) control: Option<ControlArg>,
}

// Arguments of `add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The container's id.
    pub(crate) id: String,

    /// The directory of its cgroup, such as /sys/fs/cgroup/web-1.
    pub(crate) path: PathBuf,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

// Arguments of `remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The container's id.
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

// Arguments of `list` and `status`.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// Choose the form of the answer.
    #[arg(long, value_enum, default_value_t = AnswerOutput::Text)]
    pub(crate) output: AnswerOutput,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Form of the daemon's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerOutput {
    /// A table for a person.
    Text,
    /// The JSON of the daemon's API.
    Json,
}

// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with each event as it happens.
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Show only the latest N that happened already. The daemon keeps 1,000 at most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,

    /// Choose the form of the events.
    #[arg(long, value_enum, default_value_t = HistoryOutput::Text)]
    pub(crate) output: HistoryOutput,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

// Arguments of `unpin`.
#[derive(Debug, Args)]
pub(crate) struct UnpinArgs {
    /// The directory that `run --pin` was given.
    #[arg(value_name = "DIR", env = "OOMWATCH_PIN")]
    pub(crate) dir: PathBuf,
}

// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The command; without one the page is of all of them.
    pub(crate) command: Option<String>,
}

// Arguments of the store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Keep the history in this directory, and the ledgers that find kills from the time without a daemon. Without a
    /// directory oomwatch keeps nothing. Default is the one that systemd made ($STATE_DIRECTORY).
    #[arg(long, value_name = "DIR", env = "OOMWATCH_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Keep events of the history this long at most, in time that the host ran.
    #[arg(long, value_name = "DURATION", value_parser = time::parse_duration, default_value = "30d", env = "OOMWATCH_HISTORY_MAX_AGE")]
    pub(crate) history_max_age: Duration,

    /// Keep the history this small: the oldest events go first.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "64MiB",
        env = "OOMWATCH_HISTORY_MAX_SIZE"
    )]
    pub(crate) history_max_size: ByteSize,
}

// Arguments of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Read this state directory. Default is the one that systemd made
    /// ($STATE_DIRECTORY), or /var/lib/oomwatch.
    #[arg(long, value_name = "DIR", env = "OOMWATCH_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Show only what happened since: 24h, or a time such as 2026-08-22T10:00:00Z.
    #[arg(long, value_name = "WHEN", value_parser = time::parse_since)]
    pub(crate) since: Option<i128>,

    /// Show only this container: its id, the first digits of a hexadecimal one, its name, or `runtime/realm/id`.
    #[arg(long, value_name = "ID")]
    pub(crate) container: Option<String>,

    /// Show only this Kubernetes pod.
    #[arg(long)]
    pub(crate) pod: Option<String>,

    /// Show only this namespace.
    #[arg(long)]
    pub(crate) namespace: Option<String>,

    /// Show only the latest N events.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,

    /// Choose the form of the events.
    #[arg(long, value_enum, default_value_t = HistoryOutput::Text)]
    pub(crate) output: HistoryOutput,
}

/// Form of events of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HistoryOutput {
    /// A line for a person.
    Text,
    /// A JSON object a line, as it was published.
    Json,
}

// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Choose the form of the event.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// Form of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A line for a person.
    Text,
    /// A JSON object a line, schema oomwatch.oom/1.
    Json,
    /// Nothing.
    None,
}

/// How victims are found. The help of `--tier` explains all values together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TierArg {
    Auto,
    Ebpf,
    Btf,
    BtfPid,
    Pid,
    Counters,
}

impl From<TierArg> for TierChoice {
    fn from(argument: TierArg) -> Self {
        match argument {
            TierArg::Auto => Self::Auto,
            TierArg::Ebpf => Self::Ebpf,
            TierArg::Btf => Self::Only(Tier::Btf),
            TierArg::BtfPid => Self::Only(Tier::BtfPid),
            TierArg::Pid => Self::Only(Tier::Pid),
            TierArg::Counters => Self::Only(Tier::Counters),
        }
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether a stream gets colours.
    #[must_use]
    pub(crate) fn applies_to(self, stream: &impl std::io::IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                // https://no-color.org: any value but the empty one.
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                !refused && stream.is_terminal()
            }
        }
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for a person.
    Text,
    /// A JSON object a line.
    Json,
}

/// The value of `--container`, `ID=PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerArg {
    /// The container's id.
    pub(crate) id: String,
    /// The path of its cgroup.
    pub(crate) path: PathBuf,
}

fn parse_container(text: &str) -> Result<ContainerArg, String> {
    let (id, path) = text
        .split_once('=')
        .ok_or("expected ID=PATH, such as web-1=/sys/fs/cgroup/web-1")?;
    let id = oomwatch::ContainerId::new(id).map_err(|error| error.to_string())?;
    if !path.starts_with('/') {
        return Err(format!(
            "the path {path:?} must be absolute, such as /sys/fs/cgroup/{id}"
        ));
    }
    Ok(ContainerArg {
        id: id.as_str().to_owned(),
        path: path.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn containers_are_id_and_path() {
        let parsed = parse_container("web=1=/sys/fs/cgroup/a");
        assert!(
            parsed.is_err(),
            "an id ends at the first =, so the path is relative here"
        );
        assert_eq!(
            parse_container("web-1=/sys/fs/cgroup/a=b"),
            Ok(ContainerArg {
                id: "web-1".into(),
                path: "/sys/fs/cgroup/a=b".into()
            })
        );
        for bad in ["", "x", "=/sys/fs/cgroup/a", "x=", "x=relative", "a\nb=/x"] {
            assert!(parse_container(bad).is_err(), "{bad:?}");
        }
    }
}
