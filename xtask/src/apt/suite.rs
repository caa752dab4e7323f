//! Packages of other Debian releases, through an apt set-up of our own beside the system's.
//!
//! The mirror is the one this machine uses already: its address is asked of apt at run time, so
//! no host name stands in the source. Nothing here changes the system's apt.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{paths, process};

/// Debian's own keys, where the system's trusted set may be empty (Debian 13 and later).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Which of Debian's archives a suite lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Archive {
    /// Releases and their backports.
    Main,
    /// Security updates.
    Security,
}

/// One suite of an archive, such as `trixie-backports` of the main one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    pub(crate) archive: Archive,
    pub(crate) name: &'static str,
}

/// The addresses this machine gets Debian from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    /// Not every machine has security updates switched on.
    security: Option<String>,
}

/// An apt set-up of its own in one directory.
pub(crate) struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Makes the set-up in `dir` and fetches the lists of `suites`.
    pub(crate) fn open(dir: &Path, suites: &[Suite]) -> Result<Self> {
        for child in ["lists/partial", "cache/archives/partial"] {
            paths::create_dir(&dir.join(child))?;
        }
        paths::write(&dir.join("sources.list"), &sources(suites)?)?;
        // Empty, so that the packages installed here are not taken for available ones.
        paths::write(&dir.join("status"), "")?;
        paths::write(&dir.join("apt.conf"), &configuration(dir))?;
        let apt = Self {
            dir: dir.to_path_buf(),
        };
        process::run(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// The names of all packages in the suites.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let names = process::capture(self.command("apt-cache").arg("pkgnames"))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads `package` into `into`, an empty directory, and returns the file.
    pub(crate) fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        let mut command = self.command("apt-get");
        command.args(["download", package]);
        process::run(command.current_dir(into))?;
        let entries = fs::read_dir(into).with_context(|| format!("listing {}", into.display()))?;
        for entry in entries {
            let path = entry
                .with_context(|| format!("listing {}", into.display()))?
                .path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                return Ok(path);
            }
        }
        bail!(
            "apt-get downloaded {package} but left no .deb in {}",
            into.display()
        )
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.dir.join("apt.conf"));
        command.arg("--quiet");
        command
    }
}

/// Lines of a `sources.list` for `suites`, from this machine's mirrors.
pub(crate) fn sources(suites: &[Suite]) -> Result<String> {
    let keyring = Path::new(KEYRING).exists();
    Ok(sources_list(&mirrors()?, suites, keyring))
}

/// Settings that keep apt in `dir`, and keep it to package lists.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "Dir::State::Lists \"{dir}/lists\";\n\
         Dir::State::Status \"{dir}/status\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         Dir::Etc::SourceList \"{dir}/sources.list\";\n\
         Dir::Etc::SourceParts \"{dir}/no-source-parts\";\n\
         # The unprivileged user of apt cannot reach a cache in root's home; signatures are\n\
         # checked all the same.\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
    )
}

/// Asks apt where this machine's own release comes from.
fn mirrors() -> Result<Mirrors> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let codename = codename(&release)
        .context("/etc/os-release has no VERSION_CODENAME, so apt's sources cannot be matched")?;
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--no-release-info", "--format"]);
    let targets = process::capture(command.arg("$(RELEASE) $(SITE)"))?;
    parse_mirrors(&targets, codename)
}

fn codename(os_release: &str) -> Option<&str> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim().trim_matches('"'))
}

/// Picks the mirrors out of lines of `RELEASE SITE`.
fn parse_mirrors(targets: &str, codename: &str) -> Result<Mirrors> {
    let site_of = |wanted: &str| {
        let mut lines = targets.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(release, _)| *release == wanted)
            .map(|(_, site)| site.trim().to_owned())
    };
    let main = site_of(codename).with_context(|| {
        format!(
            "apt has no source for {codename}, so there is no mirror to get Debian kernels from; \
             `cargo xtask vm --kernel PATH` boots a kernel of yours"
        )
    })?;
    ensure!(
        !main.is_empty(),
        "apt tells no address for its source of {codename}"
    );
    Ok(Mirrors {
        main,
        security: site_of(&format!("{codename}-security")),
    })
}

/// The content of `sources.list`. A suite of an archive that this machine has not is left out.
fn sources_list(mirrors: &Mirrors, suites: &[Suite], keyring: bool) -> String {
    let options = if keyring {
        format!("[arch=amd64 signed-by={KEYRING}]")
    } else {
        "[arch=amd64]".to_owned()
    };
    suites
        .iter()
        .filter_map(|suite| {
            let site = match suite.archive {
                Archive::Main => Some(&mirrors.main),
                Archive::Security => mirrors.security.as_ref(),
            }?;
            Some(format!("deb {options} {site} {} main\n", suite.name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "bookworm http://mirror.example/debian\n\
                           bookworm-updates http://mirror.example/debian\n\
                           bookworm-security http://mirror.example/debian-security\n\
                           nodistro https://other.example/node\n";

    #[test]
    fn mirrors_are_those_of_the_own_release() {
        let mirrors = parse_mirrors(TARGETS, "bookworm").unwrap();
        assert_eq!(mirrors.main, "http://mirror.example/debian");
        let security = mirrors.security.as_deref();
        assert_eq!(security, Some("http://mirror.example/debian-security"));
    }

    #[test]
    fn a_release_without_source_is_an_error_with_a_way_out() {
        let error = parse_mirrors(TARGETS, "noble").unwrap_err();
        assert!(error.to_string().contains("--kernel PATH"), "{error}");
    }

    #[test]
    fn sources_leave_out_an_archive_without_mirror() {
        let suites = [
            Suite {
                archive: Archive::Main,
                name: "trixie",
            },
            Suite {
                archive: Archive::Security,
                name: "trixie-security",
            },
        ];
        let mirrors = parse_mirrors("trixie http://m.example/debian\n", "trixie").unwrap();
        let list = sources_list(&mirrors, &suites, false);
        assert_eq!(
            list,
            "deb [arch=amd64] http://m.example/debian trixie main\n"
        );
    }

    #[test]
    fn codename_is_read_with_and_without_quotes() {
        assert_eq!(
            codename("ID=debian\nVERSION_CODENAME=bookworm\n"),
            Some("bookworm")
        );
        assert_eq!(codename("VERSION_CODENAME=\"noble\""), Some("noble"));
        assert_eq!(codename("ID=void\n"), None);
    }
}
