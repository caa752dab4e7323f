//! The probe: eBPF programs in the kernel, and the ring buffer for their records.
//!
//! [`Probe::start`] returns only after every program is loaded and attached. From then on the ring wakes its reader;
//! nothing polls. This module knows aya, BTF and the wire format, and nothing of containers or events.
//!
//! Minimum kernel: 5.8 (BPF ring buffer) with BTF.

#[cfg(feature = "bench")]
pub(crate) mod bench;
mod btf;
mod decode;
pub(crate) mod layout;
mod load;
mod older;
pub(crate) mod pin;
pub(crate) mod privilege;
mod ring;

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
use tracing::debug;

pub(crate) use self::{
    decode::DecodeError,
    layout::{Gap, Layout},
    load::ProgramLog,
    pin::PinDir,
    ring::Position,
};
use self::{
    older::Older,
    pin::{Generation, PinError},
    ring::Ring,
};
use crate::{
    probe::privilege::may_load_programs,
    record::Record,
    tier::{Tier, TierChoice},
};

/// Where the kernel describes its own types.
pub(crate) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Size of the ring for unread records, in bytes. It holds 400 victims at once. The ring and its mapping count as
/// memory of this process.
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
        /// The defect.
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
        /// The reason.
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
        /// The kernel's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The programs were to be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl ProbeError {
    /// Whether this host itself stops the probe, so that a lesser tier is its best. A mistake of the user, a build
    /// without a probe, or missing privilege is no such reason: the error reports each of them.
    pub(crate) fn calls_for_lesser_tier(&self) -> bool {
        match self {
            Self::Privilege(_) => may_load_programs(),
            Self::NoObject | Self::RingSize(_) | Self::Tier { .. } | Self::Pin(_) => false,
            _ => true,
        }
    }

    /// The error with its causes, on one line. A verifier's log has many.
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

/// Settings of the probe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeConfig {
    pub(crate) ring_bytes: u32,
    pub(crate) tier: TierChoice,
    /// Lets the programs log (`RUST_LOG=oomwatch_ebpf=debug`).
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
    /// Whether `struct oom_control` is seen. It has the limit that was hit.
    sees_oom_control: bool,
    ring: AsyncFd<Ring>,
    drops: PerCpuArray<MapData, u64>,
    /// Drops from before this daemon began.
    drops_before: Drops,
    log: Option<ProgramLog>,
    attached: Attached,
    /// Older generations of pinned programs, which still see what the newest one sees. They are read at the start,
    /// and removed once their records are handed over.
    older: Vec<Older>,
    generation: u64,
    /// A generation that this start made. A failing start removes it.
    fresh: Option<Generation>,
    /// The first records are from before this daemon began.
    goes_on: bool,
    is_pinned: bool,
    /// Holds the directory's lock.
    pin: Option<PinDir>,
    page_bytes: u64,
}

/// Holds programs attached, and in the kernel. Empty where they are pinned. Dropping it detaches them, and the kernel
/// may take a while for that.
#[derive(Default)]
pub(crate) struct Attached {
    _links: Vec<FdLink>,
    _programs: Option<aya::Ebpf>,
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
        // Cleared before the drain: a record that arrives during it wakes again.
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// The start succeeded: its pinned programs stay.
    pub(crate) fn keep(&mut self) {
        self.fresh = None;
    }

    /// Takes out the links that hold the programs attached. Records that they have sent stay in the ring.
    pub(crate) fn detach(&mut self) -> Attached {
        std::mem::take(&mut self.attached)
    }

    /// Reads at most `limit` records of the ring. Returns whether more may be left. Records of a pinned ring stay
    /// there until [`Self::handed_over`].
    pub(crate) fn drain(
        &mut self,
        limit: usize,
        mut take: impl FnMut(Result<Record, DecodeError>),
    ) -> bool {
        let ring = self.ring.get_mut();
        let (generation, page_bytes) = (self.generation, self.page_bytes);
        let mut more = true;
        for _ in 0..limit {
            let Some(bytes) = ring.next() else {
                more = false;
                break;
            };
            take(decode(bytes, generation, page_bytes));
        }
        if !self.is_pinned {
            ring.consume(ring.position());
            more |= ring.has_next();
        }
        more
    }

    /// Reads the records from before this daemon began that were not handed over. From the older generations it reads
    /// all. From the newest ring it reads records that were taken and are not `stored`. Later ones are left to
    /// [`Self::drain`].
    pub(crate) fn read_backlog(
        &mut self,
        stored: &[Position],
        mut take: impl FnMut(Result<Record, DecodeError>),
    ) {
        let page_bytes = self.page_bytes;
        for older in &mut self.older {
            older.read(stored, page_bytes, &mut take);
        }
        let generation = self.generation;
        let ring = self.ring.get_mut();
        ring.resume(stored, |bytes| take(decode(bytes, generation, page_bytes)));
    }

    /// How far all rings are read. Empty unless the rings are pinned.
    pub(crate) fn positions(&self) -> Vec<Position> {
        if !self.is_pinned {
            return Vec::new();
        }
        let older = self.older.iter().filter_map(Older::position);
        older.chain([self.ring.get_ref().position()]).collect()
    }

    /// The records up to these positions are handed over. The kernel gets their room, and an older generation is
    /// removed with its last record.
    pub(crate) fn handed_over(&mut self, positions: &[Position]) {
        for position in positions {
            self.ring.get_ref().consume(*position);
        }
        for older in self.older.extract_if(.., |older| older.is_among(positions)) {
            older.retire();
        }
    }

    /// If read records keep half of the ring from the kernel, gives the kernel their room. Records that are not
    /// handed over stay in memory until the kernel overwrites them.
    pub(crate) fn relieve(&self) {
        let ring = self.ring.get_ref();
        if ring.is_pressed() {
            ring.consume(ring.position());
        }
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

    /// Victims without room in the pinned ring, from when the ring was made until this daemon began.
    pub(crate) fn lost_before(&self) -> u64 {
        self.drops_before.victims
    }

    /// Takes the programs' log. The caller forwards it beside the probe.
    pub(crate) fn take_log(&mut self) -> Option<ProgramLog> {
        self.log.take()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(fresh) = self.fresh.take()
            && let Err(error) = fresh.remove()
        {
            debug!(%error, "what a failed start pinned stays");
        }
    }
}

fn decode(bytes: &[u8], generation: u64, page_bytes: u64) -> Result<Record, DecodeError> {
    let mut record = decode::decode(bytes, page_bytes)?;
    record.set_generation(generation);
    Ok(record)
}

/// Reads the running kernel's BTF. Frees the image before it returns.
pub(crate) fn read_layout() -> Result<Layout, ProbeError> {
    let no_btf = |source| ProbeError::NoBtf {
        path: KERNEL_BTF.into(),
        source,
    };
    let file = File::open(KERNEL_BTF).map_err(no_btf)?;
    // A private mapping, or the kernel refuses. SAFETY: the kernel never changes or truncates its own BTF.
    let resolved = match unsafe { MmapOptions::new().map_copy_read_only(&file) } {
        Ok(image) => layout::resolve(&image),
        // Before v6.16 the kernel has no mapping of it: it can only be read, a page at a time.
        Err(_) => layout::resolve(&std::fs::read(KERNEL_BTF).map_err(no_btf)?),
    };
    resolved.map_err(|error| ProbeError::BadBtf {
        reason: error.to_string(),
    })
}
