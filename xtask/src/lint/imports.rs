//! Who may import whom, in the crates `oomwatch` and `oomwatch-ebpf`.
//!
//! A module may import its own children, what everybody may, and what its row names: so all arrows point down, and
//! no two modules need each other. The check reads each file's paths that begin in the crate (`crate::…`, `super::…`);
//! tests are free. It knows names only: what a macro expands to, it does not see.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use proc_macro2::TokenTree;
use syn::{Attribute, UseTree, spanned::Spanned as _, visit::Visit};

use crate::paths::Workspace;

/// A module, and the modules that it may import; `a::b` where it is only that part of `a`. A module may have several
/// rows.
type Row = (&'static str, &'static [&'static str]);

/// The floors of `oomwatch`, the lowest first. Whoever adds a module adds a row.
const LIBRARY: &[Row] = &[
    // Decides: no files, no clock, no async.
    ("record", &[]),
    ("memory_events", &[]),
    ("topology", &[]),
    ("containers", &["topology"]),
    ("event", &["record", "containers"]),
    ("attribute", &["record", "topology", "containers", "event"]),
    ("ledger", &["record", "memory_events"]),
    ("reconcile", &["record", "ledger"]),
    ("engine", BELOW_ENGINE),
    // Does I/O.
    ("clock", &["event"]),
    ("retry", &[]),
    ("lock", &[]),
    ("drill", &[]),
    ("probe", &["record", "lock"]),
    ("cgroup", &["memory_events", "topology"]),
    ("counters", &["cgroup", "memory_events", "ledger"]),
    ("host", &["cgroup", "probe"]),
    ("runtimes", &["containers", "cgroup", "retry"]),
    ("counts", &["record", "containers", "event", "clock"]),
    (
        "store",
        &["containers", "event", "ledger", "clock", "retry", "lock"],
    ),
    (
        "publish",
        &["containers", "event", "clock", "retry", "counts", "store"],
    ),
    ("publish::containerd", &["runtimes::grpc"]),
    ("watcher", BELOW_ENGINE),
    (
        "watcher",
        &[
            "engine", "clock", "retry", "drill", "probe", "cgroup", "counters", "host", "runtimes",
            "counts", "store", "publish",
        ],
    ),
    ("metrics", OF_A_WATCHER),
    ("api", OF_A_WATCHER),
    ("api", &["store"]),
    (
        "bench",
        &[
            "record",
            "containers",
            "topology",
            "event",
            "ledger",
            "engine",
            "clock",
            "probe",
            "counts",
            "store",
            "publish",
            "watcher",
        ],
    ),
    // The command is a crate of its own: it uses what the library shows.
    ("cli", &[]),
];

/// What the engine is made of.
const BELOW_ENGINE: &[&str] = &[
    "record",
    "memory_events",
    "topology",
    "containers",
    "event",
    "attribute",
    "ledger",
    "reconcile",
];

/// What those need that ask a running watcher.
const OF_A_WATCHER: &[&str] = &[
    "watcher",
    "publish",
    "event",
    "containers",
    "record",
    "clock",
    "counts",
    "engine::Totals",
    "engine::naming::Registered",
];

/// What every module of `oomwatch` may import.
const COMMON: &[&str] = &["id", "tier", "log"];

/// Modules that only decide, and what they name none of.
const PURE: &[&str] = &[
    "id",
    "tier",
    "record",
    "memory_events",
    "topology",
    "containers",
    "event",
    "attribute",
    "ledger",
    "reconcile",
    "engine",
];
const IMPURE: &[&str] = &["aya", "tokio", "rustix", "std::fs"];

/// Modules whose children do not import one another.
const APART: &[(&str, &[&str])] = &[
    (
        "publish",
        &["containerd", "journald", "kubernetes", "otlp", "stream"],
    ),
    ("runtimes", &["containerd", "cri", "docker", "podman"]),
];

/// The programs: what they keep is below what they do.
const PROGRAMS: &[Row] = &[
    ("kernel", &[]),
    ("state", &["kernel", "invocation"]),
    ("maps", &["state"]),
    ("invocation", &["kernel", "maps", "state"]),
    ("signal", &["kernel", "maps", "state", "invocation"]),
    ("cgroup", &["kernel", "maps", "signal"]),
    ("pid", &["kernel", "maps", "state", "signal"]),
    (
        "victim",
        &["kernel", "maps", "state", "signal", "invocation"],
    ),
];

/// Fails with every import that no row allows.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let rules = [
        (workspace.root.join("oomwatch/src"), LIBRARY, COMMON),
        (workspace.root.join("oomwatch-ebpf/src"), PROGRAMS, &[]),
    ];
    let mut found = Vec::new();
    for (source, rows, common) in rules {
        for file in rust_files(&source)? {
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let name = file.strip_prefix(&workspace.root).unwrap_or(&file);
            let module = module_of(file.strip_prefix(&source)?);
            if let Some(module) = module {
                found.extend(arrows(name, &module, &text, rows, common)?);
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    bail!(
        "imports that no row of xtask/src/lint/imports.rs allows:\n{}",
        lines.join("\n")
    )
}

/// An import that is not allowed.
#[derive(Debug, PartialEq, Eq)]
struct Arrow {
    file: PathBuf,
    line: usize,
    module: String,
    target: String,
    rule: &'static str,
}

impl fmt::Display for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            module,
            target,
            rule,
        } = self;
        write!(
            f,
            "  {}:{line}: {module} -> {target}: {rule}",
            file.display()
        )
    }
}

