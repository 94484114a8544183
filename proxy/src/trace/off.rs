//! Nothing, in a build without the feature `otlp`.

#![expect(clippy::unused_self, reason = "the methods are those of the build with the feature")]

use crate::exchange::Exchange;
use crate::profile::Profile;

/// What would be told of a request.
#[derive(Debug, Default)]
pub struct Request;

impl Request {
    pub(crate) fn none() -> Self {
        Self
    }

    pub(crate) fn begin(_: &Exchange) -> Self {
        Self
    }

    pub(crate) fn begin_turn(_: &Exchange) -> Self {
        Self
    }

    pub(crate) fn begin_attempt(&mut self, _: &Profile) {}

    pub(crate) fn end_attempt(&mut self, _: &'static str) {}

    pub(crate) fn commit(&mut self, _: u16, _: u32, _: &Self) {}

    pub(crate) fn usage(&mut self, _: i64, _: i64) {}

    pub(crate) fn end(&mut self, _: &'static str, _: u64) {}
}
