//! What is sensitive by where it stands: the rules, and the tables of keys, header fields and parameters.
//!
//! What is sensitive by how it looks is in `detect`. A new field gets its line here, or in `wire::header`
//! if it is a header field that a proxy should know too.

use wire::header::{self, Carries};

macro_rules! rules {
    ($($(#[doc = $doc:literal])* $name:ident => $id:literal,)*) => {
        /// Why something was replaced.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule { $($(#[doc = $doc])* $name,)* }

        impl Rule {
            /// All rules.
            pub const ALL: &[Rule] = &[$(Rule::$name,)*];

            /// The rule's name in reports and certificates.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Rule::$name => $id,)* }
            }

            /// What the rule is about, in a sentence.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Rule::$name => concat!($($doc,)*),)* }
            }
        }
    };
}

rules! {
    /// A credential behind `Bearer` or another scheme of `authorization`.
    BearerToken => "bearer-token",
    /// The password of basic authentication.
    BasicAuth => "basic-auth",
    /// A key in a field or header that is for one.
    ApiKey => "api-key",
    /// A key of OpenAI or of who copied its form (`sk-`).
    OpenaiKey => "openai-key",
    /// A key or token of Anthropic (`sk-ant-`).
    AnthropicKey => "anthropic-key",
    /// A key or token of Google (`AIza`, `ya29.`, `1//0`, `GOCSPX-`).
    GoogleKey => "google-key",
    /// A token of GitHub (`ghp_` and its like, `github_pat_`).
    GithubToken => "github-token",
    /// A key of Amazon Web Services (`AKIA`, `ASIA`).
    AwsKey => "aws-key",
    /// A token of Slack (`xox`, `xapp-`, a webhook).
    SlackToken => "slack-token",
    /// A key of Stripe (`sk_live_` and its like).
    StripeKey => "stripe-key",
    /// A token of a package registry (`npm_`, `pypi-`, `dckr_pat_`).
    RegistryToken => "registry-token",
    /// A token of Hugging Face (`hf_`).
    HuggingfaceToken => "huggingface-token",
    /// A token of GitLab (`glpat-`).
    GitlabToken => "gitlab-token",
    /// A key of another provider whose form is known.
    ProviderKey => "provider-key",
    /// The value of a cookie.
    Cookie => "cookie",
    /// A password.
    Password => "password",
    /// A private key in PEM.
    PrivateKey => "private-key",
    /// A JSON Web Token: its claims are scrubbed, its signature becomes a number.
    Jwt => "jwt",
    /// A code, verifier, state or token of OAuth.
    OauthCode => "oauth-code",
    /// The signature or credential of a pre-signed URL.
    SignedUrl => "signed-url",
    /// The credential in a connection string or URL.
    ConnectionString => "connection-string",
    /// The value of an environment variable whose name says that it is secret.
    EnvironmentSecret => "environment-secret",
    /// A value in a field whose name says that it is secret.
    Secret => "secret",
    /// An account.
    AccountId => "account-id",
    /// An organisation.
    OrganizationId => "organization-id",
    /// A user.
    UserId => "user-id",
    /// A session.
    SessionId => "session-id",
    /// A thread or conversation.
    ThreadId => "thread-id",
    /// A context window.
    WindowId => "window-id",
    /// A response.
    ResponseId => "response-id",
    /// A request.
    RequestId => "request-id",
    /// A call of a tool.
    CallId => "call-id",
    /// An installation or device.
    InstallationId => "installation-id",
    /// A project.
    ProjectId => "project-id",
    /// A trace or span.
    TraceId => "trace-id",
    /// Another thing with an id.
    ObjectId => "object-id",
    /// A UUID, wherever it stands.
    Uuid => "uuid",
    /// An address of e-mail.
    Email => "email",
    /// The name of a person, as of a home directory.
    UserName => "user-name",
    /// The name of a machine.
    HostName => "host-name",
    /// An IP address that is neither loopback nor for documentation.
    IpAddress => "ip-address",
    /// A time; all are moved by the same distance.
    Time => "time",
    /// A value that the server alone can read.
    EncryptedContent => "encrypted-content",
    /// The state of a turn, which the server alone can read.
    TurnState => "turn-state",
    /// A picture, sound or file.
    Media => "media",
    /// A tag of a version or cache.
    EntityTag => "entity-tag",
    /// Free text, which became filler.
    FreeText => "free-text",
    /// Arguments of a tool, which became filler that is still JSON.
    ToolArguments => "tool-arguments",
}

