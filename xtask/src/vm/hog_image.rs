//! The container image that is run out of memory: a static busybox, as an archive in the form that
//! `docker load`, `podman load` and `ctr image import` all take. Made in memory, the same every time.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// What the containers are run from. Scenarios know it by this name.
const REFERENCE: &str = "oomwatch.test/hog:1";

/// What a container does that is told nothing, such as one that only holds a pod's namespaces.
const COMMAND: &[&str] = &["/bin/sleep", "1000000"];

/// The names under which containers call busybox.
const APPLETS: &[&str] = &["sh", "sleep", "tail"];

const PLAIN: u32 = 0o644;
const EXECUTABLE: u32 = 0o755;

/// Makes the archive around a busybox without shared libraries.
pub(crate) fn archive(busybox: &Path) -> Result<Vec<u8>> {
    let program = fs::read(busybox).with_context(|| format!("reading {}", busybox.display()))?;
    from_program(&program).context("making the image of the containers")
}

fn from_program(program: &[u8]) -> Result<Vec<u8>> {
    let layer = layer(program)?;
    let configuration = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": COMMAND, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))] },
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": [REFERENCE], "Layers": ["layer.tar"],
    }]);
    let mut archive = Builder::new(Vec::new());
    append(
        &mut archive,
        "manifest.json",
        PLAIN,
        manifest.to_string().as_bytes(),
    )?;
    append(
        &mut archive,
        "config.json",
        PLAIN,
        configuration.to_string().as_bytes(),
    )?;
    append(&mut archive, "layer.tar", PLAIN, &layer)?;
    Ok(archive.into_inner()?)
}

/// The only layer: what is in the container's file system.
fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    append(&mut layer, "bin/busybox", EXECUTABLE, program)?;
    for applet in APPLETS {
        let mut header = header(EXECUTABLE, 0)?;
        header.set_entry_type(EntryType::Symlink);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    Ok(layer.into_inner()?)
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = header(mode, bytes.len())?;
    archive
        .append_data(&mut header, path, bytes)
        .with_context(|| format!("adding {path}"))
}

/// Of a file of root's, from 1970.
fn header(mode: u32, size: usize) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(u64::try_from(size)?);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    Ok(header)
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_what_is_in_the_archive() {
        let bytes = from_program(b"#!x").unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["manifest.json", "config.json", "layer.tar"]);
        assert_eq!(bytes, from_program(b"#!x").unwrap());
    }

    #[test]
    fn digests_are_sha256_in_hex() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(b""), empty);
    }
}