/// The path of a file's module; `None` for tests, and for the roots of the crates, which show all.
fn module_of(file: &Path) -> Option<Vec<String>> {
    let names = file.with_extension("");
    let names: Vec<String> = names
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let is_free = |name: &String| {
        [
            "tests", "fixture", "fake", "model", "contract", "lib", "main",
        ]
        .contains(&name.as_str())
    };
    (!names.iter().any(is_free)).then_some(names)
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn arrows(
    file: &Path,
    module: &[String],
    text: &str,
    rows: &[Row],
    common: &[&str],
) -> Result<Vec<Arrow>> {
    let syntax = syn::parse_file(text).with_context(|| format!("parsing {}", file.display()))?;
    let mut paths = Paths {
        module: module.to_vec(),
        ..Paths::default()
    };
    paths.visit_file(&syntax);
    let module = module.join("::");
    let arrow = |(line, path): (usize, Vec<String>)| {
        let target = path.join("::");
        let rule = broken_rule(&module, &target, rows, common)?;
        Some(Arrow {
            file: file.to_owned(),
            line,
            module: module.clone(),
            target,
            rule,
        })
    };
    let mut found: Vec<Arrow> = paths.found.into_iter().filter_map(arrow).collect();
    found.dedup();
    Ok(found)
}

/// Which rule an import breaks. A target in the crate begins with `crate`; others are of other crates.
fn broken_rule(module: &str, target: &str, rows: &[Row], common: &[&str]) -> Option<&'static str> {
    let Some(target) = target.strip_prefix("crate::") else {
        let is_impure = IMPURE.iter().any(|name| is_within(target, name));
        let is_pure = !common.is_empty() && PURE.iter().any(|name| is_within(module, name));
        return (is_impure && is_pure).then_some("what only decides names no file, clock or task");
    };
    let top = first(module);
    if first(target) == top {
        return are_apart(module, target).then_some("these do not import one another");
    }
    if common.iter().any(|name| is_within(target, name)) {
        return None;
    }
    let mut own = rows.iter().filter(|(name, _)| is_within(module, name));
    let is_allowed = own.any(|(_, may)| may.iter().any(|name| is_within(target, name)));
    let is_known = common.contains(&top) || rows.iter().any(|(name, _)| *name == top);
    match (is_allowed, is_known) {
        (true, _) => None,
        (false, true) => Some("its row has no such module"),
        (false, false) => Some("it has no row"),
    }
}

fn are_apart(module: &str, target: &str) -> bool {
    let child = |path: &'_ str, top: &str| {
        let rest = path.strip_prefix(top)?.strip_prefix("::")?;
        Some(first(rest).to_owned())
    };
    APART.iter().any(|(top, children)| {
        let (Some(one), Some(other)) = (child(module, top), child(target, top)) else {
            return false;
        };
        let is_one = |name: &String| children.contains(&name.as_str());
        one != other && is_one(&one) && is_one(&other)
    })
}

