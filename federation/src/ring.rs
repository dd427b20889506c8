//! The signing keys of other servers: those known, and fetching others.
//!
//! <https://spec.matrix.org/latest/server-server-api/#retrieving-server-keys>

use crate::{Error, Peers};
use dashmap::DashMap;
use futures::{StreamExt, stream};
use postern_config::Config;
use postern_graph::{Graph, codec::Json, schema::ServerKeys};
use postern_rooms::{Rooms, now_ms};
use quick_cache::sync::Cache;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, OwnedServerSigningKeyId, ServerName,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet, verify_json},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Key ids that are wanted, by server.
pub type Wanted = BTreeMap<OwnedServerName, BTreeSet<OwnedServerSigningKeyId>>;

/// Keys are valid for at most so long from when they were fetched, whatever their server says (specification: 7 days).
const VALID_MOST_MS: u64 = 7 * 24 * 3600 * 1000;
/// Keys kept in memory.
const IN_MEMORY: usize = 20_000;
/// After a server's keys could not be had, it is not asked again for so long.
const FAILED: Duration = Duration::from_secs(60);
/// Servers asked at the same time.
const AT_ONCE: usize = 32;
/// Keys of one server that are taken.
const KEYS_OF_A_SERVER: usize = 100;

/// A key of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    /// Unpadded base64.
    key: String,
    /// Up to when it is known to be valid, milliseconds since the epoch.
    valid_until: u64,
    /// Since when it is no longer used, if it is not.
    expired: Option<u64>,
}

impl Key {
    fn is_valid_at(&self, at: u64) -> bool {
        match self.expired {
            Some(expired) => at < expired,
            None => at <= self.valid_until,
        }
    }
}

/// What a server publishes (`GET /_matrix/key/v2/server`).
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) server: OwnedServerName,
    pub(crate) object: CanonicalJsonObject,
    keys: BTreeMap<String, Key>,
}

/// Keys of servers: those known, and the way to get others.
#[derive(Debug)]
pub struct KeyRing {
    graph: Arc<Graph>,
    rooms: Arc<Rooms>,
    peers: Arc<Peers>,
    notaries: Vec<OwnedServerName>,
    known: Cache<(OwnedServerName, OwnedServerSigningKeyId), Key>,
    /// One fetch at a time for a server, and when the last one failed.
    fetching: DashMap<OwnedServerName, Arc<Mutex<Option<Instant>>>>,
}

impl KeyRing {
    /// A ring over what is stored.
    #[must_use]
    pub fn new(config: &Config, graph: Arc<Graph>, rooms: Arc<Rooms>, peers: Arc<Peers>) -> Self {
        let notaries = config
            .federation
            .trusted_key_servers
            .iter()
            .filter_map(|name| ServerName::parse(name.as_str()).ok())
            .collect();
        Self { graph, rooms, peers, notaries, known: Cache::new(IN_MEMORY), fetching: DashMap::new() }
    }

    /// The wanted keys that can be had: keys that were valid at `valid_at` (milliseconds since the epoch; nothing if
    /// their time does not matter, as in room versions 1 to 4). What is not known is fetched from the server itself or
    /// a notary; a server that cannot be asked is left out of the answer.
    ///
    /// # Errors
    /// The store's.
    pub async fn keys(&self, wanted: &Wanted, valid_at: Option<u64>) -> Result<PublicKeyMap, Error> {
        let missing = self.missing(wanted, valid_at)?;
        stream::iter(missing)
            .for_each_concurrent(AT_ONCE, |(server, ids)| async move {
                self.fetch(&server, &ids, valid_at).await;
            })
            .await;
        let mut found = PublicKeyMap::new();
        for (server, ids) in wanted {
            let mut set = PublicKeySet::new();
            for id in ids {
                if let Some(key) = self.known(server, id)?
                    && valid_at.is_none_or(|at| key.is_valid_at(at))
                    && let Ok(key) = Base64::parse(&key.key)
                {
                    set.insert(id.to_string(), key);
                }
            }
            if !set.is_empty() {
                found.insert(server.to_string(), set);
            }
        }
        Ok(found)
    }

    fn missing(&self, wanted: &Wanted, valid_at: Option<u64>) -> Result<Wanted, Error> {
        let mut missing = Wanted::new();
        for (server, ids) in wanted {
            for id in ids {
                let known = self.known(server, id)?;
                if known.is_none_or(|key| {
                    valid_at.is_some_and(|at| key.expired.is_none() && !key.is_valid_at(at))
                }) {
                    missing.entry(server.clone()).or_default().insert(id.clone());
                }
            }
        }
        Ok(missing)
    }

