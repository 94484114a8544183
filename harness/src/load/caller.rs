//! A caller: one connection, or one WebSocket, and the requests that go over it one after the other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use mock_upstream::content::{ACCOUNT, Ask, Content as Brings, Fault, NONCE, Shape, Template, now};

use super::arrivals::mix;
use super::connection::{Connection, Lost};
use super::driver::Shared;
use super::http::{self, Expected, Reply};
use super::plan::{Plan, Traffic};
use super::request::{self, Content, Filling, PREVIOUS, Prepared, THREAD};
use super::result::{Outcome, Route};
use super::stats::{Counters, Ended};
use super::websocket::Socket;

/// How long a connection may have been idle before it is looked at before its next use: nanoseconds.
const IDLE: u64 = 1_000_000_000;

/// Everything about a stage that its requests share.
#[derive(Debug)]
pub(crate) struct Kit {
    pub(crate) stage: usize,
    pub(crate) traffic: Traffic,
    /// What the stage's choices are made from.
    pub(crate) seed: u64,
    turns: Templates,
    compactions: Templates,
    unary: Template,
    /// What is asked for, by fault and by whether it is slow.
    asks: Vec<Ask>,
    /// Requests by route, by ask, and by whether they refer to an earlier response. Made when first needed.
    prepared: RefCell<Vec<Option<Prepared>>>,
    faults: Vec<(Fault, f64)>,
}

/// The streams of one content, in both forms.
#[derive(Debug)]
struct Templates {
    sse: Template,
    messages: Template,
}

impl Templates {
    fn new(shape: Shape, has_sockets: bool) -> Self {
        let messages = if has_sockets { Template::messages(shape) } else { Template::empty() };
        Self { sse: Template::sse(shape), messages }
    }
}

/// The reply that a request wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) route: Route,
    pub(crate) nonce: [u8; NONCE],
    /// When it must be over, in nanoseconds of the clock.
    pub(crate) deadline: u64,
    /// Whether the turn state is wanted.
    pub(crate) keeps_state: bool,
    /// Whether it is a compaction.
    pub(crate) is_compaction: bool,
}

/// What a request is, which follows from its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    route: Route,
    ask: usize,
    nonce: [u8; NONCE],
    thread: [u8; THREAD],
}

impl Kit {
    pub(crate) fn new(plan: &Plan, stage: usize) -> Self {
        let traffic = plan.stages[stage].traffic.clone();
        let shape = traffic.shape();
        let has_sockets = plan.stages[stage].has_sockets();
        let turns = Templates::new(shape, has_sockets);
        let compactions = Templates::new(Shape { content: Brings::Compaction, ..shape }, has_sockets);
        let unary = Template::unary(traffic.bytes);
        let mut faults = traffic.faults();
        faults.insert(0, (Fault::None, 0.0));
        let total: f64 = faults.iter().map(|(_, share)| share).sum();
        let mut asks = Vec::new();
        for (fault, _) in &faults {
            for slow in [0.0, traffic.slow_by] {
                asks.push(Ask {
                    first_byte: Duration::from_secs_f64(traffic.first_byte + slow),
                    gap: Duration::from_secs_f64(traffic.gap),
                    jitter: Duration::from_secs_f64(traffic.jitter),
                    fault: *fault,
                    rate: (total * 1e6) as u32,
                    ..Ask::new(shape, [b'0'; NONCE])
                });
            }
        }
        let prepared = RefCell::new(vec![None; asks.len() * Route::ALL.len() * 2]);
        let seed = mix(plan.seed, stage as u64);
        Self { stage, traffic, seed, turns, compactions, unary, asks, prepared, faults }
    }

    fn template(&self, wanted: &Wanted) -> &Template {
        let streams = if wanted.is_compaction { &self.compactions } else { &self.turns };
        match wanted.route {
            Route::Responses => &streams.sse,
            Route::Compact => &self.unary,
            Route::Websocket => &streams.messages,
        }
    }

    /// What is asked for when nothing is to go wrong.
    pub(crate) fn plain_ask(&self) -> &Ask {
        &self.asks[0]
    }

    /// What is asked for with a compaction.
    pub(crate) fn compaction_ask(&self) -> Ask {
        let plain = self.asks[0];
        Ask { shape: Shape { content: Brings::Compaction, ..plain.shape }, ..plain }
    }

    pub(crate) fn timeout(&self) -> u64 {
        (self.traffic.timeout * 1e9) as u64
    }

