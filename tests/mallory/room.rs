//! A room as the hostile server keeps it: its events, their state, its ends. It is simple and honest: what it is told it
//! believes. Events of any form can be made on top of it, right or wrong.

use ruma::{
    CanonicalJsonObject, RoomVersionId, UserId,
    room_version_rules::RoomVersionRules,
    signatures::{Ed25519KeyPair, hash_and_sign_event, reference_hash, sign_event},
    state_res::auth_types_for_event,
};
use serde_json::{Value, json, value::to_raw_value};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    u64::try_from(now).unwrap()
}

/// An event with its id.
#[derive(Debug, Clone)]
pub struct Pdu {
    pub id: String,
    pub json: Value,
}

/// Event ids by type and state key.
pub type State = BTreeMap<(String, String), String>;

#[derive(Debug, Clone)]
struct Stored {
    json: Value,
    before: State,
    after: State,
}

/// A room.
#[derive(Debug, Clone)]
pub struct Room {
    pub id: String,
    pub version: String,
    events: BTreeMap<String, Stored>,
    /// The events nothing follows on.
    pub ends: BTreeSet<String>,
}

pub fn rules(version: &str) -> RoomVersionRules {
    RoomVersionId::try_from(version).unwrap().rules().unwrap()
}

fn object(json: &Value) -> CanonicalJsonObject {
    serde_json::from_value(json.clone()).expect("canonical JSON")
}

/// The id of an event.
pub fn id_of(version: &str, json: &Value) -> String {
    let rules = rules(version);
    if rules.event_format.require_event_id {
        return json["event_id"].as_str().unwrap().to_owned();
    }
    format!("${}", reference_hash(&object(json), &rules).unwrap())
}

/// Adds hash and signature of `server` to an event.
pub fn seal(version: &str, server: &str, pair: &Ed25519KeyPair, mut json: Value) -> Pdu {
    let rules = rules(version);
    json.as_object_mut().unwrap().remove("unsigned");
    if rules.event_format.require_event_id && json.get("event_id").is_none() {
        json["event_id"] = format!("${:016x}:{server}", rand::random::<u64>()).into();
    }
    let mut pdu = object(&json);
    hash_and_sign_event(server, pair, &mut pdu, &rules.redaction).unwrap();
    let json = serde_json::to_value(&pdu).unwrap();
    Pdu { id: id_of(version, &json), json }
}

/// Adds a further signature to an event.
pub fn cosign(version: &str, server: &str, pair: &Ed25519KeyPair, json: &Value) -> Value {
    let mut pdu = object(json);
    sign_event(server, pair, &mut pdu, &rules(version).redaction).unwrap();
    serde_json::to_value(&pdu).unwrap()
}

fn ids(list: &Value) -> Vec<String> {
    let entries = list.as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| entry.as_str().or_else(|| entry[0].as_str()).map(str::to_owned))
        .collect()
}

impl Room {
    /// A room of which nothing is known yet.
    pub fn new(id: &str, version: &str) -> Self {
        Self {
            id: id.to_owned(),
            version: version.to_owned(),
            events: BTreeMap::new(),
            ends: BTreeSet::new(),
        }
    }

    /// A room as another server told it to one that joins: its state, what authorizes it, and the join.
    pub fn joined(id: &str, version: &str, state: &Value, auth_chain: &Value, join: &Pdu) -> Self {
        let mut room = Self::new(id, version);
        let mut before = State::new();
        for (list, is_state) in [(auth_chain, false), (state, true)] {
            for json in list.as_array().into_iter().flatten() {
                let event = id_of(version, json);
                if is_state {
                    before.insert(key_of(json).expect("state"), event.clone());
                }
                let told = Stored { json: json.clone(), before: State::new(), after: State::new() };
                room.events.insert(event, told);
            }
        }
        room.put(join, before);
        room
    }

    fn put(&mut self, pdu: &Pdu, before: State) {
        let mut after = before.clone();
        if let Some(key) = key_of(&pdu.json) {
            after.insert(key, pdu.id.clone());
        }
        for prev in ids(&pdu.json["prev_events"]) {
            self.ends.remove(&prev);
        }
        self.ends.insert(pdu.id.clone());
        self.events.insert(pdu.id.clone(), Stored { json: pdu.json.clone(), before, after });
    }

    /// Takes an event in. Where the state before it is not known, it is that of the ends.
    pub fn add(&mut self, pdu: &Pdu) {
        if self.events.contains_key(&pdu.id) {
            return;
        }
        let mut prev: Vec<&Stored> =
            ids(&pdu.json["prev_events"]).iter().filter_map(|id| self.events.get(id)).collect();
        prev.sort_by_key(|stored| stored.json["depth"].as_u64());
        let mut before = if prev.is_empty() { self.state() } else { State::new() };
        for stored in prev {
            before.extend(stored.after.clone());
        }
        self.put(pdu, before);
    }

    /// Keeps an event without its being part of the room: it is told to whoever asks for it by its id.
    pub fn keep(&mut self, pdu: &Pdu) {
        let told = Stored { json: pdu.json.clone(), before: State::new(), after: State::new() };
        self.events.entry(pdu.id.clone()).or_insert(told);
    }

    /// Keeps an event in another form than it was kept in.
    pub fn replace(&mut self, pdu: &Pdu) {
        if let Some(stored) = self.events.get_mut(&pdu.id) {
            stored.json = pdu.json.clone();
        }
    }

