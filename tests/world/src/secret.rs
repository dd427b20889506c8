//! Registration by shared secret, as tools for Synapse do it.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;
use std::fmt::Write;

/// The request for an account, with the proof that whoever makes it knows `secret`.
///
/// # Panics
/// Never: a secret of any length is a key.
#[must_use]
pub fn request(secret: &str, nonce: &str, name: &str, password: &str, admin: bool) -> Value {
    let role = if admin { "admin" } else { "notadmin" };
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update([nonce, name, password, role].join("\0").as_bytes());
    let mac = mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string");
        hex
    });
    json!({ "nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac })
}