impl Rule {
    /// Whether a value may be looked for even where nothing says that it is one.
    pub(super) fn is_credential(self) -> bool {
        self <= Rule::Secret
    }
}

/// What a string, or a number, in some place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// Never looked at: numbers and words of the record format.
    Plain,
    /// Searched.
    Scan,
    /// Looked at for structure, then searched; prose becomes filler.
    Free,
    /// A body: may also be a stream of events or a form.
    Payload,
    /// The digits of a payload.
    Base64,
    /// Free text.
    Content,
    /// Free text unless it is one short word.
    Phrase,
    /// Free text that is JSON.
    Arguments,
    Time,
    /// An id if it looks like one.
    MaybeId,
    /// An id; the generic ones only if they look like one.
    Id(Rule),
    /// A credential or another value that is replaced as a whole.
    Whole(Rule),
    Url,
    /// The head of an HTTP message.
    Head,
    /// `authorization`.
    Authorization,
    Cookie,
    SetCookie,
    /// Bytes as base64.
    Media,
    Host,
    /// Says what the body is.
    ContentType,
}

/// What the keys within a value mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Area {
    Record,
    Headers,
    Body,
    /// A JSON Schema: its keys are names of parameters.
    Schema,
    Error,
    /// The arguments of a tool.
    Input,
    /// Someone, or an organisation.
    Person,
    /// The parameters of a URL.
    Query,
    Form,
}

/// What a key of an area means: of the strings right below it, and of the keys further down.
pub(super) fn key(area: Area, name: &[u8]) -> (Slot, Area) {
    let name = normal(name);
    match area {
        Area::Record => record_key(&name),
        Area::Headers => (header_field(&name), Area::Headers),
        Area::Schema => match name.as_str() {
            "description" | "title" => (Slot::Content, Area::Schema),
            _ => (Slot::Scan, Area::Schema),
        },
        Area::Error
            if matches!(name.as_str(), "message" | "code" | "type" | "detail" | "param" | "reason") =>
        {
            (Slot::Scan, Area::Error)
        }
        Area::Query => (parameter(&name, false), Area::Body),
        Area::Form => (parameter(&name, true), Area::Body),
        Area::Input => (Slot::Content, Area::Input),
        Area::Person if matches!(name.as_str(), "name" | "title") => (Slot::Whole(Rule::UserName), area),
        Area::Body | Area::Error | Area::Person => body_key(area, &name),
    }
}

fn record_key(name: &str) -> (Slot, Area) {
    let slot = match name {
        "ts" => Slot::Time,
        "url" | "path" | "path_and_query" => Slot::Url,
        "headers" | "trailers" => return (Slot::Scan, Area::Headers),
        "head" => Slot::Head,
        "body" | "payload" | "data" | "event" | "message" | "stream" | "text" => {
            return (Slot::Payload, Area::Body);
        }
        "events" | "records" => return (Slot::Scan, Area::Record),
        "type" | "kind" | "record_type" | "direction" | "id" | "connection" | "method" | "http_version"
        | "wire_len" | "body_len" | "len" | "status" | "writes" | "binary" | "end" | "t_ms" | "upgrade"
        | "content_encoding" | "code" | "client" | "version" | "event_name" => Slot::Plain,
        "stdout" | "stderr" | "stderr_tail" => Slot::Content,
        _ => return body_key(Area::Body, name),
    };
    (slot, Area::Record)
}

fn body_key(area: Area, name: &str) -> (Slot, Area) {
    let below = match name {
        "properties"
        | "parameters"
        | "parameters_json_schema"
        | "input_schema"
        | "json_schema"
        | "schema"
        | "output_schema"
        | "response_schema"
        | "required"
        | "enum"
        | "$defs" => return (Slot::Scan, Area::Schema),
        "error" | "errors" | "last_error" => return (Slot::Scan, Area::Error),
        "input" | "args" => return (Slot::Content, Area::Input),
        "account" | "accounts" | "user" | "users" | "profile" | "owner" | "organization"
        | "organizations" | "workspace" | "workspaces" | "members" | "author" => Area::Person,
        _ if area == Area::Error => Area::Error,
        _ => Area::Body,
    };
    (body_slot(name), below)
}

