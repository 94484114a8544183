//! Selection by example, and its invariants over random snapshots.

use super::*;
use proptest::prelude::*;

fn candidate(name: &str, state: State, remaining: Option<f64>, in_flight: usize) -> Candidate {
    Candidate { name: name.into(), state, remaining, in_flight }
}

fn wanted<'a>(owner: Option<&'a Owner>, may_move: bool, tried: &'a [Arc<str>]) -> Wanted<'a> {
    Wanted { owner, may_move, tried, reset: None }
}

fn chosen(snapshot: &Snapshot, wanted: &Wanted<'_>) -> (String, &'static str) {
    let choice = choose(snapshot, wanted).unwrap();
    (choice.profile.to_string(), choice.reason.name())
}

fn pair(name: &str, reason: &'static str) -> (String, &'static str) {
    (name.to_owned(), reason)
}

#[test]
fn the_current_profile_is_kept_while_it_has_room() {
    let mut snapshot = Snapshot {
        candidates: vec![
            candidate("a", State::Ready, Some(90.0), 0),
            candidate("b", State::Ready, Some(6.0), 3),
        ],
        current: Some("b".into()),
    };
    assert_eq!(chosen(&snapshot, &wanted(None, false, &[])), pair("b", "current"));
    snapshot.candidates[1].remaining = Some(5.0);
    assert_eq!(chosen(&snapshot, &wanted(None, false, &[])), pair("a", "ranked"));
    assert_eq!(chosen(&snapshot, &wanted(None, false, &["a".into()])), pair("b", "ranked"));
}

#[test]
fn a_blocked_owner_keeps_what_cannot_move() {
    let snapshot = Snapshot {
        candidates: vec![
            candidate("owner", State::Exhausted(500), None, 0),
            candidate("other", State::Ready, None, 0),
        ],
        current: None,
    };
    let owner = Owner { profile: "owner".into(), tie: Tie::Session };
    assert_eq!(chosen(&snapshot, &wanted(Some(&owner), false, &[])), pair("owner", "session"));
    assert_eq!(chosen(&snapshot, &wanted(Some(&owner), true, &[])), pair("other", "ranked"));
    let tried = ["owner".into()];
    assert_eq!(choose(&snapshot, &wanted(Some(&owner), false, &tried)), Err(NoChoice::Owner("owner".into())));
    assert_eq!(chosen(&snapshot, &wanted(Some(&owner), true, &tried)), pair("other", "ranked"));
}

#[test]
fn when_none_is_ready_the_first_to_return_is_asked() {
    let snapshot = Snapshot {
        candidates: vec![
            candidate("late", State::Exhausted(900), None, 0),
            candidate("soon", State::Exhausted(500), None, 0),
            candidate("parked", State::Parked, None, 0),
        ],
        current: Some("late".into()),
    };
    assert_eq!(chosen(&snapshot, &wanted(None, false, &[])), pair("soon", "last_resort"));
    let tried = ["soon".into()];
    let after = Wanted { reset: Some(500), ..wanted(None, false, &tried) };
    assert_eq!(choose(&snapshot, &after), Err(NoChoice::AllRefused), "a later reset says nothing new");
    let after = Wanted { reset: Some(1000), ..wanted(None, false, &tried) };
    assert_eq!(chosen(&snapshot, &after), pair("late", "last_resort"));
    let parked = Snapshot { candidates: snapshot.candidates[2..].to_vec(), current: None };
    assert_eq!(choose(&parked, &wanted(None, false, &[])), Err(NoChoice::AllParked));
    let none = Snapshot { candidates: Vec::new(), current: None };
    assert_eq!(choose(&none, &wanted(None, false, &[])), Err(NoChoice::NoProfiles));
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        3 => Just(State::Ready),
        1 => (0_i64..1000).prop_map(State::Exhausted),
        1 => (0_i64..1000).prop_map(State::Backoff),
        1 => Just(State::Parked),
    ]
}

prop_compose! {
    fn snapshot()(
        parts in prop::collection::vec((state(), prop::option::of(0.0..100.0_f64), 0_usize..5), 0..12),
        current in prop::option::of(0_usize..12),
    ) -> Snapshot {
        let candidates = parts.into_iter().enumerate()
            .map(|(at, (state, remaining, in_flight))| candidate(&format!("p{at}"), state, remaining, in_flight))
            .collect();
        Snapshot { candidates, current: current.map(|at| format!("p{at}").into()) }
    }
}

proptest! {
    #[test]
    fn the_invariants_of_selection(
        snapshot in snapshot(),
        owner in prop::option::of(0_usize..12),
        may_move in any::<bool>(),
        tried in prop::collection::vec(0_usize..12, 0..4),
    ) {
        let tried: Vec<Arc<str>> = tried.into_iter().map(|at| format!("p{at}").into()).collect();
        let owner = owner.map(|at| Owner { profile: format!("p{at}").into(), tie: Tie::Session });
        let wanted = wanted(owner.as_ref(), may_move, &tried);
        let result = choose(&snapshot, &wanted);
        prop_assert_eq!(&choose(&snapshot, &wanted), &result, "the same snapshot gives the same choice");
        if !may_move && let Some(owner) = &owner && snapshot.get(&owner.profile).is_none() {
            let is_named = result == Err(NoChoice::Owner(Arc::clone(&owner.profile)));
            prop_assert!(is_named, "what only a removed profile can read goes to nobody else");
            return Ok(());
        }
        let owner = owner.as_ref().and_then(|owner| snapshot.get(&owner.profile));
        if let Ok(choice) = &result {
            let chosen = snapshot.get(&choice.profile).unwrap();
            prop_assert!(chosen.state != State::Parked);
            prop_assert!(!tried.contains(&choice.profile));
            if !may_move && let Some(owner) = owner {
                prop_assert_eq!(&owner.name, &choice.profile, "what cannot move stays");
            }
        }
        if let Some(owner) = owner.filter(|owner| owner.state == State::Ready && !tried.contains(&owner.name)) {
            prop_assert_eq!(result.map(|choice| choice.profile), Ok(Arc::clone(&owner.name)), "never outranked");
        } else if snapshot.candidates.iter().any(|c| c.state == State::Ready && !tried.contains(&c.name)) {
            prop_assert!(result.is_ok() || !may_move && owner.is_some(), "a ready profile is found");
        }
    }
}
