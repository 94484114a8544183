//! Selection among 64 profiles: the snapshot, the choice, all that a request pays for it, and news about a profile.
//!
//! A request takes a snapshot and chooses once; 2 µs for both are the budget.

#![allow(missing_docs, reason = "criterion's macros make a function without any")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use nix::sys::resource::{UsageWho, getrusage};
use prodex::config::Config;
use prodex::control::Control;
use prodex::exchange::{Exchange, Ties};
use prodex::guard::Guard;
use prodex::metrics::{Meter, Series, Transport};
use prodex::pipeline::{Proxy, Tries};
use prodex::profile::quota::Source;
use prodex::profile::{Credentials, Now, Pool, Profile};
use prodex::route::{Lane, Routed};
use prodex::selection::{Owner, Snapshot, Wanted, choose};
use prodex::server::authority::client_config;
use prodex::state::{State, Tie};
use prodex::telemetry::RunLog;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;
use wire::http1::RequestHead;
use wire::limits::Window;
use wire::route::Api;
use wire::run_event::CircuitOf;

const PROFILES: usize = 64;

/// Both windows of an account, as a response states them.
fn windows(used_percent: f64) -> Vec<Window> {
    let window = |hours: u64, used_percent| {
        let length = Some(Duration::from_secs(hours * 3600));
        Window { used_percent, length, resets_at: Some(i64::MAX) }
    };
    vec![window(5, used_percent), window(168, used_percent / 2.0)]
}

/// A pool of which much is known; the profile that is best is none of the first.
fn pool() -> Pool {
    let profile = |at| {
        let auth = format!(r#"{{"tokens":{{"access_token":"t{at}","account_id":"a{at}"}}}}"#);
        Profile::new(&format!("profile-{at:02}"), Credentials::parse(&auth).expect("it is a login"))
    };
    let pool = Pool::new((0..PROFILES).map(profile).collect(), None);
    for (at, profile) in pool.profiles().iter().enumerate() {
        profile.quota().observe_own(windows((at * 37 % 100) as f64), Source::Response, Now::read());
        if at % 5 == 0 {
            profile.quota().exhaust(None, Now::read());
        }
        if at % 7 == 0 {
            profile.health().refuse(CircuitOf::Responses, Now::read());
        }
    }
    pool
}

/// A proxy of that pool, whose log goes nowhere.
fn proxy(home: &Path, runtime: &Runtime) -> Proxy {
    let config = Config::load(Some(home), &|_| None, &Vec::new()).expect("there are defaults");
    let tls = client_config(None).expect("the system's roots or ours");
    let (state, log) = (State::in_memory(), Arc::new(RunLog::none()));
    let control = Control::new(config, state, log, Arc::new(tls), runtime.handle().clone());
    Proxy::new(Arc::new(control), Guard::new(None), pool(), false)
}

/// The first turn of a thread.
fn exchange() -> Exchange {
    let head = b"POST /backend-api/codex/responses HTTP/1.1\r\nthread-id: t\r\n\r\n";
    let (head, _) = RequestHead::parse(head).expect("it is legal").expect("it is whole");
    let routed = Routed::find(&head, head.target()).expect("it is a model call");
    Exchange {
        id: 1,
        started: Instant::now(),
        target: head.target().to_owned(),
        routed,
        meter: Meter::new(&Arc::default(), Series::of(routed, Transport::Http1)),
        ties: Ties::read(&head, None),
        head,
        body: Bytes::new(),
        stripped: OnceCell::new(),
    }
}

fn wanted(owner: Option<&Owner>) -> Wanted<'_> {
    Wanted { route: CircuitOf::Responses, owner, may_move: true, tried: &[], reset: None }
}

/// Says how much time of the CPU something takes: on a shared machine time of the clock says little.
fn cpu<T>(what: &str, mut run: impl FnMut() -> T) {
    const ROUNDS: u32 = 200_000;
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("every system tells");
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    };
    let begun = used();
    (0..ROUNDS).for_each(|_| drop(black_box(run())));
    println!("{what}: {:.0} ns of the CPU", (used() - begun) * 1e9 / f64::from(ROUNDS));
}

fn bench(criterion: &mut Criterion) {
    let pool = pool();
    let now = Now::read();
    let take = || Snapshot::take(&pool, Api::Chatgpt, now);
    cpu("snapshot", take);
    cpu("snapshot and choose by rank", || choose(&take(), &wanted(None)));
    let home = tempfile::tempdir().expect("there is a place for files");
    let runtime = Builder::new_current_thread().enable_all().build().expect("there is memory");
    let (proxy, exchange) = (proxy(home.path(), &runtime), exchange());
    let (gate, lane) = proxy.admission.gate(Lane::Responses);
    let mut tries = Tries::of_turn(&proxy.control, gate.try_enter(lane).expect("nobody else is here"));
    let mut select = || runtime.block_on(proxy.select(&exchange, &mut tries)).expect("somebody is ready");
    cpu("all of select", &mut select);
    let mut group = criterion.benchmark_group("select 64");
    group.bench_function("snapshot", |bench| bench.iter(take));
    let fresh = take();
    group.bench_function("choose by rank", |bench| bench.iter(|| choose(black_box(&fresh), &wanted(None))));
    group.bench_function("snapshot and choose by rank", |bench| {
        bench.iter(|| choose(&take(), &wanted(None)));
    });
    group.bench_function("all of select", |bench| bench.iter(&mut select));
    let owner = Owner { profile: "profile-61".into(), tie: Tie::Session };
    group.bench_function("snapshot and choose the owner", |bench| {
        bench.iter(|| choose(&take(), &wanted(Some(&owner))));
    });
    pool.set_current(&pool.profiles()[61]);
    group.bench_function("snapshot and keep the current", |bench| {
        bench.iter(|| choose(&take(), &wanted(None)));
    });
    let mut used = 0.0;
    group.bench_function("publish windows", |bench| {
        bench.iter(|| {
            used = (used + 1.0) % 100.0;
            pool.profiles()[33].quota().observe_own(windows(used), Source::Response, Now::read());
        });
    });
    group.finish();
}

criterion_group!(select, bench);
criterion_main!(select);
