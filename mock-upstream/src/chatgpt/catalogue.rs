//! The models that the mock offers: two, with one line of instructions in our own words each.
//!
//! Keys as Codex 0.149 and 0.169 need them (`wire-facts` 1.10); the names are the vendor's, because the
//! client compares them with its own list. `gpt-5.6-sol` is of the responses-lite kind, `gpt-5.5` has
//! functions.

use serde_json::{Value, json};

/// The etag of the catalogue.
pub(crate) const ETAG: &str = "\"mock-models-1\"";

/// The answer of `GET …/models`.
pub(crate) fn models() -> Value {
    let lite = json!({
        "use_responses_lite": true, "tool_mode": "code_mode_only", "multi_agent_version": "v2",
    });
    json!({ "models": [model("gpt-5.6-sol", 1, &lite), model("gpt-5.5", 7, &json!({}))] })
}

fn model(slug: &str, priority: u32, more: &Value) -> Value {
    let mut model = json!({
        "slug": slug,
        "display_name": slug.to_uppercase(),
        "description": "A model of the mock.",
        "default_reasoning_level": "low",
        "supported_reasoning_levels": [
            { "effort": "low", "description": "Short" },
            { "effort": "medium", "description": "Longer" },
            { "effort": "high", "description": "Longest" },
        ],
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": true,
        "priority": priority,
        "upgrade": null,
        "base_instructions": "Answer as the mock's script says.",
        "default_reasoning_summary": "none",
        "support_verbosity": true,
        "default_verbosity": "low",
        "apply_patch_tool_type": "freeform",
        "truncation_policy": { "mode": "tokens", "limit": 10_000 },
        "context_window": 272_000,
        "max_context_window": 272_000,
        "effective_context_window_percent": 95,
        "experimental_supported_tools": [],
        "input_modalities": ["text", "image"],
        "use_responses_lite": false,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        model[key] = value.clone();
    }
    model
}
