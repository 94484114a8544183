//! Selection by example, and its invariants over random snapshots.

use proptest::prelude::*;
use wire::run_event::{OpenCircuit, QuotaWindow, Source, Standing};

use super::*;

const ROUTE: CircuitOf = CircuitOf::Responses;

/// The moment of every snapshot here.
const NOW: i64 = 1000;

/// A profile with so much left of its only window, if anything is known of it.
fn profile(name: &str, remaining: Option<f64>) -> Standing {
    let window = |remaining| QuotaWindow {
        seconds: Some(18_000),
        remaining,
        resets_at: None,
        source: Source::Response,
        observed_at: NOW - 5,
    };
    Standing { windows: remaining.map(window).into_iter().collect(), ..Standing::new(name.into()) }
}

fn exhausted(name: &str, until: i64) -> Standing {
    Standing { exhausted_until: Some(until), ..profile(name, None) }
}

fn parked(name: &str) -> Standing {
    Standing { is_parked: true, ..profile(name, None) }
}

/// A profile that refused, and is left out until a time.
fn refused(name: &str, of: CircuitOf, until: i64, probing_until: Option<i64>) -> Standing {
    let circuit = OpenCircuit { of, since: NOW - 60, until, forgotten_at: NOW + 3600, probing_until };
    Standing { circuits: vec![circuit], ..profile(name, Some(90.0)) }
}

fn snapshot(standings: Vec<Standing>, current: Option<&str>) -> Snapshot {
    Snapshot::new(NOW, standings, current.map(Into::into))
}

fn wanted<'a>(owner: Option<&'a Owner>, may_move: bool, tried: &'a [Arc<str>]) -> Wanted<'a> {
    Wanted { route: ROUTE, owner, may_move, tried, reset: None }
}

fn chosen(snapshot: &Snapshot, wanted: &Wanted<'_>) -> (String, &'static str) {
    let choice = choose(snapshot, wanted).unwrap();
    (choice.profile.to_string(), choice.reason.name())
}

/// What a fresh request gets.
fn fresh(snapshot: &Snapshot) -> (String, &'static str) {
    chosen(snapshot, &wanted(None, false, &[]))
}

fn pair(name: &str, reason: &'static str) -> (String, &'static str) {
    (name.to_owned(), reason)
}

#[test]
fn the_current_profile_is_kept_while_it_has_room() {
    let of = |remaining| snapshot(vec![profile("a", Some(90.0)), profile("b", Some(remaining))], Some("b"));
    assert_eq!(fresh(&of(6.0)), pair("b", "current"));
    assert_eq!(fresh(&of(5.0)), pair("a", "ranked"));
    assert_eq!(chosen(&of(5.0), &wanted(None, false, &["a".into()])), pair("b", "ranked"));
}

#[test]
fn a_websocket_stays_where_it_is() {
    let mut snapshot = snapshot(vec![profile("a", Some(90.0)), profile("b", Some(6.0))], Some("a"));
    snapshot.here = Some("b".into());
    assert_eq!(fresh(&snapshot), pair("b", "current"));
}

#[test]
fn a_blocked_owner_keeps_what_cannot_move() {
    let snapshot = snapshot(vec![exhausted("owner", 1500), profile("other", None)], None);
    let owner = Owner { profile: "owner".into(), tie: Tie::Session };
    assert_eq!(chosen(&snapshot, &wanted(Some(&owner), false, &[])), pair("owner", "session"));
    assert_eq!(chosen(&snapshot, &wanted(Some(&owner), true, &[])), pair("other", "ranked"));
    let tried = ["owner".into()];
    assert_eq!(choose(&snapshot, &wanted(Some(&owner), false, &tried)), Err(NoChoice::Owner("owner".into())));
    assert_eq!(chosen(&snapshot, &wanted(Some(&owner), true, &tried)), pair("other", "ranked"));
}

#[test]
fn when_none_is_ready_the_first_to_return_is_asked() {
    let standings = vec![exhausted("late", 1900), exhausted("soon", 1500), parked("parked")];
    let all = snapshot(standings.clone(), Some("late"));
    assert_eq!(fresh(&all), pair("soon", "last_resort"));
    let tried = ["soon".into()];
    let after = Wanted { reset: Some(1500), ..wanted(None, false, &tried) };
    assert_eq!(choose(&all, &after), Err(NoChoice::AllRefused), "a later reset says nothing new");
    let after = Wanted { reset: Some(2000), ..wanted(None, false, &tried) };
    assert_eq!(chosen(&all, &after), pair("late", "last_resort"));
    let parked = snapshot(standings[2..].to_vec(), None);
    assert_eq!(choose(&parked, &wanted(None, false, &[])), Err(NoChoice::AllBarred));
    let none = snapshot(Vec::new(), None);
    assert_eq!(choose(&none, &wanted(None, false, &[])), Err(NoChoice::NoProfiles));
}

