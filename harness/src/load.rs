//! Load: scenarios driven through any proxy, every byte of every reply checked, and numbers to be trusted.
//!
//! Requests are meant to begin at times of a plan, and a response time counts from there, so that a server
//! that stands still is not spared (coordinated omission). What was measured is a [`result::Run`].

pub mod result;

pub mod scenario;

pub mod plan;

pub mod rig;

pub mod pressure;

pub mod thresholds;

pub mod machine;

pub mod table;

pub mod document;

pub mod driver;

mod open;

mod session;

mod caller;

mod arrivals;

mod request;

pub mod resources;

pub mod slope;

pub mod hdr;

pub mod page;

pub mod compare;

mod check;

mod connection;

mod http;

mod websocket;

mod stats;
