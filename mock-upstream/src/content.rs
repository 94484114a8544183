//! What a reply under load consists of, to the byte: the mock renders it, and whoever asked can check it all.
//!
//! A load driver puts an [`Ask`] into the instructions of a request, as text: the shape of the reply, its
//! pace, what shall be wrong with it, and a nonce. Everything of the reply follows from the ask but for a few
//! fields of fixed width, the [`Field`]s: the nonce again (so that a reply that belongs to another request is
//! noticed in every event), the account that answered, and when the mock got the request and sent the event.
//! A [`Template`] holds the bytes with those fields empty; to render is to copy and to fill in, to check is
//! to compare slices. The text of each event depends on its place, so that none can be lost or doubled.
//!
//! The account that answers is the one that the request's `ChatGPT-Account-Id` names, which a pooling proxy
//! replaces. The id of a response ends with it, and so does its turn state, so that a request that refers to
//! what another account said is noticed without a memory.
//!
//! The mock needs no state for any of this, and the same ask gets the same answer from the same account.

use std::time::Duration;

/// How a request's body begins to say what is asked for; fields follow, parted by one space each.
pub const MARK: &str = "load/1 ";

/// Digits of a nonce: lower-case hexadecimal.
pub const NONCE: usize = 32;

/// Bytes of an account's name in a reply. Longer ones are cut off, shorter ones filled up with [`FILL`].
pub const ACCOUNT: usize = 16;

/// What a short account's name is filled up with.
pub const FILL: u8 = b'.';

/// Digits of a time: nanoseconds of `CLOCK_MONOTONIC`, with leading zeros.
pub const TIME: usize = 19;

/// Most content events of a stream.
pub const MAX_EVENTS: u32 = 100_000;

/// Most letters of an event, or of a unary reply.
pub const MAX_BYTES: u32 = 4 << 20;

/// Most bytes of a stream's letters altogether, so that a template is never larger than about that.
pub const MAX_TOTAL: u64 = 64 << 20;

/// Longest delay of any kind.
pub const MAX_DELAY: Duration = Duration::from_secs(120);

/// The header of a response that a client returns within a turn, and its value's prefix; the account's name
/// follows, filled up.
pub const TURN_STATE_PREFIX: &str = "load-turn-";

/// What a reply shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Content events between `response.created` and `response.completed`.
    pub events: u32,
    /// Letters in each of them, or in a unary reply.
    pub bytes: u32,
    /// How lines of an SSE stream end.
    pub line_end: LineEnd,
    /// Whether the mock sends the whole stream with one write, else each event with one of its own.
    pub in_one_write: bool,
    /// What the stream brings.
    pub content: Content,
}

/// What a stream brings between `response.created` and `response.completed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// The answer of a turn, a few letters in each event.
    Answer,
    /// What a compaction leaves of a history: one sealed item, as Codex has asked for on the ordinary route with a
    /// `compaction_trigger` since 0.140 (`fixtures/replay/codex/*/chatgpt-*-compaction.jsonl`). It is one event,
    /// whatever number is asked for.
    Compaction,
}

/// How lines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineEnd {
    /// As most servers do.
    Lf,
    /// As Codex's backend does.
    CrLf,
}

/// What is wrong with a reply. The letter stands in the ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `-`: nothing.
    None,
    /// `u`: 503 with an error of the backend.
    Unavailable,
    /// `r`: 429 of no account's quota.
    RateLimited,
    /// `q`: 429 `usage_limit_reached`, the account's own.
    UsageLimit,
    /// `f`: `response.created`, then `response.failed` with `server_error`, and an orderly end.
    Failed,
    /// `i`: `response.created`, then `response.failed` with `insufficient_quota`, and an orderly end.
    InsufficientQuota,
    /// `c`: the connection is closed (FIN) after half of the events.
    Cut,
    /// `x`: the connection is reset (RST) after half of the events.
    Reset,
    /// `w`: one letter in the middle event is another.
    WrongByte,
    /// `t`: an orderly end in place of the terminal event.
    NoTerminal,
    /// `s`: silence after half of the events.
    Silence,
    /// `d`: the terminal event comes twice.
    Double,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::None,
        Self::Unavailable,
        Self::RateLimited,
        Self::UsageLimit,
        Self::Failed,
        Self::InsufficientQuota,
        Self::Cut,
        Self::Reset,
        Self::WrongByte,
        Self::NoTerminal,
        Self::Silence,
        Self::Double,
    ];

    /// The letter in the ask.
    #[must_use]
    pub fn letter(self) -> u8 {
        match self {
            Self::None => b'-',
            Self::Unavailable => b'u',
            Self::RateLimited => b'r',
            Self::UsageLimit => b'q',
            Self::Failed => b'f',
            Self::InsufficientQuota => b'i',
            Self::Cut => b'c',
            Self::Reset => b'x',
            Self::WrongByte => b'w',
            Self::NoTerminal => b't',
            Self::Silence => b's',
            Self::Double => b'd',
        }
    }

    fn of_letter(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.letter() == letter)
    }
}

