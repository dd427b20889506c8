//! Device lists between servers (specification: device management), as far as others speak: their question for a user's
//! devices, and their updates about their own users.
//!
//! What this server tells others is in [`crate::device_updates`], questions for keys are in [`crate::user_keys`].

use crate::{
    Error, Federation,
    origin::{Origin, Params},
};
use axum::{Json, Router, extract::State, routing::get};
use parking_lot::Mutex;
use postern_graph::{UserNum, schema::ToldServers, schema::ToldUpdates};
use postern_users::{DeviceUpdate, KeyQuery, RemoteKeys, RemoteMessage, Updated};
use postern_web::{Answer, ApiError};
use ruma::{OwnedUserId, ServerName, UserId, canonical_json::try_from_json_map};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use tokio::sync::Semaphore;

pub fn routes() -> Router<Federation> {
    Router::new().route("/_matrix/federation/v1/user/devices/{user}", get(user_devices))
}

/// Waits before another server is asked again for a user's devices, seconds. After the last the list stays as not
/// fresh, and the server is asked whenever a client wants keys.
const RESYNC_AFTER: [u64; 5] = [0, 5, 30, 120, 600];

/// Device lists that are asked for at a time.
const RESYNCS_AT_ONCE: usize = 8;

/// Device lists that wait to be asked for; others are asked for when a client wants keys.
const RESYNCS_WAITING: usize = 1_000;

/// `prev_id` of one update: servers that work one after the other name one.
const PREV_IDS: usize = 100;

/// Device lists of users of other servers that are being asked for again.
#[derive(Debug)]
pub(crate) struct Resyncs {
    users: Mutex<HashSet<UserNum>>,
    at_once: Semaphore,
}

impl Default for Resyncs {
    fn default() -> Self {
        Self { users: Mutex::default(), at_once: Semaphore::new(RESYNCS_AT_ONCE) }
    }
}

impl Federation {
    /// Whether a server may know the devices of a local user: it shares a room with the user, or they are on their way
    /// into one.
    pub(crate) fn may_know_devices(&self, server: &ServerName, user: &UserId) -> Result<bool, Error> {
        let rooms = &self.0.rooms;
        Ok(rooms.is_local(user)
            && self.0.users.account(user)?.is_some()
            && (rooms.shares_room(server, user)? || rooms.has_invited(server, user)?))
    }

    /// The number of a user of another server, if a local user shares a room with them.
    pub(crate) fn met(&self, user: &UserId) -> Result<Option<UserNum>, Error> {
        let rooms = &self.0.rooms;
        if rooms.is_local(user) || !rooms.shares_room(rooms.server_name(), user)? {
            return Ok(None);
        }
        Ok(rooms.user(user)?)
    }
}

/// The public keys of a local user's devices as other servers are told them: without names, unless these may be known,
/// and without keys that are no canonical JSON, which would make all of an answer or a transaction unreadable.
pub(crate) fn told_keys(federation: &Federation, user: &UserId) -> Result<RemoteKeys, Error> {
    let wanted = KeyQuery::from([(user.to_owned(), Vec::new())]);
    let mut found = federation.0.users.query_keys(None, &wanted)?;
    let usable = |key: Value| match key {
        Value::Object(key) if try_from_json_map(key.clone()).is_ok() => Some(key),
        _ => None,
    };
    let devices = found.device_keys.remove(user).unwrap_or_default();
    let devices = devices.into_iter().filter_map(|(device, keys)| {
        let mut keys = usable(keys)?;
        if !federation.0.config.users.device_names_over_federation {
            keys.remove("unsigned");
        }
        Some((device, keys))
    });
    Ok(RemoteKeys {
        devices: devices.collect(),
        master_key: found.master_keys.remove(user).and_then(usable),
        self_signing_key: found.self_signing_keys.remove(user).and_then(usable),
    })
}

/// The devices of a local user as other servers are told them: by id, the name if it may be known, and the keys. Devices
/// without keys are told too.
pub(crate) fn told_devices(
    federation: &Federation,
    user: UserNum,
    keys: &mut RemoteKeys,
) -> Result<BTreeMap<String, Map<String, Value>>, Error> {
    let mut told = BTreeMap::new();
    for device in federation.0.users.devices(user)? {
        let mut fields = Map::new();
        if let Some(keys) = keys.devices.remove(&device.device_id) {
            fields.insert("keys".to_owned(), Value::Object(keys));
        }
        if federation.0.config.users.device_names_over_federation
            && let Some(name) = device.display_name
        {
            fields.insert("device_display_name".to_owned(), name.into());
        }
        told.insert(device.device_id, fields);
    }
    Ok(told)
}