#[test]
fn a_circuit_is_of_its_route_and_that_of_the_credentials_of_all() {
    let state = |of, until, probing_until, route| {
        let snapshot = snapshot(vec![refused("a", of, until, probing_until)], None);
        snapshot.get("a").unwrap().state(route)
    };
    assert_eq!(state(CircuitOf::Compact, 1500, None, ROUTE), State::Ready);
    assert_eq!(state(CircuitOf::Compact, 1500, None, CircuitOf::Compact), State::Backoff(1500));
    assert_eq!(state(CircuitOf::Credentials, 1500, None, ROUTE), State::Backoff(1500));
    assert_eq!(state(ROUTE, NOW, None, ROUTE), State::HalfOpen);
    assert_eq!(state(ROUTE, NOW, Some(NOW + 9), ROUTE), State::Probing);
    assert_eq!(state(ROUTE, NOW, Some(NOW), ROUTE), State::HalfOpen, "nobody heard of it again");
    let mut set_back = snapshot(vec![refused("a", ROUTE, 1500, None)], None);
    set_back.at = NOW - 5000;
    assert_eq!(set_back.get("a").unwrap().state(ROUTE), State::HalfOpen);
    set_back.at = NOW + 3600;
    assert_eq!(set_back.get("a").unwrap().state(ROUTE), State::Ready, "it is forgotten");
}

#[test]
fn one_that_refused_is_tried_behind_those_that_did_not() {
    let probing = refused("b", ROUTE, NOW, Some(NOW + 9));
    let half_open = refused("a", ROUTE, NOW, None);
    let all = snapshot(vec![half_open.clone(), probing.clone(), profile("c", Some(1.0))], Some("a"));
    assert_eq!(fresh(&all), pair("c", "ranked"));
    assert_eq!(fresh(&snapshot(vec![probing.clone(), half_open], None)), pair("a", "ranked"));
    assert_eq!(fresh(&snapshot(vec![probing], None)), pair("b", "last_resort"));
}

#[test]
fn whom_nobody_can_reach_is_behind_and_not_benched() {
    let mut all = snapshot(vec![profile("a", Some(90.0)), profile("b", Some(20.0))], Some("a"));
    all.unreachable = vec!["a".into()];
    assert_eq!(fresh(&all), pair("b", "ranked"));
    let owner = Owner { profile: "a".into(), tie: Tie::Session };
    assert_eq!(chosen(&all, &wanted(Some(&owner), true, &[])), pair("a", "session"));
    all.unreachable.push("b".into());
    assert_eq!(fresh(&all), pair("a", "current"), "it is the same for all");
}

#[test]
fn busy_profiles_are_avoided_and_full_ones_left_out() {
    let mut all = snapshot(vec![profile("a", Some(90.0)), profile("b", Some(20.0))], Some("a"));
    all.limits = Limits { soft: 2, hard: 3 };
    for (in_flight, expected) in [
        ([1, 0], pair("a", "current")),
        ([2, 0], pair("b", "ranked")),
        ([2, 2], pair("a", "ranked")),
        ([3, 2], pair("b", "ranked")),
    ] {
        all.in_flight = in_flight.to_vec();
        assert_eq!(fresh(&all), expected, "{in_flight:?}");
    }
    all.in_flight = vec![3, 3];
    assert_eq!(fresh(&all), pair("a", "queue"), "it waits for the best");
    all.here = Some("b".into());
    assert_eq!(fresh(&all), pair("b", "queue"), "a WebSocket waits where it is");
    let tried = ["b".into()];
    assert_eq!(chosen(&all, &wanted(None, false, &tried)), pair("a", "queue"));
    let owner = Owner { profile: "b".into(), tie: Tie::Response };
    assert_eq!(chosen(&all, &wanted(Some(&owner), true, &[])), pair("b", "response_id"), "it is its own");
}

#[test]
fn what_is_preferred_wins_among_those_that_are_as_good() {
    let preferred = |remaining| Standing { is_preferred: true, ..profile("b", Some(remaining)) };
    assert_eq!(fresh(&snapshot(vec![profile("a", Some(90.0)), preferred(20.0)], None)), pair("b", "ranked"));
    assert_eq!(fresh(&snapshot(vec![profile("a", Some(90.0)), preferred(10.0)], None)), pair("a", "ranked"));
}

