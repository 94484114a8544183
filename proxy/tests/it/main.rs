//! The proxy as its users meet it: the built program, between a client that shows every byte and a mock
//! upstream that keeps a journal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests may touch the disk")]

mod rig;

mod connection;

mod upstream;

mod socket;

mod http2;

mod requests;

mod responses;

mod holding;

mod connections;

mod leaving;

mod cuts;

mod rotation;

mod continuity;

mod tokens;

mod websocket;

mod turns;

mod refused_turns;

mod guard;

mod canaries;

mod draining;

mod settings;

mod profiles;

mod run;

mod help;

mod tls;

mod workspace;

mod log;

mod many;
