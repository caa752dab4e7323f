//! `oomwatch list` and `status`: the running daemon's answer as a table.

use std::{
    collections::HashMap,
    io::{IsTerminal as _, Write as _, stdout},
};

use anyhow::Context as _;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hyper::Method;
use oomwatch::printable;
use serde::Deserialize;

use super::{AnswerOutput, AskArgs, client::Client, exit::Exit, output};

#[derive(Deserialize)]
struct Containers {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    id: String,
    /// Missing in the answers of older daemons.
    key: Option<String>,
    name: Option<String>,
    namespace: Option<String>,
    pod: Option<String>,
    runtime: Option<String>,
    identity: Option<String>,
    realm: Option<String>,
    /// The container that a claimed one is in.
    inside: Option<String>,
    cgroup_path: Option<String>,
    kills: Option<u64>,
    counter_only: Option<u64>,
}

/// Lists the registered containers.
///
/// # Errors
/// When no daemon answers, or stdout fails in another way than by being closed.
pub(crate) async fn list(args: &AskArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.control)?;
    let answer = client
        .ask(Method::GET, "/v1/containers", String::new())
        .await?;
    if args.output == AnswerOutput::Json {
        return print(&String::from_utf8_lossy(&answer));
    }
    let listed: Containers =
        serde_json::from_slice(&answer).context("reading the daemon's containers")?;
    if listed.containers.is_empty() {
        return print("no containers are registered");
    }
    print(&containers(&listed.containers, width()))
}

/// Prints the daemon's status.
///
/// # Errors
/// As [`list`].
pub(crate) async fn status(args: &AskArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.control)?;
    let answer = client.ask(Method::GET, "/v1/status", String::new()).await?;
    if args.output == AnswerOutput::Json {
        return print(&String::from_utf8_lossy(&answer));
    }
    let status: Status = serde_json::from_slice(&answer).context("reading the daemon's status")?;
    print(&status.table(width()))
}

fn print(text: &str) -> anyhow::Result<Exit> {
    output::written(writeln!(stdout(), "{text}"))
}

/// Columns of the terminal; lines are not broken for a program.
fn width() -> Option<u16> {
    let terminal = stdout().is_terminal().then(terminal_size::terminal_size);
    terminal.flatten().map(|(width, _)| width.0)
}

