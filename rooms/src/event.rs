//! An event as rooms work with it: the stored PDU, its fixed record, and its fields.

use crate::Error;
use postern_graph::{
    EventNum, Pos, RoomNum,
    event::{EventRecord, MembershipKind},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    events::TimelineEventType,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

/// A stored event. Immutable, except that a redaction replaces it by its redacted form.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number.
    pub num: EventNum,
    /// Its id.
    pub id: OwnedEventId,
    /// The room it belongs to.
    pub room_id: OwnedRoomId,
    /// Its fixed record.
    pub record: EventRecord,
    json: Box<str>,
    fields: Fields,
    membership: Option<MembershipKind>,
}

/// The fields of a PDU that are needed parsed.
#[derive(Debug, Clone, Deserialize)]
struct Fields {
    /// Absent from the create event of rooms whose id is its hash.
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    origin_server_ts: UInt,
    #[serde(default)]
    depth: UInt,
    #[serde(rename = "type")]
    kind: TimelineEventType,
    state_key: Option<String>,
    content: Box<RawValue>,
    #[serde(default)]
    prev_events: Vec<Reference>,
    #[serde(default)]
    auth_events: Vec<Reference>,
    redacts: Option<OwnedEventId>,
}

/// A reference to an event: its id, or (room versions 1 and 2) its id with its hash.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(OwnedEventId),
    WithHash((OwnedEventId, serde::de::IgnoredAny)),
}

impl Reference {
    const fn id(&self) -> &OwnedEventId {
        match self {
            Self::Id(id) | Self::WithHash((id, _)) => id,
        }
    }
}

impl Event {
    /// An event that has no place in its room, and is not stored.
    ///
    /// # Errors
    /// [`Error::BadJson`] if the JSON is no PDU.
    pub(crate) fn unplaced(
        room: RoomNum,
        room_id: OwnedRoomId,
        id: OwnedEventId,
        json: Box<str>,
    ) -> Result<Self, Error> {
        let record = EventRecord::blank(room, Pos::MAX);
        Self::from_parts(EventNum::UNPLACED, id, room_id, record, json)
    }

    /// An event from its stored parts.
    ///
    /// # Errors
    /// [`Error::BadJson`] if the JSON is no PDU.
    pub(crate) fn from_parts(
        num: EventNum,
        id: OwnedEventId,
        room_id: OwnedRoomId,
        record: EventRecord,
        json: Box<str>,
    ) -> Result<Self, Error> {
        let fields = serde_json::from_str(&json)
            .map_err(|error| Error::BadJson(format!("event {id} is not a PDU: {error}")))?;
        let mut event = Self { num, id, room_id, record, json, fields, membership: None };
        if event.fields.kind == TimelineEventType::RoomMember {
            // Asked for with nearly every event shown: whether its reader was in the room.
            event.membership = event.content_text("membership").as_deref().and_then(MembershipKind::parse);
        }
        Ok(event)
    }

    /// The PDU.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The type.
    #[must_use]
    pub const fn kind(&self) -> &TimelineEventType {
        &self.fields.kind
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> &UserId {
        &self.fields.sender
    }

    /// The state key, if it is a state event.
    #[must_use]
    pub fn state_key(&self) -> Option<&str> {
        self.fields.state_key.as_deref()
    }

    /// The content as it stands.
    #[must_use]
    pub fn content(&self) -> &RawValue {
        &self.fields.content
    }

    /// The content as a `T`; nothing if it is not one.
    #[must_use]
    pub fn content_as<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.fields.content.get()).ok()
    }

    /// The text field `name` of the content.
    #[must_use]
    pub fn content_text(&self, name: &str) -> Option<String> {
        let content: serde_json::Map<String, serde_json::Value> = self.content_as()?;
        content.get(name)?.as_str().map(str::to_owned)
    }

    /// The membership it gives, if it is a member event.
    #[must_use]
    pub const fn membership(&self) -> Option<MembershipKind> {
        self.membership
    }

    /// When its server says it was made, milliseconds since the epoch.
    #[must_use]
    pub fn origin_server_ts(&self) -> u64 {
        self.fields.origin_server_ts.into()
    }

    /// How deep in the graph its server says it is.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.fields.depth.into()
    }

    /// Whether it says that it belongs to `room`; a create event whose hash is the room's id need not.
    pub(crate) fn says_room(&self, room: &RoomId) -> bool {
        match &self.fields.room_id {
            Some(said) => said == room,
            None => self.fields.kind == TimelineEventType::RoomCreate,
        }
    }

    /// The events before it.
    pub fn prev_events(&self) -> impl DoubleEndedIterator<Item = &OwnedEventId> {
        self.fields.prev_events.iter().map(Reference::id)
    }

    /// The events that authorize it.
    pub fn auth_events(&self) -> impl DoubleEndedIterator<Item = &OwnedEventId> {
        self.fields.auth_events.iter().map(Reference::id)
    }

    /// The event it redacts: from the content since room version 11, from the top level before; the specification has
    /// servers show both to clients.
    #[must_use]
    pub fn redacts(&self) -> Option<OwnedEventId> {
        let redacts = || redacts_in(&self.fields.kind.to_string(), &self.fields.content);
        self.fields
            .redacts
            .clone()
            .filter(|_| self.fields.kind == TimelineEventType::RoomRedaction)
            .or_else(redacts)
    }
}

/// The event that one of this type with this content redacts.
pub(crate) fn redacts_in(event_type: &str, content: &RawValue) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content {
        redacts: Option<OwnedEventId>,
    }
    if event_type != "m.room.redaction" {
        return None;
    }
    serde_json::from_str::<Content>(content.get()).ok()?.redacts
}

impl ruma::state_res::Event for Event {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.fields.room_id.as_deref()
    }

    fn sender(&self) -> &UserId {
        &self.fields.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(self.fields.origin_server_ts)
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.fields.kind
    }

    fn content(&self) -> &RawValue {
        &self.fields.content
    }

    fn state_key(&self) -> Option<&str> {
        self.fields.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.fields.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.record.has(postern_graph::event::flags::REJECTED)
    }
}
