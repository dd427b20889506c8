//! What this server tells about itself and, as a notary, about the keys of others.

use crate::{
    Federation,
    origin::{Body, Params, Query},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use futures::{StreamExt, TryStreamExt, stream};
use postern_rooms::now_ms;
use postern_web::{Answer, ApiError, ClientAddress};
use ruma::{CanonicalJsonObject, OwnedServerName};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How long this server's keys hold from when they are told, milliseconds: what others take to be the longest would be
/// a week; a day lets a key be given up soon.
const VALID_MS: u64 = 24 * 3_600_000;
/// Servers in one query about which others are asked; about more, what is stored is told.
const ASKED_ABOUT: usize = 100;
/// How many of them at a time.
const AT_ONCE: usize = 8;
/// Servers in one query.
const QUERIED: usize = 1_000;
/// Keys of one server in one query.
const KEYS_QUERIED: usize = 100;

/// Endpoints that need no signature.
pub fn routes() -> Router<Federation> {
    Router::new()
        .route("/.well-known/matrix/server", get(well_known))
        .route("/_matrix/federation/v1/version", get(version))
        .route("/_matrix/key/v2/server", get(server_keys))
        .route("/_matrix/key/v2/server/", get(server_keys))
        // Deprecated since 1.6 and still asked for: the answer has all keys anyhow.
        .route("/_matrix/key/v2/server/{key_id}", get(server_keys))
        .route("/_matrix/key/v2/query", post(query))
        .route("/_matrix/key/v2/query/{server_name}", get(query_one))
}

async fn well_known(State(federation): State<Federation>) -> Answer {
    let name = federation.0.config.federation.well_known_server.as_ref();
    let name = name.ok_or_else(|| ApiError::not_found("this server delegates to no other name"))?;
    Ok(Json(json!({ "m.server": name.as_str() })))
}

async fn version() -> Json<Value> {
    Json(json!({ "server": { "name": "Postern", "version": env!("CARGO_PKG_VERSION") } }))
}

async fn server_keys(State(federation): State<Federation>) -> Answer<Json<CanonicalJsonObject>> {
    Ok(Json(federation.0.rooms.keys().signed_server_keys(now_ms().saturating_add(VALID_MS))?))
}

/// What is asked about a key.
#[derive(Debug, Default, Deserialize)]
struct Criteria {
    #[serde(default)]
    minimum_valid_until_ts: Option<u64>,
}

#[derive(Deserialize)]
struct Queries {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

async fn query(
    State(federation): State<Federation>,
    ClientAddress(address): ClientAddress,
    Body(queries): Body<Queries>,
) -> Answer {
    let too_many = queries.server_keys.values().any(|keys| keys.len() > KEYS_QUERIED);
    if queries.server_keys.len() > QUERIED || too_many {
        return Err(ApiError::too_large(format!(
            "a query may name {QUERIED} servers, and {KEYS_QUERIED} keys of each"
        )));
    }
    let found: Vec<Vec<CanonicalJsonObject>> = stream::iter(queries.server_keys.into_iter().enumerate())
        .map(|(place, (server, keys))| {
            let (federation, address) = (federation.clone(), address.clone());
            async move {
                let until = keys.values().filter_map(|one| one.minimum_valid_until_ts).max();
                let ids: Vec<String> = keys.into_keys().collect();
                let fetch_for = (place < ASKED_ABOUT).then_some(address.as_str());
                told(&federation, &server, &ids, until, fetch_for).await
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Json(json!({ "server_keys": found.concat() })))
}

async fn query_one(
    State(federation): State<Federation>,
    ClientAddress(address): ClientAddress,
    Params(server): Params<OwnedServerName>,
    Query(criteria): Query<Criteria>,
) -> Answer {
    let found = told(&federation, &server, &[], criteria.minimum_valid_until_ts, Some(&address)).await?;
    Ok(Json(json!({ "server_keys": found })))
}

/// The statements about keys of a server, with this server's signature.
async fn told(
    federation: &Federation,
    server: &OwnedServerName,
    ids: &[String],
    valid_until: Option<u64>,
    fetch_for: Option<&str>,
) -> Answer<Vec<CanonicalJsonObject>> {
    let keys = federation.0.rooms.keys();
    let now = now_ms();
    if server == keys.server_name() {
        return Ok(vec![keys.signed_server_keys(now.saturating_add(VALID_MS))?]);
    }
    let until = valid_until.unwrap_or(now);
    let statements = federation.0.ring.statements(server, ids, until, fetch_for).await;
    let statements = statements.map_err(|error| ApiError::internal(&error))?;
    let signed = statements.into_iter().filter_map(|statement| {
        keys.countersign_server_keys(statement)
            .inspect_err(|error| tracing::info!(%server, %error, "keys are not told on"))
            .ok()
    });
    Ok(signed.collect())
}
