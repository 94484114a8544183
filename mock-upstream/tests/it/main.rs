//! The mock through real sockets: what a client sees byte by byte, and what the journal says of it.

#![allow(clippy::unwrap_used, reason = "all of this is tests, of which clippy only sees the functions")]

mod accounts;
mod backend;
mod binary;
mod bulk;
mod client;
mod control;
mod faults;
mod http;
mod many;
mod pacing;
mod recording;
mod tls;
mod websocket;