/// What is asked for with one request.
///
/// As text: `load/1 EVENTS BYTES e|w l|c FIRST GAP JITTER FAULT RATE NONCE`, where `e` is a write for each
/// event and `w` one for all, in upper case for a compaction, `l` is LF and `c` CR LF, the three delays are microseconds, the fault is its
/// letter and the rate a number of millionths. The nonce comes last, so that a client can put another into a
/// request that is ready otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What comes.
    pub shape: Shape,
    /// How long the mock waits before it answers.
    pub first_byte: Duration,
    /// How long it waits between two events; not observed where all go in one write.
    pub gap: Duration,
    /// Up to how much longer it waits each time; from what random source is the mock's choice.
    pub jitter: Duration,
    /// What is wrong, if the dice say so.
    pub fault: Fault,
    /// With what probability it is, in millionths.
    pub rate: u32,
    /// What tells this request from all others.
    pub nonce: [u8; NONCE],
}

impl Ask {
    /// A reply of this shape, at once and without fault.
    #[must_use]
    pub fn new(shape: Shape, nonce: [u8; NONCE]) -> Self {
        let (none, fault) = (Duration::ZERO, Fault::None);
        Self { shape, first_byte: none, gap: none, jitter: none, fault, rate: 0, nonce }
    }

    /// The text, whose last [`NONCE`] bytes are the nonce.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { shape, first_byte, gap, jitter, fault, rate, nonce } = self;
        let writes = match (shape.in_one_write, shape.content) {
            (true, Content::Answer) => 'w',
            (false, Content::Answer) => 'e',
            (true, Content::Compaction) => 'W',
            (false, Content::Compaction) => 'E',
        };
        let line_end = if shape.line_end == LineEnd::Lf { 'l' } else { 'c' };
        format!(
            "{MARK}{} {} {writes} {line_end} {} {} {} {} {rate} {}",
            shape.events,
            shape.bytes,
            first_byte.as_micros(),
            gap.as_micros(),
            jitter.as_micros(),
            char::from(fault.letter()),
            String::from_utf8_lossy(nonce),
        )
    }

    /// The ask in a request's body, or in a WebSocket message. `None` if there is none, or none that keeps the
    /// limits.
    #[must_use]
    pub fn find(body: &[u8]) -> Option<Self> {
        let at = memchr::memmem::find(body, MARK.as_bytes())?;
        let mut fields = Fields { rest: &body[at + MARK.len()..] };
        let (events, bytes) = (fields.number()?, fields.number()?);
        let (in_one_write, content) = match fields.letter()? {
            b'w' => (true, Content::Answer),
            b'e' => (false, Content::Answer),
            b'W' => (true, Content::Compaction),
            b'E' => (false, Content::Compaction),
            _ => return None,
        };
        let line_end = match fields.letter()? {
            b'l' => LineEnd::Lf,
            b'c' => LineEnd::CrLf,
            _ => return None,
        };
        let [first_byte, gap, jitter] = [fields.delay()?, fields.delay()?, fields.delay()?];
        let fault = Fault::of_letter(fields.letter()?)?;
        let rate = fields.number()?;
        let nonce = *fields.rest.first_chunk::<NONCE>()?;
        let is_hex = nonce.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let shape = Shape { events, bytes, line_end, in_one_write, content };
        (is_hex && shape.is_allowed()).then_some(Self { shape, first_byte, gap, jitter, fault, rate, nonce })
    }

    /// Whether the fault strikes when this account answers: the same for the same nonce and account, and
    /// another throw for another account, so that a proxy that rotates may do better.
    #[must_use]
    pub fn is_struck(&self, account: &[u8]) -> bool {
        if self.fault == Fault::None || self.rate == 0 {
            return false;
        }
        // FNV-1a, and the last step of SplitMix64 to spread what it leaves in the low bits.
        let bytes = self.nonce.iter().chain(account);
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % 1_000_000 < u64::from(self.rate)
    }
}

impl Shape {
    /// How many events come between `response.created` and `response.completed`.
    #[must_use]
    pub fn content_events(&self) -> u32 {
        match self.content {
            Content::Answer => self.events,
            Content::Compaction => 1,
        }
    }

