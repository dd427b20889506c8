//! Checking PDUs that come from other servers: their JSON, format, size, hash and signatures.

use crate::{Error, Federation, ring::Wanted};
use futures::{StreamExt, stream};
use postern_rooms::{Error as RoomsError, Verified, version::Version};
use postern_web::Strict;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, signatures::PublicKeyMap};
use serde_json::value::RawValue;
use std::sync::Arc;

/// PDUs of one batch that are checked at the same time; a core each, and some that wait for keys.
const AT_ONCE: usize = 16;
/// PDUs whose keys are asked for together.
const KEYS_TOGETHER: usize = 500;

/// A PDU as JSON that means one thing only.
///
/// # Errors
/// [`RoomsError::BadJson`].
pub(crate) fn parse(pdu: &RawValue) -> Result<CanonicalJsonObject, RoomsError> {
    let bad = |error: serde_json::Error| RoomsError::BadJson(error.to_string());
    let _: Strict = serde_json::from_str(pdu.get()).map_err(bad)?;
    serde_json::from_str(pdu.get()).map_err(bad)
}

fn origin_ts(pdu: &CanonicalJsonObject) -> Option<u64> {
    let ts = pdu.get("origin_server_ts").and_then(CanonicalJsonValue::as_integer)?;
    u64::try_from(i64::from(ts)).ok()
}

impl Federation {
    /// Checks a PDU of a room of `version`. Keys that are not known are fetched.
    ///
    /// # Errors
    /// As [`Verified::check`].
    pub(crate) async fn verify(
        &self,
        version: &Arc<Version>,
        pdu: CanonicalJsonObject,
    ) -> Result<Verified, Error> {
        let keys = self.keys_for(version, &pdu).await?;
        let version = version.clone();
        let checked = tokio::task::spawn_blocking(move || Verified::check(&version, pdu, &keys)).await;
        checked
            .map_err(|error| RoomsError::BadJson(format!("the check of an event broke off: {error}")))?
            .map_err(Error::from)
    }

    /// The keys that a PDU has to be checked with, as far as they can be had.
    ///
    /// # Errors
    /// It does not say who sent it, or the store's.
    pub(crate) async fn keys_for(
        &self,
        version: &Version,
        pdu: &CanonicalJsonObject,
    ) -> Result<PublicKeyMap, Error> {
        let wanted = Verified::signers(version, pdu)?;
        let at = origin_ts(pdu).filter(|_| version.rules.enforce_key_validity);
        self.0.ring.keys(&wanted, at).await
    }

    /// Checks many PDUs; those that fail are dropped. The order is kept.
    pub(crate) async fn verify_all(&self, version: &Arc<Version>, pdus: &[Box<RawValue>]) -> Vec<Verified> {
        let parsed: Vec<CanonicalJsonObject> = pdus
            .iter()
            .filter_map(|pdu| {
                parse(pdu).inspect_err(|error| tracing::debug!(%error, "a PDU is dropped")).ok()
            })
            .collect();
        // Each server is asked for its keys once, before the single events ask.
        for some in parsed.chunks(KEYS_TOGETHER) {
            let mut wanted = Wanted::new();
            for pdu in some {
                for (server, keys) in Verified::signers(version, pdu).unwrap_or_default() {
                    wanted.entry(server).or_default().extend(keys);
                }
            }
            if let Err(error) = self.0.ring.keys(&wanted, None).await {
                tracing::warn!(%error, "keys cannot be had");
            }
        }
        stream::iter(parsed)
            .map(|pdu| async move {
                self.verify(version, pdu)
                    .await
                    .inspect_err(|error| tracing::debug!(%error, "a PDU is dropped"))
                    .ok()
            })
            .buffered(AT_ONCE)
            .filter_map(|checked| async move { checked })
            .collect()
            .await
    }
}
