//! Aliases, the public directory, spaces (specification: room aliases, listing rooms, spaces, room summaries).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, MaybeCaller, Params, Query, done},
    rooms::{
        hierarchy::{self, Walk},
        known,
        membership::resolve,
        room_num,
    },
};
use axum::{Json, Router, extract::State, routing::get};
use postern_config::Who;
use postern_rooms::{Asker, Entry, PublicRooms};
use postern_users::Session;
use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId, RoomId, ServerName};
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new()
        .route("/_matrix/client/v1/rooms/{room}/hierarchy", get(space))
        .route("/_matrix/client/v1/room_summary/{room}", get(summary))
        .route("/_matrix/client/unstable/im.nheko.summary/summary/{room}", get(summary))
        .route("/_matrix/client/unstable/im.nheko.summary/rooms/{room}/summary", get(summary));
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/client/{version}");
        router = router
            .route(
                &format!("{base}/directory/room/{{alias}}"),
                get(resolve_alias).put(create_alias).delete(remove_alias),
            )
            .route(&format!("{base}/rooms/{{room}}/aliases"), get(aliases))
            .route(&format!("{base}/directory/list/room/{{room}}"), get(listing).put(list))
            .route(&format!("{base}/publicRooms"), get(public_rooms).post(search_public_rooms));
    }
    router
}

async fn resolve_alias(
    State(api): State<Api>,
    MaybeCaller(session): MaybeCaller,
    Params(alias): Params<OwnedRoomAliasId>,
) -> Answer {
    if alias.server_name() != api.rooms.server_name() {
        let (room, servers) = api.elsewhere.alias(&alias).await?;
        return Ok(Json(json!({ "room_id": room, "servers": servers })));
    }
    let asker = session.as_ref().map(|session| &*session.user_id);
    let room = match api.rooms.resolve_alias(&alias)? {
        Some(room) if api.rooms.may_enter(asker, room, Entry::Look)? => room,
        _ => return Err(ApiError::not_found(format!("the alias {alias} does not exist"))),
    };
    let mut servers = vec![api.rooms.server_name().to_owned()];
    servers
        .extend(api.rooms.servers_in(room)?.into_iter().filter(|server| server != api.rooms.server_name()));
    Ok(Json(json!({ "room_id": api.rooms.room_id(room)?, "servers": servers })))
}

#[derive(Debug, Deserialize)]
struct Alias {
    room_id: OwnedRoomId,
}

async fn create_alias(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(alias): Params<OwnedRoomAliasId>,
    Body(request): Body<Alias>,
) -> Answer {
    api.rooms.create_alias(&session.user_id, &alias, &request.room_id).await.map_err(
        |error| match error {
            postern_rooms::Error::AliasInUse(_) => {
                ApiError::new(axum::http::StatusCode::CONFLICT, "M_UNKNOWN", error.to_string())
            }
            other => other.into(),
        },
    )?;
    Ok(done())
}

async fn remove_alias(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(alias): Params<OwnedRoomAliasId>,
) -> Answer {
    let room = api.rooms.resolve_alias(&alias)?;
    if let Some(room) = room {
        let unknown = || ApiError::not_found("there is no such alias");
        known(&api, Some(&session), &api.rooms.room_id(room)?)?.ok_or_else(unknown)?;
    }
    api.rooms.remove_alias(&session.user_id, &alias, session.is_admin).await?;
    if let Some(room) = room {
        unname(&api, &session.user_id, room, &alias).await;
    }
    Ok(done())
}

/// An alias that is gone stands in the room's canonical alias no more, if its remover may change that.
async fn unname(api: &Api, user: &ruma::UserId, room: postern_graph::RoomNum, alias: &ruma::RoomAliasId) {
    let Ok(Some(event)) = api.rooms.state(room, "m.room.canonical_alias", "") else { return };
    let mut content: serde_json::Map<String, Value> = event.content_as().unwrap_or_default();
    let before = content.clone();
    if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
        content.remove("alias");
    }
    if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
        others.retain(|other| other.as_str() != Some(alias.as_str()));
    }
    if content == before {
        return;
    }
    let Ok(draft) = postern_rooms::Draft::state("m.room.canonical_alias", "", &content) else { return };
    if let Err(error) = api.rooms.send(user, &event.room_id, draft).await {
        tracing::debug!(%error, "the canonical alias keeps a removed alias");
    }
}

async fn aliases(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
) -> Answer {
    let room = room_num(&api, &room)?;
    if !api.rooms.is_joined(room, session.user)? && !api.rooms.is_world_readable(room)? {
        return Err(ApiError::forbidden("you are not in this room"));
    }
    Ok(Json(json!({ "aliases": api.rooms.aliases_for(&session.user_id, room)? })))
}

fn not_known(room: &RoomId) -> ApiError {
    ApiError::not_found(format!("the room {room} is not known to this server"))
}

async fn listing(
    State(api): State<Api>,
    MaybeCaller(session): MaybeCaller,
    Params(room): Params<OwnedRoomId>,
) -> Answer {
    let room = known(&api, session.as_deref(), &room)?.ok_or_else(|| not_known(&room))?;
    let visibility = if api.rooms.is_published(room)? { "public" } else { "private" };
    Ok(Json(json!({ "visibility": visibility })))
}

#[derive(Debug, Deserialize)]
struct List {
    visibility: Option<String>,
}