fn body_slot(name: &str) -> Slot {
    match name {
        "instructions" | "base_instructions" | "text" | "content" | "description" | "output" | "delta"
        | "thinking" | "reasoning_content" | "prompt" | "message" | "refusal" | "transcript" | "command"
        | "stdout" | "stderr" | "query" | "patch" | "diff" | "obfuscation" | "explanation" | "question"
        | "answer" | "user_message" | "last_agent_message" | "aggregated_output" | "formatted_output"
        | "snippet" | "system" | "system_instruction" | "title" | "analysis" => Slot::Content,
        "summary" => Slot::Phrase,
        "arguments" | "partial_json" => Slot::Arguments,
        "encrypted_content" | "encrypted" | "signature" | "thought_signature" | "redacted_thinking" => {
            Slot::Whole(Rule::EncryptedContent)
        }
        "data" | "image_url" | "b64_json" | "file_data" | "audio" | "image" => Slot::Media,
        "id" => Slot::MaybeId,
        "email" | "email_address" | "e_mail" => Slot::Id(Rule::Email),
        "username" | "user_name" | "login" | "given_name" | "family_name" | "first_name" | "last_name"
        | "full_name" | "nickname" | "preferred_username" => Slot::Whole(Rule::UserName),
        "hostname"
        | "host_name"
        | "machine_name"
        | "computer_name"
        | "server_name"
        | "node_name"
        | "host"
        | "workspace_backend_origin" => Slot::Host,
        _ => secret_or_id(name),
    }
}

fn secret_or_id(name: &str) -> Slot {
    const SECRET_ENDS: &[(&str, Rule)] = &[
        ("authorization", Rule::BearerToken),
        ("api_key", Rule::ApiKey),
        ("apikey", Rule::ApiKey),
        ("access_key", Rule::ApiKey),
        ("secret_key", Rule::ApiKey),
        ("access_key_id", Rule::ApiKey),
        ("goog_api_key", Rule::ApiKey),
        ("password", Rule::Password),
        ("passwd", Rule::Password),
        ("passphrase", Rule::Password),
        ("pwd", Rule::Password),
        ("private_key", Rule::PrivateKey),
        ("cookie", Rule::Cookie),
        ("cookies", Rule::Cookie),
        ("code_verifier", Rule::OauthCode),
        ("code_challenge", Rule::OauthCode),
        ("authorization_code", Rule::OauthCode),
        ("device_code", Rule::OauthCode),
        ("user_code", Rule::OauthCode),
        ("assertion", Rule::OauthCode),
        ("_token", Rule::BearerToken),
        ("credential", Rule::Secret),
        ("credentials", Rule::Secret),
        ("secret", Rule::Secret),
        ("bearer", Rule::BearerToken),
        ("csrf", Rule::Secret),
        ("attestation", Rule::Secret),
        ("signed_url", Rule::SignedUrl),
    ];
    if name.ends_with("turn_state") {
        return Slot::Whole(Rule::TurnState);
    }
    if name == "token" {
        return Slot::Whole(Rule::Secret);
    }
    if name.ends_with("authorization") {
        return Slot::Authorization;
    }
    if matches!(
        name,
        "token_url" | "signed_url" | "download_url" | "upload_url" | "url" | "uri" | "redirect_uri" | "href"
    ) {
        return Slot::Url;
    }
    if let Some((_, rule)) = SECRET_ENDS.iter().find(|(end, _)| name.ends_with(end)) {
        return Slot::Whole(*rule);
    }
    id(name).unwrap_or_else(|| if is_time(name) { Slot::Time } else { Slot::Free })
}

