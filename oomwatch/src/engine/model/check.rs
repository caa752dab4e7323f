//! What must hold in the model at the end, whatever happened.

use super::*;

impl Model {
    /// The last word on each event: a claim supersedes what was said under the same id.
    fn last_words(events: &[OomEvent]) -> HashMap<&str, &OomEvent> {
        let by_id = events.iter().map(|event| (event.id.as_str(), event));
        by_id.collect()
    }

    /// Kills and counter-only kills told of a registration, and for the pod of those below it.
    fn told(&self, cgroup: u64, registered: &Registered) -> u64 {
        let is_of_it = |event: &&OomEvent| {
            event.container.as_ref().is_some_and(|found| {
                cgroup == POD || found.cgroup_id.0 == cgroup && found.id.as_str() == registered.id
            })
        };
        let uncounted = |event: &&OomEvent| {
            event.supersedes.is_some() && !event.evidence.contains(&Evidence::Counter)
        };
        Self::last_words(&self.events[registered.since..])
            .into_values()
            .filter(is_of_it)
            // Claimed by the tracepoint's word alone, it is in no book.
            .filter(|event| !uncounted(event))
            .map(|event| event.count)
            .sum()
    }

    pub(super) fn check(&mut self) {
        self.audit();
        self.release_all();
        self.check_words();
        self.check_processes();
        self.check_law();
    }

    /// An id is used again only to supersede the one event that it was of.
    fn check_words(&self) {
        let mut ids: HashMap<&str, &OomEvent> = HashMap::new();
        for event in &self.events {
            if let Some(before) = ids.insert(&event.id, event) {
                assert_eq!(event.supersedes, Some(before.seq), "{}", event.id);
                assert!(before.container.is_none(), "claimed twice: {event:?}");
                assert!(event.container.is_some(), "{event:?}");
                assert_eq!(before.victim.pid, event.victim.pid);
            }
        }
    }

    pub(super) fn check_processes(&self) {
        let mut seen = HashSet::new();
        for event in Self::last_words(&self.events).into_values() {
            let Some(pid) = event.victim.pid else {
                continue;
            };
            assert!(
                seen.insert((pid, event.kind)),
                "process {pid} is reported twice"
            );
            let (_, counted) = self.processes[&pid];
            assert_eq!(event.kind == Kind::Kill, counted, "process {pid}");
            let container = event.container.as_ref();
            assert_eq!(
                container.map(|found| found.cgroup_id.0),
                self.owners[&pid],
                "process {pid} is in the wrong container"
            );
        }
    }

    /// `rise == kills + counter_only + recounts` for each container, and for the pod with those
    /// of its containers.
    fn check_law(&self) {
        for (container, numbers) in self.engine.numbers() {
            let id = &container.id;
            assert_eq!(numbers.residual(), 0, "{id}: {numbers:?}");
        }
        // Here all cgroups of the node are in the pod.
        let node_told = self.node_base + self.engine.node_told();
        let residual = self.counters[&POD].checked_sub(node_told);
        assert!(
            residual.is_some_and(|residual| residual <= self.untold),
            "the node: {} counted, {node_told} told, {} lost where no container was",
            self.counters[&POD],
            self.untold
        );
        for (&cgroup, registered) in &self.registered {
            let told = self.told(cgroup, registered);
            let rise = self.counters[&cgroup] - registered.base;
            let recounts = self.engine.reconciler.recounts(CgroupId(cgroup));
            let recounts = recounts - registered.recounts_before;
            assert_eq!(
                rise,
                told + recounts,
                "cgroup {cgroup}: {registered:?}, recounts {recounts}"
            );
        }
        if !self.recount_lost && self.registered.contains_key(&POD) {
            let recounts = self.engine.reconciler.recounts(CgroupId(POD));
            assert_eq!(recounts, self.recounts_made, "a second count is no kill");
        }
    }
}
