//! The state that the programs keep from one hook to the next, as it lies in [`crate::maps`]. Plain data: the code
//! that writes it explains it.

use oomwatch_common::record::{COMM_LEN, Charged};

use crate::kernel::Address;

/// State of the call under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Invocation {
    /// `bpf_get_current_pid_tgid` of the caller; 0 when no call is under way.
    pub(crate) caller: u64,
    pub(crate) oom_control: Address,
    pub(crate) number: u64,
    /// 0 where this call cannot kill a group, or where that is not known.
    pub(crate) group: u64,
    pub(crate) marks: u32,
}

/// The OOM killer's last signal.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Signalled {
    /// `bpf_get_current_pid_tgid` of who sent it.
    pub(crate) sender: u64,
    /// The call in which the signal was sent: a signal of an earlier call that is left on this CPU is of no use.
    pub(crate) call: u64,
    pub(crate) task: Address,
    pub(crate) tid: u64,
    /// `field::COUNTED`, until a mark has followed or where none may.
    pub(crate) counted: u64,
}

/// The last mark or double count.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LastCount {
    /// `bpf_get_current_pid_tgid` of who made the last mark.
    pub(crate) marked_by: u64,
    /// The counter at that mark or double count.
    pub(crate) charged: Charged,
}

/// What is known when a mark is made: everything except the victim itself.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Deferred {
    pub(crate) seq: u64,
    pub(crate) boottime_ns: u64,
    /// `field::COUNTED` or `field::NOT_COUNTED`; 0 where that is not known.
    pub(crate) verdict: u64,
    pub(crate) trigger_pid_tgid: u64,
    pub(crate) trigger_cgroup_id: u64,
    pub(crate) trigger_comm: [u8; COMM_LEN],
    pub(crate) trigger_uid: u32,
    pub(crate) tid: u32,
}

/// A thread that the kernel has sent SIGKILL to; once it has exited, with its identity.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Suspect {
    /// Thread that sent the signal, and its process: only this thread may mark the suspect.
    pub(crate) sender: u64,
    pub(crate) cgroup_id: u64,
    pub(crate) pid_tgid: u64,
    pub(crate) comm: [u8; COMM_LEN],
    pub(crate) uid: u32,
    pub(crate) has_exited: u32,
}
