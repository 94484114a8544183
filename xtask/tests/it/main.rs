//! The built program, run as a person runs it: exit codes, what stands on which stream, what is left behind.

mod ci_impact;

mod test_fast;
