//! When each exchange may begin: behind those that had ended by then, beside those that had not.

use wire::capture::Exchange;

/// How far an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Waiting,
    /// Its request is under way.
    Begun,
    /// The head of its response has arrived.
    Answered,
    Ended,
}

/// What each exchange waits for.
#[derive(Debug)]
pub(super) struct Order {
    begins: Vec<f64>,
    /// For each exchange, others and how far they must be.
    waits: Vec<Vec<(usize, Stage)>>,
    /// When what it follows had happened.
    follows: Vec<f64>,
}

impl Order {
    pub(super) fn new(exchanges: &[Exchange]) -> Self {
        let (begins, ends): (Vec<f64>, Vec<f64>) =
            exchanges.iter().map(|exchange| (begin(exchange), end(exchange))).unzip();
        let (mut waits, mut follows) = (Vec::new(), Vec::new());
        for (at, exchange) in exchanges.iter().enumerate() {
            let mut own = Vec::new();
            let mut from = f64::NEG_INFINITY;
            for (before, earlier) in exchanges[..at].iter().enumerate() {
                let is_sequel = ends[before] <= begins[at] || shares_connection(earlier, exchange);
                let stage = match is_sequel {
                    true => Stage::Ended,
                    // Which answer belongs to which of two equal requests can only be told by their order.
                    false if is_same(earlier, exchange) => Stage::Answered,
                    false => Stage::Begun,
                };
                own.push((before, stage));
                from = from.max(if is_sequel { ends[before] } else { begins[before] });
            }
            waits.push(own);
            follows.push(if from.is_finite() { from } else { begins[at] });
        }
        Self { begins, waits, follows }
    }

    pub(super) fn may_begin(&self, at: usize, stages: &[Stage]) -> bool {
        self.waits[at].iter().all(|(other, stage)| stages[*other] >= *stage)
    }

    pub(super) fn begin(&self, at: usize) -> f64 {
        self.begins[at]
    }

    pub(super) fn pause_from(&self, at: usize) -> f64 {
        self.follows[at]
    }
}

fn begin(exchange: &Exchange) -> f64 {
    exchange.request.writes.first().map_or(exchange.at, |(at, _)| at.min(exchange.at))
}

fn end(exchange: &Exchange) -> f64 {
    let answer = exchange
        .answer
        .iter()
        .flat_map(|answer| std::iter::once(answer.at).chain(answer.writes.iter().map(|(at, _)| *at)));
    let messages = exchange.messages.iter().map(|message| message.at);
    answer.chain(messages).chain(exchange.client_gone).fold(exchange.at, f64::max)
}

/// On one connection of HTTP/1.1 an exchange follows the other, whatever the times say.
fn shares_connection(one: &Exchange, other: &Exchange) -> bool {
    one.request.connection == other.request.connection
        && !one.request.http_version.starts_with('2')
        && !one.is_upgrade()
}

fn is_same(one: &Exchange, other: &Exchange) -> bool {
    one.request.method == other.request.method
        && one.request.url == other.request.url
        && one.body() == other.body()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::probes::{Settings, all};

    /// An exchange on this connection from one time to another.
    fn exchange(connection: u64, url: &str, from: f64, to: f64) -> Exchange {
        let probe = all(&Settings { big: 16, ..Settings::default() }).swap_remove(0);
        let mut exchange = probe.exchanges.into_iter().next().unwrap();
        (exchange.at, exchange.request.connection, exchange.request.url) = (from, connection, url.into());
        let answer = exchange.answer.as_mut().unwrap();
        (answer.at, answer.writes) = (to, vec![(to, 1)]);
        exchange
    }

    #[test]
    fn what_overlapped_overlaps_and_what_followed_follows() {
        let exchanges =
            [exchange(1, "/a", 0.0, 10.0), exchange(2, "/b", 5.0, 8.0), exchange(3, "/c", 9.0, 12.0)];
        let order = Order::new(&exchanges);
        assert!(!order.may_begin(1, &[Stage::Waiting, Stage::Waiting, Stage::Waiting]));
        assert!(order.may_begin(1, &[Stage::Begun, Stage::Waiting, Stage::Waiting]));
        assert!(!order.may_begin(2, &[Stage::Begun, Stage::Begun, Stage::Waiting]));
        assert!(order.may_begin(2, &[Stage::Begun, Stage::Ended, Stage::Waiting]));
        assert_eq!((order.pause_from(2), order.begin(2)), (8.0, 9.0));
    }

    #[test]
    fn a_connection_of_http1_has_one_exchange_at_a_time() {
        let exchanges = [exchange(1, "/a", 0.0, 10.0), exchange(1, "/b", 5.0, 8.0)];
        let order = Order::new(&exchanges);
        assert!(!order.may_begin(1, &[Stage::Answered, Stage::Waiting]));
        assert!(order.may_begin(1, &[Stage::Ended, Stage::Waiting]));
    }

    #[test]
    fn of_two_equal_requests_the_second_waits_for_the_firsts_answer() {
        let exchanges = [exchange(1, "/a", 0.0, 10.0), exchange(2, "/a", 5.0, 8.0)];
        let order = Order::new(&exchanges);
        assert!(!order.may_begin(1, &[Stage::Begun, Stage::Waiting]));
        assert!(order.may_begin(1, &[Stage::Answered, Stage::Waiting]));
    }
}
