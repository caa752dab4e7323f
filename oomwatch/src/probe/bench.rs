//! Makes the probe's own program run without an OOM kill, for the benchmarks.

use std::io;

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _};

use super::Probe;
pub(crate) use super::decode::decode;

impl Probe {
    /// Runs `mark_victim` once, as if the kernel had marked the task at this address. All reads are real, and a
    /// failed one gives 0. Since 5.10.
    pub(crate) fn run_mark(&self, task: u64) -> io::Result<()> {
        let programs = self.attached._programs.as_ref();
        let program = programs.and_then(|programs| programs.program("mark_victim"));
        let program = program.ok_or(io::ErrorKind::NotFound)?;
        let program: &RawTracePoint = program.try_into().map_err(io::Error::other)?;
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = task;
        program.test_run(options).map_err(io::Error::other)?;
        Ok(())
    }
}
