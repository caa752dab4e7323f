//! Records as bytes: good ones, cut ones, and those of another version.

use oomwatch_common::record::{COMM_LEN, MAX_CHAIN, NAME_LEN};
use zerocopy::{FromZeros, IntoBytes};

use super::*;

const PAGE: u64 = 4096;

fn header<T>(kind: u16) -> Header {
    Header {
        version: WIRE_VERSION,
        kind,
        size: size_of::<T>() as u32,
        seq: 1,
        boottime_ns: 2,
    }
}

fn wire_victim() -> Victim {
    let mut comm = [0; COMM_LEN];
    comm[..6].copy_from_slice(b"a\nb\x1b\xff\0");
    let mut chain = [ChainLink::new_zeroed(); MAX_CHAIN];
    chain[0].cgroup_id = 10;
    Victim {
        header: header::<Victim>(KIND_VICTIM),
        fields: field::TGID | field::COMM | field::RSS | field::CHAIN | field::LIMIT,
        tgid: 7,
        uid: 1000,
        anon_rss_pages: 3,
        chain,
        comm,
        ..Victim::new_zeroed()
    }
}

/// Decodes from memory aligned as the ring's is.
fn decode_aligned(bytes: &[u8]) -> Result<Record, DecodeError> {
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    let memory = words.as_mut_bytes();
    memory[..bytes.len()].copy_from_slice(bytes);
    decode(&memory[..bytes.len()], PAGE)
}

#[test]
fn only_fields_that_were_read_are_known() {
    let Ok(Record::Victim(victim)) = decode_aligned(wire_victim().as_bytes()) else {
        panic!("a victim");
    };
    assert_eq!(victim.victim.pid, Some(7));
    assert_eq!(victim.victim.uid, None);
    assert_eq!(victim.start_boottime_ns, None);
    assert_eq!(victim.memory.anon_rss_bytes, Some(3 * PAGE));
    assert_eq!(victim.memory.total_vm_bytes, None);
    assert_eq!(victim.victim.comm.as_deref(), Some(r"a\x0ab\x1b\xff"));
    assert_eq!(victim.limit, Some(LimitHit::Node { total_bytes: None }));
    assert_eq!(victim.invocation, None);
}

#[test]
fn a_counter_that_the_kernel_lacks_is_unknown() {
    let mut wire = wire_victim();
    wire.chain[0].counters.oom = 99;
    wire.chain[0].counters.oom_kill = 5;
    let Ok(Record::Victim(victim)) = decode_aligned(wire.as_bytes()) else {
        panic!("a victim");
    };
    assert_eq!(victim.chain.len(), 1);
    assert_eq!(victim.chain[0].oom, None);
    assert_eq!(victim.chain[0].oom_kill, Some(5));
}

#[test]
fn a_chain_may_fill_the_record() {
    let mut wire = wire_victim();
    wire.chain = [wire.chain[0]; MAX_CHAIN];
    let Ok(Record::Victim(victim)) = decode_aligned(wire.as_bytes()) else {
        panic!("a victim");
    };
    assert_eq!(victim.chain.len(), MAX_CHAIN);
}

#[test]
fn a_limit_that_is_not_set_is_unknown() {
    let page = 4096;
    let mut wire = wire_victim();
    wire.fields |= field::LIMIT | field::LIMIT_USAGE | field::OOM_CONTROL;
    wire.limit_memcg_id = 7;
    let max = |wire: &Victim| match limit(wire, page) {
        Some(LimitHit::Memcg { max_bytes, .. }) => max_bytes,
        other => panic!("{other:?}"),
    };
    wire.limit_max_pages = 4096;
    assert_eq!(max(&wire), Some(16 << 20));
    wire.limit_max_pages = 0;
    assert_eq!(max(&wire), Some(0), "memory.max may be 0");
    wire.limit_max_pages = i64::MAX.unsigned_abs() / page;
    assert_eq!(max(&wire), None, "`max` is no limit");
    // The kernel's shortcut for a task that is dying already comes before it looks at the node's memory.
    wire.limit_memcg_id = 0;
    wire.total_pages = 0;
    assert_eq!(
        limit(&wire, page),
        Some(LimitHit::Node { total_bytes: None })
    );
}

/// S4b: a group above the limit that was hit does not make a group kill.
#[test]
fn only_groups_up_to_the_limit_count() {
    let mut wire = wire_victim();
    wire.fields |= field::INVOCATION | field::OOM_GROUPS;
    for (link, id) in wire.chain.iter_mut().zip([10, 11, 12]) {
        link.cgroup_id = id;
    }
    wire.oom_groups[1] = 1;
    for (limit, expected) in [(10, false), (11, true), (12, true), (0, true)] {
        wire.limit_memcg_id = limit;
        assert_eq!(kills_group(&wire), expected, "limit of {limit}");
    }
}

