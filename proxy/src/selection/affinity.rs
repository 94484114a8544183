//! The profile that owns a conversation, found by the strongest of its ties.
//!
//! A response and an encrypted item are of use to the account that made them and to nobody else: they hold
//! a request where they were made. A thread, a turn state and a session only say where the conversation
//! has been so far, and it may leave. The stronger tie counts: an encrypted item goes before a turn state,
//! because the latter can be left out of a request. So does a thread, because it is bound anew at each commit:
//! a turn that has moved carries the turn state of the account that it left. And a thread goes before the
//! session that it shares with sub-agents, because what it said before is in the cache of its own account.

use std::sync::Arc;

use crate::exchange::Ties;
use crate::state::{Digest, State, Ticket, Tie};

/// The owner of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The profile's name.
    pub profile: Arc<str>,
    /// By which id it was found.
    pub tie: Tie,
}

/// Brings what other processes know of these ids into memory, before the owner is asked for.
pub async fn recall(state: &State, ties: &Ties) {
    let ids = [
        (Tie::Response, ties.response),
        (Tie::TurnState, ties.turn_state),
        (Tie::TurnState, ties.turn_state_in_body),
        (Tie::Thread, ties.thread),
        (Tie::Session, ties.session),
    ];
    let ids = ids.into_iter().filter_map(|(tie, id)| Some((tie, id?)));
    state.recall(ids.chain(ties.contents.iter().map(|id| (Tie::Content, *id)))).await;
}

/// Finds the owner: by the response that is continued, then by the encrypted items, the newest first, then
/// by the thread, the turn state and the session.
#[must_use]
pub fn owner(state: &State, ties: &Ties) -> Option<Owner> {
    let by = |tie: Tie, id: &Digest| {
        let profile = state.owner_of(tie, id)?;
        Some(Owner { profile, tie })
    };
    let of = |tie: Tie, id: &Option<Digest>| by(tie, id.as_ref()?);
    of(Tie::Response, &ties.response)
        .or_else(|| ties.contents.iter().rev().find_map(|id| by(Tie::Content, id)))
        .or_else(|| of(Tie::Thread, &ties.thread))
        .or_else(|| of(Tie::TurnState, &ties.turn_state))
        .or_else(|| of(Tie::TurnState, &ties.turn_state_in_body))
        .or_else(|| of(Tie::Session, &ties.session))
}

/// Makes a profile the owner of the thread and the session that a request belongs to.
/// The ticket tells when that is durable.
pub fn bind(state: &State, ties: &Ties, profile: &Arc<str>) -> Ticket {
    let ids = [(Tie::Thread, ties.thread), (Tie::Session, ties.session)];
    let tickets = ids.into_iter().filter_map(|(tie, id)| Some(state.bind_of(tie, id?, profile)));
    tickets.max().unwrap_or(Ticket::DURABLE)
}

/// The same for a conversation that a request begins, unless another profile than `before` has become its
/// owner meanwhile: another request of it was faster. The session decides, which a thread shares.
pub fn claim(state: &State, ties: &Ties, profile: &Arc<str>, before: Option<&Arc<str>>) -> Option<Ticket> {
    let ids = [(Tie::Session, ties.session), (Tie::Thread, ties.thread)];
    let mut last = Ticket::DURABLE;
    for (tie, id) in ids.into_iter().filter_map(|(tie, id)| Some((tie, id?))) {
        last = last.max(state.claim(tie, id, profile, before)?);
    }
    Some(last)
}

/// Whether a request could be served by another account than its owner: it has its whole history with it,
/// and nothing that only the owner can read. An item whose maker is not known counts as the owner's.
/// Without an owner there is nothing to be held by.
#[must_use]
pub fn may_move(ties: &Ties, owner: Option<&Owner>) -> bool {
    owner.is_none() || (ties.response.is_none() && ties.contents.is_empty() && !ties.is_opaque)
}

/// Whether a request goes on with a conversation that has begun: it holds something of it, or somebody owns it.
/// That it names a thread or a session says nothing, for a client names them from its first request on.
#[must_use]
pub fn continues(state: &State, ties: &Ties) -> bool {
    ties.is_continuation() || owner(state, ties).is_some()
}

