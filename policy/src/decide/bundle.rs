//! Policies that are signed: a versioned document that travels in a file or in a state event.
//!
//! As JSON:
//!
//! ```json
//! {
//!   "format": "io.postern.policies.v1",
//!   "version": 7,
//!   "created": 1764000000000,
//!   "prev": "<SHA-256 of the signed form of version 6, 64 hexadecimal digits>",
//!   "policies": [ { "name": "coalition.cedar", "text": "permit (…);" } ],
//!   "signatures": { "ed25519:officer": "<unpadded base64>" }
//! }
//! ```
//!
//! `version` and `created` (milliseconds since the epoch) are at most 2^53 - 1, as numbers in Matrix are. The first
//! bundle has no `prev`. What is signed is not the JSON, which has many forms, but the **signed form**, which has one:
//!
//! | bytes | what |
//! | --- | --- |
//! | 23 | `io.postern.policies.v1` and a zero byte |
//! | 8 | `version`, big-endian, as all numbers here |
//! | 8 | `created` |
//! | 32 | `prev`, or zero bytes where there is none |
//! | 4 | the number of policies |
//! | for each policy | 4 bytes: the length of its name; the name in UTF-8; 4 bytes: the length of its text; the text in UTF-8 |
//!
//! Signatures are Ed25519 (RFC 8032) over these bytes. Their SHA-256 names the bundle.

use super::{
    limits::{LARGEST_BUNDLE, LONGEST_NAME, MOST_SIGNATURES, MOST_TEXT, MOST_TEXTS},
    rules::Text,
};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD as BASE64};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What the field `format` says, and what the signed form begins with.
pub const FORMAT: &str = "io.postern.policies.v1";

/// The greatest number that Matrix allows in JSON: 2^53 - 1.
const LARGEST_NUMBER: u64 = (1 << 53) - 1;

/// The length of a signature in unpadded base64.
const SIGNATURE: usize = 86;

/// A bundle as it was read or is being made. That it may be used is known only of a [`Verified`] one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    format: String,
    /// Greater than that of every bundle before.
    pub version: u64,
    /// In milliseconds since the epoch.
    pub created: u64,
    /// Names the bundle before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<Digest256>,
    pub policies: Vec<Text>,
    /// By the id of the key.
    #[serde(default)]
    pub signatures: BTreeMap<String, String>,
}

/// A SHA-256, written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest256(pub [u8; 32]);

impl fmt::Display for Digest256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest256 {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a SHA-256 is 64 lower-case hexadecimal digits";
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(wrong),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(wrong);
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest256 {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest256 {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a bundle is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("it is {0} bytes; no more than {LARGEST_BUNDLE} are read")]
    TooLarge(usize),
    #[error("{0}")]
    Json(String),
    #[error("its format is {0:?}; this server knows {FORMAT:?}")]
    Format(String),
    #[error("its {0} is not a number from 1 to 2^53 - 1")]
    Number(&'static str),
    #[error("it has {0}")]
    TooMany(String),
    #[error("{0:?} is not the id of a key: `ed25519:` and letters, digits or `_`")]
    KeyId(String),
    #[error("the key {0} is not 32 bytes in unpadded base64, or no point of the curve")]
    Key(String),
    #[error("the signature by {0} is not 64 bytes in unpadded base64")]
    Form(String),
    #[error(
        "the signature by {0} does not match: the bundle was changed after it was signed, or the key is another"
    )]
    Signature(String),
    #[error("{valid} of the configured keys signed it; {needed} must")]
    TooFew { valid: usize, needed: usize },
    #[error("it is version {offered}; version {accepted} is in force already, and versions must increase")]
    Old { offered: u64, accepted: u64 },
    #[error("it is another version {0} than the one in force: two bundles were signed under one version")]
    Fork(u64),
    #[error("it says to follow {said}; the version before it, in force here, is {accepted}")]
    Chain { said: String, accepted: Digest256 },
}

/// Which bundle was taken last. To be kept across restarts: it is what keeps old policies from coming back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    pub version: u64,
    pub digest: Digest256,
}

/// Whose signatures count, and how many there must be.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    keys: BTreeMap<String, VerifyingKey>,
    needed: usize,
}

/// A bundle whose signatures and version are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    accepted: Accepted,
    texts: Vec<Text>,
    signers: Vec<String>,
}

impl Verified {
    /// What is to be kept once the policies are in force.
    pub fn accepted(&self) -> Accepted {
        self.accepted
    }

    /// The policies.
    pub fn texts(&self) -> &[Text] {
        &self.texts
    }

    /// The ids of the configured keys that signed it.
    pub fn signers(&self) -> &[String] {
        &self.signers
    }
}

