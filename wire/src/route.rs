//! The calls that Codex makes on its vendors' backends, found by method and path.
//!
//! Measured with Codex 0.140 to 0.169 against loopback mocks (November 2026); the rows marked "source"
//! stand in the client's source and were not seen on the wire. What to do with a call is not said here.

/// The backend that a call belongs to; each has its own kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// `chatgpt.com/backend-api`, used with a ChatGPT login.
    Chatgpt,
    /// `api.openai.com/v1`, used with an API key.
    OpenAi,
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// A model turn: POST answered as SSE, or a WebSocket upgrade.
    Responses,
    /// Unary compaction, reachable in clients up to 0.149.
    Compact,
    /// The model catalogue.
    Models,
    /// Where the workspace's traffic goes; asked by 0.160 and newer before the first turn.
    AccountsCheck,
    /// Rate limits of the account.
    Usage,
    /// The user's settings.
    Settings,
    /// Plugin lists.
    Plugins,
    /// The hosted MCP server.
    Mcp,
    /// Telemetry about threads and turns.
    Analytics,
    /// Other model-backed calls: memory summaries, search, images, realtime.
    Auxiliary,
}

impl Call {
    /// Whether a turn of the model waits for this call, so that it carries a conversation.
    #[must_use]
    pub fn is_model_call(self) -> bool {
        matches!(self, Self::Responses | Self::Compact | Self::Auxiliary)
    }

    /// The name used in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Compact => "compact",
            Self::Models => "models",
            Self::AccountsCheck => "accounts_check",
            Self::Usage => "usage",
            Self::Settings => "settings",
            Self::Plugins => "plugins",
            Self::Mcp => "mcp",
            Self::Analytics => "analytics",
            Self::Auxiliary => "auxiliary",
        }
    }
}

/// A call on a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// Whose call it is.
    pub api: Api,
    /// What it is for.
    pub call: Call,
}

/// Why there is no route for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// The path is not one that a known client uses.
    #[error("no known client calls this path")]
    Path,
    /// The path is known, the method is not.
    #[error("this path is not called with this method")]
    Method,
}

/// How a row matches paths.
enum Pattern {
    /// This path.
    Is(&'static str),
    /// This path and everything below it.
    Under(&'static str),
}

struct Row {
    api: Api,
    methods: &'static [&'static str],
    pattern: Pattern,
    call: Call,
}

const fn row(api: Api, methods: &'static [&'static str], pattern: Pattern, call: Call) -> Row {
    Row { api, methods, pattern, call }
}

const GET: &[&str] = &["GET"];
const POST: &[&str] = &["POST"];
const BOTH: &[&str] = &["GET", "POST"];
/// The streamable HTTP transport of MCP: messages, the event stream, the end of a session.
const MCP: &[&str] = &["GET", "POST", "DELETE"];

