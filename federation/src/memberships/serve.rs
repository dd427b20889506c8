//! For users of other servers: proposing their events, taking them in, and signing invites of local users.

use crate::{
    Federation,
    origin::{Body, Origin, Params, Query},
    verify,
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, put},
};
use postern_graph::{RoomNum, event::MembershipKind};
use postern_rooms::{
    Entry, Error as RoomsError, Verified,
    templates::check_own_membership,
    version::{Version, version},
};
use postern_web::{Answer, ApiError};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId,
    ServerName, UserId,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::sync::Arc;

pub(super) fn routes() -> Router<Federation> {
    let (v1, v2) = ("/_matrix/federation/v1", "/_matrix/federation/v2");
    Router::new()
        .route(&format!("{v1}/make_join/{{room}}/{{user}}"), get(make_join))
        .route(&format!("{v1}/make_leave/{{room}}/{{user}}"), get(make_leave))
        .route(&format!("{v1}/make_knock/{{room}}/{{user}}"), get(make_knock))
        .route(&format!("{v1}/send_join/{{room}}/{{event}}"), put(send_join_v1))
        .route(&format!("{v2}/send_join/{{room}}/{{event}}"), put(send_join))
        .route(&format!("{v1}/send_leave/{{room}}/{{event}}"), put(send_leave_v1))
        .route(&format!("{v2}/send_leave/{{room}}/{{event}}"), put(send_leave))
        .route(&format!("{v1}/send_knock/{{room}}/{{event}}"), put(send_knock))
        .route(&format!("{v1}/invite/{{room}}/{{event}}"), put(invite_v1))
        .route(&format!("{v2}/invite/{{room}}/{{event}}"), put(invite))
}

/// The room that a user of the asking server enters or leaves by this one. One that the server may not know and one that is
/// not here look the same. As long as the room's state is not whole here, the other server does better by others, as if
/// this one did not know the room.
pub(super) fn room_to_enter(
    federation: &Federation,
    origin: &ServerName,
    room: &RoomId,
) -> Result<RoomNum, ApiError> {
    let rooms = &federation.0.rooms;
    let number = match rooms.room(room)? {
        Some(number) if rooms.may_know(origin, number)? => number,
        _ => return Err(ApiError::not_found("the room is not known to this server")),
    };
    federation.check_acl(number, origin)?;
    match rooms.has_whole_state(number) {
        Ok(()) => Ok(number),
        Err(error) => Err(ApiError::not_found(error.to_string())),
    }
}

/// Proposes the event of a user of the asking server.
fn propose(
    federation: &Federation,
    origin: &ServerName,
    room: &RoomId,
    user: &UserId,
    membership: MembershipKind,
    versions: Option<&[String]>,
) -> Answer {
    if user.server_name() != origin {
        return Err(ApiError::forbidden("the user is not of the asking server"));
    }
    let rooms = &federation.0.rooms;
    room_to_enter(federation, origin, room)?;
    let (room_version, event) = rooms.template(room, user, membership, versions)?;
    Ok(Json(json!({ "room_version": room_version, "event": CanonicalJsonValue::Object(event) })))
}

/// The versions a server has: the parameter `ver`, repeated. Version 1 if it does not say.
fn versions(query: Vec<(String, String)>) -> Vec<String> {
    let said: Vec<String> =
        query.into_iter().filter(|(name, _)| name == "ver").map(|(_, version)| version).collect();
    if said.is_empty() { vec!["1".to_owned()] } else { said }
}

async fn make_join(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, user)): Params<(OwnedRoomId, OwnedUserId)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    propose(&federation, &origin, &room, &user, MembershipKind::Join, Some(&versions(query)))
}

async fn make_knock(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, user)): Params<(OwnedRoomId, OwnedUserId)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    propose(&federation, &origin, &room, &user, MembershipKind::Knock, Some(&versions(query)))
}

async fn make_leave(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, user)): Params<(OwnedRoomId, OwnedUserId)>,
) -> Answer {
    propose(&federation, &origin, &room, &user, MembershipKind::Leave, None)
}

/// Takes the event of a user of the asking server into the room.
async fn accept(
    federation: &Federation,
    origin: &ServerName,
    room: &RoomId,
    id: &EventId,
    pdu: &RawValue,
    membership: MembershipKind,
) -> Result<Verified, ApiError> {
    let rooms = &federation.0.rooms;
    let number = room_to_enter(federation, origin, room)?;
    let version = rooms.version_of(number)?;
    let mut pdu = verify::parse(pdu)?;
    check_own_membership(&pdu, membership, origin)?;
    if membership != MembershipKind::Leave
        && let Some(user) = pdu.get("sender").and_then(CanonicalJsonValue::as_str)
        && let Ok(user) = UserId::parse(user)
    {
        rooms.check_entry(&user, number, Entry::Join)?;
    }
    check_path(&version, &pdu, room, id)?;
    if membership == MembershipKind::Join && rooms.authorises(&pdu) {
        // The rules of rooms leave it to the server of whoever authorises a join to look at whom it lets in.
        if !rooms.admits(room, &pdu)? {
            return Err(ApiError::forbidden("the user is in none of the rooms that allow joining"));
        }
        rooms.cosign(version.id.as_str(), &mut pdu)?;
    }
    let event = federation.verify(&version, pdu, origin).await.map_err(refused)?;
    let event = rooms.with_recommendation(number, event).await?;
    rooms.accept(room, event.clone()).await.map_err(|error| match error {
        // The event has to follow on what this server proposed.
        RoomsError::MissingEvents(_) => {
            ApiError::bad_json("the event follows on events this server does not know")
        }
        other => other.into(),
    })?;
    Ok(event)
}

