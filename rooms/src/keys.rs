//! The server's signing key. It signs events that are built here from an intent, and nothing else.

use crate::{Error, version::Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use postern_graph::{Graph, codec::Raw, schema::ServerState};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName,
    signatures::{Ed25519KeyPair, JsonError, hash_and_sign_event, sign_event},
};
use serde::{Deserialize, Serialize};

/// Where the key is stored.
const STORED_AS: &str = "signing_key";

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
