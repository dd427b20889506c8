//! Checking PDUs that come from other servers: their JSON, format, size, hash and signatures.

use crate::{Error, Federation, ring::Wanted};
use futures::{StreamExt, stream};
use postern_rooms::{Error as RoomsError, Verified, version::Version};
use postern_web::Strict;
use ruma::{CanonicalJsonObject, CanonicalJsonValue};
use serde_json::value::RawValue;
use std::sync::Arc;

/// PDUs that are checked one after the other, once their keys were asked for together.
const TOGETHER: usize = 200;
/// Such parts of one batch that are checked at the same time; a core each, and some that wait for keys.
const PARTS_AT_ONCE: usize = 8;

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
        let wanted = Verified::signers(version, &pdu)?;
        let at = origin_ts(&pdu).filter(|_| version.rules.enforce_key_validity);
        let keys = self.0.ring.keys(&wanted, at).await?;
        let version = version.clone();
        Ok(blocking(move || Verified::check(&version, pdu, &keys)).await??)
    }

    /// Checks many PDUs; those that fail are dropped. The order is kept.
    pub(crate) async fn verify_all(&self, version: &Arc<Version>, pdus: &[Box<RawValue>]) -> Vec<Verified> {
        // Owned, so that no lifetime is carried into the stream.
        let parts: Vec<_> =
            pdus.chunks(TOGETHER).map(|part| self.verify_part(version.clone(), part.to_vec())).collect();
        let checked: Vec<Result<Vec<Verified>, Error>> =
            stream::iter(parts).buffered(PARTS_AT_ONCE).collect().await;
        let mut verified = Vec::with_capacity(pdus.len());
        for part in checked {
            match part {
                Ok(part) => verified.extend(part),
                Err(error) => tracing::warn!(%error, "PDUs could not be checked"),
            }
        }
        verified
    }

    async fn verify_part(
        &self,
        version: Arc<Version>,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Vec<Verified>, Error> {
        let rules = version.clone();
        let parsed = blocking(move || {
            let signers = |pdu: &RawValue| -> Result<_, RoomsError> {
                let pdu = parse(pdu)?;
                Ok((Verified::signers(&rules, &pdu)?, pdu))
            };
            pdus.iter().filter_map(|pdu| signers(pdu).inspect_err(note_dropped).ok()).collect::<Vec<_>>()
        })
        .await?;
        // Each server is asked for its keys once, before the single events ask.
        let mut wanted = Wanted::new();
        for (signers, _) in &parsed {
            for (server, keys) in signers {
                wanted.entry(server.clone()).or_default().extend(keys.iter().cloned());
            }
        }
        self.0.ring.keys(&wanted, None).await?;
        let mut with_keys = Vec::with_capacity(parsed.len());
        for (signers, pdu) in parsed {
            let at = origin_ts(&pdu).filter(|_| version.rules.enforce_key_validity);
            with_keys.push((self.0.ring.keys(&signers, at).await?, pdu));
        }
        blocking(move || {
            let check = |(keys, pdu)| Verified::check(&version, pdu, &keys).inspect_err(note_dropped).ok();
            with_keys.into_iter().filter_map(check).collect()
        })
        .await
    }
}

fn note_dropped(error: &RoomsError) {
    tracing::debug!(%error, "a PDU is dropped");
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RoomsError::BadJson(format!("the check of an event broke off: {error}")).into())
}
