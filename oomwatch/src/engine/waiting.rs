//! The waiting room: the one queue of events that are made and not published yet.
//!
//! An event waits for the rest of its group kill, for the name of its container, or for its turn. Each event has one
//! deadline, and events of one container leave in their order. A container that nobody names delays no other. The
//! room is bounded in number. It knows neither who names a container nor who publishes. Waiting events can be stored
//! meanwhile ([`Waiting::take_pending`]). Pure: time is an argument.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::{HashMap, HashSet};

use crate::{event::OomEvent, id::CgroupId};

/// Longest wait of an event, in nanoseconds.
pub(crate) const MAX_WAIT_NS: u64 = 50_000_000;
/// Most members of one group kill that wait for the others: a larger kill goes out without its size.
pub(crate) const MAX_MEMBERS: usize = 64;
/// Most events that wait. Beyond that, all waiting events go out as they are.
pub(crate) const MAX_WAITING: usize = 4096;

#[derive(Debug)]
struct Entry {
    event: OomEvent,
    deadline_ns: u64,
    /// The call of the OOM killer whose other members it waits for.
    invocation: Option<u64>,
    is_nameless: bool,
    /// Whether the store was given it.
    is_pending: bool,
}

/// The group kill under way; the kernel makes one at a time.
#[derive(Debug, Default)]
struct Group {
    invocation: u64,
    /// Marks so far, whatever came of them.
    marks: u32,
    /// Members so far: a mark of a further thread of a process is no member.
    members: u32,
    /// Members that wait for the others.
    held: usize,
    /// Some members went without the others: nobody can say how many there are.
    is_broken: bool,
}

/// What the store lacks of the waiting room.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Pending {
    /// Events that wait and are not stored.
    pub(crate) events: Vec<Arc<OomEvent>>,
    /// Numbers of stored ones that wait no longer.
    pub(crate) gone: Vec<u64>,
}