const ROWS: &[Row] = &[
    row(Api::Chatgpt, BOTH, Pattern::Is("/backend-api/codex/responses"), Call::Responses),
    row(Api::Chatgpt, POST, Pattern::Is("/backend-api/codex/responses/compact"), Call::Compact),
    row(Api::Chatgpt, GET, Pattern::Is("/backend-api/codex/models"), Call::Models),
    row(Api::Chatgpt, POST, Pattern::Is("/backend-api/codex/analytics-events/events"), Call::Analytics),
    row(Api::Chatgpt, GET, Pattern::Is("/backend-api/wham/accounts/check"), Call::AccountsCheck),
    row(Api::Chatgpt, GET, Pattern::Is("/backend-api/wham/usage"), Call::Usage),
    row(Api::Chatgpt, BOTH, Pattern::Under("/backend-api/wham/rate-limit-reset-credits"), Call::Usage),
    row(Api::Chatgpt, GET, Pattern::Under("/backend-api/wham/settings"), Call::Settings),
    row(Api::Chatgpt, GET, Pattern::Under("/backend-api/ps/plugins"), Call::Plugins),
    row(Api::Chatgpt, GET, Pattern::Under("/backend-api/plugins"), Call::Plugins),
    row(Api::Chatgpt, MCP, Pattern::Is("/backend-api/ps/mcp"), Call::Mcp),
    // Source: codex-rs/codex-api/src/endpoint.
    row(Api::Chatgpt, POST, Pattern::Is("/backend-api/codex/memories/trace_summarize"), Call::Auxiliary),
    row(Api::Chatgpt, POST, Pattern::Is("/backend-api/codex/alpha/search"), Call::Auxiliary),
    row(Api::Chatgpt, POST, Pattern::Under("/backend-api/codex/images"), Call::Auxiliary),
    row(Api::Chatgpt, POST, Pattern::Is("/backend-api/codex/realtime/calls"), Call::Auxiliary),
    row(Api::OpenAi, BOTH, Pattern::Is("/v1/responses"), Call::Responses),
    row(Api::OpenAi, POST, Pattern::Is("/v1/responses/compact"), Call::Compact),
    row(Api::OpenAi, GET, Pattern::Is("/v1/models"), Call::Models),
    // Source: the same endpoints below an API key's base URL.
    row(Api::OpenAi, POST, Pattern::Is("/v1/memories/trace_summarize"), Call::Auxiliary),
    row(Api::OpenAi, POST, Pattern::Is("/v1/alpha/search"), Call::Auxiliary),
    row(Api::OpenAi, POST, Pattern::Under("/v1/images"), Call::Auxiliary),
    row(Api::OpenAi, POST, Pattern::Is("/v1/realtime/calls"), Call::Auxiliary),
];

impl Route {
    /// The route of a request with this method and target. The query is not looked at.
    ///
    /// # Errors
    /// When no known client makes such a request.
    pub fn find(method: &str, target: &str) -> Result<Self, NoRoute> {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let mut error = NoRoute::Path;
        for row in ROWS {
            let matches = match row.pattern {
                Pattern::Is(expected) => path == expected,
                Pattern::Under(prefix) => {
                    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }
            };
            if matches && row.methods.contains(&method) {
                return Ok(Self { api: row.api, call: row.call });
            }
            if matches {
                error = NoRoute::Method;
            }
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_calls_of_codex_are_known() {
        for (method, target, api, call) in [
            ("POST", "/backend-api/codex/responses", Api::Chatgpt, Call::Responses),
            ("GET", "/backend-api/codex/responses", Api::Chatgpt, Call::Responses),
            ("GET", "/backend-api/codex/models?client_version=0.169.0", Api::Chatgpt, Call::Models),
            ("GET", "/backend-api/ps/plugins/installed?limit=200", Api::Chatgpt, Call::Plugins),
            ("GET", "/backend-api/ps/plugins/suggested/codex?scope=GLOBAL", Api::Chatgpt, Call::Plugins),
            ("GET", "/backend-api/plugins/featured?platform=codex", Api::Chatgpt, Call::Plugins),
            ("DELETE", "/backend-api/ps/mcp", Api::Chatgpt, Call::Mcp),
            ("GET", "/backend-api/wham/settings/user", Api::Chatgpt, Call::Settings),
            ("POST", "/v1/responses", Api::OpenAi, Call::Responses),
        ] {
            assert_eq!(Route::find(method, target), Ok(Route { api, call }), "{method} {target}");
        }
    }

    #[test]
    fn everything_else_has_no_route() {
        for target in [
            "/",
            "/backend-api",
            "/backend-api/conversations",
            "/backend-api/codex/responses/",
            "/v1/files",
            "/backend-api/wham/settingsx",
            "/backend-api/codex",
            "/V1/responses",
        ] {
            assert_eq!(Route::find("GET", target), Err(NoRoute::Path), "{target}");
        }
        assert_eq!(Route::find("DELETE", "/v1/responses"), Err(NoRoute::Method));
        assert_eq!(Route::find("get", "/v1/models"), Err(NoRoute::Method));
    }
}
