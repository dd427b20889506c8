//! Policy servers: rooms whose events one server recommends, by a signature of its own.
//!
//! A room names its policy server in its state (`m.room.policy`). What local users say there is sent only with its
//! signature; what comes without one from elsewhere, and is not recommended when it is asked, is soft-failed.
//!
//! <https://spec.matrix.org/latest/server-server-api/#policy-servers>

use crate::{Error, Event, Verified, batch::Batch, rooms::Rooms, version::Version};
use postern_graph::RoomNum;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, ServerName, SigningKeyAlgorithm,
    events::room::policy::RoomPolicyEventContent, signatures::verify_policy_server_signature,
};
use serde::Deserialize;
use std::{fmt::Debug, pin::Pin, sync::Arc};

/// The id that the key of a policy server always has.
pub(crate) const KEY: &str = "ed25519:policy_server";

/// The signature of a policy server, or why it does not give one.
pub type Recommendation<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// The way to policy servers.
pub trait PolicyServers: Send + Sync + Debug {
    /// Asks a policy server for its signature under a PDU.
    fn recommend<'a>(&'a self, server: &'a ServerName, pdu: &'a CanonicalJsonObject) -> Recommendation<'a>;
}

impl Rooms {
    /// From now on, how policy servers are reached. Without, nobody recommends anything.
    pub fn reach_policy_servers(&self, by: Arc<dyn PolicyServers>) {
        // The first stands: there is one federation.
        let _ = self.policy_servers.set(by);
    }

    /// The policy server of a room and its key, if the room uses one: its state names a server that is in it.
    ///
    /// # Errors
    /// The store's.
    pub fn policy_server(&self, room: RoomNum) -> Result<Option<RoomPolicyEventContent>, Error> {
        #[derive(Deserialize)]
        struct Valid {
            public_keys: Keys,
        }
        #[derive(Deserialize)]
        struct Keys {
            #[serde(rename = "ed25519")]
            _ed25519: String,
        }
        let Some(event) = self.state(room, "m.room.policy", "")? else { return Ok(None) };
        let valid = event.content_as::<Valid>().map(|valid| valid.public_keys);
        let Some(policy) = valid.and(event.content_as::<RoomPolicyEventContent>()) else { return Ok(None) };
        Ok(self.is_in(&policy.via, room)?.then_some(policy))
    }

    /// Whether this server is itself the policy server of a room.
    pub(crate) fn is_policy_server(&self, policy: &RoomPolicyEventContent) -> bool {
        policy.via == self.server_name()
    }

    /// This server's signature as the policy server of a room, under an event of it whose signatures and content were checked.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if it does not recommend the event, with the reason; [`Error::NotFound`] if it is not the
    /// room's policy server.
    pub fn recommend(&self, room: RoomNum, event: &Verified) -> Result<String, Error> {
        let policy = self.policy_server(room)?.filter(|policy| self.is_policy_server(policy));
        let policy =
            policy.ok_or_else(|| Error::not_found("this server is not the policy server of the room"))?;
        self.recommended_by_this(&policy, room, event)
    }

    fn recommended_by_this(
        &self,
        policy: &RoomPolicyEventContent,
        room: RoomNum,
        event: &Verified,
    ) -> Result<String, Error> {
        let unplaced =
            Event::unplaced(room, self.room_id(room)?, event.id().to_owned(), event.json().into())?;
        self.own_recommendation(policy, &*self.version_of(room)?, &unplaced)
    }

    fn own_recommendation(
        &self,
        policy: &RoomPolicyEventContent,
        version: &Version,
        event: &Event,
    ) -> Result<String, Error> {
        let gate = self.gate().ok_or_else(|| Error::forbidden("this server recommends nothing"))?;
        let key = gate.policy_key();
        let named = policy.public_keys.get(&SigningKeyAlgorithm::Ed25519);
        if named.is_none_or(|named| named.encode() != key) {
            return Err(Error::forbidden(format!(
                "the room's m.room.policy has another key than this server, which is its policy server, signs with: set \
                 public_keys.ed25519 to {key}"
            )));
        }
        gate.recommended(self, version, event)?.map_err(Error::Forbidden)
    }

