//! Resolves the running kernel's BTF into the [`Config`] of the programs: the place of each member, checked for its
//! type.
//!
//! A member is [`ABSENT`] and listed as a [`Gap`] if it is missing or of another type. The same holds for a member
//! that two structures of one name have in different places. The field that needs it is then unknown, never garbage.
//! Pure: reads no file.

use oomwatch_common::{
    config::{ABSENT, Config, MARK_VICTIM_PID, MARK_VICTIM_TASK},
    record::field,
};

use super::btf::{Btf, BtfError, Kind, Type};
use crate::tier::Tier;

/// A member that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// `structure.member`.
    pub(crate) member: String,
    /// The defect of the member.
    pub(crate) reason: &'static str,
}

/// The results from the kernel's BTF.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) config: Config,
    pub(crate) gaps: Vec<Gap>,
    /// BTF id of `out_of_memory()`, for fentry.
    pub(crate) out_of_memory_id: Option<u32>,
}

/// The required type of a member.
#[derive(Clone, Copy)]
enum Expect {
    /// An integer, or a wrapper of one, of this many bytes.
    Scalar(u32),
    /// A pointer to the structure of this name.
    Pointer(&'static str),
    /// A pointer to characters.
    String,
    /// An embedded structure of this name.
    Struct(&'static str),
    /// An array of scalars with this size of element.
    Scalars(u32),
    /// An array of pointers.
    Pointers,
    /// An array of structures of this name.
    Structs(&'static str),
}

const LONG: u32 = 8;
const STRUCTS: [&str; 17] = [
    "task_struct",
    "pid",
    "upid",
    "cred",
    "signal_struct",
    "mm_struct",
    "mm_rss_stat",
    "percpu_counter",
    "css_set",
    "cgroup",
    "cgroup_root",
    "cgroup_subsys_state",
    "cgroup_file",
    "kernfs_node",
    "mem_cgroup",
    "page_counter",
    "oom_control",
];
const MARK_VICTIM: &str = "btf_trace_mark_victim";
const OUT_OF_MEMORY: &str = "out_of_memory";

/// Resolves everything the probe reads from the BTF in `image`.
pub(crate) fn resolve(image: &[u8]) -> Result<Layout, BtfError> {
    let mut wanted: Vec<(Kind, &str)> = STRUCTS.iter().map(|&name| (Kind::Struct, name)).collect();
    wanted.extend([
        (Kind::Typedef, MARK_VICTIM),
        (Kind::Func, OUT_OF_MEMORY),
        (Kind::Enum, "cgroup_subsys_id"),
        (Kind::Enum, "memcg_memory_event"),
    ]);
    let btf = Btf::parse(image, &wanted)?;
    let mut resolver = Resolver {
        btf: &btf,
        gaps: Vec::new(),
    };
    let config = resolver.config();
    Ok(Layout {
        config,
        gaps: resolver.gaps,
        out_of_memory_id: match btf.ids(Kind::Func, OUT_OF_MEMORY) {
            [id] => Some(*id),
            _ => None,
        },
    })
}

struct Resolver<'a> {
    btf: &'a Btf<'a>,
    gaps: Vec<Gap>,
}

impl Resolver<'_> {
    fn config(&mut self) -> Config {
        let mut config = Config {
            mark_victim_passes: self.mark_victim_passes(),
            ..Config::UNKNOWN
        };
        self.task(&mut config);
        self.memory(&mut config);
        self.cgroup(&mut config);
        self.memcg(&mut config);
        self.oom_control(&mut config);
        config.known_fields = known_fields(&config);
        config
    }

    fn task(&mut self, config: &mut Config) {
        use Expect::{Pointer, Scalar, Scalars, Structs};
        let task = "task_struct";
        config.task_pid = self.member(task, "pid", Scalar(4));
        config.task_tgid = self.member(task, "tgid", Scalar(4));
        config.task_comm = self.member(task, "comm", Scalars(1));
        config.task_cgroups = self.member(task, "cgroups", Pointer("css_set"));
        config.task_cred = self.member(task, "cred", Pointer("cred"));
        config.task_signal = self.member(task, "signal", Pointer("signal_struct"));
        config.task_mm = self.member(task, "mm", Pointer("mm_struct"));
        config.task_start_boottime = self.member(task, "start_boottime", Scalar(8));
        config.task_group_leader = self.member(task, "group_leader", Pointer(task));
        config.task_thread_pid = self.member(task, "thread_pid", Pointer("pid"));
        config.pid_level = self.member("pid", "level", Scalar(4));
        config.pid_numbers = self.member("pid", "numbers", Structs("upid"));
        config.upid_nr = self.member("upid", "nr", Scalar(4));
        config.upid_size = self.size("upid");
        config.cred_uid = self.member("cred", "uid", Scalar(4));
        let signal = "signal_struct";
        config.signal_oom_score_adj = self.member(signal, "oom_score_adj", Scalar(2));
        config.signal_oom_mm = self.member(signal, "oom_mm", Pointer("mm_struct"));
    }

    fn memory(&mut self, config: &mut Config) {
        use Expect::{Pointer, Scalar};
        let mm = "mm_struct";
        config.mm_owner = self.member(mm, "owner", Pointer("task_struct"));
        config.mm_total_vm = self.member(mm, "total_vm", Scalar(LONG));
        config.mm_pgtables_bytes = self.member(mm, "pgtables_bytes", Scalar(LONG));
        self.rss_stat(config);
    }

    /// `struct mm_rss_stat { atomic_long_t count[]; }` up to v6.1, and an array of
    /// `struct percpu_counter` since v6.2.
    fn rss_stat(&mut self, config: &mut Config) {
        let percpu = self.place("mm_struct", "rss_stat", Expect::Structs("percpu_counter"));
        if let Ok(offset) = percpu {
            let count = self.member("percpu_counter", "count", Expect::Scalar(8));
            if count != ABSENT {
                config.mm_rss_stat = offset + count;
                config.mm_rss_stride = self.size("percpu_counter");
            }
            return;
        }
        let offset = self.member("mm_struct", "rss_stat", Expect::Struct("mm_rss_stat"));
        let count = self.member("mm_rss_stat", "count", Expect::Scalars(LONG));
        if offset != ABSENT && count != ABSENT {
            config.mm_rss_stat = offset + count;
            config.mm_rss_stride = LONG;
        }
    }

    fn cgroup(&mut self, config: &mut Config) {
        use Expect::{Pointer, Pointers, Scalar, String, Struct};
        let css = "cgroup_subsys_state";
        let memory = self.enumerator("cgroup_subsys_id", "memory_cgrp_id");
        config.css_set_dfl_cgrp = self.member("css_set", "dfl_cgrp", Pointer("cgroup"));
        let subsys = self.member("css_set", "subsys", Pointers);
        config.css_set_memory = element(subsys, memory);
        config.cgroup_kn = self.member("cgroup", "kn", Pointer("kernfs_node"));
        config.cgroup_root = self.member("cgroup", "root", Pointer("cgroup_root"));
        config.cgroup_self = self.member("cgroup", "self", Struct(css));
        let subsys = self.member("cgroup", "subsys", Pointers);
        config.cgroup_memory = element(subsys, memory);
        config.root_hierarchy_id = self.member("cgroup_root", "hierarchy_id", Scalar(4));
        config.css_cgroup = self.member(css, "cgroup", Pointer("cgroup"));
        config.css_parent = self.member(css, "parent", Pointer(css));
        config.css_serial_nr = self.member(css, "serial_nr", Scalar(8));
        config.kernfs_id = self.member("kernfs_node", "id", Scalar(8));
        config.kernfs_name = self.member("kernfs_node", "name", String);
    }

    fn memcg(&mut self, config: &mut Config) {
        use Expect::{Pointer, Scalar, Struct};
        let memcg = "mem_cgroup";
        config.memcg_css = self.member(memcg, "css", Struct("cgroup_subsys_state"));
        config.memcg_oom_group = self.member(memcg, "oom_group", Scalar(1));
        let counter = self.member(memcg, "memory", Struct("page_counter"));
        let usage = self.member("page_counter", "usage", Scalar(LONG));
        let max = self.member("page_counter", "max", Scalar(LONG));
        config.memcg_usage = sum(counter, usage);
        config.memcg_max = sum(counter, max);
        let file = self.member(memcg, "events_local_file", Struct("cgroup_file"));
        let kn = self.member("cgroup_file", "kn", Pointer("kernfs_node"));
        config.memcg_events_local_kn = sum(file, kn);
        self.counters(config);
    }

    /// The program reads three counters at once, so they must be neighbours. `oom_kill` is the most important one.
    fn counters(&mut self, config: &mut Config) {
        let event = "memcg_memory_event";
        let events = self.member("mem_cgroup", "memory_events", Expect::Scalars(LONG));
        let oom_kill = self.enumerator(event, "MEMCG_OOM_KILL");
        let local = self.member("mem_cgroup", "memory_events_local", Expect::Scalars(LONG));
        config.memcg_local_oom_kill = element(local, oom_kill);
        let before = oom_kill.checked_sub(1).filter(|_| oom_kill != ABSENT);
        config.memcg_counters = element(events, before.unwrap_or(ABSENT));
        if before == Some(self.enumerator(event, "MEMCG_OOM")) {
            config.counts_oom = 1;
        }
        let group_kill = self.enumerator(event, "MEMCG_OOM_GROUP_KILL");
        if oom_kill.checked_add(1) == Some(group_kill) {
            config.counts_group_kill = 1;
        }
    }

    fn oom_control(&mut self, config: &mut Config) {
        use Expect::{Pointer, Scalar};
        let oc = "oom_control";
        config.oc_memcg = self.member(oc, "memcg", Pointer("mem_cgroup"));
        config.oc_gfp_mask = self.member(oc, "gfp_mask", Scalar(4));
        config.oc_order = self.member(oc, "order", Scalar(4));
        config.oc_totalpages = self.member(oc, "totalpages", Scalar(LONG));
        config.oc_chosen = self.member(oc, "chosen", Pointer("task_struct"));
        config.oc_constraint = self.member(oc, "constraint", Scalar(4));
    }

    /// The argument that the tracepoint passes after the `void *` that every one has.
    fn mark_victim_passes(&mut self) -> u32 {
        let parameter = match self.btf.ids(Kind::Typedef, MARK_VICTIM) {
            [id] => self
                .btf
                .pointee(*id)
                .and_then(|proto| self.btf.parameter(proto, 1)),
            _ => None,
        };
        let Some(parameter) = parameter else {
            self.gap(MARK_VICTIM.to_owned(), "the kernel has no such tracepoint");
            return ABSENT;
        };
        if self.points_to(parameter, "task_struct") {
            MARK_VICTIM_TASK
        } else if self.btf.scalar_size(parameter) == Some(4) {
            MARK_VICTIM_PID
        } else {
            self.gap(MARK_VICTIM.to_owned(), "passes neither a task nor a pid");
            ABSENT
        }
    }

    fn member(&mut self, structure: &'static str, member: &str, expect: Expect) -> u32 {
        match self.place(structure, member, expect) {
            Ok(offset) => offset,
            Err(reason) => {
                self.gap(format!("{structure}.{member}"), reason);
                ABSENT
            }
        }
    }

    /// Offset of a member, the same in every structure of this name.
    fn place(
        &self,
        structure: &'static str,
        member: &str,
        expect: Expect,
    ) -> Result<u32, &'static str> {
        let mut agreed = None;
        for &id in self.btf.ids(Kind::Struct, structure) {
            let owner = self.btf.type_by_id(id).ok_or("no such structure")?;
            let found = self.btf.member(owner, member).ok_or("no such member")?;
            if !self.is(found.type_id, expect) {
                return Err("has another type");
            }
            if agreed.is_some_and(|offset| offset != found.offset_bytes) {
                return Err("two structures of this name differ");
            }
            agreed = Some(found.offset_bytes);
        }
        agreed.ok_or("no such structure")
    }

