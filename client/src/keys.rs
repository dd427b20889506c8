//! End-to-end encryption keys and messages to devices (specification: end-to-end encryption, send-to-device).

use crate::{
    Api,
    http::{self, Answer, ApiError, Body, Caller, Params, done},
    sync::{Comings, SyncToken},
    uia::{Challenge, Halt, PASSWORD},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post, put},
};
use futures::{
    future::BoxFuture,
    stream::{self, StreamExt},
};
use postern_graph::{Pos, RoomNum, event::Membership};
use postern_rooms::Rooms;
use postern_users::{
    CrossSigningUpload, DeviceMessages, KeyClaim, KeyQuery, KeyUpload, SignatureUpload, ToDeviceTxn,
};
use postern_web::Elsewhere;
use ruma::{OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

pub fn routes() -> Router<Api> {
    let mut router = Router::new()
        .route("/_matrix/client/unstable/keys/device_signing/upload", post(upload_cross_signing))
        .route("/_matrix/client/unstable/keys/signatures/upload", post(upload_signatures));
    for version in ["r0", "v3"] {
        let keys = format!("/_matrix/client/{version}/keys");
        router = router
            .route(&format!("{keys}/upload"), post(upload))
            .route(&format!("{keys}/query"), post(query))
            .route(&format!("{keys}/claim"), post(claim))
            .route(&format!("{keys}/changes"), get(changes))
            .route(&format!("{keys}/device_signing/upload"), post(upload_cross_signing))
            .route(&format!("{keys}/signatures/upload"), post(upload_signatures))
            .route(&format!("/_matrix/client/{version}/sendToDevice/{{type}}/{{txn}}"), put(send_to_device));
    }
    router
}

/// Keys of a device as they are sent. What the specification requires of identity keys is checked here, and they are
/// stored as they were sent.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Upload {
    device_keys: Option<Map<String, Value>>,
    one_time_keys: Option<BTreeMap<String, Value>>,
    #[serde(alias = "org.matrix.msc2732.fallback_keys")]
    fallback_keys: Option<BTreeMap<String, Value>>,
}

impl Upload {
    pub(crate) fn checked(self) -> Result<KeyUpload, ApiError> {
        #[derive(Deserialize)]
        struct Required {
            #[serde(rename = "user_id")]
            _user: OwnedUserId,
            #[serde(rename = "device_id")]
            _device: String,
            #[serde(rename = "algorithms")]
            _algorithms: Vec<String>,
            #[serde(rename = "keys")]
            _keys: BTreeMap<String, String>,
            #[serde(rename = "signatures")]
            _signatures: BTreeMap<String, BTreeMap<String, String>>,
        }
        if let Some(keys) = &self.device_keys {
            Required::deserialize(keys)
                .map_err(|error| ApiError::bad_json(format!("device_keys: {error}")))?;
        }
        Ok(KeyUpload {
            device_keys: self.device_keys,
            one_time_keys: self.one_time_keys.unwrap_or_default(),
            fallback_keys: self.fallback_keys.unwrap_or_default(),
        })
    }
}

async fn upload(State(api): State<Api>, Caller(session): Caller, Body(request): Body<Upload>) -> Answer {
    let upload = request.checked()?;
    let counts = api.users.upload_keys(&session.user_id, session.user, &session.device_id, upload).await?;
    Ok(Json(json!({ "one_time_key_counts": counts })))
}

/// How long other servers are waited for if the client does not say, and at most, milliseconds.
const PATIENCE: (u64, u64) = (10_000, 60_000);

/// Other servers asked at a time for one request.
const SERVERS_AT_ONCE: usize = 50;

#[derive(Debug, Deserialize)]
struct Query {
    device_keys: KeyQuery,
    timeout: Option<u64>,
}

/// What is asked of another server: its question and its answer.
type Ask = fn(Arc<dyn Elsewhere>, OwnedServerName, Value) -> BoxFuture<'static, Result<Value, ApiError>>;

