//! The model's kernel: memory cgroups with their counters, the OOM killer that raises them, and the programs'
//! rings, in which records may find no room.
//!
//! A kill is made in the kernel's steps: the node's count, the cgroup's own counter, the hierarchical ones from
//! there up, then the record. Whatever else happens may fall between any two of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    id::{CgroupId, Css},
    record::{
        CgroupChanged, Charged, DoubleCount, GroupEnd, Invocation, Memcg, Record,
        fixture::{change, memcg, victim},
    },
};

pub(super) const ROOT: u64 = 1;
/// Links of a chain that a record has room for.
const LINKS: usize = 16;

/// Counters of a memory cgroup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters {
    pub(super) serial: u64,
    pub(super) own: u64,
    pub(super) sum: u64,
}

impl Counters {
    pub(super) fn css(&self) -> Css {
        Css {
            inode: Some(10_000 + self.serial),
            serial: Some(self.serial),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    pub(super) parent: u64,
    /// `None` where the controller is off.
    pub(super) counters: Option<Counters>,
    /// Whether the controller is on when it is on in the parent.
    wants: bool,
}

/// What the model knows of one increment.
#[derive(Clone, Debug)]
pub(super) struct Increment {
    pub(super) pid: u32,
    pub(super) is_double: bool,
    /// Of a task that was dying when it was marked: a run that missed the mark takes it for a double count.
    pub(super) is_again: bool,
    /// Counters that have it, its own cgroup's first; without the root's.
    pub(super) counters: Vec<u64>,
    /// Its number among those of its own counter.
    pub(super) number: u64,
    pub(super) at: u64,
    /// Whether some ring had no room for its record.
    pub(super) is_lost_somewhere: bool,
}

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Note {
    Increment(usize),
    /// Counters that are gone.
    Removed(Option<u64>),
    Other,
}

/// The ring of one generation of programs.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) generation: u64,
    pub(super) is_pinned: bool,
    pub(super) records: VecDeque<(Record, Note)>,
    /// Number of records that were given back before these.
    pub(super) first: u64,
    pub(super) lost_victims: u64,
    pub(super) lost_cgroups: u64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Node,
    Own(Kill),
    Sum(u64),
    Record(Kill),
    /// A mark of a task that was dying, or of a further thread: no counter moves.
    Exiting {
        pid: u32,
        tid: u32,
        place: u64,
        owner: u64,
        group: Option<u32>,
    },
    End {
        marks: u32,
    },
}

impl Step {
    /// The mark of a thread that is dying by itself, whose memory is its own cgroup's.
    fn exiting(pid: u32, tid: u32, place: u64) -> Self {
        Self::Exiting {
            pid,
            tid,
            place,
            owner: place,
            group: None,
        }
    }
}

/// One increment to be made.
#[derive(Clone, Copy, Debug)]
struct Kill {
    pid: u32,
    place: u64,
    /// Where the owner of its memory is.
    owner: u64,
    is_double: bool,
    is_again: bool,
    /// Its place in a group kill.
    group: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) clock: u64,
    pub(super) cgroups: BTreeMap<u64, Cgroup>,
    /// Parents of all cgroups there ever were.
    pub(super) parents: BTreeMap<u64, u64>,
    next_cgroup: u64,
    next_serial: u64,
    next_pid: u32,
    call: u64,
    pub(super) node: u64,
    pub(super) increments: Vec<Increment>,
    pub(super) rings: Vec<Ring>,
    steps: VecDeque<Step>,
    /// Which of the next records find no room.
    pub(super) lose: u32,
    /// Counters that are gone, and when.
    pub(super) gone: BTreeMap<u64, u64>,
    /// Counters that are gone because their controller was switched off.
    pub(super) switched: BTreeSet<u64>,
    /// Whether that may happen.
    pub(super) may_switch: bool,
}

/// What happens in the kernel. A number names a cgroup by its place among those that are there.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Kill {
        at: u8,
        owner: Option<u8>,
    },
    Exiting {
        at: u8,
    },
    Threads {
        at: u8,
        marks: u8,
    },
    /// A task that was dying is killed for good.
    Again {
        at: u8,
    },
    Group {
        members: Vec<u8>,
        again: u8,
    },
    Create {
        parent: u8,
        wants: bool,
        levels: u8,
    },
    Remove {
        at: u8,
    },
    /// The controller of a cgroup's children is switched off and on.
    Toggle {
        at: u8,
    },
}

