//! Which rule answers a request.
//!
//! Conditions that need the body read are looked at last, so that a script without any costs nothing.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wire::responses::RequestView;

use super::{CallName, Rule, Script, Transport, When};
use crate::chatgpt::ModelRequest;

/// A script in play: with the count of what each rule has matched.
pub(crate) struct Active {
    pub(crate) script: Script,
    /// For each rule its name for the journal and how many requests have matched it.
    rules: Vec<(Arc<str>, AtomicU64)>,
}

/// A request as rules see it.
pub(crate) struct Asked<'a> {
    pub(crate) call: CallName,
    /// For model requests.
    pub(crate) transport: Option<Transport>,
    pub(crate) target: &'a str,
    pub(crate) account: Option<&'a str>,
    /// The decoded body.
    pub(crate) body: &'a [u8],
    /// The request read from the body, once someone needs it.
    pub(crate) model: OnceCell<ModelRequest>,
    /// Reads it.
    pub(crate) read: &'a dyn Fn(&[u8]) -> ModelRequest,
}

impl Asked<'_> {
    pub(crate) fn model(&self) -> &ModelRequest {
        self.model.get_or_init(|| (self.read)(self.body))
    }
}

impl Active {
    pub(crate) fn new(script: Script) -> Self {
        let name = |(at, rule): (usize, &Rule)| match &rule.name {
            Some(name) => Arc::from(name.as_str()),
            None => Arc::from(format!("rule {}", at + 1)),
        };
        let rules = script.rules.iter().enumerate().map(name).map(|name| (name, AtomicU64::new(0))).collect();
        Self { script, rules }
    }

    /// The first rule that matches and has not answered its share.
    pub(crate) fn select(&self, asked: &Asked<'_>) -> Option<(&Rule, Arc<str>)> {
        self.script.rules.iter().zip(&self.rules).find_map(|(rule, (name, matched))| {
            if !rule.when.matches(asked) {
                return None;
            }
            let earlier = matched.fetch_add(1, Ordering::Relaxed);
            let in_share = rule.times.is_none_or(|times| earlier < rule.skip.saturating_add(times));
            (earlier >= rule.skip && in_share).then(|| (rule, Arc::clone(name)))
        })
    }
}

impl When {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        let transport = match self.transport {
            Some(transport) => asked.transport == Some(transport),
            None => asked.transport != Some(Transport::Upgrade),
        };
        let holds =
            |wanted: &Option<String>, holds: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(holds);
        self.call == asked.call
            && transport
            && holds(&self.account, &|id| asked.account == Some(id))
            && holds(&self.target, &|part| asked.target.contains(part))
            && holds(&self.body, &|part| memchr::memmem::find(asked.body, part.as_bytes()).is_some())
            && (asked.transport == Some(Transport::Upgrade)
                || self.call != CallName::Responses
                || self.matches_model(asked))
    }

    fn matches_model(&self, asked: &Asked<'_>) -> bool {
        let view = RequestView::new(asked.body);
        let wants_trigger = self.last_item.as_deref() == Some("compaction_trigger");
        if self.warm_up != view.is_warm_up() || (!wants_trigger && view.is_compaction()) {
            return false;
        }
        let text = |wanted: &Option<String>, actual: &dyn Fn() -> Option<String>| {
            wanted.is_none() || *wanted == actual()
        };
        text(&self.model, &|| Some(asked.model().model.clone()))
            && text(&self.last_item, &|| asked.model().last_item.clone())
            && self.has_tool_output.is_none_or(|wanted| asked.model().has_tool_output == wanted)
            && self.user_text.as_deref().is_none_or(|wanted| {
                asked.model().user_text.as_deref().is_some_and(|text| text.contains(wanted))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Turn;

    fn chosen(active: &Active, transport: Transport, body: &str) -> Option<String> {
        let asked = Asked {
            call: CallName::Responses,
            transport: Some(transport),
            target: "/v1/responses",
            account: Some("a"),
            body: body.as_bytes(),
            model: OnceCell::new(),
            read: &ModelRequest::read,
        };
        active.select(&asked).map(|(_, name)| name.to_string())
    }

    fn user(text: &str) -> String {
        format!(r#"{{"model":"m","input":[{{"role":"user","type":"message","content":"{text}"}}]}}"#)
    }

    #[test]
    fn the_first_rule_that_matches_answers() {
        let active = Active::new(Script::rules([
            Rule::new(Turn::text("")).user_text("red").named("red"),
            Rule::new(Turn::text("")).account("b").named("b"),
            Rule::new(Turn::text("")).transport(Transport::Upgrade).named("upgrade"),
            Rule::new(Turn::text("")).named("any"),
        ]));
        assert_eq!(chosen(&active, Transport::Http, &user("a red one")).as_deref(), Some("red"));
        assert_eq!(chosen(&active, Transport::Http, &user("blue")).as_deref(), Some("any"));
        assert_eq!(chosen(&active, Transport::Upgrade, "").as_deref(), Some("upgrade"));
        assert_eq!(chosen(&active, Transport::Websocket, "").as_deref(), Some("any"));
    }

    #[test]
    fn a_rule_answers_its_share() {
        let active = Active::new(Script::rules([
            Rule::new(Turn::text("")).nth(2).named("second"),
            Rule::new(Turn::text("")).times(2).named("twice"),
        ]));
        let names: Vec<_> =
            (0..5).map(|_| chosen(&active, Transport::Http, "{}").unwrap_or("-".into())).collect();
        assert_eq!(names, ["twice", "second", "twice", "-", "-"]);
    }

    #[test]
    fn warm_ups_and_compactions_are_left_alone() {
        let compaction = r#"{"input":[{"type":"compaction_trigger"}]}"#;
        let warm_up = r#"{"generate":false}"#;
        let active = Active::new(Script::rules([Rule::new(Turn::text(""))]));
        assert_eq!(chosen(&active, Transport::Websocket, compaction), None);
        assert_eq!(chosen(&active, Transport::Websocket, warm_up), None);
        let when = |last_item: Option<&str>, warm_up| When {
            last_item: last_item.map(Into::into),
            warm_up,
            ..When::default()
        };
        let active = Active::new(Script::rules([
            Rule::new(Turn::text("")).when(when(Some("compaction_trigger"), false)).named("compaction"),
            Rule::new(Turn::text("")).when(when(None, true)).named("warm-up"),
        ]));
        assert_eq!(chosen(&active, Transport::Websocket, compaction).as_deref(), Some("compaction"));
        assert_eq!(chosen(&active, Transport::Websocket, warm_up).as_deref(), Some("warm-up"));
    }
}