/// Whether a path is this one or below it.
fn is_within(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

/// Collects paths, those in the crate in full.
#[derive(Default)]
struct Paths {
    module: Vec<String>,
    found: Vec<(usize, Vec<String>)>,
}

impl Paths {
    fn add(&mut self, line: usize, path: &[String]) {
        if let Some(path) = self.resolve(path) {
            self.found.push((line, path));
        }
    }

    /// `None` for what is neither in the crate nor a path of several parts.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let begin = path.first()?.as_str();
        let ups = path.iter().take_while(|name| *name == "super").count();
        let (base, rest) = match begin {
            "crate" => (&[][..], path.get(1..)?),
            "self" => (&*self.module, path.get(1..)?),
            "super" => {
                let left = self.module.len().checked_sub(ups)?;
                (self.module.get(..left)?, path.get(ups..)?)
            }
            _ => return (path.len() > 1).then(|| path.to_vec()),
        };
        let begin = std::iter::once("crate".to_owned());
        Some(begin.chain(base.iter().chain(rest).cloned()).collect())
    }

    fn add_tree(&mut self, tree: &UseTree, above: &[String]) {
        let with = |name: &syn::Ident| [above, &[name.to_string()]].concat();
        let line = tree.span().start().line;
        match tree {
            UseTree::Path(path) => self.add_tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) if name.ident == "self" => self.add(line, above),
            UseTree::Name(name) => self.add(line, &with(&name.ident)),
            UseTree::Rename(name) => self.add(line, &with(&name.ident)),
            UseTree::Glob(_) => self.add(line, above),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(tree, above);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &[][..],
        };
        if !attributes.iter().any(is_for_tests) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter();
        let names: Vec<String> = names.map(|segment| segment.ident.to_string()).collect();
        self.add(path.span().start().line, &names);
        syn::visit::visit_path(self, path);
    }

    /// Of what a macro is given, paths that say `crate` are seen.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let mut left: Vec<TokenTree> = item.tokens.clone().into_iter().collect();
        left.reverse();
        while let Some(token) = left.pop() {
            match token {
                TokenTree::Group(group) => {
                    let mut inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    inner.reverse();
                    left.extend(inner);
                }
                TokenTree::Ident(ident) if ident == "crate" => {
                    let line = ident.span().start().line;
                    let mut path = vec!["crate".to_owned()];
                    while matches!(left.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
                    {
                        left.pop();
                        if let Some(TokenTree::Ident(name)) = left.last() {
                            path.push(name.to_string());
                            left.pop();
                        }
                    }
                    if path.len() > 1 {
                        self.add(line, &path);
                    }
                }
                _ => {}
            }
        }
        syn::visit::visit_macro(self, item);
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let is_cfg = attribute.path().is_ident("cfg");
    is_cfg
        && attribute
            .parse_args::<syn::Ident>()
            .is_ok_and(|name| name == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(module: &[&str], text: &str) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        let file = Path::new("oomwatch/src")
            .join(module.join("/"))
            .with_extension("rs");
        let found = arrows(&file, &module, text, LIBRARY, COMMON).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_arrow_that_no_row_allows_is_named_with_file_line_and_rule() {
        assert_eq!(
            found(
                &["ledger"],
                "use crate::{\n    id::CgroupId,\n    engine::Engine,\n};\n"
            ),
            [
                "  oomwatch/src/ledger.rs:3: ledger -> crate::engine::Engine: its row has no such module"
            ]
        );
        let by_super = found(&["ledger", "kept"], "use super::super::engine::Engine;\n");
        assert_eq!(by_super.len(), 1, "{by_super:?}");
        let in_the_text = found(&["ledger"], "fn f() { crate::watcher::go(); }\n");
        assert_eq!(in_the_text.len(), 1, "{in_the_text:?}");
        let in_a_macro = found(
            &["ledger"],
            "fn f() { say!(\"{}\", crate::watcher::go()); }\n",
        );
        assert_eq!(in_a_macro.len(), 1, "{in_a_macro:?}");
        assert_eq!(found(&["newcomer"], "use crate::event::Kind;\n").len(), 1);
        assert_eq!(
            found(&["event"], "use crate::OomEvent;\n").len(),
            1,
            "the crate's root"
        );
    }

    #[test]
    fn what_only_decides_reads_no_file() {
        assert_eq!(found(&["engine"], "use std::{fs, io};\n").len(), 1);
        assert_eq!(
            found(&["engine"], "fn f() { tokio::spawn(async {}); }\n").len(),
            1
        );
        assert_eq!(found(&["store"], "use std::fs;\n"), Vec::<String>::new());
    }

    #[test]
    fn publishers_and_runtimes_stand_alone() {
        assert_eq!(
            found(&["publish", "otlp"], "use super::journald::Entry;\n").len(),
            1
        );
        assert_eq!(
            found(&["runtimes", "cri"], "use super::docker::Docker;\n").len(),
            1
        );
        let allowed = "use super::queue::Queue;\nuse crate::runtimes::grpc::Client;\n";
        assert_eq!(
            found(&["publish", "containerd"], allowed),
            Vec::<String>::new()
        );
        assert_eq!(found(&["publish", "otlp"], allowed).len(), 1);
    }

    #[test]
    fn tests_and_what_a_row_has_are_free() {
        let text = "use crate::id::CgroupId;\n\
                    use self::kept::Kept;\n\
                    #[cfg(test)]\nmod tests {\n    use crate::watcher::Watcher;\n}\n";
        assert_eq!(found(&["ledger"], text), Vec::<String>::new());
        assert_eq!(module_of(Path::new("engine/model/kernel.rs")), None);
        assert_eq!(
            module_of(Path::new("engine.rs")),
            Some(vec!["engine".to_owned()])
        );
    }
}