/// Asks other servers at a time, each for its part of a question. What those that could not be reached in time failed
/// with is under their names.
async fn ask_others<T: Serialize>(
    api: &Api,
    parts: BTreeMap<OwnedServerName, T>,
    timeout: Option<u64>,
    ask: Ask,
) -> Result<(Vec<Value>, BTreeMap<String, Value>), ApiError> {
    let deadline = Instant::now() + Duration::from_millis(timeout.unwrap_or(PATIENCE.0).min(PATIENCE.1));
    let mut asked = Vec::with_capacity(parts.len());
    for (server, part) in parts {
        let request = serde_json::to_value(part).map_err(|error| ApiError::internal(&error))?;
        let name = server.to_string();
        let answer = ask(api.elsewhere.clone(), server, request);
        asked.push(async move {
            let answer = tokio::time::timeout_at(deadline, answer).await;
            (name, answer.unwrap_or_else(|_| Err(ApiError::not_found("the server did not answer in time"))))
        });
    }
    let answers: Vec<(String, Result<Value, ApiError>)> =
        stream::iter(asked).buffer_unordered(SERVERS_AT_ONCE).collect().await;
    let (mut found, mut failures) = (Vec::new(), BTreeMap::new());
    for (server, answer) in answers {
        match answer {
            Ok(mut answer) => {
                if let Some(failed) =
                    answer.get_mut("failures").and_then(|failures| failures.get_mut(&server))
                {
                    failures.insert(server, failed.take());
                }
                found.push(answer);
            }
            Err(error) => {
                failures.insert(server, json!({ "errcode": error.errcode(), "error": error.message() }));
            }
        }
    }
    Ok((found, failures))
}

/// The parts of a question that other servers answer; those for this one stay.
fn for_others<T>(
    rooms: &Rooms,
    name: &'static str,
    wanted: &mut BTreeMap<OwnedUserId, T>,
) -> BTreeMap<OwnedServerName, BTreeMap<&'static str, BTreeMap<OwnedUserId, T>>> {
    let mut parts: BTreeMap<_, BTreeMap<_, BTreeMap<_, T>>> = BTreeMap::new();
    let (local, remote) = std::mem::take(wanted).into_iter().partition(|(user, _)| rooms.is_local(user));
    *wanted = local;
    for (user, part) in BTreeMap::into_iter(remote) {
        let server = user.server_name().to_owned();
        parts.entry(server).or_default().entry(name).or_default().insert(user, part);
    }
    parts
}

/// Adds what another server answered about users to the answer.
fn add<T: DeserializeOwned>(to: &mut BTreeMap<OwnedUserId, T>, answer: &mut Value, name: &str) {
    let Some(Value::Object(users)) = answer.get_mut(name).map(Value::take) else { return };
    for (user, keys) in users {
        if let (Ok(user), Ok(keys)) = (OwnedUserId::try_from(user), serde_json::from_value(keys)) {
            to.insert(user, keys);
        }
    }
}

async fn query(State(api): State<Api>, Caller(session): Caller, Body(request): Body<Query>) -> Answer {
    let Query { device_keys: mut wanted, timeout } = request;
    postern_users::check_amount(wanted.values().map(Vec::len))?;
    let parts = for_others(&api.rooms, "device_keys", &mut wanted);
    let mut found = api.users.query_keys(Some(&session.user_id), &wanted)?;
    let (answers, failures) = ask_others(&api, parts, timeout, |elsewhere, server, request| {
        Box::pin(async move { elsewhere.query_keys(&server, request).await })
    })
    .await?;
    let mut master_keys = BTreeMap::new();
    for mut answer in answers {
        add(&mut found.device_keys, &mut answer, "device_keys");
        add(&mut master_keys, &mut answer, "master_keys");
        add(&mut found.self_signing_keys, &mut answer, "self_signing_keys");
    }
    api.users.add_signatures_by(session.user, &mut master_keys)?;
    found.master_keys.extend(master_keys);
    Ok(Json(json!({
        "failures": failures,
        "device_keys": found.device_keys,
        "master_keys": found.master_keys,
        "self_signing_keys": found.self_signing_keys,
        "user_signing_keys": found.user_signing_keys,
    })))
}

#[derive(Debug, Deserialize)]
struct Claim {
    one_time_keys: KeyClaim,
    timeout: Option<u64>,
}

