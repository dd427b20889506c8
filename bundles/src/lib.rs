mod cbor;
mod cose;
mod crockford;
pub mod envelope;
mod keys;
pub mod limits;
pub mod merkle;

pub use keys::{BadKey, Hash, KeyId, LinkId, PublicKey, SecretKey, hex};