/// The room and the id of the path are those of the event.
fn check_path(
    version: &Version,
    pdu: &CanonicalJsonObject,
    room: &RoomId,
    id: &EventId,
) -> Result<(), ApiError> {
    if pdu.get("room_id").and_then(CanonicalJsonValue::as_str) != Some(room.as_str()) {
        return Err(ApiError::bad_json("the event is of another room than the path says"));
    }
    if postern_rooms::pdu::event_id(pdu, &version.rules)? != *id {
        return Err(ApiError::bad_json("the event has another id than the path says"));
    }
    Ok(())
}

/// What a failed check of a PDU becomes for the server that sent it.
fn refused(error: crate::Error) -> ApiError {
    match error {
        crate::Error::Rooms(RoomsError::Unverified(why)) => ApiError::forbidden(why),
        crate::Error::Rooms(error) => error.into(),
        other => ApiError::forbidden(other.to_string()),
    }
}

async fn joined(
    federation: &Federation,
    origin: &ServerName,
    room: &RoomId,
    id: &EventId,
    pdu: &RawValue,
    omit_members: bool,
) -> Result<Value, ApiError> {
    let accepted = accept(federation, origin, room, id, pdu, MembershipKind::Join).await?;
    let rooms = &federation.0.rooms;
    // What was said between the proposal and the join nobody else tells the server that comes in.
    if let Some(number) = rooms.room(room)? {
        rooms.join_all_ends(number).await?;
    }
    let asking = federation.asking(origin, room)?;
    let event = rooms.event_asked_for(asking, accepted.id())?;
    let told = rooms.state_for_join(&event, omit_members)?;
    let served = |nums: Vec<postern_graph::EventNum>| -> Result<Vec<Box<RawValue>>, ApiError> {
        nums.into_iter().map(|num| Ok(rooms.served(asking, &*rooms.event(num)?)?)).collect()
    };
    let mut answer = json!({
        "origin": rooms.server_name(),
        "state": served(told.state)?,
        "auth_chain": served(told.auth_chain)?,
        "event": rooms.served(asking, &event)?,
        "members_omitted": omit_members,
    });
    if omit_members {
        answer["servers_in_room"] = json!(rooms.servers_before_join(&event)?);
    }
    Ok(answer)
}

async fn send_join(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, id)): Params<(OwnedRoomId, OwnedEventId)>,
    Query(how): Query<How>,
    Body(pdu): Body<Box<RawValue>>,
) -> Answer {
    Ok(Json(joined(&federation, &origin, &room, &id, &pdu, how.omit_members).await?))
}

#[derive(Debug, Deserialize)]
struct How {
    #[serde(default)]
    omit_members: bool,
}

async fn send_join_v1(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, id)): Params<(OwnedRoomId, OwnedEventId)>,
    Body(pdu): Body<Box<RawValue>>,
) -> Answer {
    Ok(Json(json!([200, joined(&federation, &origin, &room, &id, &pdu, false).await?])))
}

async fn send_leave(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, id)): Params<(OwnedRoomId, OwnedEventId)>,
    Body(pdu): Body<Box<RawValue>>,
) -> Answer {
    accept(&federation, &origin, &room, &id, &pdu, MembershipKind::Leave).await?;
    Ok(postern_web::done())
}

async fn send_leave_v1(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, id)): Params<(OwnedRoomId, OwnedEventId)>,
    Body(pdu): Body<Box<RawValue>>,
) -> Answer {
    accept(&federation, &origin, &room, &id, &pdu, MembershipKind::Leave).await?;
    Ok(Json(json!([200, {}])))
}

async fn send_knock(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, id)): Params<(OwnedRoomId, OwnedEventId)>,
    Body(pdu): Body<Box<RawValue>>,
) -> Answer {
    let rooms = &federation.0.rooms;
    let accepted = accept(&federation, &origin, &room, &id, &pdu, MembershipKind::Knock).await?;
    let event = rooms
        .event_by_id(accepted.id())?
        .ok_or_else(|| ApiError::internal(&"a knock that was taken is not there"))?;
    let shown = rooms.state_shown_to(event.record.room, event.sender(), event.sender())?;
    Ok(Json(json!({ "knock_room_state": shown })))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Invite {
    pub(crate) room_version: String,
    pub(crate) event: Box<RawValue>,
    #[serde(default)]
    pub(crate) invite_room_state: Vec<Box<RawValue>>,
}

async fn invite(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, id)): Params<(OwnedRoomId, OwnedEventId)>,
    Body(invite): Body<Invite>,
) -> Answer {
    let signed = invited(&federation, &origin, &room, &id, invite).await?;
    Ok(Json(json!({ "event": signed })))
}

