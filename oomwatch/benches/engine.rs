//! The watcher's path from bytes to events, and what it keeps of a container, measured.
//!
//! Each line on standard output is a name, a number and, where it was not measured, the reason,
//! with tabs between. `cargo xtask bench` runs this and judges the numbers.

use std::{
    fs,
    time::{Duration, Instant},
};

use oomwatch::bench::{Host, Ring};

/// Records made and worked through at a time.
const RECORDS: usize = 16_384;
/// Containers that the records are about.
const CONTAINERS: u64 = 1_000;
/// Containers whose memory is measured.
const IDLE_CONTAINERS: u64 = 10_000;
/// Where the kernel's first task is, for the probe to read; 0 for those who may not know.
const SYMBOLS: &str = "/proc/kallsyms";
/// An address that cannot be read: all that the probe reads there is 0.
const NOWHERE: u64 = 8;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let rounds = if quick { 5 } else { 40 };
    let all = !arguments.iter().any(|argument| !argument.starts_with('-'));
    let wants = |name: &str| all || arguments.iter().any(|argument| argument == name);
    if wants("state") {
        print("state_bytes", state_bytes());
    }
    if wants("records") {
        print("records_per_second", records(rounds));
    }
    if wants("ring") {
        match ring(rounds) {
            Ok(rate) => print("ring_records_per_second", rate),
            Err(error) => println!("ring_records_per_second\t\t{error}"),
        }
    }
}

fn print(name: &str, number: f64) {
    println!("{name}\t{number:.0}");
}

/// The best of all rounds: others use this machine too.
fn records(rounds: usize) -> f64 {
    let mut host = Host::with_containers(CONTAINERS).with_inner_cgroups();
    let mut best = Duration::MAX;
    let mut events = 0_usize;
    for _ in 0..rounds {
        let wire = host.next_records(RECORDS);
        let started = Instant::now();
        host.work_through(&wire, |_| events += 1);
        best = best.min(started.elapsed());
    }
    // One of sixteen is another thread.
    assert_eq!(events, rounds * RECORDS / 16 * 15, "events");
    RECORDS as f64 / best.as_secs_f64()
}

/// The real program fills the real ring; only what user space does is timed.
fn ring(rounds: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _context = runtime.enter();
    let mut ring = Ring::start()?;
    let task = init_task();
    let mut best = 0.0_f64;
    for _ in 0..rounds {
        ring.fill(RECORDS, task)?;
        let started = Instant::now();
        let records = ring.drain(|_| {});
        best = best.max(records as f64 / started.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn init_task() -> u64 {
    let symbols = fs::read_to_string(SYMBOLS).unwrap_or_default();
    let line = symbols.lines().find(|line| line.ends_with(" init_task"));
    line.and_then(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok())
        .filter(|&address| address != 0)
        .unwrap_or(NOWHERE)
}

/// Bytes taken from the allocator for each container, what it adds included, with the counters'
/// books of a host with cgroup v2.
fn state_bytes() -> f64 {
    let before = allocated();
    let host = Host::with_containers(IDLE_CONTAINERS);
    let after = allocated();
    assert_eq!(host.containers() as u64, IDLE_CONTAINERS, "containers");
    (after - before) as f64 / IDLE_CONTAINERS as f64
}

#[cfg(target_env = "gnu")]
fn allocated() -> usize {
    // SAFETY: only reads the allocator's own numbers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

#[cfg(not(target_env = "gnu"))]
fn allocated() -> usize {
    0
}