    /// The type of an event.
    fn kind(&self, index: u32) -> &'static str {
        match self.content {
            _ if index == 0 => "response.created",
            _ if index > self.content_events() => "response.completed",
            Content::Answer => "response.output_text.delta",
            Content::Compaction => "response.output_item.done",
        }
    }

    /// Whether it keeps the limits.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        let total = u64::from(self.events) * u64::from(self.bytes);
        self.events <= MAX_EVENTS && self.bytes <= MAX_BYTES && total <= MAX_TOTAL
    }
}

/// The fields of an ask, taken one by one.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn number(&mut self) -> Option<u32> {
        let end = self.rest.iter().take(10).position(|byte| *byte == b' ')?;
        let (digits, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        let number = digits.iter().try_fold(0_u64, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
        })?;
        (end > 0).then(|| u32::try_from(number).ok())?
    }

    fn delay(&mut self) -> Option<Duration> {
        let delay = Duration::from_micros(u64::from(self.number()?));
        (delay <= MAX_DELAY).then_some(delay)
    }

    fn letter(&mut self) -> Option<u8> {
        let [letter, b' ', rest @ ..] = self.rest else { return None };
        self.rest = rest;
        Some(*letter)
    }
}

/// What differs between two replies of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The nonce of the ask: [`NONCE`] bytes.
    Nonce,
    /// The account that answers: [`ACCOUNT`] bytes.
    Account,
    /// When the mock had read the request: [`TIME`] bytes.
    Received,
    /// When the mock sent the event: [`TIME`] bytes.
    Sent,
}

impl Field {
    /// Its length in bytes.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Nonce => NONCE,
            Self::Account => ACCOUNT,
            Self::Received | Self::Sent => TIME,
        }
    }
}

/// A field's place in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins.
    pub at: usize,
    /// What goes there.
    pub field: Field,
}

/// The bytes of all replies of one shape. Fields are zeros.
#[derive(Debug, Clone)]
pub struct Template {
    /// The bytes, without framing of HTTP or WebSocket.
    pub bytes: Vec<u8>,
    /// The fields, in order.
    pub holes: Vec<Hole>,
    /// Where each event ends, the first and the last among them: events, messages, or one unary reply.
    pub ends: Vec<usize>,
}

/// What fills the fields.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    /// The nonce of the ask.
    pub nonce: [u8; NONCE],
    /// The account, as [`account_field`] makes it.
    pub account: [u8; ACCOUNT],
    /// When the request was there.
    pub received: [u8; TIME],
}

impl Template {
    /// The body of an SSE stream: `response.created`, the content events, `response.completed`.
    #[must_use]
    pub fn sse(shape: Shape) -> Self {
        let end = if shape.line_end == LineEnd::Lf { "\n" } else { "\r\n" };
        let mut template = Self::empty();
        for index in 0..=shape.content_events() + 1 {
            template.literal(&format!("event: {}{end}data: ", shape.kind(index)));
            template.event(index, shape);
            template.literal(&format!("{end}{end}"));
            template.ends.push(template.bytes.len());
        }
        template
    }

    /// The messages of a turn on a WebSocket: the same events, each the JSON alone. A message ends where
    /// an event does.
    #[must_use]
    pub fn messages(shape: Shape) -> Self {
        let mut template = Self::empty();
        for index in 0..=shape.content_events() + 1 {
            template.event(index, shape);
            template.ends.push(template.bytes.len());
        }
        template
    }

