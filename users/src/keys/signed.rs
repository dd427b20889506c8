//! Checking the signatures of signed JSON (specification: appendices, signing JSON).

use ruma::{
    SigningKeyAlgorithm,
    canonical_json::try_from_json_map,
    serde::{Base64, base64::Standard},
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};
use serde_json::{Map, Value};

/// The signature of `signer`'s key `key_id` on an object, if there is one.
pub(super) fn signature<'a>(object: &'a Map<String, Value>, signer: &str, key_id: &str) -> Option<&'a str> {
    object.get("signatures")?.get(signer)?.get(key_id)?.as_str()
}

/// Whether an object has a valid signature of `signer`'s Ed25519 key `key_id`, whose public half (base64) is given.
pub(super) fn is_signed(object: &Map<String, Value>, signer: &str, key_id: &str, public_key: &str) -> bool {
    signature(object, signer, key_id)
        .and_then(|signature| {
            let signature = Base64::<Standard>::parse(signature).ok()?;
            let public_key = Base64::<Standard>::parse(public_key).ok()?;
            let object = try_from_json_map(object.clone()).ok()?;
            let text = to_canonical_json_string_for_signing(&object).ok()?;
            let algorithm = SigningKeyAlgorithm::Ed25519;
            verify_canonical_json_bytes(
                &algorithm,
                public_key.as_bytes(),
                signature.as_bytes(),
                text.as_bytes(),
            )
            .ok()
        })
        .is_some()
}
