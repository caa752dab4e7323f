//! The resolver on small hand-made kernels: both prototypes of `mark_victim`, both layouts of
//! `rss_stat`, and what must become absent.

use super::*;
use crate::{probe::btf::tests::Writer, tier::Tier};

/// How a hand-made kernel differs from another.
#[derive(Clone, Copy)]
struct Kernel {
    passes_task: bool,
    percpu_rss: bool,
    group_kill_event: bool,
    tgid_bytes: u32,
    second_css_set: bool,
    marks_oom_mm: bool,
    local_events: LocalEvents,
}

/// The local counters that a memory cgroup has.
#[derive(Clone, Copy, PartialEq)]
enum LocalEvents {
    None,
    Counter,
    CounterAndFile,
}

const NEW: Kernel = Kernel {
    passes_task: true,
    percpu_rss: true,
    group_kill_event: true,
    tgid_bytes: 4,
    second_css_set: false,
    marks_oom_mm: true,
    local_events: LocalEvents::CounterAndFile,
};

const OLD: Kernel = Kernel {
    passes_task: false,
    percpu_rss: false,
    group_kill_event: false,
    ..NEW
};

fn image(kernel: Kernel) -> Vec<u8> {
    let mut w = Writer::new();
    let char_ = w.int("char", 1);
    let int = w.int("int", 4);
    let long = w.int("long", 8);
    let tgid = w.int("tgid_t", kernel.tgid_bytes);
    let atomic = w.structure("", 8, &[("counter", long, 0)]);
    let atomic = w.typedef("atomic_long_t", atomic);
    let comm = w.array(char_, 16);
    let css_set = w.forward("css_set");
    let css_set = w.pointer(css_set);
    let signal = w.forward("signal_struct");
    let signal = w.pointer(signal);
    let task = w.structure(
        "task_struct",
        64,
        &[
            ("pid", int, 0),
            ("tgid", tgid, 32),
            ("comm", comm, 64),
            ("cgroups", css_set, 256),
            ("signal", signal, 320),
        ],
    );
    let task_pointer = w.pointer(task);
    mm_struct(&mut w, kernel, atomic, task_pointer, long);
    let kn = cgroups(&mut w, kernel, long, int, char_);
    mem_cgroup(&mut w, kernel, atomic, kn);
    let mut events = vec![("MEMCG_OOM", 3), ("MEMCG_OOM_KILL", 4)];
    if kernel.group_kill_event {
        events.push(("MEMCG_OOM_GROUP_KILL", 5));
    }
    w.enumeration("memcg_memory_event", &events);
    let void = w.pointer(0);
    let parameters = if kernel.passes_task {
        w.prototype(&[void, task_pointer, int])
    } else {
        w.prototype(&[void, int])
    };
    let traced = w.pointer(parameters);
    w.typedef("btf_trace_mark_victim", traced);
    w.function("out_of_memory", parameters);
    w.image()
}

fn mm_struct(w: &mut Writer, kernel: Kernel, atomic: u32, task: u32, long: u32) {
    let rss = if kernel.percpu_rss {
        let counter = w.structure(
            "percpu_counter",
            40,
            &[("lock", long, 0), ("count", long, 64)],
        );
        w.array(counter, 4)
    } else {
        let counts = w.array(atomic, 4);
        w.structure("mm_rss_stat", 32, &[("count", counts, 0)])
    };
    w.structure(
        "mm_struct",
        512,
        &[
            ("owner", task, 0),
            ("total_vm", long, 64),
            ("rss_stat", rss, 128),
        ],
    );
    let mm = w.forward("mm_struct");
    let mm = w.pointer(mm);
    let oom_mm = if kernel.marks_oom_mm { "oom_mm" } else { "mm" };
    w.structure(
        "signal_struct",
        64,
        &[("count", long, 0), (oom_mm, mm, 192)],
    );
}

fn mem_cgroup(w: &mut Writer, kernel: Kernel, atomic: u32, kn: u32) {
    let css = w.forward("cgroup_subsys_state");
    let file = w.structure("cgroup_file", 48, &[("kn", kn, 64)]);
    let events = w.array(atomic, 9);
    let mut members = vec![("css", css, 0), ("memory_events", events, 1024)];
    if kernel.local_events != LocalEvents::None {
        members.push(("memory_events_local", events, 2048));
    }
    if kernel.local_events == LocalEvents::CounterAndFile {
        members.push(("events_local_file", file, 512));
    }
    w.structure("mem_cgroup", 400, &members);
}