impl Keys {
    /// `keys` are ids and public keys in unpadded base64; `needed` of them, at least one, must sign.
    ///
    /// # Errors
    /// For an id or a key that is none.
    pub fn new<'k>(
        keys: impl IntoIterator<Item = (&'k str, &'k str)>,
        needed: usize,
    ) -> Result<Self, BundleError> {
        let mut known = BTreeMap::new();
        for (id, key) in keys {
            check_key_id(id)?;
            let bytes = BASE64.decode(key).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let key =
                bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok()).filter(|key| !key.is_weak());
            known.insert(id.to_owned(), key.ok_or_else(|| BundleError::Key(id.to_owned()))?);
        }
        Ok(Self { keys: known, needed: needed.max(1) })
    }
}

fn check_key_id(id: &str) -> Result<(), BundleError> {
    let name = id.strip_prefix("ed25519:").unwrap_or_default();
    let fits = (1..=64).contains(&name.len());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(BundleError::KeyId(id.to_owned()))
}

/// A public key as it is configured.
pub fn public_key(key: &SigningKey) -> String {
    BASE64.encode(key.verifying_key().as_bytes())
}

impl Bundle {
    /// One that nobody has signed yet. `prev` is the bundle before, as it was accepted.
    pub fn new(version: u64, created: u64, prev: Option<Digest256>, policies: Vec<Text>) -> Self {
        let format = FORMAT.to_owned();
        Self { format, version, created, prev, policies, signatures: BTreeMap::new() }
    }

    /// Reads the JSON, and checks its form. Its signatures are checked by [`Self::verify`].
    ///
    /// # Errors
    /// For anything that is not such a document within bounds.
    pub fn parse(json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > LARGEST_BUNDLE {
            return Err(BundleError::TooLarge(json.len()));
        }
        let bundle: Self =
            serde_json::from_slice(json).map_err(|error| BundleError::Json(error.to_string()))?;
        bundle.check()?;
        Ok(bundle)
    }

    fn check(&self) -> Result<(), BundleError> {
        if self.format != FORMAT {
            return Err(BundleError::Format(self.format.clone()));
        }
        for (name, number) in [("version", self.version), ("created", self.created)] {
            if !(1..=LARGEST_NUMBER).contains(&number) {
                return Err(BundleError::Number(name));
            }
        }
        let size: usize = self.policies.iter().map(|text| text.text.len()).sum();
        let too_many = [
            (self.policies.len(), MOST_TEXTS, "policies"),
            (size, MOST_TEXT, "bytes of policies"),
            (self.signatures.len(), MOST_SIGNATURES, "signatures"),
        ];
        if let Some((has, most, what)) = too_many.into_iter().find(|(has, most, _)| has > most) {
            return Err(BundleError::TooMany(format!("{has} {what}; no more than {most} are read")));
        }
        if let Some(long) =
            self.policies.iter().map(|text| text.name.len()).find(|length| *length > LONGEST_NAME)
        {
            let most = LONGEST_NAME;
            return Err(BundleError::TooMany(format!(
                "a name of {long} bytes; no more than {most} are read"
            )));
        }
        self.signatures.iter().try_for_each(|(id, signature)| {
            check_key_id(id)?;
            if signature.len() == SIGNATURE { Ok(()) } else { Err(BundleError::Form(id.clone())) }
        })
    }

