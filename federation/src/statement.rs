//! What a server says about its keys, checked
//! (<https://spec.matrix.org/v1.19/server-server-api/#publishing-keys>).

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, SigningKeyAlgorithm,
    serde::Base64,
    signatures::{PublicKeySet, to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};
use std::collections::BTreeMap;

/// Keys of one server that are looked at: more than decades of rotation make.
const KEYS: usize = 200;
/// A key is taken to be valid for at most this long from when it was fetched, whatever its server says, milliseconds.
pub(crate) const VALID_AT_MOST_MS: u64 = 7 * 24 * 3_600_000;

/// A key and when it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The public key.
    pub key: Base64,
    /// Until when the server's statement holds, milliseconds since the epoch.
    pub valid_until_ts: u64,
    /// When the key was given up, if it was, milliseconds since the epoch.
    pub expired_ts: Option<u64>,
}

/// What a key is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// An event of a room version that does not look at the time (1 to 4).
    AnyTime,
    /// An event of this time, milliseconds since the epoch.
    EventAt(u64),
    /// A request at this time.
    RequestAt(u64),
}

impl Known {
    /// Whether the key serves a need.
    pub fn serves(&self, need: Need) -> bool {
        match (need, self.expired_ts) {
            (Need::AnyTime, _) => true,
            (Need::EventAt(ts), Some(expired)) => ts <= expired,
            // A key that was given up is for events of its time only.
            (Need::RequestAt(_), Some(_)) => false,
            (Need::EventAt(ts) | Need::RequestAt(ts), None) => ts <= self.valid_until_ts,
        }
    }

    /// This key, when another statement about it comes. The server's own word holds; a notary's adds time, or tells
    /// that the key was given up.
    pub fn updated(&self, new: &Self, by_server: bool) -> Self {
        if by_server || (self.key == new.key && new.expired_ts.is_some() && self.expired_ts.is_none()) {
            return new.clone();
        }
        if self.key != new.key || self.expired_ts.is_some() {
            return self.clone();
        }
        Self { valid_until_ts: self.valid_until_ts.max(new.valid_until_ts), ..self.clone() }
    }
}

/// A statement that is signed by the server it is about.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// Whose keys.
    pub server: OwnedServerName,
    /// The keys by id. Those of unknown algorithms and those that are no keys are left out.
    pub keys: BTreeMap<String, Known>,
    /// As it came, with its signatures.
    pub json: CanonicalJsonObject,
    signed: String,
}

impl Statement {
    /// Checks a statement that should be about `server`, at `now` (milliseconds since the epoch).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(json: CanonicalJsonObject, server: &ServerName, now: u64) -> Result<Self, String> {
        if json.get("server_name").and_then(CanonicalJsonValue::as_str) != Some(server.as_str()) {
            return Err("the keys are of another server".to_owned());
        }
        let valid_until_ts = time(&json, "valid_until_ts").ok_or("there is no valid_until_ts")?;
        let current = keys_of(&json, "verify_keys").ok_or("there are no verify_keys")?;
        let old = keys_of(&json, "old_verify_keys").unwrap_or_default();
        let valid = valid_until_ts.min(now.saturating_add(VALID_AT_MOST_MS));
        let mut keys = BTreeMap::new();
        for (id, key, fields) in old {
            if let Some(expired) = time(fields, "expired_ts") {
                keys.insert(id, Known { key, valid_until_ts: valid, expired_ts: Some(expired) });
            }
        }
        // A key that is both is in use.
        let mut verifying = PublicKeySet::new();
        for (id, key, _) in current {
            verifying.insert(id.clone(), key.clone());
            keys.insert(id, Known { key, valid_until_ts: valid, expired_ts: None });
        }
        let signed = to_canonical_json_string_for_signing(&json).map_err(|error| error.to_string())?;
        let statement = Self { server: server.to_owned(), keys, json, signed };
        if !statement.signed_by(server, &verifying) {
            return Err("the keys are not signed with any of themselves".to_owned());
        }
        Ok(statement)
    }

    /// Whether `signer` signed it with one of its `keys`.
    pub fn signed_by(&self, signer: &ServerName, keys: &PublicKeySet) -> bool {
        let signatures = self.json.get("signatures").and_then(CanonicalJsonValue::as_object);
        let Some(CanonicalJsonValue::Object(signatures)) =
            signatures.and_then(|all| all.get(signer.as_str()))
        else {
            return false;
        };
        signatures.iter().any(|(id, signature)| {
            let (Some(key), Some(signature)) = (keys.get(id), signature.as_str()) else { return false };
            verifies(key, signature, self.signed.as_bytes())
        })
    }
}

