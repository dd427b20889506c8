//! What decisions need to know of a room and of an event.

use crate::{Error, encryption, standing::Standing};
use postern_graph::RoomNum;
use postern_policy::{Label, Resolved, decide};
use postern_rooms::{Event, NEVER_REDACTED, Rooms};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::Arc};

pub use postern_rooms::{ENCRYPTION, LABEL};
/// The content key, in create events, of the label up to which a room's servers and members have to be cleared at least, where
/// that is lower than the room's label.
pub const FLOOR: &str = "io.postern.floor";
/// The content key, in create events, of the user who has to be in the room for its encrypted messages to be audited.
pub const AUDITOR: &str = "io.postern.auditor";

/// The content key, in create events of labelled rooms, of whether the room was made as a direct chat.
pub const DIRECT: &str = "io.postern.direct";

/// A label as it counts: what it comes to, or why it means nothing here. What means nothing is above all.
pub(crate) type Held = Result<Arc<Resolved>, Arc<str>>;

/// What the create event of a room says. It never changes.
#[derive(Debug, Clone)]
pub(crate) struct RoomFacts {
    pub(crate) id: OwnedRoomId,
    /// The highest that may be said in the room, and what is said there without a label.
    pub(crate) label: Option<Label>,
    pub(crate) ceiling: Held,
    /// What everybody in it may see.
    pub(crate) floor: Held,
    /// Whether the floor is below the ceiling.
    pub(crate) is_mixed: bool,
    pub(crate) federate: bool,
    /// Its rule for end-to-end encryption, if it says one.
    pub(crate) rule: Option<decide::Encryption>,
    /// Who has to be in it, if that is its rule.
    pub(crate) auditor: Option<OwnedUserId>,
    /// As policies see it.
    pub(crate) room: Arc<decide::Room>,
}

/// Reads a label of a content. Why not, if it is none that means anything.
fn read(standing: &Standing, content: &Map<String, Value>, key: &str) -> Result<Option<Label>, Arc<str>> {
    let Some(value) = content.get(key) else { return Ok(None) };
    let label = match value {
        // What a person typed.
        Value::String(text) => standing.policies.parse_label(text).map_err(|error| error.to_string()),
        value => Label::from_json(value).map_err(|error| error.to_string()),
    };
    label.map(Some).map_err(|error| format!("{key}: {error}").into())
}

/// The label a content says, resolved.
pub(crate) fn said_in(standing: &Standing, content: &Map<String, Value>) -> Result<Option<Label>, Arc<str>> {
    let label = read(standing, content, LABEL)?;
    standing.resolve(label.as_ref())?;
    Ok(label)
}

impl RoomFacts {
    /// What a create event with this content says.
    pub(crate) fn of(standing: &Standing, id: OwnedRoomId, content: &Map<String, Value>) -> Self {
        let label = read(standing, content, LABEL);
        let ceiling = label.clone().and_then(|label| standing.resolve(label.as_ref()));
        let floor = match read(standing, content, FLOOR) {
            Ok(None) => ceiling.clone(),
            Ok(Some(floor)) => standing.resolve(Some(&floor)),
            Err(error) => Err(error),
        };
        let floor = match (floor, &ceiling) {
            (Ok(floor), Ok(ceiling)) if !floor.at_most(ceiling) => {
                Err(format!("{FLOOR} is not below the room's label").into())
            }
            (floor, _) => floor,
        };
        let label = label.ok().flatten();
        let text = label.as_ref().map(|label| text_of(standing, label));
        let rule = encryption::said_in(content);
        let auditor = match rule {
            Some(decide::Encryption::E2eeAuditor) => {
                content.get(AUDITOR).and_then(Value::as_str).and_then(|user| UserId::parse(user).ok())
            }
            _ => None,
        };
        let federate = content.get("m.federate").and_then(Value::as_bool).unwrap_or(true);
        let room = decide::Room {
            id: id.to_string(),
            policy: label.as_ref().map(|label| label.policy().to_owned()),
            rank: label.as_ref().and_then(|label| standing.policies.rank(label)).unwrap_or(0),
            label: match &ceiling {
                Ok(_) => text,
                // Policies must not take it for unlabelled.
                Err(_) => Some(String::new()),
            },
            encryption: rule.unwrap_or(decide::Encryption::Inspectable),
            federate,
            direct: content.get(DIRECT).and_then(Value::as_bool).unwrap_or(false),
            ..decide::Room::default()
        };
        Self {
            is_mixed: match (&floor, &ceiling) {
                (Ok(floor), Ok(ceiling)) => !ceiling.at_most(floor),
                _ => false,
            },
            id,
            label,
            ceiling,
            floor,
            federate,
            rule,
            auditor,
            room: Arc::new(room),
        }
    }

    /// The room as policies see it. What it is like at the moment is looked at where some policy wants to know it.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn seen(&self, standing: &Standing, rooms: &Rooms) -> Result<Arc<decide::Room>, Error> {
        if !standing.is_particular {
            return Ok(self.room.clone());
        }
        let mut seen = (*self.room).clone();
        // One that is being created is nobody else's yet.
        if let Some(room) = rooms.room(&self.id)? {
            seen.servers = u32::try_from(rooms.servers_in(room)?.len()).unwrap_or(u32::MAX);
            let rule = rooms.state(room, "m.room.join_rules", "")?;
            let rule = rule.and_then(|event| event.content_text("join_rule"));
            seen.public = rule.as_deref() == Some("public");
        }
        Ok(Arc::new(seen))
    }

    /// Whether nothing stands in the way of anybody, as far as labels go.
    pub(crate) fn is_unlabelled(&self) -> bool {
        self.ceiling.as_ref().is_ok_and(|ceiling| ceiling.is_unlabelled())
    }
}

