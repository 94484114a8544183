//! Spans for a collector: one for each request, with one for each attempt in it, sent by OTLP over HTTP.
//!
//! All of it is behind the cargo feature `otlp`; without it [`Request`] has no size and its methods are empty, so
//! that the request path is what it was. With it and without the setting `otlp_endpoint` nobody listens to the
//! spans, and each costs a look at that. No span has a secret, the id of a conversation, or a path, which may hold
//! one: the route's name says enough. A client's `traceparent` passes as every other field of its head.

#[cfg(feature = "otlp")]
mod export;

#[cfg(feature = "otlp")]
mod spans;

#[cfg(not(feature = "otlp"))]
mod off;

#[cfg(feature = "otlp")]
pub use export::Exporter;
#[cfg(not(feature = "otlp"))]
pub use off::Request;
#[cfg(feature = "otlp")]
pub use spans::Request;
