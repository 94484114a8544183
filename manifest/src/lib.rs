//! Which tests there are, how each may be run, which of them a change can reach, and the runs themselves.
//!
//! What the tests do is not known here. `run` is the only user of nextest-runner; everything before it is
//! about texts and numbers and starts no process.

pub mod case;

pub mod file;

pub mod shard;

pub mod timings;

pub mod coverage;

#[cfg(feature = "run")]
pub mod run;

#[cfg(feature = "run")]
pub mod impact;
