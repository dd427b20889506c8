//! Rooms of servers that exist in this program only: signed once, told as often as somebody asks.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{Ed25519KeyPair, hash_and_sign_event, reference_hash, sign_json},
};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

/// The version of the rooms: the newest that all servers of the comparison have.
pub const VERSION: &str = "11";
/// The one key of each server.
const KEY: &str = "ed25519:1";
/// Events told at once, whatever is asked for.
const TOLD_AT_ONCE: usize = 100;

/// What went wrong while a room was made.
#[derive(Debug, thiserror::Error)]
#[error("making a room: {0}")]
pub struct Unmade(String);

fn unmade(error: impl std::fmt::Display) -> Unmade {
    Unmade(error.to_string())
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

/// A server that signs.
pub struct Signer {
    /// Its name.
    pub name: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    /// A server with a new key.
    pub fn new(name: &str) -> Result<Self, Unmade> {
        let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "1".to_owned()).map_err(unmade)?;
        Ok(Self { name: name.to_owned(), pair })
    }

    fn signed(&self, value: Value) -> Result<CanonicalJsonObject, Unmade> {
        let mut object = object(value)?;
        sign_json(&self.name, &self.pair, &mut object).map_err(unmade)?;
        Ok(object)
    }

    /// What `/_matrix/key/v2/server` says.
    pub fn keys(&self) -> Result<String, Unmade> {
        let key = Base64::<ruma::serde::base64::Standard, _>::new(self.pair.public_key().to_vec());
        let keys = self.signed(json!({
            "server_name": self.name,
            "valid_until_ts": now() + 7 * 24 * 3_600_000,
            "verify_keys": { KEY: { "key": key.encode() } },
            "old_verify_keys": {},
        }))?;
        serde_json::to_string(&keys).map_err(unmade)
    }

    /// The `Authorization` header of a request to `destination`.
    pub fn authorization(
        &self,
        method: &str,
        path: &str,
        destination: &str,
        content: &Value,
    ) -> Result<String, Unmade> {
        let signed = self.signed(json!({
            "method": method, "uri": path, "origin": self.name, "destination": destination, "content": content,
        }))?;
        let signed = serde_json::to_value(signed).map_err(unmade)?;
        let signature = signed["signatures"][&self.name][KEY].as_str().unwrap_or_default();
        Ok(format!(
            r#"X-Matrix origin="{}",destination="{destination}",key="{KEY}",sig="{signature}""#,
            self.name
        ))
    }
}

fn object(value: Value) -> Result<CanonicalJsonObject, Unmade> {
    match CanonicalJsonValue::try_from(value).map_err(unmade)? {
        CanonicalJsonValue::Object(object) => Ok(object),
        _ => Err(Unmade("no object".to_owned())),
    }
}

struct Event {
    json: Value,
    prev: Vec<String>,
}

/// A room, as its servers have it.
pub struct Hall {
    /// Its id.
    pub id: String,
    rules: RoomVersionRules,
    events: HashMap<String, Event>,
    /// Members by the order they joined in: user and event.
    members: Vec<(String, String)>,
    /// Ids of the state without members.
    plain: Vec<String>,
    /// What authorizes members: creation, power levels, join rules.
    rights: [String; 3],
    /// What authorizes what authorizes, and that too.
    chain: Vec<String>,
    /// The end of the room, and how deep it is.
    latest: (String, u64),
    /// The answer to those who join, whole and without members.
    pub welcome: [bytes::Bytes; 2],
    /// The answer to `/state`.
    pub state: bytes::Bytes,
    /// The answer to `/state_ids`.
    pub state_ids: bytes::Bytes,
}

