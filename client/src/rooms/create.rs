//! Creating and upgrading rooms (specification: room creation, room upgrades).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Class, Params},
    rooms::{joined_room, room_num},
};
use axum::{Json, Router, extract::State, routing::post};
use postern_config::{EncryptByDefault, Who};
use postern_rooms::{CreateRoom, MembershipChange, MembershipKind, Preset};
use postern_users::Session;
use ruma::{OwnedRoomId, OwnedUserId, RoomAliasId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        router = router
            .route(&format!("/_matrix/client/{version}/createRoom"), post(create))
            .route(&format!("/_matrix/client/{version}/rooms/{{room}}/upgrade"), post(upgrade));
    }
    router
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Visibility {
    Public,
    Private,
}

#[derive(Debug, Deserialize)]
struct InitialState {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    state_key: String,
    content: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Request {
    visibility: Option<Visibility>,
    room_alias_name: Option<String>,
    name: Option<String>,
    topic: Option<String>,
    #[serde(default)]
    invite: Vec<OwnedUserId>,
    #[serde(default)]
    invite_3pid: Vec<Value>,
    room_version: Option<String>,
    #[serde(default)]
    creation_content: Map<String, Value>,
    #[serde(default)]
    initial_state: Vec<InitialState>,
    preset: Option<String>,
    #[serde(default)]
    is_direct: bool,
    #[serde(default)]
    power_level_content_override: Map<String, Value>,
}

async fn create(State(api): State<Api>, Caller(session): Caller, Body(request): Body<Request>) -> Answer {
    allowed(&api, &session)?;
    api.limiter.check(Class::Join, session.user_id.as_str())?;
    if !request.invite_3pid.is_empty() {
        return Err(ApiError::new(
            axum::http::StatusCode::BAD_REQUEST,
            "M_THREEPID_NOT_SUPPORTED",
            "this server invites users by their Matrix ids only",
        ));
    }
    let public = matches!(request.visibility, Some(Visibility::Public));
    let preset = match request.preset.as_deref() {
        Some("private_chat") => Preset::PrivateChat,
        Some("trusted_private_chat") => Preset::TrustedPrivateChat,
        Some("public_chat") => Preset::PublicChat,
        Some(_) => return Err(ApiError::bad_json("no such preset")),
        None if public => Preset::PublicChat,
        None => Preset::PrivateChat,
    };
    let publishers = api.config.rooms.directory_publishers;
    if public && !session.is_admin && !matches!(publishers, Who::Anyone) {
        return Err(ApiError::forbidden("you may not list rooms in the directory of this server"));
    }
    let alias = match &request.room_alias_name {
        Some(name) => {
            let alias = format!("#{name}:{}", api.rooms.server_name());
            Some(RoomAliasId::parse(alias).map_err(|error| ApiError::invalid_param(error.to_string()))?)
        }
        None => None,
    };
    let mut initial_state: Vec<(String, String, Value)> = request
        .initial_state
        .into_iter()
        .map(|state| (state.event_type, state.state_key, Value::Object(state.content)))
        .collect();
    let encrypted = initial_state.iter().any(|(kind, key, _)| kind == "m.room.encryption" && key.is_empty());
    let encrypt = match api.config.rooms.encrypt_by_default {
        EncryptByDefault::Off => false,
        EncryptByDefault::Private => preset != Preset::PublicChat,
        EncryptByDefault::All => true,
    };
    if encrypt && !encrypted {
        let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
        initial_state.push(("m.room.encryption".to_owned(), String::new(), content));
    }
    let mut invite = request.invite;
    invite.retain(|user| *user != session.user_id);
    for _ in &invite {
        api.limiter.check(Class::Invite, session.user_id.as_str())?;
    }
    let elsewhere: Vec<OwnedUserId> =
        invite.iter().filter(|user| !api.rooms.is_local(user)).cloned().collect();
    let is_direct = request.is_direct;
    let room = CreateRoom {
        version: request.room_version,
        creation_content: request.creation_content,
        preset,
        initial_state,
        name: request.name.filter(|name| !name.is_empty()),
        topic: request.topic,
        power_levels: request.power_level_content_override,
        invite,
        is_direct: request.is_direct,
        alias,
        published: public,
    };
    let id = api.rooms.create(&session.user_id, room).await?;
    crate::rooms::upgrade::carry_over(&api, &session, room_num(&api, &id)?).await?;
    for user in elsewhere {
        let mut change = MembershipChange::to(MembershipKind::Invite);
        if is_direct {
            change.extra.insert("is_direct".to_owned(), true.into());
        }
        // The room is there, whether or not everybody can be invited to it.
        if let Err(error) = api.elsewhere.invite(&session.user_id, &id, &user, change).await {
            tracing::info!(%user, error = error.message(), "a user of another server was not invited");
        }
    }
    Ok(Json(json!({ "room_id": id })))
}

fn allowed(api: &Api, session: &Session) -> Result<(), ApiError> {
    if session.is_guest {
        return Err(ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "guests may not create rooms",
        ));
    }
    if !session.is_admin && !matches!(api.config.rooms.creators, Who::Anyone) {
        return Err(ApiError::forbidden("rooms are made by the administrators of this server"));
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Upgrade {
    new_version: String,
    #[serde(default)]
    additional_creators: Vec<OwnedUserId>,
}

async fn upgrade(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(request): Body<Upgrade>,
) -> Answer {
    api.limiter.check(Class::Join, session.user_id.as_str())?;
    joined_room(&api, &session, &room)?;
    let new =
        api.rooms.upgrade(&session.user_id, &room, &request.new_version, request.additional_creators).await?;
    crate::rooms::upgrade::carry_over(&api, &session, room_num(&api, &new)?).await?;
    Ok(Json(json!({ "replacement_room": new })))
}
