//! A plain model of a forked room beside the real one: every state a whole map, resolved from scratch with whole auth
//! chains, and people of other servers who make events on top of whatever they like.

use postern_rooms::{Rooms, Verified, version::Version};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, RoomId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
    serde::Base64,
    signatures::{Ed25519KeyPair, PublicKeyMap, hash_and_sign_event, reference_hash},
    state_res::{
        Event, StateMap, auth_types_for_event, check_state_dependent_auth_rules, resolve,
        utils::event_id_set::EventIdSet,
    },
};
use serde_json::{Value, value::RawValue};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// An event as the model sees it.
#[derive(Debug, Clone)]
pub struct Pdu {
    pub id: OwnedEventId,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    ts: UInt,
    depth: u64,
    kind: TimelineEventType,
    state_key: Option<String>,
    content: Box<RawValue>,
    pub prev: Vec<OwnedEventId>,
    auth: Vec<OwnedEventId>,
    pub rejected: bool,
}

impl Pdu {
    fn of(id: OwnedEventId, json: &str) -> Self {
        let pdu: Value = serde_json::from_str(json).unwrap();
        let ids = |name: &str| {
            let list = pdu[name].as_array().cloned().unwrap_or_default();
            list.iter()
                .map(|entry| entry.as_str().or_else(|| entry[0].as_str()).unwrap())
                .map(|id| EventId::parse(id).unwrap())
                .collect()
        };
        Self {
            id,
            room_id: pdu["room_id"].as_str().map(|id| RoomId::parse(id).unwrap()),
            sender: UserId::parse(pdu["sender"].as_str().unwrap()).unwrap(),
            ts: UInt::try_from(pdu["origin_server_ts"].as_u64().unwrap()).unwrap(),
            depth: pdu["depth"].as_u64().unwrap(),
            kind: pdu["type"].as_str().unwrap().into(),
            state_key: pdu["state_key"].as_str().map(str::to_owned),
            content: serde_json::value::to_raw_value(&pdu["content"]).unwrap(),
            prev: ids("prev_events"),
            auth: ids("auth_events"),
            rejected: false,
        }
    }
}

impl Event for Pdu {
    type Id = OwnedEventId;
    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }
    fn room_id(&self) -> Option<&RoomId> {
        self.room_id.as_deref()
    }
    fn sender(&self) -> &UserId {
        &self.sender
    }
    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(self.ts)
    }
    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }
    fn content(&self) -> &RawValue {
        &self.content
    }
    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }
    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev.iter())
    }
    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth.iter())
    }
    fn redacts(&self) -> Option<&OwnedEventId> {
        None
    }
    fn rejected(&self) -> bool {
        self.rejected
    }
}

pub type State = StateMap<OwnedEventId>;

/// The model of one room.
pub struct Model {
    pub room: OwnedRoomId,
    pub version: Arc<Version>,
    pub events: HashMap<OwnedEventId, Arc<Pdu>>,
    pub after: HashMap<OwnedEventId, State>,
    pub before: HashMap<OwnedEventId, State>,
    keys: HashMap<String, Ed25519KeyPair>,
    pub public: PublicKeyMap,
    clock: u64,
}

