//! Who is who: peers, clearances; and reading everything again.

use super::Answer;
use crate::officer::Officer;
use axum::Json;
use postern_border::{DeviceEntry, HolderKind, PeerEntry, PeerShown, UserEntry};
use postern_client::{
    Api,
    http::{ApiError, Body, Params, Query},
};
use postern_policy::decide::Action;
use ruma::OwnedServerName;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(put, remove))
        .routes(routes!(users, put_user, remove_user))
        .routes(routes!(devices, put_device, remove_device))
        .routes(routes!(reload))
}

/// The table of peers: what the file says, and what was written here.
#[utoipa::path(get, path = "/_postern/border/peers", tag = "border", responses((status = 200, body = Vec<PeerShown>)))]
async fn list(officer: Officer) -> Answer<Vec<PeerShown>> {
    officer.may(Action::AdminPeers)?;
    Ok(Json(officer.border.peers()))
}

/// Writes a peer into the table, before what the file says of it. It counts at once.
#[utoipa::path(
    put, path = "/_postern/border/peers/{server}", tag = "border", params(("server" = String, Path)),
    request_body = PeerEntry,
    responses((status = 200, body = Object), (status = 400, description = "What is wrong with the entry"))
)]
async fn put(
    officer: Officer,
    Params(server): Params<OwnedServerName>,
    Body(mut entry): Body<serde_json::Map<String, Value>>,
) -> Answer<Value> {
    officer.may(Action::AdminPeers)?;
    entry.insert("name".to_owned(), server.as_str().into());
    let entry: PeerEntry = serde_json::from_value(Value::Object(entry))
        .map_err(|error| ApiError::bad_json(error.to_string()))?;
    officer.border.put_peer(&entry).await?;
    Ok(Json(json!({})))
}

#[derive(Debug, Deserialize)]
struct Removal {
    #[serde(default)]
    reset: bool,
}

/// Takes a server out of the table: it is no peer any more, also if the file says so. With `reset`, forgets what was written
/// here: the file counts again.
#[utoipa::path(
    delete, path = "/_postern/border/peers/{server}", tag = "border",
    params(("server" = String, Path), ("reset" = Option<bool>, Query)),
    responses((status = 200, body = Object))
)]
async fn remove(
    officer: Officer,
    Params(server): Params<OwnedServerName>,
    Query(removal): Query<Removal>,
) -> Answer<Value> {
    officer.may(Action::AdminPeers)?;
    if removal.reset {
        officer.border.reset_peer(&server).await?;
    } else {
        officer.border.remove_peer(&server).await?;
    }
    Ok(Json(json!({})))
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
}

/// The clearances of users that were given here.
#[utoipa::path(get, path = "/_postern/border/users", tag = "border", responses((status = 200, body = Vec<UserEntry>)))]
async fn users(officer: Officer) -> Answer<Vec<Value>> {
    officer.may(Action::AdminUsers)?;
    Ok(Json(officer.border.clearances(HolderKind::User)?))
}

/// Gives a user, or users whose ids fit a pattern, a clearance and roles.
#[utoipa::path(
    put, path = "/_postern/border/users", tag = "border", request_body = UserEntry,
    responses((status = 200, body = Object), (status = 400, description = "What is wrong with the entry"))
)]
async fn put_user(officer: Officer, Body(entry): Body<UserEntry>) -> Answer<Value> {
    officer.may(Action::AdminUsers)?;
    officer.border.put_user(&entry).await?;
    Ok(Json(json!({})))
}

/// Forgets a clearance that was given here.
#[utoipa::path(
    delete, path = "/_postern/border/users", tag = "border", params(("id" = String, Query)),
    responses((status = 200, body = Object), (status = 404, description = "None was given here"))
)]
async fn remove_user(officer: Officer, Query(named): Query<Named>) -> Answer<Value> {
    officer.may(Action::AdminUsers)?;
    removed(officer.border.remove_clearance(HolderKind::User, &named.id).await?)
}

/// The bounds of devices that were set here.
#[utoipa::path(get, path = "/_postern/border/devices", tag = "border", responses((status = 200, body = Vec<DeviceEntry>)))]
async fn devices(officer: Officer) -> Answer<Vec<Value>> {
    officer.may(Action::AdminUsers)?;
    Ok(Json(officer.border.clearances(HolderKind::Device)?))
}

/// Bounds what may be seen on a device, or on devices whose ids fit a pattern.
#[utoipa::path(
    put, path = "/_postern/border/devices", tag = "border", request_body = DeviceEntry,
    responses((status = 200, body = Object), (status = 400, description = "What is wrong with the entry"))
)]
async fn put_device(officer: Officer, Body(entry): Body<DeviceEntry>) -> Answer<Value> {
    officer.may(Action::AdminUsers)?;
    officer.border.put_device(&entry).await?;
    Ok(Json(json!({})))
}

#[derive(Debug, Deserialize)]
struct NamedDevice {
    user: String,
    id: String,
}

/// Forgets the bound of a device that was set here.
#[utoipa::path(
    delete, path = "/_postern/border/devices", tag = "border",
    params(("user" = String, Query), ("id" = String, Query)),
    responses((status = 200, body = Object), (status = 404, description = "None was set here"))
)]
async fn remove_device(officer: Officer, Query(named): Query<NamedDevice>) -> Answer<Value> {
    officer.may(Action::AdminUsers)?;
    let name = format!("{} {}", named.user, named.id);
    removed(officer.border.remove_clearance(HolderKind::Device, &name).await?)
}

fn removed(was_there: bool) -> Answer<Value> {
    if was_there { Ok(Json(json!({}))) } else { Err(ApiError::not_found("there is no such entry").into()) }
}

/// Reads the border's directory again, as SIGHUP does.
#[utoipa::path(
    post, path = "/_postern/border/reload", tag = "border",
    responses((status = 200, body = Object), (status = 400, description = "All that is wrong; nothing is changed"))
)]
async fn reload(officer: Officer) -> Answer<Value> {
    officer.may(Action::AdminPolicy)?;
    officer.border.reload().await?;
    Ok(Json(json!({})))
}