/// Whether this profile may see the turn states that a request carries: their issuer may. When the issuer
/// is not known it is the account that has the conversation; without one, anybody.
#[must_use]
pub fn may_see_turn_state(state: &State, ties: &Ties, profile: &str) -> bool {
    ties.turn_states().all(|turn_state| {
        let issuer = state.owner_of(Tie::TurnState, turn_state);
        issuer.or_else(|| owner(state, ties).map(|owner| owner.profile)).is_none_or(|it| &*it == profile)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::digest;

    fn state() -> State {
        let state = State::in_memory();
        for (tie, id, profile) in [
            (Tie::Session, "s", "by-session"),
            (Tie::Thread, "t", "by-thread"),
            (Tie::TurnState, "h", "by-turn-state"),
            (Tie::TurnState, "b", "by-other-turn-state"),
            (Tie::Content, "old", "by-old-content"),
            (Tie::Content, "new", "by-content"),
            (Tie::Response, "r", "by-response"),
        ] {
            state.bind(tie, id, &profile.into());
        }
        state
    }

    #[test]
    fn the_strongest_tie_counts() {
        let state = state();
        let some = |text: &str| Some(digest(text));
        let mut ties = Ties {
            response: some("r"),
            contents: ["?", "old", "new", "?"].map(digest).into(),
            turn_state: some("h"),
            turn_state_in_body: some("b"),
            thread: some("t"),
            session: some("s"),
            ..Ties::default()
        };
        let mut expect = |profile: &str, weaken: &mut dyn FnMut(&mut Ties)| {
            assert_eq!(&*owner(&state, &ties).unwrap().profile, profile);
            weaken(&mut ties);
        };
        expect("by-response", &mut |ties| ties.response = some("?"));
        expect("by-content", &mut |ties| ties.contents.truncate(2));
        expect("by-old-content", &mut |ties| ties.contents.truncate(1));
        expect("by-thread", &mut |ties| ties.thread = some("?"));
        expect("by-turn-state", &mut |ties| ties.turn_state = None);
        expect("by-other-turn-state", &mut |ties| ties.turn_state_in_body = some("?"));
        expect("by-session", &mut |ties| ties.session = some("?"));
        assert_eq!(owner(&state, &ties), None);
    }

    #[test]
    fn of_those_that_begin_a_conversation_at_once_one_decides_whose_it_is() {
        let (state, a, b) = (State::in_memory(), "a".into(), "b".into());
        let of = |thread: &str| Ties {
            session: Some(digest("s")),
            thread: Some(digest(thread)),
            ..Ties::default()
        };
        assert!(claim(&state, &of("one"), &a, None).is_some());
        assert!(claim(&state, &of("two"), &b, None).is_none(), "the session is another's");
        assert_eq!(owner(&state, &of("two")).map(|owner| owner.profile), Some(Arc::clone(&a)));
        assert!(claim(&state, &of("two"), &a, None).is_some());
        // The one that claimed it may find another profile, because its own refused.
        assert!(claim(&state, &of("one"), &b, Some(&a)).is_some());
        assert_eq!(owner(&state, &of("one")).map(|owner| owner.profile), Some(b));
    }

    #[test]
    fn a_conversation_that_nobody_has_begins() {
        let state = state();
        let of = |thread: &str| Ties {
            thread: Some(digest(thread)),
            session: Some(digest("?")),
            ..Ties::default()
        };
        assert!(!continues(&state, &of("?")), "the first request of a thread");
        assert!(continues(&state, &of("t")));
        let some = || Some(digest("?"));
        for ties in [
            Ties { response: some(), ..of("?") },
            Ties { contents: vec![digest("?")], ..of("?") },
            Ties { turn_state: some(), ..of("?") },
            Ties { turn_state_in_body: some(), ..of("?") },
            Ties { has_compaction: true, ..of("?") },
            Ties { is_compaction: true, ..of("?") },
        ] {
            assert!(continues(&state, &ties), "{ties:?}");
        }
    }

    #[test]
    fn what_only_its_owner_can_use_does_not_move() {
        let owner = Owner { profile: "a".into(), tie: Tie::Session };
        let ties = Ties { session: Some(digest("s")), ..Ties::default() };
        assert!(may_move(&ties, Some(&owner)));
        let held = [
            Ties { response: Some(digest("r")), ..ties.clone() },
            Ties { contents: vec![digest("unknown")], ..ties.clone() },
            Ties { is_opaque: true, ..ties },
        ];
        for ties in held {
            assert!(!may_move(&ties, Some(&owner)) && may_move(&ties, None), "{ties:?}");
        }
    }

    #[test]
    fn a_turn_state_is_for_its_issuer() {
        let state = state();
        let ties = |head: Option<&str>, body: Option<&str>, thread: &str| Ties {
            turn_state: head.map(digest),
            turn_state_in_body: body.map(digest),
            thread: Some(digest(thread)),
            ..Ties::default()
        };
        let sees = |ties: &Ties, profile| may_see_turn_state(&state, ties, profile);
        assert!(sees(&ties(Some("h"), None, "t"), "by-turn-state"));
        assert!(!sees(&ties(Some("h"), None, "t"), "by-thread"));
        assert!(!sees(&ties(None, Some("b"), "t"), "by-turn-state"));
        assert!(!sees(&ties(Some("h"), Some("b"), "t"), "by-turn-state"), "both must be its own");
        // Of one that nobody here knows, the conversation's account is the issuer.
        assert!(sees(&ties(Some("?"), None, "t"), "by-thread"));
        assert!(!sees(&ties(Some("?"), None, "t"), "by-session"));
        assert!(sees(&ties(Some("?"), None, "?"), "by-session"));
        assert!(sees(&ties(None, None, "t"), "anybody"));
    }
}
