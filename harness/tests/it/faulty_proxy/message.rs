//! Heads and bodies as the faulty proxy changes them.

use super::{Defect, Setup};

/// A head that can be changed.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) first: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Self { first, fields }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let fields = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("{}\r\n{}\r\n", self.first, fields.collect::<String>()).into_bytes()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.fields.iter_mut().find(|(field, _)| field.eq_ignore_ascii_case(name)) {
            Some((_, old)) => value.clone_into(old),
            None => self.add(name, value),
        }
    }

    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.fields.push((name.into(), value.into()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.fields.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
    }

    fn lowercase(&mut self) {
        self.fields.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
    }

    /// The places of the fields with this name.
    fn places(&self, name: &str) -> Vec<usize> {
        let is_named = |at: &usize| self.fields[*at].0.eq_ignore_ascii_case(name);
        (0..self.fields.len()).filter(is_named).collect()
    }

    fn swap(&mut self, name: &str) {
        if let [first, second, ..] = self.places(name)[..] {
            self.fields.swap(first, second);
        }
    }

    fn join(&mut self, name: &str) {
        if let [first, second, ..] = self.places(name)[..] {
            let (_, value) = self.fields.remove(second);
            self.fields[first].1 = format!("{}, {value}", self.fields[first].1);
        }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.get("content-type") == Some("text/event-stream")
    }
}

/// Changes the head of a request.
pub(crate) fn request(head: &mut Head, setup: &Setup) {
    let Some(defect) = setup.defect else { return pooled(head, setup) };
    match defect {
        Defect::DropsHeader => head.remove("version"),
        Defect::RenamesHeader => {
            let value = head.get("session-id").unwrap_or_default().to_owned();
            head.remove("session-id");
            head.add("session_id", &value);
        }
        Defect::ReordersHeaders => head.fields.sort(),
        Defect::SwapsDuplicates => head.swap("x-duplicate"),
        Defect::RepeatsHeader => head.add("originator", "codex_exec"),
        Defect::JoinsDuplicates => head.join("x-duplicate"),
        Defect::LowercasesNames => head.lowercase(),
        Defect::AddsForwardedFor => head.add("X-Forwarded-For", "127.0.0.1"),
        Defect::AddsOwnHeader => head.add("x-proxy-request-id", "1"),
        Defect::RewritesUserAgent => head.set("user-agent", "proxy/1.0"),
        Defect::DropsQuery => retarget(head, |target| target.split('?').next().unwrap().to_owned()),
        Defect::DecodesEscapes => retarget(head, |target| target.replace("%2F", "/").replace("%2f", "/")),
        Defect::JoinsSlashes => retarget(head, |target| target.replace("//", "/")),
        Defect::UppercasesMethod => {
            let (method, rest) = head.first.split_once(' ').unwrap();
            head.first = format!("{} {rest}", method.to_ascii_uppercase());
        }
        Defect::SaysTheLengthTwice => head.add("Content-Length", "3"),
        Defect::AddsConnectionField => head.add("connection", "keep-alive"),
        _ => {}
    }
    pooled(head, setup);
}

fn retarget(head: &mut Head, change: impl Fn(&str) -> String) {
    let parts: Vec<&str> = head.first.split(' ').collect();
    head.first = format!("{} {} {}", parts[0], change(parts[1]), parts[2]);
}

/// Puts the account's credentials in place of the client's.
fn pooled(head: &mut Head, setup: &Setup) {
    let conversation = head.get("session-id").unwrap_or_default().to_owned();
    let Some((own, other)) = setup.accounts_of(&conversation) else { return };
    let account = if setup.has(Defect::MixesAccounts) { other } else { own };
    if !setup.has(Defect::KeepsClientsToken) {
        head.set("authorization", &format!("Bearer {}", own.0));
    }
    head.set("chatgpt-account-id", &account.1);
    if !setup.has(Defect::ForwardsCookie) {
        head.remove("cookie");
    }
    match setup.defect {
        Some(Defect::LeaksToken) => head.add("x-other-account", &other.0),
        Some(Defect::MovesContinuation) => head.remove("x-codex-turn-state"),
        Some(Defect::LeaksTurnState) if head.get("x-codex-turn-state").is_some() => {
            head.set("authorization", &format!("Bearer {}", other.0));
            head.set("chatgpt-account-id", &other.1);
        }
        _ => {}
    }
}

