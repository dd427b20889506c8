//! The server's signing key. It signs what is built here from its parts, and nothing else: events from an intent,
//! requests to other servers, what this server says about its keys, and (as a notary) what others say about theirs.

use crate::{Error, version::Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use postern_graph::{Graph, codec::Raw, schema::ServerState};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName,
    signatures::{Ed25519KeyPair, JsonError, KeyPair, hash_and_sign_event, sign_event, sign_json},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where the key is stored.
const STORED_AS: &str = "signing_key";

/// What can stand in a server's statement about its keys; `tls_fingerprints` is of old versions of the specification.
const KEY_FIELDS: [&str; 6] =
    ["server_name", "verify_keys", "old_verify_keys", "valid_until_ts", "signatures", "tls_fingerprints"];

/// The text that is signed for a request between servers, in canonical JSON. Numbers that are no integers, which
/// events may not have but messages between devices may, stand as serde writes them, which is what others write too.
#[must_use]
pub fn request_text(
    origin: &ServerName,
    destination: &ServerName,
    method: &str,
    uri: &str,
    content: Option<&Value>,
) -> String {
    let mut text = String::from("{");
    if let Some(content) = content {
        text.push_str("\"content\":");
        write_sorted(content, &mut text);
        text.push(',');
    }
    for (name, value) in
        [("destination", destination.as_str()), ("method", method), ("origin", origin.as_str())]
    {
        text.push_str(&format!("{}:{},", Value::from(name), Value::from(value)));
    }
    text.push_str(&format!("\"uri\":{}}}", Value::from(uri)));
    text
}

/// Writes JSON without spaces, the keys of each object in order. What was read by serde is at most 128 deep.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (place, (key, value)) in fields.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_sorted(item, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: String,
    der: String,
}

/// The key and the name it signs with.
pub struct Keys {
    server_name: OwnedServerName,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("key", &self.key_id()).finish_non_exhaustive()
    }
}

impl Keys {
    /// The stored key; made at first.
    ///
    /// # Errors
    /// [`Error::Signing`] if the stored key is unreadable. It is never replaced silently: other servers know it.
    pub fn load(graph: &Graph, server_name: &ServerName) -> Result<Self, Error> {
        let signing = |error: &dyn std::fmt::Display| Error::Signing(error.to_string());
        let stored: Stored = match graph.get::<ServerState>(&(STORED_AS.to_owned(),))? {
            Some(Raw(bytes)) => serde_json::from_slice(&bytes).map_err(|error| signing(&error))?,
            None => {
                let name: [u8; 3] = rand::random();
                let stored = Stored {
                    version: format!("p_{:02x}{:02x}{:02x}", name[0], name[1], name[2]),
                    der: STANDARD_NO_PAD.encode(Ed25519KeyPair::generate()),
                };
                let mut commit = graph.begin();
                let bytes = serde_json::to_vec(&stored).map_err(|error| signing(&error))?;
                commit.put::<ServerState>(&(STORED_AS.to_owned(),), &Raw(bytes));
                graph.commit(commit)?;
                stored
            }
        };
        let der = STANDARD_NO_PAD.decode(&stored.der).map_err(|error| signing(&error))?;
        let pair = Ed25519KeyPair::from_der(&der, stored.version).map_err(|error| signing(&error))?;
        Ok(Self { server_name: server_name.to_owned(), pair })
    }

