//! Events in the form clients get them (specification: room event format).

use crate::{
    Asker, Error, Event, Form,
    rooms::{Rooms, now_ms},
};
use postern_graph::{RoomNum, StateKeyNum, UserNum, event::MembershipKind, schema::EventTransactions};
use ruma::UserId;
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

/// Who looks.
#[derive(Debug, Clone, Copy)]
pub struct Viewer<'a> {
    /// The user.
    pub user: UserNum,
    /// The user's id.
    pub user_id: &'a UserId,
    /// The device, which is told its own transaction ids.
    pub device_id: &'a str,
}

/// How much of an event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format {
    /// With the room's id (not in `/sync`, where it stands around the event).
    pub room_id: bool,
    /// With what relates to it (`m.relations`).
    pub bundled: bool,
}

impl Format {
    /// As in `/sync`.
    pub const SYNC: Self = Self { room_id: false, bundled: true };
    /// As everywhere else.
    pub const FULL: Self = Self { room_id: true, bundled: true };
}

#[derive(Serialize)]
struct ClientEvent<'a> {
    content: &'a RawValue,
    event_id: &'a str,
    origin_server_ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
    sender: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    unsigned: Map<String, Value>,
}

#[derive(Serialize)]
struct Stripped<'a> {
    content: &'a RawValue,
    sender: &'a str,
    state_key: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_server_ts: Option<u64>,
}

/// State shown to those who are invited or knock (specification: stripped state).
const STRIPPED: [&str; 8] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
];

impl Rooms {
    /// An event as `viewer` gets it. Whether the viewer may see it is for the caller to ask first.
    pub fn client_event(
        &self,
        event: &Event,
        viewer: &Viewer<'_>,
        format: Format,
    ) -> Result<Box<RawValue>, Error> {
        let mut unsigned = self.unsigned(event, viewer)?;
        if format.bundled
            && let Some(relations) = self.bundle(event, viewer)?
        {
            unsigned.insert("m.relations".to_owned(), relations);
        }
        self.render(event, viewer, unsigned, format)
    }

    pub(super) fn render(
        &self,
        event: &Event,
        viewer: &Viewer<'_>,
        unsigned: Map<String, Value>,
        format: Format,
    ) -> Result<Box<RawValue>, Error> {
        let redacts = event.redacts();
        let kind = event.kind().to_string();
        let (with_redacts, withheld);
        let mut content = event.content();
        // Clients of either kind find it: in the content (room version 11) and on top.
        if let Some(redacts) = &redacts
            && event.record.redacted_by.is_none()
        {
            let mut map: Map<String, Value> = event.content_as().unwrap_or_default();
            map.insert("redacts".to_owned(), redacts.as_str().into());
            with_redacts = raw(&map)?;
            content = &with_redacts;
        }
        if !self.may_read(viewer, event)? {
            // State and what is named by other events is shown all the same, without what it says.
            withheld = self.redacted_content(event)?;
            content = &withheld;
        }
        raw(&ClientEvent {
            content,
            event_id: event.id.as_str(),
            origin_server_ts: event.origin_server_ts(),
            redacts: redacts.as_ref().filter(|_| event.record.redacted_by.is_none()).map(|id| id.as_str()),
            room_id: format.room_id.then_some(event.room_id.as_str()),
            sender: event.sender().as_str(),
            state_key: event.state_key(),
            kind: &kind,
            unsigned,
        })
    }

