//! The slow audit: one read of `/proc/vmstat`, and a look at containers only where it does not add up.

use std::{fs, path::Path};

use tracing::debug;

use super::{super::audit::Audit, Task, start::RECORD_MADE};
use crate::{
    clock,
    ledger::{node, node::NodeBook},
    log::{say_left_out, warn},
};

const VMSTAT: &str = "/proc/vmstat";
/// How long the containers' audit takes, and a little more.
const SETTLE_NS: u64 = 2_000_000_000;
/// Between two audits.
const PERIOD_NS: u64 = 60_000_000_000;
/// Reads at the start until no kill comes between two of them.
const MAX_READS: usize = 16;
/// The name in the store of the count up to which everything was spoken of.
pub(super) const TOLD_UP_TO: &str = "node_told_up_to";

/// The audit's state; nothing where the node does not count.
#[derive(Debug, Default)]
pub(super) struct NodeAudit {
    book: Option<NodeBook>,
    /// When to look again.
    at_ns: Option<u64>,
    /// A mismatch was seen, and has until `at_ns` to resolve itself.
    settling: bool,
    /// What the node counted while no daemon ran, and nothing else tells of, is yet to be told.
    is_past_open: bool,
    /// What was said aloud.
    warned: u64,
}

impl NodeAudit {
    pub(super) fn at_ns(&self) -> Option<u64> {
        self.at_ns
    }

    pub(super) fn residual(&self) -> u64 {
        self.book.map_or(0, |book| book.residual())
    }

    /// The count up to which the next run has nothing to tell: what was warned of is past by then.
    pub(super) fn told_up_to(&self, told: u64) -> Option<u64> {
        let book = self.book?;
        let warned = self.warned.min(book.residual());
        Some(book.told_up_to(told).saturating_add(warned))
    }
}

impl Task {
    /// Begins at the end of the start, or where another run of this boot ended.
    pub(super) fn begin_node_audit(&mut self, told_up_to: Option<u64>) {
        self.node.at_ns = Some(clock::now().boottime_ns + PERIOD_NS);
        if let Some(told_up_to) = told_up_to {
            self.node.book = Some(NodeBook::resume(told_up_to));
            self.node.is_past_open = true;
            if self.audit == Audit::Idle {
                self.end_past();
            }
            return;
        }
        let count = self.node_at_rest().or_else(read);
        let told = self.engine.node_told();
        self.node.book = count.map(|oom_kill| NodeBook::begin(oom_kill, told));
    }

    /// What the node counted while no daemon ran, and no ring, ledger or counter tells of, was somewhere outside of
    /// what they know. It is told by its number, and past with that. Not while records are lost that counters are
    /// yet to tell of, nor while kills are counted: their records are made after that.
    pub(super) fn end_past(&mut self) {
        let at_ns = clock::now().boottime_ns;
        let Some(oom_kill) = self.node_at_rest().filter(|_| self.node.is_past_open) else {
            return;
        };
        if self.audit.is_loss_open() {
            return;
        }
        self.node.is_past_open = false;
        let told = self.engine.node_told();
        let book = self.node.book.as_mut();
        let residual = book.map_or(0, |book| book.compare(oom_kill, told));
        let event = self.engine.end_past(residual, at_ns, clock::now());
        self.admit(event);
        self.compare_node();
    }

    /// The node's count, all of which has its record in what was drained, or has none.
    fn node_at_rest(&mut self) -> Option<u64> {
        let mut before = read()?;
        for _ in 0..MAX_READS {
            std::thread::sleep(RECORD_MADE);
            self.drain();
            let after = read()?;
            if after == before {
                return Some(after);
            }
            before = after;
        }
        None
    }

    /// Compares. After a mismatch the containers are asked; what is left then is the residual.
    pub(super) fn audit_node(&mut self) {
        say_left_out();
        let matches = self.compare_node();
        let now_ns = clock::now().boottime_ns;
        let again_ns = if matches || self.node.settling {
            self.warn_of_residual();
            self.node.settling = false;
            PERIOD_NS
        } else {
            self.audit.lost(now_ns);
            self.node.settling = true;
            SETTLE_NS
        };
        self.node.at_ns = Some(now_ns + again_ns);
    }

    /// Whether everything was spoken of that was not part of the residual before.
    pub(super) fn compare_node(&mut self) -> bool {
        let before = self.node.residual();
        let Some(oom_kill) = read() else {
            return true;
        };
        // The count moves before the record is made.
        self.drain();
        let told = self.engine.node_told();
        match &mut self.node.book {
            Some(book) => book.compare(oom_kill, told) <= before,
            None => true,
        }
    }

    pub(super) fn warn_of_residual(&mut self) {
        let residual = self.node.residual();
        if residual > self.node.warned {
            warn!(
                residual,
                "the node counts OOM kills that no record and no container's counter tells of"
            );
        }
        self.node.warned = residual;
    }
}

/// The node's count of OOM kills; `None` where it has none.
pub(super) fn read() -> Option<u64> {
    match fs::read_to_string(Path::new(VMSTAT)) {
        Ok(text) => node::oom_kill(&text),
        Err(error) => {
            debug!(%error, path = VMSTAT, "the node's count cannot be read");
            None
        }
    }
}