async fn list(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(request): Body<List>,
) -> Answer {
    let room = known(&api, Some(&session), &room)?.ok_or_else(|| not_known(&room))?;
    let published = match request.visibility.as_deref() {
        None | Some("public") => true,
        Some("private") => false,
        Some(_) => return Err(ApiError::invalid_param("visibility is public or private")),
    };
    let publishers = api.config.rooms.directory_publishers;
    if published && !session.is_admin && !matches!(publishers, Who::Anyone) {
        return Err(ApiError::forbidden("you may not list rooms in the directory of this server"));
    }
    api.rooms.publish(&session.user_id, room, published, session.is_admin).await?;
    Ok(done())
}

#[derive(Debug, Default, Deserialize)]
struct Listing {
    limit: Option<u64>,
    since: Option<String>,
    server: Option<String>,
    #[serde(default)]
    filter: ListingFilter,
}

#[derive(Debug, Default, Deserialize)]
struct ListingFilter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

#[derive(Debug, Deserialize)]
struct ListingQuery {
    limit: Option<u64>,
    since: Option<String>,
    server: Option<String>,
}

/// Who asks, and on which device.
fn asking(session: Option<&Session>) -> Asker<'_> {
    session.map_or(Asker::User(None), |session| Asker::Device(&session.user_id, &session.device_id))
}

async fn public_rooms(
    State(api): State<Api>,
    MaybeCaller(session): MaybeCaller,
    Query(query): Query<ListingQuery>,
) -> Answer {
    let ListingQuery { limit, since, server } = query;
    answer(
        &api,
        asking(session.as_deref()),
        Listing { limit, since, server, filter: ListingFilter::default() },
    )
    .await
}

async fn search_public_rooms(
    State(api): State<Api>,
    Caller(session): Caller,
    Query(query): Query<ListingQuery>,
    Body(mut request): Body<Listing>,
) -> Answer {
    request.server = query.server.or(request.server);
    answer(&api, asking(Some(&session)), request).await
}

async fn answer(api: &Api, asker: Asker<'_>, request: Listing) -> Answer {
    if let Some(server) =
        request.server.as_deref().filter(|server| *server != api.rooms.server_name().as_str())
    {
        let server = ServerName::parse(server).map_err(|error| ApiError::invalid_param(error.to_string()))?;
        let mut asked = json!({});
        for (name, value) in [
            ("limit", request.limit.map(Value::from)),
            ("since", request.since.map(Value::from)),
            ("filter", request.filter.as_value()),
        ] {
            if let Some(value) = value {
                asked[name] = value;
            }
        }
        return Ok(Json(api.elsewhere.public_rooms(&server, asked).await?));
    }
    let query = PublicRooms { term: request.filter.generic_search_term, types: request.filter.room_types };
    Ok(Json(api.rooms.public_page(asker, &query, request.since.as_deref(), request.limit)?))
}

impl ListingFilter {
    fn as_value(&self) -> Option<Value> {
        let mut filter = serde_json::Map::new();
        if let Some(term) = &self.generic_search_term {
            filter.insert("generic_search_term".to_owned(), term.as_str().into());
        }
        if let Some(types) = &self.room_types {
            filter.insert("room_types".to_owned(), json!(types));
        }
        (!filter.is_empty()).then_some(Value::Object(filter))
    }
}

#[derive(Debug, Deserialize)]
struct Hierarchy {
    #[serde(default)]
    suggested_only: bool,
    limit: Option<u64>,
    max_depth: Option<u64>,
    from: Option<String>,
}

async fn space(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Query(query): Query<Hierarchy>,
) -> Answer {
    // A token holds what the walk depends on: going on with other conditions would skip rooms.
    let conditions = format!("{}_{}", query.suggested_only, query.max_depth.map_or(-1, u64::cast_signed));
    let skip = match &query.from {
        None => 0,
        Some(token) => token
            .strip_prefix('h')
            .and_then(|token| token.split_once('_'))
            .filter(|(_, rest)| *rest == conditions)
            .and_then(|(skip, _)| skip.parse().ok())
            .ok_or_else(|| ApiError::invalid_param("from is no token of this walk"))?,
    };
    let limit = usize::try_from(query.limit.unwrap_or(50).clamp(1, 100)).unwrap_or(50);
    let walk = Walk {
        suggested_only: query.suggested_only,
        max_depth: query.max_depth.map(|depth| usize::try_from(depth).unwrap_or(usize::MAX)),
        skip,
        limit,
    };
    let (rooms, more) = hierarchy::walk(&api, &session, room, walk).await?;
    let mut body = json!({});
    if more {
        body["next_batch"] = format!("h{}_{conditions}", skip + rooms.len()).into();
    }
    body["rooms"] = rooms.into();
    Ok(Json(body))
}

async fn summary(
    State(api): State<Api>,
    MaybeCaller(session): MaybeCaller,
    Params(room): Params<OwnedRoomOrAliasId>,
) -> Answer {
    let missing = || ApiError::not_found("there is no such room, or you may not see it");
    let id = resolve(&api, session.as_deref(), &room).await?.0;
    let room = api.rooms.room(&id)?.ok_or_else(missing)?;
    let user = session.as_ref().map(|session| session.user);
    if !api.rooms.may_see_summary(room, user)? {
        return Err(missing());
    }
    let mut body = json!(api.rooms.summary(asking(session.as_deref()), room)?);
    if let Some(user) = user {
        let membership = api.rooms.member(room, user)?;
        body["membership"] = membership.map_or("leave", |membership| membership.kind.as_str()).into();
    }
    Ok(Json(body))
}
