//! A proxy for coding agents that pools the accounts a person owns.
//!
//! The modules stand in the order of a request's way; `pipeline` tells it in one screen.

pub mod server;

pub mod stream;

pub mod recording;

pub mod guard;

pub mod route;

pub mod exchange;

pub mod admission;

pub mod pipeline;

pub mod selection;

pub mod profile;

pub mod attempt;

pub mod commit;

pub mod relay;

pub mod accounting;

pub mod workspace;

pub mod reply;

pub mod error;

pub mod state;

pub mod control;

pub mod clock;

pub mod metrics;

pub mod admin;

pub mod telemetry;

pub mod notice;

pub mod trace;

pub mod config;

pub mod secret;

pub mod launch;

pub mod supervisor;

mod doctor;

pub mod cli;
