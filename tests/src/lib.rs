//! Whole-program tests of oomwatch: fixtures that make real OOM kills, and readers of every
//! witness of such a kill.
//!
//! Nothing here links against oomwatch. The binary is driven as its users drive it, by its
//! command line and its JSON lines, so that these tests also hold the promised output format.
//!
//! A scenario never believes one witness alone. It compares what it spawned itself, what the
//! kernel counted and logged, and what oomwatch reported.

pub mod api_server;
pub mod cgroup;
pub mod collector;
pub mod daemon;
pub mod event;
pub mod guest;
pub mod hog;
pub mod host;
pub mod kernel_log;
pub mod kernel_trace;
pub mod notify;
pub mod wait;