/// Whether the body of a request is changed, for which it must be whole.
pub(crate) fn takes_body(defect: Defect) -> bool {
    use Defect::{
        AddsNewline, ChangesEscapes, CutsUpload, DecodesRequest, RecodesRequest, ReencodesJson, SendsTwice,
    };
    matches!(
        defect,
        ReencodesJson
            | ChangesEscapes
            | AddsNewline
            | DecodesRequest
            | RecodesRequest
            | CutsUpload
            | SendsTwice
            | Defect::AsksAgainAfterCut
    )
}

/// Changes the body of a request.
pub(crate) fn request_body(head: &mut Head, body: Vec<u8>, defect: Defect) -> Vec<u8> {
    let body = match defect {
        Defect::ReencodesJson => {
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            serde_json::to_vec(&value).unwrap()
        }
        Defect::ChangesEscapes => String::from_utf8_lossy(&body).replace("\\u00e9", "é").into_bytes(),
        Defect::AddsNewline => [&body[..], b"\n"].concat(),
        Defect::DecodesRequest => {
            head.remove("content-encoding");
            zstd::decode_all(&body[..]).unwrap()
        }
        Defect::RecodesRequest => zstd::encode_all(&zstd::decode_all(&body[..]).unwrap()[..], 3).unwrap(),
        Defect::CutsUpload => body[..body.len().min(1 << 20)].to_vec(),
        _ => body,
    };
    if head.get("content-length").is_some() {
        head.set("content-length", &body.len().to_string());
    }
    body
}

/// Changes the head of a response.
pub(crate) fn response(head: &mut Head, setup: &Setup) {
    if !setup.accounts.is_empty() && !setup.has(Defect::PassesSetCookie) {
        head.remove("set-cookie");
    }
    match setup.defect {
        Some(Defect::MapsStatus) => head.first = "HTTP/1.1 503 Service Unavailable".into(),
        Some(Defect::DropsRetryAfter) => head.remove("retry-after"),
        Some(Defect::CollapsesCookies) => head.join("set-cookie"),
        Some(Defect::SwapsResponseDuplicates) => head.swap("warning"),
        Some(Defect::DropsResponseHeader) => head.remove("x-codex-primary-used-percent"),
        Some(Defect::AddsResponseHeader) => head.add("x-proxy", "here"),
        Some(Defect::LowercasesResponse) => head.lowercase(),
        Some(Defect::DropsContentEncoding) => head.remove("content-encoding"),
        Some(Defect::TellsClientTheToken) => head.add("x-served-by", &setup.accounts[0].0),
        _ => {}
    }
}

/// Whether the body of a whole response is changed.
pub(crate) fn takes_response(defect: Defect) -> bool {
    use Defect::{CutsDownload, DecodesResponse, PromisesTooMuch, SwallowsErrorBody};
    matches!(defect, SwallowsErrorBody | DecodesResponse | CutsDownload | PromisesTooMuch)
}

/// Changes the body of a whole response.
pub(crate) fn response_body(head: &mut Head, body: Vec<u8>, defect: Defect) -> Vec<u8> {
    let body = match defect {
        Defect::SwallowsErrorBody => Vec::new(),
        // A gzip of one stored block.
        Defect::DecodesResponse => {
            head.remove("content-encoding");
            body[15..body.len() - 8].to_vec()
        }
        Defect::CutsDownload => body[..body.len().min(1 << 20)].to_vec(),
        _ => body,
    };
    let more = usize::from(defect == Defect::PromisesTooMuch) * 5;
    head.set("content-length", &(body.len() + more).to_string());
    body
}
