//! Room state (specification: getting and setting state).

use crate::{
    Api,
    http::{Answer, ApiError, Caller, Class, JsonText, Params, Query},
    rooms::{joined_room, known, room_num, viewer},
};
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use postern_rooms::{Draft, view::Format};
use postern_users::Session;
use ruma::{OwnedRoomId, RoomAliasId, RoomId};
use serde::Deserialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let state = format!("/_matrix/client/{version}/rooms/{{room}}/state");
        router = router
            .route(&state, get(all))
            .route(&format!("{state}/{{type}}"), get(one_unkeyed).put(set_unkeyed))
            .route(&format!("{state}/{{type}}/"), get(one_unkeyed).put(set_unkeyed))
            .route(&format!("{state}/{{type}}/{{key}}"), get(one).put(set));
    }
    router
}

async fn all(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
) -> Answer<Json<Vec<Box<RawValue>>>> {
    let room = room_num(&api, &room)?;
    api.rooms.wait_for_whole_state(room).await?;
    let viewer = viewer(&session);
    let (root, _) = api.rooms.readable_state(room, &viewer)?;
    let format = Format { room_id: true, bundled: false };
    let mut events = Vec::new();
    for event in api.rooms.all_state_in(root)? {
        events.push(api.rooms.client_event(&event, &viewer, format)?);
    }
    Ok(Json(events))
}

#[derive(Debug, Deserialize)]
struct As {
    format: Option<String>,
}

async fn one(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event_type, key)): Params<(OwnedRoomId, String, String)>,
    Query(query): Query<As>,
) -> Result<Response, ApiError> {
    read(&api, &session, &room, &event_type, &key, &query)
}

async fn one_unkeyed(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event_type)): Params<(OwnedRoomId, String)>,
    Query(query): Query<As>,
) -> Result<Response, ApiError> {
    read(&api, &session, &room, &event_type, "", &query)
}

fn read(
    api: &Api,
    session: &Session,
    room: &RoomId,
    event_type: &str,
    key: &str,
    query: &As,
) -> Result<Response, ApiError> {
    let room = room_num(api, room)?;
    let viewer = viewer(session);
    let (root, _) = api.rooms.readable_state(room, &viewer)?;
    let event = api
        .rooms
        .state_in(root, event_type, key)?
        .ok_or_else(|| ApiError::not_found("the room has no such state"))?;
    Ok(match query.format.as_deref() {
        Some("event") => {
            let format = Format { room_id: true, bundled: false };
            Json(api.rooms.client_event(&event, &viewer, format)?).into_response()
        }
        _ => Json(api.rooms.content_for(&viewer, &event)?).into_response(),
    })
}

async fn set(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event_type, key)): Params<(OwnedRoomId, String, String)>,
    JsonText(content): JsonText,
) -> Answer {
    write(&api, &session, &room, event_type, key, content).await
}

async fn set_unkeyed(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event_type)): Params<(OwnedRoomId, String)>,
    JsonText(content): JsonText,
) -> Answer {
    write(&api, &session, &room, event_type, String::new(), content).await
}

async fn write(
    api: &Api,
    session: &Session,
    room: &RoomId,
    event_type: String,
    state_key: String,
    content: Box<RawValue>,
) -> Answer {
    api.limiter.check(Class::Message, session.user_id.as_str())?;
    if event_type == "m.room.member" {
        known(api, Some(session), room)?.ok_or_else(|| ApiError::forbidden("you are not in this room"))?;
    } else {
        joined_room(api, session, room)?;
    }
    if event_type == "m.room.canonical_alias" && state_key.is_empty() {
        check_aliases(api, room, &content)?;
    }
    let content = if event_type == "m.room.member" { without_authorizer(content)? } else { content };
    let draft = Draft { state_key: Some(state_key), ..Draft::message(event_type, content) };
    let event = api.rooms.send(&session.user_id, room, draft).await?;
    Ok(Json(json!({ "event_id": event })))
}

/// Who lets a user into a restricted room is decided by the server; what a client says of it is left out.
fn without_authorizer(content: Box<RawValue>) -> Result<Box<RawValue>, ApiError> {
    const AUTHORIZER: &str = "join_authorised_via_users_server";
    if !content.get().contains(AUTHORIZER) {
        return Ok(content);
    }
    let mut member: Map<String, Value> =
        serde_json::from_str(content.get()).map_err(|error| ApiError::bad_json(error.to_string()))?;
    member.remove(AUTHORIZER);
    to_raw_value(&member).map_err(|error| ApiError::internal(&error))
}

/// Aliases newly named in a canonical alias event have to point to the room.
fn check_aliases(api: &Api, room_id: &RoomId, content: &RawValue) -> Result<(), ApiError> {
    let room = room_num(api, room_id)?;
    let named = |content: &Value| -> Result<Vec<String>, ApiError> {
        let text = |value: &Value| {
            value.as_str().map(str::to_owned).ok_or_else(|| ApiError::bad_json("an alias is text"))
        };
        let mut aliases = Vec::new();
        if let Some(alias) = content.get("alias").filter(|alias| !alias.is_null()) {
            aliases.push(text(alias)?);
        }
        match content.get("alt_aliases") {
            None => {}
            Some(Value::Array(others)) => {
                for alias in others {
                    aliases.push(text(alias)?);
                }
            }
            Some(_) => return Err(ApiError::bad_json("alt_aliases is a list")),
        }
        Ok(aliases)
    };
    let content: Value =
        serde_json::from_str(content.get()).map_err(|error| ApiError::bad_json(error.to_string()))?;
    let before = match api.rooms.state(room, "m.room.canonical_alias", "")? {
        Some(event) => named(&event.content_as().unwrap_or_default()).unwrap_or_default(),
        None => Vec::new(),
    };
    for alias in named(&content)?.into_iter().filter(|alias| !alias.is_empty() && !before.contains(alias)) {
        let id = RoomAliasId::parse(&alias)
            .map_err(|_| ApiError::invalid_param(format!("{alias:?} is not an alias")))?;
        if api.rooms.resolve_alias(&id)? != Some(room) {
            return Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "M_BAD_ALIAS",
                format!("the alias {alias} does not point to this room"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_does_not_say_who_lets_it_into_a_restricted_room() {
        let said = r#"{"membership":"join","join_authorised_via_users_server":"unused","displayname":"B"}"#;
        let kept = without_authorizer(RawValue::from_string(said.to_owned()).unwrap()).unwrap();
        let kept: Value = serde_json::from_str(kept.get()).unwrap();
        assert_eq!(kept, json!({ "membership": "join", "displayname": "B" }));
    }
}