/// `GET /user/devices/{userId}`. A user who is not there and one the asking server has nothing to do with are not told
/// apart.
async fn user_devices(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(user): Params<String>,
) -> Answer {
    let user = OwnedUserId::try_from(user).map_err(|error| ApiError::invalid_param(error.to_string()))?;
    let refused = || ApiError::forbidden("your server shares no room with such a user of this server");
    if !federation.may_know_devices(&origin, &user)? {
        return Err(refused());
    }
    let graph = &federation.0.graph;
    let number = federation.0.users.number(&user)?.ok_or_else(refused)?;
    // Read before the devices: an update that is told again does no harm, one that is missed does.
    let stream_id = match graph.get::<ToldServers>(&(number, origin.to_string()))? {
        Some(last) => last,
        None => graph.get::<ToldUpdates>(&(number,))?.unwrap_or_default(),
    };
    let mut keys = told_keys(&federation, &user)?;
    let devices: Vec<Value> = told_devices(&federation, number, &mut keys)?
        .into_iter()
        .filter(|(_, fields)| fields.contains_key("keys"))
        .map(|(device, mut fields)| {
            fields.insert("device_id".to_owned(), device.into());
            Value::Object(fields)
        })
        .collect();
    graph.durable_at(graph.applied()).await?;
    let mut answer = json!({ "user_id": user, "stream_id": stream_id, "devices": devices });
    for (name, key) in [("master_key", keys.master_key), ("self_signing_key", keys.self_signing_key)] {
        if let Some(key) = key {
            answer[name] = Value::Object(key);
        }
    }
    Ok(Json(answer))
}

