//! The kernels of the test matrix: which ones, from where, and the cache they are kept in.
//!
//! A kernel in the cache is used as it is; nothing is asked of the network then. `version` is
//! written last, so a download that was interrupted does not pass for a cached kernel.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    apt::suite::{Apt, Archive, Suite},
    paths, process,
};

/// How the package of a kernel is chosen among those that the suites offer.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// The first of these that is there.
    FirstOf(&'static [&'static str]),
    /// The highest version whose name starts like this and ends in `-cloud-amd64`.
    Newest(&'static str),
}

/// One kernel of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// The name on the command line and in reports.
    pub(crate) name: &'static str,
    suites: &'static [Suite],
    choice: Choice,
}

/// All kernels that oomwatch is tested on. Debian's *cloud* kernels are small and have BTF, the
/// memory controller and the ring buffer built in.
pub(crate) const ALL: &[Spec] = &[
    Spec {
        name: "5.10",
        suites: &[main_suite("bullseye")],
        // 5.10.218 and 5.10.226: the last before `mark_victim` carried more than a pid, which
        // came to 5.10 with 5.10.235.
        choice: Choice::FirstOf(&[
            "linux-image-5.10.0-30-cloud-amd64",
            "linux-image-5.10.0-32-cloud-amd64",
        ]),
    },
    Spec {
        name: "6.1",
        suites: &[
            main_suite("bookworm"),
            Suite {
                archive: Archive::Security,
                name: "bookworm-security",
            },
        ],
        choice: Choice::Newest("linux-image-6.1.0-"),
    },
    Spec {
        name: "6.12",
        suites: &[main_suite("trixie")],
        choice: Choice::Newest("linux-image-6.12."),
    },
    Spec {
        name: "7.3",
        suites: &[main_suite("trixie-backports")],
        choice: Choice::Newest("linux-binary-7.3."),
    },
];

const fn main_suite(name: &'static str) -> Suite {
    Suite {
        archive: Archive::Main,
        name,
    }
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The name in reports and of the artifacts' directory.
    pub(crate) name: String,
    /// The release, as `uname -r` tells it, where it is known.
    pub(crate) version: String,
    /// The bzImage.
    pub(crate) image: PathBuf,
}

impl Kernel {
    /// Where the package's modules are, of a kernel of the matrix.
    pub(crate) fn modules(&self) -> PathBuf {
        self.image.with_file_name("modules")
    }

    /// A kernel image of the user's own.
    pub(crate) fn from_path(image: &Path) -> Result<Self> {
        let image = image
            .canonicalize()
            .with_context(|| format!("looking for the kernel image {}", image.display()))?;
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: name.into_owned(),
            version: image.display().to_string(),
            image,
        })
    }
}

/// Returns the kernel from the cache, downloading it first when it is not there.
pub(crate) fn fetch(cache: &Path, spec: &Spec) -> Result<Kernel> {
    let dir = cache.join("kernels").join(spec.name);
    if let Some(version) = paths::read_if_present(&dir.join("version"))? {
        let kernel = kernel(spec, &dir, &version);
        eprintln!("kernel {}: {} in the cache", spec.name, kernel.version);
        return Ok(kernel);
    }
    download(spec, &dir).with_context(|| format!("getting the kernel {}", spec.name))
}

fn kernel(spec: &Spec, dir: &Path, version: &str) -> Kernel {
    Kernel {
        name: spec.name.to_owned(),
        version: version.trim().to_owned(),
        image: dir.join("vmlinuz"),
    }
}

fn download(spec: &Spec, dir: &Path) -> Result<Kernel> {
    eprintln!("kernel {}: downloading from Debian", spec.name);
    paths::fresh_dir(dir)?;
    // In the cache itself, so that the image can be moved and not copied.
    let scratch = tempfile::tempdir_in(dir).context("making a directory to unpack into")?;
    let apt = Apt::open(&scratch.path().join("apt"), spec.suites)?;
    let package = choose(spec.choice, &apt.names()?)
        .with_context(|| format!("no package fits {:?}", spec.choice))?;
    let deb = apt.download(&package, scratch.path())?;
    let tree = scratch.path().join("tree");
    process::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree))?;

    let version = version_of(&package);
    rename(&find_image(&tree, version)?, &dir.join("vmlinuz"))?;
    // Kept for tests that need drivers; packages of newer kernels have them elsewhere.
    for modules in ["lib/modules", "usr/lib/modules"] {
        let modules = tree.join(modules).join(version);
        if modules.is_dir() {
            rename(&modules, &dir.join("modules"))?;
        }
    }
    paths::write(&dir.join("version"), &format!("{version}\n"))?;
    eprintln!("kernel {}: {version} is now in the cache", spec.name);
    Ok(kernel(spec, dir, version))
}

fn find_image(tree: &Path, version: &str) -> Result<PathBuf> {
    let places = [
        tree.join("boot").join(format!("vmlinuz-{version}")),
        tree.join("usr/lib/modules").join(version).join("vmlinuz"),
    ];
    let found = places.into_iter().find(|place| place.is_file());
    found.with_context(|| format!("the package of {version} has no vmlinuz where one is expected"))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("moving {} to {}", from.display(), to.display()))
}

/// `linux-image-6.1.0-37-cloud-amd64` holds the release `6.1.0-37-cloud-amd64`.
fn version_of(package: &str) -> &str {
    ["linux-image-", "linux-binary-"]
        .iter()
        .find_map(|prefix| package.strip_prefix(prefix))
        .unwrap_or(package)
}

fn choose(choice: Choice, names: &[String]) -> Option<String> {
    match choice {
        Choice::FirstOf(wanted) => {
            let found = wanted
                .iter()
                .find(|wanted| names.iter().any(|name| name == *wanted));
            found.map(|name| (*name).to_owned())
        }
        Choice::Newest(prefix) => names
            .iter()
            // Builds of a newer kernel for an older release are not what that release runs.
            .filter(|name| name.starts_with(prefix) && !name.contains("deb11"))
            .filter(|name| name.ends_with("-cloud-amd64"))
            .max_by(|left, right| compare_versions(left, right))
            .cloned(),
    }
}

/// Compares by the numbers in the names, left to right: good enough within one kernel series.
fn compare_versions(left: &str, right: &str) -> Ordering {
    fn numbers(name: &str) -> impl Iterator<Item = u64> {
        name.split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
    }
    numbers(left).cmp(numbers(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        let names = [
            "linux-image-5.10.0-32-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-0.deb11.99-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.99+deb13-cloud-amd64",
        ];
        names.map(str::to_owned).to_vec()
    }

    #[test]
    fn newest_is_by_number_and_without_debug_or_unsigned() {
        let newest = |prefix| choose(Choice::Newest(prefix), &names()).unwrap();
        assert_eq!(
            newest("linux-image-6.1.0-"),
            "linux-image-6.1.0-56-cloud-amd64"
        );
        let trixie = "linux-image-6.12.107+deb13-cloud-amd64";
        assert_eq!(newest("linux-image-6.12."), trixie);
        assert_eq!(choose(Choice::Newest("linux-binary-7.3."), &names()), None);
    }

    #[test]
    fn fixed_choice_falls_back_in_order() {
        let spec = ALL.iter().find(|spec| spec.name == "5.10").unwrap();
        let chosen = choose(spec.choice, &names()).unwrap();
        assert_eq!(version_of(&chosen), "5.10.0-32-cloud-amd64");
    }
}
