//! The probe: eBPF programs in the kernel, and the ring buffer that their records come
//! through.
//!
//! [`Probe::start`] returns only after every program is loaded and attached. From then on
//! the ring wakes its reader; nothing polls. This module knows aya, BTF and the wire
//! format, and nothing of containers or events.
//!
//! Minimum kernel: 5.8 (BPF ring buffer) with BTF.

#[cfg(feature = "bench")]
pub(crate) mod bench;
mod btf;
mod layout;
mod load;
pub(crate) mod pin;
mod record;
mod ring;
pub(crate) mod tier;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapData, PerCpuArray},
    programs::links::FdLink,
};
use memmap2::MmapOptions;
use oomwatch_common::record::{DROP_CGROUP, DROP_VICTIM};
use tokio::io::unix::AsyncFd;

pub(crate) use self::{
    layout::{Gap, Layout},
    load::ProgramLog,
    pin::PinDir,
    record::DecodeError,
    ring::Position,
};
use self::{
    pin::{Overlap, PinError},
    ring::Ring,
    tier::{Tier, TierChoice},
};
use crate::{host::may_load_programs, record::Record};

/// Where the kernel describes its own types.
pub(crate) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Size of the ring that holds records not read yet, in bytes. Enough for 400 victims at
/// once; both the ring and its mapping count as memory of this process.
pub const DEFAULT_RING_BYTES: u32 = 256 * 1024;

/// Why the probe did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The process may not use BPF.
    #[error(
        "no privilege to load eBPF programs: run as root, or give CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH (kernel.unprivileged_bpf_disabled and lockdown also forbid it)"
    )]
    Privilege(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel describes no types.
    #[error(
        "cannot read the kernel's type information at {}: the kernel needs CONFIG_DEBUG_INFO_BTF=y",
        path.display()
    )]
    NoBtf {
        /// The file that was tried.
        path: PathBuf,
        /// Why it could not be read.
        #[source]
        source: io::Error,
    },
    /// The kernel's type information cannot be used.
    #[error("the kernel's type information at {KERNEL_BTF} is unusable: {reason}")]
    BadBtf {
        /// What is wrong with it.
        reason: String,
    },
    /// This binary was built without its kernel side.
    #[error("this build of oomwatch has no eBPF object in it: build it with `cargo xtask build`")]
    NoObject,
    /// The ring's size is no power of two of pages.
    #[error("a ring of {0} bytes is not possible: use a power of two, at least one page")]
    RingSize(u32),
    /// The tier that was asked for is not possible here.
    #[error("tier {tier} is not possible on this host: {reason}")]
    Tier {
        /// The tier.
        tier: Tier,
        /// Why not.
        reason: &'static str,
    },
    /// The kernel refused the programs or their maps.
    #[error("cannot load the eBPF programs")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A program that cannot be done without was refused.
    #[error("cannot attach the eBPF program {program}")]
    Attach {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The programs were to be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl ProbeError {
    /// Whether what stopped the probe is this host's doing, so that a lesser tier is the best it
    /// has; and not a mistake of the user's, a build without a probe, or missing privilege, each of
    /// which somebody should hear of.
    pub(crate) fn calls_for_lesser_tier(&self) -> bool {
        match self {
            Self::Privilege(_) => may_load_programs(),
            Self::NoObject | Self::RingSize(_) | Self::Tier { .. } | Self::Pin(_) => false,
            _ => true,
        }
    }

    /// The error with its causes, on one line: a verifier's log has many.
    pub(crate) fn with_causes(&self) -> String {
        use std::error::Error as _;
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(error.to_string().lines().next().unwrap_or_default());
            cause = error.source();
        }
        text
    }
}

/// What the probe is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeConfig {
    pub(crate) ring_bytes: u32,
    pub(crate) tier: TierChoice,
    /// Let the programs log what they do (`RUST_LOG=oomwatch::ebpf=debug`).
    pub(crate) log: bool,
}

/// Records that found no room in the ring, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops {
    pub(crate) victims: u64,
    pub(crate) cgroups: u64,
}

/// The programs, attached, and their ring. Dropping it detaches.
pub(crate) struct Probe {
    tier: Tier,
    gaps: Vec<Gap>,
    /// Whether `struct oom_control` is seen: which limit was hit, and by what.
    sees_oom_control: bool,
    ring: AsyncFd<Ring>,
    drops: PerCpuArray<MapData, u64>,
    /// What was lost before this daemon began.
    drops_before: Drops,
    log: Option<ProgramLog>,
    /// Hold the programs attached, and in the kernel; nothing does where they are pinned.
    _links: Vec<FdLink>,
    _programs: Option<aya::Ebpf>,
    /// Rings of older generations of pinned programs, and their numbers: to be read first.
    older: Vec<(Ring, u64)>,
    generation: u64,
    overlap: Overlap,
    /// What is read first is from before this daemon began.
    goes_on: bool,
    is_pinned: bool,
    /// Holds its lock.
    pin: Option<PinDir>,
    page_bytes: u64,
}