async fn claim(State(api): State<Api>, _: Caller, Body(request): Body<Claim>) -> Answer {
    let Claim { one_time_keys: mut wanted, timeout } = request;
    postern_users::check_amount(wanted.values().map(BTreeMap::len))?;
    let parts = for_others(&api.rooms, "one_time_keys", &mut wanted);
    let mut claimed = api.users.claim_keys(&wanted).await?;
    let (answers, failures) = ask_others(&api, parts, timeout, |elsewhere, server, request| {
        Box::pin(async move { elsewhere.claim_keys(&server, request).await })
    })
    .await?;
    for mut answer in answers {
        add(&mut claimed, &mut answer, "one_time_keys");
    }
    Ok(Json(json!({ "failures": failures, "one_time_keys": claimed })))
}

#[derive(Debug, Deserialize)]
struct Span {
    from: String,
    to: Option<String>,
}

async fn changes(
    State(api): State<Api>,
    Caller(session): Caller,
    http::Query(span): http::Query<Span>,
) -> Answer {
    let from: SyncToken = span.from.parse()?;
    // Of each user the latest change is known. One after `to` may hide one before, so all up to now are told.
    if let Some(to) = &span.to {
        to.parse::<SyncToken>()?;
    }
    let to = api.graph.durable();
    let rooms: HashMap<RoomNum, Membership> = api.rooms.rooms_of(session.user)?.into_iter().collect();
    let mut comings = Comings::default();
    for (room, now) in &rooms {
        comings.note(&api, &session, *room, now, (Pos::at(from.log), Pos::at(to)))?;
    }
    let Comings { joined: mut changed, left } = comings;
    changed.extend(api.users.device_changes_between(from.log, to)?);
    let mut lists = (BTreeSet::new(), BTreeSet::new());
    for user in changed {
        if user == session.user || crate::sync::shares_room(&api, &rooms, user)? {
            lists.0.insert(api.users.id(user)?);
        }
    }
    for user in left {
        if user != session.user && !crate::sync::shares_room(&api, &rooms, user)? {
            lists.1.insert(api.users.id(user)?);
        }
    }
    Ok(Json(json!({ "changed": lists.0, "left": lists.1 })))
}

#[derive(Debug, Deserialize)]
struct CrossSigning {
    master_key: Option<Map<String, Value>>,
    self_signing_key: Option<Map<String, Value>>,
    user_signing_key: Option<Map<String, Value>>,
    auth: Option<Value>,
}

async fn upload_cross_signing(
    State(api): State<Api>,
    Caller(session): Caller,
    Body(request): Body<CrossSigning>,
) -> Result<Json<Value>, Halt> {
    let upload = CrossSigningUpload {
        master_key: request.master_key,
        self_signing_key: request.self_signing_key,
        user_signing_key: request.user_signing_key,
    };
    let (user_id, user) = (&session.user_id, session.user);
    if !api.users.upload_cross_signing(user_id, user, upload.clone(), false).await? {
        let challenge = Challenge { endpoint: "device_signing", flows: &[&[PASSWORD]] };
        challenge.pass(&api, request.auth.as_ref(), Some(&session)).await?;
        api.users.upload_cross_signing(user_id, user, upload, true).await?;
    }
    Ok(done())
}

async fn upload_signatures(
    State(api): State<Api>,
    Caller(session): Caller,
    Body(request): Body<SignatureUpload>,
) -> Answer {
    let failures = api.users.upload_signatures(&session.user_id, session.user, &request).await?;
    let failures: BTreeMap<OwnedUserId, BTreeMap<String, Value>> = failures
        .into_iter()
        .map(|(user, failed)| {
            let failed = failed.into_iter().map(|(name, error)| {
                let error = ApiError::from(error);
                (name, json!({ "errcode": error.errcode(), "error": error.message() }))
            });
            (user, failed.collect())
        })
        .collect();
    Ok(Json(json!({ "failures": failures })))
}

#[derive(Debug, Deserialize)]
struct ToDevice {
    messages: DeviceMessages,
}

async fn send_to_device(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((event_type, txn)): Params<(String, String)>,
    Body(request): Body<ToDevice>,
) -> Answer {
    let txn = ToDeviceTxn { user: session.user, device: &session.device_id, id: &txn };
    api.users.send_to_device(&session.user_id, &event_type, &request.messages, Some(txn)).await?;
    Ok(done())
}
