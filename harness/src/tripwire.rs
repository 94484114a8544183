//! A proxy address that leads nowhere: whoever uses it tried to leave the loopback.
//!
//! Clients in the laboratory are told to send everything but loopback traffic through it. Each attempt is
//! written down and refused; in a clean run there is none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A tripwire. Dropping it takes it down.
#[derive(Debug)]
pub struct Tripwire {
    port: u16,
    hits: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

/// Most attempts that are written down; one is too many already.
const MOST: usize = 1000;

/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

impl Tripwire {
    /// Puts one up.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let hits = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(watch(listener, Arc::clone(&hits)));
        Ok(Self { port, hits, task })
    }

    /// Its address, to be used as a proxy or as any URL that must not be called.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The variables that send a program's traffic here, all but the loopback's.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
        let mut variables: Vec<_> = names.into_iter().map(|name| (name, self.url())).collect();
        let loopback = "127.0.0.1,localhost,::1";
        variables.extend([("NO_PROXY", loopback.to_owned()), ("no_proxy", loopback.to_owned())]);
        variables
    }

    /// The attempts so far: the first line of each request.
    #[must_use]
    pub fn hits(&self) -> Vec<String> {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(listener: TcpListener, hits: Arc<Mutex<Vec<String>>>) {
    let mut callers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let hits = Arc::clone(&hits);
                callers.spawn(async move {
                    let said = tokio::time::timeout(PATIENCE, answer(stream)).await;
                    let line = said.unwrap_or_else(|_| "(said nothing)".into());
                    let mut hits = hits.lock().unwrap_or_else(PoisonError::into_inner);
                    if hits.len() < MOST {
                        hits.push(line);
                    }
                });
            }
            Some(_) = callers.join_next(), if !callers.is_empty() => {}
        }
    }
}

/// Refuses a caller and gives the first line of what it said.
async fn answer(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while !said.contains(&b'\n') && said.len() < 4096 {
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => said.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    // The attempt counts whether or not its refusal arrives.
    let _ =
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).trim().to_owned()
}
