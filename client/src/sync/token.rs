//! Where a client stands.

use crate::http::ApiError;
use postern_graph::Seq;
use std::{fmt, str::FromStr};

/// A `since` token: the log, the typing clock, and the messages to the device that were handed out. Written
/// `s<log>_<typing>_<messages>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncToken {
    pub(crate) log: Seq,
    pub(crate) typing: u64,
    pub(crate) to_device: Seq,
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}_{}", self.log.0, self.typing, self.to_device.0)
    }
}

impl FromStr for SyncToken {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::invalid_param(format!("{text:?} is not a token of this server"));
        let mut parts = text.strip_prefix('s').ok_or_else(invalid)?.split('_').map(str::parse::<u64>);
        let mut part = || parts.next().transpose().map_err(|_| invalid());
        let log = Seq(part()?.ok_or_else(invalid)?);
        let typing = part()?.unwrap_or(0);
        let to_device = part()?.map_or(log, Seq);
        // Beyond i64 there are no positions.
        if log.0 > i64::MAX as u64 || parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Self { log, typing, to_device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_written() {
        let token = SyncToken { log: Seq(7), typing: 8, to_device: Seq(6) };
        assert_eq!(token.to_string().parse::<SyncToken>().unwrap(), token);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in
            ["", "s", "s-1", "t5", "sx_1", "s1_2_3_4", "s99999999999999999999", "s18446744073709551615"]
        {
            assert!(text.parse::<SyncToken>().is_err(), "{text}");
        }
    }
}
