//! Rooms: creating them, what is said and set in them, who is in them, and reading them.

mod create;
mod directory;
mod ephemeral;
mod hierarchy;
mod membership;
mod reading;
mod relations;
mod search;
mod send;
mod state;
mod timeline;
mod upgrade;

use crate::{Api, http::ApiError};
use axum::Router;
use postern_graph::RoomNum;
use postern_rooms::{Entry, view::Viewer};
use postern_users::Session;
use ruma::RoomId;

pub fn routes() -> Router<Api> {
    Router::new()
        .merge(create::routes())
        .merge(directory::routes())
        .merge(ephemeral::routes())
        .merge(membership::routes())
        .merge(reading::routes())
        .merge(relations::routes())
        .merge(search::routes())
        .merge(send::routes())
        .merge(state::routes())
        .merge(timeline::routes())
}

/// Who looks, of a session.
pub(crate) fn viewer(session: &Session) -> Viewer<'_> {
    Viewer { user: session.user, user_id: &session.user_id, device_id: &session.device_id }
}

/// The number of a room. Whether an unknown room exists is not told: it is as forbidden as any other.
pub(crate) fn room_num(api: &Api, room: &RoomId) -> Result<RoomNum, ApiError> {
    api.rooms.room(room)?.ok_or_else(|| ApiError::forbidden("you are not in this room"))
}

/// The number of a room, as far as somebody may know of it: one that they have nothing to do with and are not cleared for is
/// as one that is not there.
pub(crate) fn known(api: &Api, who: Option<&Session>, room: &RoomId) -> Result<Option<RoomNum>, ApiError> {
    let Some(room) = api.rooms.room(room)? else { return Ok(None) };
    if let Some(session) = who
        && api.rooms.member(room, session.user)?.is_some()
    {
        return Ok(Some(room));
    }
    let may_know = api.rooms.may_enter(who.map(|session| &*session.user_id), room, Entry::Look)?;
    Ok(may_know.then_some(room))
}

/// The same, for a room the caller has to be joined to.
pub(crate) fn joined_room(api: &Api, session: &Session, room: &RoomId) -> Result<RoomNum, ApiError> {
    let room = room_num(api, room)?;
    if api.rooms.is_joined(room, session.user)? {
        Ok(room)
    } else {
        Err(ApiError::forbidden("you are not in this room"))
    }
}