    fn is(&self, id: u32, expect: Expect) -> bool {
        let array_of = |holds: &dyn Fn(u32) -> bool| {
            self.btf
                .array(id)
                .is_some_and(|(element, _)| holds(element))
        };
        match expect {
            Expect::Scalar(size) => self.btf.scalar_size(id) == Some(size),
            Expect::Pointer(name) => self.points_to(id, name),
            Expect::String => self
                .btf
                .pointee(id)
                .is_some_and(|to| self.btf.scalar_size(to.id) == Some(1)),
            Expect::Struct(name) => self.resolves_to(id, name),
            Expect::Scalars(size) => array_of(&|of| self.btf.scalar_size(of) == Some(size)),
            Expect::Pointers => array_of(&|of| self.btf.pointee(of).is_some()),
            Expect::Structs(name) => array_of(&|of| self.resolves_to(of, name)),
        }
    }

    fn points_to(&self, id: u32, name: &str) -> bool {
        self.btf.pointee(id).is_some_and(|to| self.named(to, name))
    }

    fn resolves_to(&self, id: u32, name: &str) -> bool {
        self.btf.resolve(id).is_some_and(|to| self.named(to, name))
    }

    fn named(&self, found: Type, name: &str) -> bool {
        matches!(found.kind, Kind::Struct | Kind::Fwd) && self.btf.name(found) == name
    }