#[derive(Debug, Deserialize)]
struct DeviceListUpdate {
    user_id: OwnedUserId,
    device_id: String,
    device_display_name: Option<String>,
    stream_id: u64,
    #[serde(default)]
    prev_id: Vec<u64>,
    #[serde(default)]
    deleted: bool,
    keys: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct SigningKeyUpdate {
    user_id: OwnedUserId,
    master_key: Option<Value>,
    self_signing_key: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct DirectToDevice {
    sender: OwnedUserId,
    r#type: String,
    message_id: String,
    messages: BTreeMap<String, BTreeMap<String, Value>>,
}

/// Takes an EDU about devices or for them. What makes no sense, or is not the origin's to say, is dropped; on return
/// what was taken is durable.
///
/// # Errors
/// Only those of the store: the EDU is not to be acknowledged.
pub async fn receive(
    federation: &Federation,
    origin: &ServerName,
    edu_type: &str,
    content: Value,
) -> Result<(), Error> {
    let unreadable =
        |error: serde_json::Error| tracing::info!(%origin, edu_type, %error, "an EDU cannot be read");
    match edu_type {
        "m.device_list_update" => match DeviceListUpdate::deserialize(content) {
            Ok(update) => device_list_update(federation, origin, update).await?,
            Err(error) => unreadable(error),
        },
        "m.signing_key_update" => match SigningKeyUpdate::deserialize(content) {
            Ok(update) => signing_key_update(federation, origin, update).await?,
            Err(error) => unreadable(error),
        },
        "m.direct_to_device" => match DirectToDevice::deserialize(content) {
            Ok(message) => direct_to_device(federation, origin, message).await?,
            Err(error) => unreadable(error),
        },
        _ => tracing::debug!(%origin, edu_type, "an EDU that has nothing to do with devices"),
    }
    Ok(())
}

/// Whether a user is the origin's to speak of.
fn is_of(user: &UserId, origin: &ServerName, edu_type: &str) -> bool {
    let right = user.server_name() == origin;
    if !right {
        tracing::warn!(%origin, %user, edu_type, "a server speaks for a user of another server");
    }
    right
}

async fn device_list_update(
    federation: &Federation,
    origin: &ServerName,
    update: DeviceListUpdate,
) -> Result<(), Error> {
    let DeviceListUpdate { user_id, device_id, device_display_name, stream_id, mut prev_id, deleted, keys } =
        update;
    if !is_of(&user_id, origin, "m.device_list_update") {
        return Ok(());
    }
    // Of users nobody here has to do with nothing is kept.
    let Some(user) = federation.met(&user_id)? else { return Ok(()) };
    if prev_id.len() > PREV_IDS {
        // As if it followed on what is not known.
        prev_id.clear();
    }
    let update =
        DeviceUpdate { device_id, stream_id, prev_id, deleted, keys, display_name: device_display_name };
    let (updated, applied) = federation.0.users.update_device(&user_id, user, update)?;
    federation.0.graph.durable_at(applied).await?;
    if updated == Updated::Stale {
        resync(federation, user_id, user);
    }
    Ok(())
}

async fn signing_key_update(
    federation: &Federation,
    origin: &ServerName,
    update: SigningKeyUpdate,
) -> Result<(), Error> {
    let SigningKeyUpdate { user_id, master_key, self_signing_key } = update;
    if !is_of(&user_id, origin, "m.signing_key_update") {
        return Ok(());
    }
    let Some(user) = federation.met(&user_id)? else { return Ok(()) };
    let users = &federation.0.users;
    let (updated, applied) = users.update_signing_keys(&user_id, user, master_key, self_signing_key)?;
    federation.0.graph.durable_at(applied).await?;
    if updated == Updated::Stale {
        resync(federation, user_id, user);
    }
    Ok(())
}

async fn direct_to_device(
    federation: &Federation,
    origin: &ServerName,
    message: DirectToDevice,
) -> Result<(), Error> {
    let DirectToDevice { sender, r#type: event_type, message_id, messages } = message;
    if !is_of(&sender, origin, "m.direct_to_device") {
        return Ok(());
    }
    let message = RemoteMessage { sender: sender.to_string(), event_type, message_id, messages };
    Ok(federation.0.users.receive_to_device(origin, &message).await?)
}

/// Asks for a followed device list again, in the background, once at a time for a user.
fn resync(federation: &Federation, user_id: OwnedUserId, user: UserNum) {
    let resyncs = &federation.0.resyncs;
    {
        let mut users = resyncs.users.lock();
        if users.len() >= RESYNCS_WAITING || !users.insert(user) {
            return;
        }
    }
    let federation = federation.clone();
    tokio::spawn(async move {
        let stopping = federation.0.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = try_resync(&federation, &user_id, user) => {}
        }
        federation.0.resyncs.users.lock().remove(&user);
    });
}

async fn try_resync(federation: &Federation, user_id: &UserId, user: UserNum) {
    for wait in RESYNC_AFTER {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        // It is closed never.
        let Ok(_turn) = federation.0.resyncs.at_once.acquire().await else { return };
        match resync_once(federation, user_id, user).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::info!(%user_id, %error, "a device list cannot be had"),
        }
    }
}

#[derive(Debug, Deserialize)]
struct UserDevices {
    user_id: OwnedUserId,
    stream_id: u64,
    devices: Vec<UserDevice>,
    master_key: Option<Value>,
    self_signing_key: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct UserDevice {
    device_id: String,
    keys: Option<Value>,
    device_display_name: Option<String>,
}

/// Whether the list is fresh now, or nobody wants it any more.
async fn resync_once(federation: &Federation, user_id: &UserId, user: UserNum) -> Result<bool, Error> {
    let users = &federation.0.users;
    let wanted =
        federation.met(user_id)?.is_some() && users.followed(user)?.is_some_and(|followed| !followed.fresh);
    if !wanted {
        return Ok(true);
    }
    let before = users.last_device_change(user)?;
    let name = percent_encoding::utf8_percent_encode(user_id.as_str(), percent_encoding::NON_ALPHANUMERIC);
    let path = format!("/_matrix/federation/v1/user/devices/{name}");
    let answer: UserDevices = federation.0.peers.get(user_id.server_name(), &path).await?;
    if answer.user_id != user_id {
        return Err(crate::PeerError::BadAnswer("it is about another user".to_owned()).into());
    }
    let devices = answer.devices.into_iter().filter_map(|device| {
        let mut keys = device.keys?;
        if let (Some(name), Some(keys)) = (device.device_display_name, keys.as_object_mut()) {
            keys.insert("unsigned".to_owned(), json!({ "device_display_name": name }));
        }
        Some((device.device_id, keys))
    });
    let keys = RemoteKeys::checked(user_id, devices.collect(), answer.master_key, answer.self_signing_key);
    Ok(users.follow_keys(user, &keys, Some(answer.stream_id), before)?.is_some())
}

#[cfg(test)]
mod tests;
