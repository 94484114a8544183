//! A stateful mock of the backends that coding agents talk to: scripted, paced, and faulty on demand.
//!
//! It keeps a journal of every byte that came and went, and knows nothing of what stands before it.
//!
//! ```
//! use mock_upstream::script::{Rule, Script, Turn};
//! use mock_upstream::{Config, Mock};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let script = Script::rules([Rule::new(Turn::text("hello")).user_text("greet")]);
//! let mock = Mock::start(Config::script(script)).await?;
//! // … a client posts to `{mock.base_url()}/backend-api/codex/responses` …
//! assert!(mock.journal().responses().is_empty());
//! mock.stop().await;
//! # Ok(())
//! # }
//! ```

mod server;

mod connection;

mod recording;

mod websocket;

mod control;

mod chatgpt;

pub mod script;

pub mod accounts;

pub mod pacing;

pub mod fault;

pub mod journal;

pub mod metrics;

pub mod tls;

pub mod playback;

pub mod content;

pub mod bulk;

pub use accounts::Account;
pub use journal::{Exchange, Journal};
pub use script::Script;
pub use server::{Config, Mock, StartError, raise_file_limit};
