//! Root images for machines with container runtimes: a small Debian in a file, from packages.
//!
//! An image in the cache is used as it is while its recipe stays the same; nothing is asked of the
//! network then. It is built beside its place and moved there when whole, and a machine writes to a
//! snapshot of it, so that every run begins with the same file system.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    apt::suite::{self, Archive, Suite},
    paths, privilege, process,
};

/// Sparse, and so as large on this machine's disk as what is in it.
const IMAGE_BYTES: u64 = 2 << 30;

/// What every image has. busybox is for people who look into a machine.
const COMMON: &[&str] = &["systemd", "systemd-sysv", "dbus", "busybox-static"];

/// Nobody reads these in a test machine.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// The name of the image, and of the Debian release in it.
    pub(crate) name: &'static str,
    packages: &'static [&'static str],
    /// Whether package lists may be out of date. A release never is; of `sid`, a mirror that
    /// stands still would be refused after ten days. Signatures are checked all the same.
    any_age: bool,
}

/// All images that there are tests for.
pub(crate) const ALL: &[Recipe] = &[
    Recipe {
        name: "bookworm",
        packages: &[
            "conmon",
            "containerd",
            "crun",
            "docker.io",
            "podman",
            "runc",
        ],
        any_age: false,
    },
    Recipe {
        name: "sid",
        packages: &["containerd", "runc"],
        any_age: true,
    },
];

impl Recipe {
    /// The name of the machine that runs this image.
    pub(crate) fn machine(&self) -> String {
        format!("runtimes-{}", self.name)
    }

    /// All that the image depends on, as text: a changed one asks for a new image.
    fn text(&self) -> String {
        let packages = self.include().join(" ");
        let left_out = LEFT_OUT.join(" ");
        format!("packages {packages}\nwithout {left_out}\nbytes {IMAGE_BYTES}\n")
    }

    fn include(&self) -> Vec<&'static str> {
        COMMON.iter().chain(self.packages).copied().collect()
    }
}

/// Returns the image from the cache, building it first when it is not there.
pub(crate) fn fetch(cache: &Path, recipe: &Recipe) -> Result<PathBuf> {
    let name = recipe.name;
    let images = cache.join("images");
    let dir = images.join(name);
    let image = dir.join("root.img");
    if paths::read_if_present(&dir.join("recipe"))?.as_deref() == Some(recipe.text().as_str()) {
        eprintln!("image {name}: in the cache");
        return Ok(image);
    }
    eprintln!("image {name}: building it from Debian packages");
    paths::create_dir(&images)?;
    build(&images, recipe, &dir).with_context(|| format!("building the image {name}"))?;
    eprintln!("image {name}: now in the cache");
    Ok(image)
}

fn build(images: &Path, recipe: &Recipe, dir: &Path) -> Result<()> {
    let scratch = tempfile::tempdir_in(images).context("making a directory to build in")?;
    let tree = scratch.path().join("tree");
    let made = bootstrap(recipe, &tree).and_then(|()| pack(scratch.path(), &tree));
    // Its files belong to root, and so does the removal.
    process::run(as_root("rm")?.arg("-rf").arg(&tree))?;
    made?;
    paths::write(&scratch.path().join("recipe"), &recipe.text())?;
    // The old one is dropped whole: a directory is never half of each.
    paths::fresh_dir(dir)?;
    let finished = scratch.keep();
    fs::rename(&finished, dir)
        .with_context(|| format!("moving {} to {}", finished.display(), dir.display()))
}

/// Installs Debian into the directory `tree`.
fn bootstrap(recipe: &Recipe, tree: &Path) -> Result<()> {
    let release = Suite {
        archive: Archive::Main,
        name: recipe.name,
    };
    let mut mmdebstrap = as_root("mmdebstrap")?;
    mmdebstrap
        .args(["--mode=root", "--variant=minbase", "--architectures=amd64"])
        .arg("--aptopt=Acquire::Languages \"none\"")
        .args(LEFT_OUT.iter().map(|path| path_exclude(path)))
        .arg(format!("--include={}", recipe.include().join(",")));
    if recipe.any_age {
        mmdebstrap.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    }
    mmdebstrap.arg(recipe.name).arg(tree);
    mmdebstrap.args(suite::sources(&[release])?.lines());
    process::run(mmdebstrap.stdin(Stdio::null()))
}

fn path_exclude(path: &str) -> String {
    format!("--dpkgopt=path-exclude={path}")
}

/// Makes `root.img` out of the directory `tree`, and removes that.
fn pack(scratch: &Path, tree: &Path) -> Result<()> {
    let image = scratch.join("root.img");
    let file = File::create(&image).with_context(|| format!("creating {}", image.display()))?;
    file.set_len(IMAGE_BYTES)
        .with_context(|| format!("giving {} its size", image.display()))?;
    // Written to a snapshot that is thrown away, a journal is of no use.
    let mut mke2fs = as_root("mke2fs")?;
    mke2fs.args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]);
    process::run(mke2fs.arg(tree).arg(&image))
}

/// Packages install as root, with files of root's.
fn as_root(program: &str) -> Result<Command> {
    // Where a user's PATH may not lead.
    let program = which::which(program)
        .or_else(|_| which::which_in(program, Some("/usr/sbin:/sbin"), "/"))
        .with_context(|| format!("looking for {program}"))?;
    privilege::as_root(program, "building an image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_package_is_another_recipe() {
        let sid = ALL.iter().find(|recipe| recipe.name == "sid").unwrap();
        let more = Recipe {
            packages: &["containerd", "crun", "runc"],
            ..*sid
        };
        assert_ne!(sid.text(), more.text());
        assert!(sid.text().contains("systemd systemd-sysv dbus"));
    }

    #[test]
    fn an_image_in_the_cache_is_taken_as_it_is() {
        let cache = tempfile::tempdir().unwrap();
        let recipe = ALL.first().unwrap();
        let dir = cache.path().join("images").join(recipe.name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("recipe"), recipe.text()).unwrap();
        assert_eq!(fetch(cache.path(), recipe).unwrap(), dir.join("root.img"));
    }
}
