//! What servers look up of each other: profiles, aliases, public rooms, spaces, who an OpenID token stands for, events by
//! their time (specification: querying for information, public room directory, spaces, OpenID).

use crate::{
    Error, Federation, PeerError,
    gaps::enc,
    origin::{Body, Origin, Params, Query},
};
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use postern_rooms::{Asker, PublicRooms, view::Direction};
use postern_web::{Answer, ApiError};
use ruma::{
    OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId,
    ServerName, UserId,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Servers that are told to somebody who looks up an alias.
const SERVERS_TOLD: usize = 100;
/// A profile of another server's user, fields.
const PROFILE_FIELDS: usize = 100;
/// Servers of a room asked for an event by its time.
const SERVERS_ASKED: usize = 3;

pub(crate) fn routes() -> Router<Federation> {
    let base = "/_matrix/federation/v1";
    Router::new()
        .route(&format!("{base}/query/profile"), get(profile))
        .route(&format!("{base}/query/directory"), get(directory))
        .route(&format!("{base}/publicRooms"), get(public_rooms).post(search_public_rooms))
        .route(&format!("{base}/hierarchy/{{room}}"), get(hierarchy))
        .route(&format!("{base}/timestamp_to_event/{{room}}"), get(at_time))
}

/// Endpoints for other than servers, which are not signed.
pub(crate) fn open_routes() -> Router<Federation> {
    Router::new().route("/_matrix/federation/v1/openid/userinfo", get(userinfo))
}

#[derive(Debug, Deserialize)]
struct OfUser {
    user_id: OwnedUserId,
    field: Option<String>,
}

async fn profile(State(federation): State<Federation>, _: Origin, Query(query): Query<OfUser>) -> Answer {
    if !federation.0.rooms.is_local(&query.user_id) {
        return Err(ApiError::invalid_param("the user is not of this server"));
    }
    let found = federation.0.users.profile(&query.user_id)?;
    let mut found = found.ok_or_else(|| ApiError::not_found("there is no such user"))?;
    if let Some(field) = &query.field {
        found.retain(|name, _| name == field);
        if found.is_empty() && !matches!(field.as_str(), "displayname" | "avatar_url") {
            return Err(ApiError::not_found("the profile has no such field"));
        }
    }
    Ok(Json(Value::Object(found)))
}

#[derive(Debug, Deserialize)]
struct OfAlias {
    room_alias: OwnedRoomAliasId,
}

async fn directory(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Query(query): Query<OfAlias>,
) -> Answer {
    let rooms = &federation.0.rooms;
    let room = match rooms.resolve_alias(&query.room_alias)? {
        Some(room) if rooms.may_know(&origin, room)? => room,
        _ => return Err(ApiError::not_found("there is no such alias")),
    };
    let mut servers = vec![rooms.server_name().to_owned()];
    servers.extend(rooms.servers_in(room)?.into_iter().filter(|server| server != rooms.server_name()));
    servers.truncate(SERVERS_TOLD);
    Ok(Json(json!({ "room_id": rooms.room_id(room)?, "servers": servers })))
}

#[derive(Debug, Default, Deserialize)]
struct Listing {
    limit: Option<u64>,
    since: Option<String>,
    #[serde(default)]
    filter: Filter,
}

#[derive(Debug, Default, Deserialize)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

#[derive(Debug, Deserialize)]
struct Page {
    limit: Option<u64>,
    since: Option<String>,
}

async fn public_rooms(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Query(page): Query<Page>,
) -> Answer {
    let (asker, query) = (Asker::Server(&origin), PublicRooms::default());
    Ok(Json(federation.0.rooms.public_page(asker, &query, page.since.as_deref(), page.limit)?))
}

async fn search_public_rooms(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Body(listing): Body<Listing>,
) -> Answer {
    let query = PublicRooms { term: listing.filter.generic_search_term, types: listing.filter.room_types };
    let asker = Asker::Server(&origin);
    Ok(Json(federation.0.rooms.public_page(asker, &query, listing.since.as_deref(), listing.limit)?))
}

#[derive(Debug, Deserialize)]
struct Suggested {
    #[serde(default)]
    suggested_only: bool,
}

async fn hierarchy(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(room): Params<OwnedRoomId>,
    Query(query): Query<Suggested>,
) -> Answer {
    let rooms = &federation.0.rooms;
    // A room that is not here and one that is not for the server look the same.
    let missing = || ApiError::not_found("there is no such room, or it is not for your server");
    let number = rooms.room(&room)?.ok_or_else(missing)?;
    if !rooms.is_resident(number)?
        || !rooms.server_allowed(number, &origin)?
        || !rooms.may_server_see_summary(number, &origin)?
    {
        return Err(missing());
    }
    let space = rooms.space(Asker::Server(&origin), number, query.suggested_only)?;
    let (mut children, mut inaccessible) = (Vec::new(), Vec::new());
    for (id, child) in space.known {
        if !rooms.is_resident(child)? {
            continue;
        }
        if rooms.may_server_see_summary(child, &origin)? {
            children.push(json!(rooms.summary(Asker::Server(&origin), child)?));
        } else {
            inaccessible.push(id);
        }
    }
    let mut summary = json!(rooms.summary(Asker::Server(&origin), number)?);
    summary["children_state"] = space.links.into();
    Ok(Json(json!({ "room": summary, "children": children, "inaccessible_children": inaccessible })))
}

#[derive(Debug, Deserialize)]
struct AtTime {
    ts: u64,
    dir: String,
}

async fn at_time(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(room): Params<OwnedRoomId>,
    Query(query): Query<AtTime>,
) -> Answer {
    let asking = federation.asking(&origin, &room)?;
    let direction = match query.dir.as_str() {
        "f" => Direction::Forwards,
        "b" => Direction::Backwards,
        _ => return Err(ApiError::invalid_param("dir is f or b")),
    };
    let found = federation.0.rooms.event_at_for_server(asking, query.ts, direction)?;
    let event = found.ok_or_else(|| ApiError::not_found("there is no such event"))?;
    Ok(Json(json!({ "event_id": event.id, "origin_server_ts": event.origin_server_ts() })))
}

#[derive(Debug, Deserialize)]
struct Token {
    access_token: Option<String>,
}

async fn userinfo(State(federation): State<Federation>, Query(query): Query<Token>) -> Answer {
    let unknown = |code, why: &str| ApiError::new(StatusCode::UNAUTHORIZED, code, why);
    let token = query.access_token.ok_or_else(|| unknown("M_MISSING_TOKEN", "access_token is missing"))?;
    let user = federation.0.users.redeem("openid", &token, false).await?;
    let user = user.ok_or_else(|| unknown("M_UNKNOWN_TOKEN", "the token is unknown or has expired"))?;
    Ok(Json(json!({ "sub": user })))
}

impl Federation {
    pub(crate) async fn look_up_profile(&self, user: &UserId) -> Result<Map<String, Value>, Error> {
        let path = format!("/_matrix/federation/v1/query/profile?user_id={}", enc(user.as_str()));
        let mut profile: Map<String, Value> = self.0.peers.get(user.server_name(), &path).await?;
        for name in ["displayname", "avatar_url"] {
            if profile.get(name).is_some_and(|value| !value.is_string()) {
                profile.remove(name);
            }
        }
        if profile.len() > PROFILE_FIELDS {
            return Err(PeerError::BadAnswer("the profile is too large".to_owned()).into());
        }
        Ok(profile)
    }

    pub(crate) async fn look_up_alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<(OwnedRoomId, Vec<OwnedServerName>), Error> {
        #[derive(Deserialize)]
        struct Found {
            room_id: OwnedRoomId,
            #[serde(default)]
            servers: Vec<OwnedServerName>,
        }
        let path = format!("/_matrix/federation/v1/query/directory?room_alias={}", enc(alias.as_str()));
        let mut found: Found = self.0.peers.get(alias.server_name(), &path).await?;
        found.servers.truncate(SERVERS_TOLD);
        if !found.servers.iter().any(|server| server == alias.server_name()) {
            found.servers.push(alias.server_name().to_owned());
        }
        Ok((found.room_id, found.servers))
    }

    pub(crate) async fn look_up_public_rooms(
        &self,
        server: &ServerName,
        request: Value,
    ) -> Result<Value, Error> {
        Ok(self.0.peers.post(server, "/_matrix/federation/v1/publicRooms", &request).await?)
    }

    pub(crate) async fn look_up_hierarchy(
        &self,
        room: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Result<Value, Error> {
        let path = format!(
            "/_matrix/federation/v1/hierarchy/{}?suggested_only={suggested_only}",
            enc(room.as_str())
        );
        let mut last = PeerError::Unreachable("no server that knows the room is known".to_owned());
        for server in via.iter().take(SERVERS_ASKED) {
            match self.0.peers.get(server, &path).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    pub(crate) async fn look_up_event_at(
        &self,
        room: &RoomId,
        ts: u64,
        forward: bool,
    ) -> Result<(OwnedEventId, u64), Error> {
        #[derive(Deserialize)]
        struct Found {
            event_id: OwnedEventId,
            origin_server_ts: u64,
        }
        let number = self.0.rooms.known_room(room)?;
        let dir = if forward { "f" } else { "b" };
        let path =
            format!("/_matrix/federation/v1/timestamp_to_event/{}?ts={ts}&dir={dir}", enc(room.as_str()));
        let mut last = PeerError::Unreachable("no other server is in the room".to_owned());
        for server in self.others(number, self.0.rooms.server_name()).into_iter().take(SERVERS_ASKED) {
            match self.0.peers.get::<Found>(&server, &path).await {
                Ok(found) => {
                    let place = self.place(room, &server)?;
                    self.fetch_past(&place, &found.event_id).await?;
                    return Ok((found.event_id, found.origin_server_ts));
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }
}
