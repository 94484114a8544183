//! The laboratory with real processes and sockets.

#![allow(clippy::unwrap_used, reason = "all of this is tests, of which clippy only sees the functions")]

mod clients;
mod codex;
mod compat;
mod defects;
mod faulty_proxy;
mod load;
mod process;
mod replay;
mod script;
mod scrub;
mod tripwire;
