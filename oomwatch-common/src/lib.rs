#![no_std]
//! What the eBPF programs and user space agree on: the records in the ring
//! buffer ([`record`]) and the configuration written into the programs before
//! they are loaded ([`config`]).
//!
//! Invariant: no code here runs in the kernel or in user space only; this crate
//! holds layouts, constants and their size assertions, and nothing else.

pub mod config;
pub mod record;
