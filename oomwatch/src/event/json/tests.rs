//! The schema as others see it.

use std::sync::Arc;

use crate::{
    containers::by_path::CgroupDiscovery,
    engine::{Engine, EngineConfig, compose::Origin, fixture::begin_at},
    event::{Now, OomEvent},
    id::CgroupId,
    ledger::Counting,
    record::{
        Record, VictimRecord,
        fixture::{memcg, victim},
    },
    tier::Tier,
    topology::owners::AllRoots,
};

fn event_of(record: VictimRecord) -> OomEvent {
    let origin = Origin {
        boot_id: "fe267c54-0aa2-43eb-82aa-b4fdccdd949b".into(),
        node: Some("n1".into()),
        tier: Tier::Btf,
    };
    let mut engine = Engine::new(EngineConfig {
        origin,
        discovery: CgroupDiscovery::Containers,
        units: false,
        root: CgroupId::ROOT,
        counting: Counting::Hierarchical,
        owners: Arc::new(AllRoots),
    });
    engine.learn(CgroupId(2), CgroupId::ROOT, b"crio-a");
    let id = format!("docker-{}.scope", "0123456789abcdef".repeat(4));
    engine.learn(CgroupId(3), CgroupId(2), id.as_bytes());
    begin_at(&mut engine, &[]);
    let now = Now {
        boottime_ns: 1_000_041_000,
        unix_time_ns: 1_787_394_225_123_497_789,
    };
    let mut events = engine.apply(&[Record::Victim(Box::new(record))], now);
    let mut event = events.pop().unwrap();
    event.delivered_ns = Some(41_000);
    event
}

fn a_kill() -> VictimRecord {
    victim(1234, 1_000_000_000, &[memcg(3, 1), memcg(2, 1)])
}

fn pretty(event: &OomEvent) -> String {
    let value: serde_json::Value = serde_json::from_str(&event.to_json()).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn the_whole_schema() {
    insta::assert_snapshot!(event_of(a_kill()).to_json());
    insta::assert_snapshot!(event_of(a_kill()).to_text(false));
}

#[test]
fn unknown_is_null() {
    let mut record = a_kill();
    record.victim.comm = None;
    record.is_init = None;
    record.limit = None;
    record.allocation = None;
    record.invocation = None;
    record.memory = crate::record::Memory::default();
    insta::assert_snapshot!(pretty(&event_of(record)));
}

#[test]
fn events_are_one_line_whatever_the_names() {
    let mut record = a_kill();
    record.victim.comm = Some(crate::id::printable(b"a\nb\x1b[31m\"\\\xff"));
    let event = event_of(record);
    for line in [event.to_json(), event.to_text(false)] {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    let value: serde_json::Value = serde_json::from_str(&event.to_json()).unwrap();
    assert_eq!(value["victim"]["comm"], r#"a\x0ab\x1b[31m"\\xff"#);
}
