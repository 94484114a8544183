//! The gate by example, and its promises over random comings and goings.

use proptest::prelude::*;

use super::*;

fn ask(request: u64, lane: usize, rank: Rank) -> Ask {
    Ask { request, lane, rank }
}

fn waits(entry: Result<Entry, Reason>) -> Place {
    match entry {
        Ok(Entry::Waits(place)) => place,
        other => panic!("{other:?}"),
    }
}

fn requests(gate: &Gate) -> Vec<u64> {
    gate.view().waiting.iter().map(|waiting| waiting.request).collect()
}

#[test]
fn a_place_goes_to_who_waits_for_it() {
    let gate = Gate::new(1, &[1], 9);
    let permit = gate.try_enter(0).unwrap();
    let mut first = waits(gate.enter(ask(1, 0, Rank::Fresh)));
    let second = waits(gate.enter(ask(2, 0, Rank::Fresh)));
    assert!(gate.try_enter(0).is_none());
    assert_eq!((first.position(), second.position()), (0, 1));
    drop(permit);
    let permit = first.receiver.try_recv().unwrap();
    assert_eq!((gate.active(), requests(&gate)), (1, vec![2]));
    assert_eq!(second.give_up().map(drop), Err(Reason::Active));
    assert_eq!(requests(&gate), [0; 0]);
    drop(permit);
    assert_eq!(gate.active(), 0);
}

#[test]
fn a_lane_that_is_full_does_not_keep_others_waiting() {
    let gate = Gate::new(2, &[1, 2], 9);
    let one = gate.try_enter(0).unwrap();
    let mut full = waits(gate.enter(ask(1, 0, Rank::Continuation)));
    assert_eq!(full.obstacle, Reason::Lane);
    let two = gate.try_enter(1).unwrap();
    let mut other = waits(gate.enter(ask(2, 1, Rank::Fresh)));
    drop(two);
    let _two = other.receiver.try_recv().unwrap();
    assert!(full.receiver.try_recv().is_err());
    drop(one);
    assert!(full.receiver.try_recv().is_ok());
}

#[tokio::test]
async fn a_full_queue_gives_way_to_who_continues() {
    let gate = Gate::new(1, &[1], 2);
    let _permit = gate.try_enter(0).unwrap();
    let older = waits(gate.enter(ask(1, 0, Rank::Fresh)));
    let mut newest = waits(gate.enter(ask(2, 0, Rank::Fresh)));
    assert_eq!(gate.enter(ask(3, 0, Rank::Fresh)).map(drop), Err(Reason::Queue));
    let _place = waits(gate.enter(ask(4, 0, Rank::Continuation)));
    assert_eq!(newest.admitted().await.map(drop), Err(Reason::Displaced));
    assert_eq!(requests(&gate), [4, 1], "and it is admitted first");
    drop(older);
    let _other = waits(gate.enter(ask(5, 0, Rank::Continuation)));
    assert_eq!(gate.enter(ask(6, 0, Rank::Fresh)).map(drop), Err(Reason::Queue));
    assert_eq!(gate.enter(ask(7, 0, Rank::Continuation)).map(drop), Err(Reason::Queue));
}

#[test]
fn compactions_give_way_to_turns() {
    let gate = Gate::new(1, &[1], 1);
    let _permit = gate.try_enter(0).unwrap();
    let compaction = waits(gate.enter(ask(1, 0, Rank::FreshCompact)));
    let turn = waits(gate.enter(ask(2, 0, Rank::Fresh)));
    assert_eq!(compaction.give_up().map(drop), Err(Reason::Active), "it has been displaced");
    for rank in [Rank::Compact, Rank::FreshCompact] {
        assert_eq!(gate.enter(ask(3, 0, rank)).map(drop), Err(Reason::Pressure));
    }
    drop(turn);
    drop(waits(gate.enter(ask(4, 0, Rank::FreshCompact))));
}

#[test]
fn without_a_queue_the_limit_is_named() {
    let gate = Gate::new(1, &[1], 0);
    let _permit = gate.try_enter(0).unwrap();
    assert_eq!(gate.enter(ask(1, 0, Rank::Continuation)).map(drop), Err(Reason::Active));
}

#[test]
fn who_is_under_way_is_counted_beyond_the_limit() {
    let gate = Gate::new(1, &[1], 9);
    let (one, two) = (gate.enter_anyway(0), gate.enter_anyway(0));
    let mut place = waits(gate.enter(ask(1, 0, Rank::Fresh)));
    drop(one);
    assert!(place.receiver.try_recv().is_err());
    drop(two);
    assert!(place.receiver.try_recv().is_ok());
}

/// What may happen at a gate; numbers choose among those that are there.
#[derive(Debug, Clone)]
enum Act {
    Come(usize, Rank),
    /// Somebody in flight ends.
    End(usize),
    /// Somebody in the queue goes away, or has waited for too long.
    Leave(usize, bool),
    /// Somebody in the queue looks whether there is a place.
    Look(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let rank = prop::sample::select(vec![Rank::Continuation, Rank::Compact, Rank::Fresh, Rank::FreshCompact]);
    let act = prop_oneof![
        4 => (0..3_usize, rank).prop_map(|(lane, rank)| Act::Come(lane, rank)),
        2 => any::<usize>().prop_map(Act::End),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(who, late)| Act::Leave(who, late)),
        2 => any::<usize>().prop_map(Act::Look),
    ];
    prop::collection::vec(act, 0..120)
}

