//! How many requests peers may make that have a bound of their own.

use dashmap::DashMap;
use ruma::{OwnedServerName, ServerName};
use std::time::Instant;

/// How many seconds' worth of requests a peer may make at once.
const BURST_SECONDS: f64 = 5.0;

/// Requests that peers may still make: those that have a bound are as many as are written down.
#[derive(Debug, Default)]
pub(crate) struct Requests(DashMap<OwnedServerName, (f64, Instant)>);

impl Requests {
    /// Takes one of a peer's requests; not if there are none left.
    pub(crate) fn take(&self, server: &ServerName, per_second: u32) -> bool {
        let (rate, now) = (f64::from(per_second), Instant::now());
        let most = (rate * BURST_SECONDS).max(1.0);
        let mut left = self.0.entry(server.to_owned()).or_insert((most, now));
        let (count, since) = *left;
        let count = (count + now.duration_since(since).as_secs_f64() * rate).min(most);
        let is_taken = count >= 1.0;
        *left = (if is_taken { count - 1.0 } else { count }, now);
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::server_name;

    #[test]
    fn a_peer_that_makes_more_requests_than_it_may_is_stopped() {
        let requests = Requests::default();
        let taken = (0..100).filter(|_| requests.take(server_name!("a"), 2)).count();
        assert!((10..=12).contains(&taken), "{taken}");
        assert!(requests.take(server_name!("b"), 2), "others are not");
    }
}
