//! Running other programs: said aloud, without a shell, and with an error that names the command.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// What `cargo run` sets for us and must not reach a cargo that we start: with these, build
/// scripts would see another package, and `+nightly` would be overruled.
const FROM_OUTER_CARGO: &[&str] = &[
    "CARGO",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
];

/// These would choose or wrap the compiler of the nightly toolchain; `LD_LIBRARY_PATH` points
/// to the outer toolchain's LLVM, which bpf-linker must not load.
const FROM_OUTER_TOOLCHAIN: &[&str] = &[
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "RUST_RECURSION_COUNT",
];

/// The cargo of the toolchain that runs us, for the host crates.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    forget_outer_cargo(&mut command);
    command
}

/// A program (`cargo`, `rustc`) of the nightly toolchain, which the kernel side needs.
pub(crate) fn nightly(program: &str) -> Command {
    of_toolchain("nightly", program)
}

/// A program of the toolchain that rustup knows by this name.
pub(crate) fn of_toolchain(toolchain: &str, program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, program]);
    forget_outer_cargo(&mut command);
    forget_outer_toolchain(&mut command);
    command
}

/// Takes away the traces of the `cargo run` that started us.
pub(crate) fn forget_outer_cargo(command: &mut Command) {
    for name in FROM_OUTER_CARGO {
        command.env_remove(name);
    }
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("CARGO_PKG_")) {
        command.env_remove(name);
    }
}

/// Takes away what chooses the compiler and where its libraries are.
pub(crate) fn forget_outer_toolchain(command: &mut Command) {
    for name in FROM_OUTER_TOOLCHAIN {
        command.env_remove(name);
    }
}

/// Prints the command, runs it on our terminal, and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = describe(command);
    eprintln!("+ {shown}");
    let status = command
        .status()
        .with_context(|| format!("starting `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it printed; fails unless it succeeds.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{shown}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed: {}: {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of `{shown}` is not text"))
}

/// The command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| {
        let arg = arg.to_string_lossy();
        if arg.is_empty() || arg.contains(char::is_whitespace) {
            format!("'{arg}'")
        } else {
            arg.into_owned()
        }
    }));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_a_command_as_typed() {
        let mut command = Command::new("echo");
        command.args(["a b", "c", ""]);
        assert_eq!(describe(&command), "echo 'a b' c ''");
    }

    #[test]
    fn a_failing_command_is_named() {
        let error = capture(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().contains("`false` failed"), "{error}");
    }
}
