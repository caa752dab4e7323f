//! The memory eater itself: what `PROGRAM hog …` runs.
//!
//! | command | does | answer |
//! |---|---|---|
//! | `alloc BYTES` | allocates and touches memory, shared out among its threads | `ok` |
//! | `fork N BYTES` | starts N more hogs, each holding BYTES | `ok PID…` |
//! | `brood N BYTES` | forks N copies that wait for `go` before they allocate BYTES; with 0, for ever | `ok PID…` |
//! | `go` | lets the last brood allocate, and waits for its end | `ok PID…` of those that were killed |
//! | `share` | starts a process that shares this one's memory | `ok PID` |
//!
//! It keeps all it has allocated. When its input ends, it ends.

use std::{
    ffi::{CString, OsString},
    fs,
    hint::black_box,
    io::{self, BufRead, Write},
    os::unix::ffi::OsStrExt,
    thread,
};

use anyhow::{Context, Result, bail};

use super::{
    Hog, HogSpec,
    brood::{Brood, share_memory},
};

const CHUNK_BYTES: u64 = 256 * 1024;
const SMALLEST_PAGE_BYTES: usize = 4096;

struct Options {
    comm: OsString,
    threads: u32,
    oom_score_adj: Option<i32>,
}

/// Runs a hog until its input ends or the kernel ends it. `arguments` follow the word `hog`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let options = parse(arguments)?;
    let comm = CString::new(options.comm.as_bytes()).context("NUL in the process name")?;
    rustix::thread::set_name(&comm).context("setting the process name")?;
    // A huge page would charge 2 MiB at a time and blur where the limit is hit.
    rustix::thread::disable_transparent_huge_pages(true).context("disabling huge pages")?;
    if let Some(oom_score_adj) = options.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", oom_score_adj.to_string())
            .with_context(|| format!("setting oom_score_adj to {oom_score_adj}"))?;
    }
    obey(&options)
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Options> {
    let mut options = Options {
        comm: "hog".into(),
        threads: 1,
        oom_score_adj: None,
    };
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .with_context(|| format!("no value for {name:?}"))?;
        let text = value.to_string_lossy();
        match name.to_str() {
            Some("--comm") => options.comm = value,
            Some("--threads") => options.threads = text.parse().context("--threads")?,
            Some("--oom-score-adj") => {
                options.oom_score_adj = Some(text.parse().context("--oom-score-adj")?);
            }
            _ => bail!("unknown option {name:?}"),
        }
    }
    Ok(options)
}

fn obey(options: &Options) -> Result<()> {
    let mut memory = Vec::new();
    let mut children = Vec::new();
    let mut brood = None;
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line.context("reading a command")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["alloc", bytes] => {
                memory.extend(allocate(bytes.parse()?, options.threads)?);
                say("ok")?;
            }
            ["fork", processes, bytes] => {
                let started = fork(options, processes.parse()?, bytes.parse()?)?;
                let pids: Vec<u32> = started.iter().map(Hog::pid).collect();
                say_pids(&pids)?;
                children.extend(started);
            }
            ["brood", processes, bytes] => {
                let forked = Brood::fork(processes.parse()?, bytes.parse()?)?;
                say_pids(forked.pids())?;
                brood = Some(forked);
            }
            ["go"] => {
                let brood = brood.take().context("no brood to let go")?;
                say_pids(&brood.release()?)?;
            }
            ["share"] => say_pids(&[share_memory()?])?,
            _ => bail!("unknown command `{line}`"),
        }
    }
    black_box(memory);
    Ok(())
}

fn say(answer: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{answer}")?;
    out.flush().context("answering")
}

fn say_pids(pids: &[impl ToString]) -> Result<()> {
    let words: Vec<String> = pids.iter().map(ToString::to_string).collect();
    say(&format!("ok {}", words.join(" ")))
}

fn allocate(bytes: u64, threads: u32) -> Result<Vec<Vec<u8>>> {
    if threads <= 1 {
        // Not in a second thread: the kernel counts a process of several threads otherwise than
        // one of a single thread when it kills a whole group.
        return Ok(eat(bytes));
    }
    let share = bytes / u64::from(threads);
    let eaters: Vec<_> = (0..threads)
        .map(|_| thread::spawn(move || eat(share)))
        .collect();
    let mut memory = Vec::new();
    for eater in eaters {
        match eater.join() {
            Ok(eaten) => memory.extend(eaten),
            Err(_) => bail!("an allocating thread panicked"),
        }
    }
    Ok(memory)
}

pub(super) fn eat(bytes: u64) -> Vec<Vec<u8>> {
    // Small chunks: each succeeds although the sum may be more than the machine has.
    let chunks = bytes.div_ceil(CHUNK_BYTES);
    let chunk_bytes = usize::try_from(CHUNK_BYTES).unwrap_or(SMALLEST_PAGE_BYTES);
    (0..chunks)
        .map(|_| {
            let mut chunk = vec![0_u8; chunk_bytes];
            // Fresh memory costs nothing until each page is written to.
            for page in chunk.chunks_mut(SMALLEST_PAGE_BYTES) {
                page.fill(1);
            }
            black_box(chunk)
        })
        .collect()
}

fn fork(options: &Options, processes: u32, bytes: u64) -> Result<Vec<Hog>> {
    let program = std::env::current_exe().context("finding this program")?;
    let spec = HogSpec::new(&program, "").comm(options.comm.as_bytes());
    let mut children = Vec::new();
    for _ in 0..processes {
        let mut child = Hog::spawn(&spec)?;
        if bytes > 0 {
            child.allocate(bytes)?;
        }
        children.push(child);
    }
    Ok(children)
}
