//! A small reverse proxy on raw sockets: faithful, or with one defect of those that real proxies have.
//!
//! It shares nothing with the proxies that the laboratory is for, and bytes pass through it as they came
//! unless its defect is about them. With a pool it also puts the credentials of its accounts on requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

mod defect;
mod http;
mod link;
mod message;
mod stream;
mod websocket;

pub(crate) use defect::{DEFECTS, Defect};

/// A running proxy, on a thread of its own as a program would be. Dropping it ends it.
pub(crate) struct FaultyProxy {
    pub(crate) address: SocketAddr,
    /// Dropped to stop the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().map(JoinHandle::join);
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
    pub(crate) fn start(upstream: SocketAddr, defect: Option<Defect>, accounts: Vec<Credentials>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let setup = Arc::new(Setup { upstream, defect, accounts, conversations: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, setup) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

/// Serves connections until it is dropped, which ends them all.
async fn accept(listener: std::net::TcpListener, setup: Arc<Setup>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let setup = Arc::clone(&setup);
        connections.spawn(async move { http::serve(&setup, client).await });
    }
}
