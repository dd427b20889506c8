//! Asking the policy servers of rooms (specification: policy servers).

use crate::{PeerError, Peers};
use futures::FutureExt;
use postern_rooms::{PolicyServers, Recommendation};
use ruma::{CanonicalJsonObject, ServerName};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

/// How a policy server is asked. The rooms hold it, and the peers hold the rooms: it must not keep these alive.
#[derive(Debug)]
pub(crate) struct Asker(Weak<Peers>);

impl Asker {
    pub(crate) fn new(peers: &Arc<Peers>) -> Self {
        Self(Arc::downgrade(peers))
    }

    async fn ask(&self, server: &ServerName, pdu: &CanonicalJsonObject) -> Result<String, String> {
        #[derive(Deserialize)]
        struct OfServer {
            #[serde(rename = "ed25519:policy_server")]
            signature: String,
        }
        let peers = self.0.upgrade().ok_or_else(|| "this server stops".to_owned())?;
        let answer: BTreeMap<String, OfServer> =
            peers.post(server, "/_matrix/policy/v1/sign", pdu).await.map_err(|error| match error {
                PeerError::Refused { message, .. } if !message.is_empty() => message,
                error => format!("the room's policy server cannot be asked: {error}"),
            })?;
        let signed = answer.into_iter().find(|(name, _)| name == server.as_str());
        signed
            .map(|(_, signed)| signed.signature)
            .ok_or_else(|| "the room's policy server does not recommend the event".to_owned())
    }
}

impl PolicyServers for Asker {
    fn recommend<'a>(&'a self, server: &'a ServerName, pdu: &'a CanonicalJsonObject) -> Recommendation<'a> {
        self.ask(server, pdu).boxed()
    }
}
