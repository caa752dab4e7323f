//! The drivers that Debian's cloud kernels have as modules and a root image needs, unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Where the root is, and what runtimes put under containers. They depend on no other module.
const NEEDED: &[&str] = &["virtio_blk", "overlay"];

/// A driver, as the kernel takes it.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// Finds them all below a kernel's directory of modules.
pub(crate) fn load(dir: &Path) -> Result<Vec<Module>> {
    let mut files = Vec::new();
    list(dir, &mut files)?;
    NEEDED
        .iter()
        .map(|name| module(name, dir, &files))
        .collect()
}

fn module(name: &'static str, dir: &Path, files: &[PathBuf]) -> Result<Module> {
    let file = files.iter().find(|file| is_module(file, name));
    let file = file.with_context(|| format!("no module {name} in {}", dir.display()))?;
    let bytes = match file.extension() {
        Some(extension) if extension == "xz" => unpack(file)?,
        _ => fs::read(file).with_context(|| format!("reading {}", file.display()))?,
    };
    Ok(Module { name, bytes })
}

fn is_module(file: &Path, name: &str) -> bool {
    let file = file.file_name().unwrap_or_default().to_string_lossy();
    let rest = file.strip_prefix(name);
    rest.is_some_and(|rest| [".ko", ".ko.xz"].contains(&rest))
}

fn unpack(file: &Path) -> Result<Vec<u8>> {
    let output = Command::new("busybox")
        .arg("xzcat")
        .arg(file)
        .output()
        .context("starting busybox")?;
    ensure!(
        output.status.success(),
        "unpacking {}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let listing = || format!("listing {}", dir.display());
    for entry in fs::read_dir(dir).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        if entry.file_type().with_context(listing)?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_by_its_whole_name_packed_or_not() {
        let is = |file: &str| is_module(Path::new(file), "overlay");
        assert!(is("kernel/fs/overlayfs/overlay.ko.xz"));
        assert!(is("kernel/fs/overlayfs/overlay.ko"));
        assert!(!is("kernel/fs/overlayfs/overlay2.ko.xz"));
        assert!(!is("kernel/fs/overlayfs/overlay.ko.gz"));
    }
}
