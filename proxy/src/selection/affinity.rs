//! The profile that owns a conversation, found by the strongest of its ids.

use std::sync::Arc;

use crate::exchange::Ties;
use crate::state::{State, Tie};

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
    let ids =
        [(Tie::Response, &ties.response), (Tie::TurnState, &ties.turn_state), (Tie::Session, &ties.session)];
    state.recall(ids.into_iter().filter_map(|(tie, id)| Some((tie, id.as_deref()?)))).await;
}

/// Finds the owner: by the response that is continued, then by the turn state, then by the session.
#[must_use]
pub fn owner(state: &State, ties: &Ties) -> Option<Owner> {
    let by = |tie: Tie, id: &Option<String>| {
        let profile = state.owner(tie, id.as_deref()?)?;
        Some(Owner { profile, tie })
    };
    by(Tie::Response, &ties.response)
        .or_else(|| by(Tie::TurnState, &ties.turn_state))
        .or_else(|| by(Tie::Session, &ties.session))
}

/// Whether this profile may see the turn state that a request carries: its issuer may, and so may
/// anybody when the issuer is not known.
#[must_use]
pub fn may_see_turn_state(state: &State, turn_state: &str, profile: &str) -> bool {
    state.owner(Tie::TurnState, turn_state).is_none_or(|issuer| &*issuer == profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_id_counts() {
        let state = State::in_memory();
        let profile = |name: &str| -> Arc<str> { name.into() };
        state.bind(Tie::Session, "s", &profile("by-session"));
        state.bind(Tie::TurnState, "t", &profile("by-turn-state"));
        state.bind(Tie::Response, "r", &profile("by-response"));
        let ties = |response: &str, turn_state: &str| Ties {
            response: Some(response.into()),
            turn_state: Some(turn_state.into()),
            session: Some("s".into()),
        };
        assert_eq!(&*owner(&state, &ties("r", "t")).unwrap().profile, "by-response");
        assert_eq!(&*owner(&state, &ties("?", "t")).unwrap().profile, "by-turn-state");
        assert_eq!(owner(&state, &ties("?", "?")).unwrap().tie, Tie::Session);
        assert_eq!(owner(&state, &Ties::default()), None);
        assert!(may_see_turn_state(&state, "t", "by-turn-state"));
        assert!(!may_see_turn_state(&state, "t", "by-session"));
        assert!(may_see_turn_state(&state, "unknown", "by-session"));
    }
}