#[test]
fn cut_records_name_their_length() {
    let wire = wire_victim();
    let bytes = wire.as_bytes();
    assert_eq!(decode_aligned(&bytes[..8]), Err(DecodeError::NoHeader(8)));
    for length in [24, 600, 872, 903] {
        let expected = DecodeError::Length {
            kind: KIND_VICTIM,
            expected: size_of::<Victim>(),
            found: length,
        };
        assert_eq!(decode_aligned(&bytes[..length]), Err(expected));
    }
}

#[test]
fn other_versions_and_kinds_are_refused() {
    let mut wire = wire_victim();
    wire.header.version = 99;
    assert_eq!(
        decode_aligned(wire.as_bytes()),
        Err(DecodeError::Version { found: 99 })
    );
    wire.header.version = WIRE_VERSION;
    wire.header.kind = 77;
    assert_eq!(decode_aligned(wire.as_bytes()), Err(DecodeError::Kind(77)));
}

#[test]
fn a_name_without_an_end_is_taken_whole() {
    let wire = CgroupChange {
        header: header::<CgroupChange>(KIND_CGROUP_CREATED),
        fields: change_field::NAME | change_field::PARENT,
        parent_id: 4,
        name: [b'x'; NAME_LEN],
        ..CgroupChange::new_zeroed()
    };
    let Ok(Record::CgroupCreated(change)) = decode_aligned(wire.as_bytes()) else {
        panic!("a creation");
    };
    assert_eq!(change.name.map(|name| name.len()), Some(NAME_LEN));
    assert_eq!(change.parent_id, Some(CgroupId(4)));
    assert_eq!(change.counters, None);
}

fn wire_charged() -> record::Charged {
    record::Charged {
        cgroup_id: 10,
        inode: 77,
        serial: 1 << 40,
        oom_kill: 3,
    }
}

#[test]
fn a_victim_says_what_it_was_charged_to_and_whether() {
    let decoded = |fields| {
        let mut wire = wire_victim();
        wire.fields |= fields;
        wire.charged = wire_charged();
        match decode_aligned(wire.as_bytes()) {
            Ok(Record::Victim(victim)) => (victim.charged, victim.counted),
            other => panic!("{other:?}"),
        }
    };
    let mut charged = Charged {
        cgroup_id: CgroupId(10),
        css: Css {
            inode: Some(77),
            serial: Some(1 << 40),
        },
        oom_kill: 3,
    };
    assert_eq!(decoded(0), (None, None));
    assert_eq!(
        decoded(field::OF_CHARGED | field::COUNTED),
        (Some(charged), Some(true))
    );
    charged.css.inode = None;
    assert_eq!(
        decoded(field::CHARGED | field::NOT_COUNTED),
        (Some(charged), Some(false))
    );
}

#[test]
fn a_removal_has_no_inode_any_more() {
    let mut wire = CgroupChange {
        header: header::<CgroupChange>(KIND_CGROUP_REMOVED),
        fields: change_field::CHARGED | change_field::CSS_INODE,
        charged: wire_charged(),
        ..CgroupChange::new_zeroed()
    };
    wire.charged.inode = 0;
    let Ok(Record::CgroupRemoved(change)) = decode_aligned(wire.as_bytes()) else {
        panic!("a removal");
    };
    let charged = change.charged.unwrap();
    assert_eq!((charged.css.inode, charged.oom_kill), (None, 3));
    assert_eq!(charged.css.serial, Some(1 << 40));
}

#[test]
fn a_double_count_has_a_call_where_one_is_known() {
    let mut wire = record::DoubleCount {
        header: header::<record::DoubleCount>(KIND_DOUBLE_COUNT),
        fields: field::TGID | field::CSS_INODE,
        charged: wire_charged(),
        tgid: 7,
        ..record::DoubleCount::new_zeroed()
    };
    for (invocation, expected) in [(0, None), (4, Some(4))] {
        wire.invocation = invocation;
        let Ok(Record::DoubleCount(count)) = decode_aligned(wire.as_bytes()) else {
            panic!("a double count");
        };
        assert_eq!(count.invocation, expected);
        assert_eq!((count.pid, count.start_boottime_ns), (Some(7), None));
        assert_eq!(count.charged.css.inode, Some(77));
        assert_eq!(count.charged.oom_kill, 3);
        assert_eq!(count.parent_id, None);
    }
    wire.parent_id = 5;
    let Ok(Record::DoubleCount(count)) = decode_aligned(wire.as_bytes()) else {
        panic!("a double count");
    };
    assert_eq!(count.parent_id, Some(CgroupId(5)));
}

#[test]
fn the_end_of_a_group_says_how_many() {
    let wire = InvocationEnd {
        header: header::<InvocationEnd>(KIND_INVOCATION_END),
        invocation: 4,
        marks: 3,
        ..InvocationEnd::new_zeroed()
    };
    let Ok(Record::GroupEnd(end)) = decode_aligned(wire.as_bytes()) else {
        panic!("an end");
    };
    assert_eq!((end.invocation, end.marks), (4, 3));
}

proptest::proptest! {
    #[test]
    fn any_bytes_end_in_a_record_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1000)) {
        let _ = decode_aligned(&bytes);
    }
}
