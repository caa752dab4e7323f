//! Without BTF: four programs that read no structure of the kernel.

mod format;

use std::thread;

use aya::{
    Ebpf,
    programs::{RawTracePoint, TracePoint},
};
use oomwatch_common::config::{Config, WAKE_WHERE_READ};
use tracing::debug;

use self::format::{Events, FormatError};
use super::{
    super::{Probe, ProbeConfig, ProbeError},
    BoxedError, Started, attach_error, finish, load_object, loader,
};
use crate::{probe::privilege::may_load_programs, tier::Tier};

const MARK: &str = "mark_victim_pid";
const SIGNAL: &str = "signal_generate_pid";
const EXIT: &str = "sched_process_exit_pid";
const EXIT_TOO: &str = "sched_process_exit_too";

/// Loads and attaches the programs that need no knowledge of the kernel's types.
///
/// Needs tracefs, for the id of a classic tracepoint and the offsets of its fields.
pub(super) fn start(config: &ProbeConfig) -> Result<Probe, ProbeError> {
    let loader = thread::spawn(loader).join().unwrap_or_default();
    let mut kernel = Config {
        submit_flags: WAKE_WHERE_READ,
        ..Config::UNKNOWN
    };
    let events = Events::find().and_then(|events| {
        kernel.mark_victim_pid = events.format("oom/mark_victim")?.offset("pid")?;
        Ok(events)
    });
    let events = events.map_err(no_format)?;
    let signal = signal_offsets(&events, &mut kernel);
    let mut programs = load_object(loader, &kernel, config)?;
    // The exit first: a victim that is marked is waited for.
    attach_exit(&mut programs).map_err(|source| attach_error(EXIT, source))?;
    attach_classic(&mut programs, EXIT_TOO, ("sched", "sched_process_exit"))
        .map_err(|source| attach_error(EXIT_TOO, source))?;
    let signal = signal
        .map_err(BoxedError::from)
        .and_then(|()| attach_classic(&mut programs, SIGNAL, ("signal", "signal_generate")));
    if let Err(error) = signal {
        debug!(%error, "victims that exit before they are marked are told by number only");
    }
    attach_classic(&mut programs, MARK, ("oom", "mark_victim"))
        .map_err(|source| attach_error(MARK, source))?;
    let started = Started {
        tier: Tier::Pid,
        gaps: Vec::new(),
        sees_oom_control: false,
        links: Vec::new(),
    };
    finish(programs, started, config)
}

/// A process without privilege sees no tracefs. Its error names the missing privilege instead.
fn no_format(error: FormatError) -> ProbeError {
    if may_load_programs() {
        attach_error(MARK, error.into())
    } else {
        ProbeError::Privilege(error.into())
    }
}

/// Reads the offsets of `signal_generate`. Without them, a victim that exits before its mark is reported by pid only.
fn signal_offsets(events: &Events, kernel: &mut Config) -> Result<(), FormatError> {
    let signal = events.format("signal/signal_generate")?;
    kernel.signal_generate_sig = signal.offset("sig")?;
    kernel.signal_generate_code = signal.offset("code")?;
    kernel.signal_generate_pid = signal.offset("pid")?;
    Ok(())
}

fn attach_exit(programs: &mut Ebpf) -> Result<(), BoxedError> {
    let program: &mut RawTracePoint = find(programs, EXIT)?.try_into()?;
    program.load()?;
    program.attach("sched_process_exit")?;
    Ok(())
}

fn attach_classic(
    programs: &mut Ebpf,
    program: &'static str,
    (category, name): (&str, &str),
) -> Result<(), BoxedError> {
    let program: &mut TracePoint = find(programs, program)?.try_into()?;
    program.load()?;
    program.attach(category, name)?;
    Ok(())
}

fn find<'a>(
    programs: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut aya::programs::Program, BoxedError> {
    let missing = || format!("the eBPF object has no program {name}").into();
    programs.program_mut(name).ok_or_else(missing)
}