    /// The body of a unary reply with `bytes` letters.
    #[must_use]
    pub fn unary(bytes: u32) -> Self {
        let mut template = Self::empty();
        template.literal(r#"{"id":""#);
        template.response_id();
        template.literal(r#"","object":"response.compaction","received":""#);
        template.hole(Field::Received);
        template.literal(r#"","sent":""#);
        template.hole(Field::Sent);
        template.literal(r#"","output":["#);
        template.sealed_item(bytes);
        template.literal("]}");
        template.ends.push(template.bytes.len());
        template
    }

    /// Appends the events `from..to` to `out`, filled in, as sent at `sent`.
    pub fn render(&self, from: usize, to: usize, values: &Values, sent: &[u8; TIME], out: &mut Vec<u8>) {
        let start = if from == 0 { 0 } else { self.ends[from - 1] };
        let end = if to == 0 { 0 } else { self.ends[to - 1] };
        let base = out.len();
        out.extend_from_slice(&self.bytes[start..end]);
        let first = self.holes.partition_point(|hole| hole.at < start);
        for hole in self.holes[first..].iter().take_while(|hole| hole.at < end) {
            let value: &[u8] = match hole.field {
                Field::Nonce => &values.nonce,
                Field::Account => &values.account,
                Field::Received => &values.received,
                Field::Sent => sent,
            };
            let at = base + hole.at - start;
            out[at..at + value.len()].copy_from_slice(value);
        }
    }

    /// The bytes of no reply.
    #[must_use]
    pub fn empty() -> Self {
        Self { bytes: Vec::new(), holes: Vec::new(), ends: Vec::new() }
    }

    fn literal(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn hole(&mut self, field: Field) {
        self.holes.push(Hole { at: self.bytes.len(), field });
        self.bytes.resize(self.bytes.len() + field.width(), 0);
    }

    /// An id that says who answered, so that the next request of a conversation can be checked by anyone.
    fn response_id(&mut self) {
        self.literal("resp_");
        self.hole(Field::Nonce);
        self.literal("_");
        self.hole(Field::Account);
    }

    /// What a compaction leaves of a history. As with the real backend, no two sealed items are equal, and one
    /// is its account's alone.
    fn sealed_item(&mut self, bytes: u32) {
        self.literal(r#"{"type":"compaction","id":"cmp_"#);
        self.hole(Field::Nonce);
        self.literal(r#"","encrypted_content":"sealed_"#);
        self.hole(Field::Nonce);
        self.literal("_");
        self.hole(Field::Account);
        self.literal("_");
        self.letters(0, bytes);
        self.literal(r#""}"#);
    }

    fn letters(&mut self, index: u32, count: u32) {
        self.literal(&letters(index, count));
    }

    /// The JSON of one event.
    fn event(&mut self, index: u32, shape: Shape) {
        self.literal(&format!(r#"{{"type":"{}","sequence_number":{index},"sent":""#, shape.kind(index)));
        self.hole(Field::Sent);
        if index == 0 {
            self.literal(r#"","received":""#);
            self.hole(Field::Received);
            self.literal(r#"","response":{"id":""#);
            self.response_id();
            self.literal(r#"","object":"response","status":"in_progress","model":"load","output":[]}}"#);
        } else if index <= shape.content_events() && shape.content == Content::Compaction {
            self.literal(r#"","output_index":0,"item":"#);
            self.sealed_item(shape.bytes);
            self.literal("}");
        } else if index <= shape.content_events() {
            self.literal(r#"","item_id":"msg_"#);
            self.hole(Field::Nonce);
            self.literal(r#"","output_index":0,"content_index":0,"delta":""#);
            self.letters(index, shape.bytes);
            self.literal(r#""}"#);
        } else {
            self.literal(r#"","response":{"id":""#);
            self.response_id();
            let (input, output) = (100, shape.content_events());
            self.literal(&format!(
                r#"","object":"response","status":"completed","model":"load","output":[],"usage":{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}}}}}}"#,
                input + output
            ));
        }
    }
}

/// The letters of the event with this number; those of a sealed item have 0.
#[must_use]
pub fn letters(index: u32, count: u32) -> String {
    (0..count).map(|place| char::from(b'a' + ((index % 26 * 7 + place % 26) % 26) as u8)).collect()
}

/// The JSON of the event with which a turn fails in-band: `code` is `server_error` or `insufficient_quota`.
/// Over SSE it is named `response.failed` and comes second; then the stream ends in good order.
#[must_use]
pub fn failed(code: &str, nonce: &[u8; NONCE]) -> String {
    let nonce = String::from_utf8_lossy(nonce);
    format!(
        r#"{{"type":"response.failed","sequence_number":1,"response":{{"id":"resp_{nonce}","object":"response","status":"failed","error":{{"code":"{code}","message":"{ASKED_FOR}"}}}}}}"#
    )
}

/// An account's name as it stands in a reply.
#[must_use]
pub fn account_field(name: &[u8]) -> [u8; ACCOUNT] {
    let mut field = [FILL; ACCOUNT];
    let length = name.len().min(ACCOUNT);
    field[..length].copy_from_slice(&name[..length]);
    field
}

/// What the body of every refusal and every failure that was asked for contains, so that nobody takes it for
/// a proxy's own.
pub const ASKED_FOR: &str = "asked for by the load driver";

/// The name of the account that a load driver gives to its profile of this number.
#[must_use]
pub fn account_name(number: usize) -> String {
    format!("load-{number:03}")
}

/// A time as it stands in a reply.
#[must_use]
pub fn time_field(nanoseconds: u64) -> [u8; TIME] {
    let mut field = [b'0'; TIME];
    let mut rest = nanoseconds;
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    field
}

/// The time in such a field.
#[must_use]
pub fn time_of(field: &[u8]) -> Option<u64> {
    field.iter().try_fold(0_u64, |time, digit| {
        digit.is_ascii_digit().then(|| time.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`: one clock for all processes of a machine.
#[must_use]
pub fn now() -> u64 {
    // The clock exists on every system that this runs on; zero would show as an absurd latency.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
}

#[cfg(test)]
mod tests;
