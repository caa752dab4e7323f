//! What the model's kernel, its daemon and those who register containers do, in any order.

use proptest::{collection::vec, option, prelude::*};

use super::{kernel::Act, store::Programs};

#[derive(Clone, Debug)]
pub(super) enum Action {
    /// `is_slow`: the steps of `act` are made while the daemon goes on.
    Kernel {
        act: Act,
        is_slow: bool,
    },
    /// Makes this many steps of the act under way.
    Steps(u8),
    /// What happens while the daemon reads files.
    Between(Vec<(u8, Act)>),
    /// Which of the next records find no room.
    Lose(u16),
    Drain,
    StoreIsSlow(u8),
    Audit,
    AuditIfDue,
    BeginScan,
    EndScan,
    Register(u8),
    Unregister(u8),
    Pass {
        seconds: u16,
    },
    /// The daemon is killed, things happen, and another one starts, which may be killed too.
    Restart {
        programs: Programs,
        dies_after: Option<u8>,
        meanwhile: Vec<Act>,
        during: Vec<(u8, Act)>,
    },
}

pub(super) fn programs() -> impl Strategy<Value = Programs> {
    prop_oneof![
        2 => Just(Programs::Own),
        3 => Just(Programs::Pinned),
        2 => Just(Programs::Upgraded),
    ]
}

pub(super) fn during() -> impl Strategy<Value = Vec<(u8, Act)>> {
    vec((0_u8..6, act()), 0..4)
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    let owner = option::weighted(0.15, any::<u8>());
    prop_oneof![
        6 => (any::<u8>(), owner).prop_map(|(at, owner)| Act::Kill { at, owner }),
        1 => any::<u8>().prop_map(|at| Act::Exiting { at }),
        1 => (any::<u8>(), 1_u8..4).prop_map(|(at, marks)| Act::Threads { at, marks }),
        1 => any::<u8>().prop_map(|at| Act::Again { at }),
        2 => (vec(any::<u8>(), 1..4), any::<u8>())
            .prop_map(|(members, again)| Act::Group { members, again }),
        6 => (any::<u8>(), proptest::bool::weighted(0.9), levels())
            .prop_map(|(parent, wants, levels)| Act::Create { parent, wants, levels }),
        5 => any::<u8>().prop_map(|at| Act::Remove { at }),
        1 => any::<u8>().prop_map(|at| Act::Toggle { at }),
    ]
}

fn levels() -> impl Strategy<Value = u8> {
    prop_oneof![10 => Just(1_u8), 2 => 2_u8..5, 1 => 16_u8..22]
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    let seconds = prop_oneof![4 => Just(1_u16), 1 => Just(31), 1 => Just(700)];
    let restart = (
        programs(),
        option::weighted(0.3, 0_u8..7),
        vec(act(), 0..6),
        during(),
    );
    let kernel = (act(), proptest::bool::weighted(0.3));
    prop_oneof![
        16 => kernel.prop_map(|(act, is_slow)| Action::Kernel { act, is_slow }),
        2 => (1_u8..8).prop_map(Action::Steps),
        2 => during().prop_map(Action::Between),
        3 => any::<u16>().prop_map(Action::Lose),
        6 => Just(Action::Drain),
        1 => (1_u8..6).prop_map(Action::StoreIsSlow),
        1 => Just(Action::Audit),
        3 => Just(Action::AuditIfDue),
        2 => Just(Action::BeginScan),
        2 => Just(Action::EndScan),
        3 => any::<u8>().prop_map(Action::Register),
        1 => any::<u8>().prop_map(Action::Unregister),
        1 => seconds.prop_map(|seconds| Action::Pass { seconds }),
        2 => restart.prop_map(|(programs, dies_after, meanwhile, during)| Action::Restart {
            programs,
            dies_after,
            meanwhile,
            during,
        }),
    ]
}
