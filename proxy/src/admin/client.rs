//! Asking the running proxies of a home: for the command line, so it blocks.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use wire::http1::ResponseHead;

use super::socket;
use super::status::Phase;
use crate::launch::Ready;

/// How long a proxy may take to take a question, and for each piece of its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer that is read.
const MAX_ANSWER: u64 = 16 << 20;

/// A running proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its process, as the name of its socket says.
    pub pid: u32,
    path: PathBuf,
}

/// What a launcher needs that points a client at a running proxy. It holds the capability.
#[derive(Clone, Deserialize)]
pub struct LaunchInfo {
    /// The process.
    pub pid: u32,
    /// Its address, and the URLs of its clients.
    pub ready: Ready,
    /// Whether it belongs to a `prodex run`.
    pub launched: bool,
    /// What it is doing.
    pub state: Phase,
    /// Where it sends everything, if that is not to the vendors.
    pub upstream: Option<String>,
    /// The only profiles that it may use, if not all.
    pub scope: Option<Vec<String>>,
    /// Whether it records what clients send.
    pub recorded: bool,
    /// Its settings that are not at their default. An older version does not say.
    pub settings: Option<BTreeMap<String, String>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be asked, or broke off.
    #[error("the proxy with process id {pid} does not answer: {source}")]
    Io {
        /// Which.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// It refused.
    #[error("the proxy with process id {pid} answered {status}: {message}")]
    Refused {
        /// Which.
        pid: u32,
        /// With which status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Its answer is not what was asked for: it may be of another version.
    #[error("the answer of the proxy with process id {pid} cannot be read: {problem}")]
    Unreadable {
        /// Which.
        pid: u32,
        /// What is wrong with it.
        problem: String,
    },
}

/// The running proxies of a home, by process id.
#[must_use]
pub fn running(home: &Path) -> Vec<Running> {
    socket::find(home).into_iter().map(|(pid, path)| Running { pid, path }).collect()
}

/// Tells all running proxies of a home to read the profiles anew. For each, what that changed.
#[must_use]
pub fn reload(home: &Path) -> Vec<(Running, Result<serde_json::Value, ClientError>)> {
    let all = running(home).into_iter();
    all.map(|running| {
        let answer = running.post("/reload").and_then(|body| running.parse(&body));
        (running, answer)
    })
    .collect()
}

impl Running {
    /// Its socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for what is at a path, such as `/status`.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.ask("GET", path)
    }

    /// The same as a value, if it is JSON.
    ///
    /// # Errors
    /// When there is no answer, or it is not of this shape.
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.parse(&self.get(path)?)
    }

    /// Tells it to do what is at a path, such as `/reload`.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn post(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        self.ask("POST", path)
    }

    /// What a launcher needs that points a client at it.
    ///
    /// # Errors
    /// When there is no answer, or one of another version.
    pub fn launch(&self) -> Result<LaunchInfo, ClientError> {
        self.get_json("/launch")
    }

    /// Whether it listens at this address.
    #[must_use]
    pub fn listens_at(&self, address: SocketAddr) -> bool {
        self.launch().is_ok_and(|launch| launch.state == Phase::Serving && launch.ready.listen == address)
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        let unreadable = |error: serde_json::Error| self.unreadable(&error.to_string());
        serde_json::from_slice(body).map_err(unreadable)
    }

    fn unreadable(&self, problem: &str) -> ClientError {
        ClientError::Unreadable { pid: self.pid, problem: problem.to_owned() }
    }

    fn ask(&self, method: &str, path: &str) -> Result<Vec<u8>, ClientError> {
        let answer =
            self.exchange(method, path).map_err(|source| ClientError::Io { pid: self.pid, source })?;
        let parsed = ResponseHead::parse(&answer).map_err(|error| self.unreadable(&error.to_string()))?;
        let (head, end) = parsed.ok_or_else(|| self.unreadable("it broke off"))?;
        let body = answer[end..].to_vec();
        let length = head.get_str("content-length").and_then(|length| length.parse().ok());
        if length != Some(body.len()) {
            return Err(self.unreadable("it broke off"));
        }
        match head.status() {
            200..300 => Ok(body),
            status => {
                let error: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                let message = error["error"].as_str().unwrap_or("it says no more").to_owned();
                Err(ClientError::Refused { pid: self.pid, status, message })
            }
        }
    }

    fn exchange(&self, method: &str, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = socket::connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let fields = "host: localhost\r\nconnection: close\r\ncontent-length: 0\r\n";
        stream.write_all(format!("{method} {path} HTTP/1.1\r\n{fields}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    }
}