    /// What the request of this number is.
    fn choice(&self, number: u64) -> Choice {
        let traffic = &self.traffic;
        let is_compact = traffic.compact_every > 0 && (number + 1).is_multiple_of(traffic.compact_every);
        let is_slow = traffic.slow_every > 0 && (number + 1).is_multiple_of(traffic.slow_every);
        let bits = [mix(self.seed, number), mix(!self.seed, number)];
        let conversation = match traffic.conversations {
            0 => number,
            conversations => mix(self.seed ^ 1, number) % conversations,
        };
        Choice {
            route: if is_compact { Route::Compact } else { traffic.route },
            ask: self.fault(mix(self.seed ^ 2, number)) * 2 + usize::from(is_slow),
            nonce: request::nonce(bits),
            thread: self.thread(conversation),
        }
    }

    /// The id of a conversation.
    pub(crate) fn thread(&self, conversation: u64) -> [u8; THREAD] {
        request::thread([mix(self.seed ^ 3, conversation), mix(self.seed ^ 4, conversation)])
    }

    /// Which fault the request may be struck by: each as often as its share is of all. Whether it strikes is
    /// for the mock to say.
    fn fault(&self, bits: u64) -> usize {
        let total: f64 = self.faults.iter().map(|(_, share)| share).sum();
        if total == 0.0 {
            return 0;
        }
        let mut left = (bits >> 11) as f64 / (1_u64 << 53) as f64 * total;
        self.faults
            .iter()
            .position(|(_, share)| {
                left -= share;
                left < 0.0
            })
            .unwrap_or(self.faults.len() - 1)
    }

    /// Makes a request ready and hands it to `send`.
    fn with_request<T>(
        &self,
        plan: &Plan,
        choice: &Choice,
        thread: &[u8; THREAD],
        previous: Option<&[u8; PREVIOUS]>,
        send: impl FnOnce(&Prepared) -> T,
    ) -> T {
        let index =
            (choice.ask * Route::ALL.len() + choice.route as usize) * 2 + usize::from(previous.is_some());
        let mut prepared = self.prepared.borrow_mut();
        let request = prepared[index].get_or_insert_with(|| {
            let content = Content {
                ask: &self.asks[choice.ask],
                input: b"",
                size: self.traffic.body_bytes,
                has_previous: previous.is_some(),
                compressed: self.traffic.compressed && choice.route == Route::Responses,
                turn_state: None,
                is_compaction: choice.route == Route::Compact,
                window: 0,
            };
            Prepared::new(&plan.target, choice.route, &content)
        });
        request.fill(&Filling { nonce: &choice.nonce, thread, previous });
        send(request)
    }
}

/// A caller.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) shared: Rc<Shared>,
    pub(crate) kit: Rc<Kit>,
    connection: Option<Connection>,
    socket: Option<Socket>,
    /// The conversation of the socket, how many turns it has had, and its last response.
    chain: Chain,
    failed_to_connect: Cell<bool>,
}

/// A conversation on a WebSocket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Chain {
    thread: Option<[u8; THREAD]>,
    turns: u32,
    pub(crate) previous: Option<[u8; PREVIOUS]>,
    account: Option<[u8; ACCOUNT]>,
}

impl Caller {
    pub(crate) fn new(shared: Rc<Shared>, kit: Rc<Kit>) -> Self {
        let (connection, socket, chain) = (None, None, Chain::default());
        Self { shared, kit, connection, socket, chain, failed_to_connect: Cell::new(false) }
    }

    /// Whether nobody answered the last attempt to connect.
    pub(crate) fn failed_to_connect(&self) -> bool {
        self.failed_to_connect.get()
    }

    /// Sends the request of this number, which was meant to be sent at `intended`, and records its end.
    pub(crate) async fn call(&mut self, number: u64, intended: u64) {
        let kit = Rc::clone(&self.kit);
        let choice = kit.choice(number);
        let sent = self.begin(intended);
        let wanted = Wanted {
            route: choice.route,
            nonce: choice.nonce,
            deadline: sent + kit.timeout(),
            keeps_state: false,
            is_compaction: choice.route == Route::Compact,
        };
        let reply = if choice.route == Route::Websocket {
            self.turn_of(&choice, &wanted).await
        } else {
            let shared = Rc::clone(&self.shared);
            let start = |connection: &mut Connection| {
                kit.with_request(shared.plan(), &choice, &choice.thread, None, |request| {
                    match request.compressed() {
                        None => connection.start(&request.bytes),
                        Some(bytes) => bytes.map_err(Lost::Broken).and_then(|bytes| connection.start(&bytes)),
                    }
                })
            };
            self.exchange(&wanted, start).await
        };
        self.finish(choice.route, intended, sent, reply);
    }

