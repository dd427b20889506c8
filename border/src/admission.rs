//! Rooms as they come into being, and rooms of other servers before one enters them.

use crate::{
    Border, Error,
    acls::{self, ACL},
    encryption::give_rule,
    facts::{AUDITOR, DIRECT, FLOOR, LABEL, RoomFacts, room_facts, text_of},
    gate::{dominates, why_not},
    rulings::{rule, within},
    standing::Standing,
};
use postern_policy::{
    Label,
    decide::{Action, Resource},
};
use postern_rooms::{CLEARANCE, CreateRoom, Error as RoomsError, Preset, Rooms};
use ruma::{RoomId, UserId, room_id};
use serde_json::{Map, Value, json, value::RawValue};

/// The state that shows a room's label: its marking, as clients can show it above the room.
pub const BANNER: &str = "io.postern.banner";

/// The power it takes to invite to a labelled room that other servers may be in.
const INVITE: i64 = 50;

fn forbidden(why: impl Into<String>) -> Error {
    RoomsError::Forbidden(why.into()).into()
}

impl Border {
    /// Gives a room that a local user creates its label, and what follows from it.
    pub(crate) fn creates(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        creator: &UserId,
        request: &mut CreateRoom,
    ) -> Result<(), Error> {
        give_rule(standing, request)?;
        if let Some(auditor) = request.creation_content.get(AUDITOR).and_then(Value::as_str)
            && let Ok(auditor) = UserId::parse(auditor)
            && self.0.users.account(&auditor)?.is_none()
        {
            return Err(forbidden(format!("the auditor {auditor} has no account")));
        }
        self.give_label(standing, rooms, request)?;
        if request.is_direct && request.creation_content.contains_key(LABEL) {
            request.creation_content.insert(DIRECT.to_owned(), true.into());
        }
        // Where it stands is not known yet; what it says is.
        let mut facts = RoomFacts::of(standing, room_id!("!room").to_owned(), &request.creation_content);
        for held in [&facts.ceiling, &facts.floor] {
            if let Err(error) = held {
                return Err(forbidden(&**error));
            }
        }
        let holder = self.holder(standing, creator, "")?;
        let cleared = dominates(&holder.clearance, &facts.ceiling);
        if !cleared {
            let why = why_not(standing, &holder.clearance, &facts.ceiling);
            return Err(forbidden(format!("you are not cleared for such a room: {why}")));
        }
        if standing.watches_all || !facts.is_unlabelled() {
            let resource = Resource::Room(facts.room.clone());
            let mut question = within(holder.user.clone(), Action::Create, resource, true);
            question.context.sender_dominates = true;
            let ruling = rule(standing, &self.0.ledger, question);
            if !ruling.allowed {
                self.refuse("create", creator.as_str(), "", &ruling.why);
                return Err(forbidden(format!("you may not create such a room: {}", ruling.why)));
            }
        }
        if facts.is_unlabelled() {
            return Ok(());
        }
        let for_some_peer = standing.peers().any(|(_, peer)| dominates(&peer.clearance, &facts.floor));
        if !for_some_peer {
            // Nobody else could be in it.
            request.creation_content.insert("m.federate".to_owned(), false.into());
            facts.federate = false;
        }
        self.close(standing, &facts, request);
        if let Some(label) = &facts.label {
            mark(standing, label, request)?;
        }
        Ok(())
    }