    fn size(&mut self, structure: &'static str) -> u32 {
        match self.btf.ids(Kind::Struct, structure) {
            [id] => self
                .btf
                .type_by_id(*id)
                .and_then(|found| self.btf.struct_size(found))
                .unwrap_or(ABSENT),
            _ => {
                self.gap(structure.to_owned(), "not exactly one such structure");
                ABSENT
            }
        }
    }

    fn enumerator(&mut self, enumeration: &'static str, name: &str) -> u32 {
        let value = match self.btf.ids(Kind::Enum, enumeration) {
            [id] => self
                .btf
                .type_by_id(*id)
                .and_then(|found| self.btf.enumerator(found, name)),
            _ => None,
        };
        value.unwrap_or_else(|| {
            self.gap(name.to_owned(), "no such enumerator");
            ABSENT
        })
    }

    fn gap(&mut self, member: String, reason: &'static str) {
        self.gaps.push(Gap { member, reason });
    }
}

/// The bits of [`field`] for which every member on the way is known.
fn known_fields(config: &Config) -> u32 {
    let leader = config.task_group_leader;
    let ways: [(u64, &[u32]); 19] = [
        (field::TGID, &[config.task_tgid]),
        (field::COMM, &[config.task_comm]),
        (field::UID, &[config.task_cred, config.cred_uid]),
        (
            field::OOM_SCORE_ADJ,
            &[config.task_signal, config.signal_oom_score_adj],
        ),
        (field::START, &[leader, config.task_start_boottime]),
        (
            field::NS_TGID,
            &[
                leader,
                config.task_thread_pid,
                config.pid_level,
                config.pid_numbers,
                config.upid_size,
                config.upid_nr,
            ],
        ),
        (
            field::CGROUP,
            &[
                config.task_cgroups,
                config.css_set_dfl_cgrp,
                config.cgroup_kn,
                config.kernfs_id,
            ],
        ),
        (field::TOTAL_VM, &[config.task_mm, config.mm_total_vm]),
        (field::PGTABLES, &[config.task_mm, config.mm_pgtables_bytes]),
        (
            field::RSS,
            &[config.task_mm, config.mm_rss_stat, config.mm_rss_stride],
        ),
        (
            field::CHAIN,
            &[
                config.css_set_memory,
                config.cgroup_memory,
                config.memcg_css,
                config.css_parent,
                config.memcg_counters,
                config.css_serial_nr,
            ],
        ),
        (
            field::CHARGED,
            &[
                config.task_mm,
                config.mm_owner,
                config.css_set_memory,
                config.cgroup_memory,
                config.memcg_css,
                config.memcg_local_oom_kill,
                config.css_serial_nr,
            ],
        ),
        (field::CSS_INODE, &[config.memcg_events_local_kn]),
        (field::OOM_COUNTER, &[config.counts_oom]),
        (field::GROUP_COUNTER, &[config.counts_group_kill]),
        (field::OOM_GROUPS, &[config.memcg_oom_group]),
        (field::LIMIT, &[config.oc_memcg, config.memcg_css]),
        (
            field::LIMIT_USAGE,
            &[config.oc_memcg, config.memcg_usage, config.memcg_max],
        ),
        (
            field::OOM_CONTROL,
            &[
                config.oc_constraint,
                config.oc_order,
                config.oc_gfp_mask,
                config.oc_totalpages,
            ],
        ),
    ];
    let known = ways
        .iter()
        .filter(|(_, members)| !members.contains(&ABSENT));
    known.fold(0, |bits, (bit, _)| bits | *bit as u32)
}

