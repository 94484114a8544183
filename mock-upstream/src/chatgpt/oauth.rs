//! `POST /oauth/token`: a refresh token is exchanged once, and never again.
//!
//! Shapes as Codex 0.149 and 0.169 send and read them (`wire-facts` 1.11).

use serde_json::{Value, json};

use super::{Backend, Plan};
use crate::accounts::token::Reused;

impl Backend {
    pub(super) fn token(&self, body: &[u8]) -> Plan {
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        if request["grant_type"] != "refresh_token" {
            return Plan::json(400, &json!({ "error": "unsupported_grant_type" }));
        }
        let refresh_token = request["refresh_token"].as_str().unwrap_or_default();
        match self.accounts().refresh(refresh_token) {
            Some(Ok(grant)) => {
                let body = json!({
                    "id_token": grant.id_token,
                    "access_token": grant.access_token,
                    "refresh_token": grant.refresh_token,
                    "token_type": "Bearer",
                });
                Plan::json(200, &body)
            }
            Some(Err(Reused)) => {
                let error = json!({
                    "message": "The refresh token was used before.",
                    "type": "invalid_request_error", "param": null, "code": "refresh_token_reused",
                });
                Plan::json(401, &json!({ "error": error }))
            }
            None => Plan::json(
                400,
                &json!({
                    "error": "invalid_grant", "error_description": "The refresh token is not known.",
                }),
            ),
        }
    }
}
