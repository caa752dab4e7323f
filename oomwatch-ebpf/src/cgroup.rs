//! Cgroups of the v2 hierarchy that are created and removed.
//!
//! `cgroup_rmdir` fires under `cgroup_mutex` before the controllers go offline, so the removal carries the final
//! memory counters (confirmed on 5.10, 6.18 and 7.3). The files are gone by then, `memory.events.local` too.
//! `cgroup_mkdir` fires after they are made.

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel_str};
use oomwatch_common::record::{
    CgroupChange, ChainLink, Counters, DROP_CGROUP, KIND_CGROUP_CREATED, KIND_CGROUP_REMOVED,
    NAME_LEN, change_field, field,
};

use crate::{
    kernel::{self, Address, config, known_fields},
    maps::{self, RECORDS},
};

/// Hierarchy id of cgroup v2.
const V2_HIERARCHY: i32 = 0;

/// `cgroup_mkdir`.
#[inline(always)]
pub(crate) fn created(cgroup: Address) {
    emit(cgroup, KIND_CGROUP_CREATED);
}

/// `cgroup_rmdir`.
#[inline(always)]
pub(crate) fn removed(cgroup: Address) {
    emit(cgroup, KIND_CGROUP_REMOVED);
}

#[inline(always)]
fn emit(cgroup: Address, kind: u16) {
    let cgroup_id = kernel::cgroup_id(cgroup);
    if kernel::hierarchy_id(cgroup) != V2_HIERARCHY || cgroup_id == 0 {
        return;
    }
    let seq = maps::next_sequence(DROP_CGROUP);
    let css = kernel::read(cgroup, config!(cgroup_memory));
    // The removal of a cgroup that counted kills has a victim's right to room. The removal of a cgroup that counted
    // none has not.
    let has_room = if kind == KIND_CGROUP_REMOVED && kernel::sum_of_kills(css) != 0 {
        maps::has_room_beside_ends()
    } else {
        maps::has_room_beside_victims()
    };
    if !has_room {
        maps::count_drop(DROP_CGROUP);
        return;
    }
    let Some(mut entry) = RECORDS.reserve::<CgroupChange>(0) else {
        maps::count_drop(DROP_CGROUP);
        return;
    };
    let change = entry.as_mut_ptr();
    // SAFETY: the ring gave the memory for one `CgroupChange`, and every field is written.
    unsafe {
        (*change).header = maps::header::<CgroupChange>(kind, seq, bpf_ktime_get_boot_ns());
        (*change).fields = describe_place(cgroup, change) | describe_charged(css, change);
        if kind == KIND_CGROUP_REMOVED && css != 0 && known_fields(field::CHAIN) != 0 {
            kernel::write_chain_link(&raw mut (*change).last, css);
            (*change).fields |= change_field::COUNTERS;
        } else {
            (*change).last = ChainLink {
                cgroup_id,
                serial: 0,
                counters: Counters {
                    oom: 0,
                    oom_kill: 0,
                    oom_group_kill: 0,
                },
            };
        }
    }
    entry.submit(u64::from(config!(submit_flags)));
}

/// Writes the memory cgroup's own counter; returns the bits of what is known.
///
/// # Safety
/// As [`describe_place`].
#[inline(always)]
unsafe fn describe_charged(css: Address, change: *mut CgroupChange) -> u64 {
    // SAFETY: as this function's own. Where there is no css this writes zeros.
    unsafe { kernel::write_charged(&raw mut (*change).charged, css) };
    if css == 0 || known_fields(field::CHARGED) == 0 {
        0
    } else if known_fields(field::CSS_INODE) == 0 {
        change_field::CHARGED
    } else {
        change_field::CHARGED | change_field::CSS_INODE
    }
}

/// Writes parent and name; returns the bits of what is known.
///
/// # Safety
/// `change` points to the memory of a reserved record.
#[inline(always)]
unsafe fn describe_place(cgroup: Address, change: *mut CgroupChange) -> u64 {
    let own_css = cgroup + u64::from(config!(cgroup_self));
    let parent_css = kernel::read(own_css, config!(css_parent));
    let kn = kernel::read(cgroup, config!(cgroup_kn));
    let name: Address = kernel::read(kn, config!(kernfs_name));
    // SAFETY: as this function's own; the helper checks the name's address.
    let read = unsafe {
        (*change).parent_id = kernel::cgroup_id(kernel::css_cgroup(parent_css));
        bpf_probe_read_kernel_str(
            (&raw mut (*change).name).cast(),
            NAME_LEN as u32,
            name as *const _,
        )
    };
    change_field::PARENT | if read > 0 { change_field::NAME } else { 0 }
}
