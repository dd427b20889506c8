//! Keys of end-to-end encryption (specification: end-to-end encryption).
//!
//! The server keeps public keys for users and hands them out; it checks what the specification says it must, and
//! trusts none of it. Identity keys, one-time keys and fallback keys belong to a device ([`upload`](self::upload),
//! [`claim`](self::claim)); cross-signing keys belong to a user ([`cross_signing`](self::cross_signing)); signatures
//! made later by other keys are kept beside what they sign ([`signatures`](self::signatures)) and merged in when keys
//! are asked for ([`query`](self::query)).
//!
//! What reads before it writes takes [`Turns::keys`] until its commit is applied; waiting for the disk comes after.

mod changes;
mod claim;
mod cross_signing;
mod query;
mod remote;
mod signatures;
mod signed;
mod upload;

pub use claim::{ClaimedKeys, KeyClaim};
pub use cross_signing::CrossSigningUpload;
pub use query::{KeyQuery, QueriedKeys, check_amount};
pub use remote::{DeviceUpdate, Followed, RemoteKeys, Updated};
pub use signatures::{SignatureFailures, SignatureUpload};
pub use upload::KeyUpload;

use crate::Error;
use parking_lot::Mutex;
use postern_graph::codec::Raw;
use serde_json::{Map, Value};

/// The algorithm every client uses for its one-time keys; its count is always told, also when it is zero, because
/// clients keep the last count they were told.
const ONE_TIME_ALGORITHM: &str = "signed_curve25519";

/// Changes that read before they write take turns, by what they change. Held while a commit is built and applied,
/// never while the disk is waited for.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Keys of devices and users.
    pub(crate) keys: Mutex<()>,
    /// Messages with a transaction id.
    pub(crate) to_device: Mutex<()>,
    /// Key backups.
    pub(crate) backup: Mutex<()>,
}

/// A stored JSON object.
pub(crate) fn object(Raw(bytes): &Raw) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Internal(format!("a stored key is damaged: {error}")))
}

/// JSON as it is stored.
pub(crate) fn raw<T: serde::Serialize>(value: &T) -> Result<Raw, Error> {
    serde_json::to_vec(value).map(Raw).map_err(|error| Error::Internal(error.to_string()))
}

/// The parts of a key id `<algorithm>:<name>`.
fn split_key_id(id: &str) -> Result<(&str, &str), Error> {
    match id.split_once(':') {
        Some((algorithm, name)) if !algorithm.is_empty() && !name.is_empty() => Ok((algorithm, name)),
        _ => Err(Error::InvalidParam(format!("the key id {id:?} is not of the form <algorithm>:<id>"))),
    }
}