    /// As it is written to a file.
    pub fn to_json(&self) -> String {
        // Text and numbers alone, which JSON always has a form for.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// What is signed: the one form that this bundle has as bytes.
    pub fn signed_form(&self) -> Vec<u8> {
        let mut form = Vec::new();
        form.extend(FORMAT.as_bytes());
        form.push(0);
        form.extend(self.version.to_be_bytes());
        form.extend(self.created.to_be_bytes());
        form.extend(self.prev.map_or([0; 32], |prev| prev.0));
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        form.extend(number(self.policies.len()));
        for Text { name, text } in &self.policies {
            for part in [name, text] {
                form.extend(number(part.len()));
                form.extend(part.as_bytes());
            }
        }
        form
    }

    /// SHA-256 of the signed form.
    pub fn digest(&self) -> Digest256 {
        Digest256(Sha256::digest(self.signed_form()).into())
    }

    /// Adds a signature, or puts it in the place of an older one by the same key.
    ///
    /// # Errors
    /// Where the bundle is beyond bounds, or the id is none.
    pub fn sign(&mut self, id: &str, key: &SigningKey) -> Result<(), BundleError> {
        check_key_id(id)?;
        self.check()?;
        let signature = key.sign(&self.signed_form());
        self.signatures.insert(id.to_owned(), BASE64.encode(signature.to_bytes()));
        Ok(())
    }

    /// May its policies be used, `last` being the bundle that was taken last? The same bundle may be taken again; a
    /// later one must follow it, unless versions between were missed, which cannot be told.
    ///
    /// # Errors
    /// Where too few of the keys signed it, one of the configured keys' signatures is wrong, or the version does not
    /// follow.
    pub fn verify(&self, keys: &Keys, last: Option<&Accepted>) -> Result<Verified, BundleError> {
        self.check()?;
        let form = self.signed_form();
        let mut signers = Vec::new();
        let mut distinct = BTreeSet::new();
        for (id, signature) in &self.signatures {
            // Someone else's signature says nothing here, and does no harm.
            let Some(key) = keys.keys.get(id) else { continue };
            let bytes = BASE64.decode(signature).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
            let signature = Signature::from_bytes(&bytes.ok_or_else(|| BundleError::Form(id.clone()))?);
            key.verify_strict(&form, &signature).map_err(|_| BundleError::Signature(id.clone()))?;
            // One key under two names is still one signer.
            if distinct.insert(key.to_bytes()) {
                signers.push(id.clone());
            }
        }
        let needed = keys.needed.max(1);
        if signers.len() < needed {
            return Err(BundleError::TooFew { valid: signers.len(), needed });
        }
        let accepted = Accepted { version: self.version, digest: self.digest() };
        if let Some(last) = last {
            self.follows(last, accepted)?;
        }
        Ok(Verified { accepted, texts: self.policies.clone(), signers })
    }

    fn follows(&self, last: &Accepted, this: Accepted) -> Result<(), BundleError> {
        if this.version < last.version {
            return Err(BundleError::Old { offered: this.version, accepted: last.version });
        }
        if this.version == last.version {
            return if this.digest == last.digest { Ok(()) } else { Err(BundleError::Fork(this.version)) };
        }
        if this.version == last.version + 1 && self.prev != Some(last.digest) {
            let said = self.prev.map_or_else(|| "none".to_owned(), |prev| prev.to_string());
            return Err(BundleError::Chain { said, accepted: last.digest });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_bytes(&[byte; 32])
    }

    fn keys(of: &[(&str, u8)], needed: usize) -> Keys {
        let of: Vec<_> = of.iter().map(|(id, byte)| (*id, public_key(&key(*byte)))).collect();
        Keys::new(of.iter().map(|(id, key)| (*id, key.as_str())), needed).unwrap()
    }

    fn bundle(version: u64, prev: Option<Digest256>) -> Bundle {
        let text = Text { name: "a.cedar".into(), text: "// nothing\n".into() };
        let mut bundle = Bundle::new(version, 1_764_000_000_000, prev, vec![text]);
        bundle.sign("ed25519:one", &key(1)).unwrap();
        bundle
    }

    #[test]
    fn the_signed_form_is_the_documented_one() {
        let prev = Digest256([0xab; 32]);
        let form = bundle(7, Some(prev)).signed_form();
        let mut expected = b"io.postern.policies.v1\0".to_vec();
        expected.extend([0, 0, 0, 0, 0, 0, 0, 7]);
        expected.extend([0, 0, 0x01, 0x9a, 0xb6, 0x97, 0xe8, 0x00]);
        expected.extend([0xab; 32]);
        expected.extend([0, 0, 0, 1]);
        expected.extend(b"\0\0\0\x07a.cedar\0\0\0\x0b// nothing\n");
        assert_eq!(form, expected);
    }

    /// Made by OpenSSL of the bytes above, with the private key of 32 bytes 0x01.
    #[test]
    fn the_digest_and_the_signature_are_those_of_others() {
        let bundle = bundle(7, Some(Digest256([0xab; 32])));
        let digest = "81927f47e94d14874dfa21ad79deb172d8277291d57d77ba3fd103bbd00ee158";
        assert_eq!(bundle.digest().to_string(), digest);
        let signature =
            "fkUQWswnWWBJybdtThEPsib5LPCdr+T2ktHSys2zXWljKGHkbKT7lGDIjCyFtVL6+1WAo29xuQgk5kJO+idfCg";
        assert_eq!(bundle.signatures["ed25519:one"], signature);
        let key = ("ed25519:one", "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w");
        assert!(bundle.verify(&Keys::new([key], 1).unwrap(), None).is_ok());
    }

    #[test]
    fn a_signed_bundle_is_read_back_and_verified() {
        let bundle = bundle(1, None);
        let read = Bundle::parse(bundle.to_json().as_bytes()).unwrap();
        assert_eq!(read, bundle);
        let verified = read.verify(&keys(&[("ed25519:one", 1)], 1), None).unwrap();
        assert_eq!(verified.texts(), bundle.policies);
        assert_eq!(verified.signers(), ["ed25519:one"]);
    }

    #[test]
    fn a_changed_bundle_is_refused() {
        let keys = keys(&[("ed25519:one", 1)], 1);
        let changes: [fn(&mut Bundle); 5] = [
            |bundle| bundle.version += 1,
            |bundle| bundle.created += 1,
            |bundle| bundle.prev = Some(Digest256([1; 32])),
            |bundle| bundle.policies[0].text.push(' '),
            |bundle| bundle.policies[0].name.push('x'),
        ];
        for change in changes {
            let mut bundle = bundle(1, None);
            change(&mut bundle);
            assert_eq!(bundle.verify(&keys, None), Err(BundleError::Signature("ed25519:one".into())));
        }
    }

    #[test]
    fn a_bundle_needs_the_signatures_of_as_many_configured_keys_as_are_asked_for() {
        let two = keys(&[("ed25519:one", 1), ("ed25519:two", 2)], 2);
        let mut bundle = bundle(1, None);
        bundle.sign("ed25519:stranger", &key(9)).unwrap();
        assert_eq!(bundle.verify(&two, None), Err(BundleError::TooFew { valid: 1, needed: 2 }));
        bundle.sign("ed25519:two", &key(2)).unwrap();
        assert!(bundle.verify(&two, None).is_ok());
        assert_eq!(bundle.verify(&Keys::default(), None), Err(BundleError::TooFew { valid: 0, needed: 1 }));
    }

    #[test]
    fn one_key_under_two_ids_is_one_signer() {
        let same = keys(&[("ed25519:one", 1), ("ed25519:again", 1)], 2);
        let mut bundle = bundle(1, None);
        bundle.sign("ed25519:again", &key(1)).unwrap();
        assert_eq!(bundle.verify(&same, None), Err(BundleError::TooFew { valid: 1, needed: 2 }));
    }

    #[test]
    fn versions_increase_and_follow_one_another() {
        let keys = keys(&[("ed25519:one", 1)], 1);
        let first = bundle(1, None);
        let last = first.verify(&keys, None).unwrap().accepted();
        let after =
            |bundle: &Bundle| bundle.verify(&keys, Some(&last)).map(|verified| verified.accepted().version);
        assert_eq!(after(&first), Ok(1), "the same again");
        assert_eq!(after(&bundle(1, Some(Digest256([1; 32])))), Err(BundleError::Fork(1)));
        assert_eq!(after(&bundle(2, Some(first.digest()))), Ok(2));
        assert!(matches!(after(&bundle(2, None)), Err(BundleError::Chain { .. })));
        assert_eq!(after(&bundle(3, Some(Digest256([1; 32])))), Ok(3), "version 2 was missed");
        let third = Accepted { version: 3, digest: Digest256([0; 32]) };
        assert_eq!(
            bundle(2, None).verify(&keys, Some(&third)),
            Err(BundleError::Old { offered: 2, accepted: 3 })
        );
    }

    #[test]
    fn what_is_no_bundle_is_refused_with_a_reason() {
        let good = bundle(1, None).to_json();
        let wrong = [
            ("{}".to_owned(), "missing field"),
            (good.replace("policies.v1", "policies.v2"), "this server knows"),
            (good.replace("\"version\": 1", "\"version\": 0"), "version is not"),
            (good.replace("\"version\": 1", "\"version\": 9007199254740992"), "version is not"),
            (good.replace("\"version\": 1", "\"version\": 1, \"version\": 2"), "duplicate field"),
            (good.replace("\"version\"", "\"more\": 1, \"version\""), "unknown field"),
            (good.replace("ed25519:one", "rsa:one"), "not the id of a key"),
            (good.replace("\"a.cedar\"", &format!("\"{}\"", "a".repeat(256))), "a name of 256 bytes"),
            (good.replace(&bundle(1, None).signatures["ed25519:one"], "AA"), "is not 64 bytes"),
            (good.replace("\"policies\"", "\"prev\": \"AB\", \"policies\""), "64 lower-case"),
        ];
        for (json, reason) in wrong {
            let error = Bundle::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn two_bundles_have_one_signed_form_only_where_they_are_the_same(
            a in proptest::collection::vec(("[ab]{0,3}", "[ab]{0,3}"), 0..4),
            b in proptest::collection::vec(("[ab]{0,3}", "[ab]{0,3}"), 0..4),
        ) {
            let of = |texts: &[(String, String)]| {
                let texts = texts.iter().map(|(name, text)| Text { name: name.clone(), text: text.clone() });
                Bundle::new(1, 1, None, texts.collect()).signed_form()
            };
            prop_assert_eq!(a == b, of(&a) == of(&b));
        }
    }
}
