//! Who is in a room (specification: room membership).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Class, Params, Query, done},
    rooms::{joined_room, room_num, viewer},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use postern_rooms::{
    MembershipChange, MembershipKind,
    view::{Format, TimelineToken},
};
use postern_users::Session;
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedUserId, RoomAliasId, RoomId, RoomOrAliasId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/client/{version}");
        let room = format!("{base}/rooms/{{room}}");
        router = router
            .route(&format!("{base}/join/{{room}}"), post(join))
            .route(&format!("{base}/knock/{{room}}"), post(knock))
            .route(&format!("{room}/join"), post(join))
            .route(&format!("{room}/leave"), post(leave))
            .route(&format!("{room}/forget"), post(forget))
            .route(&format!("{room}/invite"), post(invite))
            .route(&format!("{room}/kick"), post(kick))
            .route(&format!("{room}/ban"), post(ban))
            .route(&format!("{room}/unban"), post(unban))
            .route(&format!("{room}/members"), get(members))
            .route(&format!("{room}/joined_members"), get(joined_members))
            .route(&format!("{base}/joined_rooms"), get(joined_rooms));
    }
    router
}

#[derive(Debug, Deserialize)]
struct Reason {
    reason: Option<String>,
}

/// The id of a room or of what an alias of this server points to.
pub(crate) fn resolve(api: &Api, room: &RoomOrAliasId) -> Result<OwnedRoomId, ApiError> {
    if let Ok(alias) = <&RoomAliasId>::try_from(room) {
        let found = api.rooms.resolve_alias(alias)?;
        let found = found.ok_or_else(|| ApiError::not_found(format!("the alias {alias} does not exist")))?;
        return Ok(api.rooms.room_id(found)?);
    }
    RoomId::parse(room.as_str()).map_err(|error| ApiError::invalid_param(error.to_string()))
}

async fn join(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomOrAliasId>,
    Body(mut body): Body<Map<String, Value>>,
) -> Answer {
    api.limiter.check(Class::Join, session.user_id.as_str())?;
    let room = resolve(&api, &room)?;
    let reason = match body.remove("reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(reason)) => Some(reason),
        Some(_) => return Err(ApiError::bad_json("the reason is text")),
    };
    // What else a client sends stands in the event; what the server decides does not come from there.
    for reserved in ["membership", "third_party_signed", "join_authorised_via_users_server"] {
        body.remove(reserved);
    }
    let number = api
        .rooms
        .room(&room)?
        .ok_or_else(|| ApiError::not_found(format!("the room {room} is not known to this server")))?;
    if session.is_guest {
        let access = api.rooms.state(number, "m.room.guest_access", "")?;
        if access.and_then(|event| event.content_text("guest_access")).as_deref() != Some("can_join") {
            return Err(ApiError::new(
                axum::http::StatusCode::FORBIDDEN,
                "M_GUEST_ACCESS_FORBIDDEN",
                "this room takes no guests",
            ));
        }
    }
    let change =
        MembershipChange { extra: body, ..MembershipChange::to(MembershipKind::Join) }.because(reason);
    api.rooms.membership(&session.user_id, &room, &session.user_id, change).await?;
    crate::rooms::upgrade::carry_over(&api, &session, number).await?;
    Ok(Json(json!({ "room_id": room })))
}

async fn knock(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomOrAliasId>,
    Body(body): Body<Reason>,
) -> Answer {
    api.limiter.check(Class::Join, session.user_id.as_str())?;
    let room = resolve(&api, &room)?;
    let change = MembershipChange::to(MembershipKind::Knock).because(body.reason);
    api.rooms.membership(&session.user_id, &room, &session.user_id, change).await?;
    Ok(Json(json!({ "room_id": room })))
}

async fn leave(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(body): Body<Reason>,
) -> Answer {
    let number = api.rooms.room(&room)?.ok_or_else(|| ApiError::not_found("there is no such room"))?;
    if api.rooms.member(number, session.user)?.is_some_and(|now| now.kind == MembershipKind::Leave) {
        // Leaving twice is what a client does that lost the first answer.
        return Ok(done());
    }
    let change = MembershipChange::to(MembershipKind::Leave).because(body.reason);
    api.rooms.membership(&session.user_id, &room, &session.user_id, change).await?;
    Ok(done())
}

