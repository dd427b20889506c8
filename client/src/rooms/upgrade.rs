//! Taking along what a user has set for a room when it is replaced (specification: room upgrades).

use crate::{Api, http::ApiError};
use postern_graph::RoomNum;
use postern_users::Session;
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};

/// Copies the user's push rule, tags and mark as a direct chat from the predecessor of `room`, if it has one.
pub(crate) async fn carry_over(api: &Api, session: &Session, room: RoomNum) -> Result<(), ApiError> {
    let Some(create) = api.rooms.state(room, "m.room.create", "")? else { return Ok(()) };
    let content: Value = create.content_as().unwrap_or_default();
    let old: Option<OwnedRoomId> =
        content.pointer("/predecessor/room_id").and_then(Value::as_str).and_then(|id| RoomId::parse(id).ok());
    let Some(old) = old else { return Ok(()) };
    let new = api.rooms.room_id(room)?;
    let Some(old_room) = api.rooms.room(&old)? else { return Ok(()) };
    if api.rooms.member(old_room, session.user)?.is_none() {
        return Ok(());
    }
    let users = &api.users;
    users.copy_room_rule(&session.user_id, session.user, &old, &new).await?;
    if let Some(tags) = users.account_data(session.user, old_room, "m.tag")?
        && users.account_data(session.user, room, "m.tag")?.is_none()
    {
        users.set_account_data(session.user, room, "m.tag", &tags).await?;
    }
    carry_direct(api, session, &old, &new).await
}

async fn carry_direct(api: &Api, session: &Session, old: &RoomId, new: &RoomId) -> Result<(), ApiError> {
    let Some(text) = api.users.account_data(session.user, RoomNum::NONE, "m.direct")? else { return Ok(()) };
    let mut direct: Value = serde_json::from_str(&text).unwrap_or_default();
    let Some(by_user) = direct.as_object_mut() else { return Ok(()) };
    let mut changed = false;
    for rooms in by_user.values_mut().filter_map(Value::as_array_mut) {
        if rooms.contains(&json!(old)) && !rooms.contains(&json!(new)) {
            rooms.push(json!(new));
            changed = true;
        }
    }
    if changed {
        api.users.set_account_data(session.user, RoomNum::NONE, "m.direct", &direct.to_string()).await?;
    }
    Ok(())
}
