//! All cases, by what they are about.

use std::path::Path;
use std::sync::Arc;

use prodex::config::Config;
use prodex::control::Control;
use prodex::guard::Guard;
use prodex::pipeline::Proxy;
use prodex::profile::Pool;
use prodex::server::authority;
use prodex::state::State;
use prodex::telemetry::RunLog;
use tokio::runtime::{Builder, Runtime};

use crate::case::{Case, forever};

mod sse;

mod relay;

mod heads;

mod select;

mod lineage;

mod scrub;

mod shards;

/// Every case that is guarded. Names are different from each other, and all of a bench stand together.
#[must_use]
pub fn all() -> Vec<Case> {
    [sse::CASES, relay::CASES, heads::CASES, select::CASES, lineage::CASES, scrub::CASES, shards::CASES]
        .concat()
}

/// A runtime that waits for nothing: what the cases do on it is ready at once.
fn runtime() -> &'static Runtime {
    forever(Builder::new_current_thread().enable_all().build().expect("there is memory"))
}

/// A proxy of these profiles with every setting at its default, that keeps nothing and logs nothing.
fn proxy(pool: Pool, runtime: &Runtime) -> Arc<Proxy> {
    let nowhere = Path::new("/nonexistent");
    let config = Config::load(Some(nowhere), &|_| None, &Vec::new()).expect("the defaults are right");
    let tls = Arc::new(authority::client_config(None).expect("the roots are built in"));
    let (state, log) = (State::in_memory(), Arc::new(RunLog::none()));
    let control = Control::new(config, state, log, tls, runtime.handle().clone());
    Arc::new(Proxy::new(Arc::new(control), Guard::new(None), pool, false))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_different_and_have_a_bench_and_a_case() {
        let cases = all();
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
        let is_plain = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        for name in names {
            let (bench, case) = name.split_once('/').expect(name);
            assert!(is_plain(bench) && is_plain(case), "{name}");
        }
    }

    #[test]
    fn every_case_can_be_run_more_than_once() {
        for case in all() {
            let mut prepared = (case.prepare)();
            (prepared.run)();
            (prepared.run)();
        }
    }
}
