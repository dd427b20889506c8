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
        let mut state = lock(&entry);
        if state.failures == leave.0 {
            // Between three and five quarters of a pause.
            let spread = rand::rng().random_range(0.75..1.25);
            state.fail(Instant::now(), (self.min, self.max), spread, after);
            tracing::debug!(%server, failures = state.failures, "a server is left alone for a while");
        }
    }

    /// A server answered.
    pub fn succeeded(&self, server: &ServerName) {
        if let Some((_, entry)) = self.known.remove(server) {
            *lock(&entry) = State::default();
            entry.changed.notify_waiters();
        }
    }

    /// Somebody waits for a server's answer: it may be asked at once. Its failures are not forgotten.
    pub fn wanted(&self, server: &ServerName) {
        let Some(entry) = self.known.get(server) else { return };
        if lock(&entry).until.take().is_some() {
            entry.changed.notify_waiters();
        }
    }

    /// A server contacted this one, so it is there: it may be asked again. It may still be out of reach, so it is
    /// asked once for a shortest pause at most, and its failures are not forgotten.
    pub fn alive(&self, server: &ServerName) {
        let Some(entry) = self.known.get(server) else { return };
        if lock(&entry).hasten(self.min) {
            entry.changed.notify_waiters();
        }
    }
}

impl State {
    fn fail(&mut self, now: Instant, bounds: (Duration, Duration), spread: f64, after: Option<Duration>) {
        let (min, max) = bounds;
        let pause = min.saturating_mul(1 << self.failures.min(20)).min(max).mul_f64(spread);
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(now);
        self.until = Some(now + after.map_or(pause, |after| after.min(max)));
    }

    /// Lets the pause end a shortest one after the failure; whether that is sooner than it would have been.
    fn hasten(&mut self, min: Duration) -> bool {
        let soonest = self.failed.map(|failed| failed + min);
        let sooner = soonest < self.until;
        if sooner {
            self.until = soonest;
        }
        sooner
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
    const BOUNDS: (Duration, Duration) = (SECOND, Duration::from_secs(100));

    #[test]
    fn pauses_get_longer_up_to_the_longest_and_a_server_that_says_when_is_believed() {
        let now = Instant::now();
        let mut state = State::default();
        for seconds in [1, 2, 4, 8, 16, 32, 64, 100, 100] {
            state.fail(now, BOUNDS, 1.0, None);
            assert_eq!(state.until, Some(now + SECOND * seconds));
        }
        state.fail(now, BOUNDS, 0.5, None);
        assert_eq!(state.until, Some(now + SECOND * 50));
        for (said, seconds) in [(7, 7), (1_000, 100)] {
            state.fail(now, BOUNDS, 1.0, Some(SECOND * said));
            assert_eq!(state.until, Some(now + SECOND * seconds));
        }
    }

    #[test]
    fn a_server_that_calls_is_asked_again_but_not_at_every_call() {
        let now = Instant::now();
        let mut state = State { failures: 6, ..State::default() };
        state.fail(now, BOUNDS, 1.0, None);
        assert!(state.hasten(SECOND));
        assert_eq!((state.until, state.failures), (Some(now + SECOND), 7));
        assert!(!state.hasten(SECOND));
        assert!(!State::default().hasten(SECOND));
    }

    #[tokio::test]
    async fn requests_under_way_together_count_once_and_a_success_ends_it() {
        let backoff = Backoff::new(SECOND, SECOND * 100);
        let server = server_name!("a.test");
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

    #[tokio::test]
    async fn who_waits_is_woken_by_a_success_and_by_a_call() {
        let milli = Duration::from_millis(1);
        for success in [true, false] {
            let backoff = Arc::new(Backoff::new(milli, SECOND * 1_000));
            let server = server_name!("a.test");
            backoff.failed(server, backoff.leave(server).unwrap(), Some(SECOND * 1_000));
            let waiting = tokio::spawn({
                let backoff = backoff.clone();
                async move { backoff.until_leave(server).await }
            });
            tokio::time::sleep(milli * 10).await;
            assert!(!waiting.is_finished());
            if success {
                backoff.succeeded(server)
            } else {
                backoff.alive(server)
            }
            waiting.await.unwrap();
            backoff.until_leave(server).await;
        }
    }
}