    /// A request is being sent; says when.
    pub(crate) fn begin(&self, intended: u64) -> u64 {
        let sent = now();
        self.shared.recorder.borrow_mut().sent(self.kit.stage, intended, sent);
        Counters::add(&self.shared.counters.sent, 1);
        sent
    }

    /// A request is over.
    pub(crate) fn finish(&self, route: Route, intended: u64, sent: u64, reply: Reply) {
        let counters = &self.shared.counters;
        let counter = if reply.outcome == Outcome::Ok { &counters.ok } else { &counters.not_ok };
        Counters::add(counter, 1);
        Counters::add(&counters.events, reply.events);
        Counters::add(&counters.bytes, reply.bytes);
        self.failed_to_connect.set(reply.outcome == Outcome::Connect);
        let added = reply.added(sent);
        self.shared.recorder.borrow_mut().ended(Ended {
            stage: self.kit.stage,
            route,
            outcome: reply.outcome,
            intended,
            sent,
            first_byte: reply.first_byte,
            first_content: reply.first_content,
            ended: reply.ended,
            added,
            events: reply.events,
            bytes: reply.bytes,
            text: reply.text,
        });
    }

    /// Sends a request over HTTP, with `start`, and reads its reply.
    pub(crate) async fn exchange(
        &mut self,
        wanted: &Wanted,
        start: impl FnOnce(&mut Connection) -> Result<(), Lost>,
    ) -> Reply {
        let deadline = wanted.deadline;
        let mut connection = match self.connection.take().filter(is_usable) {
            Some(connection) => connection,
            None => match Connection::open(self.shared.plan().target.address, deadline).await {
                Ok(connection) => {
                    Counters::add(&self.shared.counters.connections, 1);
                    connection
                }
                Err(text) => return Reply::none(Outcome::Connect, Some(text), now()),
            },
        };
        let sent = start(&mut connection);
        // Whoever refuses early may have said why, so a failure to send is left to the reader to tell.
        if sent.is_ok()
            && let Err(Lost::Late) = connection.flush(deadline).await
        {
            return Reply::none(
                Outcome::Timeout,
                Some("the request was not taken in time".to_owned()),
                now(),
            );
        }
        let (shared, kit) = (&self.shared, &self.kit);
        let expected = self.expected(wanted);
        let event = |gap, on_the_way| {
            shared.recorder.borrow_mut().event(kit.stage, wanted.route, gap, on_the_way);
        };
        let reply = http::reply(&mut connection, &shared.buffer, &expected, event).await;
        if reply.is_reusable {
            self.connection = Some(connection);
        }
        reply
    }

    fn expected(&self, wanted: &Wanted) -> Expected<'_> {
        let traffic = &self.kit.traffic;
        Expected {
            template: self.kit.template(wanted),
            nonce: wanted.nonce,
            deadline: wanted.deadline,
            pause: Duration::from_secs_f64(traffic.read_delay),
            room: traffic.read_size.max(1),
            keeps_state: wanted.keeps_state,
        }
    }

    /// Takes a turn on the caller's WebSocket; a new one after so many turns.
    async fn turn_of(&mut self, choice: &Choice, wanted: &Wanted) -> Reply {
        if self.chain.turns >= self.kit.traffic.turns_per_socket.max(1) {
            self.leave_socket();
        }
        self.drop_closed_socket();
        let thread = *self.chain.thread.get_or_insert(choice.thread);
        let kit = Rc::clone(&self.kit);
        let message =
            kit.with_request(self.shared.plan(), choice, &thread, self.chain.previous.as_ref(), |request| {
                request.bytes.clone()
            });
        self.turn(&message, thread, wanted).await
    }

    /// Leaves the WebSocket, and its conversation with it.
    pub(crate) fn leave_socket(&mut self) {
        (self.socket, self.chain) = (None, Chain::default());
    }

    /// Lets a WebSocket go that was closed while it was idle. Who opens another refers to no earlier response on
    /// it: it has no memory of one.
    fn drop_closed_socket(&mut self) {
        if self.socket.as_ref().is_some_and(|socket| !is_usable(&socket.connection)) {
            self.socket = None;
            self.forget_previous();
        }
    }

    /// The last response of the conversation on the WebSocket; none where there is no WebSocket.
    pub(crate) fn previous(&mut self) -> Option<[u8; PREVIOUS]> {
        self.drop_closed_socket();
        self.chain.previous.filter(|_| self.socket.is_some())
    }

    /// Forgets the last response, as a client does that has compacted its history.
    pub(crate) fn forget_previous(&mut self) {
        self.chain.previous = None;
    }

    /// Sends a message on the WebSocket, which is opened if there is none, and reads its reply.
    pub(crate) async fn turn(&mut self, message: &[u8], thread: [u8; THREAD], wanted: &Wanted) -> Reply {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let filling = Filling { nonce: &wanted.nonce, thread: &thread, previous: None };
                let (target, buffer) = (&self.shared.plan().target, &self.shared.buffer);
                match Socket::open(target, &filling, buffer, wanted.deadline).await {
                    Ok(socket) => {
                        Counters::add(&self.shared.counters.connections, 1);
                        socket
                    }
                    Err((outcome, text)) => {
                        self.chain = Chain::default();
                        return Reply::none(outcome, Some(text), now());
                    }
                }
            }
        };
        let (shared, stage) = (Rc::clone(&self.shared), self.kit.stage);
        let expected = self.expected(wanted);
        let event = |gap, on_the_way| {
            shared.recorder.borrow_mut().event(stage, Route::Websocket, gap, on_the_way);
        };
        let mut reply = socket.turn(message, &shared.buffer, &expected, event).await;
        if let (Outcome::Ok, Some(account)) = (reply.outcome, reply.account) {
            // A conversation that refers to a response is its account's.
            if self.chain.previous.is_some() && self.chain.account.is_some_and(|owner| owner != account) {
                reply.outcome = Outcome::WrongContent;
                reply.text = Some(other_account(self.chain.account, account));
            }
            self.chain.account = Some(account);
            self.chain.previous = Some(request::previous(&wanted.nonce, &account));
        }
        self.chain.turns += 1;
        if reply.is_reusable {
            self.socket = Some(socket);
        } else {
            self.chain = Chain::default();
        }
        reply
    }
}

