//! The built program, run as a person runs it: exit codes, what stands on which stream, what is left behind.

mod test_fast;
