//! What users keep for themselves: account data, tags, filters, OpenID tokens.

use crate::{
    Api,
    filter::SyncFilter,
    http::{Answer, ApiError, Body, Caller, JsonText, Params, done},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post, put},
};
use postern_graph::RoomNum;
use postern_users::Session;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value, json, value::RawValue};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let user = format!("/_matrix/client/{version}/user/{{user}}");
        router = router
            .route(&format!("{user}/account_data/{{type}}"), get(global_data).put(set_global_data))
            .route(&format!("{user}/rooms/{{room}}/account_data/{{type}}"), get(room_data).put(set_room_data))
            .route(&format!("{user}/rooms/{{room}}/tags"), get(tags))
            .route(&format!("{user}/rooms/{{room}}/tags/{{tag}}"), put(set_tag).delete(remove_tag))
            .route(&format!("{user}/filter"), post(add_filter))
            .route(&format!("{user}/filter/{{id}}"), get(filter))
            .route(&format!("{user}/openid/request_token"), post(openid_token));
    }
    router
}

fn own(session: &Session, user: &UserId) -> Result<(), ApiError> {
    if *user == session.user_id { Ok(()) } else { Err(ApiError::forbidden("this is another user's")) }
}

/// Kept by the server itself: read markers have an endpoint of their own, push rules too.
fn writable(data_type: &str) -> Result<(), ApiError> {
    match data_type {
        "m.fully_read" | "m.push_rules" => Err(ApiError::new(
            axum::http::StatusCode::METHOD_NOT_ALLOWED,
            "M_BAD_JSON",
            format!("{data_type} is not set through this endpoint"),
        )),
        _ => Ok(()),
    }
}

fn text(content: Option<String>) -> Answer<Json<Box<RawValue>>> {
    let content = content.ok_or_else(|| ApiError::not_found("no such account data"))?;
    RawValue::from_string(content).map(Json).map_err(|error| ApiError::internal(&error))
}

async fn global_data(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, data_type)): Params<(OwnedUserId, String)>,
) -> Answer<Json<Box<RawValue>>> {
    own(&session, &user)?;
    if data_type == "m.push_rules" {
        let rules = json!({ "global": api.users.push_rules(&session.user_id, session.user)? });
        return text(Some(rules.to_string()));
    }
    text(api.users.account_data(session.user, RoomNum::NONE, &data_type)?)
}

async fn set_global_data(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, data_type)): Params<(OwnedUserId, String)>,
    JsonText(content): JsonText,
) -> Answer {
    own(&session, &user)?;
    writable(&data_type)?;
    api.users.set_account_data(session.user, RoomNum::NONE, &data_type, content.get()).await?;
    Ok(done())
}

fn room_num(api: &Api, room: &RoomId) -> Result<RoomNum, ApiError> {
    Ok(api.rooms.known_room(room)?)
}

async fn room_data(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, room, data_type)): Params<(OwnedUserId, OwnedRoomId, String)>,
) -> Answer<Json<Box<RawValue>>> {
    own(&session, &user)?;
    text(api.users.account_data(session.user, room_num(&api, &room)?, &data_type)?)
}

async fn set_room_data(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, room, data_type)): Params<(OwnedUserId, OwnedRoomId, String)>,
    JsonText(content): JsonText,
) -> Answer {
    own(&session, &user)?;
    writable(&data_type)?;
    api.users.set_account_data(session.user, room_num(&api, &room)?, &data_type, content.get()).await?;
    Ok(done())
}

fn stored_tags(api: &Api, session: &Session, room: RoomNum) -> Result<Map<String, Value>, ApiError> {
    let stored = api.users.account_data(session.user, room, "m.tag")?;
    let content: Value = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    Ok(content.get("tags").and_then(Value::as_object).cloned().unwrap_or_default())
}

async fn tags(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, room)): Params<(OwnedUserId, OwnedRoomId)>,
) -> Answer {
    own(&session, &user)?;
    Ok(Json(json!({ "tags": stored_tags(&api, &session, room_num(&api, &room)?)? })))
}

async fn set_tag(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, room, tag)): Params<(OwnedUserId, OwnedRoomId, String)>,
    Body(content): Body<Map<String, Value>>,
) -> Answer {
    own(&session, &user)?;
    if tag.len() > 255 {
        return Err(ApiError::invalid_param("a tag has at most 255 bytes"));
    }
    let room = room_num(&api, &room)?;
    let mut tags = stored_tags(&api, &session, room)?;
    tags.insert(tag, Value::Object(content));
    api.users.set_account_data(session.user, room, "m.tag", &json!({ "tags": tags }).to_string()).await?;
    Ok(done())
}

async fn remove_tag(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, room, tag)): Params<(OwnedUserId, OwnedRoomId, String)>,
) -> Answer {
    own(&session, &user)?;
    let room = room_num(&api, &room)?;
    let mut tags = stored_tags(&api, &session, room)?;
    tags.remove(&tag);
    api.users.set_account_data(session.user, room, "m.tag", &json!({ "tags": tags }).to_string()).await?;
    Ok(done())
}

async fn add_filter(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(user): Params<OwnedUserId>,
    JsonText(filter): JsonText,
) -> Answer {
    own(&session, &user)?;
    // A filter that cannot be used is refused now, not at every sync.
    SyncFilter::parse(filter.get()).map_err(|error| ApiError::bad_json(format!("not a filter: {error}")))?;
    let id = api.users.add_filter(session.user, filter.get()).await?;
    Ok(Json(json!({ "filter_id": id })))
}

async fn filter(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((user, id)): Params<(OwnedUserId, String)>,
) -> Answer<Json<Box<RawValue>>> {
    own(&session, &user)?;
    let filter = api.users.filter(session.user, &id)?.ok_or_else(|| ApiError::not_found("no such filter"))?;
    text(Some(filter))
}

async fn openid_token(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(user): Params<OwnedUserId>,
) -> Answer {
    own(&session, &user)?;
    let life = postern_users::limits::OPENID_TOKEN_MS;
    let token = api.users.short_token("openid", &session.user_id, life).await?;
    Ok(Json(json!({
        "access_token": token,
        "token_type": "Bearer",
        "matrix_server_name": api.rooms.server_name(),
        "expires_in": life / 1000,
    })))
}
