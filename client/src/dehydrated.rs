//! Dehydrated devices (MSC3814, unstable).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params},
    keys::Upload,
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use postern_graph::Seq;
use postern_users::DehydratedDevice;
use serde::Deserialize;
use serde_json::json;

pub fn routes() -> Router<Api> {
    let base = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";
    Router::new()
        .route(base, get(one).put(dehydrate).delete(remove))
        .route(&format!("{base}/{{device}}/events"), post(events))
}

async fn one(State(api): State<Api>, Caller(session): Caller) -> Answer {
    Ok(Json(json!(api.users.dehydrated(session.user)?)))
}

#[derive(Debug, Deserialize)]
struct Dehydrate {
    #[serde(flatten)]
    device: DehydratedDevice,
    initial_device_display_name: Option<String>,
    #[serde(flatten)]
    keys: Upload,
}

async fn dehydrate(
    State(api): State<Api>,
    Caller(session): Caller,
    Body(request): Body<Dehydrate>,
) -> Answer {
    let device_id = request.device.device_id.clone();
    let (keys, name) = (request.keys.checked()?, request.initial_device_display_name);
    api.users.dehydrate(&session.user_id, session.user, request.device, name, keys).await?;
    Ok(Json(json!({ "device_id": device_id })))
}

async fn remove(State(api): State<Api>, Caller(session): Caller) -> Answer {
    Ok(Json(json!({ "device_id": api.users.remove_dehydrated(session.user).await? })))
}

#[derive(Debug, Deserialize)]
struct Events {
    next_batch: Option<String>,
}

async fn events(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(device): Params<String>,
    Body(request): Body<Events>,
) -> Answer {
    let after = match request.next_batch.as_deref() {
        None => Seq::ZERO,
        Some(token) => token
            .strip_prefix('d')
            .and_then(|number| number.parse().ok())
            .map(Seq)
            .ok_or_else(|| ApiError::invalid_param("next_batch is not from this endpoint"))?,
    };
    let (events, next) = api.users.dehydrated_messages(session.user, &device, after)?;
    Ok(Json(json!({ "events": events, "next_batch": format!("d{}", next.0) })))
}
