//! Events that are known and no part of a room's timeline: what authorizes others, and state told by other servers.

use crate::{Error, Event, Verified, batch::Batch, partial::Omitted, rooms::Rooms};
use postern_graph::{
    EventNum, NameKind, Pos, RoomNum, Root,
    codec::Json,
    event::{EventLinks, RoomRecord, flags},
    schema::Rooms as RoomRecords,
};
use ruma::{EventId, OwnedEventId, RoomId, events::TimelineEventType};
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Where outliers stand: nowhere.
const NOWHERE: Pos = Pos(0);

impl Rooms {
    /// Adds events as outliers, each judged by the events it names. Those named have to be here or among them.
    ///
    /// # Errors
    /// [`Error::MissingEvents`] with those that are not; then nothing is added.
    pub async fn add_outliers(&self, room: &RoomId, pdus: Vec<Verified>) -> Result<(), Error> {
        if pdus.is_empty() {
            return Ok(());
        }
        let room = self.known_room(room)?;
        let seq = {
            let _lane = self.lane(room).await;
            // A room that is known by an invite only has no graph yet.
            let (version, head) = (self.version_of(room)?, self.head(room)?);
            let known = head.is_some();
            let (id, head) = (self.room_id(room)?, head.unwrap_or_default());
            let mut batch = Batch::new(self, self.graph.begin(), room, id, version, head);
            batch.outliers(pdus)?;
            batch.commit_apart(known)?
        };
        self.durable(seq).await
    }

    /// Which of these events are not here, not even as outliers.
    pub fn unknown_events<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, Error> {
        let mut unknown = Vec::new();
        for id in ids {
            if self.event_by_id(id)?.is_none() {
                unknown.push(id.clone());
            }
        }
        Ok(unknown)
    }

    /// Whether an event is part of its room's graph here: known, and no outlier.
    pub fn is_in_graph(&self, id: &EventId) -> Result<bool, Error> {
        Ok(self.event_by_id(id)?.is_some_and(|event| !event.record.has(flags::OUTLIER)))
    }

    /// Takes a room over from another server: its state with the events that authorize it, and the event by which a
    /// user of this server joined, which is signed by all who have to. What was known of the room stays. With `omitted`
    /// the state lacks members, which [`Rooms::make_whole`] adds.
    ///
    /// # Errors
    /// [`Error::MissingEvents`] if the state is incomplete, [`Error::Forbidden`] if the join is not allowed by it,
    /// [`Error::BadJson`] if it is no state of this room.
    pub async fn adopt(
        &self,
        room_id: &RoomId,
        version: &str,
        state: Vec<Verified>,
        auth_chain: Vec<Verified>,
        join: Verified,
        omitted: Option<Omitted>,
    ) -> Result<(), Error> {
        let version = crate::version::version(version)?;
        let mut commit = self.graph.begin();
        let room = self.graph.intern(NameKind::Room, room_id.as_str(), &mut commit)?;
        let room = RoomNum(room);
        let seq = {
            let _lane = self.lane(room).await;
            let head = self.head(room)?.unwrap_or_default();
            let mut batch = Batch::new(self, commit, room, room_id.to_owned(), version, head);
            batch.is_partial = omitted.is_some();
            let join = batch.adopt(state, auth_chain, join)?;
            let partial = batch.note_partial(join, omitted);
            let seq = batch.commit()?;
            self.partial.note(room, partial);
            seq
        };
        self.durable(seq).await
    }
}

