//! The built program, run as a person runs it: exit codes, what stands on which stream, what is left behind.

mod ci_impact;

mod compat_replay;
mod load;
mod manifest;

mod sample;

mod test_fast;

mod test_lanes;
