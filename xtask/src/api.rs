//! The public interface of the library as text, one item a line: a change of it shows in the diff.
//!
//! rustdoc of the nightly toolchain gives it as JSON, whose format changes with the nightly: with another one than the
//! tested, the check does not run, and says so.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use public_api::{Builder, PublicApi};

use crate::{
    paths::{self, Workspace},
    process,
    summary::Checked,
    toolchain,
};

const SNAPSHOT: &str = "oomwatch/public-api.txt";

/// `cargo xtask api`: writes the interface of today down.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    if let Some(other) = toolchain::untested_nightly()? {
        eprintln!("warning: {other}: what it writes may differ");
    }
    paths::write(&workspace.root.join(SNAPSHOT), &today(workspace)?)?;
    println!("{SNAPSHOT} is written: read its diff, and note the change in CHANGELOG.md");
    Ok(())
}

/// Compares the interface of today with the one that was written down.
pub(crate) fn check(workspace: &Workspace) -> Result<Checked> {
    if let Some(other) = toolchain::untested_nightly()? {
        return Ok(Checked::NotRun(other));
    }
    let written = paths::read_if_present(&workspace.root.join(SNAPSHOT))?.unwrap_or_default();
    let changes = changes(&written, &today(workspace)?);
    if !changes.is_empty() {
        bail!(
            "the public interface is not as in {SNAPSHOT}:\n{}\nif that is meant, run `cargo xtask api` and commit it",
            changes.join("\n")
        );
    }
    Ok(Checked::Passed)
}

/// The lines that went and those that came.
fn changes(before: &str, after: &str) -> Vec<String> {
    let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
    let gone = before.lines().filter(|line| lacks(after, line));
    let new = after.lines().filter(|line| lacks(before, line));
    let gone = gone.map(|line| format!("-{line}"));
    gone.chain(new.map(|line| format!("+{line}"))).collect()
}

fn today(workspace: &Workspace) -> Result<String> {
    let json = rustdoc(workspace)?;
    let api = Builder::from_rustdoc_json(&json)
        // `impl<T> Any for T` and its like.
        .omit_blanket_impls(true)
        .build()
        .with_context(|| format!("reading {}", json.display()))?;
    Ok(text(&api))
}

/// One item a line, without what nobody reads.
fn text(api: &PublicApi) -> String {
    let lines: Vec<String> = api.items().map(|item| item.to_string()).collect();
    telling(&lines)
        .iter()
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Leaves out the methods of the standard library's traits, which the line of the `impl` tells already.
fn telling(lines: &[String]) -> Vec<&str> {
    let mut of_known_trait = None;
    let mut kept = Vec::new();
    for line in lines {
        if line.starts_with("impl") {
            of_known_trait = known_trait_of(line);
        }
        let is_told = |name| is_method_of(line, name);
        if !is_marginal(line) && !of_known_trait.is_some_and(is_told) {
            kept.push(line.as_str());
        }
    }
    kept
}

/// The type that an `impl` of a trait of the standard library is for.
fn known_trait_of(line: &str) -> Option<&str> {
    const STANDARD: &[&str] = &["impl core::", "impl alloc::", "impl std::"];
    let is_standard = STANDARD.iter().any(|start| line.starts_with(start));
    let (_, name) = line.rsplit_once(" for ")?;
    is_standard.then_some(name)
}

fn is_method_of(line: &str, name: &str) -> bool {
    let rest = line
        .strip_prefix("pub fn ")
        .or_else(|| line.strip_prefix("pub type "));
    rest.and_then(|rest| rest.strip_prefix(name))
        .is_some_and(|rest| rest.starts_with("::"))
}

/// Panic safety, and what is internal to the compiler.
fn is_marginal(line: &str) -> bool {
    const MARGINAL: &[&str] = &[
        "Freeze",
        "RefUnwindSafe",
        "StructuralPartialEq",
        "UnsafeUnpin",
        "UnwindSafe",
    ];
    let is_for = |name: &&str| line.contains(&format!("::{name} for "));
    line.starts_with("impl") && MARGINAL.iter().any(is_for)
}

/// Has rustdoc describe the library with the features of the command, which are all that are public.
fn rustdoc(workspace: &Workspace) -> Result<PathBuf> {
    // Of its own, so that `cargo doc` of an editor is not undone.
    let target = workspace.target.join("api");
    let mut cargo = process::nightly("cargo");
    cargo
        .args(["rustdoc", "--locked", "--package", "oomwatch", "--lib"])
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        // Broken links are the business of `cargo doc`.
        .args(["--cap-lints", "allow"]);
    process::run(cargo.current_dir(&workspace.root))?;
    Ok(target.join("doc").join("oomwatch.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_line_that_went_and_one_that_came() {
        let before = "pub fn a()\npub fn b()\n";
        let after = "pub fn a()\npub fn b(u32)\n";
        assert_eq!(changes(before, after), ["-pub fn b()", "+pub fn b(u32)"]);
        assert!(changes(before, before).is_empty());
    }

    #[test]
    fn a_trait_of_the_standard_library_is_one_line_and_a_function_after_it_stays() {
        let lines = [
            "pub struct oomwatch::Id(pub u64)",
            "pub fn oomwatch::Id::as_str(&self) -> &str",
            "impl core::clone::Clone for oomwatch::Id",
            "pub fn oomwatch::Id::clone(&self) -> oomwatch::Id",
            "impl core::marker::StructuralPartialEq for oomwatch::Id",
            "impl core::marker::Send for oomwatch::Id",
            "impl futures_core::stream::Stream for oomwatch::Id",
            "pub type oomwatch::Id::Item = u8",
            "impl core::panic::unwind_safe::UnwindSafe for oomwatch::Id",
            "pub fn oomwatch::printable(&[u8]) -> alloc::string::String",
        ];
        let expected: Vec<_> = [0, 1, 2, 5, 6, 7, 9].map(|kept| lines[kept]).into();
        let lines = lines.map(str::to_owned);
        assert_eq!(telling(&lines), expected);
    }
}
