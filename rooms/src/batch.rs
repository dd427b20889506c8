//! Events being added to one room: built, authorized, signed, and gathered into one commit.
//!
//! A batch is made while the room's lane is held. It sees what it has added itself (a room is created in one batch),
//! and nothing of it exists until [`Batch::commit`].

use crate::{Error, Event, limits, rooms::Rooms, version::Version};
use postern_graph::{
    Commit, EventNum, NameKind, Pos, RoomNum, Seq, StateKeyNum, TypeNum, UserNum,
    codec::Raw,
    event::{EventLinks, EventRecord, MembershipKind, RoomHead},
    intern::state_key_name,
    log::LogEntry,
    schema::{
        Children, EventJson, EventRecords, EventTransactions, Heads, Links, StateAt, Timeline, Transactions,
    },
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::EventsReferenceFormatVersion,
    state_res::{
        auth_types_for_event, check_pdu_format, check_state_dependent_auth_rules,
        check_state_independent_auth_rules,
    },
};
use serde_json::value::RawValue;
use std::{collections::HashMap, sync::Arc};

/// Types of events that authorize others: the auth graph consists of these.
const AUTHORIZING: [&str; 5] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.member",
    "m.room.power_levels",
    "m.room.third_party_invite",
];

/// What a local user wants to say.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The event's type.
    pub event_type: String,
    /// Set for state events.
    pub state_key: Option<String>,
    /// The content: a JSON object.
    pub content: Box<RawValue>,
    /// The event to redact, for redactions.
    pub redacts: Option<OwnedEventId>,
    /// Instead of now, for those who may (appservices); milliseconds since the epoch.
    pub origin_ts: Option<u64>,
    /// The request it came with, so that repeating the request gives the same answer.
    pub txn: Option<Txn>,
}

impl Draft {
    /// A message-like event.
    #[must_use]
    pub fn message(event_type: impl Into<String>, content: Box<RawValue>) -> Self {
        Self {
            event_type: event_type.into(),
            state_key: None,
            content,
            redacts: None,
            origin_ts: None,
            txn: None,
        }
    }

    /// A state event.
    pub fn state(
        event_type: impl Into<String>,
        state_key: impl Into<String>,
        content: &impl serde::Serialize,
    ) -> Result<Self, Error> {
        let content =
            serde_json::value::to_raw_value(content).map_err(|error| Error::BadJson(error.to_string()))?;
        Ok(Self { state_key: Some(state_key.into()), ..Self::message(event_type, content) })
    }
}

/// A request that is to be carried out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// The device (or token) that asks.
    pub device: String,
    /// Which endpoint, and on what.
    pub scope: String,
    /// The transaction id.
    pub id: String,
}

impl Txn {
    /// The key it is stored under: scope and id, which no other pair shares.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}{}", self.scope.len(), self.scope, self.id)
    }
}

/// Events being added to a room.
pub(crate) struct Batch<'r> {
    pub(crate) rooms: &'r Rooms,
    pub(crate) commit: Commit,
    pub(crate) room: RoomNum,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) version: Arc<Version>,
    pub(crate) head: RoomHead,
    pub(crate) added: HashMap<EventNum, Arc<Event>>,
    /// Events whose stored form this batch changes (redactions): the cache must forget them.
    pub(crate) rewritten: Vec<EventNum>,
    order: Vec<EventNum>,
    pub(crate) membership_overlay: HashMap<UserNum, MembershipKind>,
}

impl<'r> Batch<'r> {
    pub(crate) fn new(
        rooms: &'r Rooms,
        commit: Commit,
        room: RoomNum,
        room_id: OwnedRoomId,
        version: Arc<Version>,
        head: RoomHead,
    ) -> Self {
        Self {
            rooms,
            commit,
            room,
            room_id,
            version,
            head,
            added: HashMap::new(),
            rewritten: Vec::new(),
            order: Vec::new(),
            membership_overlay: HashMap::new(),
        }
    }