/// What a key that names an id stands for.
fn id(name: &str) -> Option<Slot> {
    const IDS: &[(&str, Rule)] = &[
        ("account_id", Rule::AccountId),
        ("account_uuid", Rule::AccountId),
        ("account_user_id", Rule::UserId),
        ("account_ordering", Rule::AccountId),
        ("organization_id", Rule::OrganizationId),
        ("organization_uuid", Rule::OrganizationId),
        ("openai_organization", Rule::OrganizationId),
        ("org_id", Rule::OrganizationId),
        ("workspace_id", Rule::OrganizationId),
        ("user_id", Rule::UserId),
        ("user_uuid", Rule::UserId),
        ("session_id", Rule::SessionId),
        ("thread_id", Rule::ThreadId),
        ("conversation_id", Rule::ThreadId),
        ("prompt_cache_key", Rule::ThreadId),
        ("window_id", Rule::WindowId),
        ("response_id", Rule::ResponseId),
        ("request_id", Rule::RequestId),
        ("call_id", Rule::CallId),
        ("tool_use_id", Rule::CallId),
        ("installation_id", Rule::InstallationId),
        ("device_id", Rule::InstallationId),
        ("machine_id", Rule::InstallationId),
        ("project_id", Rule::ProjectId),
        ("openai_project", Rule::ProjectId),
        ("cloudaicompanion_project", Rule::ProjectId),
        ("duet_project", Rule::ProjectId),
        ("trace_id", Rule::TraceId),
        ("span_id", Rule::TraceId),
    ];
    // Names of kinds of things, which are the same for everyone.
    const NO_IDS: &[&str] = &[
        "model_id",
        "quota_id",
        "limit_id",
        "tier_id",
        "plan_id",
        "experiment_id",
        "skill_id",
        "language_id",
        "voice_id",
        "feature_id",
        "theme_id",
        "key_id",
    ];
    if NO_IDS.contains(&name.trim_end_matches('s')) {
        return Some(Slot::Free);
    }
    let single = name.strip_suffix("ids").map_or_else(|| name.to_owned(), |stem| format!("{stem}id"));
    if let Some((_, rule)) = IDS.iter().find(|(end, _)| single.ends_with(end)) {
        return Some(Slot::Id(*rule));
    }
    match name {
        "project" => Some(Slot::Id(Rule::ProjectId)),
        "sub" => Some(Slot::Id(Rule::UserId)),
        "sid" => Some(Slot::Id(Rule::SessionId)),
        "traceparent" => Some(Slot::Id(Rule::TraceId)),
        "jti" | "uuid" | "nonce" | "cf_ray" => Some(Slot::Id(Rule::ObjectId)),
        "etag" | "models_etag" => Some(Slot::Id(Rule::EntityTag)),
        _ if single.ends_with("_id") || name.ends_with("_uuid") => Some(Slot::Id(Rule::ObjectId)),
        _ => None,
    }
}

/// Whether a key names a time. Numbers that are no plausible time are left alone in any case.
fn is_time(name: &str) -> bool {
    let ends = ["_at", "_at_ms", "timestamp", "_time", "_ms", "_on", "_until", "_since", "date"];
    let words = [
        "ts",
        "time",
        "exp",
        "iat",
        "nbf",
        "created",
        "updated",
        "modified",
        "expires",
        "expiry",
        "last_refresh",
    ];
    words.contains(&name)
        || ends.iter().any(|end| name.ends_with(end))
        || name.contains("expires")
        || name.contains("reset")
}

/// What the value of a header field is. The table of `wire::header` is asked first.
fn header_field(name: &str) -> Slot {
    let field = name.replace('_', "-");
    match field.as_str() {
        "authorization" | "proxy-authorization" => return Slot::Authorization,
        "cookie" => return Slot::Cookie,
        "set-cookie" => return Slot::SetCookie,
        "host" => return Slot::Host,
        "location" | "referer" | "origin" | "content-location" => return Slot::Url,
        "content-type" => return Slot::ContentType,
        "date" | "expires" | "last-modified" | "if-modified-since" | "retry-after" => return Slot::Time,
        // Random numbers of one handshake; a server may insist that they decode.
        "sec-websocket-key" | "sec-websocket-accept" => return Slot::Plain,
        "etag" | "if-none-match" | "x-models-etag" => return Slot::Id(Rule::EntityTag),
        "x-codex-turn-metadata" => return Slot::Free,
        _ => {}
    }
    if field.ends_with("-reset") || field.ends_with("-reset-at") {
        return Slot::Time;
    }
    if field.ends_with("-after-seconds") || field.contains("ratelimit") {
        return Slot::Scan;
    }
    let listed = header::lookup(&field);
    let named = match secret_or_id(name) {
        Slot::Free if name.contains("api_key") || name.contains("secret") || name.contains("token") => {
            Slot::Whole(Rule::Secret)
        }
        slot => slot,
    };
    match (listed.carries, named) {
        (Carries::Plain, Slot::Free) => Slot::Free,
        (_, Slot::Whole(_) | Slot::Id(_) | Slot::Time) => named,
        (Carries::Secret, _) => Slot::Whole(Rule::Secret),
        (Carries::Identity, _) if field.contains("fedramp") || field.contains("routing-override") => {
            Slot::Scan
        }
        (Carries::Identity, _) => Slot::Id(Rule::AccountId),
        (Carries::Affinity, _) => Slot::Id(Rule::SessionId),
        (Carries::Volatile, _) => Slot::Id(Rule::ObjectId),
        (Carries::Plain, _) => named,
    }
}

