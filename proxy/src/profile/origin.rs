//! Where a ChatGPT profile's traffic goes: the answer to `wham/accounts/check`, asked once per profile.
//!
//! Only the first request of a profile waits for it. Later the question is asked again beside the requests,
//! and while it is not answered the last answer holds: an account does not lose its region to a bad minute.
//!
//! Accounts may be bound to a region, with a backend origin and a routing value of their own. Codex 0.156
//! and newer asks this for its own account; the proxy answers the client itself (see `workspace`) and
//! asks the same question for each profile. Shape measured with Codex 0.160 and 0.169.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;
use wire::route::Api;
use wire::run_event::RunEvent;

use super::{Profile, backend, lock};
use crate::config::Origin;
use crate::control::Control;

/// How long an answer is believed.
const FRESH: Duration = Duration::from_secs(30 * 60);

/// How long it takes until the question is asked again when there was no answer.
const RETRY: Duration = Duration::from_secs(60);

/// How long a first turn waits for the answer, a renewal that turns out to be due included. Asked in vain,
/// the common backend is right for nearly all.
const PATIENCE: Duration = Duration::from_secs(8);

/// The value that stands for "anywhere".
const UNCONSTRAINED: &str = "NO_CONSTRAINT";

/// Where a profile's traffic goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routing {
    /// The account's own backend; none for the common one.
    pub origin: Option<Origin>,
    /// The value of `x-openai-account-routing-override`; none for no such field.
    pub routing: Option<String>,
}

/// The question that runs for a profile, and the last answer.
#[derive(Debug, Default)]
pub struct Flight {
    flight: crate::control::Flight<Routing>,
    /// With the time until which it need not be asked for again.
    answer: Mutex<Option<(Instant, Routing)>>,
}

impl Flight {
    fn answer(&self) -> MutexGuard<'_, Option<(Instant, Routing)>> {
        lock(&self.answer)
    }

    /// The account's own backend, if it is known to have one.
    #[must_use]
    pub fn known(&self) -> Option<Origin> {
        self.answer().as_ref().and_then(|(_, routing)| routing.origin.clone())
    }

    fn set(&self, routing: Routing) {
        *self.answer() = Some((Instant::now() + FRESH, routing));
    }

    /// Leaves it at the last answer for now, or, if there has been none, at the common backend.
    fn keep(&self) -> Routing {
        let mut answer = self.answer();
        let routing = answer.take().map(|(_, routing)| routing).unwrap_or_default();
        *answer = Some((Instant::now() + RETRY, routing.clone()));
        routing
    }
}

/// Where this profile's traffic goes. Asked upstream when it is not known; without an answer the traffic
/// goes to the common backend, which is where it went before there was such a question.
pub async fn of(control: &Arc<Control>, profile: &Arc<Profile>) -> Routing {
    if profile.kind.api() != Api::Chatgpt {
        return Routing::default();
    }
    let start = || {
        let (control, profile) = (Arc::clone(control), Arc::clone(profile));
        async move { ask(&control, &profile).await }
    };
    let flight = &profile.origin.flight;
    let answer = profile.origin.answer().clone();
    if let Some((good_until, routing)) = answer {
        if good_until <= Instant::now() {
            flight.begin(&control.tasks, start);
        }
        return routing;
    }
    let asked = tokio::time::timeout(PATIENCE, flight.join(&control.tasks, start)).await;
    asked.ok().flatten().unwrap_or_default()
}

async fn ask(control: &Arc<Control>, profile: &Arc<Profile>) -> Routing {
    match fetch(control, profile).await {
        Ok(routing) => {
            let origin = routing.origin.as_ref().map_or_else(|| "default".to_owned(), Origin::to_string);
            control.log.record(&RunEvent::ProfileOrigin {
                profile: (&*profile.name).into(),
                origin: origin.into(),
                routing: routing.routing.as_deref().map(Into::into),
            });
            profile.origin.set(routing.clone());
            routing
        }
        Err(problem) => {
            control.log.record(&RunEvent::CompatWarning {
                request: 0,
                warning: "accounts_check".into(),
                detail: format!("{}: {problem}", profile.name).into(),
            });
            profile.origin.keep()
        }
    }
}

async fn fetch(control: &Arc<Control>, profile: &Arc<Profile>) -> Result<Routing, String> {
    let limit = control.config.control_timeout.min(PATIENCE);
    let answer = backend::get(control, profile, "/backend-api/wham/accounts/check", limit).await;
    let answer = answer.map_err(|problem| problem.to_string())?;
    let body: Value = serde_json::from_slice(&answer.body).map_err(|_| "the answer is not JSON")?;
    read(&body, &answer.account_id, control.origin(Api::Chatgpt))
}

