//! The scenarios: one function each, each with a daemon of its own.

use std::ffi::OsString;

use anyhow::Result;

use super::{context::Context, report::Outcome};
use crate::{cgroup::Cgroup, hog::MIB};

mod commands;
mod counters;
mod discovery;
mod embedded;
mod full_disk;
mod groups;
mod hostile;
mod idle;
mod ledger;
mod limits;
mod many;
mod nesting;
mod node;
mod outbox;
mod outside;
mod pinned;
mod processes;
mod restart;
pub(super) mod runtimes;
mod start;
mod tiers;

/// What one scenario is.
pub(super) type Scenario = fn(&Context) -> Result<Outcome>;

/// All for a machine with nothing but this program in it, in the order they run.
pub(super) const BARE: &[(&str, Scenario)] = &[
    ("single_kill", limits::single_kill),
    ("pod_limit", limits::pod_limit),
    ("ancestor_limit", limits::ancestor_limit),
    ("other_allocator", limits::other_allocator),
    ("nested_with_controller", nesting::with_controller),
    ("nested_without_controller", nesting::without_controller),
    ("multi_threaded", processes::multi_threaded),
    ("group_kill", processes::group_kill),
    ("group_kill_threads", processes::group_kill_threads),
    ("group_on_container", groups::group_on_container),
    ("group_on_parent", groups::group_on_parent),
    ("group_over_containers", groups::group_over_containers),
    ("group_not_in_reach", groups::group_not_in_reach),
    ("plain_sigkill_at_limit", processes::plain_sigkill_at_limit),
    ("victim_already_exiting", outside::victim_already_exiting),
    ("shared_memory", outside::shared_memory),
    ("limit_lowered", outside::limit_lowered),
    ("sysrq", outside::sysrq),
    ("sysrq_group", outside::sysrq_group),
    ("stale_counters", counters::stale_counters),
    ("same_id_again", counters::same_id_again),
    ("controller_toggled", counters::controller_toggled),
    ("local_events", counters::local_events),
    ("removed_at_once", discovery::removed_at_once),
    ("late_registration", embedded::late_registration),
    ("discovery_live", discovery::discovery_live),
    ("unregistered", discovery::unregistered),
    ("hostile_names", hostile::hostile_names),
    ("check_full", commands::check_full),
    ("demo", commands::demo),
    ("unprivileged", commands::unprivileged),
    ("bad_input", commands::bad_input),
    ("idle_syscalls", idle::idle_syscalls),
    ("attached_beside_oomkill", start::attached_beside_oomkill),
    ("restart_while_down", restart::while_down),
    ("restart_while_down_counters", restart::while_down_counters),
    ("store_in_trouble", restart::store_in_trouble),
    ("store_on_full_disk", full_disk::stored_later),
    ("outbox", outbox::missed_by_a_publisher),
    ("pinned_while_down", pinned::while_down),
    ("pinned_storm", pinned::storm),
    ("pinned_taken_again", full_disk::taken_again),
    ("pinned_in_trouble", pinned::in_trouble),
    ("ledger_deep_chain", ledger::chain),
    ("ledger_deep_outer", ledger::outer),
    ("ledger_outer_added", ledger::outer_added),
    ("ledger_toggled", ledger::toggled),
    ("ledger_toggled_stored", ledger::toggled_stored),
    ("ledger_toggled_pinned", ledger::toggled_pinned),
    ("ledger_toggled_both", ledger::toggled_pinned_stored),
    ("ledger_members_removed", ledger::members_removed),
    ("ledger_upgraded_meanwhile", ledger::upgraded_meanwhile),
    (
        "ledger_upgraded_without_room",
        ledger::upgraded_without_room,
    ),
    ("ledger_pinned_between", ledger::pinned_between),
    ("ledger_pinned_fallback", ledger::pinned_fallback),
    ("ledger_removed_while_down", ledger::removed_while_down),
    ("ledger_clock_steps", ledger::clock_steps),
    ("ledger_child_pid", ledger::child_pid),
    ("ledger_child_counters", ledger::child_counters),
    ("ledger_child_tiers", ledger::child_tiers),
    ("ledger_child_added", ledger::child_added),
    ("ledger_storm_of_cgroups", ledger::storm_of_cgroups),
    ("many_containers", many::many_containers),
    ("ring_overflow", many::ring_overflow),
    ("group_with_holes", groups::group_with_holes),
    ("group_lost", groups::group_lost),
    ("group_large", groups::group_large),
    ("tier_counters_single", tiers::counters::single),
    ("tier_counters_group", tiers::counters::group),
    ("tier_counters_pod", tiers::counters::pod),
    ("tier_counters_removed", tiers::counters::removed),
    ("tier_counters_discovery", tiers::counters::discovery),
    ("tier_counters_nested", tiers::counters::nested),
    ("tier_counters_leaves", tiers::counters::leaves),
    ("tier_counters_user", tiers::counters::user),
    ("tier_counters_many", tiers::counters::many),
    ("tier_counters_limited", tiers::counters::limited),
    ("tier_pid_single", tiers::pid::single),
    ("tier_pid_group", tiers::pid::group),
    ("tier_pid_threads", tiers::pid::threads),
    ("tier_pid_removed", tiers::pid::removed),
    ("tier_pid_unregistered", tiers::pid::unregistered),
    ("tier_forced", tiers::forced),
    ("tier_auto_without_btf", tiers::auto_without_btf),
    ("tier_auto_without_programs", tiers::auto_without_programs),
    ("global_oom", node::global_oom),
];

/// The limit of most containers: small enough to be reached at once, far above what a hog needs
/// to start.
const LIMIT_BYTES: u64 = 16 * MIB;

/// More than any limit here.
pub(super) const TOO_MUCH_BYTES: u64 = 64 * MIB;

/// Where many die: enough for a forked process, and reached at once even when emulated.
const SMALL_LIMIT_BYTES: u64 = MIB;

/// More than that.
const SMALL_TOO_MUCH_BYTES: u64 = 8 * MIB;

/// Arguments that register these containers by hand and look for no others.
fn registering(containers: &[(&str, &Cgroup)]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--discover".into(), "none".into()];
    for (id, cgroup) in containers {
        let mut value = OsString::from(format!("{id}="));
        value.push(cgroup.path());
        arguments.push("--container".into());
        arguments.push(value);
    }
    arguments
}

/// A made-up container id of the usual form, 64 hexadecimal digits.
fn hex_id(number: u64) -> String {
    format!("{:064x}", 0xc0ff_ee00_0000_u64 + number)
}