impl Probe {
    /// Loads and attaches. Needs a tokio runtime with I/O enabled.
    pub(crate) fn start(config: &ProbeConfig, pin: Option<PinDir>) -> Result<Self, ProbeError> {
        load::start(config, pin)
    }

    /// Whether the ring may have records from before this daemon began.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Where the programs and their ring stay when this is dropped.
    pub(crate) fn pinned_at(&self) -> Option<&Path> {
        self.pin.as_ref().map(PinDir::path)
    }

    pub(crate) fn tier(&self) -> Tier {
        self.tier
    }

    pub(crate) fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    pub(crate) fn sees_oom_control(&self) -> bool {
        self.sees_oom_control
    }

    /// Waits until the ring has something to read.
    pub(crate) async fn readable(&mut self) -> io::Result<()> {
        // Cleared before the drain: what arrives during it wakes again.
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Takes what is in the ring, at most `limit` records; tells whether more may be left.
    pub(crate) fn drain(
        &mut self,
        limit: usize,
        mut take: impl FnMut(Result<Record, DecodeError>),
    ) -> bool {
        let mut left = limit;
        while let Some((ring, generation)) = self.older.first_mut() {
            let overlap = &mut self.overlap;
            let more = read(ring, *generation, self.page_bytes, &mut left, |record| {
                if !matches!(&record, Ok(Record::Victim(victim)) if overlap.is_repeated(victim)) {
                    take(record);
                }
            });
            if more {
                return true;
            }
            self.older.remove(0);
        }
        let overlap = &mut self.overlap;
        let ring = self.ring.get_mut();
        read(
            ring,
            self.generation,
            self.page_bytes,
            &mut left,
            |record| {
                if !matches!(&record, Ok(Record::Victim(victim)) if overlap.told(victim)) {
                    take(record);
                }
            },
        )
    }

    /// How far the ring is read; only where it goes on without a daemon.
    pub(crate) fn position(&self) -> Option<Position> {
        self.is_pinned.then(|| self.ring.get_ref().position())
    }

    /// Takes again what another daemon took after this position, if its ring is among those that this
    /// one goes on with, and still has it. Before anything else is taken.
    pub(crate) fn take_again(
        &mut self,
        since: Position,
        mut take: impl FnMut(Result<Record, DecodeError>),
    ) -> io::Result<()> {
        for (ring, generation) in &self.older {
            let Some(taken) = ring.taken_since(since)? else {
                continue;
            };
            for bytes in ring::records(&taken) {
                let record = decode(bytes, *generation, self.page_bytes);
                if let Ok(Record::Victim(victim)) = &record {
                    // So that the newest programs do not tell of it once more.
                    self.overlap.is_repeated(victim);
                }
                take(record);
            }
        }
        let newest = self.ring.get_ref().taken_since(since)?;
        for bytes in ring::records(&newest.unwrap_or_default()) {
            take(decode(bytes, self.generation, self.page_bytes));
        }
        Ok(())
    }

    /// Reads how many records found no room.
    pub(crate) fn drops(&self) -> io::Result<Drops> {
        let total = |kind| -> io::Result<u64> {
            let per_cpu = self.drops.get(&kind, 0).map_err(io::Error::other)?;
            Ok(per_cpu.iter().sum())
        };
        let before = self.drops_before;
        Ok(Drops {
            victims: total(DROP_VICTIM)?.saturating_sub(before.victims),
            cgroups: total(DROP_CGROUP)?.saturating_sub(before.cgroups),
        })
    }

    /// Takes the programs' log, to be forwarded beside the probe.
    pub(crate) fn take_log(&mut self) -> Option<ProgramLog> {
        self.log.take()
    }
}

/// Takes records from one ring until none or nothing of `left` is left; tells whether it was the
/// latter.
fn read(
    ring: &mut Ring,
    generation: u64,
    page_bytes: u64,
    left: &mut usize,
    mut take: impl FnMut(Result<Record, DecodeError>),
) -> bool {
    while *left > 0 {
        match ring.next() {
            Some(bytes) => take(decode(&bytes, generation, page_bytes)),
            None => return false,
        }
        *left -= 1;
    }
    true
}

fn decode(bytes: &[u8], generation: u64, page_bytes: u64) -> Result<Record, DecodeError> {
    let mut record = record::decode(bytes, page_bytes)?;
    record.set_generation(generation);
    Ok(record)
}

/// Reads the running kernel's BTF. The image is given back before this returns.
pub(crate) fn read_layout() -> Result<Layout, ProbeError> {
    let no_btf = |source| ProbeError::NoBtf {
        path: KERNEL_BTF.into(),
        source,
    };
    let file = File::open(KERNEL_BTF).map_err(no_btf)?;
    // Private, or the kernel refuses. SAFETY: it never changes or truncates its own BTF.
    let resolved = match unsafe { MmapOptions::new().map_copy_read_only(&file) } {
        Ok(image) => layout::resolve(&image),
        // Before v6.16 it can only be read, a page at a time.
        Err(_) => layout::resolve(&std::fs::read(KERNEL_BTF).map_err(no_btf)?),
    };
    resolved.map_err(|error| ProbeError::BadBtf {
        reason: error.to_string(),
    })
}