#[test]
fn a_window_that_has_started_anew_says_nothing() {
    let mut standing = profile("a", Some(3.0));
    standing.windows[0].resets_at = Some(NOW);
    let snapshot = snapshot(vec![standing, profile("b", Some(10.0))], None);
    assert_eq!(snapshot.get("a").unwrap().remaining(), None, "unknown stays unknown");
    assert_eq!(fresh(&snapshot), pair("a", "ranked"));
}

fn standing() -> impl Strategy<Value = Standing> {
    let time = || 900_i64..1100;
    let circuit = (
        prop_oneof![Just(ROUTE), Just(CircuitOf::Credentials), Just(CircuitOf::Compact)],
        (time(), time(), time(), prop::option::of(time())),
    )
        .prop_map(|(of, (since, until, forgotten_at, probing_until))| OpenCircuit {
            of,
            since,
            until,
            forgotten_at,
            probing_until,
        });
    let rare = || prop::bool::weighted(0.1);
    (
        (rare(), rare(), rare(), any::<bool>()),
        prop::option::weighted(0.2, time()),
        prop::option::of(0.0..100.0_f64),
        prop::collection::vec(circuit, 0..2),
    )
        .prop_map(
            |(
                (is_paused, is_out_of_scope, is_parked, is_preferred),
                exhausted_until,
                remaining,
                circuits,
            )| {
                Standing {
                    is_paused,
                    is_out_of_scope,
                    is_parked,
                    is_preferred,
                    exhausted_until,
                    circuits,
                    ..profile("", remaining)
                }
            },
        )
}

fn name(at: usize) -> Arc<str> {
    format!("p{at}").into()
}

prop_compose! {
    fn any_snapshot()(
        standings in prop::collection::vec((standing(), 0_usize..5, prop::bool::weighted(0.2)), 0..10),
        current in prop::option::of(0_usize..10),
        soft in prop_oneof![Just(usize::MAX), 1_usize..4],
        room in prop_oneof![Just(usize::MAX), 0_usize..3],
    ) -> Snapshot {
        let of = |at: usize, standing: &Standing| Standing { name: name(at), ..standing.clone() };
        let numbered = standings.iter().enumerate();
        let mut snapshot = snapshot(numbered.map(|(at, (standing, ..))| of(at, standing)).collect(), None);
        snapshot.current = current.map(name);
        snapshot.in_flight = standings.iter().map(|(_, in_flight, _)| *in_flight).collect();
        let unreachable = standings.iter().enumerate().filter(|(_, (.., is_unreachable))| *is_unreachable);
        snapshot.unreachable = unreachable.map(|(at, _)| name(at)).collect();
        snapshot.limits = Limits { soft, hard: soft.saturating_add(room) };
        snapshot
    }
}

/// A request's owner, whether it may move, whom it tried, and the earliest reset.
type Request = (Option<Owner>, bool, Vec<Arc<str>>, Option<i64>);

fn request() -> impl Strategy<Value = Request> {
    let names = || (0_usize..12).prop_map(name);
    let owner = names().prop_map(|profile| Owner { profile, tie: Tie::Session });
    let reset = prop::option::of(900_i64..1100);
    (prop::option::of(owner), any::<bool>(), prop::collection::vec(names(), 0..4), reset)
}

fn wants((owner, may_move, tried, reset): &Request) -> Wanted<'_> {
    Wanted { route: ROUTE, owner: owner.as_ref(), may_move: *may_move, tried, reset: *reset }
}

/// Whether a fresh request could be sent to it, once it has room.
fn could_serve(wanted: &Wanted<'_>, candidate: &Candidate<'_>) -> bool {
    let state = candidate.state(wanted.route);
    state.may_be_asked() && !wanted.tried.contains(candidate.name())
}