    fn known(&self, server: &ServerName, id: &OwnedServerSigningKeyId) -> Result<Option<Key>, Error> {
        let keys = self.rooms.keys();
        if server == keys.server_name() {
            let own = id.as_str() == keys.key_id();
            return Ok(own.then(|| Key { key: keys.public_key(), valid_until: u64::MAX, expired: None }));
        }
        let place = (server.to_owned(), id.clone());
        if let Some(key) = self.known.get(&place) {
            return Ok(Some(key));
        }
        let stored = self.graph.get::<ServerKeys>(&(server.to_string(), id.to_string()))?;
        let key: Option<Key> = stored.and_then(|Json(value)| serde_json::from_value(value).ok());
        if let Some(key) = &key {
            self.known.insert(place, key.clone());
        }
        Ok(key)
    }

    /// Fetches a server's keys, once for all who want them at the same time.
    async fn fetch(
        &self,
        server: &ServerName,
        ids: &BTreeSet<OwnedServerSigningKeyId>,
        valid_at: Option<u64>,
    ) {
        let turn = self.fetching.entry(server.to_owned()).or_default().clone();
        {
            let mut failed = turn.lock().await;
            let wanted = Wanted::from([(server.to_owned(), ids.clone())]);
            let missing = self.missing(&wanted, valid_at).unwrap_or_default();
            if missing.is_empty() || failed.is_some_and(|at| at.elapsed() < FAILED) {
                return;
            }
            let fetched = match self.ask_itself(server).await {
                Ok(published) => self.store(std::slice::from_ref(&published)),
                Err(why) => {
                    tracing::debug!(%server, why, "a server's keys are not had from itself");
                    self.store(&self.ask_notaries(server, ids).await)
                }
            };
            let stored = fetched.inspect_err(|error| tracing::error!(%error, "keys are not stored"));
            *failed = (!matches!(stored, Ok(1..))).then(Instant::now);
        }
        self.fetching.remove_if(server, |_, turn| {
            Arc::strong_count(turn) <= 2 && turn.try_lock().is_ok_and(|failed| failed.is_none())
        });
    }

    async fn ask_itself(&self, server: &ServerName) -> Result<Published, String> {
        let answer = self.peers.get_unsigned(server, "/_matrix/key/v2/server").await;
        let bytes = answer.map_err(|error| error.to_string())?;
        let object: CanonicalJsonObject =
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        read(object, server)
    }