impl Kernel {
    pub(super) fn new() -> Self {
        let root = Cgroup {
            parent: 0,
            counters: Some(Counters {
                serial: 1,
                own: 0,
                sum: 0,
            }),
            wants: true,
        };
        Self {
            clock: 1,
            cgroups: BTreeMap::from([(ROOT, root)]),
            parents: BTreeMap::new(),
            next_cgroup: 10,
            next_serial: 2,
            next_pid: 1,
            call: 0,
            node: 0,
            increments: Vec::new(),
            rings: Vec::new(),
            steps: VecDeque::new(),
            lose: 0,
            gone: BTreeMap::new(),
            switched: BTreeSet::new(),
            may_switch: false,
        }
    }

    /// All cgroups below the root.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.cgroups
            .keys()
            .copied()
            .filter(|&id| id != ROOT)
            .collect()
    }

    pub(super) fn pick(&self, at: u8) -> Option<u64> {
        let ids = self.ids();
        (!ids.is_empty()).then(|| ids[usize::from(at) % ids.len()])
    }

    pub(super) fn children(&self, of: u64) -> Vec<u64> {
        let all = self.cgroups.iter();
        all.filter(|(_, cgroup)| cgroup.parent == of)
            .map(|(&id, _)| id)
            .collect()
    }

    /// The cgroup and those above it, also of one that is gone.
    pub(super) fn lineage(&self, id: u64) -> Vec<u64> {
        std::iter::successors(Some(id), |id| self.parents.get(id).copied()).collect()
    }

    /// Ends the increment under way: the next one begins with its first step after that.
    pub(super) fn settle(&mut self) {
        while matches!(
            self.steps.front(),
            Some(Step::Own(_) | Step::Sum(_) | Step::Record(_))
        ) {
            self.step();
        }
    }

    pub(super) fn finish(&mut self) {
        while self.step() {}
    }

    fn new_counters(&mut self) -> Counters {
        self.next_serial += 1;
        Counters {
            serial: self.next_serial,
            own: 0,
            sum: 0,
        }
    }

    /// Begins an act that takes several steps, and does any other at once.
    pub(super) fn act(&mut self, act: &Act) {
        match *act {
            Act::Kill { at, owner } => {
                self.finish();
                let Some(place) = self.pick(at) else { return };
                let owner = owner.and_then(|owner| self.pick(owner)).unwrap_or(place);
                let pid = self.new_call();
                self.kill(Kill {
                    pid,
                    place,
                    owner,
                    is_double: false,
                    is_again: false,
                    group: None,
                });
            }
            Act::Exiting { at } => {
                self.finish();
                let Some(place) = self.pick(at) else { return };
                let pid = self.new_call();
                self.steps.push_back(Step::exiting(pid, pid, place));
            }
            Act::Threads { at, marks } => {
                self.finish();
                let Some(place) = self.pick(at) else { return };
                let pid = self.new_call();
                self.kill(Kill {
                    pid,
                    place,
                    owner: place,
                    is_double: false,
                    is_again: false,
                    group: None,
                });
                for tid in 1..=marks {
                    let tid = pid + 100_000 * u32::from(tid);
                    self.steps.push_back(Step::exiting(pid, tid, place));
                }
            }
            Act::Again { at } => {
                self.finish();
                let Some(place) = self.pick(at) else { return };
                let pid = self.new_call();
                self.steps.push_back(Step::exiting(pid, pid, place));
                self.kill(Kill {
                    pid,
                    place,
                    owner: place,
                    is_double: true,
                    is_again: true,
                    group: None,
                });
            }
            Act::Group { ref members, again } => self.group(members, again),
            Act::Create {
                parent,
                wants,
                levels,
            } => {
                let ids: Vec<u64> = self.cgroups.keys().copied().collect();
                let mut parent = ids[usize::from(parent) % ids.len()];
                for _ in 0..levels.max(1) {
                    parent = self.create(parent, wants);
                }
            }
            Act::Remove { at } => {
                if let Some(id) = self.pick(at) {
                    self.remove(id);
                }
            }
            Act::Toggle { at } => {
                self.settle();
                if let Some(id) = self.pick(at).filter(|_| self.may_switch) {
                    for child in self.children(id) {
                        self.switch(child, false);
                        self.switch(child, true);
                    }
                }
            }
        }
    }

    fn new_call(&mut self) -> u32 {
        self.call += 1;
        self.next_pid += 1;
        self.next_pid - 1
    }

    fn group(&mut self, members: &[u8], again: u8) {
        self.finish();
        self.call += 1;
        let mut first = None;
        for (index, &at) in members.iter().enumerate() {
            let Some(place) = self.pick(at) else { return };
            self.next_pid += 1;
            let group = Some(index as u32);
            let kill = Kill {
                pid: self.next_pid - 1,
                place,
                owner: place,
                is_double: false,
                is_again: false,
                group,
            };
            self.kill(kill);
            let first = *first.get_or_insert(Kill {
                is_double: true,
                ..kill
            });
            if index == usize::from(again) % members.len() {
                self.kill(first);
            }
        }
        self.steps.push_back(Step::End {
            marks: members.len() as u32,
        });
    }

    fn kill(&mut self, kill: Kill) {
        self.steps.extend([Step::Node, Step::Own(kill)]);
    }

    fn create(&mut self, parent: u64, wants: bool) -> u64 {
        let id = self.next_cgroup;
        self.next_cgroup += 1;
        let has = wants && self.cgroups[&parent].counters.is_some();
        let counters = has.then(|| self.new_counters());
        self.cgroups.insert(
            id,
            Cgroup {
                parent,
                counters,
                wants,
            },
        );
        self.parents.insert(id, parent);
        self.clock += 1;
        let record = change(id, parent, &format!("c{id}"), self.clock);
        self.push(&Record::CgroupCreated(record), Note::Other);
        id
    }

    /// Removes a cgroup, if no process that is yet to be killed is in it or below it.
    fn remove(&mut self, id: u64) {
        let holds = |kill: &Kill| kill.place == id || kill.owner == id;
        let is_busy = self.steps.iter().any(|step| match step {
            Step::Own(kill) | Step::Record(kill) => holds(kill),
            Step::Exiting { place, owner, .. } => *place == id || *owner == id,
            _ => false,
        });
        if is_busy || !self.children(id).is_empty() {
            return;
        }
        self.clock += 1;
        let cgroup = self.cgroups.remove(&id).unwrap();
        let mut record: CgroupChanged = change(id, cgroup.parent, &format!("c{id}"), self.clock);
        if let Some(counters) = cgroup.counters {
            record.counters = Some(link(id, &counters));
            record.charged = Some(charged(id, &counters));
            self.gone.insert(counters.serial, self.clock);
        }
        let note = Note::Removed(cgroup.counters.map(|counters| counters.serial));
        self.push(&Record::CgroupRemoved(record), note);
    }

    fn switch(&mut self, id: u64, on: bool) {
        let cgroup = &self.cgroups[&id];
        let has = on && cgroup.wants && self.cgroups[&cgroup.parent].counters.is_some();
        let old = cgroup.counters;
        let counters = has.then(|| self.new_counters());
        self.clock += 1;
        if let Some(old) = old {
            self.gone.insert(old.serial, self.clock);
            self.switched.insert(old.serial);
        }
        self.cgroups.get_mut(&id).unwrap().counters = counters;
        for child in self.children(id) {
            self.switch(child, on);
        }
    }

    /// The cgroup that kills of an owner are charged to, and those above it that have counters.
    fn charged_lineage(&self, owner: u64) -> Vec<(u64, Counters)> {
        let lineage = self.lineage(owner).into_iter();
        let counting = lineage.filter_map(|id| Some((id, self.cgroups.get(&id)?.counters?)));
        counting.collect()
    }

    /// Makes one step of the act under way; tells whether there was one.
    pub(super) fn step(&mut self) -> bool {
        let Some(step) = self.steps.pop_front() else {
            return false;
        };
        self.clock += 1;
        match step {
            Step::Node => self.node += 1,
            Step::Own(kill) => self.count(kill),
            Step::Sum(serial) => {
                if let Some(counters) = self.counters_mut(serial) {
                    counters.sum += 1;
                }
            }
            Step::Record(kill) => self.record(kill),
            Step::Exiting {
                pid,
                tid,
                place,
                owner,
                group,
            } => {
                let record = self.mark((pid, tid), (place, owner), false, group);
                self.push(&record, Note::Other);
            }
            Step::End { marks } => {
                let record = GroupEnd {
                    seq: 0,
                    boottime_ns: self.clock,
                    invocation: self.call,
                    marks,
                };
                self.push(&Record::GroupEnd(record), Note::Other);
            }
        }
        true
    }

    fn counters_mut(&mut self, serial: u64) -> Option<&mut Counters> {
        let all = self.cgroups.values_mut();
        let mut all = all.filter_map(|cgroup| cgroup.counters.as_mut());
        all.find(|counters| counters.serial == serial)
    }

    fn count(&mut self, kill: Kill) {
        let lineage = self.charged_lineage(kill.owner);
        let serials: Vec<u64> = lineage
            .iter()
            .map(|(_, counters)| counters.serial)
            .collect();
        let own = self.counters_mut(serials[0]).unwrap();
        own.own += 1;
        let number = own.own;
        self.increments.push(Increment {
            pid: kill.pid,
            is_double: kill.is_double,
            counters: serials
                .iter()
                .copied()
                .filter(|&serial| serial != 1)
                .collect(),
            is_again: kill.is_again,
            number,
            at: self.clock,
            is_lost_somewhere: false,
        });
        self.steps.push_front(Step::Record(kill));
        for &serial in serials.iter().rev() {
            self.steps.push_front(Step::Sum(serial));
        }
    }

    fn record(&mut self, kill: Kill) {
        let note = Note::Increment(self.increments.len() - 1);
        let record = if kill.is_double {
            let lineage = self.charged_lineage(kill.owner);
            let (id, counters) = lineage[0];
            let above = lineage.get(1).map_or(ROOT, |(id, _)| *id);
            Record::DoubleCount(DoubleCount {
                seq: 0,
                boottime_ns: self.clock,
                invocation: Some(self.call),
                pid: Some(kill.pid),
                start_boottime_ns: Some(u64::from(kill.pid)),
                charged: charged(id, &counters),
                parent_id: Some(CgroupId(above)).filter(|above| above.0 != id),
            })
        } else {
            self.mark(
                (kill.pid, kill.pid),
                (kill.place, kill.owner),
                true,
                kill.group,
            )
        };
        self.push(&record, note);
    }

    fn mark(
        &self,
        (pid, tid): (u32, u32),
        (place, owner): (u64, u64),
        counted: bool,
        group: Option<u32>,
    ) -> Record {
        let lineage = self.charged_lineage(owner);
        let chain: Vec<Memcg> = lineage
            .iter()
            .take(LINKS)
            .map(|(id, counters)| link(*id, counters))
            .collect();
        let mut record = victim(pid, self.clock, &chain);
        record.victim.tid = tid;
        record.victim.cgroup_id = Some(CgroupId(place));
        record.charged = Some(charged(lineage[0].0, &lineage[0].1));
        record.counted = Some(counted);
        record.invocation = Some(Invocation {
            number: self.call,
            index: group.unwrap_or(0),
            kills_group: group.is_some(),
        });
        Record::Victim(Box::new(record))
    }

    /// Gives a record to all programs that are attached, one after the other.
    fn push(&mut self, record: &Record, note: Note) {
        for ring in &mut self.rings {
            let is_lost = self.lose & 1 != 0;
            self.lose >>= 1;
            self.clock += 1;
            let mut record = record.clone();
            match &mut record {
                Record::Victim(victim) => victim.boottime_ns = self.clock,
                Record::CgroupCreated(change) | Record::CgroupRemoved(change) => {
                    change.boottime_ns = self.clock;
                }
                Record::DoubleCount(count) => count.boottime_ns = self.clock,
                Record::GroupEnd(end) => end.boottime_ns = self.clock,
            }
            record.set_generation(ring.generation);
            let is_of_cgroup =
                matches!(record, Record::CgroupCreated(_) | Record::CgroupRemoved(_));
            if is_lost && let Note::Increment(index) = note {
                self.increments[index].is_lost_somewhere = true;
            }
            if !is_lost {
                ring.records.push_back((record, note));
            } else if is_of_cgroup {
                ring.lost_cgroups += 1;
            } else {
                ring.lost_victims += 1;
            }
        }
    }
}

fn link(id: u64, counters: &Counters) -> Memcg {
    Memcg {
        serial: counters.serial as u32,
        ..memcg(id, counters.sum)
    }
}

fn charged(id: u64, counters: &Counters) -> Charged {
    Charged {
        cgroup_id: CgroupId(id),
        css: counters.css(),
        oom_kill: counters.own,
    }
}
