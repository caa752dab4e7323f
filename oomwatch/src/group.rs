//! Holds the members of a group kill until all are there, so that each can say how many.
//!
//! Bounded: a group that is large or slow (the kernel logs every member, and a serial
//! console takes its time) is let go without its size. Single kills never wait. Pure.

use crate::event::OomEvent;

/// Members held at most.
pub(crate) const MAX_HELD: usize = 64;
/// How long the first member waits at most.
pub(crate) const MAX_WAIT_NS: u64 = 50_000_000;

/// The group kill under way; the kernel makes one at a time.
#[derive(Debug, Default)]
pub(crate) struct GroupBuffer {
    invocation: u64,
    since_ns: u64,
    held: Vec<OomEvent>,
    /// Members so far: marks of further threads of one process are none.
    members: u32,
    /// Members of this group that were let go before.
    released: bool,
}

impl GroupBuffer {
    /// Takes an event in, and gives back those that wait no longer, in order.
    pub(crate) fn push(&mut self, mut event: OomEvent, now_ns: u64) -> Vec<OomEvent> {
        let Some(group) = &mut event.group else {
            let mut ready = self.release();
            ready.push(event);
            return ready;
        };
        let mut ready = Vec::new();
        if group.invocation != self.invocation {
            ready = self.release();
            self.invocation = group.invocation;
            self.members = 0;
            self.released = false;
        }
        group.index = self.members;
        self.members += 1;
        if self.held.is_empty() {
            self.since_ns = now_ns;
        }
        self.held.push(event);
        if self.released || self.held.len() > MAX_HELD {
            ready.append(&mut self.release());
        }
        ready
    }

    /// The group kill is over: its members learn its size, unless some are gone already.
    pub(crate) fn end(&mut self, invocation: u64) -> Vec<OomEvent> {
        if invocation == self.invocation && !self.released {
            let size = u32::try_from(self.held.len()).ok();
            for event in &mut self.held {
                if let Some(group) = &mut event.group {
                    group.size = size;
                }
            }
        }
        self.release()
    }

    /// When the wait is over, on the clock of `now_ns`; `None` while nothing waits.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        (!self.held.is_empty()).then(|| self.since_ns.saturating_add(MAX_WAIT_NS))
    }

    /// Lets everything go.
    pub(crate) fn release(&mut self) -> Vec<OomEvent> {
        self.released |= !self.held.is_empty();
        std::mem::take(&mut self.held)
    }
}
