//! Events being added to one room: built, authorized, signed, and gathered into one commit.
//!
//! A batch is made while the room's lane is held. It sees what it has added itself (a room is created in one batch),
//! and nothing of it exists until [`Batch::commit`].

use crate::{Error, Event, event::redacts_in, limits, rooms::Rooms, version::Version};
use postern_graph::{
    Commit, EventNum, NameKind, Pos, RoomNum, Root, Seq, StateKeyNum, TypeNum, UserNum,
    codec::Raw,
    event::{EventLinks, EventRecord, MembershipKind, RoomHead, flags},
    intern::state_key_name,
    log::LogEntry,
    schema::{Children, EventJson, EventRecords, EventTransactions, Heads, Timeline, Transactions},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId,
    UserId,
    events::TimelineEventType,
    room_version_rules::EventsReferenceFormatVersion,
    state_res::{auth_types_for_event, check_pdu_format},
};
use serde_json::value::RawValue;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

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
    ids: HashMap<OwnedEventId, EventNum>,
    /// Events whose stored form this batch changes (redactions): the cache must forget them.
    pub(crate) rewritten: Vec<EventNum>,
    pub(crate) order: Vec<EventNum>,
    pub(crate) membership_overlay: HashMap<UserNum, Option<MembershipKind>>,
    pub(crate) server_overlay: HashMap<OwnedServerName, Option<(u64, Pos)>>,
    /// Not all of the room's state is here.
    pub(crate) is_partial: bool,
    /// Soft-failed events that are current state from now on.
    pub(crate) overruling: Vec<EventNum>,
    /// Tips of threads that this batch has moved, by the thread's first event.
    pub(crate) thread_overlay: HashMap<EventNum, Option<(Pos, u64)>>,
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
            ids: HashMap::new(),
            rewritten: Vec::new(),
            order: Vec::new(),
            membership_overlay: HashMap::new(),
            server_overlay: HashMap::new(),
            is_partial: rooms.is_partial(room),
            overruling: Vec::new(),
            thread_overlay: HashMap::new(),
        }
    }

    /// The current state at (type, state key), as the batch has left it.
    pub(crate) fn state(&self, event_type: &str, state_key: &str) -> Result<Option<Arc<Event>>, Error> {
        self.state_event_in(self.head.state, event_type, state_key)
    }

    pub(crate) fn event(&self, num: EventNum) -> Result<Arc<Event>, Error> {
        match self.added.get(&num) {
            Some(event) => Ok(event.clone()),
            None => self.rooms.event(num),
        }
    }

    pub(crate) fn event_by_id(&self, id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        match self.ids.get(id).and_then(|num| self.added.get(num)) {
            Some(event) => Ok(Some(event.clone())),
            None => self.rooms.event_by_id(id),
        }
    }

    /// Builds an event on top of the room as it is, authorizes and signs it, and adds it.
    pub(crate) fn add(&mut self, sender: &UserId, draft: &Draft) -> Result<Arc<Event>, Error> {
        let (id, json) = self.draft(sender, draft)?;
        self.add_sealed(sender, draft, id, json)
    }

    /// Builds and signs an event on top of the room as it is, as the gate lets it pass.
    pub(crate) fn draft(&self, sender: &UserId, draft: &Draft) -> Result<(OwnedEventId, String), Error> {
        let passed = self.passed(sender, draft)?;
        let draft = passed.as_ref().unwrap_or(draft);
        let (id, json) = self.seal(self.build(sender, draft)?)?;
        let json = self.recommended_here(draft, &id, json)?;
        Ok((id, json))
    }

    /// What the gate makes of what a local user wants to say.
    fn passed(&self, sender: &UserId, draft: &Draft) -> Result<Option<Draft>, Error> {
        let (Some(gate), Some(create)) = (self.rooms.gate(), self.state("m.room.create", "")?) else {
            return Ok(None);
        };
        let mut passed = draft.clone();
        let mut related = self.rooms.related_by(self.room_id(), &draft.content)?;
        let redacts = draft.redacts.clone().or_else(|| redacts_in(&draft.event_type, &draft.content));
        if let Some(target) = redacts {
            related.extend(self.event_by_id(&target)?.filter(|event| event.record.room == self.room));
        }
        gate.saying(self.rooms, &create, sender, &mut passed, &related)?;
        Ok(Some(passed))
    }

    /// Authorizes and adds what [`Self::draft`] has built.
    pub(crate) fn add_sealed(
        &mut self,
        sender: &UserId,
        draft: &Draft,
        id: OwnedEventId,
        json: String,
    ) -> Result<Arc<Event>, Error> {
        let event = self.store(id, json)?;
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
        let mut pdu = self.frame(sender, draft)?;
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
        pdu.insert("auth_events".to_owned(), self.references(&auth)?);
        pdu.insert("prev_events".to_owned(), self.references(&prev)?);
        pdu.insert("depth".to_owned(), CanonicalJsonValue::Integer(int(self.head.depth + 1)));
        Ok(pdu)
    }

    /// The PDU without its place in the graph.
    pub(crate) fn frame(&self, sender: &UserId, draft: &Draft) -> Result<CanonicalJsonObject, Error> {
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

        let text = |value: &str| CanonicalJsonValue::String(value.to_owned());
        let mut pdu = CanonicalJsonObject::new();
        pdu.insert("content".to_owned(), content);
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
    fn references(&self, events: &[Arc<Event>]) -> Result<CanonicalJsonValue, Error> {
        let with_hash = self.version.rules.events_reference_format == EventsReferenceFormatVersion::V1;
        let mut list = Vec::with_capacity(events.len());
        for event in events {
            let id = CanonicalJsonValue::String(event.id.to_string());
            list.push(if with_hash {
                let bad = |error: &dyn std::fmt::Display| Error::BadJson(error.to_string());
                let pdu: CanonicalJsonObject =
                    serde_json::from_str(event.json()).map_err(|error| bad(&error))?;
                let hash = ruma::signatures::reference_hash(&pdu, &self.version.rules)
                    .map_err(|error| bad(&error))?;
                let hashes =
                    CanonicalJsonObject::from([("sha256".to_owned(), CanonicalJsonValue::String(hash))]);
                CanonicalJsonValue::Array(vec![id, CanonicalJsonValue::Object(hashes)])
            } else {
                id
            });
        }
        Ok(CanonicalJsonValue::Array(list))
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
    pub(crate) fn store(&mut self, id: OwnedEventId, json: String) -> Result<Arc<Event>, Error> {
        let event = self.met(id, json)?;
        let links = self.links(&event)?;
        self.authorize(&event)?;
        let before = self.state_before(&links.prev)?;
        if before != self.head.state {
            // More ends than one event can follow on: others will look at what it does follow on.
            self.allowed_in(before, &event)?.map_err(Error::forbidden)?;
        }
        self.place(event, links, before)
    }

    /// A sealed event with its names turned into numbers, as it enters the batch.
    pub(crate) fn met(&mut self, id: OwnedEventId, json: String) -> Result<Event, Error> {
        let pos = Pos::at(self.commit.take_seq());
        self.met_at(id, json, pos)
    }

    /// The same, standing at `pos`.
    pub(crate) fn met_at(&mut self, id: OwnedEventId, json: String, pos: Pos) -> Result<Event, Error> {
        let graph = &self.rooms.graph;
        let num = EventNum(graph.intern(NameKind::Event, id.as_str(), &mut self.commit)?);
        let record = EventRecord::blank(self.room, pos);
        let mut event = Event::from_parts(num, id, self.room_id.clone(), record, json.into_boxed_str())?;
        let kind = event.kind().to_string();
        if let Some(state_key) = event.state_key() {
            let name = state_key_name(&kind, state_key);
            event.record.state_key =
                Some(StateKeyNum(graph.intern(NameKind::StateKey, &name, &mut self.commit)?));
        }
        event.record.kind = TypeNum(graph.intern(NameKind::Type, &kind, &mut self.commit)?);
        event.record.depth = event.depth();
        event.record.origin_ts = event.origin_server_ts();
        event.record.sender =
            UserNum(graph.intern(NameKind::User, event.sender().as_str(), &mut self.commit)?);
        Ok(event)
    }

    /// The edges of an event.
    ///
    /// # Errors
    /// [`Error::MissingEvents`] if any end is not here, [`Error::BadJson`] if it follows on an event of another room.
    pub(crate) fn links(&self, event: &Event) -> Result<EventLinks, Error> {
        let (prev, mut missing) = self.prev_links(event)?;
        match self.auth_links(event) {
            Ok(auth) if missing.is_empty() => Ok(EventLinks { prev, auth }),
            Err(Error::MissingEvents(auth)) => {
                missing.extend(auth);
                Err(Error::MissingEvents(missing))
            }
            Ok(_) => Err(Error::MissingEvents(missing)),
            Err(error) => Err(error),
        }
    }

    /// The events that authorize an event.
    ///
    /// # Errors
    /// [`Error::MissingEvents`] if any is not here.
    pub(crate) fn auth_links(&self, event: &Event) -> Result<Vec<EventNum>, Error> {
        let (mut auth, mut missing) = (Vec::new(), Vec::new());
        for id in event.auth_events() {
            match self.event_by_id(id)? {
                Some(event) => auth.push(event.num),
                None => missing.push(id.clone()),
            }
        }
        if missing.is_empty() { Ok(auth) } else { Err(Error::MissingEvents(missing)) }
    }

    /// The previous events of an event that are part of the room's graph here, and the ids of the others.
    ///
    /// # Errors
    /// [`Error::BadJson`] if it follows on an event of another room.
    pub(crate) fn prev_links(&self, event: &Event) -> Result<(Vec<EventNum>, Vec<OwnedEventId>), Error> {
        let (mut known, mut missing) = (Vec::new(), Vec::new());
        for id in event.prev_events() {
            match self.event_by_id(id)? {
                // The state after it would become this room's.
                Some(prev) if prev.record.room != self.room => {
                    return Err(Error::BadJson(format!(
                        "{} follows on {id}, which is of another room",
                        event.id
                    )));
                }
                Some(prev) if !prev.record.has(flags::OUTLIER) => known.push(prev.num),
                _ => missing.push(id.clone()),
            }
        }
        Ok((known, missing))
    }

    /// The state before an event that follows on `prev`: the resolution of the states after them.
    pub(crate) fn state_before(&mut self, prev: &[EventNum]) -> Result<Root, Error> {
        if prev.len() == self.head.extremities.len()
            && prev.iter().all(|num| self.head.extremities.contains(num))
        {
            return Ok(self.head.state);
        }
        let mut roots = Vec::with_capacity(prev.len());
        for num in prev {
            roots.push(self.event(*num)?.record.state_after);
        }
        self.resolve(roots)
    }

    /// Adds an event whose authorization is decided (by its flags), with everything that follows from it.
    pub(crate) fn place(
        &mut self,
        mut event: Event,
        links: EventLinks,
        before: Root,
    ) -> Result<Arc<Event>, Error> {
        self.set_states(&mut event, before)?;
        let event = self.keep(event, &links)?;
        if event.record.is_visible() {
            self.announce(&event);
            // Of what it follows on only what is here can have been an end of the room.
            let (prev, _) = self.prev_links(&event)?;
            self.extend_head(&event, &prev)?;
            self.apply_effects(&event)?;
        }
        Ok(event)
    }

    /// Tells who follows the log of an event that is shown.
    pub(crate) fn announce(&mut self, event: &Event) {
        self.commit.log(LogEntry::Event {
            room: self.room,
            event: event.num,
            pos: event.record.pos,
            sender: event.record.sender,
            state_key: event.record.state_key,
        });
    }

    /// Notes the state before an event, and the one after it.
    pub(crate) fn set_states(&mut self, event: &mut Event, before: Root) -> Result<(), Error> {
        event.record.state_before = before;
        event.record.state_after = match event.record.state_key {
            Some(key) if !event.record.has(flags::REJECTED) => {
                self.rooms.graph.state_set(&mut self.commit, before, key, Some(event.num))?
            }
            _ => before,
        };
        Ok(())
    }

    /// Stores an event with its edges and its place in the timeline.
    pub(crate) fn keep(&mut self, event: Event, links: &EventLinks) -> Result<Arc<Event>, Error> {
        let pos = event.record.pos;
        for prev in &links.prev {
            self.commit.put::<Children>(&(*prev, event.num), &());
        }
        self.commit.put::<Timeline>(&(self.room, pos), &event.num);
        self.head.depth = self.head.depth.max(event.record.depth);
        if pos > Pos::BACKFILL {
            self.head.latest = Some(pos);
        }
        self.keep_apart(event, links)
    }

    /// Stores an event with its edges, and no place in the timeline.
    pub(crate) fn keep_apart(&mut self, event: Event, links: &EventLinks) -> Result<Arc<Event>, Error> {
        let num = event.num;
        if self.event_by_id(&event.id)?.is_some() {
            // It was known apart from the timeline: its place in the chain cover stays, what was read of it does not.
            self.rewritten.push(num);
        } else if !event.record.has(flags::REJECTED)
            && AUTHORIZING.contains(&event.kind().to_string().as_str())
        {
            self.rooms.graph.chain_add(&mut self.commit, num, &links.auth)?;
        }
        Ok(self.keep_aside(event, links))
    }

    /// What is noted of a stored event changes.
    pub(crate) fn rewrite(&mut self, event: Event) {
        let num = event.num;
        self.rewritten.push(num);
        self.ids.insert(event.id.clone(), num);
        if self.added.insert(num, Arc::new(event)).is_none() {
            self.order.push(num);
        }
    }

    /// Stores an event with its edges only.
    pub(crate) fn keep_aside(&mut self, event: Event, links: &EventLinks) -> Arc<Event> {
        let num = event.num;
        self.rooms.graph.link(&mut self.commit, num, links);
        self.commit.put::<EventJson>(&(num,), &Raw(event.json().as_bytes().to_vec()));
        let event = Arc::new(event);
        self.ids.insert(event.id.clone(), num);
        self.added.insert(num, event.clone());
        self.order.push(num);
        event
    }

    /// The room now ends with `event` too, instead of what it follows on; its state is that of all its ends.
    pub(crate) fn extend_head(&mut self, event: &Arc<Event>, prev: &[EventNum]) -> Result<(), Error> {
        // What is not shown is no end of the room; whoever follows on it follows on what it follows on.
        let mut covered: HashSet<EventNum> = HashSet::new();
        let mut open = prev.to_vec();
        while let Some(num) = open.pop() {
            if covered.len() < limits::HIDDEN_WALK
                && covered.insert(num)
                && !self.event(num)?.record.is_visible()
            {
                open.extend(self.prev_links(&*self.event(num)?)?.0);
            }
        }
        self.head.extremities.retain(|num| !covered.contains(num));
        self.head.extremities.push(event.num);
        let state = match self.head.extremities.as_slice() {
            [_] => event.record.state_after,
            several => {
                let mut roots = Vec::with_capacity(several.len());
                for num in several {
                    roots.push(self.event(*num)?.record.state_after);
                }
                self.resolve(roots)?
            }
        };
        self.move_state(state, event.record.pos, Some(event.num))
    }

    pub(crate) fn authorize(&self, event: &Event) -> Result<(), Error> {
        self.well_authorized(event)?.map_err(Error::forbidden)?;
        self.allowed_in(self.head.state, event)?.map_err(Error::forbidden)
    }

    /// Applies the batch. Visible to every reader on return; durable when [`postern_graph::Graph::durable_at`] says.
    pub(crate) fn commit(self) -> Result<Seq, Error> {
        self.commit_apart(true)
    }

    /// The same; `with_head` says whether the room has a graph here, with a head.
    pub(crate) fn commit_apart(mut self, with_head: bool) -> Result<Seq, Error> {
        for num in &self.order {
            if let Some(event) = self.added.get(num) {
                self.commit.put::<EventRecords>(&(*num,), &event.record);
            }
        }
        if with_head {
            self.commit.put::<Heads>(&(self.room,), &self.head);
        }
        let seq = self.rooms.graph.commit(self.commit)?;
        for num in self.rewritten {
            self.rooms.forget_cached(num);
        }
        for num in self.overruling {
            // It is so already: that nobody can be told does not undo it.
            match (self.rooms.gate(), self.rooms.event(num)) {
                (Some(gate), Ok(event)) => gate.overruled(self.rooms, &event),
                (None, _) => {}
                (Some(_), Err(error)) => tracing::error!(%error, "an event that was kept out may be state"),
            }
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