/// Returns the pointer to `struct kernfs_node`.
fn cgroups(w: &mut Writer, kernel: Kernel, long: u32, int: u32, char_: u32) -> u32 {
    let constant = w.constant(char_);
    let name = w.pointer(constant);
    let kn = w.structure("kernfs_node", 32, &[("name", name, 64), ("id", long, 128)]);
    let kn = w.pointer(kn);
    let root = w.structure("cgroup_root", 16, &[("hierarchy_id", int, 32)]);
    let root = w.pointer(root);
    let cgroup_forward = w.forward("cgroup");
    let cgroup_pointer = w.pointer(cgroup_forward);
    let css_forward = w.forward("cgroup_subsys_state");
    let parent = w.pointer(css_forward);
    let css = w.structure(
        "cgroup_subsys_state",
        64,
        &[
            ("cgroup", cgroup_pointer, 0),
            ("serial_nr", long, 64),
            ("parent", parent, 128),
        ],
    );
    let css_pointer = w.pointer(css);
    let subsys = w.array(css_pointer, 14);
    w.enumeration(
        "cgroup_subsys_id",
        &[("cpuset_cgrp_id", 0), ("memory_cgrp_id", 4)],
    );
    w.structure(
        "cgroup",
        400,
        &[
            ("self", css, 0),
            ("kn", kn, 512),
            ("root", root, 576),
            ("subsys", subsys, 640),
        ],
    );
    w.structure(
        "css_set",
        200,
        &[("subsys", subsys, 0), ("dfl_cgrp", cgroup_pointer, 1024)],
    );
    if kernel.second_css_set {
        w.structure(
            "css_set",
            200,
            &[("subsys", subsys, 0), ("dfl_cgrp", cgroup_pointer, 960)],
        );
    }
    kn
}

fn resolved(kernel: Kernel) -> Layout {
    resolve(&image(kernel)).unwrap()
}

fn gap<'a>(layout: &'a Layout, member: &str) -> Option<&'a str> {
    let found = layout.gaps.iter().find(|gap| gap.member == member);
    found.map(|gap| gap.reason)
}

#[test]
fn a_kernel_that_passes_the_task() {
    let layout = resolved(NEW);
    assert_eq!(layout.config.mark_victim_passes, MARK_VICTIM_TASK);
    assert_eq!(layout.config.task_tgid, 4);
    assert_eq!(layout.config.css_set_dfl_cgrp, 128);
    assert_eq!(layout.config.css_set_memory, 4 * 8);
    assert_eq!(layout.config.cgroup_memory, 80 + 4 * 8);
    assert_eq!(layout.config.counts_group_kill, 1);
    assert_eq!(layout.config.kernfs_name, 8);
    assert!(layout.out_of_memory_id.is_some());
    assert_eq!(tier_of(&layout.config), Some(Tier::Btf));
}

#[test]
fn a_kernel_that_passes_a_pid() {
    let layout = resolved(OLD);
    assert_eq!(layout.config.mark_victim_passes, MARK_VICTIM_PID);
    assert_eq!(layout.config.counts_group_kill, ABSENT);
    assert_eq!(
        gap(&layout, "MEMCG_OOM_GROUP_KILL"),
        Some("no such enumerator")
    );
    assert_eq!(tier_of(&layout.config), Some(Tier::BtfPid));
}

#[test]
fn both_layouts_of_rss_stat() {
    let new = resolved(NEW).config;
    assert_eq!((new.mm_rss_stat, new.mm_rss_stride), (16 + 8, 40));
    let old = resolved(OLD).config;
    assert_eq!((old.mm_rss_stat, old.mm_rss_stride), (16, 8));
}

#[test]
fn a_missing_member_is_absent_and_named() {
    let layout = resolved(NEW);
    assert_eq!(layout.config.cred_uid, ABSENT);
    assert_eq!(gap(&layout, "cred.uid"), Some("no such structure"));
    assert_eq!(layout.config.task_mm, ABSENT);
    assert_eq!(gap(&layout, "task_struct.mm"), Some("no such member"));
}

#[test]
fn a_member_of_another_type_is_absent() {
    let layout = resolved(Kernel {
        tgid_bytes: 8,
        ..NEW
    });
    assert_eq!(layout.config.task_tgid, ABSENT);
    assert_eq!(gap(&layout, "task_struct.tgid"), Some("has another type"));
    assert_eq!(tier_of(&layout.config), None);
}

#[test]
fn two_structures_of_one_name_must_agree() {
    let layout = resolved(Kernel {
        second_css_set: true,
        ..NEW
    });
    assert_eq!(layout.config.css_set_dfl_cgrp, ABSENT);
    assert_eq!(
        gap(&layout, "css_set.dfl_cgrp"),
        Some("two structures of this name differ")
    );
    // The member that both have in the same place is still good.
    assert_eq!(layout.config.css_set_memory, 4 * 8);
}

#[test]
fn the_own_counter_and_its_file() {
    let config = resolved(NEW).config;
    assert_eq!(config.signal_oom_mm, 24);
    assert_eq!(config.memcg_local_oom_kill, 256 + 4 * 8);
    assert_eq!(config.memcg_events_local_kn, 64 + 8);
    assert_ne!(u64::from(config.known_fields) & field::CSS_INODE, 0);
}

#[test]
fn without_the_file_there_is_no_inode() {
    let config = resolved(Kernel {
        local_events: LocalEvents::Counter,
        ..NEW
    })
    .config;
    assert_eq!(config.memcg_events_local_kn, ABSENT);
    assert_eq!(u64::from(config.known_fields) & field::CSS_INODE, 0);
    assert_eq!(tier_of(&config), Some(Tier::Btf));
}

/// Nothing would show who was counted, or by which counter.
#[test]
fn without_a_judge_there_is_no_tier() {
    let unjudged = [
        Kernel {
            marks_oom_mm: false,
            ..NEW
        },
        Kernel {
            local_events: LocalEvents::None,
            ..NEW
        },
    ];
    for kernel in unjudged {
        assert_eq!(tier_of(&resolved(kernel).config), None);
    }
}
