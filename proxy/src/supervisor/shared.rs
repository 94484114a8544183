//! A proxy of the home that runs anyway, watched by those whose clients use it.
//!
//! A connection to its admin socket is held: it is answered when the proxy accepts no more, and ends when the
//! process does, however it dies. Somebody may have taken its place by then; if nobody has, the launcher starts a
//! proxy of its own there, with the same capability, and the client goes on.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::pause;
use crate::admin::client::{Running, running};
use crate::admin::socket;
use crate::admin::status::Phase;
use crate::launch::Ready;
use crate::secret::Secret;

/// How long the one who takes a proxy's place may take until it can be asked.
const SUCCESSION: Duration = Duration::from_secs(5);

/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// A proxy that runs anyway.
#[derive(Debug)]
pub struct Shared {
    home: PathBuf,
    /// Where clients know it.
    pub(super) listen: SocketAddr,
    pub(super) capability: Secret,
    watch: UnixStream,
}

impl Shared {
    /// Watches a running proxy of this home. None if it asks for no capability: one in its place would.
    ///
    /// # Errors
    /// When it cannot be asked any more.
    pub async fn watch(home: &Path, running: &Running, ready: &Ready) -> io::Result<Option<Self>> {
        let Some(capability) = ready.capability() else { return Ok(None) };
        let watch = watch(running).await?;
        Ok(Some(Self { home: home.to_owned(), listen: ready.listen, capability, watch }))
    }

    /// Resolves when nobody serves at its address any more. May be dropped at any point and called again.
    pub(super) async fn ended(&mut self) {
        loop {
            let was_replaced = is_replaced(&mut self.watch).await;
            match self.successor(was_replaced).await {
                Some(watch) => self.watch = watch,
                None => return,
            }
        }
    }

    /// Watches the one who serves there now.
    async fn successor(&self, was_replaced: bool) -> Option<UnixStream> {
        let deadline = Instant::now() + if was_replaced { SUCCESSION } else { Duration::ZERO };
        loop {
            let (home, listen, capability) = (self.home.clone(), self.listen, self.capability.clone());
            let found = tokio::task::spawn_blocking(move || {
                running(&home).into_iter().find(|running| {
                    running.launch().is_ok_and(|launch| {
                        let is_same = launch.ready.capability().as_ref() == Some(&capability);
                        launch.state == Phase::Serving && launch.ready.listen == listen && is_same
                    })
                })
            });
            if let Some(running) = found.await.ok().flatten()
                && let Ok(watch) = watch(&running).await
            {
                return Some(watch);
            }
            if Instant::now() >= deadline {
                return None;
            }
            pause(LOOK).await;
        }
    }
}

/// Asks a proxy to say when it accepts no more.
async fn watch(running: &Running) -> io::Result<UnixStream> {
    let stream = socket::connect(running.path())?;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    stream.write_all(b"GET /watch HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    Ok(stream)
}

/// Waits for the answer or the end of the connection. Says whether another process has the place.
async fn is_replaced(watch: &mut UnixStream) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        state: Phase,
    }
    let mut answer = Vec::new();
    // Read anew from the beginning should this be dropped half-way: then the end alone counts.
    let _ = watch.take(4096).read_to_end(&mut answer).await;
    let body = answer.split(|byte| *byte == b'\n').next_back().filter(|last| !last.is_empty());
    let body = body.or_else(|| answer.split(|byte| *byte == b'\n').nth_back(1));
    let answer = body.and_then(|body| serde_json::from_slice::<Answer>(body).ok());
    answer.is_some_and(|answer| answer.state == Phase::Superseded)
}
