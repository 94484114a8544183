//! The laboratory: starts programs, drives real clients through any proxy, and says what it saw.
//!
//! No proxy is known here. One is driven by its address, its program and ready line, its run log and its
//! exit code; so is the next one.

pub mod process;

pub mod sandbox;

pub mod tripwire;

pub mod run_log;

pub mod capture;

pub mod clients;

pub mod compat;

pub mod scrub;

pub mod fixture;

pub mod replay;

pub mod diff;

pub mod conformance;

pub mod report;

pub mod load;

pub use mock_upstream as mock;
