//! The keys of a link, and how they are written down.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::crockford;

/// SHA-256 of something.
pub type Hash = [u8; 32];

pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// Bytes of a block of SHA-256: HMAC fills up shorter keys with zeros (RFC 2104).
const BLOCK: usize = 64;

/// HMAC-SHA-256 with a key of at most a block, which every key here is.
pub(crate) fn hmac<const N: usize>(key: &[u8; N]) -> Hmac<Sha256> {
    const { assert!(N <= BLOCK, "a longer key would have to be hashed") };
    let mut block = Zeroizing::new([0; BLOCK]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    Hmac::new((&*block).into())
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        for digit in [byte >> 4, byte & 0xf] {
            hex.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
        hex
    })
}

/// What [`hex`] wrote; nothing if it is not that.
#[must_use]
pub fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

/// Why a key or the id of a link cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}")]
pub struct BadKey {
    /// What it should look like.
    pub expected: &'static str,
}

/// Which link: one direction between two enclaves. Eight random bytes, chosen when the link is made, written as thirteen
/// characters of Crockford's base 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkId(pub [u8; 8]);

impl LinkId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crockford::encode(&self.0))
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LinkId {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bytes = crockford::decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(BadKey { expected: "the id of a link: thirteen letters and digits" })
    }
}

impl TryFrom<String> for LinkId {
    type Error = BadKey;

    fn try_from(text: String) -> Result<Self, BadKey> {
        text.parse()
    }
}

impl From<LinkId> for String {
    fn from(link: LinkId) -> Self {
        link.to_string()
    }
}

/// Names a public key in a signature: the first eight bytes of its SHA-256. It only says which key to try.
pub type KeyId = [u8; 8];

const PUBLIC: &str = "ed25519:";
const SECRET: &str = "postern-link-secret:";

/// A public key: of a link, of one of its roots, or of a releasing officer. Written `ed25519:` and 43 characters of base 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From the 32 bytes of RFC 8032. `None` if they are no point of the curve, or one of the few of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self)
    }

    /// The 32 bytes of RFC 8032.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// How signatures name this key.
    pub fn id(&self) -> KeyId {
        let mut id = KeyId::default();
        id.copy_from_slice(&sha256(&[self.0.as_bytes()])[..8]);
        id
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", BASE64.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bytes = text.trim().strip_prefix(PUBLIC).and_then(|key| BASE64.decode(key).ok());
        let key = bytes.and_then(|bytes| Self::from_bytes(&bytes.try_into().ok()?));
        key.ok_or(BadKey { expected: "a public key: ed25519: and 43 characters of base 64" })
    }
}

impl TryFrom<String> for PublicKey {
    type Error = BadKey;

    fn try_from(text: String) -> Result<Self, BadKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// A secret key, wiped from memory when dropped. It is never printed, except by [`SecretKey::reveal`].
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new one.
    pub fn random() -> Self {
        Self::from_seed(&Zeroizing::new(rand::random()))
    }

    /// From the 32 secret bytes of RFC 8032.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// As it stands in a file that is kept secret.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{SECRET}{}", BASE64.encode(Zeroizing::new(self.0.to_bytes()))))
    }

    /// The key that verifies what this one signs.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl FromStr for SecretKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bytes =
            text.trim().strip_prefix(SECRET).and_then(|key| BASE64.decode(key).ok()).map(Zeroizing::new);
        let seed: Option<Zeroizing<[u8; 32]>> =
            bytes.and_then(|bytes| bytes.as_slice().try_into().ok()).map(Zeroizing::new);
        let seed = seed
            .ok_or(BadKey { expected: "a secret key: postern-link-secret: and 43 characters of base 64" })?;
        Ok(Self::from_seed(&seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let secret = SecretKey::from_seed(&[7; 32]);
        let read: SecretKey = secret.reveal().parse().unwrap();
        assert_eq!(read.public(), secret.public());
        assert_eq!(secret.public().to_string().parse(), Ok(secret.public()));
        let link = LinkId([0xff, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(link.to_string().len(), 13);
        assert_eq!(link.to_string().parse(), Ok(link));
    }

    #[test]
    fn a_secret_key_is_not_printed_by_chance() {
        let secret = SecretKey::from_seed(&[7; 32]);
        let encoded = BASE64.encode([7; 32]);
        assert!(!format!("{secret:?}").contains(&encoded));
        assert!(secret.reveal().contains(&encoded));
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(PublicKey::from_bytes(&identity).is_none());
    }
}
