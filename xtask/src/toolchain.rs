//! The Rust side of the setup: rustup components and a bpf-linker that fits rustc's LLVM.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{
    paths::{self, Workspace},
    process,
};

/// The last bpf-linker that can read rustc's LLVM by loading rustc's own library. Later ones
/// want a system LLVM, which Debian 12 does not have.
const BPF_LINKER_VERSION: &str = "0.10.4";

/// The nightly that the kernel side was tested with, by the date that its `rustc --version` tells.
const TESTED_NIGHTLY: &str = "2026-05-19";

/// The oldest Rust that the library builds with. xtask has it from the workspace, as the library has.
pub(crate) const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// What a build needs: the nightly toolchain with core's source, and bpf-linker.
pub(crate) fn for_build(workspace: &Workspace) -> Result<()> {
    nightly()?;
    component(Some("nightly"), "rust-src")?;
    bpf_linker(workspace)
}

/// What the checks need on top: formatter and lints.
pub(crate) fn for_lint() -> Result<()> {
    component(None, "rustfmt")?;
    component(None, "clippy")?;
    component(Some("nightly"), "rustfmt")?;
    component(Some("nightly"), "clippy")
}

/// The oldest toolchain that the library promises to build with. Without it one check does not run.
pub(crate) fn for_rust_version() -> Result<()> {
    if let Some(toolchain) = oldest()? {
        eprintln!("Rust {RUST_VERSION}: installed as {toolchain}");
        return Ok(());
    }
    eprintln!("Rust {RUST_VERSION}: installing with rustup");
    let install = ["toolchain", "install", RUST_VERSION, "--profile", "minimal"];
    process::run(rustup().args(install))
}

