//! The calls around a turn: models, routing, usage, settings, plugins, the hosted MCP server, telemetry.
//!
//! Unanswered they cost a client up to half a minute, so each has an answer at once. Shapes as measured
//! with Codex 0.149 and 0.169 (`wire-facts` 1.1 and 1.10); what is not known is 404, which clients ignore.

use serde_json::{Value, json};

use super::{Backend, Incoming, Plan, catalogue};
use crate::accounts::{AccountState, unix_now};
use crate::script::CallName;
use crate::script::select::Asked;

impl Backend {
    pub(super) fn side(&self, incoming: &Incoming<'_>, asked: &Asked<'_>) -> Plan {
        match incoming.call {
            CallName::Models => {
                let mut plan = Plan::json(200, &catalogue::models());
                plan.headers.push(("etag".into(), catalogue::ETAG.into()));
                plan
            }
            CallName::AccountsCheck => Plan::json(200, &self.accounts_check(&self.state_of(asked))),
            CallName::Usage => Plan::json(200, &usage(&self.state_of(asked))),
            CallName::Settings | CallName::Analytics => Plan::json(200, &json!({})),
            CallName::Plugins => {
                let none = json!({ "plugins": [], "pagination": { "limit": 200, "next_page_token": null } });
                Plan::json(200, &none)
            }
            CallName::Mcp => mcp(incoming),
            CallName::Token => self.token(incoming.body),
            CallName::Responses | CallName::Compact | CallName::Auxiliary | CallName::Unknown => {
                Plan::json(404, &json!({ "detail": "Not Found" }))
            }
        }
    }

    fn state_of(&self, asked: &Asked<'_>) -> AccountState {
        self.accounts().state_or_fresh(asked.account.unwrap_or("account"))
    }

    fn accounts_check(&self, state: &AccountState) -> Value {
        let id = &state.id;
        let origin = state.backend_origin.as_ref().unwrap_or(&self.origin);
        json!({
            "accounts": [{
                "id": id, "account_id": id, "account_user_id": format!("user-{id}__{id}"),
                "structure": "personal", "plan_type": state.plan, "name": null,
                "profile_picture_url": null, "is_deactivated": false,
                "workspace_backend_origin": origin,
                "account_routing_override": state.routing_override,
            }],
            "account_ordering": [id],
            "default_account_id": id,
        })
    }
}

/// The answer of `GET …/wham/usage`. Clients take `used_percent` only as an integer.
fn usage(state: &AccountState) -> Value {
    let now = unix_now();
    let window = |at: usize| {
        let window = state.windows.get(at)?;
        Some(json!({
            "used_percent": window.used_percent.round() as u64,
            "limit_window_seconds": window.seconds,
            "reset_after_seconds": window.resets_at.saturating_sub(now),
            "reset_at": window.resets_at,
        }))
    };
    let is_exhausted = state.is_exhausted();
    json!({
        "plan_type": state.plan,
        "rate_limit": {
            "allowed": !is_exhausted, "limit_reached": is_exhausted,
            "primary_window": window(0), "secondary_window": window(1),
        },
        "credits": { "has_credits": false, "unlimited": false, "balance": null },
        "additional_rate_limits": null,
    })
}

/// A server of the streamable HTTP transport of MCP that has no tools.
fn mcp(incoming: &Incoming<'_>) -> Plan {
    if incoming.head.method() != "POST" {
        // There is no stream to listen to, and a session needs no end.
        let status = if incoming.head.method() == "DELETE" { 200 } else { 405 };
        return Plan::json(status, &json!({}));
    }
    let message: Value = serde_json::from_slice(incoming.body).unwrap_or_default();
    let Some(id) = message.get("id") else {
        return Plan::whole(202, Vec::new(), bytes::Bytes::new());
    };
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "mock-upstream", "version": env!("CARGO_PKG_VERSION") },
        }),
        Some("tools/list") => json!({ "tools": [] }),
        Some("ping") => json!({}),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            return Plan::json(200, &json!({ "jsonrpc": "2.0", "id": id, "error": error }));
        }
    };
    let mut plan = Plan::json(200, &json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    if message["method"] == "initialize" {
        plan.headers.push(("mcp-session-id".into(), "mock-session".into()));
    }
    plan
}
