//! What a server is sent.

use super::residents::{waiting_outside, was_in};
use crate::Error;
use postern_rooms::{Event, Rooms};
use ruma::{RoomId, ServerName, UserId, events::TimelineEventType};
use serde_json::{Value, value::RawValue};

/// The form in which an event is sent to a server, once [`Rooms::settled`] says so; nothing if it is not.
///
/// It is sent to servers that were in the room before or after it and were allowed there by the room's access control
/// list before it: a server that is denied from now on still hears of that. So it does of memberships of its own users,
/// whatever the list says: that they were removed must reach it.
pub(super) fn release(
    rooms: &Rooms,
    destination: &ServerName,
    event: &Event,
) -> Result<Option<Box<RawValue>>, Error> {
    if !event.record.is_visible() {
        return Ok(None);
    }
    let waits = waiting_outside(rooms, event)?.is_some_and(|server| server == destination);
    if !waits && !was_in(rooms, destination, event)? {
        return Ok(None);
    }
    let own = *event.kind() == TimelineEventType::RoomMember
        && event
            .state_key()
            .and_then(|user| <&UserId>::try_from(user).ok())
            .is_some_and(|user| user.server_name() == destination);
    if !own && !rooms.server_allowed_in(event.record.state_before, destination)? {
        return Ok(None);
    }
    Ok(rooms.released(destination, event)?)
}

/// What of an EDU that a server is due goes to it now: it may have waited, and the server may know fewer rooms by now.
pub(super) fn released_part(
    rooms: &Rooms,
    destination: &ServerName,
    mut edu: Value,
) -> Result<Option<Value>, Error> {
    if rooms.gate().is_none() {
        return Ok(Some(edu));
    }
    if edu.get("edu_type").and_then(Value::as_str) != Some("m.receipt") {
        return Ok(Some(edu));
    }
    let Some(content) = edu.get_mut("content").and_then(Value::as_object_mut) else { return Ok(None) };
    let mut unknown = Vec::new();
    for room in content.keys() {
        let number = <&RoomId>::try_from(room.as_str()).ok().map(|room| rooms.room(room));
        let number = number.transpose()?.flatten();
        if !number.map_or(Ok(false), |room| rooms.may_know(destination, room))? {
            unknown.push(room.clone());
        }
    }
    content.retain(|room, _| !unknown.contains(room));
    Ok((!content.is_empty()).then_some(edu))
}