    /// An event of another server for a room, with the signature of the room's policy server if it needs one that can
    /// be had; if not, it will be soft-failed.
    ///
    /// # Errors
    /// The store's.
    pub async fn with_recommendation(&self, room: RoomNum, pdu: Verified) -> Result<Verified, Error> {
        let Some(policy) = self.policy_server(room)? else { return Ok(pdu) };
        let version = self.version_of(room)?;
        if self.is_policy_server(&policy) {
            // What this server does not recommend it keeps in quarantine, too, when it takes it.
            return match self.recommended_by_this(&policy, room, &pdu) {
                Ok(signature) => {
                    let json = with_signature(&policy, pdu.json(), signature)?;
                    Ok(pdu.signed_further(json))
                }
                Err(Error::Forbidden(why)) => {
                    tracing::debug!(event = %pdu.id(), why, "an event is not recommended");
                    Ok(pdu)
                }
                Err(error) => Err(error),
            };
        }
        match self.recommended(&policy, &version, pdu.json()).await {
            Ok(json) => Ok(pdu.signed_further(json)),
            Err(Error::Forbidden(why)) => Ok(pdu.not_recommended(why)),
            Err(error) => Err(error),
        }
    }

    /// A PDU with a valid signature of the room's policy server, if it needs one.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the policy server does not give one.
    pub(crate) async fn recommended(
        &self,
        policy: &RoomPolicyEventContent,
        version: &Version,
        json: &str,
    ) -> Result<String, Error> {
        let mut pdu: CanonicalJsonObject =
            serde_json::from_str(json).map_err(|error| Error::BadJson(error.to_string()))?;
        if verify_policy_server_signature(policy, &pdu, &version.rules).is_ok() {
            return Ok(json.to_owned());
        }
        let servers = self.policy_servers.get().filter(|_| !self.is_policy_server(policy));
        let servers = servers.ok_or_else(|| {
            Error::forbidden(format!("the room's policy server {} cannot be asked", policy.via))
        })?;
        let signature = servers.recommend(&policy.via, &pdu).await.map_err(Error::Forbidden)?;
        add_signature(policy, &mut pdu, signature);
        verify_policy_server_signature(policy, &pdu, &version.rules).map_err(|error| {
            Error::forbidden(format!("the signature of the room's policy server is no good: {error}"))
        })?;
        serde_json::to_string(&pdu).map_err(|error| Error::BadJson(error.to_string()))
    }
}

fn with_signature(policy: &RoomPolicyEventContent, json: &str, signature: String) -> Result<String, Error> {
    let bad = |error: serde_json::Error| Error::BadJson(error.to_string());
    let mut pdu: CanonicalJsonObject = serde_json::from_str(json).map_err(bad)?;
    add_signature(policy, &mut pdu, signature);
    serde_json::to_string(&pdu).map_err(bad)
}

fn add_signature(policy: &RoomPolicyEventContent, pdu: &mut CanonicalJsonObject, signature: String) {
    let empty = || CanonicalJsonValue::Object(CanonicalJsonObject::new());
    let signatures = pdu.entry("signatures".to_owned()).or_insert_with(empty);
    let CanonicalJsonValue::Object(signatures) = signatures else { return };
    if let CanonicalJsonValue::Object(of_server) =
        signatures.entry(policy.via.to_string()).or_insert_with(empty)
    {
        of_server.insert(KEY.to_owned(), CanonicalJsonValue::String(signature));
    }
}

impl Batch<'_> {
    /// An event of a local user with this server's signature as the room's policy server, if it is that: nobody needs to be
    /// asked.
    pub(crate) fn recommended_here(
        &self,
        draft: &crate::Draft,
        id: &EventId,
        json: String,
    ) -> Result<String, Error> {
        if draft.event_type == "m.room.policy" && draft.state_key.as_deref() == Some("") {
            return Ok(json);
        }
        let Some(event) = self.state("m.room.policy", "")? else { return Ok(json) };
        let policy = event.content_as::<RoomPolicyEventContent>();
        let Some(policy) = policy.filter(|policy| self.rooms.is_policy_server(policy)) else {
            return Ok(json);
        };
        let event = Event::unplaced(self.room, self.room_id.clone(), id.to_owned(), json.as_str().into())?;
        let signature = self.rooms.own_recommendation(&policy, &self.version, &event)?;
        with_signature(&policy, &json, signature)
    }
}
