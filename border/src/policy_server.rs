//! This server as the policy server of rooms (specification: policy servers): other servers send there only what it has
//! signed, and show nothing else. What it signs is what it would let in.

use crate::{Border, Error, standing::Standing};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use postern_graph::{Graph, codec::Raw, schema::ServerState};
use postern_rooms::{Event, Rooms, version::Version};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName,
    signatures::{Ed25519KeyPair, sign_event},
};
use std::fmt;

/// Where the key is stored.
const STORED_AS: &str = "policy_server_key";
/// What the key of every policy server is called.
const NAME: &str = "policy_server";

/// The key of the policy server. It is another than that by which the server signs its events.
pub(crate) struct PolicyKey {
    server: OwnedServerName,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl PolicyKey {
    /// The stored key; made at first.
    pub(crate) fn load(graph: &Graph, server: &ServerName) -> Result<Self, Error> {
        let der = match graph.get::<ServerState>(&(STORED_AS.to_owned(),))? {
            Some(Raw(der)) => der,
            None => {
                let der = Ed25519KeyPair::generate().to_vec();
                let mut commit = graph.begin();
                commit.put::<ServerState>(&(STORED_AS.to_owned(),), &Raw(der.clone()));
                graph.commit_beside_log(commit)?;
                der
            }
        };
        let pair = Ed25519KeyPair::from_der(&der, NAME.to_owned())
            .map_err(|error| Error::PolicyKey(error.to_string()))?;
        Ok(Self { server: server.to_owned(), pair })
    }

    /// The public half, unpadded base64.
    pub(crate) fn public(&self) -> String {
        STANDARD_NO_PAD.encode(self.pair.public_key())
    }

    /// The signature under an event: of its redacted form, as servers sign theirs.
    fn sign(&self, version: &Version, event: &Event) -> Result<String, Error> {
        let bad = |why: String| Error::PolicyKey(why);
        let mut pdu: CanonicalJsonObject =
            serde_json::from_str(event.json()).map_err(|error| bad(error.to_string()))?;
        pdu.remove("signatures");
        sign_event(self.server.as_str(), &self.pair, &mut pdu, &version.rules.redaction)
            .map_err(|error| bad(error.to_string()))?;
        let signature = pdu
            .get("signatures")
            .and_then(CanonicalJsonValue::as_object)
            .and_then(|all| all.get(self.server.as_str())?.as_object()?.values().next()?.as_str());
        signature.map(str::to_owned).ok_or_else(|| bad("an event cannot be signed".to_owned()))
    }
}

impl Border {
    /// The signature under an event, or why it is not recommended.
    pub(crate) fn recommends(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        version: &Version,
        event: &Event,
    ) -> Result<Result<String, String>, Error> {
        // What local users say was looked at before.
        if event.sender().server_name() != self.0.server
            && let Some(why) = self.kept_out(standing, rooms, event)?
        {
            self.refuse("recommend", event.sender().as_str(), event.id.as_str(), &why);
            return Ok(Err(why));
        }
        self.0.policy_key.sign(version, event).map(Ok)
    }
}
