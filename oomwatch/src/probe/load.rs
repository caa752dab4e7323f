//! Getting the programs into the kernel and attached, in the order that loses nothing.

#[cfg(feature = "probe-log")]
mod log;
#[cfg(not(feature = "probe-log"))]
#[path = "load/no_log.rs"]
mod log;
mod pid;
mod pinned;

use std::{
    collections::HashMap,
    io,
    os::fd::AsRawFd,
    thread::{self, JoinHandle},
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::PerCpuArray,
    programs::{FEntry, FExit, Program, ProgramError, ProgramInfo, RawTracePoint, links::FdLink},
};
use aya_obj::btf::{BtfType, Func, FuncLinkage, Ptr};
use oomwatch_common::config::{CONFIG_SYMBOL, Config, WAKE_ALWAYS, WAKE_WHERE_READ};
use rustix::{
    process::chroot,
    thread::{UnshareFlags, unshare_unsafe},
};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::debug;
use zerocopy::IntoBytes;

pub(crate) use self::log::ProgramLog;
use super::{
    Attached, Drops, Gap, Layout, Probe, ProbeConfig, ProbeError, layout,
    older::Older,
    pin::{About, Opened, PinDir},
    ring::Ring,
};
use crate::{
    log::warn,
    tier::{Tier, TierChoice},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/oomwatch-ebpf.o"));

const LOG_LEVEL_OFF: u8 = 0;
const LOG_LEVEL_ALL: u8 = 0xff;
/// Size of the log's ring in bytes when nobody reads it: the smallest possible one.
const IDLE_LOG_BYTES: u32 = 4096;
const LOG_BYTES: u32 = 128 * 1024;
const OUT_OF_MEMORY: &str = "out_of_memory";
const MARK_VICTIM: &str = "mark_victim";

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Loads and attaches everything that this kernel allows, or continues with the pinned programs.
pub(super) fn start(config: &ProbeConfig, pin: Option<PinDir>) -> Result<Probe, ProbeError> {
    if OBJECT.is_empty() {
        return Err(ProbeError::NoObject);
    }
    let page_bytes = rustix::param::page_size() as u64;
    if !config.ring_bytes.is_power_of_two() || u64::from(config.ring_bytes) < page_bytes {
        return Err(ProbeError::RingSize(config.ring_bytes));
    }
    if config.tier == TierChoice::Only(Tier::Pid) {
        pinned::warn_unpinned(pin.as_ref());
        return pid::start(config);
    }
    match pinned::start_or_without(config, pin.as_ref()) {
        Ok(mut probe) => {
            if probe.is_pinned {
                probe.pin = pin;
            }
            Ok(probe)
        }
        Err(error) if config.tier.allows(Tier::Pid) && error.calls_for_lesser_tier() => {
            warn!(error = %error.with_causes(), "falling back to tier pid");
            pinned::warn_unpinned(pin.as_ref());
            pid::start(config).map_err(|fallback| {
                warn!(error = %fallback.with_causes(), "tier pid is not possible either");
                error
            })
        }
        Err(error) => Err(error),
    }
}

/// The best that the kernel's types allow.
fn start_with_btf(config: &ProbeConfig, pin: Option<&PinDir>) -> Result<Probe, ProbeError> {
    let loader = thread::spawn(loader);
    let mut layout = super::read_layout()?;
    layout.config.submit_flags = match pin {
        Some(_) => WAKE_ALWAYS,
        None => WAKE_WHERE_READ,
    };
    let tier = layout::tier_of(&layout.config).ok_or_else(|| ProbeError::BadBtf {
        reason: describe_gaps(&layout),
    })?;
    if !config.tier.allows(tier) {
        return Err(refused(config.tier, tier));
    }
    debug!(%tier, gaps = layout.gaps.len(), "kernel types resolved");
    let about = About::new(OBJECT, &layout.config, tier, config.ring_bytes, config.log);
    let found = pin.map(|pin| pin.find(&about)).transpose()?;
    let found = match found {
        Some(mut found) => match found.current.take() {
            Some(current) => {
                let opened = current.open()?;
                let started = Started {
                    tier,
                    gaps: layout.gaps,
                    sees_oom_control: current.sees_oom_control(),
                    links: Vec::new(),
                };
                return pinned::go_on(opened, started, found, current.number());
            }
            None => Some(found),
        },
        None => None,
    };
    let hooked_id = layout.out_of_memory_id;
    let function = thread::spawn(move || function_btf(hooked_id?));
    let loader = loader.join().unwrap_or_default();
    let mut programs = load_object(loader, &layout.config, config)?;
    debug!("maps created");
    let mut started = load_and_attach(&mut programs, tier, function, config)?;
    started.gaps = layout.gaps;
    let Some((pin, found)) = pin.zip(found) else {
        return finish(programs, started, config);
    };
    let mut about = about;
    about.sees_oom_control = started.sees_oom_control;
    let links = std::mem::take(&mut started.links);
    let generation = pin.keep(&found, about, &programs, links)?;
    let number = generation.number();
    let mut probe = match finish(programs, started, config) {
        Ok(probe) => probe,
        Err(error) => {
            generation.remove()?;
            return Err(error);
        }
    };
    debug!(path = %pin.path().display(), number, "pinned");
    probe.fresh = Some(generation);
    probe.is_pinned = true;
    // The newest programs are attached. From here on the older ones see nothing that the newest do not.
    probe.older = found.older.into_iter().map(Older::open).collect();
    probe.generation = number;
    probe.goes_on = !probe.older.is_empty();
    Ok(probe)
}

/// The result of starting the programs.
struct Started {
    tier: Tier,
    gaps: Vec<Gap>,
    sees_oom_control: bool,
    /// Of the programs that are held by their links alone.
    links: Vec<Link>,
}

/// Takes the maps.
fn finish(mut programs: Ebpf, started: Started, config: &ProbeConfig) -> Result<Probe, ProbeError> {
    let ring = take_map(&mut programs, "RECORDS")?;
    let ring = Ring::open(ring).map_err(|error| ProbeError::Load(error.into()))?;
    let drops = take_map(&mut programs, "DROPS")?;
    let drops = PerCpuArray::try_from(drops).map_err(|error| ProbeError::Load(error.into()))?;
    let log = if config.log {
        log::start(&mut programs)
    } else {
        None
    };
    let mut probe = probe(Opened { ring, drops }, started, Some(programs))?;
    probe.log = log;
    Ok(probe)
}

fn probe(opened: Opened, started: Started, programs: Option<Ebpf>) -> Result<Probe, ProbeError> {
    // They are dropped in this order. A mark after its helpers are gone would pass for one that was not counted.
    let mut links = started.links;
    links.sort_by_key(|(name, _)| *name != MARK_VICTIM);
    Ok(Probe {
        tier: started.tier,
        sees_oom_control: started.sees_oom_control,
        ring: register(opened.ring).map_err(|error| ProbeError::Load(error.into()))?,
        drops: opened.drops,
        drops_before: Drops::default(),
        log: None,
        gaps: started.gaps,
        attached: Attached {
            _links: links.into_iter().map(|(_, link)| link).collect(),
            _programs: programs,
        },
        older: Vec::new(),
        generation: 1,
        fresh: None,
        goes_on: false,
        is_pinned: false,
        pin: None,
        page_bytes: rustix::param::page_size() as u64,
    })
}

/// Why the tier that was asked for is not the one that this kernel allows.
fn refused(choice: TierChoice, possible: Tier) -> ProbeError {
    let (tier, reason) = match choice {
        TierChoice::Only(Tier::Btf) => (
            Tier::Btf,
            "this kernel's mark_victim passes a thread id and not the task; use btf-pid",
        ),
        TierChoice::Only(Tier::BtfPid) => (
            Tier::BtfPid,
            "this kernel's mark_victim passes the task and not a thread id; use btf",
        ),
        _ => (possible, "it was not asked for"),
    };
    ProbeError::Tier { tier, reason }
}

/// A loader without the kernel's BTF: the object has no relocations against it. Runs on a thread of its own, beside
/// the reading of the layout.
///
/// `EbpfLoader::new()` reads and parses all of the BTF. That costs 20 MB and most of the time to start, and aya 0.14
/// has no other constructor. It skips the BTF where the file is missing, so this thread's root is another directory.
fn loader() -> EbpfLoader<'static> {
    // SAFETY: only this thread's root and working directory are separated, and the thread ends soon.
    let separated = unsafe { unshare_unsafe(UnshareFlags::FS) };
    if let Err(error) = separated.and_then(|()| chroot("/proc/self/task")) {
        debug!(%error, "without CAP_SYS_CHROOT the start is slower");
    }
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    // aya probes the kernel's features at the first use: here, and not after the layout.
    aya::features();
    loader
}

