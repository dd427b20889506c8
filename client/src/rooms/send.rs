//! Sending and redacting (specification: sending events to a room, redactions).

use crate::{
    Api,
    http::{Answer, Body, Caller, Class, JsonText, Params},
    rooms::joined_room,
};
use axum::{Json, Router, extract::State, routing::put};
use postern_rooms::{Draft, Txn};
use postern_users::Session;
use ruma::{OwnedEventId, OwnedRoomId};
use serde_json::{Map, Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let room = format!("/_matrix/client/{version}/rooms/{{room}}");
        router = router
            .route(&format!("{room}/send/{{type}}/{{txn}}"), put(send))
            .route(&format!("{room}/redact/{{event}}/{{txn}}"), put(redact));
    }
    router
}

/// A transaction id means the same request only where the whole path is the same: `about` is the rest of it.
fn txn(session: &Session, endpoint: &str, room: &ruma::RoomId, about: &str, id: String) -> Txn {
    Txn { device: session.device_id.clone(), scope: format!("{endpoint} {room} {about}"), id }
}

async fn send(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event_type, id)): Params<(OwnedRoomId, String, String)>,
    JsonText(content): JsonText,
) -> Answer {
    api.limiter.check(Class::Message, session.user_id.as_str())?;
    joined_room(&api, &session, &room)?;
    let txn = txn(&session, "send", &room, &event_type, id);
    let draft = Draft { txn: Some(txn), ..Draft::message(event_type, content) };
    let event = api.rooms.send(&session.user_id, &room, draft).await?;
    Ok(Json(json!({ "event_id": event })))
}

async fn redact(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event, id)): Params<(OwnedRoomId, OwnedEventId, String)>,
    Body(content): Body<Map<String, Value>>,
) -> Answer {
    api.limiter.check(Class::Message, session.user_id.as_str())?;
    joined_room(&api, &session, &room)?;
    let content = serde_json::value::to_raw_value(&content)
        .map_err(|error| crate::http::ApiError::bad_json(error.to_string()))?;
    let txn = txn(&session, "redact", &room, event.as_str(), id);
    let draft = Draft { redacts: Some(event), txn: Some(txn), ..Draft::message("m.room.redaction", content) };
    let event = api.rooms.send(&session.user_id, &room, draft).await?;
    Ok(Json(json!({ "event_id": event })))
}