impl Hall {
    /// A public room with `members` members, taking turns among `signers`, the first of which made the room. Its create event
    /// has what `create` has, too.
    pub fn of(signers: &[&Signer], name: &str, members: usize, mut create: Value) -> Result<Self, Unmade> {
        let first = signers.first().ok_or_else(|| unmade("no server"))?;
        let version = ruma::RoomVersionId::try_from(VERSION).map_err(unmade)?;
        let rules = version.rules().ok_or_else(|| unmade("an unknown room version"))?;
        let mut hall = Self {
            id: format!("!{name}:{}", first.name),
            rules,
            events: HashMap::new(),
            members: Vec::new(),
            plain: Vec::new(),
            rights: Default::default(),
            chain: Vec::new(),
            latest: (String::new(), 0),
            welcome: Default::default(),
            state: bytes::Bytes::new(),
            state_ids: bytes::Bytes::new(),
        };
        let owner = format!("@owner:{}", first.name);
        create["room_version"] = VERSION.into();
        let create = hall.add(first, &owner, "m.room.create", Some(""), create, &[])?;
        let joined = json!({ "membership": "join", "displayname": "The owner" });
        let own = hall.add(first, &owner, "m.room.member", Some(&owner), joined, &[&create])?;
        let levels = json!({ "users": { &owner: 100 }, "users_default": 0 });
        let levels = hall.add(first, &owner, "m.room.power_levels", Some(""), levels, &[&create, &own])?;
        let by = [create.as_str(), &own, &levels];
        let rule = json!({ "join_rule": "public" });
        let rule = hall.add(first, &owner, "m.room.join_rules", Some(""), rule, &by)?;
        let seen = json!({ "history_visibility": "shared" });
        let seen = hall.add(first, &owner, "m.room.history_visibility", Some(""), seen, &by)?;
        let called = hall.add(first, &owner, "m.room.name", Some(""), json!({ "name": name }), &by)?;
        hall.members.push((owner, own.clone()));
        hall.chain = vec![create.clone(), own, levels.clone(), rule.clone()];
        hall.plain = vec![create.clone(), levels.clone(), rule.clone(), seen, called];
        hall.rights = [create, levels, rule];
        for (at, signer) in (1..members).zip(signers.iter().cycle()) {
            let user = format!("@person{at}:{}", signer.name);
            let content = json!({ "membership": "join", "displayname": format!("Person number {at}") });
            let rights = hall.rights.clone();
            let by: Vec<&str> = rights.iter().map(String::as_str).collect();
            let event = hall.add(signer, &user, "m.room.member", Some(&user), content, &by)?;
            hall.members.push((user, event));
        }
        hall.prepare(signers)?;
        Ok(hall)
    }

    /// Makes the large answers once.
    fn prepare(&mut self, signers: &[&Signer]) -> Result<(), Unmade> {
        let members: Vec<String> = self.members.iter().map(|(_, event)| event.clone()).collect();
        let ids: Vec<String> = self.plain.iter().chain(&members).cloned().collect();
        let chain = self.told(&self.chain);
        let bytes = |value: &Value| serde_json::to_vec(value).map(bytes::Bytes::from).map_err(unmade);
        let origin = signers.first().map(|signer| signer.name.as_str());
        let whole = json!({ "origin": origin, "state": self.told(&ids), "auth_chain": chain, "members_omitted": false });
        let servers: Vec<&str> = signers.iter().map(|signer| signer.name.as_str()).collect();
        let partial = json!({
            "origin": origin,
            "state": self.told(&self.plain),
            "auth_chain": chain,
            "members_omitted": true,
            "servers_in_room": servers,
        });
        let state = bytes(&json!({ "pdus": whole["state"], "auth_chain": chain }))?;
        self.state_ids = bytes(&json!({ "pdu_ids": ids, "auth_chain_ids": self.chain }))?;
        self.welcome = [bytes(&whole)?, bytes(&partial)?];
        self.state = state;
        Ok(())
    }

