//! The signing keys of other servers.
//!
//! What is needed and not known is fetched from the server itself, then from the trusted notaries. One server is asked
//! by one request at a time, and not again for a while, since anyone can make this server want keys.

use crate::{
    Error, Peers,
    places::Places,
    statement::{Known, Need, Statement, is_known_algorithm},
};
use futures::{StreamExt, stream};
use http::Method;
use postern_config::Config;
use postern_graph::{
    Graph,
    codec::{Damaged, Json},
    schema::{Family, ServerKeys},
};
use postern_rooms::{Rooms, now_ms};
use quick_cache::sync::Cache;
use ruma::{
    CanonicalJsonObject, OwnedServerName, OwnedServerSigningKeyId, ServerName,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// Keys in memory.
const IN_MEMORY: usize = 20_000;
/// Servers whose latest attempt is remembered.
const ATTEMPTS: usize = 20_000;
/// How long after an attempt a server is not asked again, whatever came of it.
const PAUSE: Duration = Duration::from_secs(15);
/// Servers that are asked for keys at a time to check who sends requests, or by those who take this one for a notary.
const FOR_REQUESTS: usize = 64;
/// Of these because of one address. Whoever asks is not known yet, and may name servers that do not answer.
const FOR_AN_ADDRESS: usize = 16;
/// Servers that are asked for keys at a time to check events.
const FOR_EVENTS: usize = 64;
/// Of these because of events that one server has told. A large room that is joined needs the keys of all its servers,
/// of which many may be gone.
const FOR_EVENTS_OF_ONE: usize = 32;
/// Servers whose keys one caller looks for at a time.
const AT_ONCE_FOR_ONE: usize = 16;
/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer, bytes: a few keys, or what a notary has about one server.
const ANSWER_BYTES: usize = 1 << 20;
/// Statements in the answer of a notary that are looked at.
const STATEMENTS: usize = 32;

/// Public keys whose private halves everybody can read: those of the specification's examples.
const PUBLISHED: [&str; 1] = ["XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"];

/// Because of whom keys are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Because<'a> {
    /// Of whoever sends a request from an address.
    Address(&'a str),
    /// Of the server that has told the events to be checked.
    Server(&'a ServerName),
}

/// Key ids that are wanted, by server.
pub type Wanted = BTreeMap<OwnedServerName, BTreeSet<OwnedServerSigningKeyId>>;

/// What is stored about a key.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    key: String,
    valid_until_ts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expired_ts: Option<u64>,
    /// When it was last heard of, milliseconds since the epoch.
    fetched_ts: u64,
    /// The statement it is from, as the server signed it: for others who ask this server as a notary.
    statement: CanonicalJsonObject,
}

#[derive(Deserialize)]
struct NotaryAnswer {
    #[serde(default)]
    server_keys: Vec<Value>,
}

/// Keys of servers: those known, and the way to get others.
#[derive(Debug)]
pub struct KeyRing {
    graph: Arc<Graph>,
    rooms: Arc<Rooms>,
    peers: Arc<Peers>,
    notaries: Vec<OwnedServerName>,
    /// Keys that sign nothing.
    refused: Vec<Base64>,
    memory: Cache<(OwnedServerName, String), Known>,
    /// When each server was last asked; the lock is held while it is.
    attempts: Cache<OwnedServerName, Arc<Mutex<Option<Instant>>>>,
    for_requests: Places,
    for_events: Places,
}

impl KeyRing {
    /// A ring over what is stored.
    ///
    /// # Errors
    /// [`Error::Setup`] if a notary's name is none.
    pub fn new(
        config: &Config,
        graph: Arc<Graph>,
        rooms: Arc<Rooms>,
        peers: Arc<Peers>,
    ) -> Result<Self, Error> {
        let names = config.federation.trusted_key_servers.iter();
        let notaries = names
            .map(|name| ServerName::parse(name.as_str()))
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Setup(format!("federation.trusted_key_servers: {error}")))?;
        let refused = config.federation.refused_keys.iter().map(postern_config::PublicKey::as_str);
        let refused = refused
            .chain(PUBLISHED)
            .map(Base64::parse)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Setup(format!("federation.refused_keys: {error}")))?;
        Ok(Self {
            graph,
            rooms,
            peers,
            notaries,
            refused,
            memory: Cache::new(IN_MEMORY),
            attempts: Cache::new(ATTEMPTS),
            for_requests: Places::new(FOR_REQUESTS, FOR_AN_ADDRESS),
            for_events: Places::new(FOR_EVENTS, FOR_EVENTS_OF_ONE),
        })
    }

    /// The wanted keys that can be had: keys that were valid at `valid_at` (milliseconds since the epoch; nothing if
    /// their time does not matter, as in room versions 1 to 4). What is not known is fetched from the server itself or
    /// a notary; a server that cannot be asked is left out of the answer, as are keys of unknown algorithms. The keys are for events that `teller` has told.
    ///
    /// # Errors
    /// The store's.
    pub async fn keys(
        &self,
        wanted: &Wanted,
        valid_at: Option<u64>,
        teller: &ServerName,
    ) -> Result<PublicKeyMap, Error> {
        let need = valid_at.map_or(Need::AnyTime, Need::EventAt);
        // Owned, so that no lifetime is carried into the stream.
        let wanted: Vec<(OwnedServerName, Vec<String>)> = wanted
            .iter()
            .map(|(server, ids)| (server.clone(), ids.iter().map(ToString::to_string).collect()))
            .collect();
        let mut found = stream::iter(wanted)
            .map(|(server, ids)| async move {
                let keys = self.of(&server, &ids, need, Because::Server(teller)).await?;
                Ok::<_, Error>((server, keys))
            })
            .buffer_unordered(AT_ONCE_FOR_ONE);
        let mut ring = PublicKeyMap::new();
        while let Some(result) = found.next().await {
            let (server, keys) = result?;
            if !keys.is_empty() {
                ring.insert(server.into(), keys);
            }
        }
        Ok(ring)
    }

    /// The keys of `server` with these ids that may sign requests now. One has come from `address`.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn for_request(
        &self,
        server: &ServerName,
        ids: &[String],
        address: &str,
    ) -> Result<PublicKeySet, Error> {
        self.of(server, ids, Need::RequestAt(now_ms()), Because::Address(address)).await
    }

    /// The statements of `server` about its keys that are stored, those with the wanted ids or (without ids) all, at
    /// least one of which holds until `valid_until` if that can be had: what a notary answers. They are fetched for whom
    /// is at the address `fetch_for`, if there is one.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn statements(
        &self,
        server: &ServerName,
        ids: &[String],
        valid_until: u64,
        fetch_for: Option<&str>,
    ) -> Result<Vec<CanonicalJsonObject>, Error> {
        // Fetched again after half its time (specification: Publishing Keys).
        let fresh = |one: &Stored, now: u64| {
            let ends = one.valid_until_ts;
            ends >= valid_until && now <= one.fetched_ts + ends.saturating_sub(one.fetched_ts) / 2
        };
        let complete = |ring: &Self| -> Result<bool, Error> {
            let (stored, now) = (ring.stored(server, ids)?, now_ms());
            let has = |id: &String| stored.iter().any(|(known, _)| known == id);
            let all = ids.iter().all(|id| !is_known_algorithm(id) || has(id));
            let given_up = |one: &Stored| one.expired_ts.is_some() && !ids.is_empty();
            Ok(all && stored.iter().any(|(_, one)| given_up(one) || fresh(one, now)))
        };
        if let Some(address) = fetch_for {
            self.fetch(server, complete, Because::Address(address)).await?;
        }
        let stored = self.stored(server, ids)?;
        let mut statements: Vec<CanonicalJsonObject> = Vec::new();
        for (_, one) in stored {
            if statements.len() < STATEMENTS && !statements.contains(&one.statement) {
                statements.push(one.statement);
            }
        }
        Ok(statements)
    }

    async fn of(
        &self,
        server: &ServerName,
        ids: &[String],
        need: Need,
        because: Because<'_>,
    ) -> Result<PublicKeySet, Error> {
        let own = self.rooms.keys();
        if server == own.server_name() {
            let key = Base64::parse(own.public_key()).map_err(|error| Error::Setup(error.to_string()))?;
            return Ok([(own.key_id(), key)].into_iter().filter(|(id, _)| ids.contains(id)).collect());
        }
        let ids: Vec<&String> = ids.iter().filter(|id| is_known_algorithm(id)).collect();
        let known = |ring: &Self| -> Result<PublicKeySet, Error> {
            let mut found = PublicKeySet::new();
            for id in &ids {
                if let Some(known) = ring.known(server, id)?.filter(|known| known.serves(need)) {
                    found.insert((*id).clone(), known.key);
                }
            }
            Ok(found)
        };
        let complete = |ring: &Self| Ok(known(ring)?.len() == ids.len());
        if !complete(self)? {
            self.fetch(server, complete, because).await?;
        }
        known(self)
    }

    fn known(&self, server: &ServerName, id: &str) -> Result<Option<Known>, Error> {
        let place = (server.to_owned(), id.to_owned());
        if let Some(known) = self.memory.get(&place) {
            return Ok(self.believed(known));
        }
        let Some(stored) = self.stored_one(server, id)? else { return Ok(None) };
        let known = known_of(&stored)?;
        self.memory.insert(place, known.clone());
        Ok(self.believed(known))
    }

    /// The key, unless everybody may have its private half.
    fn believed(&self, known: Known) -> Option<Known> {
        (!self.refused.contains(&known.key)).then_some(known)
    }

    fn stored_one(&self, server: &ServerName, id: &str) -> Result<Option<Stored>, Error> {
        let place = (server.as_str().to_owned(), id.to_owned());
        self.graph.get::<ServerKeys>(&place)?.map(|Json(value)| read(value)).transpose()
    }

    fn stored(&self, server: &ServerName, ids: &[String]) -> Result<Vec<(String, Stored)>, Error> {
        let mut found = Vec::new();
        if ids.is_empty() {
            for entry in self.graph.scan::<ServerKeys, _>(&(server.as_str().to_owned(),)).iter() {
                let ((_, id), Json(value)) = entry?;
                found.push((id, read(value)?));
            }
            return Ok(found);
        }
        for id in ids {
            if let Some(stored) = self.stored_one(server, id)? {
                found.push((id.clone(), stored));
            }
        }
        Ok(found)
    }

    /// Asks for the keys of a server, unless that was done a moment ago or `complete` says that all is here.
    async fn fetch(
        &self,
        server: &ServerName,
        complete: impl Fn(&Self) -> Result<bool, Error>,
        because: Because<'_>,
    ) -> Result<(), Error> {
        let Ok(attempt) = self.attempts.get_or_insert_with(server, || Ok::<_, Infallible>(Arc::default()));
        let mut attempt = attempt.lock().await;
        if complete(self)? || attempt.is_some_and(|at| at.elapsed() < PAUSE) {
            return Ok(());
        }
        let asked = async {
            let direct = self.ask_server(server).await?;
            if !direct || !complete(self)? {
                self.ask_notaries(server, &complete).await?;
            }
            *attempt = Some(Instant::now());
            Ok(())
        };
        match because {
            Because::Address(address) => self.for_requests.in_turn(address, asked).await,
            Because::Server(teller) => self.for_events.in_turn(teller.as_str(), asked).await,
        }
    }

    /// Asks the server itself; whether it answered.
    async fn ask_server(&self, server: &ServerName) -> Result<bool, Error> {
        let path = "/_matrix/key/v2/server";
        let answer = self.peers.unsigned(server, Method::GET, path, None, PATIENCE, ANSWER_BYTES).await;
        match answer.map_err(|error| error.to_string()).and_then(|j| Statement::check(j, server, now_ms())) {
            Ok(statement) => {
                self.keep(&statement, true)?;
                Ok(true)
            }
            Err(error) => {
                tracing::info!(%server, error, "a server does not tell its keys");
                Ok(false)
            }
        }
    }

    async fn ask_notaries(
        &self,
        server: &ServerName,
        complete: &impl Fn(&Self) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        for notary in self.notaries.iter().filter(|notary| *notary != server) {
            let Some(keys) = self.notary_keys(notary).await? else { continue };
            let query = json!({ "server_keys": { server.as_str(): {} } });
            let path = "/_matrix/key/v2/query";
            let answer: Result<NotaryAnswer, _> =
                self.peers.unsigned(notary, Method::POST, path, Some(&query), PATIENCE, ANSWER_BYTES).await;
            let statements = match answer {
                Ok(answer) => answer.server_keys,
                Err(error) => {
                    tracing::info!(%notary, %error, "a notary does not answer");
                    continue;
                }
            };
            for statement in statements.into_iter().take(STATEMENTS) {
                let checked = serde_json::from_value(statement)
                    .map_err(|error| error.to_string())
                    .and_then(|json| Statement::check(json, server, now_ms()));
                match checked {
                    Ok(statement) if statement.signed_by(notary, &keys) => self.keep(&statement, false)?,
                    Ok(_) => tracing::info!(%notary, %server, "a notary did not sign what it tells"),
                    Err(error) => tracing::info!(%notary, %server, error, "a notary tells no keys"),
                }
            }
            if complete(self)? {
                break;
            }
        }
        Ok(())
    }

    /// The present keys of a notary, from itself.
    async fn notary_keys(&self, notary: &ServerName) -> Result<Option<PublicKeySet>, Error> {
        let now = now_ms();
        let present = |ring: &Self| -> Result<PublicKeySet, Error> {
            let mut keys = PublicKeySet::new();
            for (id, stored) in ring.stored(notary, &[])? {
                if let Some(known) = self.believed(known_of(&stored)?)
                    && known.serves(Need::RequestAt(now))
                {
                    keys.insert(id, known.key);
                }
            }
            Ok(keys)
        };
        let mut keys = present(self)?;
        if keys.is_empty() && self.ask_server(notary).await? {
            keys = present(self)?;
        }
        Ok((!keys.is_empty()).then_some(keys))
    }

    /// Stores what a statement says.
    pub(crate) fn keep(&self, statement: &Statement, by_server: bool) -> Result<(), Error> {
        let server = &statement.server;
        let mut commit = self.graph.begin();
        let mut kept = Vec::new();
        for (id, new) in &statement.keys {
            let before = self.stored_one(server, id)?;
            let known = match &before {
                Some(before) => known_of(before)?.updated(new, by_server),
                None => new.clone(),
            };
            // The statement that is told to others is the one that holds longest, or that the server made last.
            let statement = match before {
                Some(before) if !by_server && known != *new => before.statement,
                _ => statement.json.clone(),
            };
            let stored = Stored {
                key: known.key.encode(),
                valid_until_ts: known.valid_until_ts,
                expired_ts: known.expired_ts,
                fetched_ts: now_ms(),
                statement,
            };
            let value = serde_json::to_value(&stored).map_err(|error| damaged(&error))?;
            commit.put::<ServerKeys>(&(server.as_str().to_owned(), id.clone()), &Json(value));
            kept.push((id.clone(), known));
        }
        if !commit.is_empty() {
            self.graph.commit(commit)?;
        }
        for (id, known) in kept {
            self.memory.insert((server.clone(), id), known);
        }
        Ok(())
    }
}

fn known_of(stored: &Stored) -> Result<Known, Error> {
    let key = Base64::parse(&stored.key).map_err(|error| damaged(&error))?;
    Ok(Known { key, valid_until_ts: stored.valid_until_ts, expired_ts: stored.expired_ts })
}

fn read(value: Value) -> Result<Stored, Error> {
    serde_json::from_value(value).map_err(|error| damaged(&error))
}

fn damaged(error: &dyn std::fmt::Display) -> Error {
    let damaged = Damaged(error.to_string());
    Error::Graph(postern_graph::Error::Damaged { family: ServerKeys::NAME, damaged })
}
