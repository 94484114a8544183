//! Which recorded exchange a request belongs to: by method and target, then by the body, then in order.
//!
//! A request that was asked before is taken for the same exchange again, which shows as one asked twice.

use wire::capture::Exchange;

/// The exchanges, and how often each was asked for.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    exchanges: Vec<Exchange>,
    asked: Vec<usize>,
}

impl Catalogue {
    pub(super) fn new(exchanges: Vec<Exchange>) -> Self {
        let asked = vec![0; exchanges.len()];
        Self { exchanges, asked }
    }

    /// Whether what comes next for this head is answered before its body is whole.
    pub(super) fn is_early(&self, method: &str, target: &str) -> bool {
        let next = self.equals(method, target).into_iter().find(|at| self.asked[*at] == 0);
        next.is_some_and(|at| super::answers_after(&self.exchanges[at]).is_some())
    }

    /// Takes the exchange that a request belongs to.
    pub(super) fn take(&mut self, method: &str, target: &str, body: &[u8]) -> Option<Exchange> {
        let equals = self.equals(method, target);
        let (exact, others): (Vec<usize>, Vec<usize>) =
            equals.into_iter().partition(|at| self.exchanges[*at].body() == body);
        let fresh = |among: &[usize]| among.iter().copied().find(|at| self.asked[*at] == 0);
        let found = fresh(&exact)
            .or_else(|| exact.last().copied())
            .or_else(|| fresh(&others))
            .or_else(|| others.last().copied())?;
        self.asked[found] += 1;
        Some(self.exchanges[found].clone())
    }

    fn equals(&self, method: &str, target: &str) -> Vec<usize> {
        let is_equal = |exchange: &Exchange| {
            exchange.request.method == method && path_and_query(&exchange.request.url) == target
        };
        (0..self.exchanges.len()).filter(|at| is_equal(&self.exchanges[*at])).collect()
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
    fn a_recorded_url_is_looked_at_from_its_path_on() {
        let seen = ["https://h:1/a?b=http://c", "/a?b=http://c", "https://h", "*"].map(path_and_query);
        assert_eq!(seen, ["/a?b=http://c", "/a?b=http://c", "/", "*"]);
    }
}