impl Batch<'_> {
    /// Adds those of `pdus` that are not known as outliers.
    pub(crate) fn outliers(&mut self, pdus: Vec<Verified>) -> Result<(), Error> {
        let mut events: HashMap<OwnedEventId, Event> = HashMap::with_capacity(pdus.len());
        let mut ids = Vec::with_capacity(pdus.len());
        for pdu in pdus {
            if self.event_by_id(pdu.id())?.is_some() {
                self.fill_in(&pdu)?;
                continue;
            }
            if events.contains_key(pdu.id()) {
                continue;
            }
            let id = pdu.id().to_owned();
            let event = self.met_as_told(pdu, NOWHERE)?;
            if event.record.has(flags::COPY) && *event.kind() == TimelineEventType::RoomCreate {
                // What a room is has to be told whole: its label stands there.
                return Err(Error::BadJson(format!("the create event {id} is told without its content")));
            }
            if !event.says_room(self.room_id()) {
                return Err(Error::BadJson(format!("the event {id} is of another room")));
            }
            ids.push(id.clone());
            events.insert(id, event);
        }
        let mut missing = HashSet::new();
        for event in events.values() {
            for auth in event.auth_events().filter(|auth| !events.contains_key(*auth)) {
                if self.event_by_id(auth)?.is_none() {
                    missing.insert(auth.clone());
                }
            }
        }
        if !missing.is_empty() {
            return Err(Error::MissingEvents(missing.into_iter().collect()));
        }
        // Since room version 12 events do not name the create event, though all rest on it.
        ids.sort_by_key(|id| {
            events.get(id).is_none_or(|event| *event.kind() != TimelineEventType::RoomCreate)
        });
        for id in in_order_of_authority(&ids, &events) {
            let Some(event) = events.remove(&id) else { continue };
            self.outlier(event)?;
        }
        Ok(())
    }

    fn outlier(&mut self, mut event: Event) -> Result<(), Error> {
        let auth = self.auth_links(&event)?;
        event.record.flags |= flags::OUTLIER;
        if let Err(why) = self.allowed_apart(&event)? {
            tracing::info!(event = %event.id, why, "an event that others refer to is rejected");
            event.record.flags |= flags::REJECTED;
        }
        self.keep_apart(event, &EventLinks { prev: Vec::new(), auth })?;
        Ok(())
    }

    fn adopt(
        &mut self,
        state: Vec<Verified>,
        auth_chain: Vec<Verified>,
        join: Verified,
    ) -> Result<EventNum, Error> {
        let in_state: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.id().to_owned()).collect();
        self.outliers(auth_chain.into_iter().chain(state).collect())?;
        let before = self.told_state(&in_state)?;
        let create = self
            .state_event_in(before, "m.room.create", "")?
            .ok_or_else(|| Error::BadJson("the state has no create event".to_owned()))?;
        self.record_room(&create)?;

        let event = self.met(join.id().to_owned(), join.json().to_owned())?;
        if !event.says_room(self.room_id()) {
            return Err(Error::BadJson(format!("the event {} is of another room", event.id)));
        }
        self.allowed_apart(&event)?.map_err(Error::forbidden)?;
        self.allowed_in(before, &event)?.map_err(Error::forbidden)?;
        let auth = self.auth_links(&event)?;
        let (mut prev, missing) = self.prev_links(&event)?;
        for id in &missing {
            let num = self.rooms.graph.intern(NameKind::Event, id.as_str(), &mut self.commit)?;
            prev.push(EventNum(num));
        }
        // The server of the room knew more than what may be left here of an earlier stay: its state is the room's.
        self.head.extremities.clear();
        Ok(self.place(event, EventLinks { prev, auth }, before)?.num)
    }

    /// A state of the room that another server told, whose events are here. Rejected ones are left out.
    ///
    /// # Errors
    /// [`Error::BadJson`] if it is none of this room.
    pub(crate) fn told_state(&mut self, ids: &[OwnedEventId]) -> Result<Root, Error> {
        let mut entries = HashMap::with_capacity(ids.len());
        for id in ids {
            let Some(event) = self.event_by_id(id)? else { continue };
            if event.record.has(flags::REJECTED) {
                continue;
            }
            if event.record.room != self.room {
                return Err(Error::BadJson(format!("the event {id} is of another room")));
            }
            let key = event.record.state_key.ok_or_else(|| {
                Error::BadJson(format!("the event {id} is no state event, but the server calls it state"))
            })?;
            if entries.insert(key, event.num).is_some_and(|other| other != event.num) {
                return Err(Error::BadJson("the state has two events for one key".to_owned()));
            }
        }
        Ok(self.rooms.graph.state_build(&mut self.commit, entries.into_iter().collect()))
    }

    fn record_room(&mut self, create: &Arc<Event>) -> Result<(), Error> {
        let content: Map<String, Value> = create.content_as().unwrap_or_default();
        let said = content.get("room_version").and_then(Value::as_str).unwrap_or("1");
        if said != self.version.id.as_str() {
            return Err(Error::BadJson(format!(
                "the room is of version {said}, not {} as its server says",
                self.version.id
            )));
        }
        let record = RoomRecord {
            version: said.to_owned(),
            create: Some(create.num),
            room_type: content.get("type").and_then(Value::as_str).map(str::to_owned),
            federate: content.get("m.federate").and_then(Value::as_bool).unwrap_or(true),
        };
        self.commit.put::<RoomRecords>(&(self.room,), &Json(record));
        Ok(())
    }
}

/// `ids` so that an event comes after those among them that authorize it.
fn in_order_of_authority(ids: &[OwnedEventId], events: &HashMap<OwnedEventId, Event>) -> Vec<OwnedEventId> {
    let mut order = Vec::with_capacity(ids.len());
    let mut begun: HashSet<&OwnedEventId> = HashSet::with_capacity(ids.len());
    for id in ids {
        // An event is pushed twice: to look at what authorizes it, and to be taken once that is done.
        let mut open = vec![(id, false)];
        while let Some((id, looked_at)) = open.pop() {
            let Some(event) = events.get(id) else { continue };
            if looked_at {
                order.push(id.clone());
            } else if begun.insert(id) {
                open.push((id, true));
                open.extend(event.auth_events().map(|auth| (auth, false)));
            }
        }
    }
    order
}