/// Whether a connection that may have been idle can still be used.
fn is_usable(connection: &Connection) -> bool {
    now().saturating_sub(connection.used) < IDLE || !connection.is_stale()
}

/// Says that a conversation was answered by another account than its owner.
pub(crate) fn other_account(owner: Option<[u8; ACCOUNT]>, account: [u8; ACCOUNT]) -> String {
    let name = |account: &[u8]| String::from_utf8_lossy(account).trim_end_matches('.').to_owned();
    let owner = owner.map_or("nobody".to_owned(), |owner| name(&owner));
    format!("account {} answers in a conversation of account {owner}", name(&account))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Pace, Stage, Target};
    use super::*;

    fn kit(traffic: Traffic, seed: u64) -> Kit {
        let stage = Stage {
            name: "stage".into(),
            executor: "closed".into(),
            pace: Pace::Closed { requests: Some(1), seconds: None },
            concurrency: 1,
            traffic,
        };
        let target = Target::of_url("mock", "http://127.0.0.1:1").unwrap();
        let stages = vec![stage];
        let (scenario, max_bytes, tick_seconds) = ("test".to_owned(), 1, 1.0);
        Kit::new(&Plan { scenario, seed, threads: 1, target, stages, max_bytes, tick_seconds }, 0)
    }

    #[test]
    fn what_a_request_is_follows_from_its_number_and_the_seed() {
        let traffic = Traffic {
            compact_every: 5,
            slow_every: 4,
            faults: vec![('u', 0.1), ('c', 0.3)],
            ..Traffic::default()
        };
        let describe = |kit: &Kit, number| {
            let choice = kit.choice(number);
            (choice.route, choice.ask, choice.nonce, choice.thread)
        };
        let (one, same, other) = (kit(traffic.clone(), 1), kit(traffic.clone(), 1), kit(traffic, 2));
        for number in [0, 4, 999] {
            assert_eq!(describe(&one, number), describe(&same, number));
            assert_ne!(describe(&one, number).2, describe(&other, number).2);
        }
        let choices: Vec<Choice> = (0..10_000).map(|number| one.choice(number)).collect();
        let count = |is: &dyn Fn(&Choice) -> bool| choices.iter().filter(|choice| is(choice)).count();
        assert_eq!(count(&|choice| choice.route == Route::Compact), 2_000);
        assert_eq!(count(&|choice| choice.ask % 2 == 1), 2_500);
        let cuts = count(&|choice| one.asks[choice.ask].fault == Fault::Cut);
        assert!((7_200..7_800).contains(&cuts), "{cuts}");
        let nonces: std::collections::HashSet<_> = choices.iter().map(|choice| choice.nonce).collect();
        assert_eq!(nonces.len(), choices.len());
        let threads: std::collections::HashSet<_> = choices.iter().map(|choice| choice.thread).collect();
        assert_eq!(threads.len(), 32);
    }
}
