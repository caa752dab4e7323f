//! The kernel's own log of whom it killed, from `/dev/kmsg`.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{Context, Result};

/// The kernel hands out one record per read, and no record is longer.
const LONGEST_RECORD: usize = 8192;

/// `Killed process 123 (name)`: the process, and the name as the log escapes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedKill {
    /// The id the kernel logged, which is that of the victim's thread.
    pub pid: u32,
    /// The name between parentheses.
    pub comm: String,
    /// The path of its memory cgroup, from the line before, of which the kernel writes no more
    /// than ten in five seconds.
    pub cgroup: Option<String>,
}

/// Reads what the kernel logs from now on.
#[derive(Debug)]
pub struct KernelLog {
    file: File,
    overwritten: u64,
    /// The last victim whose cgroup was told, and which. The kill itself is logged next.
    place: Option<(u32, String)>,
}

impl KernelLog {
    /// Starts after the newest record.
    pub fn from_now() -> Result<Self> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open("/dev/kmsg")
            .context("opening /dev/kmsg")?;
        file.seek(SeekFrom::End(0))
            .context("skipping old records of /dev/kmsg")?;
        Ok(Self {
            file,
            overwritten: 0,
            place: None,
        })
    }

    /// How often records were overwritten before they could be read.
    #[must_use]
    pub fn overwritten(&self) -> u64 {
        self.overwritten
    }

    /// The kills logged since the last call.
    pub fn kills(&mut self) -> Result<Vec<LoggedKill>> {
        let mut kills = Vec::new();
        let mut record = vec![0_u8; LONGEST_RECORD];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return Ok(kills),
                Ok(length) => {
                    let text = String::from_utf8_lossy(record.get(..length).unwrap_or(&[]));
                    if let Some(place) = parse_place(&text) {
                        self.place = Some(place);
                    }
                    if let Some(mut kill) = parse_kill(&text) {
                        let mine = self.place.take_if(|(pid, _)| *pid == kill.pid);
                        kill.cgroup = mine.map(|(_, cgroup)| cgroup);
                        kills.push(kill);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(kills),
                // The ring went round; the next read gives the oldest record there is.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.overwritten += 1,
                Err(error) => return Err(error).context("reading /dev/kmsg"),
            }
        }
    }
}

fn parse_kill(record: &str) -> Option<LoggedKill> {
    let (_, rest) = record.split_once("Killed process ")?;
    let (pid, rest) = rest.split_once(" (")?;
    let (comm, _) = rest
        .split_once(") total-vm:")
        .or_else(|| rest.split_once(')'))?;
    Some(LoggedKill {
        pid: pid.parse().ok()?,
        comm: comm.to_owned(),
        cgroup: None,
    })
}

/// `oom-kill:…,task_memcg=/a/b,task=name,pid=123,uid=0`: the victim and its cgroup.
fn parse_place(record: &str) -> Option<(u32, String)> {
    let (_, rest) = record.split_once("oom-kill:constraint=")?;
    let (_, rest) = rest.split_once(",task_memcg=")?;
    // Names may hold anything, so the last of each is taken.
    let (rest, last) = rest.rsplit_once(",pid=")?;
    let (pid, _) = last.split_once(",uid=")?;
    let (cgroup, _) = rest.split_once(",task=")?;
    Some((pid.parse().ok()?, cgroup.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_found_in_a_record() {
        let record = "3,711,5221,-;Memory cgroup out of memory: Killed process 87 (a (b)) \
                      total-vm:20kB, anon-rss:16kB";
        let kill = parse_kill(record).unwrap();
        assert_eq!((kill.pid, kill.comm.as_str()), (87, "a (b)"));
    }

    #[test]
    fn a_victims_cgroup_is_found_in_the_record_before() {
        let record = "6,709,5221,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,\
                      mems_allowed=0,oom_memcg=/pod,task_memcg=/pod/a,task=x,pid=1,pid=87,uid=0";
        assert_eq!(parse_place(record), Some((87, "/pod/a".to_owned())));
        assert_eq!(parse_place("6,1,0,-;Linux version 6.1"), None);
    }

    #[test]
    fn other_records_are_no_kills() {
        assert_eq!(parse_kill("6,1,0,-;Linux version 6.1"), None);
    }
}
