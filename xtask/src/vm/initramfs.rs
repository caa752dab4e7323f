//! The guest's root: an uncompressed cpio archive with the test programme as `/init`.
//!
//! Every programme comes with the shared libraries that `ldd` finds for it here, at the same
//! paths, so that host and guest run the very same binaries. It is not compressed: unpacking
//! under emulation takes longer than loading the plain archive.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use cpio::newc;

use super::{hog_image, modules::Module};
use crate::paths::Workspace;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;

const EMPTY_DIRECTORIES: &[&str] = &["dev", "etc", "proc", "run", "sys", "tmp"];

const PASSWD: &str = "root:x:0:0:root:/tmp:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Programmes that scenarios can do without: (name, path in the guest).
const EXTRAS: &[(&str, &str)] = &[("strace", "bin/strace"), ("oomkill", "usr/sbin/oomkill")];

/// What a file of the archive is made of.
enum Content {
    Directory,
    Text(&'static str),
    Bytes(Vec<u8>),
    /// A programme or library of this machine.
    Copy(PathBuf),
}

/// The archive's entries by path, without a leading slash. The order of a `BTreeMap` puts a
/// directory before what is in it, as the kernel's unpacker needs.
type Entries = BTreeMap<String, Content>;

/// Writes the archive to `out` from the release binaries and the tools of this machine.
pub(crate) fn write(workspace: &Workspace, out: &Path) -> Result<()> {
    write_archive(&programmes(workspace)?, out)
        .with_context(|| format!("writing {}", out.display()))
}

/// The same for machines that go on from a root image: with the drivers for that, and with what
/// their containers are run from.
pub(crate) fn write_for_images(
    workspace: &Workspace,
    modules: Vec<Module>,
    out: &Path,
) -> Result<()> {
    let mut entries = programmes(workspace)?;
    for directory in ["modules", "image"] {
        entries.insert(directory.to_owned(), Content::Directory);
    }
    for module in modules {
        let path = format!("modules/{}.ko", module.name);
        entries.insert(path, Content::Bytes(module.bytes));
    }
    let hog = hog_image::archive(&find("busybox")?)?;
    entries.insert("hog.tar".to_owned(), Content::Bytes(hog));
    write_archive(&entries, out).with_context(|| format!("writing {}", out.display()))
}

fn programmes(workspace: &Workspace) -> Result<Entries> {
    let mut entries = Entries::new();
    for directory in EMPTY_DIRECTORIES {
        entries.insert((*directory).to_owned(), Content::Directory);
    }
    entries.insert("etc/passwd".to_owned(), Content::Text(PASSWD));
    entries.insert("etc/group".to_owned(), Content::Text(GROUP));
    add_programme(&mut entries, "init", &workspace.release_binary("vm-guest"))?;
    add_programme(
        &mut entries,
        "bin/oomwatch",
        &workspace.release_binary("oomwatch"),
    )?;
    add_programme(&mut entries, "bin/busybox", &find("busybox")?)?;
    for (name, guest_path) in EXTRAS {
        match find(name) {
            Ok(path) => add_programme(&mut entries, guest_path, &path)?,
            Err(_) => eprintln!("initramfs: no {name} on this machine, so none in the guest"),
        }
    }
    Ok(entries)
}

/// Looks in `PATH` and where system programmes are, which a user's `PATH` may leave out.
fn find(name: &str) -> Result<PathBuf> {
    which::which(name)
        .or_else(|_| which::which_in(name, Some("/usr/sbin:/sbin"), "/"))
        .with_context(|| format!("looking for the programme {name}"))
}

fn add_programme(entries: &mut Entries, guest_path: &str, path: &Path) -> Result<()> {
    for library in libraries(path)? {
        let guest_path = library.to_string_lossy();
        insert(entries, guest_path.trim_start_matches('/'), &library);
    }
    insert(entries, guest_path, path);
    Ok(())
}

/// Inserts a file and the directories above it.
fn insert(entries: &mut Entries, guest_path: &str, source: &Path) {
    for (slash, _) in guest_path.match_indices('/') {
        let (parent, _) = guest_path.split_at(slash);
        entries
            .entry(parent.to_owned())
            .or_insert(Content::Directory);
    }
    entries.insert(guest_path.to_owned(), Content::Copy(source.to_path_buf()));
}

fn libraries(programme: &Path) -> Result<Vec<PathBuf>> {
    // A missing file and a static programme both make ldd fail: tell them apart first.
    fs::metadata(programme).with_context(|| format!("looking at {}", programme.display()))?;
    let output = Command::new("ldd")
        .arg(programme)
        .output()
        .with_context(|| format!("starting ldd for {}", programme.display()))?;
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// The absolute paths in `name => /path (address)` and `/path (address)`; the kernel's own
/// `linux-vdso` has none.
fn parse_ldd(output: &str) -> Vec<PathBuf> {
    output
        .lines()
        .filter_map(|line| {
            let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
            let path = path.split(" (0x").next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

fn write_archive(entries: &Entries, out: &Path) -> Result<()> {
    let mut archive = BufWriter::new(File::create(out).context("creating the archive")?);
    for (inode, (path, content)) in (1_u32..).zip(entries) {
        let (mode, bytes) = match content {
            Content::Directory => (DIRECTORY, Vec::new()),
            Content::Text(text) => (PLAIN, text.as_bytes().to_vec()),
            Content::Bytes(bytes) => (PLAIN, bytes.clone()),
            Content::Copy(source) => {
                let bytes = fs::read(source);
                let bytes = bytes.with_context(|| format!("reading {}", source.display()))?;
                (EXECUTABLE, bytes)
            }
        };
        append(&mut archive, inode, path, mode, &bytes)
            .with_context(|| format!("adding /{path}"))?;
    }
    newc::trailer(&mut archive).context("ending the archive")?;
    archive.flush().context("ending the archive")
}

fn append(
    archive: &mut impl std::io::Write,
    inode: u32,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let size = u32::try_from(bytes.len()).context("a file of 4 GiB or more")?;
    // Same archive for the same input: everything belongs to root and is from 1970.
    let header = newc::Builder::new(path).ino(inode).uid(0).gid(0).mode(mode);
    let mut entry = header.write(archive, size);
    entry.write_all(bytes)?;
    entry.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_gives_libraries_and_loader_but_no_vdso() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f11)\n";
        let wanted = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse_ldd(output), wanted.map(PathBuf::from));
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }

    #[test]
    fn archive_has_parents_before_children_and_is_readable() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("programme");
        fs::write(&source, b"#!x").unwrap();
        let mut entries = Entries::new();
        insert(&mut entries, "usr/sbin/oomkill", &source);
        let out = dir.path().join("archive");
        write_archive(&entries, &out).unwrap();

        let mut file = File::open(&out).unwrap();
        let mut seen = Vec::new();
        loop {
            let reader = newc::Reader::new(file).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            seen.push((entry.name().to_owned(), entry.mode(), entry.file_size()));
            file = reader.finish().unwrap();
        }
        let directory = |name: &str| (name.to_owned(), DIRECTORY, 0);
        let programme = ("usr/sbin/oomkill".to_owned(), EXECUTABLE, 3);
        assert_eq!(seen, [directory("usr"), directory("usr/sbin"), programme]);
    }
}
