//! Filters: which events a client wants (specification: filtering).

use postern_rooms::Event;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The largest page a client gets, whatever it asks for.
pub(crate) const MOST_EVENTS: usize = 1_000;

/// What a client wants of events.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EventFilter {
    pub(crate) limit: Option<u64>,
    not_senders: Vec<OwnedUserId>,
    not_types: Vec<String>,
    senders: Option<Vec<OwnedUserId>>,
    types: Option<Vec<String>>,
    not_rooms: Vec<OwnedRoomId>,
    rooms: Option<Vec<OwnedRoomId>>,
    contains_url: Option<bool>,
    pub(crate) lazy_load_members: bool,
    pub(crate) include_redundant_members: bool,
    pub(crate) unread_thread_notifications: bool,
    related_by_rel_types: Option<Vec<String>>,
    related_by_senders: Option<Vec<OwnedUserId>>,
    /// MSC3874
    #[serde(rename = "org.matrix.msc3874.rel_types")]
    rel_types: Option<Vec<String>>,
    /// MSC3874
    #[serde(rename = "org.matrix.msc3874.not_rel_types")]
    not_rel_types: Vec<String>,
}

/// What a client wants of rooms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RoomFilter {
    not_rooms: Vec<OwnedRoomId>,
    rooms: Option<Vec<OwnedRoomId>>,
    pub(crate) account_data: EventFilter,
    pub(crate) ephemeral: EventFilter,
    pub(crate) include_leave: bool,
    pub(crate) state: EventFilter,
    pub(crate) timeline: EventFilter,
}

/// A whole filter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SyncFilter {
    pub(crate) event_fields: Option<Vec<String>>,
    pub(crate) account_data: EventFilter,
    pub(crate) presence: EventFilter,
    pub(crate) room: RoomFilter,
}

impl SyncFilter {
    /// A filter from its JSON.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        // Also what this server does not look at has to have the right type.
        serde_json::from_str::<ruma::api::client::filter::FilterDefinition>(text)?;
        serde_json::from_str(text)
    }
}

impl RoomFilter {
    /// Whether the client wants to hear of a room.
    pub(crate) fn wants_room(&self, room: &RoomId) -> bool {
        !self.not_rooms.iter().any(|other| other == room)
            && self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|other| other == room))
    }
}

impl EventFilter {
    /// Whether events of a room are wanted at all.
    pub(crate) fn wants_room(&self, room: &RoomId) -> bool {
        !self.not_rooms.iter().any(|other| other == room)
            && self.rooms.as_ref().is_none_or(|rooms| rooms.iter().any(|other| other == room))
    }

    /// Whether a type is wanted.
    pub(crate) fn wants_type(&self, event_type: &str) -> bool {
        !self.not_types.iter().any(|pattern| matches(pattern, event_type))
            && self
                .types
                .as_ref()
                .is_none_or(|types| types.iter().any(|pattern| matches(pattern, event_type)))
    }

    /// Whether what a user says is wanted.
    pub(crate) fn wants_sender(&self, sender: &UserId) -> bool {
        !self.not_senders.iter().any(|other| other == sender)
            && self.senders.as_ref().is_none_or(|senders| senders.iter().any(|other| other == sender))
    }

    /// Whether an event is wanted, apart from its relations.
    pub(crate) fn wants(&self, event: &Event) -> bool {
        self.wants_room(&event.room_id)
            && self.wants_sender(event.sender())
            && self.wants_type(&event.kind().to_string())
            && self.contains_url.is_none_or(|wanted| {
                let content: Map<String, Value> = event.content_as().unwrap_or_default();
                content.get("url").is_some_and(Value::is_string) == wanted
            })
            && self.wants_relation(event)
    }

    fn wants_relation(&self, event: &Event) -> bool {
        if self.rel_types.is_none() && self.not_rel_types.is_empty() {
            return true;
        }
        let content: Map<String, Value> = event.content_as().unwrap_or_default();
        let relation = content.get("m.relates_to").and_then(|relation| relation.get("rel_type"));
        self.wants_rel_type(relation.and_then(Value::as_str))
    }

    /// Whether events that relate to another in this way, or to none, are wanted.
    fn wants_rel_type(&self, rel_type: Option<&str>) -> bool {
        let among = |types: &[String]| rel_type.is_some_and(|wanted| types.iter().any(|t| t == wanted));
        !among(&self.not_rel_types) && self.rel_types.as_deref().is_none_or(among)
    }

    /// Whether an event has the relations asked for: others that relate to it in such a way, by such users.
    pub(crate) fn wants_related(&self, rooms: &postern_rooms::Rooms, event: &Event) -> bool {
        if self.related_by_rel_types.is_none() && self.related_by_senders.is_none() {
            return true;
        }
        rooms
            .has_relation(event, |rel_type, sender| {
                self.related_by_rel_types.as_ref().is_none_or(|types| types.iter().any(|t| t == rel_type))
                    && self
                        .related_by_senders
                        .as_ref()
                        .is_none_or(|senders| senders.iter().any(|s| s == sender))
            })
            .unwrap_or(false)
    }

    /// How many events a page may have; `default` if the client does not say.
    pub(crate) fn page(&self, default: usize) -> usize {
        self.limit.map_or(default, |limit| usize::try_from(limit).unwrap_or(MOST_EVENTS).min(MOST_EVENTS))
    }
}

/// `*` in a pattern stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, is) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.topic", true),
            ("*", "", true),
            ("*.call.*", "m.call.invite", true),
            ("m.*.member", "m.room.members", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_excluded_is_excluded_though_it_is_also_included() {
        let filter: EventFilter =
            serde_json::from_str(r#"{"types":["m.room.*"],"not_types":["m.room.member"]}"#).unwrap();
        assert!(filter.wants_type("m.room.topic"));
        assert!(!filter.wants_type("m.room.member"));
        assert!(!filter.wants_type("m.reaction"));
    }

    #[test]
    fn events_are_chosen_by_how_they_relate_to_another() {
        let only: EventFilter =
            serde_json::from_str(r#"{"org.matrix.msc3874.rel_types":["m.thread"]}"#).unwrap();
        assert!(only.wants_rel_type(Some("m.thread")));
        assert!(!only.wants_rel_type(Some("m.reference")));
        assert!(!only.wants_rel_type(None));
        let without: EventFilter =
            serde_json::from_str(r#"{"org.matrix.msc3874.not_rel_types":["m.thread"]}"#).unwrap();
        assert!(!without.wants_rel_type(Some("m.thread")));
        assert!(without.wants_rel_type(Some("m.reference")));
        assert!(without.wants_rel_type(None));
    }
}
