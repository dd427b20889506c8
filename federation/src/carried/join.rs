//! Joining a room of a server by hand: the invite brought the room's state, and the join goes back as an event. The room's rules ask
//! for no more than the invite.

use super::Fault;
use crate::{Error, Federation, memberships::create_content};
use postern_graph::event::MembershipKind;
use postern_rooms::Error as RoomsError;
use ruma::{CanonicalJsonObject, EventId, OwnedEventId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};
use std::sync::Arc;

/// What an invite brought.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Brought {
    /// The state before the invite.
    pub(super) state: Vec<OwnedEventId>,
}

/// Where it stands among what is kept: under the invite's id.
pub(super) const INVITE: &str = "invite";

fn raw(json: &str) -> Result<Box<RawValue>, RoomsError> {
    RawValue::from_string(json.to_owned()).map_err(|error| RoomsError::BadJson(error.to_string()))
}

impl Federation {
    /// Joins a local user to a room by the invite that a bundle brought.
    pub(crate) async fn join_by_hand(
        &self,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let rooms = &self.0.rooms;
        let nothing = || {
            Fault::NotBrought(format!(
                "{server} is reached by hand: its rooms are entered by invite, which a bundle brings"
            ))
        };
        let room = rooms.room(room_id)?.ok_or_else(nothing)?;
        let number = rooms.user(user)?.ok_or_else(nothing)?;
        let membership = rooms.member(room, number)?.ok_or_else(nothing)?;
        if membership.kind != MembershipKind::Invite {
            return Err(nothing().into());
        }
        let invite = rooms.event(membership.event)?;
        let brought = self.kept(server, INVITE, invite.id.as_str())?.ok_or_else(nothing)?;
        let brought: Brought = serde_json::from_slice(&brought)
            .map_err(|error| Fault::State("invite".to_owned(), error.to_string()))?;
        let version = rooms.version_of(room)?;
        if version.rules.event_format.require_event_id {
            return Err(RoomsError::UnsupportedVersion(version.id.to_string()).into());
        }
        let mut state = Vec::with_capacity(brought.state.len() + 1);
        for id in &brought.state {
            let event = rooms.event_by_id(id)?.ok_or_else(|| RoomsError::MissingEvents(vec![id.clone()]))?;
            // The invite takes the place of what the user was before.
            if event.membership().is_none() || event.state_key() != Some(user.as_str()) {
                state.push(event);
            }
        }
        let find = |kind: &str| state.iter().find(|event| event.kind().to_string() == kind);
        let create = find("m.room.create").ok_or_else(nothing)?;
        rooms.check_entry_elsewhere(user, room_id, create_content(&raw(create.json())?).as_deref())?;
        let mut auth: Vec<&EventId> = vec![&invite.id];
        if !version.rules.authorization.room_create_event_id_as_room_id {
            auth.push(&create.id);
        }
        auth.extend(
            ["m.room.power_levels", "m.room.join_rules"].iter().filter_map(|kind| Some(&*find(kind)?.id)),
        );
        let proposal: CanonicalJsonObject = serde_json::from_value(json!({
            "prev_events": [invite.id],
            "auth_events": auth,
            "depth": invite.depth().saturating_add(1),
        }))
        .map_err(|error| RoomsError::BadJson(error.to_string()))?;
        let join =
            rooms.complete(room_id, version.id.as_str(), user, MembershipKind::Join, content, &proposal)?;
        let nums: Vec<_> = state.iter().map(|event| event.num).collect();
        let chain = rooms.events(&rooms.auth_chain(&nums)?)?;
        let of = |events: &[Arc<postern_rooms::Event>]| {
            events.iter().map(|event| raw(event.json())).collect::<Result<Vec<_>, _>>()
        };
        state.push(invite);
        let (state, chain) = (of(&state)?, of(&chain)?);
        let version_of = postern_rooms::version::version(version.id.as_str())?;
        let state = self.verify_all(&version_of, &state, server).await;
        let chain = self.verify_all(&version_of, &chain, server).await;
        Ok(rooms.adopt(room_id, version.id.as_str(), state, chain, join, None).await?)
    }
}
