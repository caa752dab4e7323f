//! What outlives a run of the model's daemon: the store, in one transaction a batch, and pinned rings. And how a run
//! ends and the next one begins.

use std::collections::{BTreeMap, HashSet};

use super::{
    Model,
    daemon::Daemon,
    kernel::{Note, Ring},
};
use crate::{
    engine::Engine,
    event::OomEvent,
    id::CgroupId,
    ledger::{Ledger, Reading, Readings, node::NodeLedger},
    reconcile::UpTo,
    record::Record,
};

/// Most readings of the first counters.
const MAX_READS: usize = 8;

/// Where a run has its programs from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Programs {
    Own,
    /// Those that are pinned, or where there are none, new ones that will be.
    Pinned,
    /// Newer ones than those that are pinned.
    Upgraded,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    ledgers: Option<BTreeMap<CgroupId, Ledger>>,
    pending: BTreeMap<u64, OomEvent>,
    rings: BTreeMap<u64, u64>,
    node_told_up_to: Option<u64>,
    /// When the last mark was made that was judged.
    judged: UpTo,
}

/// What a run has done since its last batch.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    pub(super) events: Vec<OomEvent>,
    /// With when they were read.
    pub(super) notes: Vec<(Note, u64)>,
    /// Rings of older generations, up to where they were read.
    older: Vec<(u64, u64)>,
}