    /// The label asked for, that of the space the room is made in, or the default; in its one form.
    fn give_label(&self, standing: &Standing, rooms: &Rooms, request: &mut CreateRoom) -> Result<(), Error> {
        let content = &mut request.creation_content;
        for key in [LABEL, FLOOR] {
            let label = match content.get(key) {
                None => continue,
                Some(Value::String(text)) => {
                    standing.policies.parse_label(text).map_err(|error| forbidden(error.to_string()))?
                }
                Some(value) => Label::from_json(value).map_err(|error| forbidden(error.to_string()))?,
            };
            let label = standing.policies.complete(&label).map_err(|error| forbidden(error.to_string()))?;
            content.insert(key.to_owned(), label.to_json());
        }
        if content.contains_key(LABEL) {
            return Ok(());
        }
        let space = request.initial_state.iter().find(|(kind, _, _)| kind == "m.space.parent");
        let space = match space.and_then(|(_, id, _)| <&RoomId>::try_from(id.as_str()).ok()) {
            Some(id) => rooms.room(id)?,
            None => None,
        };
        let label = match space {
            Some(space) => room_facts(standing, rooms, space)?.label.clone(),
            None => None,
        };
        let of_preset = || {
            let (_, label) = standing.preset_labels.iter().find(|(preset, _)| *preset == request.preset)?;
            label.clone()
        };
        if let Some(label) = label.or_else(of_preset).or_else(|| standing.default_label.clone()) {
            let label = standing.policies.complete(&label).map_err(|error| forbidden(error.to_string()))?;
            request.creation_content.insert(LABEL.to_owned(), label.to_json());
        }
        Ok(())
    }

    /// Sees to it that other servers, too, let nobody into a labelled room whom this one would not.
    fn close(&self, standing: &Standing, facts: &RoomFacts, request: &mut CreateRoom) {
        let has = |request: &CreateRoom, kind: &str| {
            request.initial_state.iter().any(|(event_type, key, _)| event_type == kind && key.is_empty())
        };
        let state = |request: &mut CreateRoom, kind: &str, content: Value| {
            if !has(request, kind) {
                request.initial_state.push((kind.to_owned(), String::new(), content));
            }
        };
        state(request, "m.room.guest_access", json!({ "guest_access": "forbidden" }));
        if !facts.federate {
            return;
        }
        // Whoever joins needs an invite, or the signature of the server of somebody who may invite: only this one's may.
        request.power_levels.entry("invite".to_owned()).or_insert_with(|| INVITE.into());
        if request.preset == Preset::PublicChat {
            state(
                request,
                "m.room.join_rules",
                json!({ "join_rule": "restricted", "allow": [{ "type": CLEARANCE }] }),
            );
        }
        let allow = acls::allowed(standing, &self.0.server, facts);
        state(request, ACL, acls::content(&allow));
        if standing.policy_server {
            let key = self.0.policy_key.public();
            state(
                request,
                "m.room.policy",
                json!({ "via": self.0.server, "public_keys": { "ed25519": key } }),
            );
        }
    }

    /// Why a local user may not enter a room of another server.
    pub(crate) fn enters_elsewhere(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        user: &UserId,
        room: &RoomId,
        create: Option<&RawValue>,
    ) -> Result<Option<String>, Error> {
        let content =
            create.map(|create| serde_json::from_str::<Map<String, Value>>(create.get())).transpose();
        let Ok(content) = content else {
            return Ok(Some("what the room is cannot be read".to_owned()));
        };
        let content = content.unwrap_or_default();
        let facts = RoomFacts::of(standing, room.to_owned(), &content);
        if !standing.watches_all && facts.is_unlabelled() {
            return Ok(None);
        }
        let Err(why) = self.may_join(standing, rooms, user, &facts)? else { return Ok(None) };
        self.refuse("join", user.as_str(), room.as_str(), &why);
        Ok(Some(format!("you are not cleared for this room: {why}")))
    }
}

/// Shows the label of a room in it.
fn mark(standing: &Standing, label: &Label, request: &mut CreateRoom) -> Result<(), Error> {
    let marking = standing.policies.marking(label).map_err(|error| forbidden(error.to_string()))?;
    request.initial_state.push((
        BANNER.to_owned(),
        String::new(),
        json!({ "text": marking.text, "short": marking.short, "colour": marking.colour, "label": text_of(standing, label) }),
    ));
    if standing.topic_marking {
        request.topic = Some(match request.topic.take() {
            Some(topic) => format!("[{}] {topic}", marking.text),
            None => format!("[{}]", marking.text),
        });
    }
    Ok(())
}
