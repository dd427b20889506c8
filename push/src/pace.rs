//! When a push gateway that could not be reached is tried again.

use std::time::Duration;

/// The failures in a row, and what follows from them.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Whether the last attempt failed.
    pub(crate) const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(crate) const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure: twice as long each time. `jitter`, from 0 to 1, takes up to half of it away, so
    /// that those who failed together do not come back together.
    pub(crate) fn failed(&mut self, jitter: f64) -> Duration {
        let wait = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3600));
        let waits: Vec<u64> = (0..40).map(|_| backoff.failed(0.0).as_secs()).collect();
        assert_eq!((&waits[..4], waits[39]), (&[1, 2, 4, 8][..], 3600));
        backoff.succeeded();
        assert!(!backoff.is_failing());
        assert_eq!(backoff.failed(1.0).as_millis(), 500);
    }
}
