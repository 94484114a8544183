//! Who owns which response: every id that was issued, as long as it is remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::chatgpt::ShellTool;

/// What was issued under a response id: its owner, and what a request that continues it need not repeat.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) account: Arc<str>,
    pub(crate) connection: u64,
    pub(crate) user_text: Arc<str>,
    pub(crate) shell: Option<ShellTool>,
}

/// The responses that were issued.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    issued: HashMap<String, Issued>,
    order: VecDeque<String>,
}

/// Most response ids that are remembered; the oldest are forgotten, as the backend does.
const MAX_ISSUED: usize = 65_536;

impl Responses {
    /// Remembers who owns a response.
    pub(crate) fn issue(&mut self, response: &str, issued: Issued) {
        if self.issued.insert(response.to_owned(), issued).is_none() {
            self.order.push_back(response.to_owned());
        }
        if self.order.len() > MAX_ISSUED
            && let Some(oldest) = self.order.pop_front()
        {
            self.issued.remove(&oldest);
        }
    }

    /// What was issued under a response id.
    pub(crate) fn get(&self, response: &str) -> Option<&Issued> {
        self.issued.get(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_responses_are_forgotten() {
        let mut responses = Responses::default();
        let issued = || Issued { account: "a".into(), connection: 0, user_text: "".into(), shell: None };
        for n in 0..=MAX_ISSUED {
            responses.issue(&format!("r{n}"), issued());
        }
        assert!(responses.get("r0").is_none() && responses.get("r1").is_some());
    }
}