/// The older form is for rooms of versions 1 and 2, whose invited user's server cannot tell which.
async fn invite_v1(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, id)): Params<(OwnedRoomId, OwnedEventId)>,
    Body(event): Body<Box<RawValue>>,
) -> Answer {
    #[derive(Deserialize)]
    struct Unsigned {
        unsigned: Option<Shown>,
    }
    #[derive(Deserialize)]
    struct Shown {
        #[serde(default)]
        invite_room_state: Vec<Box<RawValue>>,
    }
    let shown = serde_json::from_str::<Unsigned>(event.get()).ok().and_then(|event| event.unsigned);
    let invite = Invite {
        room_version: "1".to_owned(),
        event,
        invite_room_state: shown.map(|shown| shown.invite_room_state).unwrap_or_default(),
    };
    Ok(Json(json!([200, { "event": invited(&federation, &origin, &room, &id, invite).await? }])))
}

/// Checks, notes and signs the invite of a local user.
pub(crate) async fn invited(
    federation: &Federation,
    origin: &ServerName,
    room: &RoomId,
    id: &EventId,
    invite: Invite,
) -> Result<Box<RawValue>, ApiError> {
    let rooms = &federation.0.rooms;
    let version: Arc<Version> = version(&invite.room_version)
        .map_err(|_| postern_rooms::Error::IncompatibleVersion(invite.room_version.clone()))?;
    let mut pdu = verify::parse(&invite.event)?;
    let target = invited_user(&pdu, origin)?;
    check_path(&version, &pdu, room, id)?;
    if !rooms.is_local(&target) {
        return Err(ApiError::invalid_param("the invited user is not of this server"));
    }
    if !federation.0.users.is_active(&target)? {
        return Err(ApiError::not_found("there is no such user"));
    }
    if let Some(number) = rooms.room(room)?
        && rooms.is_resident(number)?
    {
        federation.check_acl(number, origin)?;
    }
    let create = invite.invite_room_state.iter().find_map(|event| create_content(event));
    rooms.check_entry_elsewhere(&target, room, create.as_deref())?;
    // The sender's server has signed it before this one does.
    federation.verify(&version, pdu.clone(), origin).await.map_err(refused)?;
    rooms.cosign(version.id.as_str(), &mut pdu)?;
    let event = federation.verify(&version, pdu, origin).await.map_err(refused)?;
    let json = event.json().to_owned();
    let shown = invite.invite_room_state.iter().filter_map(|event| stripped(event)).collect::<Vec<_>>();
    let resident = match rooms.room(room)? {
        Some(number) => rooms.is_resident(number)?,
        None => false,
    };
    // In a room this server is in, the invite comes as an event of the room.
    if !resident {
        rooms.note_membership(room, event, &shown).await?;
    }
    RawValue::from_string(json).map_err(|error| ApiError::internal(&error))
}

/// The content of a create event.
pub(crate) fn create_content(event: &RawValue) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Create {
        #[serde(rename = "type")]
        kind: String,
        content: Box<RawValue>,
    }
    let create: Create = serde_json::from_str(event.get()).ok()?;
    (create.kind == "m.room.create").then_some(create.content)
}

/// The user a PDU invites, if that is what it does and its sender is of `origin`.
fn invited_user(pdu: &CanonicalJsonObject, origin: &ServerName) -> Result<OwnedUserId, ApiError> {
    let text = |name: &str| pdu.get(name).and_then(CanonicalJsonValue::as_str);
    let membership = pdu
        .get("content")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|content| content.get("membership"))
        .and_then(CanonicalJsonValue::as_str);
    if text("type") != Some("m.room.member") || membership != Some("invite") {
        return Err(ApiError::bad_json("the event is no invite"));
    }
    let sender = text("sender").and_then(|sender| UserId::parse(sender).ok());
    if sender.is_none_or(|sender| sender.server_name() != origin) {
        return Err(ApiError::forbidden("the invite is not by a user of the asking server"));
    }
    text("state_key")
        .and_then(|user| UserId::parse(user).ok())
        .ok_or_else(|| ApiError::bad_json("the invite is for nobody"))
}

/// An event of another server's in the form a client is shown.
pub(super) fn stripped(event: &RawValue) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Shown {
        content: Value,
        sender: OwnedUserId,
        state_key: String,
        #[serde(rename = "type")]
        kind: String,
        origin_server_ts: Option<u64>,
    }
    let event: Shown = serde_json::from_str(event.get()).ok()?;
    let mut shown = json!({
        "content": event.content,
        "sender": event.sender,
        "state_key": event.state_key,
        "type": event.kind,
    });
    if let (Some(ts), "m.room.create") = (event.origin_server_ts, event.kind.as_str()) {
        shown["origin_server_ts"] = ts.into();
    }
    serde_json::value::to_raw_value(&shown).ok()
}