    fn add(
        &mut self,
        signer: &Signer,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        auth: &[&str],
    ) -> Result<String, Unmade> {
        let (latest, depth) = &self.latest;
        let prev: Vec<String> =
            Some(latest).filter(|latest| !latest.is_empty()).cloned().into_iter().collect();
        let mut event = json!({
            "type": kind,
            "room_id": self.id,
            "sender": sender,
            "content": content,
            "origin_server_ts": now(),
            "depth": depth + 1,
            "prev_events": prev,
            "auth_events": auth,
        });
        if let Some(key) = state_key {
            event["state_key"] = json!(key);
        }
        let mut event = object(event)?;
        hash_and_sign_event(&signer.name, &signer.pair, &mut event, &self.rules.redaction).map_err(unmade)?;
        let id = self.id_of(&event)?;
        self.latest = (id.clone(), depth + 1);
        let json = serde_json::to_value(event).map_err(unmade)?;
        self.events.insert(id.clone(), Event { json, prev });
        Ok(id)
    }

    fn id_of(&self, event: &CanonicalJsonObject) -> Result<String, Unmade> {
        Ok(format!("${}", reference_hash(event, &self.rules).map_err(unmade)?))
    }

    /// A message of one of the members of this server; its id.
    pub fn message(&mut self, signer: &Signer, text: &str) -> Result<String, Unmade> {
        let of_server = |(user, _): &&(String, String)| user.ends_with(&format!(":{}", signer.name));
        let member = self.members.iter().find(of_server).cloned();
        let (sender, membership) = member.ok_or_else(|| unmade("the server has no member"))?;
        let [create, levels, _] = self.rights.clone();
        let body = json!({ "msgtype": "m.text", "body": format!("{text} the quick brown fox jumps over the lazy dog") });
        self.add(signer, &sender, "m.room.message", None, body, &[&create, &levels, &membership])
    }

    /// An event made elsewhere: what is said here follows on it.
    pub fn note(&mut self, event: &Value) -> Result<(), Unmade> {
        let id = self.id_of(&object(event.clone())?)?;
        let texts = event["prev_events"].as_array().into_iter().flatten();
        let prev = texts.filter_map(Value::as_str).map(str::to_owned).collect();
        let depth = event["depth"].as_u64().unwrap_or_default();
        if depth >= self.latest.1 {
            self.latest = (id.clone(), depth);
        }
        self.events.insert(id, Event { json: event.clone(), prev });
        Ok(())
    }

    /// What a user who wants to join has to sign.
    pub fn proposal(&self, user: &str) -> Value {
        json!({
            "room_version": VERSION,
            "event": {
                "type": "m.room.member",
                "room_id": self.id,
                "sender": user,
                "state_key": user,
                "content": { "membership": "join" },
                "origin_server_ts": now(),
                "depth": self.latest.1 + 1,
                "prev_events": [self.latest.0],
                "auth_events": self.rights,
            },
        })
    }

    /// Events as they are told.
    pub fn told<'a>(&self, ids: impl IntoIterator<Item = &'a String>) -> Vec<&Value> {
        ids.into_iter().filter_map(|id| self.events.get(id)).map(|event| &event.json).collect()
    }

    /// What authorizes the members, and all others too.
    pub fn auth_chain(&self) -> Vec<&Value> {
        self.told(&self.chain)
    }

    /// The events before `latest`, oldest first: not those in `known`, and not what lies before them.
    pub fn before(&self, latest: Vec<String>, known: &[String], limit: usize) -> Vec<&Value> {
        let mut seen: HashSet<String> = known.iter().cloned().collect();
        let mut open: VecDeque<String> = latest.into();
        let mut found = Vec::new();
        while let Some(id) = open.pop_front() {
            if found.len() >= limit.min(TOLD_AT_ONCE) {
                break;
            }
            if let Some(event) = self.events.get(&id)
                && seen.insert(id)
            {
                found.push(&event.json);
                open.extend(event.prev.iter().cloned());
            }
        }
        found.reverse();
        found
    }

    /// The events before this one, not itself.
    pub fn prev(&self, id: &str) -> Vec<String> {
        self.events.get(id).map(|event| event.prev.clone()).unwrap_or_default()
    }
}
