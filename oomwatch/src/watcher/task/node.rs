//! The slow audit: one read of `/proc/vmstat`, and a look at containers only where it does not add up.

use std::{fs, path::Path};

use tracing::debug;

use super::{
    super::{audit::Audit, has_counters},
    Task,
    start::RECORD_MADE,
};
use crate::{
    clock,
    ledger::{node, node::NodeLedger},
    log::{say_left_out, warn},
    tier::Tier,
};

const VMSTAT: &str = "/proc/vmstat";
/// Longer than the containers' audit takes.
const SETTLE_NS: u64 = 2_000_000_000;
/// Between two audits.
const PERIOD_NS: u64 = 60_000_000_000;
/// Most reads at the start, until no kill comes between two of them.
const MAX_READS: usize = 16;
/// The name in the store of the count up to which everything was reported.
pub(super) const REPORTED_UP_TO: &str = "node_told_up_to";

/// The audit's state; nothing where the node does not count.
#[derive(Debug, Default)]
pub(super) struct NodeAudit {
    ledger: Option<NodeLedger>,
    /// When to look again.
    at_ns: Option<u64>,
    /// A mismatch was seen, and has until `at_ns` to resolve.
    settling: bool,
    /// Kills that the node counted while no daemon ran, and that nothing else shows, must still be reported.
    is_past_open: bool,
}

impl NodeAudit {
    pub(super) fn at_ns(&self) -> Option<u64> {
        self.at_ns
    }

    pub(super) fn residual(&self) -> u64 {
        self.ledger.map_or(0, |ledger| ledger.residual())
    }
}

impl Task {
    /// Begins at the end of the start, or where another run of this boot ended.
    pub(super) fn begin_node_audit(&mut self, reported_up_to: Option<u64>) {
        self.node.at_ns = Some(clock::now().boottime_ns + PERIOD_NS);
        if let Some(reported_up_to) = reported_up_to {
            self.node.ledger = Some(NodeLedger::resume(reported_up_to));
            self.node.is_past_open = true;
            if self.audit == Audit::Idle {
                self.end_past();
            }
            return;
        }
        let count = self.node_at_rest().or_else(read);
        let reported = self.engine.node_reported();
        self.node.ledger = count.map(|oom_kill| NodeLedger::begin(oom_kill, reported));
    }

    /// Kills that the node counted while no daemon ran, and that no ring, ledger or counter shows, were outside of
    /// what those know. The task reports them by number, and they are past with that. It does not do so while records
    /// are lost that counters have yet to show. Nor does it while kills are counted, because their records are made
    /// after that.
    pub(super) fn end_past(&mut self) {
        let at_ns = clock::now().boottime_ns;
        let Some(oom_kill) = self.node_at_rest().filter(|_| self.node.is_past_open) else {
            return;
        };
        if self.audit.is_loss_open() {
            return;
        }
        self.node.is_past_open = false;
        let reported = self.engine.node_reported();
        let ledger = self.node.ledger.as_mut();
        let residual = ledger.map_or(0, |ledger| ledger.compare((oom_kill, oom_kill), reported));
        let event = self.engine.end_past(residual, at_ns, clock::now());
        self.admit(event);
        self.compare_node();
    }

    /// The node's count, once every kill in it has its record in what was drained, or has none.
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

    /// Compares the node's count with what was reported. After a mismatch the task reads the containers' counters;
    /// the rest is the residual.
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

    /// Compares, and tells whether everything was reported that was not part of the residual before.
    pub(super) fn compare_node(&mut self) -> bool {
        let residual_before = self.node.residual();
        let at_ns = clock::now().boottime_ns;
        let Some(before) = read() else {
            return true;
        };
        // The count moves before the record is made.
        self.drain();
        let reported = self.engine.node_reported();
        let (Some(ledger), Some(after)) = (&mut self.node.ledger, read()) else {
            return true;
        };
        let residual = ledger.compare((before, after), reported);
        if residual == 0 {
            self.engine.all_is_reported_up_to(at_ns);
        }
        residual <= residual_before
    }

    pub(super) fn warn_of_residual(&mut self) {
        let ledger = self.node.ledger.as_mut();
        if let Some(residual) = ledger.and_then(NodeLedger::take_warning) {
            warn!(
                residual,
                "the node counted OOM kills that no record and no container's counter tells of"
            );
        }
    }

    /// The count up to which the next run has nothing to report.
    pub(super) fn node_reported_up_to(&self) -> Option<u64> {
        let ledger = self.node.ledger?;
        let reported_up_to = ledger.reported_up_to(self.engine.node_reported());
        let is_confirmed = has_counters(&self.hierarchy) || self.source.tier() != Tier::Pid;
        if is_confirmed {
            return Some(reported_up_to);
        }
        // Marks that no counter confirms may be more than the node counts, and would hide later kills.
        read().map(|count| reported_up_to.min(count))
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
