//! Policy servers: rooms whose events one server recommends, by a signature of its own.
//!
//! A room names its policy server in its state (`m.room.policy`). What local users say there is sent only with its
//! signature; what comes without one from elsewhere, and is not recommended when it is asked, is soft-failed.
//!
//! <https://spec.matrix.org/latest/server-server-api/#policy-servers>

use crate::{Error, Verified, rooms::Rooms, version::Version};
use postern_graph::RoomNum;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, ServerName, events::room::policy::RoomPolicyEventContent,
    signatures::verify_policy_server_signature,
};
use serde::Deserialize;
use std::{fmt::Debug, pin::Pin, sync::Arc};

/// The id that the key of a policy server always has.
const KEY: &str = "ed25519:policy_server";

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

    /// An event of another server for a room, with the signature of the room's policy server if it needs one that can
    /// be had; if not, it will be soft-failed.
    ///
    /// # Errors
    /// The store's.
    pub async fn with_recommendation(&self, room: RoomNum, pdu: Verified) -> Result<Verified, Error> {
        let Some(policy) = self.policy_server(room)? else { return Ok(pdu) };
        let version = self.version_of(room)?;
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
        let servers = self.policy_servers.get().filter(|_| policy.via != self.server_name());
        let servers = servers.ok_or_else(|| {
            Error::forbidden(format!("the room's policy server {} cannot be asked", policy.via))
        })?;
        let signature = servers.recommend(&policy.via, &pdu).await.map_err(Error::Forbidden)?;
        let signatures = pdu
            .entry("signatures".to_owned())
            .or_insert_with(|| CanonicalJsonValue::Object(CanonicalJsonObject::new()));
        if let CanonicalJsonValue::Object(signatures) = signatures {
            let of_server = signatures
                .entry(policy.via.to_string())
                .or_insert_with(|| CanonicalJsonValue::Object(CanonicalJsonObject::new()));
            if let CanonicalJsonValue::Object(of_server) = of_server {
                of_server.insert(KEY.to_owned(), CanonicalJsonValue::String(signature));
            }
        }
        verify_policy_server_signature(policy, &pdu, &version.rules).map_err(|error| {
            Error::forbidden(format!("the signature of the room's policy server is no good: {error}"))
        })?;
        serde_json::to_string(&pdu).map_err(|error| Error::BadJson(error.to_string()))
    }
}