async fn forget(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
) -> Answer {
    api.rooms.forget(&session.user_id, &room).await.map_err(|error| match error {
        postern_rooms::Error::BadState(why) => {
            ApiError::new(axum::http::StatusCode::BAD_REQUEST, "M_UNKNOWN", why)
        }
        other => other.into(),
    })?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
struct Target {
    user_id: Option<OwnedUserId>,
    reason: Option<String>,
}

impl Target {
    fn user(&self) -> Result<&UserId, ApiError> {
        self.user_id.as_deref().ok_or_else(|| ApiError::missing_param("user_id is missing"))
    }
}

async fn change(
    api: &Api,
    session: &Session,
    room: &RoomId,
    target: Target,
    change: MembershipChange,
) -> Answer {
    joined_room(api, session, room)?;
    let change = change.because(target.reason.clone());
    api.rooms.membership(&session.user_id, room, target.user()?, change).await?;
    Ok(done())
}

async fn invite(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(target): Body<Target>,
) -> Answer {
    api.limiter.check(Class::Invite, session.user_id.as_str())?;
    target.user()?;
    change(&api, &session, &room, target, MembershipChange::to(MembershipKind::Invite)).await
}

async fn kick(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(target): Body<Target>,
) -> Answer {
    let kick = MembershipChange { only_kick: true, ..MembershipChange::to(MembershipKind::Leave) };
    change(&api, &session, &room, target, kick).await
}

async fn ban(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(target): Body<Target>,
) -> Answer {
    change(&api, &session, &room, target, MembershipChange::to(MembershipKind::Ban)).await
}

async fn unban(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(target): Body<Target>,
) -> Answer {
    let unban = MembershipChange { only_unban: true, ..MembershipChange::to(MembershipKind::Leave) };
    change(&api, &session, &room, target, unban).await
}

#[derive(Debug, Deserialize)]
struct Which {
    at: Option<String>,
    membership: Option<String>,
    not_membership: Option<String>,
}

async fn members(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Query(query): Query<Which>,
) -> Answer {
    let room = room_num(&api, &room)?;
    let viewer = viewer(&session);
    let (mut root, latest) = api.rooms.readable_state(room, &viewer)?;
    if let Some(at) = &query.at {
        let at = TimelineToken::parse_time(at)?;
        if at < latest {
            root = api.rooms.state_root_at(room, at)?;
        }
    }
    let format = Format { room_id: true, bundled: false };
    let mut chunk = Vec::new();
    for event in api.rooms.all_state_in(root)? {
        if event.kind().to_string() != "m.room.member" {
            continue;
        }
        let membership = event.content_text("membership").unwrap_or_default();
        let wanted = query.membership.as_ref().is_none_or(|wanted| *wanted == membership)
            && query.not_membership.as_ref().is_none_or(|unwanted| *unwanted != membership);
        if wanted {
            chunk.push(api.rooms.client_event(&event, &viewer, format)?);
        }
    }
    Ok(Json(json!({ "chunk": chunk })))
}

async fn joined_members(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
) -> Answer {
    let room = joined_room(&api, &session, &room)?;
    let mut joined = Map::new();
    for (_, event) in api.rooms.members_of(room, MembershipKind::Join)? {
        let event = api.rooms.event(event)?;
        let content: Map<String, Value> = event.content_as().unwrap_or_default();
        let mut about = Map::new();
        for (theirs, ours) in [("displayname", "display_name"), ("avatar_url", "avatar_url")] {
            if let Some(value) = content.get(theirs).filter(|value| value.is_string()) {
                about.insert(ours.to_owned(), value.clone());
            }
        }
        joined.insert(event.state_key().unwrap_or_default().to_owned(), Value::Object(about));
    }
    Ok(Json(json!({ "joined": joined })))
}

async fn joined_rooms(State(api): State<Api>, Caller(session): Caller) -> Answer {
    let mut rooms = Vec::new();
    for room in api.rooms.joined_rooms(session.user)? {
        rooms.push(api.rooms.room_id(room)?);
    }
    Ok(Json(json!({ "joined_rooms": rooms })))
}
