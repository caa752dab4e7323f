//! Paths of cgroups, from the kernel and from whoever names cgroups.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oomwatch::fuzz::cgroup_path(bytes));