    /// The current state at (type, state key), as the batch has left it.
    pub(crate) fn state(&self, event_type: &str, state_key: &str) -> Result<Option<Arc<Event>>, Error> {
        let Some(key) =
            self.rooms.graph.number(NameKind::StateKey, &state_key_name(event_type, state_key))?
        else {
            // Perhaps claimed by this batch only.
            return Ok(self
                .added
                .values()
                .filter(|event| {
                    event.kind().to_string() == event_type && event.state_key() == Some(state_key)
                })
                .max_by_key(|event| event.num)
                .cloned());
        };
        let num = self.rooms.graph.state_get_in(&self.commit, self.head.state, StateKeyNum(key))?;
        num.map(|num| self.event(num)).transpose()
    }

    pub(crate) fn event(&self, num: EventNum) -> Result<Arc<Event>, Error> {
        match self.added.get(&num) {
            Some(event) => Ok(event.clone()),
            None => self.rooms.event(num),
        }
    }

    fn event_by_id(&self, id: &EventId) -> Option<Arc<Event>> {
        if let Some(event) = self.added.values().find(|event| event.id == id) {
            return Some(event.clone());
        }
        self.rooms.event_by_id(id).ok().flatten()
    }

    /// Builds an event on top of the room as it is, authorizes and signs it, and adds it.
    pub(crate) fn add(&mut self, sender: &UserId, draft: &Draft) -> Result<Arc<Event>, Error> {
        let pdu = self.build(sender, draft)?;
        let (id, json) = self.seal(pdu)?;
        let event = self.store(id, json, draft)?;
        if let Some(txn) = &draft.txn {
            let user = UserNum(self.rooms.graph.intern(NameKind::User, sender.as_str(), &mut self.commit)?);
            let key = (user, txn.device.clone(), txn.key());
            let now = crate::rooms::now_ms();
            self.commit.put::<Transactions>(&key, &(now, Raw(event.id.as_bytes().to_vec())));
            self.commit.put::<EventTransactions>(&(event.num,), &(txn.device.clone(), txn.id.clone()));
        }
        Ok(event)
    }