/// A label as people write it, or as JSON where it means nothing.
pub(crate) fn text_of(standing: &Standing, label: &Label) -> String {
    standing.policies.format_label(label).unwrap_or_else(|_| label.to_canonical_json())
}

/// What decisions need to know of an event.
#[derive(Debug)]
pub(crate) struct EventFacts {
    /// Its own label, if it says one.
    pub(crate) said: Option<Label>,
    /// The label it has: its own or the room's, and no lower than that of what it relates to.
    pub(crate) label: Held,
    pub(crate) kind: decide::Kind,
    pub(crate) event_type: String,
    pub(crate) is_never_redacted: bool,
    pub(crate) has_media: bool,
    pub(crate) size: u32,
    /// What the guards found.
    pub(crate) findings: Arc<BTreeSet<String>>,
}

/// What sort of thing an event is.
pub(crate) fn kind_of(event_type: &str, is_state: bool, content: &Map<String, Value>) -> decide::Kind {
    if is_state {
        return decide::Kind::State;
    }
    let relation = content.get("m.relates_to").and_then(|relation| relation.get("rel_type")?.as_str());
    match (event_type, relation) {
        ("m.room.encrypted", _) => decide::Kind::Encrypted,
        ("m.room.redaction", _) => decide::Kind::Redaction,
        ("m.reaction", _) => decide::Kind::Reaction,
        (_, Some("m.replace")) => decide::Kind::Edit,
        ("m.sticker", _) => decide::Kind::Media,
        ("m.room.message", _) if shows_file(content) => decide::Kind::Media,
        ("m.room.message" | "m.message", _) => decide::Kind::Message,
        _ => decide::Kind::Other,
    }
}

pub(crate) fn shows_file(content: &Map<String, Value>) -> bool {
    content.contains_key("url") || content.contains_key("file")
}

impl EventFacts {
    /// A question about the event, with what is known of its content.
    pub(crate) fn asked(&self, mut question: decide::Question) -> decide::Question {
        question.context.guard = (*self.findings).clone();
        question.context.encrypted = self.kind == decide::Kind::Encrypted;
        question
    }

    /// What an event of a room says.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn of(
        standing: &Standing,
        rooms: &Rooms,
        room: &RoomFacts,
        event: &Event,
        default: Option<&Label>,
    ) -> Result<Self, Error> {
        let content: Map<String, Value> = event.content_as().unwrap_or_default();
        let event_type = event.kind().to_string();
        let is_never_redacted = event.state_key().is_some() && NEVER_REDACTED.contains(&event_type.as_str());
        let said = said_in(standing, &content);
        let own = match &said {
            Ok(Some(said)) => standing.resolve(Some(said)),
            Ok(None) if is_never_redacted => room.floor.clone(),
            Ok(None) => match default {
                Some(default) => standing.resolve(Some(default)),
                None => room.ceiling.clone(),
            },
            Err(error) => Err(error.clone()),
        };
        let mut label = own;
        if !room.is_unlabelled() || matches!(said, Ok(Some(_))) {
            for target in rooms.related_by(&event.room_id, event.content())? {
                // One step: what that relates to stands in its own label's way.
                let content: Map<String, Value> = target.content_as().unwrap_or_default();
                let targets = match said_in(standing, &content) {
                    Ok(Some(said)) => standing.resolve(Some(&said)),
                    Ok(None) => room.ceiling.clone(),
                    Err(error) => Err(error),
                };
                label = match (label, targets) {
                    (Ok(label), Ok(targets)) if targets.at_most(&label) => Ok(label),
                    (Ok(label), Ok(targets)) => Ok(Arc::new(label.join(&targets))),
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
            }
        }
        let findings = match &standing.guards {
            Some(guards) => {
                let verdict = guards.inspect_event(&Value::Object(content.clone()), &event_type);
                Arc::new(verdict.classes().clone())
            }
            None => Arc::default(),
        };
        Ok(Self {
            said: said.ok().flatten(),
            label,
            kind: kind_of(&event_type, event.state_key().is_some(), &content),
            has_media: shows_file(&content),
            event_type,
            is_never_redacted,
            size: u32::try_from(event.json().len()).unwrap_or(u32::MAX),
            findings,
        })
    }
}

/// What the create event of a room says that is here.
///
/// # Errors
/// The store's.
pub(crate) fn room_facts(standing: &Standing, rooms: &Rooms, room: RoomNum) -> Result<Arc<RoomFacts>, Error> {
    if let Some(facts) = standing.rooms.get(&room) {
        return Ok(facts);
    }
    let create = match rooms.record(room)?.and_then(|record| record.create) {
        Some(create) => Some(rooms.event(create)?),
        None => rooms.state(room, "m.room.create", "")?,
    };
    let content = create.as_ref().and_then(|create| create.content_as()).unwrap_or_default();
    let facts = Arc::new(RoomFacts::of(standing, rooms.room_id(room)?, &content));
    // Of a room that is not here yet more will be known.
    if create.is_some() {
        standing.rooms.insert(room, facts.clone());
    }
    Ok(facts)
}