/// Whether an ed25519 signature (base64) of `text` is right.
pub(crate) fn verifies(key: &Base64, signature: &str, text: &[u8]) -> bool {
    let Ok(signature): Result<Base64, _> = Base64::parse(signature) else { return false };
    verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, key.as_bytes(), signature.as_bytes(), text)
        .is_ok()
}

/// Whether a key id is of an algorithm that is known.
pub(crate) fn is_known_algorithm(id: &str) -> bool {
    id.strip_prefix("ed25519:").is_some_and(|version| !version.is_empty())
}

fn time(object: &CanonicalJsonObject, field: &str) -> Option<u64> {
    match object.get(field)? {
        CanonicalJsonValue::Integer(at) => u64::try_from(i64::from(*at)).ok(),
        _ => None,
    }
}

/// The ids, keys and fields of what is under `field`.
fn keys_of<'a>(
    json: &'a CanonicalJsonObject,
    field: &str,
) -> Option<Vec<(String, Base64, &'a CanonicalJsonObject)>> {
    let all = json.get(field)?.as_object()?;
    let known = all.iter().filter(|(id, _)| is_known_algorithm(id)).filter_map(|(id, fields)| {
        let fields = fields.as_object()?;
        let key: Base64 = Base64::parse(fields.get("key")?.as_str()?).ok()?;
        (key.as_bytes().len() == 32).then(|| (id.clone(), key, fields))
    });
    Some(known.take(KEYS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::{
        server_name,
        signatures::{Ed25519KeyPair, sign_json},
    };
    use serde_json::{Value, json};

    fn pair(version: &str) -> Ed25519KeyPair {
        Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), version.to_owned()).unwrap()
    }

    fn public(pair: &Ed25519KeyPair) -> String {
        Base64::<ruma::serde::base64::Standard, _>::new(pair.public_key().to_vec()).encode()
    }

    fn signed(value: Value, signers: &[(&str, &Ed25519KeyPair)]) -> CanonicalJsonObject {
        let mut object = serde_json::from_value(value).unwrap();
        for (name, pair) in signers {
            sign_json(name, *pair, &mut object).unwrap();
        }
        object
    }

    fn keys(pair: &Ed25519KeyPair) -> Value {
        json!({
            "server_name": "a.test",
            "verify_keys": {
                "ed25519:1": { "key": public(pair) },
                "mldsa:1": { "key": "AAAA" },
                "ed25519:short": { "key": "AAAA" },
            },
            "old_verify_keys": { "ed25519:0": { "key": public(pair), "expired_ts": 500 } },
            "valid_until_ts": 2_000,
        })
    }

    fn check(json: CanonicalJsonObject) -> Result<Statement, String> {
        Statement::check(json, server_name!("a.test"), 1_000)
    }

    #[test]
    fn a_statement_signed_by_one_of_its_keys_is_taken_and_what_is_unknown_is_left_out() {
        let one = pair("1");
        let statement = check(signed(keys(&one), &[("a.test", &one)])).unwrap();
        let ids: Vec<&str> = statement.keys.keys().map(String::as_str).collect();
        assert_eq!(ids, ["ed25519:0", "ed25519:1"]);
        assert_eq!(statement.keys["ed25519:0"].expired_ts, Some(500));
    }

    #[test]
    fn a_statement_of_another_or_without_a_right_signature_is_refused() {
        let (one, other) = (pair("1"), pair("1"));
        assert!(check(signed(keys(&one), &[])).is_err());
        assert!(check(signed(keys(&one), &[("a.test", &other)])).is_err());
        assert!(check(signed(keys(&one), &[("b.test", &one)])).is_err());
        let mut changed = signed(keys(&one), &[("a.test", &one)]);
        changed.insert("valid_until_ts".to_owned(), CanonicalJsonValue::Integer(3_000.into()));
        assert!(check(changed).is_err());
        // A key that was given up signs no statements.
        let old = pair("0");
        let mut said = keys(&one);
        said["old_verify_keys"]["ed25519:0"]["key"] = public(&old).into();
        assert!(check(signed(said, &[("a.test", &old)])).is_err());
        let right = signed(keys(&one), &[("a.test", &one)]);
        assert!(Statement::check(right, server_name!("b.test"), 1_000).is_err());
    }

    #[test]
    fn a_notary_is_believed_by_its_own_signature() {
        let (one, notary) = (pair("1"), pair("n"));
        let statement = check(signed(keys(&one), &[("a.test", &one), ("n.test", &notary)])).unwrap();
        let ring = |pair: &Ed25519KeyPair| {
            PublicKeySet::from([("ed25519:n".to_owned(), Base64::new(pair.public_key().to_vec()))])
        };
        assert!(statement.signed_by(server_name!("n.test"), &ring(&notary)));
        assert!(!statement.signed_by(server_name!("n.test"), &ring(&one)));
        assert!(!statement.signed_by(server_name!("m.test"), &ring(&notary)));
    }

    #[test]
    fn no_key_is_valid_for_more_than_a_week() {
        let one = pair("1");
        let mut said = keys(&one);
        said["valid_until_ts"] = 9_000_000_000_000_u64.into();
        let statement = check(signed(said, &[("a.test", &one)])).unwrap();
        assert_eq!(statement.keys["ed25519:1"].valid_until_ts, 1_000 + VALID_AT_MOST_MS);
    }

    fn known(valid_until_ts: u64, expired_ts: Option<u64>) -> Known {
        Known { key: Base64::new(vec![7; 32]), valid_until_ts, expired_ts }
    }

    #[test]
    fn what_a_key_serves_depends_on_when_it_was_valid() {
        for (key, need, serves) in [
            (known(10, None), Need::AnyTime, true),
            (known(10, None), Need::EventAt(10), true),
            (known(10, None), Need::EventAt(11), false),
            (known(10, None), Need::RequestAt(10), true),
            (known(10, None), Need::RequestAt(11), false),
            (known(10, Some(5)), Need::AnyTime, true),
            (known(10, Some(5)), Need::EventAt(5), true),
            (known(10, Some(5)), Need::EventAt(6), false),
            (known(10, Some(20)), Need::RequestAt(1), false),
        ] {
            assert_eq!(key.serves(need), serves, "{key:?} {need:?}");
        }
    }

    #[test]
    fn a_notary_neither_shortens_nor_replaces_what_the_server_said() {
        let key = known(10, None);
        assert_eq!(key.updated(&known(5, None), false), key);
        assert_eq!(key.updated(&known(15, None), false), known(15, None));
        assert_eq!(key.updated(&known(15, Some(3)), false), known(15, Some(3)));
        assert_eq!(known(10, Some(3)).updated(&known(15, None), false), known(10, Some(3)));
        let other = Known { key: Base64::new(vec![8; 32]), ..known(99, None) };
        assert_eq!(key.updated(&other, false), key);
        assert_eq!(key.updated(&other, true), other);
        assert_eq!(key.updated(&known(5, None), true), known(5, None));
    }
}