/// Finds the account's entry in an answer. `accounts` may be a list or a map.
fn read(answer: &Value, account: &str, base: &Origin) -> Result<Routing, String> {
    let entries: Vec<&Value> = match &answer["accounts"] {
        Value::Array(entries) => entries.iter().collect(),
        Value::Object(entries) => entries.values().collect(),
        _ => return Err("the answer has no accounts".to_owned()),
    };
    let is_ours =
        |entry: &&&Value| ["id", "account_id"].iter().any(|key| entry[*key].as_str() == Some(account));
    let entry = entries.iter().find(is_ours).ok_or("the answer does not name the account")?;
    let text = |key: &str| entry[key].as_str().filter(|value| *value != UNCONSTRAINED);
    let routing = text("account_routing_override");
    let routing = routing.filter(|value| value.len() < 64 && value.bytes().all(|b| b.is_ascii_graphic()));
    let origin = match text("workspace_backend_origin") {
        None => None,
        Some(origin) => {
            Some(Origin::parse(origin).map_err(|problem| format!("its origin is unusable: {problem}"))?)
        }
    };
    if let Some(origin) = &origin
        && !origin.is_loopback()
        && !origin.is_tls()
    {
        return Err("its origin is not https".to_owned());
    }
    // No vendor's backend is on this machine: only a laboratory's own is, and it speaks as the laboratory
    // does. Any other stands for "nowhere", as it does towards clients (see `workspace`).
    let origin = origin
        .filter(|origin| !origin.is_loopback() || (base.is_loopback() && origin.is_tls() == base.is_tls()));
    Ok(Routing { origin, routing: routing.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::profile::Credentials;
    use crate::server::authority::client_config;
    use crate::state::State;
    use crate::telemetry::RunLog;
    use serde_json::json;
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

    #[tokio::test]
    async fn an_account_keeps_its_region_while_the_question_fails() {
        let upstream = MockServer::start().await;
        let bound = ResponseTemplate::new(200).set_body_json(answer(&json!("http://127.0.0.1:1"), "eu"));
        let question = || Mock::given(matchers::path("/backend-api/wham/accounts/check"));
        question().respond_with(bound).up_to_n_times(1).mount(&upstream).await;
        question().respond_with(ResponseTemplate::new(503)).mount(&upstream).await;
        let home = tempfile::tempdir().unwrap();
        let flags = vec![("upstream", upstream.uri())];
        let config = Config::load(Some(home.path()), &|_| None, &flags).unwrap();
        let (log, tls) = (Arc::new(RunLog::none()), Arc::new(client_config(None).unwrap()));
        let runtime = tokio::runtime::Handle::current();
        let control = Arc::new(Control::new(config, State::in_memory(), log, tls, runtime));
        let login = json!({"tokens": {"access_token": "t", "account_id": "a"}}).to_string();
        let profile = Arc::new(Profile::new("work", Credentials::parse(&login).unwrap()));
        let first = of(&control, &profile).await;
        assert_eq!(first.routing.as_deref(), Some("eu"));
        profile.origin.answer().as_mut().unwrap().0 = Instant::now();
        assert_eq!(of(&control, &profile).await, first, "the question is asked beside it");
        control.tasks.end(Duration::from_secs(20)).await;
        assert_eq!(upstream.received_requests().await.unwrap().len(), 2);
        assert_eq!(of(&control, &profile).await, first);
    }

    fn answer(origin: &Value, routing: &str) -> Value {
        json!({"accounts": [
            {"id": "other", "workspace_backend_origin": "https://elsewhere"},
            {"id": "x", "account_id": "a", "workspace_backend_origin": origin, "account_routing_override": routing}
        ]})
    }

    #[test]
    fn the_entry_of_the_account_counts() {
        let base = Origin::parse("https://chatgpt.com").unwrap();
        let bound = read(&answer(&json!("https://eu.example"), "us"), "a", &base).unwrap();
        assert_eq!(bound.origin.unwrap().to_string(), "https://eu.example");
        assert_eq!(bound.routing.as_deref(), Some("us"));
        let free = read(&answer(&json!(UNCONSTRAINED), UNCONSTRAINED), "a", &base).unwrap();
        assert_eq!(free, Routing::default());
        assert_eq!(read(&answer(&Value::Null, "us\r\nx: y"), "a", &base).unwrap(), Routing::default());
        let map = json!({"accounts": {"k": {"account_id": "a", "account_routing_override": "us_cr"}}});
        assert_eq!(read(&map, "a", &base).unwrap().routing.as_deref(), Some("us_cr"));
    }

    #[test]
    fn an_unusable_answer_is_none() {
        let base = Origin::parse("https://chatgpt.com").unwrap();
        assert!(read(&json!({}), "a", &base).is_err());
        assert!(read(&answer(&json!("https://x"), "us"), "b", &base).is_err());
        assert!(read(&answer(&json!("http://evil.example"), "us"), "a", &base).is_err());
    }

    #[test]
    fn the_loopback_is_a_backend_for_a_laboratory_only() {
        let origin = |base: &str, origin: &str| {
            let base = Origin::parse(base).unwrap();
            read(&answer(&json!(origin), "us"), "a", &base).unwrap().origin.is_some()
        };
        assert!(origin("http://127.0.0.1:2", "http://127.0.0.1:1"));
        assert!(origin("https://localhost:2", "https://localhost:1"));
        assert!(!origin("http://127.0.0.1:2", "https://localhost:9"));
        assert!(!origin("https://chatgpt.com", "https://localhost:9"));
        assert!(!origin("https://chatgpt.com", "http://127.0.0.1:1"));
    }
}