    /// What the server says about an event, apart from what relates to it.
    pub(super) fn unsigned(&self, event: &Event, viewer: &Viewer<'_>) -> Result<Map<String, Value>, Error> {
        let mut unsigned = Map::new();
        unsigned.insert("age".to_owned(), now_ms().saturating_sub(event.origin_server_ts()).into());
        if event.record.sender == viewer.user
            && let Some((device, txn)) = self.graph.get::<EventTransactions>(&(event.num,))?
            && device == viewer.device_id
        {
            unsigned.insert("transaction_id".to_owned(), txn.into());
        }
        if let Some(key) = event.record.state_key
            && let Some(before) = self.graph.state_get(event.record.state_before, StateKeyNum(key.0))?
            && before != event.num
        {
            let before = self.event(before)?;
            if self.may_read(viewer, &before)? {
                unsigned.insert("prev_content".to_owned(), before.content_as().unwrap_or_default());
            }
            unsigned.insert("prev_sender".to_owned(), before.sender().as_str().into());
            unsigned.insert("replaces_state".to_owned(), before.id.as_str().into());
        }
        if let Some(by) = event.record.redacted_by {
            let redaction = self.event(by)?;
            let mut about = Map::new();
            about.insert("age".to_owned(), now_ms().saturating_sub(redaction.origin_server_ts()).into());
            let shown = self.render(&redaction, viewer, about, Format::FULL)?;
            unsigned.insert(
                "redacted_because".to_owned(),
                serde_json::from_str(shown.get()).map_err(|error| Error::BadJson(error.to_string()))?,
            );
        }
        let membership = self
            .state_in(event.record.state_after, "m.room.member", viewer.user_id.as_str())?
            .and_then(|member| member.membership())
            .unwrap_or(MembershipKind::Leave);
        unsigned.insert("membership".to_owned(), membership.as_str().into());
        Ok(unsigned)
    }

    /// The stripped state of a room for somebody who is invited or knocks: enough to recognize the room by.
    pub fn stripped_state(&self, room: RoomNum, user: &UserId) -> Result<Vec<Box<RawValue>>, Error> {
        if let Some(number) = self.user(user)?
            && let Some(mut shown) = self.shown_of(room, number)?
        {
            if let Some(membership) = self.member(room, number)? {
                let member = self.event(membership.event)?;
                shown.push(strip(&member)?);
            }
            return Ok(shown);
        }
        let mut events = Vec::new();
        for kind in STRIPPED {
            if let Some(event) = self.state(room, kind, "")?
                && self.may_be_told(Asker::User(Some(user)), &event)?
            {
                events.push(event);
            }
        }
        if let Some(member) = self.state(room, "m.room.member", user.as_str())? {
            let sender = member.sender().to_owned();
            if sender != *user {
                events.extend(self.state(room, "m.room.member", sender.as_str())?);
            }
            events.push(member);
        }
        events.iter().map(|event| strip(event)).collect()
    }

    /// What somebody of another server is shown of a room they are invited to by `sender`, or knock at: whole events,
    /// so that their server can check the create event (specification: stripped state over federation).
    pub fn state_shown_to(
        &self,
        room: RoomNum,
        user: &UserId,
        sender: &UserId,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let mut events = Vec::new();
        for kind in STRIPPED {
            events.extend(self.state(room, kind, "")?);
        }
        if sender != user {
            events.extend(self.state(room, "m.room.member", sender.as_str())?);
        }
        // What the server may not be told is left out: a redacted name is none.
        let mut shown = Vec::with_capacity(events.len());
        for event in events {
            if self.form_for(user.server_name(), &event)? == Form::Whole {
                shown.push(
                    RawValue::from_string(event.json().to_owned())
                        .map_err(|error| Error::BadJson(error.to_string()))?,
                );
            }
        }
        Ok(shown)
    }
}

fn strip(event: &Event) -> Result<Box<RawValue>, Error> {
    let create = event.kind().to_string() == "m.room.create";
    raw(&Stripped {
        content: event.content(),
        sender: event.sender().as_str(),
        state_key: event.state_key().unwrap_or_default(),
        kind: &event.kind().to_string(),
        event_id: create.then_some(event.id.as_str()),
        origin_server_ts: create.then(|| event.origin_server_ts()),
    })
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(value).map_err(|error| Error::BadJson(error.to_string()))
}