    /// The name it signs with.
    #[must_use]
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// The key's id: `ed25519:…`.
    #[must_use]
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.pair.version())
    }

    /// The public half, unpadded base64.
    #[must_use]
    pub fn public_key(&self) -> String {
        STANDARD_NO_PAD.encode(self.pair.public_key())
    }

    /// The value of the `Authorization` header of a request to `destination`: `uri` is the path with the query, as it
    /// is sent; `content` the JSON of the body, if there is one
    /// (<https://spec.matrix.org/v1.19/server-server-api/#request-authentication>).
    #[must_use]
    pub fn sign_request(
        &self,
        method: &str,
        uri: &str,
        destination: &ServerName,
        content: Option<&Value>,
    ) -> String {
        let text = request_text(&self.server_name, destination, method, uri, content);
        format!(
            r#"X-Matrix origin="{}",destination="{destination}",key="{}",sig="{}""#,
            self.server_name,
            self.key_id(),
            self.pair.sign(text.as_bytes()).base64(),
        )
    }

    /// This server's keys as it publishes them, good until `valid_until_ts` (milliseconds since the epoch).
    ///
    /// # Errors
    /// [`Error::Signing`]
    pub fn signed_server_keys(&self, valid_until_ts: u64) -> Result<CanonicalJsonObject, Error> {
        let keys = json!({
            "server_name": self.server_name,
            "verify_keys": { self.key_id(): { "key": self.public_key() } },
            "old_verify_keys": {},
            "valid_until_ts": valid_until_ts,
        });
        self.with_signature(serde_json::from_value(keys).map_err(|e| Error::Signing(e.to_string()))?)
    }

    /// What another server says about its keys, with this server's signature added: what a notary does. Nothing else
    /// can be signed this way, since an object with any field that such a statement does not have is refused.
    ///
    /// # Errors
    /// [`Error::Signing`]
    pub fn countersign_server_keys(&self, keys: CanonicalJsonObject) -> Result<CanonicalJsonObject, Error> {
        let refused = |why: String| Err(Error::Signing(why));
        for needed in ["server_name", "verify_keys", "valid_until_ts"] {
            if !keys.contains_key(needed) {
                return refused(format!("keys of a server have {needed}"));
            }
        }
        if let Some(field) = keys.keys().find(|field| !KEY_FIELDS.contains(&field.as_str())) {
            return refused(format!("keys of a server have no {field}"));
        }
        if keys.get("server_name").and_then(CanonicalJsonValue::as_str) == Some(self.server_name.as_str()) {
            return refused("these are said to be this server's own keys".to_owned());
        }
        self.with_signature(keys)
    }

    fn with_signature(&self, mut object: CanonicalJsonObject) -> Result<CanonicalJsonObject, Error> {
        sign_json(self.server_name.as_str(), &self.pair, &mut object)
            .map_err(|error| Error::Signing(error.to_string()))?;
        Ok(object)
    }

    /// Adds this server's signature to a membership of another server's making, where the specification wants one: an
    /// invite of a local user, or a join that a local user authorises. Nothing else is signed.
    ///
    /// # Errors
    /// [`Error::Signing`] if it is neither.
    pub(crate) fn cosign(&self, event: &mut CanonicalJsonObject, version: &Version) -> Result<(), Error> {
        let text = |object: &CanonicalJsonObject, name: &str| {
            object.get(name).and_then(CanonicalJsonValue::as_str).unwrap_or_default().to_owned()
        };
        let content = event.get("content").and_then(CanonicalJsonValue::as_object);
        let ours = content.is_some_and(|content| {
            let who = match text(content, "membership").as_str() {
                "invite" => text(event, "state_key"),
                "join" => text(content, "join_authorised_via_users_server"),
                _ => return false,
            };
            who.split_once(':').is_some_and(|(_, server)| server == self.server_name.as_str())
        });
        if !ours || text(event, "type") != "m.room.member" {
            return Err(Error::Signing("it is no membership that this server has a say in".to_owned()));
        }
        sign_event(self.server_name.as_str(), &self.pair, event, &version.rules.redaction)
            .map_err(|error| Error::Signing(error.to_string()))
    }

    /// Adds hash and signature to an event whose sender is of this server.
    pub(crate) fn sign_event(&self, event: &mut CanonicalJsonObject, version: &Version) -> Result<(), Error> {
        let ours = event
            .get("sender")
            .and_then(CanonicalJsonValue::as_str)
            .and_then(|sender| sender.split_once(':'))
            .is_some_and(|(_, server)| server == self.server_name.as_str());
        if !ours {
            return Err(Error::Signing("the sender is not of this server".to_owned()));
        }
        hash_and_sign_event(self.server_name.as_str(), &self.pair, event, &version.rules.redaction).map_err(
            |error| match error {
                JsonError::PduTooLarge => Error::TooLarge("the event is larger than 65535 bytes".to_owned()),
                other => Error::Signing(other.to_string()),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::signatures::{Ed25519KeyPair, PublicKeyMap, verify_json};
    use ruma::{owned_server_name, serde::Base64, server_name};

    /// The key of the specification's test vectors, as PKCS #8: a prefix (RFC 8410), then the seed.
    fn vector_keys() -> Keys {
        let seed: Base64 = Base64::parse("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap();
        let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let der = [prefix.as_slice(), seed.as_bytes()].concat();
        let pair = Ed25519KeyPair::from_der(&der, "1".to_owned()).unwrap();
        Keys { server_name: owned_server_name!("domain"), pair }
    }

    fn object(value: Value) -> CanonicalJsonObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn json_is_signed_as_the_test_vectors_of_the_specification_say() {
        let keys = vector_keys();
        for (plain, signature) in [
            (
                json!({}),
                "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
            ),
            (
                json!({ "one": 1, "two": "Two" }),
                "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
            ),
        ] {
            let signed = serde_json::to_value(keys.with_signature(object(plain)).unwrap()).unwrap();
            assert_eq!(signed["signatures"]["domain"]["ed25519:1"], signature);
        }
    }

    #[test]
    fn the_text_of_a_request_is_canonical() {
        let text = |content: Option<Value>| {
            request_text(server_name!("a.test"), server_name!("b.test"), "PUT", "/x?y=%20", content.as_ref())
        };
        assert_eq!(
            text(None),
            r#"{"destination":"b.test","method":"PUT","origin":"a.test","uri":"/x?y=%20"}"#
        );
        assert_eq!(
            text(Some(json!({ "b": [1, "\u{1}é\n", null], "a": { "z": true, "y": 1.5 } }))),
            concat!(
                r#"{"content":{"a":{"y":1.5,"z":true},"b":[1,"\u0001é\n",null]},"#,
                r#""destination":"b.test","method":"PUT","origin":"a.test","uri":"/x?y=%20"}"#
            )
        );
    }

    #[test]
    fn a_request_says_who_sends_it_to_whom() {
        let keys = vector_keys();
        let header = keys.sign_request("GET", "/target", server_name!("b.test"), None);
        let text = request_text(server_name!("domain"), server_name!("b.test"), "GET", "/target", None);
        let signature = keys.pair.sign(text.as_bytes()).base64();
        assert_eq!(
            header,
            format!(r#"X-Matrix origin="domain",destination="b.test",key="ed25519:1",sig="{signature}""#)
        );
    }

    #[test]
    fn published_keys_verify_by_themselves() {
        let keys = vector_keys();
        let said = keys.signed_server_keys(1_000).unwrap();
        let public = Base64::parse(keys.public_key()).unwrap();
        let ring = PublicKeyMap::from([("domain".to_owned(), [(keys.key_id(), public)].into())]);
        verify_json(&ring, &said).unwrap();
    }

    #[test]
    fn a_notary_signs_statements_about_keys_of_others_and_nothing_else() {
        let keys = vector_keys();
        let said =
            json!({ "server_name": "other", "verify_keys": {}, "valid_until_ts": 1, "signatures": {} });
        assert!(keys.countersign_server_keys(object(said.clone())).is_ok());
        for (field, value) in [("server_name", json!("domain")), ("type", json!("m.room.create"))] {
            let mut wrong = said.clone();
            wrong[field] = value;
            assert!(keys.countersign_server_keys(object(wrong)).is_err(), "{field}");
        }
        assert!(keys.countersign_server_keys(object(json!({ "method": "GET", "uri": "/" }))).is_err());
    }
}