impl Model {
    /// A model of a room as `rooms` has it, whose history is a line, and of these other servers.
    pub fn of(rooms: &Rooms, room: &RoomId, servers: &[&str]) -> Self {
        let num = rooms.room(room).unwrap().unwrap();
        let (mut keys, mut public) = (HashMap::new(), PublicKeyMap::new());
        for server in servers {
            let pair = Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), "1".to_owned()).unwrap();
            let key = BTreeMap::from([("ed25519:1".to_owned(), Base64::new(pair.public_key().to_vec()))]);
            public.insert((*server).to_owned(), key);
            keys.insert((*server).to_owned(), pair);
        }
        let mut model = Self {
            room: room.to_owned(),
            version: rooms.version_of(num).unwrap(),
            events: HashMap::new(),
            after: HashMap::new(),
            before: HashMap::new(),
            keys,
            public,
            clock: 0,
        };
        let mut line = Vec::new();
        let mut next = rooms.head(num).unwrap().unwrap().extremities;
        while let [num] = next.as_slice() {
            let event = rooms.event(*num).unwrap();
            line.push(event.clone());
            next = postern_rooms::Event::prev_events(&event)
                .map(|id| rooms.event_by_id(id).unwrap().unwrap().num)
                .collect();
        }
        assert!(next.is_empty(), "the room has forked already");
        for event in line.iter().rev() {
            model.clock = model.clock.max(postern_rooms::Event::origin_server_ts(event));
            model.add(Pdu::of(event.id.clone(), event.json()));
        }
        model
    }

    /// The event where the line the model began with ends.
    pub fn tip(&self) -> OwnedEventId {
        self.events.values().max_by_key(|event| event.depth).unwrap().id.clone()
    }

    fn add(&mut self, mut event: Pdu) {
        let before = self.resolved(event.prev.iter().map(|id| self.after[id].clone()).collect());
        let rules = &self.version.rules.authorization;
        let named: Vec<Arc<Pdu>> = event
            .auth
            .iter()
            .map(|id| self.events[id].clone())
            .chain(before.get(&(StateEventType::RoomCreate, String::new())).map(|id| self.events[id].clone()))
            .collect();
        let by_named = check_state_dependent_auth_rules(rules, &event, |kind: &StateEventType, key: &str| {
            let kind = TimelineEventType::from(kind.to_string());
            named.iter().find(|event| event.kind == kind && event.state_key.as_deref() == Some(key)).cloned()
        });
        let by_state = check_state_dependent_auth_rules(rules, &event, |kind: &StateEventType, key: &str| {
            before.get(&(kind.clone(), key.to_owned())).map(|id| self.events[id].clone())
        });
        event.rejected = named.iter().any(|event| event.rejected) || by_named.is_err() || by_state.is_err();
        let mut after = before.clone();
        if let (Some(key), false) = (&event.state_key, event.rejected) {
            after.insert((event.kind.to_string().into(), key.clone()), event.id.clone());
        }
        self.before.insert(event.id.clone(), before);
        self.after.insert(event.id.clone(), after);
        self.events.insert(event.id.clone(), Arc::new(event));
    }

    fn auth_chain(&self, start: impl Iterator<Item = OwnedEventId>) -> BTreeSet<OwnedEventId> {
        let mut open: Vec<OwnedEventId> = start.collect();
        let mut chain = BTreeSet::new();
        while let Some(id) = open.pop() {
            for auth in &self.events[&id].auth {
                if chain.insert(auth.clone()) {
                    open.push(auth.clone());
                }
            }
        }
        chain
    }

    /// The model hears of an event that was made elsewhere.
    pub fn learn(&mut self, id: &EventId, json: &str) {
        self.add(Pdu::of(id.to_owned(), json));
    }

    /// The resolution of whole states, from scratch.
    pub fn resolved(&self, states: Vec<State>) -> State {
        let [first, ..] = states.as_slice() else { return State::new() };
        if states.iter().all(|state| state == first) {
            return first.clone();
        }
        let rules = &self.version.rules;
        let chains = states.iter().map(|state| {
            let mut set = EventIdSet::new();
            // What a state has counts as in its chain too, as on all servers in use; see `Graph::auth_difference`.
            for id in self.auth_chain(state.values().cloned()).into_iter().chain(state.values().cloned()) {
                set.insert(id);
            }
            set
        });
        resolve(
            &rules.authorization,
            rules.state_res.v2_rules().unwrap(),
            &states,
            chains.collect(),
            |id: &EventId| self.events.get(id).cloned(),
            |conflicted| {
                let ids: BTreeSet<OwnedEventId> = conflicted.values().flatten().cloned().collect();
                let mut subgraph = EventIdSet::new();
                for id in &ids {
                    subgraph.insert(id.clone());
                    for middle in self.auth_chain(std::iter::once(id.clone())) {
                        let below = self.auth_chain(std::iter::once(middle.clone()));
                        if below.iter().any(|id| ids.contains(id)) {
                            subgraph.insert(middle);
                        }
                    }
                }
                Some(subgraph)
            },
        )
        .unwrap()
    }

    /// An event of somebody elsewhere on top of `prev`, signed by their server and added to the model.
    pub fn make(
        &mut self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        prev: &[OwnedEventId],
    ) -> Verified {
        let rules = self.version.rules.clone();
        let sender = UserId::parse(sender).unwrap();
        let before = self.resolved(prev.iter().map(|id| self.after[id].clone()).collect());
        let types = auth_types_for_event(
            &kind.into(),
            &sender,
            state_key,
            &serde_json::value::to_raw_value(&content).unwrap(),
            &rules.authorization,
        );
        let auth: Vec<&OwnedEventId> = types.unwrap().iter().filter_map(|key| before.get(key)).collect();
        let depth = prev.iter().map(|id| self.events[id].depth).max().unwrap_or(0) + 1;
        self.clock += 1;
        // Room versions 1 and 2 name events by an id that servers make up, and refer to them with their hashes.
        let made_up = rules.event_format.require_event_id;
        let refer = |id: &OwnedEventId| match made_up {
            true => serde_json::json!([id, { "sha256": "" }]),
            false => serde_json::json!(id),
        };
        let mut pdu = serde_json::json!({
            "type": kind, "room_id": self.room, "sender": sender, "content": content, "depth": depth,
            "origin_server_ts": self.clock,
            "prev_events": prev.iter().map(refer).collect::<Vec<_>>(),
            "auth_events": auth.into_iter().map(refer).collect::<Vec<_>>(),
        });
        if made_up {
            pdu["event_id"] = format!("${}:{}", self.clock, sender.server_name()).into();
        }
        if let Some(key) = state_key {
            pdu["state_key"] = key.into();
        }
        let verified = self.signed(sender.as_str(), serde_json::from_value(pdu).unwrap());
        self.add(Pdu::of(verified.id().to_owned(), verified.json()));
        verified
    }

    /// A PDU signed by the server of `sender`, whatever it says; the model does not hear of it.
    pub fn signed(&self, sender: &str, mut pdu: CanonicalJsonObject) -> Verified {
        let rules = &self.version.rules;
        let sender = UserId::parse(sender).unwrap();
        let server = sender.server_name().as_str();
        hash_and_sign_event(server, &self.keys[server], &mut pdu, &rules.redaction).unwrap();
        let id = match pdu.get("event_id").and_then(CanonicalJsonValue::as_str) {
            Some(id) => EventId::parse(id).unwrap(),
            None => EventId::parse(format!("${}", reference_hash(&pdu, rules).unwrap())).unwrap(),
        };
        let verified = Verified::check(&self.version, pdu, &self.public).unwrap();
        assert_eq!(verified.id(), id);
        verified
    }
}
