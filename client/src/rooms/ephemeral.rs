//! What is said about a room in passing: typing, receipts, read markers.

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params, done},
    rooms::joined_room,
};
use axum::{
    Router,
    extract::State,
    routing::{post, put},
};
use postern_graph::RoomNum;
use postern_rooms::ReceiptKind;
use postern_users::Session;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let room = format!("/_matrix/client/{version}/rooms/{{room}}");
        router = router
            .route(&format!("{room}/typing/{{user}}"), put(typing))
            .route(&format!("{room}/receipt/{{kind}}/{{event}}"), post(receipt))
            .route(&format!("{room}/read_markers"), post(read_markers));
    }
    router
}

#[derive(Debug, Deserialize)]
struct Typing {
    typing: bool,
    timeout: Option<u64>,
}

async fn typing(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, user)): Params<(OwnedRoomId, OwnedUserId)>,
    Body(request): Body<Typing>,
) -> Answer {
    if user != session.user_id {
        return Err(ApiError::forbidden("you cannot type for another user"));
    }
    let room = joined_room(&api, &session, &room)?;
    let duration = request.typing.then(|| Duration::from_millis(request.timeout.unwrap_or(30_000)));
    api.typing.set(room, session.user, duration);
    api.elsewhere.typing(room, &session.user_id, request.typing);
    Ok(done())
}

#[derive(Debug, Default, Deserialize)]
struct Receipt {
    thread_id: Option<String>,
}

async fn receipt(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, kind, event)): Params<(OwnedRoomId, String, OwnedEventId)>,
    Body(request): Body<Receipt>,
) -> Answer {
    let number = joined_room(&api, &session, &room)?;
    if request.thread_id.as_deref() == Some("") {
        return Err(ApiError::invalid_param("thread_id is main or the id of an event"));
    }
    let thread = request.thread_id.unwrap_or_default();
    match kind.as_str() {
        "m.read" => read(&api, &session, number, ReceiptKind::Public, &thread, &event).await?,
        "m.read.private" => read(&api, &session, number, ReceiptKind::Private, &thread, &event).await?,
        "m.fully_read" if thread.is_empty() => fully_read(&api, &session, number, &event).await?,
        "m.fully_read" => return Err(ApiError::invalid_param("m.fully_read is of no thread")),
        _ => return Err(ApiError::invalid_param("no such kind of receipt")),
    }
    Ok(done())
}

async fn read(
    api: &Api,
    session: &Session,
    room: RoomNum,
    kind: ReceiptKind,
    thread: &str,
    event: &EventId,
) -> Result<(), ApiError> {
    Ok(api.rooms.set_receipt(room, session.user, kind, thread, event).await?)
}

async fn fully_read(api: &Api, session: &Session, room: RoomNum, event: &EventId) -> Result<(), ApiError> {
    let content = json!({ "event_id": event }).to_string();
    Ok(api.users.set_account_data(session.user, room, "m.fully_read", &content).await?)
}

#[derive(Debug, Deserialize)]
struct Markers {
    #[serde(rename = "m.fully_read")]
    fully_read: Option<OwnedEventId>,
    #[serde(rename = "m.read")]
    read: Option<OwnedEventId>,
    #[serde(rename = "m.read.private")]
    private: Option<OwnedEventId>,
}

async fn read_markers(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(markers): Body<Markers>,
) -> Answer {
    let number = joined_room(&api, &session, &room)?;
    if let Some(event) = &markers.read {
        read(&api, &session, number, ReceiptKind::Public, "", event).await?;
    }
    if let Some(event) = &markers.private {
        read(&api, &session, number, ReceiptKind::Private, "", event).await?;
    }
    if let Some(event) = &markers.fully_read {
        fully_read(&api, &session, number, event).await?;
    }
    Ok(done())
}
