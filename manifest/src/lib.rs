//! Which tests there are, how each may be run, and which of them a change can reach.

pub mod impact;