/// All events that are not published.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// Events that wait for something, by container, and their number.
    lines: HashMap<CgroupId, VecDeque<Entry>>,
    in_lines: usize,
    /// Events that only wait for their turn.
    ready: VecDeque<Entry>,
    group: Group,
    /// The earliest time at which the first event of a line is due.
    due_ns: Option<u64>,
    /// Numbers of events that the store has as pending, and that went out since.
    gone: Vec<u64>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.in_lines == 0 && self.ready.is_empty()
    }

    /// When [`Self::release`] has something to do; 0 means now.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        if self.ready.is_empty() {
            self.due_ns
        } else {
            Some(0)
        }
    }

    /// Takes in an event. `is_nameless`: its container may be named soon.
    pub(crate) fn admit(&mut self, mut event: OomEvent, is_nameless: bool, now_ns: u64) {
        let invocation = self.join_group(&mut event);
        self.enter(event, invocation, is_nameless, now_ns);
    }

    /// Takes in an event that already has its place in a group kill, if it belongs to one.
    pub(crate) fn readmit(&mut self, event: OomEvent, is_nameless: bool, now_ns: u64) {
        self.enter(event, None, is_nameless, now_ns);
    }

    fn enter(&mut self, event: OomEvent, invocation: Option<u64>, is_nameless: bool, now_ns: u64) {
        let waits = is_nameless || invocation.is_some();
        let line = line_of(&event);
        let entry = Entry {
            event,
            deadline_ns: if self.in_lines > MAX_WAITING {
                0
            } else {
                now_ns.saturating_add(MAX_WAIT_NS)
            },
            invocation,
            is_nameless,
            is_pending: false,
        };
        if !waits && (self.in_lines == 0 || !self.lines.contains_key(&line)) {
            return self.ready.push_back(entry);
        }
        self.due_ns.get_or_insert(entry.deadline_ns);
        self.lines.entry(line).or_default().push_back(entry);
        self.in_lines += 1;
        if self.group.held > MAX_MEMBERS {
            self.break_group();
        }
        // Once: later events do not wait in the first place.
        if self.in_lines == MAX_WAITING + 1 {
            self.let_all_go();
        }
    }

    /// Gives a member of a group kill its place; returns the call of the OOM killer whose other members it waits for.
    fn join_group(&mut self, event: &mut OomEvent) -> Option<u64> {
        let member = event.group.as_mut()?;
        let invocation = member.invocation;
        self.begin_group(invocation);
        member.index = self.group.members;
        self.group.members += 1;
        if self.group.is_broken {
            return None;
        }
        self.group.held += 1;
        Some(invocation)
    }

    fn begin_group(&mut self, invocation: u64) {
        if invocation != self.group.invocation {
            self.break_group();
            self.group = Group {
                invocation,
                ..Group::default()
            };
        }
    }

    /// Counts a mark of a group kill.
    pub(crate) fn group_mark(&mut self, invocation: u64) {
        self.begin_group(invocation);
        self.group.marks += 1;
    }

    /// The members of the group kill under way wait no longer, and do not learn its size.
    fn break_group(&mut self) {
        self.group.is_broken = true;
        self.end_group(None);
    }

    /// A group kill is over, and the kernel made `marks` marks. Its members learn its size, unless some member went
    /// before or some mark was not seen.
    pub(crate) fn group_end(&mut self, invocation: u64, marks: u32) {
        if invocation == self.group.invocation && !self.group.is_broken {
            let is_whole = self.group.marks == marks;
            self.end_group(is_whole.then_some(self.group.members));
        }
    }

    fn end_group(&mut self, size: Option<u32>) {
        if std::mem::take(&mut self.group.held) == 0 {
            return;
        }
        for entry in self.lines.values_mut().flatten() {
            if entry.invocation.take().is_some()
                && let Some(group) = &mut entry.event.group
            {
                group.size = size;
            }
        }
        self.due_ns = Some(0);
    }

    /// Names may be known by now.
    pub(crate) fn names_changed(&mut self) {
        if self.in_lines > 0 {
            self.due_ns = Some(0);
        }
    }

    /// These events wait no longer: they are about to be reported again with another container.
    pub(crate) fn let_go(&mut self, seqs: &HashSet<u64>) {
        self.break_group();
        for entry in self.lines.values_mut().flatten() {
            if seqs.contains(&entry.event.seq) {
                entry.deadline_ns = 0;
            }
        }
        self.names_changed();
    }

    /// Nothing waits for anything any more.
    pub(crate) fn let_all_go(&mut self) {
        for entry in self.lines.values_mut().flatten() {
            entry.deadline_ns = 0;
        }
        self.due_ns = Some(0);
    }

    /// Makes the events ready that wait no longer. `name` names an event's container, as far as the name is known,
    /// and tells whether more may be known soon.
    pub(crate) fn release(&mut self, now_ns: u64, mut name: impl FnMut(&mut OomEvent) -> bool) {
        if self.due_ns.is_none_or(|due_ns| due_ns > now_ns) {
            return;
        }
        let (mut released, mut is_broken) = (Vec::new(), false);
        self.lines.retain(|_, line| {
            while let Some(mut entry) = line.pop_front() {
                let is_due = entry.deadline_ns <= now_ns;
                if entry.is_nameless {
                    entry.is_nameless = name(&mut entry.event);
                }
                if !is_due && (entry.is_nameless || entry.invocation.is_some()) {
                    line.push_front(entry);
                    break;
                }
                is_broken |= entry.invocation.take().is_some();
                released.push(entry);
            }
            !line.is_empty()
        });
        self.in_lines -= released.len();
        released.sort_unstable_by_key(|entry| entry.event.seq);
        self.ready.extend(released);
        let fronts = self.lines.values().filter_map(VecDeque::front);
        self.due_ns = fronts.map(|entry| entry.deadline_ns).min();
        if is_broken {
            self.break_group();
        }
    }

    /// All of them, in no order.
    pub(crate) fn events(&self) -> impl Iterator<Item = &OomEvent> {
        let entries = self.lines.values().flatten().chain(&self.ready);
        entries.map(|entry| &entry.event)
    }

    /// The next that is ready.
    pub(crate) fn next(&mut self) -> Option<OomEvent> {
        let entry = self.ready.pop_front()?;
        if entry.is_pending {
            self.gone.push(entry.event.seq);
        }
        Some(entry.event)
    }

    /// Returns what the store lacks, each event once. With `all` the store has nothing.
    pub(crate) fn take_pending(&mut self, all: bool) -> Pending {
        let gone = std::mem::take(&mut self.gone);
        let mut events = Vec::new();
        for entry in self.lines.values_mut().flatten().chain(&mut self.ready) {
            if all || !entry.is_pending {
                entry.is_pending = true;
                events.push(Arc::new(entry.event.clone()));
            }
        }
        Pending {
            events,
            gone: if all { Vec::new() } else { gone },
        }
    }
}

/// What keeps an order: a container, or without one, the victim's cgroup.
fn line_of(event: &OomEvent) -> CgroupId {
    let container = event.container.as_ref();
    let container = container.map(|container| container.cgroup_id);
    let line = container.or(event.victim.cgroup_id);
    line.unwrap_or(CgroupId::ROOT)
}

#[cfg(test)]
mod tests;
