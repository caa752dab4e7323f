//! What the model's kernel, its daemon and those who register containers do, in any order.

use proptest::prelude::*;

use super::CONTAINERS;

/// What the kernel does. `lost` records find no room in the ring.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Kill {
        container: usize,
        lost: bool,
    },
    /// Marks a dying process: no counter moves.
    Dying {
        container: usize,
        lost: bool,
    },
    /// One process, several threads marked, one count.
    Threads {
        container: usize,
        marks: u8,
    },
    /// `count` processes, counted once more than that.
    Group {
        container: usize,
        count: u8,
        recount_after: u8,
        lost: u8,
    },
    /// The container goes, with its last counters, and comes back on a new cgroup.
    Replace {
        container: usize,
    },
    Audit,
    /// The counters are read, a kill being under way. Its record arrives after that.
    ReadCounters {
        container: usize,
    },
    /// Their time has come.
    CompareCounters,
    /// What is not registered, is now; `pod` or a container.
    Register {
        what: What,
    },
    /// The same, with a kill under way that is counted already. Its record arrives after that.
    RegisterMeanwhile {
        what: What,
        container: usize,
    },
    /// The registration is taken back; the next one has another id.
    Unregister {
        what: What,
    },
    /// Long enough for nothing to be claimed any more.
    Wait,
    /// From now on nothing reaches the store.
    StoreHangs,
    /// The daemon is killed, and another one goes on with what the store has.
    Restart(Restart),
    /// The same with programs that are pinned: they go on meanwhile.
    Pinned(Vec<Unread>),
}

/// What can be registered.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Pod,
    Container(usize),
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        1 => Just(What::Pod),
        2 => (0..CONTAINERS).prop_map(What::Container),
    ]
}

/// What the kernel does while no daemon reads the ring.
#[derive(Clone, Debug)]
pub(super) enum Unread {
    Kill {
        container: usize,
        lost: bool,
    },
    Dying {
        container: usize,
    },
    Group {
        container: usize,
        count: u8,
        recount_after: u8,
    },
    Replace {
        container: usize,
    },
}

fn unread() -> impl Strategy<Value = Unread> {
    let container = 0..CONTAINERS;
    prop_oneof![
        4 => (container.clone(), any::<bool>()).prop_map(|(container, lost)| Unread::Kill { container, lost }),
        2 => container.clone().prop_map(|container| Unread::Dying { container }),
        2 => (container.clone(), 1..5_u8, 0..5_u8).prop_map(
            |(container, count, recount_after)| Unread::Group { container, count, recount_after }
        ),
        1 => container.prop_map(|container| Unread::Replace { container }),
    ]
}

#[derive(Clone, Debug)]
pub(super) struct Restart {
    /// Kills in each container while nobody watches.
    pub(super) unseen: [u8; CONTAINERS],
    /// A container goes and comes back meanwhile.
    pub(super) replaced: Option<usize>,
    /// Marks after the new probe is attached and before the counters are read.
    pub(super) early: Vec<(usize, bool)>,
    /// Containers that are found only after the first audit.
    pub(super) late: [bool; CONTAINERS],
}

fn restart() -> impl Strategy<Value = Action> {
    let early = proptest::collection::vec((0..CONTAINERS, any::<bool>()), 0..4);
    let replaced = proptest::option::of(0..CONTAINERS);
    let unseen = proptest::array::uniform(0..3_u8);
    (unseen, replaced, early, any::<[bool; CONTAINERS]>()).prop_map(
        |(unseen, replaced, early, late)| {
            Action::Restart(Restart {
                unseen,
                replaced,
                early,
                late,
            })
        },
    )
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    let container = 0..CONTAINERS;
    prop_oneof![
        4 => (container.clone(), any::<bool>()).prop_map(|(container, lost)| Action::Kill { container, lost }),
        2 => (container.clone(), any::<bool>()).prop_map(|(container, lost)| Action::Dying { container, lost }),
        1 => (container.clone(), 1..6_u8).prop_map(|(container, marks)| Action::Threads { container, marks }),
        2 => (container.clone(), 1..5_u8, 0..5_u8, any::<u8>()).prop_map(
            |(container, count, recount_after, lost)| Action::Group { container, count, recount_after, lost }
        ),
        1 => container.clone().prop_map(|container| Action::Replace { container }),
        1 => container.clone().prop_map(|container| Action::ReadCounters { container }),
        1 => Just(Action::CompareCounters),
        1 => Just(Action::Audit),
        3 => what().prop_map(|what| Action::Register { what }),
        1 => (what(), container).prop_map(|(what, container)| Action::RegisterMeanwhile { what, container }),
        2 => what().prop_map(|what| Action::Unregister { what }),
        1 => Just(Action::Wait),
        1 => Just(Action::StoreHangs),
        2 => restart(),
        2 => proptest::collection::vec(unread(), 0..12).prop_map(Action::Pinned),
    ]
}
