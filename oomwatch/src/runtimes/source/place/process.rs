//! The cgroup of a process that a runtime names. Numbers are used again: only the start time makes it the same process.

use std::{fs, path::PathBuf, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::configured::is_plain;

const SECOND_NS: u64 = 1_000_000_000;

/// A process that a runtime names for a container that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Time of the boot clock, in ticks, at which the runtime was asked. Who started later only has the number now.
    asked_ticks: u64,
}

/// A moment on the boot clock, in nanoseconds. Start times are on that clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked(u64);

impl Asked {
    /// Now, which is before the request that is sent next.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
        Self(seconds * SECOND_NS + nanoseconds)
    }

    /// A moment before.
    pub(crate) fn earlier(self, age: Duration) -> Self {
        let nanoseconds = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanoseconds))
    }

    /// The process that the answer names. Process 0 is none.
    pub(crate) fn process(self, pid: u32) -> Option<Process> {
        let tick_ns = (SECOND_NS / rustix::param::clock_ticks_per_second()).max(1);
        let asked_ticks = self.0 / tick_ns;
        (pid != 0).then_some(Process { pid, asked_ticks })
    }
}

impl Process {
    /// The path of its cgroup on the v2 hierarchy. `None` if it is gone, or if another process has its number.
    ///
    /// The kernel gives start times in ticks of 10 ms. A process that started in the tick of the request may have started
    /// after it, so it proves nothing: a container's process is older than the news of it.
    pub(super) fn cgroup_path(&self) -> Option<String> {
        let before = self.stat()?;
        let text = fs::read_to_string(self.file("cgroup")).ok()?;
        let is_the_same = before.is_live() && before.started_ticks < self.asked_ticks;
        if !is_the_same || self.stat()? != before {
            return None;
        }
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        is_plain(path).then(|| path.to_owned())
    }

    fn stat(&self) -> Option<Stat> {
        let text = fs::read(self.file("stat")).ok()?;
        Stat::parse(&text)
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

/// What makes a process the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    is_dead: bool,
    started_ticks: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`. Its second field is a name in brackets, which may hold brackets and spaces.
    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let started_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self {
            is_dead: matches!(state, "Z" | "X" | "x"),
            started_ticks,
        })
    }

    fn is_live(self) -> bool {
        !self.is_dead
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stat(state: &str, comm: &str) -> Vec<u8> {
        format!("7 ({comm}) {state} 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 9 10\n")
            .into()
    }

    #[test]
    fn a_stat_has_the_state_and_the_start() {
        let live = Stat {
            is_dead: false,
            started_ticks: 12345,
        };
        assert_eq!(Stat::parse(&stat("S", "a) Z 9 (b")), Some(live));
        assert!(Stat::parse(&stat("Z", "sh")).unwrap().is_dead);
        assert_eq!(Stat::parse(b"7 (sh) S 1"), None);
    }

    #[test]
    fn a_process_that_started_later_only_has_the_number() {
        let pid = std::process::id();
        let earlier = Process {
            pid,
            asked_ticks: 0,
        };
        assert_eq!(earlier.cgroup_path(), None);
        assert_eq!(Asked::now().process(0), None);
    }

    #[test]
    fn a_process_that_lives_is_in_its_cgroup() {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        // Not in the tick of its start.
        std::thread::sleep(Duration::from_millis(20));
        let process = Asked::now().process(child.id()).unwrap();
        let path = process.cgroup_path();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(path.as_deref(), own.filter(|path| is_plain(path)));
    }

    #[test]
    fn a_process_that_ended_has_no_cgroup() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Asked::now().process(child.id()).unwrap();
        while process.stat().is_some_and(Stat::is_live) {
            std::thread::yield_now();
        }
        // Not waited for: a zombie keeps its number.
        assert_eq!(process.cgroup_path(), None);
        child.wait().unwrap();
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: Vec<u8>, comm in ".*") {
            let _ = Stat::parse(&text);
            prop_assert!(Stat::parse(&stat("R", &comm)).is_some());
        }
    }
}
