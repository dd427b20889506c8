//! Presence (specification: presence).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params, done},
};
use axum::{Json, Router, extract::State, routing::get};
use postern_rooms::now_ms;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        router = router
            .route(&format!("/_matrix/client/{version}/presence/{{user}}/status"), get(status).put(set));
    }
    router
}

async fn status(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(user): Params<OwnedUserId>,
) -> Answer {
    let number = api.users.number(&user)?.ok_or_else(|| ApiError::not_found("no such user"))?;
    if number != session.user && !shares_room(&api, session.user, number)? {
        return Err(ApiError::forbidden("you share no room with this user"));
    }
    let stored = api.users.presence(number)?.map(|(_, presence)| presence);
    Ok(Json(content(stored.as_ref())))
}

/// Presence as clients see it.
pub(crate) fn content(stored: Option<&Value>) -> Value {
    let presence = stored.and_then(|p| p.get("presence")).cloned().unwrap_or_else(|| "offline".into());
    let mut body = json!({ "presence": presence });
    if let Some(last) = stored.and_then(|p| p.get("last_active_ts")).and_then(Value::as_u64) {
        let ago = now_ms().saturating_sub(last);
        body["last_active_ago"] = ago.into();
        body["currently_active"] = (presence == "online" && ago < 60_000).into();
    }
    if let Some(message) = stored.and_then(|p| p.get("status_msg")).filter(|message| !message.is_null()) {
        body["status_msg"] = message.clone();
    }
    body
}

fn shares_room(api: &Api, a: postern_graph::UserNum, b: postern_graph::UserNum) -> Result<bool, ApiError> {
    for room in api.rooms.joined_rooms(a)? {
        if api.rooms.is_joined(room, b)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[derive(Debug, Deserialize)]
struct Set {
    presence: String,
    status_msg: Option<String>,
}

async fn set(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(user): Params<OwnedUserId>,
    Body(request): Body<Set>,
) -> Answer {
    if user != session.user_id {
        return Err(ApiError::forbidden("this is another user's presence"));
    }
    if !matches!(request.presence.as_str(), "online" | "offline" | "unavailable") {
        return Err(ApiError::bad_json("presence is online, offline or unavailable"));
    }
    if !api.config.users.presence {
        return Ok(done());
    }
    let presence = json!({
        "presence": request.presence,
        "status_msg": request.status_msg,
        "last_active_ts": now_ms(),
    });
    api.users.set_presence(session.user, presence).await?;
    Ok(done())
}