/// Offset of element `index` of an array of longs or pointers at `base`.
fn element(base: u32, index: u32) -> u32 {
    if base == ABSENT || index == ABSENT {
        return ABSENT;
    }
    index
        .checked_mul(LONG)
        .and_then(|offset| base.checked_add(offset))
        .unwrap_or(ABSENT)
}

fn sum(outer: u32, inner: u32) -> u32 {
    if outer == ABSENT || inner == ABSENT {
        return ABSENT;
    }
    outer.checked_add(inner).unwrap_or(ABSENT)
}

/// The best tier that a kernel with this layout allows.
pub(crate) fn tier_of(config: &Config) -> Option<Tier> {
    // Without these a victim has no cgroup to attribute it to. Or nothing shows who was counted, and by which
    // counter.
    let needed = [
        config.task_pid,
        config.task_tgid,
        config.task_cgroups,
        config.css_set_dfl_cgrp,
        config.cgroup_kn,
        config.cgroup_root,
        config.cgroup_self,
        config.root_hierarchy_id,
        config.css_cgroup,
        config.css_parent,
        config.kernfs_id,
        config.task_signal,
        config.signal_oom_mm,
        config.memcg_local_oom_kill,
    ];
    if needed.contains(&ABSENT) {
        return None;
    }
    match config.mark_victim_passes {
        MARK_VICTIM_TASK => Some(Tier::Btf),
        MARK_VICTIM_PID => Some(Tier::BtfPid),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
