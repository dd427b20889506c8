//! Checking PDUs that come from other servers: their JSON, format, size, hash and signatures.

use crate::{Error, Federation, ring::Wanted};
use futures::{StreamExt, stream};
use postern_rooms::{Error as RoomsError, Verified, version::Version};
use postern_web::Strict;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, ServerName, signatures::PublicKeyMap};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Chunks of one batch that are checked at the same time; a core each, and some that wait for keys.
const AT_ONCE: usize = 16;
/// PDUs of a chunk: some milliseconds of work.
const TOGETHER: usize = 100;

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
    /// Checks a PDU of a room of `version` that `teller` has told. Keys that are not known are fetched.
    ///
    /// # Errors
    /// As [`Verified::check`].
    pub(crate) async fn verify(
        &self,
        version: &Arc<Version>,
        pdu: CanonicalJsonObject,
        teller: &ServerName,
    ) -> Result<Verified, Error> {
        let keys = self.keys_for(version, &pdu, teller).await?;
        let version = version.clone();
        let checked = tokio::task::spawn_blocking(move || Verified::check(&version, pdu, &keys)).await;
        checked
            .map_err(|error| RoomsError::BadJson(format!("the check of an event broke off: {error}")))?
            .map_err(Error::from)
    }

    /// The keys that a PDU that `teller` has told has to be checked with, as far as they can be had.
    ///
    /// # Errors
    /// It does not say who sent it, or the store's.
    pub(crate) async fn keys_for(
        &self,
        version: &Version,
        pdu: &CanonicalJsonObject,
        teller: &ServerName,
    ) -> Result<PublicKeyMap, Error> {
        let wanted = Verified::signers(version, pdu)?;
        let at = origin_ts(pdu).filter(|_| version.rules.enforce_key_validity);
        self.0.ring.keys(&wanted, at, teller).await
    }

    /// Checks many PDUs that `teller` has told; those that fail are dropped. The order is kept.
    pub(crate) async fn verify_all(
        &self,
        version: &Arc<Version>,
        pdus: &[Box<RawValue>],
        teller: &ServerName,
    ) -> Vec<Verified> {
        stream::iter(pdus.chunks(TOGETHER).map(<[_]>::to_vec))
            .map(|some| self.verify_some(version, some, teller))
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Checks some PDUs, each step of all of them by one thread.
    async fn verify_some(
        &self,
        version: &Arc<Version>,
        pdus: Vec<Box<RawValue>>,
        teller: &ServerName,
    ) -> Vec<Verified> {
        let parsed = tokio::task::spawn_blocking(move || {
            let parse = |pdu: Box<RawValue>| parse(&pdu).inspect_err(dropped).ok();
            pdus.into_iter().filter_map(parse).collect::<Vec<_>>()
        });
        let parsed = parsed.await.unwrap_or_else(broke_off);
        // Each server is asked for its keys once, before the single events ask.
        let mut wanted = Wanted::new();
        for pdu in &parsed {
            for (server, keys) in Verified::signers(version, pdu).unwrap_or_default() {
                wanted.entry(server).or_default().extend(keys);
            }
        }
        if let Err(error) = self.0.ring.keys(&wanted, None, teller).await {
            tracing::warn!(%error, "keys cannot be had");
        }
        let mut with_keys = Vec::with_capacity(parsed.len());
        for pdu in parsed {
            match self.keys_for(version, &pdu, teller).await {
                Ok(keys) => with_keys.push((pdu, keys)),
                Err(error) => dropped(&error),
            }
        }
        let version = version.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let check = |(pdu, keys)| Verified::check(&version, pdu, &keys).inspect_err(dropped).ok();
            with_keys.into_iter().filter_map(check).collect::<Vec<_>>()
        });
        checked.await.unwrap_or_else(broke_off)
    }
}

fn broke_off<T>(error: tokio::task::JoinError) -> Vec<T> {
    tracing::error!(%error, "the check of some PDUs broke off");
    Vec::new()
}

fn dropped(error: &impl std::fmt::Display) {
    tracing::debug!(%error, "a PDU is dropped");
}
