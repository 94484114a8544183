//! Which recorded exchange a request belongs to: by method and target, then by the body, then by what is going on.
//!
//! Where the client tells what it has under way, a request is taken for that, and for what is over before
//! it is taken for what has not begun; else the recorded order decides. A request that was asked before is
//! taken for the same exchange again, which shows as one asked twice.

use std::cmp::Reverse;

use wire::capture::Exchange;

/// The exchanges, how often each was asked for, and how far the client is with it.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    entries: Vec<Entry>,
    /// Whether the client tells what it does.
    is_told: bool,
}

#[derive(Debug)]
struct Entry {
    exchange: Exchange,
    asked: usize,
    stage: Stage,
}

/// How far the client is, in the order in which a request is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    NotBegun,
    Over,
    UnderWay,
}

impl Catalogue {
    pub(super) fn new(exchanges: Vec<Exchange>) -> Self {
        let entry = |exchange| Entry { exchange, asked: 0, stage: Stage::NotBegun };
        Self { entries: exchanges.into_iter().map(entry).collect(), is_told: false }
    }

    /// The client begins this exchange.
    pub(super) fn begin(&mut self, id: u64) {
        self.is_told = true;
        self.set(id, Stage::UnderWay);
    }

    /// The client is done with this exchange.
    pub(super) fn end(&mut self, id: u64) {
        self.set(id, Stage::Over);
    }

    fn set(&mut self, id: u64, stage: Stage) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.exchange.id == id) {
            entry.stage = stage;
        }
    }

    /// Whether what comes next for this head is answered before its body is whole.
    pub(super) fn is_early(&self, method: &str, target: &str) -> bool {
        let mut fresh = self.equals(method, target).filter(|(_, entry)| entry.asked == 0);
        fresh.next().is_some_and(|(_, entry)| super::answers_after(&entry.exchange).is_some())
    }

    /// Takes the exchange that a request belongs to.
    pub(super) fn take(&mut self, method: &str, target: &str, body: &[u8]) -> Option<Exchange> {
        let rank = |(at, entry): &(usize, &Entry)| {
            let is_exact = entry.exchange.body() == body;
            let stage = if self.is_told { entry.stage } else { Stage::UnderWay };
            let is_fresh = entry.asked == 0;
            // Of fresh ones the first comes next; of those asked before the last is the likeliest again.
            let order = if is_fresh { (Some(Reverse(*at)), None) } else { (None, Some(*at)) };
            (is_exact, stage, is_fresh, order)
        };
        let (found, _) = self.equals(method, target).max_by_key(rank)?;
        let entry = &mut self.entries[found];
        entry.asked += 1;
        Some(entry.exchange.clone())
    }

    fn equals<'a>(&'a self, method: &'a str, target: &'a str) -> impl Iterator<Item = (usize, &'a Entry)> {
        self.entries.iter().enumerate().filter(move |(_, Entry { exchange, .. })| {
            exchange.request.method == method && path_and_query(&exchange.request.url) == target
        })
    }
}

/// The path and query of a request target as it was recorded, which may be a whole URL.
#[must_use]
pub fn path_and_query(target: &str) -> &str {
    let Some((_, rest)) = target.split_once("://").filter(|(scheme, _)| !scheme.contains('/')) else {
        return target;
    };
    rest.find('/').map_or("/", |at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::super::tests::exchange;
    use super::*;

    fn ids(catalogue: &mut Catalogue, asks: &[(&str, &str)]) -> Vec<Option<u64>> {
        let mut take =
            |(target, body): &(&str, &str)| Some(catalogue.take("POST", target, body.as_bytes())?.id);
        asks.iter().map(&mut take).collect()
    }

    #[test]
    fn equals_are_told_apart_by_their_body_and_then_by_order() {
        let exchanges = vec![
            exchange(1, "POST", "/a?x=1", b"one"),
            exchange(2, "POST", "/a?x=1", b"two"),
            exchange(3, "POST", "/a?x=1", b"one"),
        ];
        let mut catalogue = Catalogue::new(exchanges);
        let asks =
            [("/a?x=1", "two"), ("/a?x=1", "one"), ("/a?x=1", "one"), ("/a?x=1", "one"), ("/a", "one")];
        assert_eq!(ids(&mut catalogue, &asks), [Some(2), Some(1), Some(3), Some(3), None]);
    }

    #[test]
    fn a_changed_body_still_finds_its_exchange_when_its_turn_has_come() {
        let exchanges = vec![exchange(1, "POST", "/a", b"one"), exchange(2, "POST", "/a", b"two")];
        let mut catalogue = Catalogue::new(exchanges);
        let asks = [("/a", "one"), ("/a", "changed"), ("/a", "two")];
        assert_eq!(ids(&mut catalogue, &asks), [Some(1), Some(2), Some(2)]);
    }

    #[test]
    fn a_proxys_second_try_is_not_taken_for_the_clients_next_request() {
        let exchanges = vec![exchange(1, "POST", "/a", b"one"), exchange(2, "POST", "/a", b"one")];
        let mut catalogue = Catalogue::new(exchanges);
        catalogue.begin(1);
        assert_eq!(ids(&mut catalogue, &[("/a", "one"), ("/a", "one")]), [Some(1), Some(1)]);
        catalogue.end(1);
        assert_eq!(ids(&mut catalogue, &[("/a", "one")]), [Some(1)], "late, and still not the next one");
        catalogue.begin(2);
        assert_eq!(ids(&mut catalogue, &[("/a", "one")]), [Some(2)]);
    }

    #[test]
    fn a_recorded_url_is_looked_at_from_its_path_on() {
        let seen = ["https://h:1/a?b=http://c", "/a?b=http://c", "https://h", "*"].map(path_and_query);
        assert_eq!(seen, ["/a?b=http://c", "/a?b=http://c", "/", "*"]);
    }
}
