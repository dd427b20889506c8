//! Servers that failed are left alone for a while: longer each time, and not all at the same moment.

use quick_cache::sync::Cache;
use rand::RngExt;
use ruma::{OwnedServerName, ServerName};
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Failing servers that are remembered. One that is forgotten is tried once more than it would have been.
const REMEMBERED: usize = 50_000;

/// How long servers are left alone.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    known: Cache<OwnedServerName, Arc<Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    state: std::sync::Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    failures: u32,
    failed: Option<Instant>,
    until: Option<Instant>,
}

/// Leave to ask a server: how often it had failed before.
#[derive(Debug, Clone, Copy)]
pub struct Leave(u32);

impl Backoff {
    /// Pauses between `min` and `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, known: Cache::new(REMEMBERED) }
    }

    fn state(&self, server: &ServerName) -> State {
        self.known.get(server).map_or_else(State::default, |entry| *lock(&entry))
    }

    /// Whether a server may be asked now.
    pub fn leave(&self, server: &ServerName) -> Option<Leave> {
        let state = self.state(server);
        state.until.is_none_or(|until| until <= Instant::now()).then_some(Leave(state.failures))
    }

    /// Waits until a server may be asked.
    pub async fn until_leave(&self, server: &ServerName) {
        loop {
            let Some(entry) = self.known.get(server) else { return };
            let changed = entry.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(until) = lock(&entry).until.filter(|until| *until > Instant::now()) else { return };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = changed => {}
            }
        }
    }

    /// A server did not do what it should; `after` is when it wants to be asked again, if it said so. Requests that
    /// were under way together count once.
    pub fn failed(&self, server: &ServerName, leave: Leave, after: Option<Duration>) {
        let Ok(entry) =
            self.known.get_or_insert_with(server, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let now = Instant::now();
        let mut state = lock(&entry);
        if state.failures != leave.0 {
            return;
        }
        let pause = self.min.saturating_mul(1 << state.failures.min(20)).min(self.max);
        state.failures = state.failures.saturating_add(1);
        state.failed = Some(now);
        // Between three and five quarters of it.
        let spread = pause.mul_f64(rand::rng().random_range(0.75..1.25));
        state.until = Some(now + after.map_or(spread, |after| after.min(self.max)));
        tracing::debug!(%server, failures = state.failures, ?spread, "a server is left alone for a while");
    }

    /// A server answered.
    pub fn succeeded(&self, server: &ServerName) {
        if let Some((_, entry)) = self.known.remove(server) {
            *lock(&entry) = State::default();
            entry.changed.notify_waiters();
        }
    }

    /// A server contacted this one, so it is there: it may be asked again. It may still be out of reach, so it is
    /// asked once for a shortest pause at most, and its failures are not forgotten.
    pub fn alive(&self, server: &ServerName) {
        let Some(entry) = self.known.get(server) else { return };
        {
            let mut state = lock(&entry);
            let soonest = state.failed.map(|failed| failed + self.min);
            if state.until <= soonest {
                return;
            }
            state.until = soonest;
        }
        entry.changed.notify_waiters();
    }
}

fn lock(entry: &Entry) -> std::sync::MutexGuard<'_, State> {
    entry.state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::server_name;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff {
        Backoff::new(SECOND, SECOND * 100)
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_get_longer_up_to_the_longest() {
        let (backoff, server) = (backoff(), server_name!("a.test"));
        let mut pauses = Vec::new();
        for _ in 0..12 {
            backoff.failed(server, backoff.leave(server).unwrap(), None);
            let begin = Instant::now();
            backoff.until_leave(server).await;
            pauses.push(begin.elapsed().as_secs_f64());
        }
        for (n, pause) in pauses.iter().enumerate() {
            let exact = f64::from(1_u32 << n).min(100.0);
            assert!((exact * 0.74..exact * 1.26).contains(pause), "{n}: {pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_under_way_together_count_once_and_a_success_ends_it() {
        let (backoff, server) = (backoff(), server_name!("a.test"));
        let together = [backoff.leave(server).unwrap(), backoff.leave(server).unwrap()];
        for leave in together {
            backoff.failed(server, leave, None);
        }
        assert!(backoff.leave(server).is_none());
        assert!(backoff.leave(server_name!("b.test")).is_some());
        assert_eq!(backoff.state(server).failures, 1);
        backoff.succeeded(server);
        assert!(backoff.leave(server).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_calls_is_asked_again_but_not_at_every_call() {
        let (backoff, server) = (Arc::new(backoff()), server_name!("a.test"));
        for _ in 0..6 {
            backoff.until_leave(server).await;
            backoff.failed(server, backoff.leave(server).unwrap(), None);
        }
        let waiting = tokio::spawn({
            let backoff = backoff.clone();
            async move { backoff.until_leave(server).await }
        });
        tokio::time::sleep(SECOND * 2).await;
        assert!(!waiting.is_finished());
        backoff.alive(server);
        waiting.await.unwrap();
        backoff.failed(server, backoff.leave(server).unwrap(), None);
        backoff.alive(server);
        assert!(backoff.leave(server).is_none());
        tokio::time::advance(SECOND).await;
        assert!(backoff.leave(server).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_when_is_believed() {
        let (backoff, server) = (backoff(), server_name!("a.test"));
        backoff.failed(server, backoff.leave(server).unwrap(), Some(SECOND * 7));
        tokio::time::advance(SECOND * 6).await;
        assert!(backoff.leave(server).is_none());
        tokio::time::advance(SECOND).await;
        assert!(backoff.leave(server).is_some());
    }
}
