//! The library's features: each of them compiles alone, and what an embedder builds without any stays small.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use crate::{paths::Workspace, process};

const PACKAGE: &str = "oomwatch";
/// What a command line may combine is tried with all, by the other lints; here the bare library and each alone.
const ALONE: &[&str] = &[
    "",
    "runtimes",
    "store",
    "metrics",
    "api",
    "containerd",
    "kubernetes",
    "otlp",
    "probe-log",
    "command",
];
/// Crates below the bare library. Who raises it says why.
const MOST_CRATES: usize = 53;

/// Warnings are errors; but what one feature uses alone is there for it alone.
const LINTS: &[&str] = &[
    "--",
    "-D",
    "warnings",
    "-A",
    "dead_code",
    "-A",
    "unreachable_code",
];

/// Checks the library with each feature alone, and counts the crates below the bare one.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    for feature in ALONE {
        let mut cargo = process::cargo();
        cargo
            .args(["clippy", "--locked", "--package", PACKAGE])
            // The command is there with its feature only.
            .args(["--lib", "--bins"])
            .args(["--no-default-features", "--features", feature])
            .args(LINTS);
        process::run(cargo.current_dir(&workspace.root))
            .with_context(|| format!("the library with the features {feature:?} alone"))?;
    }
    examples(workspace)?;
    let count = crates(workspace)?;
    println!("{count} crates below the bare library, {MOST_CRATES} at most");
    ensure!(
        count <= MOST_CRATES,
        "an embedder who takes no feature builds {count} crates, and {MOST_CRATES} are meant: make the new ones a feature's"
    );
    Ok(())
}

/// The examples take no feature. Alone, they get none from the others in the workspace.
fn examples(workspace: &Workspace) -> Result<()> {
    let mut cargo = process::cargo();
    cargo
        .args(["clippy", "--locked", "--package", "oomwatch-examples"])
        .arg("--all-targets")
        .args(LINTS);
    process::run(cargo.current_dir(&workspace.root)).context("the examples with the bare library")
}

/// How many crates the library needs without any feature, itself apart.
fn crates(workspace: &Workspace) -> Result<usize> {
    let mut cargo = process::cargo();
    cargo
        .args(["tree", "--locked", "--package", PACKAGE])
        .args([
            "--edges",
            "normal",
            "--no-default-features",
            "--prefix",
            "none",
        ]);
    let tree = process::capture(cargo.current_dir(&workspace.root))?;
    // A crate that was shown before has a mark behind its version.
    let names = tree.lines().filter_map(|line| line.split(" (").next());
    let names: BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
    Ok(names.len().saturating_sub(1))
}