    async fn ask_notaries(
        &self,
        server: &ServerName,
        ids: &BTreeSet<OwnedServerSigningKeyId>,
    ) -> Vec<Published> {
        #[derive(Deserialize)]
        struct Answer {
            server_keys: Vec<CanonicalJsonObject>,
        }
        let wanted: BTreeMap<&str, Value> =
            ids.iter().map(|id| (id.as_str(), json!({ "minimum_valid_until_ts": now_ms() }))).collect();
        let request = json!({ "server_keys": { server.as_str(): wanted } });
        for notary in self.notaries.iter().filter(|notary| *notary != server) {
            let answer: Result<Answer, _> = self.peers.post(notary, "/_matrix/key/v2/query", &request).await;
            let Ok(answer) = answer else { continue };
            let Ok(vouching) = Box::pin(self.keys_of(notary)).await else { continue };
            let found: Vec<Published> = answer
                .server_keys
                .into_iter()
                .take(KEYS_OF_A_SERVER)
                .filter(|object| signed(object, notary, &vouching))
                .filter_map(|object| read(object, server).ok())
                .collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// The keys a server has now, asked of itself.
    async fn keys_of(&self, server: &ServerName) -> Result<PublicKeyMap, String> {
        let published = self.ask_itself(server).await?;
        Ok(published.public())
    }

    /// What a server publishes, for answering others who ask this one (specification: querying keys through another
    /// server). Nothing if it cannot be had.
    pub(crate) async fn published(&self, server: &ServerName) -> Option<Published> {
        let published = self.ask_itself(server).await.ok()?;
        if let Err(error) = self.store(std::slice::from_ref(&published)) {
            tracing::error!(%error, "keys are not stored");
        }
        Some(published)
    }

    /// Stores keys; how many.
    fn store(&self, published: &[Published]) -> Result<usize, Error> {
        let mut commit = self.graph.begin();
        let mut count = 0;
        for Published { server, keys, .. } in published {
            for (id, key) in keys {
                let Ok(id) = OwnedServerSigningKeyId::try_from(id.as_str()) else { continue };
                let mut key = key.clone();
                if let Some(before) = self.known(server, &id)?
                    && before.key == key.key
                {
                    // A notary may tell what was true before.
                    key.valid_until = key.valid_until.max(before.valid_until);
                }
                let value = serde_json::to_value(&key).unwrap_or_default();
                commit.put::<ServerKeys>(&(server.to_string(), id.to_string()), &Json(value));
                self.known.insert((server.clone(), id), key);
                count += 1;
            }
        }
        if count > 0 {
            self.graph.commit(commit)?;
        }
        Ok(count)
    }
}

impl Published {
    fn public(&self) -> PublicKeyMap {
        let set: PublicKeySet = self
            .keys
            .iter()
            .filter(|(_, key)| key.expired.is_none())
            .filter_map(|(id, key)| Some((id.clone(), Base64::parse(&key.key).ok()?)))
            .collect();
        PublicKeyMap::from([(self.server.to_string(), set)])
    }
}

/// Reads and checks what a server publishes: it is of that server, valid now, and signed with its own keys.
fn read(object: CanonicalJsonObject, server: &ServerName) -> Result<Published, String> {
    let text = |object: &CanonicalJsonObject, name: &str| {
        object.get(name).and_then(CanonicalJsonValue::as_str).map(str::to_owned)
    };
    let number = |object: &CanonicalJsonObject, name: &str| {
        let number = object.get(name).and_then(CanonicalJsonValue::as_integer)?;
        u64::try_from(i64::from(number)).ok()
    };
    if text(&object, "server_name").as_deref() != Some(server.as_str()) {
        return Err("the keys are of another server".to_owned());
    }
    let now = now_ms();
    let until = number(&object, "valid_until_ts").ok_or("valid_until_ts is missing")?;
    let until = until.min(now.saturating_add(VALID_MOST_MS));
    let mut keys = BTreeMap::new();
    for (list, old) in [("verify_keys", false), ("old_verify_keys", true)] {
        let listed = object.get(list).and_then(CanonicalJsonValue::as_object);
        for (id, entry) in listed.into_iter().flatten().take(KEYS_OF_A_SERVER) {
            // Algorithms that are not known are passed over.
            if !id.starts_with("ed25519:") {
                continue;
            }
            let Some(entry) = entry.as_object() else { continue };
            let Some(key) = text(entry, "key") else { continue };
            let expired = number(entry, "expired_ts");
            if old && expired.is_none() {
                continue;
            }
            let key = Key { key, valid_until: until, expired: expired.filter(|_| old) };
            keys.entry(id.clone()).or_insert(key);
        }
    }
    let published = Published { server: server.to_owned(), object, keys };
    if !signed(&published.object, server, &published.public()) {
        return Err("the keys are not signed by their server".to_owned());
    }
    Ok(published)
}

/// Whether `server` has signed an object with one of its keys.
fn signed(object: &CanonicalJsonObject, server: &ServerName, keys: &PublicKeyMap) -> bool {
    let mut object = object.clone();
    // Others' signatures are checked where they matter.
    if let Some(CanonicalJsonValue::Object(signatures)) = object.get_mut("signatures") {
        signatures.retain(|name, _| name == server.as_str());
        if let Some(CanonicalJsonValue::Object(by_server)) = signatures.get_mut(server.as_str())
            && let Some(known) = keys.get(server.as_str())
        {
            by_server.retain(|id, _| known.contains_key(id));
        }
    }
    verify_json(keys, &object).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::{
        server_name,
        signatures::{Ed25519KeyPair, sign_json},
    };

    fn pair(name: &str) -> Ed25519KeyPair {
        Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), name.to_owned()).unwrap()
    }

    fn published(server: &str, pair: &Ed25519KeyPair, until: u64) -> CanonicalJsonObject {
        let key = Base64::<ruma::serde::base64::Standard, _>::new(pair.public_key()).encode();
        let value = json!({
            "server_name": server,
            "valid_until_ts": until,
            "verify_keys": {
                format!("ed25519:{}", pair.version()): { "key": key },
                "future:1": { "key": "AAAA" },
            },
            "old_verify_keys": { "ed25519:old": { "key": "AAAA", "expired_ts": 1000 }, "ed25519:bad": { "key": "AAAA" } },
        });
        let mut object: CanonicalJsonObject = serde_json::from_value(value).unwrap();
        sign_json(server, pair, &mut object).unwrap();
        object
    }

    #[test]
    fn published_keys_are_of_their_server_and_signed_by_it() {
        let (own, other) = (pair("a"), pair("a"));
        let server = server_name!("example.org");
        let good = published("example.org", &own, now_ms() + 1000);
        let read_back = read(good.clone(), server).unwrap();
        assert_eq!(read_back.keys.len(), 2, "of unknown algorithms, or without an end, none");
        assert!(read(good.clone(), server_name!("other.org")).is_err());
        let mut forged = published("example.org", &other, now_ms() + 1000);
        forged.insert("verify_keys".to_owned(), good["verify_keys"].clone());
        assert!(read(forged, server).is_err());
    }

    #[test]
    fn no_key_is_valid_for_longer_than_a_week() {
        let own = pair("a");
        let object = published("example.org", &own, now_ms() * 2);
        let read = read(object, server_name!("example.org")).unwrap();
        let key = &read.keys["ed25519:a"];
        assert!(key.valid_until <= now_ms() + VALID_MOST_MS);
        assert!(key.is_valid_at(now_ms()) && !key.is_valid_at(now_ms() + 2 * VALID_MOST_MS));
        let old = &read.keys["ed25519:old"];
        assert!(old.is_valid_at(999) && !old.is_valid_at(1000));
    }
}
