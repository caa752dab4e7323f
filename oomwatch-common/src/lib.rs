#![no_std]
//! The interface between the eBPF programs and user space. [`record`] holds the records in the ring buffer.
//! [`config`] holds the configuration that is written into the programs before they are loaded.
//!
//! Invariant: no code here runs in the kernel only or in user space only. This crate holds layouts, constants and
//! their size assertions, and nothing else.

pub mod config;
pub mod record;
