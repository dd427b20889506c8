//! End-to-end encryption keys and messages to devices (specification: end-to-end encryption, send-to-device).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params, Query, done},
    sync::{Comings, SyncToken},
    uia::{Challenge, Halt, PASSWORD},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post, put},
};
use postern_graph::{Pos, RoomNum, event::Membership};
use postern_users::{CrossSigningUpload, DeviceMessages, KeyUpload, SignatureUpload, ToDeviceTxn};
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

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

#[derive(Debug, Deserialize)]
struct KeyQuery {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
}

async fn query(State(api): State<Api>, Caller(session): Caller, Body(request): Body<KeyQuery>) -> Answer {
    let found = api.users.query_keys(Some(&session.user_id), &request.device_keys)?;
    let failures: BTreeMap<&str, Value> = request
        .device_keys
        .keys()
        .filter(|user| !api.rooms.is_local(user))
        .map(|user| (user.server_name().as_str(), json!({})))
        .collect();
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
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
}

async fn claim(State(api): State<Api>, _: Caller, Body(request): Body<Claim>) -> Answer {
    let claimed = api.users.claim_keys(&request.one_time_keys).await?;
    let failures: BTreeMap<&str, Value> = request
        .one_time_keys
        .keys()
        .filter(|user| !api.rooms.is_local(user))
        .map(|user| (user.server_name().as_str(), json!({})))
        .collect();
    Ok(Json(json!({ "failures": failures, "one_time_keys": claimed })))
}

#[derive(Debug, Deserialize)]
struct Span {
    from: String,
    to: Option<String>,
}

async fn changes(State(api): State<Api>, Caller(session): Caller, Query(span): Query<Span>) -> Answer {
    let from: SyncToken = span.from.parse()?;
    let to = match span.to.as_deref() {
        Some(to) => to.parse::<SyncToken>()?.log.min(api.graph.durable()),
        None => api.graph.durable(),
    };
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