fn load_object(
    loader: EbpfLoader<'_>,
    kernel: &Config,
    config: &ProbeConfig,
) -> Result<Ebpf, ProbeError> {
    let (log_level, log_bytes) = if config.log {
        (LOG_LEVEL_ALL, LOG_BYTES)
    } else {
        (LOG_LEVEL_OFF, IDLE_LOG_BYTES)
    };
    // Shortens the loader's life to the life of its borrows here.
    let mut loader = loader;
    loader
        .override_global(CONFIG_SYMBOL, kernel.as_bytes(), true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries("AYA_LOGS", log_bytes)
        .map_max_entries("RECORDS", config.ring_bytes)
        .load(OBJECT)
        .map_err(load_error)
}

/// The name of a program, and the link that holds it attached.
type Link = (&'static str, FdLink);

/// `out_of_memory()` for aya, being made by a thread.
type Function = JoinHandle<Option<Btf>>;

/// A program of the object and the tracepoint that it is for.
type Tracepoint = (&'static str, &'static str);

/// The tracepoints that keep the tree of cgroups up to date.
const CGROUP_TRACEPOINTS: [Tracepoint; 2] = [
    ("cgroup_mkdir", "cgroup_mkdir"),
    ("cgroup_rmdir", "cgroup_rmdir"),
];

/// The tracepoints of the OOM killer, the helpers of `mark_victim` before itself: a mark whose signal
/// was not seen passes for one that the kernel did not count.
fn oom_tracepoints(tier: Tier, config: &ProbeConfig) -> Vec<Tracepoint> {
    let mut tracepoints = vec![("signal_generate", "signal_generate")];
    if tier == Tier::BtfPid {
        tracepoints.push(("sched_process_exit", "sched_process_exit"));
    }
    if config.log {
        tracepoints.push(("mark_victim_log", "mark_victim"));
    }
    tracepoints.push((MARK_VICTIM, MARK_VICTIM));
    tracepoints
}

/// Loads and attaches the programs. The OOM killer's tracepoints come first and alone: from then on no kill is
/// missed. The hierarchy is scanned after all of this. A kill before the hook of `out_of_memory()` has no limit in
/// its record.
fn load_and_attach(
    programs: &mut Ebpf,
    tier: Tier,
    function: Function,
    config: &ProbeConfig,
) -> Result<Started, ProbeError> {
    let mut by_name: HashMap<String, &mut Program> = programs
        .programs_mut()
        .map(|(name, program)| (name.to_owned(), program))
        .collect();
    let mut take = |name: &str| {
        let missing = || ProbeError::Load(format!("the eBPF object has no program {name}").into());
        by_name.remove(name).ok_or_else(missing)
    };
    let mut take_all = |tracepoints: Vec<Tracepoint>| -> Result<Vec<_>, ProbeError> {
        let with_program = |tracepoint: Tracepoint| Ok((take(tracepoint.0)?, tracepoint));
        tracepoints.into_iter().map(with_program).collect()
    };
    let oom = take_all(oom_tracepoints(tier, config))?;
    let topology = take_all(CGROUP_TRACEPOINTS.to_vec())?;
    let entry = take("out_of_memory_entry")?;
    let exit = take("out_of_memory_exit")?;
    let mut links = load_and_attach_all(oom)?;
    thread::scope(|scope| {
        let hooked = scope.spawn(move || hook_out_of_memory(entry, exit, function));
        links.extend(load_and_attach_all(topology)?);
        let hooked = hooked
            .join()
            .unwrap_or_else(|_| Err("its thread panicked".into()));
        let sees_oom_control = hooked.is_ok();
        match hooked {
            Ok(hooks) => links.extend(hooks),
            Err(error) => debug!(%error, "out_of_memory() cannot be hooked"),
        }
        Ok(Started {
            tier,
            gaps: Vec::new(),
            sees_oom_control,
            links,
        })
    })
}

/// Has the kernel verify all programs side by side, which is most of the time to start. Attaches them in their order.
fn load_and_attach_all(programs: Vec<(&mut Program, Tracepoint)>) -> Result<Vec<Link>, ProbeError> {
    let mut links = Vec::new();
    thread::scope(|scope| {
        let mut programs = programs;
        let last = programs.pop();
        let loading: Vec<_> = programs
            .into_iter()
            .map(|(program, tracepoint)| (tracepoint, scope.spawn(move || load_program(program))))
            .collect();
        // The last one, on this thread, takes longest.
        let last = last.map(|(program, tracepoint)| (tracepoint, load_program(program)));
        for (tracepoint, thread) in loading {
            let program = thread
                .join()
                .unwrap_or_else(|_| Err("its thread panicked".into()));
            links.push(attach(program, tracepoint)?);
        }
        if let Some((tracepoint, program)) = last {
            links.push(attach(program, tracepoint)?);
        }
        Ok(links)
    })
}

fn load_program(program: &mut Program) -> Result<&mut RawTracePoint, BoxedError> {
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    Ok(program)
}

fn attach(
    program: Result<&mut RawTracePoint, BoxedError>,
    (name, tracepoint): Tracepoint,
) -> Result<Link, ProbeError> {
    let attached = program.and_then(|program| {
        let link = program.attach(tracepoint)?;
        let link = program.take_link(link)?;
        debug!(program = name, verified = ?verified(program.info()), "attached");
        Ok((name, link.into()))
    });
    attached.map_err(|source| attach_error(name, source))
}

/// Hooks entry and return of `out_of_memory()`. Needs BPF trampolines (x86-64: 5.5, arm64:
/// 6.0), so it may fail where the rest works.
fn hook_out_of_memory(
    entry: &mut Program,
    exit: &mut Program,
    function: Function,
) -> Result<[Link; 2], BoxedError> {
    let made = function.join().map_err(|_| "its thread panicked")?;
    let btf = made.ok_or("the kernel's BTF has no out_of_memory()")?;
    let (entry, exit): (&mut FEntry, &mut FExit) = (entry.try_into()?, exit.try_into()?);
    entry.load(OUT_OF_MEMORY, &btf)?;
    exit.load(OUT_OF_MEMORY, &btf)?;
    // The exit first: a call whose end is not seen would never end for us.
    let exit_link = exit.attach()?;
    let entry_link = entry.attach()?;
    let links = (entry.take_link(entry_link)?, exit.take_link(exit_link)?);
    debug!(function = OUT_OF_MEMORY, verified = ?verified(exit.info()), "hooked");
    Ok([
        ("out_of_memory_entry", links.0.into()),
        ("out_of_memory_exit", links.1.into()),
    ])
}

/// Instructions that the verifier went through; since v5.16.
fn verified(info: Result<ProgramInfo, ProgramError>) -> Option<u32> {
    info.ok()?.verified_instruction_count()
}

/// BTF in which type `id` is `out_of_memory()` and all below it are fillers.
///
/// aya finds a function's id by its name in the whole kernel's types, parsed. The id is known here, so this minimal
/// BTF is enough. It still has several MB: a thread makes it while the maps and the first programs are loaded.
fn function_btf(id: u32) -> Option<Btf> {
    let mut btf = Btf::new();
    let name = btf.add_string(OUT_OF_MEMORY);
    for _ in 1..id {
        btf.add_type(BtfType::Ptr(Ptr::new(0, 0)));
    }
    let function = btf.add_type(BtfType::Func(Func::new(name, 0, FuncLinkage::Global)));
    (function == id).then_some(btf)
}

fn attach_error(program: &'static str, source: BoxedError) -> ProbeError {
    if is_permission_denied(source.as_ref()) {
        ProbeError::Privilege(source)
    } else {
        ProbeError::Attach { program, source }
    }
}

fn take_map(programs: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, ProbeError> {
    programs
        .take_map(name)
        .ok_or_else(|| ProbeError::Load(format!("the eBPF object has no map {name}").into()))
}

/// Has the runtime wake this task when `inner` can be read.
fn register<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: aya's ring buffers own their descriptor, and it stays the same until they are
    // dropped.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }.map_err(io::Error::from)
}

fn load_error(error: EbpfError) -> ProbeError {
    if is_permission_denied(&error) {
        ProbeError::Privilege(error.into())
    } else {
        ProbeError::Load(error.into())
    }
}

/// Whether EPERM or EACCES is anywhere in the chain of causes. The verifier refuses with EACCES too, but with a log.
fn is_permission_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref()
            && !verifier_log.to_string().is_empty()
        {
            return false;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.kind() == io::ErrorKind::PermissionDenied;
        }
        cause = error.source();
    }
    false
}

fn describe_gaps(layout: &Layout) -> String {
    let gaps: Vec<String> = layout
        .gaps
        .iter()
        .map(|gap| format!("{}: {}", gap.member, gap.reason))
        .collect();
    gaps.join(", ")
}
