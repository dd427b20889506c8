//! Who is in a room (specification: room membership).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Class, Params, Query, done},
    rooms::{joined_room, known, room_num, viewer},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use postern_graph::RoomNum;
use postern_rooms::{
    MembershipChange, MembershipKind,
    view::{Format, TimelineToken},
};
use postern_users::Session;
use ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, RoomOrAliasId, UserId,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Servers by which a room is tried to be entered, at most.
const VIA: usize = 20;

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

/// The id of a room or of what an alias points to, and servers that are in it as far as the alias's server told.
pub(crate) async fn resolve(
    api: &Api,
    who: Option<&Session>,
    room: &RoomOrAliasId,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
    if let Ok(alias) = <&RoomAliasId>::try_from(room) {
        if alias.server_name() != api.rooms.server_name() {
            return api.elsewhere.alias(alias).await;
        }
        let found = api.rooms.resolve_alias(alias)?;
        let unknown = || ApiError::not_found(format!("the alias {alias} does not exist"));
        let found = api.rooms.room_id(found.ok_or_else(unknown)?)?;
        known(api, who, &found)?.ok_or_else(unknown)?;
        return Ok((found, Vec::new()));
    }
    let id = RoomId::parse(room.as_str()).map_err(|error| ApiError::invalid_param(error.to_string()))?;
    Ok((id, Vec::new()))
}

/// Servers by which a room may be entered, as the client names them.
#[derive(Debug)]
struct Via(Vec<OwnedServerName>);

impl Via {
    fn of(query: Vec<(String, String)>, known: Vec<OwnedServerName>) -> Self {
        let named = query
            .into_iter()
            .filter(|(name, _)| name == "via" || name == "server_name")
            .filter_map(|(_, server)| OwnedServerName::try_from(server).ok());
        Self(named.chain(known).take(VIA).collect())
    }
}

/// A room by its number, if this server is in it.
///
/// # Errors
/// As for a room of which nobody knows, if this server is in it and the user may not know of it.
fn resident(api: &Api, session: &Session, room: &RoomId) -> Result<Option<RoomNum>, ApiError> {
    match api.rooms.room(room)? {
        Some(number) if api.rooms.is_resident(number)? => match known(api, Some(session), room)? {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::not_found("no server that is in the room is known")),
        },
        _ => Ok(None),
    }
}

async fn join(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomOrAliasId>,
    Query(query): Query<Vec<(String, String)>>,
    Body(mut body): Body<Map<String, Value>>,
) -> Answer {
    api.limiter.check(Class::Join, session.user_id.as_str())?;
    let (room, servers) = resolve(&api, Some(&session), &room).await?;
    let via = Via::of(query, servers);
    let reason = match body.remove("reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(reason)) => Some(reason),
        Some(_) => return Err(ApiError::bad_json("the reason is text")),
    };
    // What else a client sends stands in the event; what the server decides does not come from there.
    for reserved in ["membership", "third_party_signed", "join_authorised_via_users_server"] {
        body.remove(reserved);
    }
    let Some(number) = resident(&api, &session, &room)? else {
        return join_elsewhere(&api, &session, &room, &via, body, reason).await;
    };
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
    // Who is banned, say, is not known before the state is whole. A server that knows is asked meanwhile.
    if api.rooms.is_partial(number) || api.rooms.needs_help_to_join(number, &session.user_id)? {
        match join_elsewhere(&api, &session, &room, &via, body.clone(), reason.clone()).await {
            Ok(answer) => return Ok(answer),
            // What the rules here say is then the better answer.
            Err(error) => tracing::debug!(error = error.message(), "nobody else lets the user in"),
        }
    }
    let change =
        MembershipChange { extra: body, ..MembershipChange::to(MembershipKind::Join) }.because(reason);
    api.rooms.membership(&session.user_id, &room, &session.user_id, change).await?;
    crate::rooms::upgrade::carry_over(&api, &session, number).await?;
    Ok(Json(json!({ "room_id": room })))
}

async fn join_elsewhere(
    api: &Api,
    session: &Session,
    room: &RoomId,
    via: &Via,
    body: Map<String, Value>,
    reason: Option<String>,
) -> Answer {
    if session.is_guest {
        return Err(ApiError::new(
            axum::http::StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "guests do not join rooms of other servers",
        ));
    }
    let content = own_content(api, session, body, reason)?;
    api.elsewhere.join(&session.user_id, room, &via.0, content).await?;
    if let Some(number) = api.rooms.room(room)? {
        crate::rooms::upgrade::carry_over(api, session, number).await?;
    }
    Ok(Json(json!({ "room_id": room })))
}

/// What stands in a member event that another server proposes.
fn own_content(
    api: &Api,
    session: &Session,
    mut content: Map<String, Value>,
    reason: Option<String>,
) -> Result<Map<String, Value>, ApiError> {
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), reason.into());
    }
    for (name, value) in api.rooms.profile_in_events(session.user)? {
        if !value.is_null() {
            content.insert(name, value);
        }
    }
    Ok(content)
}

async fn knock(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomOrAliasId>,
    Query(query): Query<Vec<(String, String)>>,
    Body(body): Body<Reason>,
) -> Answer {
    api.limiter.check(Class::Join, session.user_id.as_str())?;
    let (room, servers) = resolve(&api, Some(&session), &room).await?;
    if resident(&api, &session, &room)?.is_some() {
        let change = MembershipChange::to(MembershipKind::Knock).because(body.reason);
        api.rooms.membership(&session.user_id, &room, &session.user_id, change).await?;
    } else {
        let content = own_content(&api, &session, Map::new(), body.reason)?;
        api.elsewhere.knock(&session.user_id, &room, &Via::of(query, servers).0, content).await?;
    }
    Ok(Json(json!({ "room_id": room })))
}

async fn leave(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(body): Body<Reason>,
) -> Answer {
    let unknown = || ApiError::not_found("there is no such room");
    let number = known(&api, Some(&session), &room)?.ok_or_else(unknown)?;
    if api.rooms.member(number, session.user)?.is_some_and(|now| now.kind == MembershipKind::Leave) {
        // Leaving twice is what a client does that lost the first answer.
        return Ok(done());
    }
    if resident(&api, &session, &room)?.is_some() {
        let change = MembershipChange::to(MembershipKind::Leave).because(body.reason);
        api.rooms.membership(&session.user_id, &room, &session.user_id, change).await?;
    } else {
        let mut content = Map::new();
        if let Some(reason) = body.reason {
            content.insert("reason".to_owned(), reason.into());
        }
        api.elsewhere.leave(&session.user_id, &room, content).await?;
    }
    Ok(done())
}

async fn forget(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
) -> Answer {
    let unknown = || ApiError::not_found("you were never in this room");
    known(&api, Some(&session), &room)?.ok_or_else(unknown)?;
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
    let user = target.user()?.to_owned();
    if !api.rooms.is_local(&user) {
        joined_room(&api, &session, &room)?;
        let change = MembershipChange::to(MembershipKind::Invite).because(target.reason);
        api.elsewhere.invite(&session.user_id, &room, &user, change).await?;
        return Ok(done());
    }
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
    api.rooms.wait_for_whole_state(room).await?;
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
    api.rooms.wait_for_whole_state(room).await?;
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
