//! Rate limits: a token bucket for each who and what.

use crate::ApiError;
use dashmap::DashMap;
use std::time::Instant;

/// Buckets kept; full ones are dropped first.
const BUCKETS: usize = 100_000;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Registering, by address.
    Registration,
    /// Logging in, by address and by account.
    Login,
    /// Sending events.
    Message,
    /// Joining and creating rooms.
    Join,
    /// Inviting.
    Invite,
    /// Uploading.
    Upload,
    /// Telling that an address is a user's, by address and by user.
    Binding,
}

/// How much is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// In the long run.
    pub per_second: f64,
    /// At once.
    pub burst: f64,
}

/// The limits in force; a class without a rate is not limited.
#[derive(Debug, Default)]
pub struct Limiter {
    rates: Vec<(Class, Rate)>,
    buckets: DashMap<(Class, String), (f64, Instant)>,
}

impl Limiter {
    /// A limiter with these rates.
    #[must_use]
    pub fn new(rates: Vec<(Class, Rate)>) -> Self {
        Self { rates, buckets: DashMap::new() }
    }

    /// Counts one of `class` for `who`.
    ///
    /// # Errors
    /// `M_LIMIT_EXCEEDED` with the time to wait.
    pub fn check(&self, class: Class, who: &str) -> Result<(), ApiError> {
        let Some((_, rate)) = self.rates.iter().find(|(limited, _)| *limited == class) else { return Ok(()) };
        let now = Instant::now();
        if self.buckets.len() > BUCKETS {
            self.buckets.retain(|_, (level, at)| {
                *level + now.duration_since(*at).as_secs_f64() * rate.per_second < rate.burst
            });
        }
        let mut bucket = self.buckets.entry((class, who.to_owned())).or_insert((rate.burst, now));
        let level = (bucket.0 + now.duration_since(bucket.1).as_secs_f64() * rate.per_second).min(rate.burst);
        if level < 1.0 {
            *bucket = (level, now);
            let seconds = (1.0 - level) / rate.per_second.max(1e-6);
            let ms = std::time::Duration::from_secs_f64(seconds.min(3600.0)).as_millis();
            return Err(ApiError::limit_exceeded(u64::try_from(ms).unwrap_or(u64::MAX).max(1)));
        }
        *bucket = (level - 1.0, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_more_is_told_when_to_come_back() {
        let limiter = Limiter::new(vec![(Class::Message, Rate { per_second: 0.5, burst: 3.0 })]);
        for _ in 0..3 {
            assert!(limiter.check(Class::Message, "@a:b").is_ok());
        }
        let error = limiter.check(Class::Message, "@a:b").unwrap_err();
        assert_eq!(error.errcode(), "M_LIMIT_EXCEEDED");
        assert!(limiter.check(Class::Message, "@c:b").is_ok());
        assert!(limiter.check(Class::Login, "@a:b").is_ok());
    }
}