    /// Whether an event is known.
    pub fn has(&self, id: &str) -> bool {
        self.events.contains_key(id)
    }

    pub fn event(&self, id: &str) -> Option<&Value> {
        self.events.get(id).map(|stored| &stored.json)
    }

    /// The state now: that after the ends, the deepest last.
    pub fn state(&self) -> State {
        let mut ends: Vec<&Stored> = self.ends.iter().filter_map(|id| self.events.get(id)).collect();
        ends.sort_by_key(|stored| stored.json["depth"].as_u64());
        ends.into_iter().flat_map(|stored| stored.after.clone()).collect()
    }

    /// The state before an event.
    pub fn state_before(&self, id: &str) -> State {
        self.events.get(id).map(|stored| stored.before.clone()).unwrap_or_default()
    }

    /// The state after an event.
    pub fn state_after(&self, id: &str) -> State {
        self.events.get(id).map(|stored| stored.after.clone()).unwrap_or_default()
    }

    /// The id of the state event for a key.
    pub fn state_id(&self, kind: &str, key: &str) -> String {
        self.state().get(&(kind.to_owned(), key.to_owned())).cloned().unwrap_or_default()
    }

    /// The content of the state event for a key.
    pub fn content(&self, kind: &str, key: &str) -> Value {
        self.event(&self.state_id(kind, key)).map_or(Value::Null, |json| json["content"].clone())
    }

    /// The membership of a user; empty if there is none.
    pub fn membership(&self, user: &str) -> String {
        self.content("m.room.member", user)["membership"].as_str().unwrap_or_default().to_owned()
    }

    /// Events with all that authorizes them, and so on, without themselves.
    pub fn auth_chain<'a>(&self, of: impl IntoIterator<Item = &'a String>) -> Vec<Value> {
        let mut open: Vec<String> = of.into_iter().cloned().collect();
        let (mut seen, mut chain) = (HashSet::new(), Vec::new());
        while let Some(id) = open.pop() {
            for auth in self.event(&id).map(|json| ids(&json["auth_events"])).unwrap_or_default() {
                if seen.insert(auth.clone()) {
                    chain.extend(self.event(&auth).cloned());
                    open.push(auth);
                }
            }
        }
        let create = self.state_id("m.room.create", "");
        if !seen.contains(&create) {
            chain.extend(self.event(&create).cloned());
        }
        chain
    }

    /// Events from `latest` backwards, themselves not included, up to `earliest`, oldest first.
    pub fn between(&self, latest: &[String], earliest: &[String], limit: usize) -> Vec<Value> {
        let mut open: Vec<String> = latest.to_vec();
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        while let Some(id) = open.pop() {
            for prev in self.event(&id).map(|json| ids(&json["prev_events"])).unwrap_or_default() {
                if !earliest.contains(&prev) && seen.insert(prev.clone()) && found.len() < limit {
                    found.extend(self.event(&prev).cloned());
                    open.push(prev);
                }
            }
        }
        found.sort_by_key(|json| json["depth"].as_u64());
        found
    }

    fn reference(&self, id: &str) -> Value {
        if rules(&self.version).event_format.require_event_id {
            let hash =
                self.event(id).map(|json| reference_hash(&object(json), &rules(&self.version)).unwrap());
            json!([id, { "sha256": hash.unwrap_or_default() }])
        } else {
            id.into()
        }
    }

    /// References to events, in the form of the room's version.
    pub fn references<'a>(&self, ids: impl IntoIterator<Item = &'a String>) -> Value {
        ids.into_iter().map(|id| self.reference(id)).collect()
    }

    /// An event on the room's ends, as the rules want it, without hash and signature.
    pub fn draft(&self, sender: &str, kind: &str, state_key: Option<&str>, content: Value) -> Value {
        self.draft_on(&self.ends.clone(), sender, kind, state_key, content)
    }

    /// The same, on top of these events.
    pub fn draft_on<'a>(
        &self,
        prev: impl IntoIterator<Item = &'a String> + Clone,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Value {
        let mut state = State::new();
        let mut depth = 0;
        for id in prev.clone() {
            state.extend(self.state_after(id));
            depth = depth.max(self.event(id).and_then(|json| json["depth"].as_u64()).unwrap_or(0));
        }
        let rules = rules(&self.version);
        let raw = to_raw_value(&content).unwrap();
        let sender_id = UserId::parse(sender).unwrap();
        let wanted = auth_types_for_event(&kind.into(), &sender_id, state_key, &raw, &rules.authorization);
        let auth: Vec<String> = wanted
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(kind, key)| state.get(&(kind.to_string(), key)).cloned())
            .collect();
        let mut event = json!({
            "room_id": self.id,
            "sender": sender,
            "type": kind,
            "content": content,
            "origin_server_ts": now_ms(),
            "depth": depth + 1,
            "prev_events": self.references(prev),
            "auth_events": self.references(&auth),
        });
        if let Some(state_key) = state_key {
            event["state_key"] = state_key.into();
        }
        event
    }
}

/// Type and state key of a state event.
pub fn key_of(json: &Value) -> Option<(String, String)> {
    Some((json["type"].as_str()?.to_owned(), json.get("state_key")?.as_str()?.to_owned()))
}