/// Everyone at a gate, as they see it.
struct Crowd {
    gate: Arc<Gate>,
    inside: Vec<Permit>,
    /// With what they asked.
    queue: Vec<(Ask, Place)>,
    /// Who was told that there is no place in the queue for them any more.
    displaced: Vec<Ask>,
}

impl Crowd {
    fn act(&mut self, request: u64, act: &Act) -> Result<(), TestCaseError> {
        match *act {
            Act::Come(lane, rank) => return self.come(ask(request, lane, rank)),
            Act::End(who) if !self.inside.is_empty() => {
                drop(self.inside.swap_remove(who % self.inside.len()));
            }
            Act::Leave(who, is_late) if !self.queue.is_empty() => {
                let (_, place) = self.queue.remove(who % self.queue.len());
                if is_late {
                    self.inside.extend(place.give_up());
                }
            }
            Act::Look(who) if !self.queue.is_empty() => {
                let who = who % self.queue.len();
                match self.queue[who].1.receiver.try_recv() {
                    Ok(permit) => {
                        self.inside.push(permit);
                        self.queue.remove(who);
                    }
                    Err(oneshot::error::TryRecvError::Closed) => {
                        let (asked, _) = self.queue.remove(who);
                        self.displaced.push(asked);
                    }
                    Err(oneshot::error::TryRecvError::Empty) => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn come(&mut self, asked: Ask) -> Result<(), TestCaseError> {
        let before = self.gate.view();
        let entry = self.gate.enter(asked);
        let after = self.gate.view();
        let gone: Vec<_> = before
            .waiting
            .iter()
            .filter(|one| after.waiting.iter().all(|other| other.request != one.request))
            .collect();
        match entry {
            Ok(Entry::Admitted(permit)) => {
                prop_assert!(gone.is_empty());
                self.inside.push(permit);
            }
            Ok(Entry::Waits(place)) => {
                // At most one gave way, and only somebody weaker: the newest of the weakest.
                prop_assert!(gone.len() <= 1);
                if let Some(gone) = gone.first() {
                    prop_assert!(asked.rank < gone.rank);
                    prop_assert_eq!(gone.request, before.waiting.last().unwrap().request);
                }
                self.queue.push((asked, place));
            }
            Err(reason) => {
                prop_assert!(gone.is_empty());
                let all_stronger = before.waiting.iter().all(|one| one.rank <= asked.rank);
                prop_assert!(
                    all_stronger || reason == Reason::Pressure,
                    "{asked:?} was shed for a weaker one"
                );
                prop_assert!(reason != Reason::Pressure || asked.rank.is_compact());
            }
        }
        Ok(())
    }

    /// What holds at any time.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let view = self.gate.view();
        let active: usize = view.lanes.iter().map(|(active, _)| active).sum();
        prop_assert!(active <= view.limit);
        prop_assert!(view.lanes.iter().all(|(active, limit)| active <= limit));
        // Nobody is lost: whoever asked is inside, waits, has a permit that they have not seen, or was told.
        let mut unseen = 0;
        for (asked, place) in &mut self.queue {
            let is_listed = view.waiting.iter().any(|waiting| waiting.request == asked.request);
            let has_ended = place.receiver.is_terminated() || !place.receiver.is_empty();
            unseen += usize::from(!place.receiver.is_empty());
            prop_assert!(is_listed || has_ended || is_closed(place), "{asked:?} is lost");
        }
        prop_assert_eq!(active, self.inside.len() + unseen, "each place is held by one");
        // No place is free that somebody waits for.
        let has_room = |lane: usize| view.lanes[lane].0 < view.lanes[lane].1;
        prop_assert!(active == view.limit || view.waiting.iter().all(|one| !has_room(one.lane)));
        // The strongest first, and within a rank the first to come.
        let order = |one: &Waiting| (one.rank, one.request);
        prop_assert!(view.waiting.is_sorted_by_key(order));
        prop_assert!(self.displaced.iter().all(|one| one.rank > Rank::Continuation));
        Ok(())
    }
}

/// Whether the place was taken by a stronger one.
fn is_closed(place: &Place) -> bool {
    !place.gate.lock().waiting.contains_key(&place.key)
}

proptest! {
    #[test]
    fn whoever_comes_and_goes_the_promises_hold(
        acts in acts(), limit in 1..6_usize, lanes in [1..6_usize, 1..6, 1..6], max_waiting in 0..6_usize,
    ) {
        let gate = Gate::new(limit, &lanes, max_waiting);
        let mut crowd = Crowd { gate, inside: Vec::new(), queue: Vec::new(), displaced: Vec::new() };
        for (request, act) in (0..).zip(&acts) {
            crowd.act(request, act)?;
            crowd.check()?;
        }
        crowd.inside.clear();
        // Each round admits at least one.
        for who in (0..crowd.queue.len()).flat_map(|_| 0..max_waiting + limit) {
            crowd.act(0, &Act::Look(who))?;
            crowd.inside.clear();
        }
        prop_assert!(crowd.queue.is_empty());
        prop_assert_eq!(crowd.gate.active(), 0);
        prop_assert_eq!(crowd.gate.waiting().0, 0);
    }
}
