//! This server's keys, those of others it vouches for, its version, and where it is (specification: publishing keys,
//! querying keys through another server, server implementation, resolving server names).

use crate::{Federation, origin::Body};
use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use futures::{StreamExt, stream};
use postern_rooms::now_ms;
use postern_web::{Answer, ApiError};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedServerName};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How long this server's keys may be trusted after they were fetched, milliseconds.
const VALID_MS: u64 = 24 * 3600 * 1000;
/// Servers whose keys one request may ask for.
const SERVERS: usize = 100;
/// Servers asked at the same time for one request.
const AT_ONCE: usize = 10;

pub(crate) fn routes() -> Router<Federation> {
    Router::new()
        .route("/_matrix/key/v2/server", get(own))
        .route("/_matrix/key/v2/server/{key}", get(own))
        .route("/_matrix/key/v2/query", post(query))
        .route("/_matrix/key/v2/query/{server}", get(query_one))
        .route("/_matrix/key/v2/query/{server}/{key}", get(query_one_key))
        .route("/_matrix/federation/v1/version", get(version))
        .route("/.well-known/matrix/server", get(well_known))
}

fn published(federation: &Federation) -> Result<CanonicalJsonObject, ApiError> {
    Ok(federation.0.rooms.keys().published(now_ms() + VALID_MS)?)
}

async fn own(State(federation): State<Federation>) -> Answer {
    Ok(Json(value(published(&federation)?)?))
}

fn value(object: CanonicalJsonObject) -> Result<Value, ApiError> {
    serde_json::to_value(CanonicalJsonValue::Object(object)).map_err(|error| ApiError::internal(&error))
}

async fn version() -> Json<Value> {
    Json(json!({ "server": { "name": "Postern", "version": env!("CARGO_PKG_VERSION") } }))
}

async fn well_known(State(federation): State<Federation>) -> Answer {
    match &federation.0.config.federation.well_known_server {
        Some(server) => Ok(Json(json!({ "m.server": server.as_str() }))),
        None => Err(ApiError::not_found("this server is where its name says")),
    }
}

#[derive(Debug, Deserialize)]
struct Query {
    server_keys: BTreeMap<OwnedServerName, Value>,
}

async fn query(State(federation): State<Federation>, Body(query): Body<Query>) -> Answer {
    if query.server_keys.len() > SERVERS {
        return Err(ApiError::invalid_param(format!("at most {SERVERS} servers at once")));
    }
    vouched(&federation, query.server_keys.into_keys().collect()).await
}

async fn query_one(State(federation): State<Federation>, Path(server): Path<OwnedServerName>) -> Answer {
    vouched(&federation, vec![server]).await
}

async fn query_one_key(
    State(federation): State<Federation>,
    Path((server, _)): Path<(OwnedServerName, String)>,
) -> Answer {
    vouched(&federation, vec![server]).await
}

/// The keys of servers, with this server's signature. Servers that cannot be asked are left out.
async fn vouched(federation: &Federation, servers: Vec<OwnedServerName>) -> Answer {
    let found: Vec<CanonicalJsonObject> = stream::iter(servers)
        .map(|server| async move {
            if server == federation.0.rooms.server_name() {
                return published(federation).ok();
            }
            let mut object = federation.0.ring.published(&server).await?.object;
            object.retain(|name, _| {
                matches!(
                    name.as_str(),
                    "server_name" | "verify_keys" | "old_verify_keys" | "valid_until_ts" | "signatures"
                )
            });
            federation.0.rooms.keys().vouch(&mut object).ok()?;
            Some(object)
        })
        .buffered(AT_ONCE)
        .filter_map(|found| async move { found })
        .collect()
        .await;
    let keys = found.into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "server_keys": keys })))
}