/// What the value of a parameter of a URL's query or of a form is.
fn parameter(name: &str, is_form: bool) -> Slot {
    match name {
        "key" | "sig" | "signature" | "api_key" => {
            Slot::Whole(if name == "key" { Rule::ApiKey } else { Rule::SignedUrl })
        }
        "x_amz_signature"
        | "x_goog_signature"
        | "x_amz_credential"
        | "x_goog_credential"
        | "x_amz_security_token"
        | "awsaccess_key_id"
        | "aws_access_key_id"
        | "policy"
        | "key_pair_id"
        | "skoid"
        | "sktid" => Slot::Whole(Rule::SignedUrl),
        "code" | "state" | "nonce" | "code_verifier" | "code_challenge" | "assertion" | "login_hint"
        | "client_assertion" | "subject_token" | "actor_token" => Slot::Whole(Rule::OauthCode),
        "client_id" | "client_version" | "scope" => Slot::Free,
        "x_amz_date" | "x_goog_date" => Slot::Scan,
        "username" | "login" | "user" => Slot::Whole(Rule::UserName),
        "id" => Slot::MaybeId,
        _ => match body_slot(name) {
            Slot::Content | Slot::Phrase if !is_form => Slot::Free,
            Slot::Media => Slot::Free,
            slot => slot,
        },
    }
}

/// A name in lower case with `_` between its words.
fn normal(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    let mut before = b'_';
    for byte in name {
        if byte.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit()) {
            text.push('_');
        }
        text.push(if *byte == b'-' { '_' } else { byte.to_ascii_lowercase() as char });
        before = *byte;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_they_say_in_any_spelling() {
        let slot = |name: &str| key(Area::Body, name.as_bytes()).0;
        for (names, expected) in [
            (&["chatgpt_account_id", "chatgptAccountId", "account-id"][..], Slot::Id(Rule::AccountId)),
            (&["refresh_token", "accessToken", "id_token"], Slot::Whole(Rule::BearerToken)),
            (&["apiKey", "api_key", "X-Api-Key"], Slot::Whole(Rule::ApiKey)),
            (&["tool_call_ids", "callId"], Slot::Id(Rule::CallId)),
            (
                &["input_tokens", "max_tokens", "token_type", "model", "slug", "modelId", "quotaId"],
                Slot::Free,
            ),
            (&["created_at", "resetTime", "turn_started_at_unix_ms", "exp"], Slot::Time),
            (&["x-codex-turn-state"], Slot::Whole(Rule::TurnState)),
        ] {
            for name in names {
                assert_eq!(slot(name), expected, "{name}");
            }
        }
        assert_eq!(key(Area::Schema, b"token").0, Slot::Scan, "a parameter of a tool");
    }

    #[test]
    fn header_fields_that_carry_something_are_typed() {
        for entry in header::TABLE {
            let slot = header_field(&normal(entry.name.as_bytes()));
            if entry.carries == Carries::Secret {
                assert!(!matches!(slot, Slot::Free | Slot::Scan | Slot::Plain), "{}: {slot:?}", entry.name);
            }
        }
        assert_eq!(key(Area::Headers, b"X-Amz-Security-Token").0, Slot::Whole(Rule::BearerToken));
        assert_eq!(key(Area::Headers, b"anthropic-organization-id").0, Slot::Id(Rule::OrganizationId));
        assert_eq!(key(Area::Headers, b"anthropic-ratelimit-tokens-limit").0, Slot::Scan);
        assert_eq!(key(Area::Headers, b"anthropic-ratelimit-unified-5h-reset").0, Slot::Time);
        assert_eq!(key(Area::Headers, b"X-Client-Request-Id").0, Slot::Id(Rule::RequestId));
    }
}
