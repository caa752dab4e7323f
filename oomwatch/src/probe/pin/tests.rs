//! Reading a pin directory's names. Any file system will do for that.

use oomwatch_common::config::Config;

use super::*;
use crate::tier::Tier;

struct Fixture {
    temp: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { temp }
    }

    /// A generation with these names, complete if there is something about it.
    fn generation(&self, number: u64, names: &[&str], about: Option<&About>) {
        let path = self.temp.path().join(format!("{GENERATION}{number}"));
        fs::create_dir(&path).unwrap();
        for name in names {
            fs::write(path.join(name), "").unwrap();
        }
        if let Some(about) = about {
            symlink(about.to_string(), path.join(ABOUT)).unwrap();
        }
    }

    /// As a daemon has it, but for the check of the file system.
    fn dir(&self) -> PinDir {
        PinDir {
            path: self.temp.path().to_owned(),
            _lock: Lock::take(File::open(self.temp.path()).unwrap()).unwrap(),
        }
    }

    fn found(&self) -> (Option<u64>, Vec<u64>, u64) {
        let found = self.dir().find(&about(0)).unwrap();
        let older = found.older.iter().map(Generation::number).collect();
        (
            found.current.as_ref().map(Generation::number),
            older,
            found.next,
        )
    }
}

fn about(links: usize) -> About {
    let mut about = About::new(b"object", &Config::UNKNOWN, Tier::Btf, 4096, false);
    about.links = links;
    about
}

const NAMES: &[&str] = &[RECORDS, DROPS, "link_mark_victim"];

#[test]
fn an_empty_directory_is_started_in() {
    assert_eq!(Fixture::new().found(), (None, vec![], 1));
}

#[test]
fn the_newest_that_is_complete_is_gone_on_with() {
    let fixture = Fixture::new();
    fixture.generation(9, NAMES, Some(&about(1)));
    fixture.generation(10, NAMES, Some(&about(1)));
    fixture.generation(11, NAMES, None);
    assert_eq!(fixture.found(), (Some(10), vec![9, 11], 12));
}

#[test]
fn another_version_is_read_and_replaced() {
    let fixture = Fixture::new();
    let other = About::new(b"newer", &Config::UNKNOWN, Tier::Btf, 4096, false);
    fixture.generation(1, NAMES, Some(&other));
    assert_eq!(fixture.found(), (None, vec![1], 2));
}

#[test]
fn with_a_link_missing_it_is_deaf_and_replaced() {
    let fixture = Fixture::new();
    fixture.generation(1, NAMES, Some(&about(2)));
    assert_eq!(fixture.found(), (None, vec![1], 2));
}

#[test]
fn what_is_not_ours_is_named_and_left_alone() {
    for foreign in ["cilium", "oomwatch-x", "oomwatch-1/cilium", "oomwatch-7"] {
        let fixture = Fixture::new();
        fixture.generation(1, NAMES, Some(&about(1)));
        let path = fixture.temp.path().join(foreign);
        fs::write(&path, "").unwrap();
        match fixture.dir().find(&about(0)) {
            Err(PinError::Foreign { path: named }) => assert_eq!(named, path),
            other => panic!("{foreign}: {other:?}"),
        }
        for generation in fixture.dir().contents().unwrap().generations {
            assert_eq!(generation.remove().unwrap(), NAMES.len());
        }
        assert!(path.exists(), "{foreign}");
    }
}

#[test]
fn removing_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.generation(1, NAMES, Some(&about(1)));
    let contents = fixture.dir().contents().unwrap();
    for generation in &contents.generations {
        generation.remove().unwrap();
    }
    assert_eq!(fixture.found(), (None, vec![], 1));
}

#[test]
fn no_directory_is_made_where_nothing_can_be_pinned() {
    let fixture = Fixture::new();
    let path = fixture.temp.path().join("a").join("b");
    let error = PinDir::open(&path).unwrap_err();
    assert!(matches!(error, PinError::NotBpffs { .. }), "{error}");
    assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"));
    assert!(!fixture.temp.path().join("a").exists());
}
