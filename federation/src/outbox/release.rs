//! What a server is sent.

use super::residents::{waiting_outside, was_in};
use crate::Error;
use postern_rooms::{Event, Rooms};
use ruma::{ServerName, UserId, events::TimelineEventType};
use serde_json::value::RawValue;

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
