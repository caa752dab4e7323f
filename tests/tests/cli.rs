//! The command line as a user meets it: exit codes, messages, and a reader that goes away.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
};

use oomwatch_tests::host;

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const NO_PRIVILEGE: i32 = 77;
const NOBODY: u32 = 65534;

fn oomwatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(host::oomwatch().unwrap());
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        // The developer's own settings are not under test.
        if name.to_string_lossy().starts_with("OOMWATCH_") {
            command.env_remove(name);
        }
    }
    // The usual place is for one daemon, and tests run side by side.
    command.env("OOMWATCH_CONTROL", "none");
    command
}

/// A path of this test's own where nothing is.
fn absent(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("oomwatch-cli-{}-{name}", std::process::id()))
}

fn run(arguments: &[&str]) -> Output {
    oomwatch(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn help_names_the_commands_and_goes_to_stdout() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        assert_eq!(output.status.code(), Some(0), "{flag}: {output:?}");
        for command in [
            "run",
            "check",
            "demo",
            "add",
            "remove",
            "list",
            "status",
            "events",
            "history",
            "unpin",
            "completions",
            "man",
        ] {
            assert!(
                stdout(&output).contains(command),
                "{flag} does not name `{command}`"
            );
        }
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn version_is_the_version_of_the_workspace() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let expected = format!("oomwatch {}", env!("CARGO_PKG_VERSION"));
    assert!(
        stdout(&output).starts_with(&expected),
        "{}",
        stdout(&output)
    );
}

#[test]
fn kubernetes_is_refused_outside_of_a_cluster_with_the_reason() {
    let output = oomwatch(&["run", "--publish", "kubernetes"])
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(FAILURE), "{output:?}");
    let said = stderr(&output);
    assert!(said.contains("--publish kubernetes"), "{said}");
    assert!(said.contains("$KUBERNETES_SERVICE_HOST"), "{said}");
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_setting_of_opentelemetry_that_cannot_be_followed_is_a_usage_error() {
    let mut run = oomwatch(&["run", "--publish", "otlp", "--output", "none"]);
    run.env("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon");
    let output = run.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(USAGE), "{message}");
    let named = r#"OTEL_EXPORTER_OTLP_PROTOCOL is "carrier-pigeon": grpc or http/protobuf"#;
    assert!(message.contains(named), "{message}");
}

#[test]
fn usage_errors_exit_2_and_name_what_is_wrong() {
    let mistakes: &[(&[&str], &str)] = &[
        (&["no-such-command"], "no-such-command"),
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["run", "--output", "xml"], "xml"),
        (&["run", "--container", "malformed"], "malformed"),
        (&["run", "--container", "=/sys/fs/cgroup"], "--container"),
        (&["run", "--discover", "telepathy"], "telepathy"),
        (&["run", "--history-max-age", "2 fortnights"], "fortnights"),
        (&["run", "--history-max-size", "much"], "much"),
        (&["history", "--no-such-flag"], "--no-such-flag"),
        (&["history", "--since", "yesterday"], "yesterday"),
        (&["history", "--limit", "-1"], "-1"),
        (&["history", "--output", "none"], "none"),
        (&["run", "--tier", "cheese"], "cheese"),
        (
            &["run", "--control-group", "no-such-group"],
            "no-such-group",
        ),
        (&["run", "--listen", "no-port"], "no-port"),
        (&["run", "--listen", "0.0.0.0:0"], "--listen-public"),
        (&["run", "--listen-public"], "--listen"),
        (&["add", "web-1"], "PATH"),
        (&["events", "--limit", "-1"], "-1"),
    ];
    for (arguments, named) in mistakes {
        let output = run(arguments);
        let message = stderr(&output);
        assert_eq!(
            output.status.code(),
            Some(USAGE),
            "{arguments:?}: {message}"
        );
        assert!(
            message.contains(named),
            "{arguments:?} is not named in: {message}"
        );
        assert_eq!(stdout(&output), "", "{arguments:?}: stdout is for data");
    }
}

#[test]
fn no_command_at_all_is_a_usage_error_with_help() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(stderr(&output).contains("Usage"));
}

#[test]
fn without_privilege_it_exits_77_and_names_the_remedy() {
    let mut command = oomwatch(&["run", "--output", "json"]);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            // Nobody may not pass through the directories that lead to the program.
            let reason = format!("the program cannot be run by another user: {error}");
            host::skip(
                "without_privilege_it_exits_77_and_names_the_remedy",
                &reason,
            );
            return;
        }
    };
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(NO_PRIVILEGE), "{message}");
    let lower = message.to_lowercase();
    assert!(
        ["root", "sudo", "cap_"]
            .iter()
            .any(|remedy| lower.contains(remedy)),
        "no remedy in: {message}"
    );
}

/// Whoever asks for more than counters without privilege hears the same as without asking.
#[test]
fn without_privilege_no_tier_but_counters_is_possible() {
    const NAME: &str = "without_privilege_no_tier_but_counters_is_possible";
    for tier in ["auto", "ebpf", "pid"] {
        let mut command = oomwatch(&["run", "--output", "json", "--tier", tier]);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        match command.output() {
            Ok(output) => {
                let message = stderr(&output);
                assert_eq!(
                    output.status.code(),
                    Some(NO_PRIVILEGE),
                    "{tier}: {message}"
                );
            }
            Err(error) => {
                let reason = format!("the program cannot be run by another user: {error}");
                return host::skip(NAME, &reason);
            }
        }
    }
}

