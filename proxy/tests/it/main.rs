//! The proxy as its users meet it: the built program between clients and a mock upstream.
//!
//! Clients show every byte, or are of implementations of their own; the mock keeps a journal. Whatever is
//! waited for is a condition with a limit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests may touch the disk")]
#![expect(clippy::disallowed_macros, reason = "what a test prints goes to its runner, which always reads")]

mod rig;

mod connection;

mod upstream;

mod socket;

mod http2;

mod requests;

mod responses;

mod holding;

mod connections;

mod admission;

mod leaving;

mod cuts;

mod rotation;

mod selecting;

mod continuity;

mod lineage;

mod journeys;

mod state;

mod crashes;

mod tokens;

mod renewals;

mod quota;

mod websocket;

mod turns;

mod refused_turns;

mod guard;

mod canaries;

mod recording;

mod draining;

mod admin;

mod metrics;

mod status;

mod upgrade;

mod settings;

mod profiles;

mod importing;

mod first_step;

mod login;

mod scopes;

mod errors;

mod run;

mod help;

mod tls;

mod http2_patience;

mod workspace;

mod log;

mod longlife;

mod clocks;

mod disks;

mod doctor;

#[cfg(feature = "otlp")]
mod traces;

mod many;

mod slow;

mod soak;