/// The installed toolchain whose rustc is a [`RUST_VERSION`], by whichever name.
pub(crate) fn oldest() -> Result<Option<String>> {
    let installed = process::capture(rustup().args(["toolchain", "list"]))?;
    for name in installed.lines().filter_map(|line| line.split(' ').next()) {
        let mut rustc = process::of_toolchain(name, "rustc");
        let version = process::capture(rustc.arg("--version"))?;
        if is_version(&version, RUST_VERSION) {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// Whether `rustc 1.95.0 (…)` is a 1.95. A nightly is none: it knows more.
fn is_version(rustc_version: &str, wanted: &str) -> bool {
    let version = rustc_version.split(' ').nth(1).unwrap_or_default();
    version
        .strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        && !version.contains('-')
}

/// What is to be said of another nightly than the one that the kernel side was tested with.
pub(crate) fn untested_nightly() -> Result<Option<String>> {
    let version = process::capture(process::nightly("rustc").arg("--version"))?;
    Ok(other_nightly(&version))
}

fn other_nightly(rustc_version: &str) -> Option<String> {
    let date = rustc_version.trim().trim_end_matches(')').split(' ').nth(3);
    let date = date.unwrap_or("unknown date");
    (date != TESTED_NIGHTLY).then(|| {
        format!("nightly is of {date}; the kernel side was tested with that of {TESTED_NIGHTLY}")
    })
}

fn nightly() -> Result<()> {
    let installed = process::capture(rustup().args(["toolchain", "list"]))?;
    if installed.lines().any(|line| line.starts_with("nightly-")) {
        eprintln!("nightly toolchain: installed");
    } else {
        eprintln!("nightly toolchain: installing with rustup");
        let install = ["toolchain", "install", "nightly", "--profile", "minimal"];
        process::run(rustup().args(install))?;
    }
    // Nothing forbids another, so it is said: what the verifier accepts hangs on it.
    if let Some(other) = untested_nightly()? {
        eprintln!("warning: {other}");
    }
    Ok(())
}

/// Installs one rustup component where it is missing; no toolchain means the one in use.
fn component(toolchain: Option<&str>, name: &str) -> Result<()> {
    let choice: &[&str] = match &toolchain {
        Some(toolchain) => &["--toolchain", toolchain],
        None => &[],
    };
    let label = toolchain.unwrap_or("the toolchain in use");
    let list = ["component", "list", "--installed"];
    let installed = process::capture(rustup().args(list).args(choice))?;
    if installed.lines().any(|line| is_component(line, name)) {
        eprintln!("{name} for {label}: installed");
        return Ok(());
    }
    eprintln!("{name} for {label}: installing with rustup");
    process::run(rustup().args(["component", "add", name]).args(choice))
}

/// Components carry the target (`clippy-x86_64-unknown-linux-gnu`), except `rust-src`.
fn is_component(line: &str, name: &str) -> bool {
    line.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn rustup() -> Command {
    Command::new("rustup")
}

/// Installs bpf-linker into `.tools`, built for the LLVM that the nightly rustc has.
fn bpf_linker(workspace: &Workspace) -> Result<()> {
    let tools = workspace.tools();
    let stamp = tools.join("bpf-linker.stamp");
    let stamped = paths::read_if_present(&stamp)?;
    let present = tools.join("bin").join("bpf-linker").exists();
    if present && stamped.is_none() {
        // Not built by us, so somebody put it there because ours does not fit.
        eprintln!("bpf-linker: found in .tools without our stamp, used as it is");
        return Ok(());
    }
    let feature = bpf_linker_feature(&process::capture(process::nightly("rustc").arg("-vV"))?)?;
    let wanted = format!("bpf-linker {BPF_LINKER_VERSION} {feature}\n");
    if present && stamped.as_deref() == Some(wanted.as_str()) {
        eprintln!("bpf-linker {BPF_LINKER_VERSION} ({feature}): installed");
        return Ok(());
    }
    eprintln!("bpf-linker {BPF_LINKER_VERSION} ({feature}): building from source, once");
    // Stamped before it is built: an interrupted build must not pass for a foreign one.
    paths::create_dir(&tools)?;
    paths::write(&stamp, "being installed\n")?;
    process::run(
        process::cargo()
            .arg("install")
            .arg(format!("bpf-linker@{BPF_LINKER_VERSION}"))
            .args(["--no-default-features", "--locked", "--force", "--features"])
            .arg(&feature)
            .arg("--root")
            .arg(&tools)
            // A build that outlives the clone: the next clone only links it again.
            .env("CARGO_TARGET_DIR", workspace.cache.join("bpf-linker")),
    )?;
    paths::write(&stamp, &wanted)
}

/// The bpf-linker feature for the LLVM in the output of `rustc -vV`.
fn bpf_linker_feature(rustc_version: &str) -> Result<String> {
    let major = llvm_major(rustc_version)
        .context("`rustc -vV` of the nightly toolchain tells no LLVM version")?;
    match major {
        20..=22 => Ok(format!("rust-llvm-{major}")),
        23.. => bail!(
            "the nightly rustc has LLVM {major}, which bpf-linker {BPF_LINKER_VERSION} cannot \
             read: remove .tools and put a prebuilt bpf-linker there with `cargo binstall \
             bpf-linker --root .tools`, or use an older nightly toolchain"
        ),
        _ => bail!("the nightly rustc has LLVM {major}; this needs 20 or later: update nightly"),
    }
}

fn llvm_major(rustc_version: &str) -> Option<u32> {
    let version = rustc_version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                           host: x86_64-unknown-linux-gnu\nLLVM version: 22.1.4\n";

    #[test]
    fn feature_follows_the_llvm_of_rustc() {
        assert_eq!(bpf_linker_feature(NIGHTLY).unwrap(), "rust-llvm-22");
        let older = NIGHTLY.replace("22.1.4", "20.1");
        assert_eq!(bpf_linker_feature(&older).unwrap(), "rust-llvm-20");
    }

    #[test]
    fn llvm_out_of_reach_is_told_with_the_way_out() {
        let newer = bpf_linker_feature(&NIGHTLY.replace("22.1.4", "23.0.0")).unwrap_err();
        assert!(newer.to_string().contains("binstall"), "{newer}");
        assert!(bpf_linker_feature(&NIGHTLY.replace("22.1.4", "19.1.0")).is_err());
        assert!(bpf_linker_feature("rustc 1.97.0").is_err());
    }

    #[test]
    fn another_nightly_is_told_by_its_date() {
        let line = NIGHTLY.lines().next().unwrap();
        assert_eq!(other_nightly(line), None);
        let other = other_nightly("rustc 1.98.0-nightly (0123abcde 2026-07-01)\n").unwrap();
        assert!(other.contains("2026-07-01"), "{other}");
        assert!(other.contains(TESTED_NIGHTLY), "{other}");
    }

    #[test]
    fn a_version_is_met_by_its_patches_only() {
        assert!(is_version("rustc 1.95.0 (59807616e 2026-04-14)", "1.95"));
        assert!(is_version("rustc 1.95.0 (59807616e 2026-04-14)", "1.95.0"));
        assert!(!is_version("rustc 1.96.0 (59807616e 2026-05-28)", "1.95"));
        assert!(!is_version(
            "rustc 1.95.0-nightly (59807616e 2026-02-01)",
            "1.95"
        ));
        assert!(!is_version("rustc 1.9.0", "1.95"));
    }

    #[test]
    fn component_names_match_with_and_without_target() {
        assert!(is_component("rust-src", "rust-src"));
        assert!(is_component("clippy-x86_64-unknown-linux-gnu", "clippy"));
        assert!(!is_component("rustc-x86_64-unknown-linux-gnu", "rust"));
    }
}