#[test]
fn a_tier_may_be_chosen_by_the_environment_too() {
    let mut command = oomwatch(&["run", "--output", "json"]);
    let output = command.env("OOMWATCH_TIER", "cheese").output().unwrap();
    assert_eq!(output.status.code(), Some(USAGE), "{}", stderr(&output));
    let help = stdout(&run(&["run", "--help"]));
    for tier in ["auto", "ebpf", "btf", "btf-pid", "pid", "counters"] {
        assert!(help.contains(tier), "{tier} is not in the help");
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    // The pipe is closed before the program can write a byte.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = oomwatch(&["--help"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
}

#[test]
fn check_with_a_reader_that_went_away_does_not_fail() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = oomwatch(&["check"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    // What the host lacks is still an answer; a failure is none.
    let code = output.status.code();
    assert!(
        matches!(code, Some(0 | 3 | NO_PRIVILEGE)),
        "{code:?}: {}",
        stderr(&output)
    );
}

#[test]
fn pinning_where_nothing_can_be_pinned_exits_1_and_names_the_remedy() {
    let dir = absent("no-bpffs");
    let output = run(&["run", "--pin", dir.to_str().unwrap()]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(FAILURE), "{message}");
    assert!(message.contains(dir.to_str().unwrap()), "{message}");
    assert!(
        message.contains("mount -t bpf bpf /sys/fs/bpf"),
        "{message}"
    );
    assert!(!dir.exists(), "made for nothing");
}

#[test]
fn unpin_without_anything_pinned_exits_1_and_names_the_path() {
    let dir = absent("never-pinned");
    let output = run(&["unpin", dir.to_str().unwrap()]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(FAILURE), "{message}");
    assert!(message.contains(dir.to_str().unwrap()), "{message}");

    // Any other directory is not looked into.
    std::fs::create_dir(&dir).unwrap();
    let output = run(&["unpin", dir.to_str().unwrap()]);
    let message = stderr(&output);
    std::fs::remove_dir(&dir).unwrap();
    assert_eq!(output.status.code(), Some(FAILURE), "{message}");
    assert!(message.contains("BPF file system"), "{message}");

    let output = run(&["unpin"]);
    assert_eq!(output.status.code(), Some(USAGE), "{}", stderr(&output));
}

#[test]
fn history_without_a_store_exits_1_and_names_the_path_and_the_remedy() {
    let dir = absent("no-store");
    let output = run(&["history", "--state-dir", dir.to_str().unwrap()]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(FAILURE), "{message}");
    assert!(message.contains(dir.to_str().unwrap()), "{message}");
    assert!(message.contains("--state-dir"), "{message}");
    assert_eq!(stdout(&output), "");
    assert!(!dir.exists(), "looking makes nothing");
}

#[test]
fn history_looks_where_the_service_manager_says() {
    let dir = absent("service");
    let mut command = oomwatch(&["history"]);
    command.env("STATE_DIRECTORY", format!("{}:/elsewhere", dir.display()));
    let output = command.output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(FAILURE), "{message}");
    assert!(message.contains(dir.to_str().unwrap()), "{message}");
}

#[test]
fn a_damaged_history_exits_1_and_is_left_as_it_is() {
    let dir = absent("damaged");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("oomwatch.db");
    std::fs::write(&path, "no database".repeat(1000)).unwrap();
    let output = run(&["history", "--state-dir", dir.to_str().unwrap()]);
    let left = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(FAILURE), "{message}");
    assert!(message.contains("damaged"), "{message}");
    assert!(left.starts_with("no database"));
}

/// All commands that ask a daemon, on a control socket.
fn asking(control: &str) -> [Vec<&str>; 5] {
    [
        vec!["add", "web-1", "/sys/fs/cgroup", "--control", control],
        vec!["remove", "web-1", "--control", control],
        vec!["list", "--control", control],
        vec!["status", "--control", control],
        vec!["events", "--follow", "--control", control],
    ]
}

#[test]
fn asking_where_no_daemon_is_exits_1_and_names_the_path_and_the_remedy() {
    let path = absent("no-daemon");
    // A daemon that died leaves its socket behind.
    let dead = absent("dead-daemon");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    for path in [&path, &dead] {
        for arguments in asking(path.to_str().unwrap()) {
            let output = run(&arguments);
            let message = stderr(&output);
            assert_eq!(
                output.status.code(),
                Some(FAILURE),
                "{arguments:?}: {message}"
            );
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(message.contains("`oomwatch run`"), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
            assert_eq!(stdout(&output), "");
        }
    }
    std::fs::remove_file(&dead).unwrap();
    for arguments in asking("none") {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(FAILURE), "{arguments:?}");
        assert!(
            stderr(&output).contains("--control PATH"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_control_socket_that_cannot_be_made_is_an_error_where_it_was_asked_for() {
    let path = absent("no-dir").join("socket");
    let output = run(&["run", "--control", path.to_str().unwrap()]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(FAILURE), "{message}");
    assert!(message.contains(path.to_str().unwrap()), "{message}");

    let file = absent("a-file");
    std::fs::write(&file, "mine").unwrap();
    let output = run(&["run", "--control", file.to_str().unwrap()]);
    let left = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.status.code(), Some(FAILURE), "{}", stderr(&output));
    assert!(stderr(&output).contains("no socket"), "{}", stderr(&output));
    assert_eq!(left, "mine");
}
