//! A small reverse proxy on raw sockets: faithful, or with one defect of those that real proxies have.
//!
//! It shares nothing with the proxies that the laboratory is for, and bytes pass through it as they came
//! unless its defect is about them. With a pool it also puts the credentials of its accounts on requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

mod defect;
mod http;
mod link;
mod message;
mod stream;
mod websocket;

pub(crate) use defect::{DEFECTS, Defect};

/// A running proxy. Dropping it ends it.
pub(crate) struct FaultyProxy {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The token and the id of an account.
pub(crate) type Credentials = (String, String);

/// What every connection of a proxy knows.
#[derive(Debug)]
pub(crate) struct Setup {
    upstream: SocketAddr,
    defect: Option<Defect>,
    /// The accounts of its pool; none for a proxy that is transparent.
    accounts: Vec<Credentials>,
    conversations: Mutex<HashMap<String, usize>>,
}

impl Setup {
    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// The account of a conversation, and another one.
    fn accounts_of(&self, conversation: &str) -> Option<(&Credentials, &Credentials)> {
        let count = self.accounts.len();
        let mut conversations = self.conversations.lock().unwrap();
        let fresh = conversations.len() % count.max(1);
        let own = conversations.entry(conversation.to_owned()).or_insert(fresh);
        if self.has(Defect::MovesContinuation) {
            *own = (*own + 1) % count.max(1);
        }
        Some((self.accounts.get(*own)?, self.accounts.get((*own + 1) % count)?))
    }
}

impl FaultyProxy {
    pub(crate) async fn start(
        upstream: SocketAddr,
        defect: Option<Defect>,
        accounts: Vec<Credentials>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let setup = Arc::new(Setup { upstream, defect, accounts, conversations: Mutex::default() });
        let task = tokio::spawn(async move {
            // Ends with the proxy: dropping the set ends what it has started.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let setup = Arc::clone(&setup);
                connections.spawn(async move { http::serve(&setup, client).await });
            }
        });
        Self { address, task }
    }
}
