//! Backups of room keys (specification: server-side key backups).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params, Query, done},
};
use axum::{Json, Router, extract::State, routing::get};
use postern_users::{BackedUpKey, BackupScope, RoomKeys, Session};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use std::collections::BTreeMap;

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3", "unstable"] {
        let base = format!("/_matrix/client/{version}/room_keys");
        router = router
            .route(&format!("{base}/version"), get(current).post(create))
            .route(&format!("{base}/version/{{version}}"), get(one).put(update).delete(delete))
            .route(&format!("{base}/keys"), get(all_keys).put(put_all).delete(delete_all))
            .route(&format!("{base}/keys/{{room}}"), get(room_keys).put(put_room).delete(delete_room))
            .route(
                &format!("{base}/keys/{{room}}/{{session}}"),
                get(session_key).put(put_session).delete(delete_session),
            );
    }
    router
}

async fn current(State(api): State<Api>, Caller(session): Caller) -> Answer {
    Ok(Json(json!(api.users.backup(session.user, None)?)))
}

async fn one(State(api): State<Api>, Caller(session): Caller, Params(version): Params<String>) -> Answer {
    Ok(Json(json!(api.users.backup(session.user, Some(&version))?)))
}

#[derive(Debug, Deserialize)]
struct Version {
    algorithm: String,
    auth_data: Map<String, Value>,
    version: Option<String>,
}

async fn create(State(api): State<Api>, Caller(session): Caller, Body(request): Body<Version>) -> Answer {
    let version = api.users.create_backup(session.user, &request.algorithm, request.auth_data).await?;
    Ok(Json(json!({ "version": version })))
}

async fn update(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(version): Params<String>,
    Body(request): Body<Version>,
) -> Answer {
    if request.version.as_ref().is_some_and(|other| *other != version) {
        return Err(ApiError::invalid_param("the body names another version"));
    }
    api.users.update_backup(session.user, &version, &request.algorithm, request.auth_data).await?;
    Ok(done())
}

async fn delete(State(api): State<Api>, Caller(session): Caller, Params(version): Params<String>) -> Answer {
    api.users.delete_backup(session.user, &version).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
struct Which {
    version: Option<String>,
}

impl Which {
    fn version(&self) -> Result<&str, ApiError> {
        self.version.as_deref().ok_or_else(|| ApiError::missing_param("version is missing"))
    }
}

#[derive(Debug, Deserialize)]
struct Rooms {
    rooms: BTreeMap<String, Sessions>,
}

#[derive(Debug, Deserialize)]
struct Sessions {
    sessions: BTreeMap<String, BackedUpKey>,
}

async fn write(api: &Api, session: &Session, which: &Which, keys: RoomKeys) -> Answer {
    Ok(Json(json!(api.users.put_backup_keys(session.user, which.version()?, &keys).await?)))
}

async fn delete_keys(api: &Api, session: &Session, which: &Which, scope: BackupScope<'_>) -> Answer {
    Ok(Json(json!(api.users.delete_backup_keys(session.user, which.version()?, scope).await?)))
}

async fn all_keys(State(api): State<Api>, Caller(session): Caller, Query(which): Query<Which>) -> Answer {
    let keys = api.users.backup_keys(session.user, which.version()?, BackupScope::All)?;
    let rooms: BTreeMap<String, Value> =
        keys.into_iter().map(|(room, sessions)| (room, json!({ "sessions": sessions }))).collect();
    Ok(Json(json!({ "rooms": rooms })))
}

async fn put_all(
    State(api): State<Api>,
    Caller(session): Caller,
    Query(which): Query<Which>,
    Body(request): Body<Rooms>,
) -> Answer {
    let keys = request.rooms.into_iter().map(|(room, sessions)| (room, sessions.sessions)).collect();
    write(&api, &session, &which, keys).await
}

async fn delete_all(State(api): State<Api>, Caller(session): Caller, Query(which): Query<Which>) -> Answer {
    delete_keys(&api, &session, &which, BackupScope::All).await
}

async fn room_keys(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<String>,
    Query(which): Query<Which>,
) -> Answer {
    let mut keys = api.users.backup_keys(session.user, which.version()?, BackupScope::Room(&room))?;
    Ok(Json(json!({ "sessions": keys.remove(&room).unwrap_or_default() })))
}

async fn put_room(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<String>,
    Query(which): Query<Which>,
    Body(request): Body<Sessions>,
) -> Answer {
    write(&api, &session, &which, BTreeMap::from([(room, request.sessions)])).await
}

async fn delete_room(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<String>,
    Query(which): Query<Which>,
) -> Answer {
    delete_keys(&api, &session, &which, BackupScope::Room(&room)).await
}

async fn session_key(
    State(api): State<Api>,
    Caller(caller): Caller,
    Params((room, session)): Params<(String, String)>,
    Query(which): Query<Which>,
) -> Answer<Json<Box<RawValue>>> {
    let scope = BackupScope::Session(&room, &session);
    let mut keys = api.users.backup_keys(caller.user, which.version()?, scope)?;
    let key = keys.remove(&room).and_then(|mut sessions| sessions.remove(&session));
    key.map(Json).ok_or_else(|| ApiError::not_found("the backup has no such key"))
}

async fn put_session(
    State(api): State<Api>,
    Caller(caller): Caller,
    Params((room, session)): Params<(String, String)>,
    Query(which): Query<Which>,
    Body(key): Body<BackedUpKey>,
) -> Answer {
    write(&api, &caller, &which, BTreeMap::from([(room, BTreeMap::from([(session, key)]))])).await
}

async fn delete_session(
    State(api): State<Api>,
    Caller(caller): Caller,
    Params((room, session)): Params<(String, String)>,
    Query(which): Query<Which>,
) -> Answer {
    delete_keys(&api, &caller, &which, BackupScope::Session(&room, &session)).await
}
