//! Random tokens, and how they are kept: only their SHA-256 is stored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// The stored form of a token.
pub type TokenHash = [u8; 32];

/// A new token of 256 random bits, with a prefix that secret scanners can recognize.
#[must_use]
pub fn new_token(prefix: &str) -> String {
    let bytes: [u8; 32] = rand::random();
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// What is stored of a token.
#[must_use]
pub fn hash_token(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// A short random name: uppercase letters, as device ids are.
#[must_use]
pub fn random_name(length: usize) -> String {
    (0..length).map(|_| char::from(b'A' + rand::random::<u8>() % 26)).collect()
}
