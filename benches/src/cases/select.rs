//! Selection among 64 profiles: the choice, all that a request pays for it, and news about a profile.
//!
//! A request takes a snapshot and chooses once; 2 µs for both are the budget.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prodex::exchange::{Exchange, Ties};
use prodex::metrics::{Meter, Series, Transport};
use prodex::pipeline::Tries;
use prodex::profile::quota::Source;
use prodex::profile::{Credentials, Now, Pool, Profile};
use prodex::route::{Lane, Routed};
use prodex::selection::{Owner, Snapshot, Wanted, choose};
use prodex::state::Tie;
use tokio::sync::OnceCell;
use wire::http1::RequestHead;
use wire::limits::Window;
use wire::route::Api;
use wire::run_event::CircuitOf;

use super::{proxy, runtime};
use crate::case::{Amount, Case, Prepared, forever};

pub(super) const CASES: &[Case] = &[
    Case { name: "select/by-rank", prepare: by_rank },
    Case { name: "select/owner", prepare: owner },
    Case { name: "select/keep-current", prepare: keep_current },
    Case { name: "select/whole-request", prepare: whole_request },
    Case { name: "select/publish-windows", prepare: publish },
];

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

fn wanted(owner: Option<&Owner>) -> Wanted<'_> {
    Wanted { route: CircuitOf::Responses, owner, may_move: true, tried: &[], reset: None }
}

/// A snapshot of the pool, and a choice from it.
fn choice(pool: Pool, owner: Option<Owner>) -> Prepared {
    let now = Now::read();
    Prepared::new(Amount::One, move || {
        choose(&Snapshot::take(black_box(&pool), Api::Chatgpt, now), &wanted(owner.as_ref()))
    })
}

fn by_rank() -> Prepared {
    choice(pool(), None)
}

fn owner() -> Prepared {
    choice(pool(), Some(Owner { profile: "profile-61".into(), tie: Tie::Session }))
}

fn keep_current() -> Prepared {
    let pool = pool();
    pool.set_current(&pool.profiles()[61]);
    choice(pool, None)
}

fn publish() -> Prepared {
    let pool = pool();
    let mut used = 0.0;
    Prepared::new(Amount::One, move || {
        used = (used + 1.0) % 100.0;
        pool.profiles()[33].quota().observe_own(windows(used), Source::Response, Now::read());
    })
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
        meter: Meter::new(&std::sync::Arc::default(), Series::of(routed, Transport::Http1)),
        ties: Ties::read(&head, None),
        head,
        body: Bytes::new(),
        stripped: OnceCell::new(),
    }
}

fn whole_request() -> Prepared {
    let runtime = runtime();
    let (proxy, exchange) = (forever(proxy(pool(), runtime)), forever(exchange()));
    let (gate, lane) = proxy.admission.gate(Lane::Responses);
    let permit = gate.try_enter(lane).expect("nobody else is here");
    let mut tries = Tries::of_turn(&proxy.control, exchange, permit);
    Prepared::new(Amount::One, move || {
        runtime.block_on(proxy.select(exchange, &mut tries)).expect("somebody is ready")
    })
}
