//! When a server that could not be reached is tried again.

use std::time::{Duration, Instant};

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// After the first failure.
    pub(crate) first: Duration,
    /// After many.
    pub(crate) longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { first: Duration::from_secs(2), longest: Duration::from_secs(60 * 60) }
    }
}

/// A server that is heard of meanwhile is tried again after this part of the waiting time…
const HEARD_PART: u32 = 8;
/// …or this time, if that is less: it is there, but may still not be reachable from here.
const HEARD_LONGEST: Duration = Duration::from_secs(30);

/// The failures in a row, and what follows from them.
#[derive(Debug)]
pub(super) struct Backoff {
    pace: Pace,
    failures: u32,
    failed: Instant,
    wait: Duration,
}

impl Backoff {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, failures: 0, failed: Instant::now(), wait: Duration::ZERO }
    }

    /// Whether the last attempt failed.
    pub(super) const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The wait doubles with each failure. `jitter`, from 0 to 1, takes up to half of it away, so that those who failed
    /// together do not come back together.
    pub(super) fn failed(&mut self, jitter: f64) {
        let doubled = 2_u32.saturating_pow(self.failures);
        let wait = self.pace.first.saturating_mul(doubled).min(self.pace.longest);
        self.wait = wait.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        self.failures = self.failures.saturating_add(1);
        self.failed = Instant::now();
    }

    /// When to try again.
    pub(super) fn due(&self) -> Instant {
        self.failed + self.wait
    }

    /// When to try again if the server was heard of.
    pub(super) fn due_if_heard(&self) -> Instant {
        self.failed + (self.wait / HEARD_PART).min(HEARD_LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(backoff: &Backoff) -> Duration {
        backoff.due() - backoff.failed
    }

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Pace::default());
        let mut waits = Vec::new();
        for _ in 0..40 {
            backoff.failed(0.0);
            waits.push(wait(&backoff).as_secs());
        }
        assert_eq!(waits[..4], [2, 4, 8, 16]);
        assert_eq!(waits[39], 3600);
        backoff.succeeded();
        assert!(!backoff.is_failing());
        backoff.failed(0.0);
        assert_eq!(wait(&backoff).as_secs(), 2);
    }

    #[test]
    fn jitter_takes_at_most_half() {
        for jitter in [0.0, 0.3, 1.0, 7.0] {
            let mut backoff = Backoff::new(Pace::default());
            backoff.failed(jitter);
            assert!((1..=2).contains(&wait(&backoff).as_secs()), "{jitter}");
        }
    }

    #[test]
    fn who_is_heard_of_is_tried_sooner_but_not_at_every_word() {
        let mut backoff = Backoff::new(Pace::default());
        backoff.failed(0.0);
        assert_eq!((backoff.due_if_heard() - backoff.failed).as_millis(), 250);
        for _ in 0..20 {
            backoff.failed(0.0);
        }
        assert_eq!((backoff.due_if_heard() - backoff.failed).as_secs(), 30);
    }
}
