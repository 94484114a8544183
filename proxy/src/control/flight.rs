//! One run of a piece of work for all who want its result at the same time.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::Tasks;

/// A piece of work that is running, or not.
#[derive(Debug)]
pub struct Flight<T> {
    running: Mutex<Option<watch::Receiver<Option<T>>>>,
}

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self { running: Mutex::new(None) }
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Waits for the result of the work that runs, or starts it if none does. The work goes on when
    /// those who wait are gone; `None` if it ended without a result, which only a panic brings about.
    pub async fn join<F>(&self, tasks: &Tasks, start: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut receiver = self.receiver(tasks, start);
        let result = receiver.wait_for(Option::is_some).await;
        result.ok().and_then(|result| result.clone())
    }

    /// Starts the work if it does not run, and waits for nothing.
    pub fn begin<F>(&self, tasks: &Tasks, start: impl FnOnce() -> F)
    where
        F: Future<Output = T> + Send + 'static,
    {
        drop(self.receiver(tasks, start));
    }

    /// Waits for the work that runs, if any does.
    pub async fn landed(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(mut receiver) = running {
            // A panic ends it, too.
            let _ = receiver.wait_for(Option::is_some).await;
        }
    }

    fn receiver<F>(&self, tasks: &Tasks, start: impl FnOnce() -> F) -> watch::Receiver<Option<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = running.as_ref()
            && receiver.has_changed().is_ok()
            && receiver.borrow().is_none()
        {
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(None);
        let work = start();
        tasks.spawn(async move {
            sender.send_replace(Some(work.await));
        });
        *running = Some(receiver.clone());
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::runtime::Handle;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn those_who_come_while_it_runs_share_one_run() {
        let (flight, tasks) = (Flight::<usize>::default(), Tasks::new(Handle::current()));
        let runs = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let start = || {
            let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
            async move {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                run
            }
        };
        let opener = async {
            while runs.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            gate.add_permits(1);
        };
        let (one, two, ()) = tokio::join!(flight.join(&tasks, start), flight.join(&tasks, start), opener);
        assert_eq!((one, two), (Some(0), Some(0)));
        gate.add_permits(1);
        assert_eq!(flight.join(&tasks, start).await, Some(1), "a later one runs anew");
    }

    #[tokio::test]
    async fn work_outlives_those_who_wait_and_a_panic_is_no_result() {
        let (flight, tasks) = (Flight::<u32>::default(), Tasks::new(Handle::current()));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        {
            let waiting = flight.join(&tasks, || async move {
                tokio::task::yield_now().await;
                let _ = sender.send(());
                1
            });
            tokio::select! { biased; _ = waiting => panic!("too early"), () = std::future::ready(()) => {} }
        }
        receiver.await.unwrap();
        assert_eq!(flight.join(&tasks, || async { panic!("on purpose") }).await, None);
        assert_eq!(flight.join(&tasks, || async { 2 }).await, Some(2));
    }
}