impl Model {
    pub(super) fn save(&mut self) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let unsaved = std::mem::take(&mut daemon.unsaved);
        for (note, read_at) in unsaved.notes {
            self.known.entry(note).or_insert(read_at);
        }
        let read = (daemon.generation, daemon.read);
        if self.has_store {
            let store = &mut self.store;
            self.history.extend(unsaved.events);
            if !std::mem::replace(&mut daemon.has_saved, true) {
                // They are pending under new numbers, or were published.
                store.pending.clear();
            }
            let pending = daemon.engine.take_pending(false);
            for gone in pending.gone {
                store.pending.remove(&gone);
            }
            let pending = pending.events.into_iter();
            store
                .pending
                .extend(pending.map(|event| (event.seq, (*event).clone())));
            let ledgers = store.ledgers.get_or_insert_default();
            for (id, ledger) in daemon.engine.take_changes().0 {
                match ledger {
                    Some(ledger) => ledgers.insert(id, ledger),
                    None => ledgers.remove(&id),
                };
            }
            store
                .rings
                .extend(unsaved.older.iter().copied().chain([read]));
            let told = daemon.engine.node_reported();
            store.judged = daemon.engine.judged_up_to();
            store.node_told_up_to = daemon.book.map(|book| book.reported_up_to(told));
        }
        for ring in &mut self.kernel.rings {
            if ring.generation == read.0 {
                let given = read.1 - ring.first;
                ring.records.drain(..given as usize);
                ring.first = read.1;
            }
        }
        // Older ones are retired when what they had is handed over.
        if !unsaved.older.is_empty() {
            self.kernel
                .rings
                .retain(|ring| unsaved.older.iter().all(|(old, _)| ring.generation != *old));
        }
    }

    /// The daemon is killed.
    pub(super) fn crash(&mut self) {
        self.daemon = None;
        self.kernel.rings.retain(|ring| ring.is_pinned);
    }

    /// Begins a run. If the run is killed after `dies_after` of its steps, begins again.
    pub(super) fn start(&mut self, programs: Programs, dies_after: Option<u8>) {
        self.crash();
        if !self.has_store {
            self.history.clear();
        }
        let programs = if self.has_store {
            programs
        } else {
            Programs::Own
        };
        self.dies_after = dies_after;
        while self.try_start(programs).is_none() {
            self.dies_after = None;
            self.crash();
        }
        self.dies_after = None;
    }

    fn may_die(&mut self) -> Option<()> {
        match &mut self.dies_after {
            Some(0) => None,
            Some(steps) => {
                *steps -= 1;
                Some(())
            }
            None => Some(()),
        }
    }

    fn try_start(&mut self, programs: Programs) -> Option<()> {
        let (began, readings, node) = self.read_past();
        self.may_die()?;
        let older = self.attach(programs);
        let attached = self.kernel.clock;
        self.may_die()?;
        self.take_up();
        let is_resumed = self.engine().is_resumed();
        let is_going_on = programs != Programs::Own && !older.is_empty();
        if !is_going_on && !is_resumed {
            self.begin_era(began, attached, &readings);
            self.engine().begin(&Readings {
                readings: readings.clone(),
                unread: Vec::new(),
            });
        }
        let mut daemon = self.daemon.take()?;
        let walk = self.look(&daemon.engine);
        let now = self.now();
        daemon.engine.walked(&walk, now);
        self.daemon = Some(daemon);
        self.may_die()?;
        for id in std::mem::take(&mut self.labels) {
            self.register(id);
        }
        self.may_die()?;
        if is_going_on {
            self.engine().watching_since(attached);
            let backlog = self.read_backlog(&older);
            let records: Vec<Record> = backlog.iter().map(|(record, _)| record.clone()).collect();
            self.engine().learn_all(&records);
            self.may_die()?;
            self.engine().settle_resumed();
            self.apply(&backlog, true);
            if is_resumed {
                self.note_counters(true);
            } else {
                let began = self.kernel.clock;
                let readings = self.read_counters(true);
                self.kernel.settle();
                self.drain();
                self.begin_era_of_ring(began, &readings, &backlog);
                self.engine().begin(&Readings {
                    readings,
                    unread: Vec::new(),
                });
            }
        } else {
            self.engine().settle_resumed();
            if is_resumed {
                let now = self.now();
                let told = self.engine().compare_past(&readings, now);
                self.engine().admit(told, now);
            }
            if node != self.read_node() {
                self.note_counters(true);
            }
        }
        self.may_die()?;
        self.drain();
        self.engine().start_is_over();
        self.begin_node_audit();
        self.may_die()?;
        self.turn();
        Some(())
    }

    fn engine(&mut self) -> &mut Engine {
        &mut self.daemon.as_mut().unwrap().engine
    }

    fn read_past(&mut self) -> (u64, Vec<Reading>, u64) {
        let mut node = self.read_node();
        let (mut began, mut readings) = (0, Vec::new());
        for _ in 0..MAX_READS {
            self.kernel.settle();
            began = self.kernel.clock;
            readings = self.read_counters(false);
            let after = self.read_node();
            if std::mem::replace(&mut node, after) == after {
                break;
            }
        }
        (began, readings, node)
    }

    /// Attaches programs, or takes over those that are pinned; returns the generations that were there.
    fn attach(&mut self, programs: Programs) -> Vec<u64> {
        self.kernel.clock += 1;
        let rings = &mut self.kernel.rings;
        let mut pinned: Vec<u64> = rings.iter().map(|ring| ring.generation).collect();
        let goes_on = programs == Programs::Pinned && !pinned.is_empty();
        if !goes_on {
            self.generation += 1;
            self.attached.push(self.kernel.clock);
            rings.push(Ring {
                generation: self.generation,
                is_pinned: programs != Programs::Own,
                records: Vec::new().into(),
                first: 0,
                lost_victims: 0,
                lost_cgroups: 0,
            });
            pinned.push(self.generation);
        }
        let own = if goes_on {
            pinned[pinned.len() - 1]
        } else {
            self.generation
        };
        let first = self.position(own);
        self.daemon = Some(Daemon::new(own, first));
        if goes_on {
            pinned
        } else {
            pinned[..pinned.len() - 1].to_vec()
        }
    }

    /// Up to where a ring was handed over.
    fn position(&self, generation: u64) -> u64 {
        let stored = self.store.rings.get(&generation).copied().unwrap_or(0);
        let mut rings = self.kernel.rings.iter();
        let ring = rings.find(|ring| ring.generation == generation);
        ring.map_or(0, |ring| ring.first.max(stored))
    }

    fn read_backlog(&mut self, older: &[u64]) -> Vec<(Record, Note)> {
        let own = self.daemon.as_ref().unwrap().generation;
        let mut backlog = Vec::new();
        for &generation in older.iter().filter(|&&generation| generation != own) {
            let from = self.position(generation);
            let Some(ring) = self
                .kernel
                .rings
                .iter()
                .find(|ring| ring.generation == generation)
            else {
                continue;
            };
            backlog.extend(
                ring.records
                    .iter()
                    .skip((from - ring.first) as usize)
                    .cloned(),
            );
            let up_to = ring.first + ring.records.len() as u64;
            let daemon = self.daemon.as_mut().unwrap();
            daemon.unsaved.older.push((generation, up_to));
            daemon.audit_due |= ring.lost_victims > 0;
            daemon.scan_due |= ring.lost_cgroups > 0;
        }
        let daemon = self.daemon.as_mut().unwrap();
        let ring = self
            .kernel
            .rings
            .iter()
            .find(|ring| ring.generation == own)
            .unwrap();
        let unread = ring
            .records
            .iter()
            .skip((daemon.read - ring.first) as usize);
        backlog.extend(unread.cloned());
        daemon.read = ring.first + ring.records.len() as u64;
        backlog
    }

    /// What the store has.
    fn take_up(&mut self) {
        if !self.has_store {
            return;
        }
        let ledgers = self.store.ledgers.clone();
        let ledgers = ledgers.map(|ledgers| ledgers.into_iter().collect());
        // They are pending until they are stored as events.
        let pending = self.store.pending.values().cloned().collect();
        let now = self.now();
        self.engine().resume(ledgers, Vec::new());
        let judged = self.store.judged;
        self.engine().reported_up_to(judged);
        self.engine().resume_waiting(pending, now);
    }

    fn begin_node_audit(&mut self) {
        let told_up_to = self.store.node_told_up_to.filter(|_| self.has_store);
        if let Some(told_up_to) = told_up_to {
            let daemon = self.daemon.as_mut().unwrap();
            daemon.book = Some(NodeLedger::resume(told_up_to));
            daemon.is_past_open = true;
            if !self.is_noted() {
                self.end_past();
            }
            return;
        }
        let at_rest = self.node_at_rest();
        let before = at_rest.unwrap_or_else(|| self.read_node());
        let told = self.engine().node_reported();
        self.daemon.as_mut().unwrap().book = Some(NodeLedger::begin(before, told));
    }

    /// Counting begins: what these readings have is past. Increments in cgroups that went before the programs were
    /// attached may be reported, but need not be.
    fn begin_era(&mut self, began: u64, attached: u64, readings: &[Reading]) {
        self.past.clear();
        self.unsure.clear();
        self.known.clear();
        for (index, increment) in self.kernel.increments.iter().enumerate() {
            let own = increment.counters.first().copied();
            let inode = own.map(|serial| 10_000 + serial);
            let reading = readings.iter().find(|reading| reading.css.inode == inode);
            let is_gone =
                own.is_none_or(|own| self.kernel.gone.get(&own).is_some_and(|&at| at <= attached));
            let is_before = increment.at <= began;
            let is_past = match reading {
                Some(reading) => increment.number <= reading.own,
                None => is_before && is_gone,
            };
            // Where nothing was read, the hierarchical counter was 0: this one was not in it yet.
            if is_past {
                self.past.insert(index);
            } else if is_gone || is_before {
                self.unsure.insert(index);
            }
        }
    }

    /// The same after a backlog without a store: only the marks show what was counted.
    fn begin_era_of_ring(&mut self, began: u64, readings: &[Reading], backlog: &[(Record, Note)]) {
        self.begin_era(began, self.kernel.clock, readings);
        let told: HashSet<usize> = backlog
            .iter()
            .filter_map(|(_, note)| match note {
                Note::Increment(index) => Some(*index),
                _ => None,
            })
            .collect();
        for index in std::mem::take(&mut self.past) {
            if !told.contains(&index) {
                // A gap between two marks shows it; without such a gap nothing does.
                self.unsure.insert(index);
            }
        }
        let read_at = self.kernel.clock;
        self.known
            .extend(backlog.iter().map(|(_, note)| (*note, read_at)));
    }
}