fn table(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match width {
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table
}

/// The table as text, from the first column on and with two spaces between.
fn text(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn containers(all: &[Container], width: Option<u16>) -> String {
    let mut table = table(width);
    table.set_header(["CONTAINER", "POD", "RUNTIME", "IDENTITY", "KILLS", "CGROUP"]);
    if let Some(kills) = table.column_mut(4) {
        kills.set_cell_alignment(CellAlignment::Right);
    }
    let mut alike: HashMap<&str, usize> = HashMap::new();
    for container in all {
        *alike.entry(&container.id).or_default() += 1;
    }
    for container in all {
        let is_unique = alike.get(container.id.as_str()) == Some(&1);
        table.add_row(container.row(is_unique));
    }
    text(table)
}

impl Container {
    /// An id that is not unique is shown as the key, which commands take in its place.
    fn row(&self, is_unique: bool) -> [String; 6] {
        let shown = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or("-");
            printable(text.as_bytes())
        };
        let pod = match (&self.namespace, &self.pod) {
            (Some(namespace), Some(pod)) => printable(format!("{namespace}/{pod}").as_bytes()),
            (namespace, pod) => shown(if pod.is_some() { pod } else { namespace }),
        };
        let id = match &self.key {
            Some(key) if !is_unique => key,
            _ => short(&self.id),
        };
        let name = match &self.name {
            Some(name) if *name != self.id => format!(
                "{} ({})",
                printable(name.as_bytes()),
                printable(id.as_bytes())
            ),
            _ => printable(id.as_bytes()),
        };
        let kills = self.kills.zip(self.counter_only);
        let kills = kills.map_or_else(
            || "?".to_owned(),
            |(seen, counted)| (seen + counted).to_string(),
        );
        [
            name,
            pod,
            shown(&self.runtime),
            self.evidence(),
            kills,
            shown(&self.cgroup_path),
        ]
    }

    /// On what evidence it has its id. Of a claim as in an event's text: what it is in, or who made it.
    fn evidence(&self) -> String {
        let identity = self.identity.as_deref().unwrap_or("-");
        let text = match (identity, &self.inside, &self.realm) {
            ("claimed", Some(outer), _) => format!("claimed, in {}", short(outer)),
            ("claimed", None, Some(made_by)) => format!("claimed, by {made_by}"),
            _ => identity.to_owned(),
        };
        printable(text.as_bytes())
    }
}

/// The first twelve digits of a long id, as container tools print it.
fn short(id: &str) -> &str {
    match id.get(..12) {
        Some(short) if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => short,
        _ => id,
    }
}

/// The shown fields of the status.
#[derive(Deserialize)]
struct Status {
    version: String,
    uptime_seconds: u64,
    node: Option<String>,
    tier: String,
    sees_limits: bool,
    containers: u64,
    cgroups: u64,
    kills: u64,
    counter_only: u64,
    double_counts: u64,
    unregistered: u64,
    already_exiting: u64,
    late: u64,
    residual: u64,
    lost: Lost,
    /// Missing in the answers of older daemons.
    #[serde(default)]
    sources: Vec<SourceRow>,
    publishers: Vec<Publisher>,
}

/// What was lost, by stage.
#[derive(Deserialize)]
struct Lost {
    ring: u64,
    decode: u64,
    queue: u64,
    publisher: u64,
    store: u64,
}

/// The shown fields of a runtime.
#[derive(Deserialize)]
struct SourceRow {
    api: String,
    socket: String,
    connected: bool,
}

impl SourceRow {
    fn in_short(&self) -> String {
        let [api, socket] = [&self.api, &self.socket].map(|text| printable(text.as_bytes()));
        let state = if self.connected {
            "connected"
        } else {
            "not connected"
        };
        format!("{api}: {state}, {socket}")
    }
}

/// The shown fields of a publisher.
#[derive(Deserialize)]
struct Publisher {
    name: String,
    published: u64,
    waiting: u64,
    lost_in_queue: u64,
    lost_by_publisher: u64,
}

impl Publisher {
    fn in_short(&self) -> String {
        let name = printable(self.name.as_bytes());
        let mut text = format!("{name}: {} published", self.published);
        let lost = self.lost_in_queue + self.lost_by_publisher;
        for (number, what) in [(self.waiting, "waiting"), (lost, "lost")] {
            if number > 0 {
                text.push_str(&format!(", {number} {what}"));
            }
        }
        text
    }
}

impl Status {
    fn table(&self, width: Option<u16>) -> String {
        let limits = if self.sees_limits {
            ""
        } else {
            ", without limits"
        };
        let up = jiff::SignedDuration::from_secs(self.uptime_seconds.cast_signed());
        let rows = [
            (
                "node",
                printable(self.node.as_deref().unwrap_or("?").as_bytes()),
            ),
            (
                "version",
                format!("{}, up {up:#}", printable(self.version.as_bytes())),
            ),
            (
                "tier",
                format!("{}{limits}", printable(self.tier.as_bytes())),
            ),
            (
                "watched",
                format!("{} containers, {} cgroups", self.containers, self.cgroups),
            ),
            (
                "kills",
                format!(
                    "{} seen, {} more by counters alone",
                    self.kills, self.counter_only
                ),
            ),
            (
                "  of no container",
                format!("{}, {} claimed since", self.unregistered, self.late),
            ),
            (
                "no kills",
                format!(
                    "{} exiting already, {} counted twice by the kernel",
                    self.already_exiting, self.double_counts
                ),
            ),
            ("unexplained", self.residual.to_string()),
            ("lost", self.lost_by_stage()),
        ];
        let mut table = table(width);
        for (name, value) in rows {
            table.add_row([name.to_owned(), value]);
        }
        for source in &self.sources {
            table.add_row(["runtime".to_owned(), source.in_short()]);
        }
        for publisher in &self.publishers {
            table.add_row(["publisher".to_owned(), publisher.in_short()]);
        }
        text(table)
    }

    fn lost_by_stage(&self) -> String {
        let stages = [
            ("ring", self.lost.ring),
            ("decode", self.lost.decode),
            ("queue", self.lost.queue),
            ("publisher", self.lost.publisher),
            ("store", self.lost.store),
        ];
        let lost: Vec<_> = stages
            .iter()
            .filter(|(_, number)| *number > 0)
            .map(|(stage, number)| format!("{number} ({stage})"))
            .collect();
        if lost.is_empty() {
            "0".to_owned()
        } else {
            lost.join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn container(id: &str, name: Option<&str>) -> Container {
        Container {
            id: id.into(),
            key: None,
            name: name.map(Into::into),
            namespace: Some("blue".into()),
            pod: Some("web-0".into()),
            runtime: None,
            identity: Some("path".into()),
            realm: None,
            inside: None,
            cgroup_path: Some("/kubepods.slice/kubepods-pod0f2a5c1e.slice/x.scope".into()),
            kills: Some(12),
            counter_only: Some(1),
        }
    }

    #[test]
    fn a_line_is_a_container_where_nobody_looks() {
        let all = [container(LONG, Some("app")), container("web-1", None)];
        insta::assert_snapshot!(containers(&all, None), @r"
        CONTAINER           POD         RUNTIME  IDENTITY  KILLS  CGROUP
        app (0123456789ab)  blue/web-0  -        path         13  /kubepods.slice/kubepods-pod0f2a5c1e.slice/x.scope
        web-1               blue/web-0  -        path         13  /kubepods.slice/kubepods-pod0f2a5c1e.slice/x.scope
        ");
    }

    #[test]
    fn of_two_with_one_id_the_keys_are_shown() {
        let of_realm = |realm: &str| Container {
            key: Some(format!("containerd/{realm}/web-1")),
            ..container("web-1", Some("app"))
        };
        let other = container("web-2", None);
        let table = containers(&[of_realm("default"), of_realm("k8s.io"), other], None);
        let first = |line: &str| line.split("  ").next().unwrap().to_owned();
        let shown: Vec<_> = table.lines().skip(1).map(first).collect();
        let keys = [
            "app (containerd/default/web-1)",
            "app (containerd/k8s.io/web-1)",
            "web-2",
        ];
        assert_eq!(shown, keys);
    }

    #[test]
    fn a_claim_says_what_it_is_in_or_who_made_it() {
        let claim = |realm: &str, inside: Option<&str>| Container {
            identity: Some("claimed".into()),
            realm: Some(realm.into()),
            inside: inside.map(Into::into),
            ..container("web-1", None)
        };
        assert_eq!(claim("uid:1000", None).evidence(), "claimed, by uid:1000");
        let nested = claim("in:7", Some(LONG));
        assert_eq!(nested.evidence(), "claimed, in 0123456789ab");
        assert_eq!(container("web-1", None).evidence(), "path");
    }

    #[test]
    fn a_status_says_who_is_behind_and_what_was_lost() {
        let status = serde_json::json!({
            "version": "0.1.0", "uptime_seconds": 61, "node": "n1", "tier": "btf", "sees_limits": true,
            "containers": 3, "cgroups": 40, "kills": 5, "counter_only": 1, "double_counts": 0,
            "unregistered": 2, "already_exiting": 1, "late": 1, "residual": 0,
            "lost": {"ring": 7, "ring_cgroups": 0, "decode": 0, "queue": 3, "publisher": 1, "store": 0},
            "sources": [
                {"api": "docker", "socket": "/run/docker.sock", "connected": true},
                {"api": "cri", "socket": "/run/crio/crio.sock", "connected": false}
            ],
            "publishers": [
                {"name": "otlp", "published": 2, "waiting": 3, "lost_in_queue": 0, "lost_by_publisher": 0},
                {"name": "stdout\u{1b}", "published": 5, "waiting": 0, "lost_in_queue": 3, "lost_by_publisher": 1}
            ]
        });
        let status: Status = serde_json::from_value(status).unwrap();
        insta::assert_snapshot!(status.table(None), @r"
        node               n1
        version            0.1.0, up 1m 1s
        tier               btf
        watched            3 containers, 40 cgroups
        kills              5 seen, 1 more by counters alone
          of no container  2, 1 claimed since
        no kills           1 exiting already, 0 counted twice by the kernel
        unexplained        0
        lost               7 (ring), 3 (queue), 1 (publisher)
        runtime            docker: connected, /run/docker.sock
        runtime            cri: not connected, /run/crio/crio.sock
        publisher          otlp: 2 published, 3 waiting
        publisher          stdout\x1b: 5 published, 4 lost
        ");
    }

    #[test]
    fn a_table_fits_the_terminal_and_has_no_control_characters() {
        let all = [container("web\u{1b}[31m", Some("\u{202e}evil\r\nx"))];
        let table = containers(&all, Some(60));
        assert!(
            table.lines().all(|line| line.chars().count() <= 60),
            "{table}"
        );
        assert!(
            !table.contains(|c: char| c.is_control() && c != '\n'),
            "{table:?}"
        );
        assert!(!table.contains('\u{202e}'), "{table:?}");
    }
}