proptest! {
    #[test]
    fn whom_a_choice_names_may_serve(snapshot in any_snapshot(), request in request()) {
        let wanted = wants(&request);
        let result = choose(&snapshot, &wanted);
        prop_assert_eq!(&choose(&snapshot, &wanted), &result, "the same snapshot gives the same choice");
        if let Some(owner) = wanted.owner
            && !wanted.may_move
            && snapshot.get(&owner.profile).is_none()
        {
            let is_named = result == Err(NoChoice::Owner(Arc::clone(&owner.profile)));
            prop_assert!(is_named, "what only a removed profile can read goes to nobody else");
            return Ok(());
        }
        let owner = wanted.owner.and_then(|owner| snapshot.get(&owner.profile));
        if let Ok(choice) = &result {
            let chosen = snapshot.get(&choice.profile).unwrap();
            prop_assert!(!chosen.state(ROUTE).is_barred());
            prop_assert!(!wanted.tried.contains(&choice.profile));
            let is_owners = matches!(choice.reason, Reason::Affinity(_));
            let has_room = |other: Candidate<'_>| could_serve(&wanted, &other) && !other.is_full();
            prop_assert_eq!(choice.reason == Reason::Queue, !is_owners && chosen.is_full() && chosen.state(ROUTE).may_be_asked());
            prop_assert!(choice.reason != Reason::Queue || !snapshot.candidates().any(has_room));
            if let Some(owner) = owner.filter(|_| !wanted.may_move) {
                prop_assert_eq!(owner.name(), &choice.profile, "what cannot move stays");
            }
            if choice.reason == Reason::LastResort {
                prop_assert!(!snapshot.candidates().any(|other| could_serve(&wanted, &other)));
            }
        }
        let can_serve = |owner: &Candidate<'_>| {
            owner.state(ROUTE).may_be_asked() && !wanted.tried.contains(owner.name())
        };
        if let Some(owner) = owner.filter(can_serve) {
            prop_assert_eq!(result.map(|choice| choice.profile), Ok(Arc::clone(owner.name())), "never outranked");
        } else if snapshot.candidates().any(|candidate| could_serve(&wanted, &candidate)) {
            prop_assert!(result.is_ok() || !wanted.may_move && owner.is_some(), "a ready profile is found");
        }
    }

    #[test]
    fn what_no_choice_says_is_true(snapshot in any_snapshot(), request in request()) {
        let wanted = wants(&request);
        let Err(none) = choose(&snapshot, &wanted) else { return Ok(()) };
        let is_tried = |candidate: &Candidate<'_>| wanted.tried.contains(candidate.name());
        let mut all = snapshot.candidates();
        let is_true = match &none {
            NoChoice::NoProfiles => all.next().is_none(),
            NoChoice::Owner(owner) => {
                let is_owner = wanted.owner.is_some_and(|wanted| wanted.profile == *owner);
                let cannot_serve =
                    |candidate: Candidate<'_>| is_tried(&candidate) || candidate.state(ROUTE).is_barred();
                is_owner && !wanted.may_move && snapshot.get(owner).is_none_or(cannot_serve)
            }
            NoChoice::AllBarred => all.all(|candidate| candidate.state(ROUTE).is_barred()),
            NoChoice::AllRefused => all.all(|candidate| {
                is_tried(&candidate) || !candidate.state(ROUTE).may_be_asked()
            }),
        };
        prop_assert!(is_true, "{none:?}");
    }

    #[test]
    fn a_worse_candidate_changes_nothing(
        snapshot in any_snapshot(), request in request(), more in standing(), at in 0_usize..10,
    ) {
        let wanted = wants(&request);
        let Ok(choice) = choose(&snapshot, &wanted) else { return Ok(()) };
        let mut with = snapshot.clone();
        let at = at.min(with.standings.len());
        Arc::make_mut(&mut with.standings).insert(at, Arc::new(Standing { name: name(99), ..more }));
        with.in_flight.insert(at, 4);
        let chosen = with.get(&choice.profile).unwrap();
        let more = with.get(&name(99)).unwrap();
        let is_worse = match choice.reason {
            // Nobody is better than these.
            Reason::Current | Reason::Affinity(_) => !could_serve(&wanted, &more),
            Reason::Ranked | Reason::Queue => ranking::rank(&more, more.state(ROUTE)) > ranking::rank(&chosen, chosen.state(ROUTE)),
            Reason::LastResort => more.state(ROUTE).returns_at().is_none_or(|at| {
                Some(at) > chosen.state(ROUTE).returns_at()
                    && !could_serve(&wanted, &more)
                    && (more.is_full() || !chosen.is_full())
            }),
        };
        if is_worse {
            prop_assert_eq!(choose(&with, &wanted), Ok(choice));
        }
    }

    #[test]
    fn equals_keep_their_order(standing in standing(), count in 1_usize..6, in_flight in 0_usize..3) {
        let equal = |at| Standing { name: name(at), ..standing.clone() };
        let mut snapshot = snapshot((0..count).map(equal).collect(), None);
        snapshot.in_flight = vec![in_flight; count];
        if let Ok(choice) = choose(&snapshot, &wanted(None, true, &[])) {
            prop_assert_eq!(choice.profile, name(0));
        }
    }
}