    /// The PDU, without hash and signature.
    pub(crate) fn build(&self, sender: &UserId, draft: &Draft) -> Result<CanonicalJsonObject, Error> {
        let content: CanonicalJsonValue = serde_json::from_str(draft.content.get())
            .map_err(|error| Error::BadJson(format!("the content is no canonical JSON: {error}")))?;
        if content.as_object().is_none() {
            return Err(Error::BadJson("the content is not an object".to_owned()));
        }
        let field = |name: &str, value: &str| {
            (value.len() <= limits::FIELD_BYTES).then_some(()).ok_or_else(|| {
                Error::TooLarge(format!("the {name} is longer than {} bytes", limits::FIELD_BYTES))
            })
        };
        field("type", &draft.event_type)?;
        field("state key", draft.state_key.as_deref().unwrap_or_default())?;

        let rules = &self.version.rules;
        let kind = TimelineEventType::from(draft.event_type.as_str());
        let auth_types = auth_types_for_event(
            &kind,
            sender,
            draft.state_key.as_deref(),
            &draft.content,
            &rules.authorization,
        )
        .map_err(|error| match draft.event_type.as_str() {
            "m.room.member" => Error::BadJson(error),
            _ => Error::forbidden(error),
        })?;
        let mut auth = Vec::with_capacity(auth_types.len());
        for (event_type, state_key) in auth_types {
            if let Some(event) = self.state(&event_type.to_string(), &state_key)? {
                auth.push(event);
            }
        }
        let mut prev = Vec::with_capacity(self.head.extremities.len().min(limits::PREV_EVENTS));
        for num in self.head.extremities.iter().rev().take(limits::PREV_EVENTS) {
            prev.push(self.event(*num)?);
        }

        let text = |value: &str| CanonicalJsonValue::String(value.to_owned());
        let mut pdu = CanonicalJsonObject::new();
        pdu.insert("auth_events".to_owned(), self.references(&auth));
        pdu.insert("prev_events".to_owned(), self.references(&prev));
        pdu.insert("content".to_owned(), content);
        pdu.insert("depth".to_owned(), CanonicalJsonValue::Integer(int(self.head.depth + 1)));
        pdu.insert(
            "origin_server_ts".to_owned(),
            CanonicalJsonValue::Integer(int(draft.origin_ts.unwrap_or_else(crate::rooms::now_ms))),
        );
        if kind != TimelineEventType::RoomCreate || rules.event_format.require_room_create_room_id {
            pdu.insert("room_id".to_owned(), text(self.room_id.as_str()));
        }
        pdu.insert("sender".to_owned(), text(sender.as_str()));
        pdu.insert("type".to_owned(), text(&draft.event_type));
        if let Some(state_key) = &draft.state_key {
            pdu.insert("state_key".to_owned(), text(state_key));
        }
        if let Some(redacts) = &draft.redacts {
            if rules.redaction.content_field_redacts {
                if let Some(CanonicalJsonValue::Object(content)) = pdu.get_mut("content") {
                    content.insert("redacts".to_owned(), text(redacts.as_str()));
                }
            } else {
                pdu.insert("redacts".to_owned(), text(redacts.as_str()));
            }
        }
        if rules.event_format.require_event_id {
            let name: [u8; 18] = rand::random();
            let id = format!(
                "${}:{}",
                base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, name),
                self.rooms.server_name()
            );
            pdu.insert("event_id".to_owned(), text(&id));
        }
        Ok(pdu)
    }

    /// References to events in the form of the room version: ids, or (1 and 2) ids with hashes.
    fn references(&self, events: &[Arc<Event>]) -> CanonicalJsonValue {
        let with_hash = self.version.rules.events_reference_format == EventsReferenceFormatVersion::V1;
        let list = events.iter().map(|event| {
            let id = CanonicalJsonValue::String(event.id.to_string());
            if !with_hash {
                return id;
            }
            let hash = serde_json::from_str::<CanonicalJsonObject>(event.json())
                .ok()
                .and_then(|pdu| ruma::signatures::reference_hash(&pdu, &self.version.rules).ok())
                .unwrap_or_default();
            let hashes = CanonicalJsonObject::from([("sha256".to_owned(), CanonicalJsonValue::String(hash))]);
            CanonicalJsonValue::Array(vec![id, CanonicalJsonValue::Object(hashes)])
        });
        CanonicalJsonValue::Array(list.collect())
    }

    /// Hashes, signs and names an event.
    pub(crate) fn seal(&self, mut pdu: CanonicalJsonObject) -> Result<(OwnedEventId, String), Error> {
        self.rooms.keys.sign_event(&mut pdu, &self.version)?;
        let rules = &self.version.rules;
        check_pdu_format(&pdu, &rules.event_format).map_err(|error| {
            if error.contains("larger") { Error::TooLarge(error) } else { Error::BadJson(error) }
        })?;
        let id = crate::pdu::event_id(&pdu, rules)?;
        let json = serde_json::to_string(&pdu).map_err(|error| Error::BadJson(error.to_string()))?;
        if json.len() > limits::PDU_BYTES {
            return Err(Error::TooLarge(format!("the event is larger than {} bytes", limits::PDU_BYTES)));
        }
        Ok((id, json))
    }

    /// Authorizes a sealed event against the state of the room and adds it with everything that follows from it.
    pub(crate) fn store(
        &mut self,
        id: OwnedEventId,
        json: String,
        draft: &Draft,
    ) -> Result<Arc<Event>, Error> {
        let num = EventNum(self.rooms.graph.intern(NameKind::Event, id.as_str(), &mut self.commit)?);
        let slot = self.commit.take_seq();
        let pos = Pos::at(slot);
        let graph = &self.rooms.graph;
        let state_key = match &draft.state_key {
            Some(key) => Some(StateKeyNum(graph.intern(
                NameKind::StateKey,
                &state_key_name(&draft.event_type, key),
                &mut self.commit,
            )?)),
            None => None,
        };
        let kind = TypeNum(graph.intern(NameKind::Type, &draft.event_type, &mut self.commit)?);
        let record = EventRecord {
            room: self.room,
            pos,
            depth: self.head.depth + 1,
            origin_ts: 0,
            sender: UserNum(0),
            kind,
            state_key,
            flags: 0,
            redacted_by: None,
            state_before: self.head.state,
            state_after: self.head.state,
        };
        let mut event = Event::from_parts(num, id, self.room_id.clone(), record, json.into_boxed_str())?;
        self.authorize(&event)?;
        event.record.origin_ts = event.origin_server_ts();
        event.record.sender =
            UserNum(graph.intern(NameKind::User, event.sender().as_str(), &mut self.commit)?);

        let links = EventLinks {
            prev: event.prev_events().filter_map(|id| self.event_by_id(id)).map(|e| e.num).collect(),
            auth: event.auth_events().filter_map(|id| self.event_by_id(id)).map(|e| e.num).collect(),
        };
        if let Some(key) = state_key {
            self.head.state =
                self.rooms.graph.state_set(&mut self.commit, self.head.state, key, Some(num))?;
            event.record.state_after = self.head.state;
            self.commit.put::<StateAt>(&(self.room, pos), &self.head.state);
        }
        for prev in &links.prev {
            self.commit.put::<Children>(&(*prev, num), &());
        }
        if AUTHORIZING.contains(&draft.event_type.as_str()) {
            graph.chain_add(&mut self.commit, num, &links.auth)?;
        }
        self.commit.put::<Links>(&(num,), &links);
        self.commit.put::<EventJson>(&(num,), &Raw(event.json().as_bytes().to_vec()));
        self.commit.put::<Timeline>(&(self.room, pos), &num);
        self.commit.log(LogEntry::Event {
            room: self.room,
            event: num,
            pos,
            sender: event.record.sender,
            state_key,
        });
        self.head.depth += 1;
        self.head.extremities = vec![num];
        self.head.latest = Some(pos);

        let event = Arc::new(event);
        self.added.insert(num, event.clone());
        self.order.push(num);
        self.apply_effects(&event)?;
        Ok(event)
    }

    fn authorize(&self, event: &Event) -> Result<(), Error> {
        let rules = &self.version.rules.authorization;
        check_state_independent_auth_rules(rules, event, |id| self.event_by_id(id))
            .map_err(Error::forbidden)?;
        check_state_dependent_auth_rules(rules, event, |event_type: &StateEventType, state_key: &str| {
            self.state(&event_type.to_string(), state_key).ok().flatten()
        })
        .map_err(Error::forbidden)
    }

    /// Applies the batch. Visible to every reader on return; durable when [`postern_graph::Graph::durable_at`] says.
    pub(crate) fn commit(mut self) -> Result<Seq, Error> {
        for num in &self.order {
            if let Some(event) = self.added.get(num) {
                self.commit.put::<EventRecords>(&(*num,), &event.record);
            }
        }
        self.commit.put::<Heads>(&(self.room,), &self.head);
        let seq = self.rooms.graph.commit(self.commit)?;
        for num in self.rewritten {
            self.rooms.forget_cached(num);
        }
        Ok(seq)
    }

    /// The room's id.
    pub(crate) fn room_id(&self) -> &RoomId {
        &self.room_id
    }
}

fn int(n: u64) -> ruma::Int {
    ruma::Int::new_saturating(i64::try_from(n).unwrap_or(i64::MAX))
}
