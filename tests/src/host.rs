//! What the tests on the host share: where the program is, and how to say that one cannot run.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

mod limited;
mod pins;

pub use limited::{LIMIT_BYTES, Layout, Limited};
pub use pins::BpfFs;

/// The program under test: `$OOMWATCH_BIN`, or `oomwatch` beside the test's own directory.
///
/// It cannot be a dependency of this package, so it must have been built before
/// (`cargo xtask test` does, and so does `cargo build -p oomwatch`).
pub fn oomwatch() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("OOMWATCH_BIN") {
        return Ok(path.into());
    }
    built("oomwatch", "oomwatch")
}

/// One of the programs of `examples/`; it too must have been built before (`cargo test --workspace` does).
pub fn example(name: &str) -> Result<PathBuf> {
    built(name, "oomwatch-examples")
}

/// A program of another package, beside the test's own directory.
fn built(name: &str, package: &str) -> Result<PathBuf> {
    // target/debug/deps/cli-1234 -> target/debug/oomwatch
    let test = std::env::current_exe().context("finding this test")?;
    let profile = test
        .ancestors()
        .nth(2)
        .context("this test has no grandparent directory")?;
    let program = profile.join(name);
    if !program.is_file() {
        bail!(
            "{} is not there: run `cargo build -p {package}` first",
            program.display()
        );
    }
    Ok(program)
}

/// Of [`cache_dir`]: the Python that [`crate::collector`] runs on.
pub const OTLP_VENV: &str = "otlp-venv";

/// What outlives a clone: `$OOMWATCH_CACHE`, else `$XDG_CACHE_HOME/oomwatch`, else `$HOME/.cache/oomwatch`.
pub fn cache_dir() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let dir = variable("OOMWATCH_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("oomwatch")))
        .or_else(|| Some(variable("HOME")?.join(".cache/oomwatch")))
        .context("set OOMWATCH_CACHE or HOME to have a cache folder")?;
    std::path::absolute(&dir).with_context(|| format!("making {} absolute", dir.display()))
}

/// Says that a test could not run, on standard error and in the file `$OOMWATCH_SKIP_LOG`.
///
/// The test harness knows passed and failed only; without this a skipped test looks passed.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
    let Some(path) = std::env::var_os("OOMWATCH_SKIP_LOG") else {
        return;
    };
    let line = format!("{test}\t{}\n", reason.replace(['\n', '\t'], " "));
    let log = OpenOptions::new().append(true).create(true).open(&path);
    if let Err(error) = log.and_then(|mut log| log.write_all(line.as_bytes())) {
        eprintln!("cannot write to {}: {error}", path.display());
    }
}

/// Where to make a kill that eBPF sees, unless it cannot be watched here, which is then said for `test`.
#[must_use]
pub fn layout_or_skip(test: &str, oomwatch: &Path) -> Option<Layout> {
    match layout_or_reason(test, oomwatch) {
        Ok(layout) => Some(layout),
        Err(reason) => {
            skip(test, &reason);
            None
        }
    }
}

fn layout_or_reason(test: &str, oomwatch: &Path) -> Result<Layout, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err("no BTF: /sys/kernel/btf/vmlinux is not there".to_owned());
    }
    let layout = Layout::read().map_err(|error| format!("{error:#}"))?;
    // A container is often root without being allowed to make cgroups.
    layout
        .limited(&format!("try-{test}"))
        .map_err(|error| format!("{error:#}"))?;
    // Only a build without the kernel side excuses: a probe that does not load is a failure.
    let check = Command::new(oomwatch).arg("check").output();
    let check = check.map_err(|error| format!("oomwatch check: {error}"))?;
    let text = String::from_utf8_lossy(&check.stdout);
    match text.lines().find(|line| line.contains("no eBPF object")) {
        Some(line) => Err(line.trim().to_owned()),
        None => Ok(layout),
    }
}

/// Process ids of the victims in the history of a state directory, each as often as it is there.
pub fn victims_in_history(oomwatch: &Path, state: &Path) -> Result<Vec<u32>> {
    let output = Command::new(oomwatch)
        .args(["history", "--limit", "100000", "--output", "json"])
        .arg("--state-dir")
        .arg(state)
        .output()
        .context("oomwatch history")?;
    let lines = String::from_utf8(output.stdout).context("the history")?;
    let mut victims = Vec::new();
    for line in lines.lines() {
        let event: serde_json::Value = serde_json::from_str(line).context("an event")?;
        let pid = event.pointer("/victim/pid").and_then(|pid| pid.as_u64());
        victims.extend(pid.and_then(|pid| u32::try_from(pid).ok()));
    }
    Ok(victims)
}
