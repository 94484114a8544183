//! Names and shapes of the protocols that coding agents and their vendors speak.
//!
//! Nothing here does I/O, waits, or decides: a fact about someone else's protocol lives in this crate,
//! what the proxy or the laboratory does about it lives with them.

pub mod http1;

pub mod json;

pub mod route;

pub mod header;

pub mod sse;

pub mod websocket;

pub mod responses;

pub mod limits;

pub mod capture;

pub mod run_event;
