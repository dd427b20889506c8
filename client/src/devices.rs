//! Devices (specification: client config, device management).

use crate::{
    Api,
    http::{Answer, Body, Caller, Params, done},
    uia::{Challenge, Halt, PASSWORD},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        router = router
            .route(&format!("/_matrix/client/{version}/devices"), get(list))
            .route(
                &format!("/_matrix/client/{version}/devices/{{device}}"),
                get(one).put(rename).delete(delete),
            )
            .route(&format!("/_matrix/client/{version}/delete_devices"), post(delete_many));
    }
    router
}

async fn list(State(api): State<Api>, Caller(session): Caller) -> Answer {
    Ok(Json(json!({ "devices": api.users.devices(session.user)? })))
}

async fn one(State(api): State<Api>, Caller(session): Caller, Params(device): Params<String>) -> Answer {
    Ok(Json(json!(api.users.device(session.user, &device)?)))
}

#[derive(Debug, Deserialize)]
struct Rename {
    display_name: Option<String>,
}

async fn rename(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(device): Params<String>,
    Body(request): Body<Rename>,
) -> Answer {
    api.users.rename_device(session.user, &device, request.display_name.as_deref()).await?;
    Ok(done())
}

#[derive(Debug, Deserialize)]
struct Delete {
    #[serde(default)]
    devices: Vec<String>,
    auth: Option<Value>,
}

async fn delete(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(device): Params<String>,
    Body(request): Body<Delete>,
) -> Result<Json<Value>, Halt> {
    let endpoint = format!("delete {device}");
    let challenge = Challenge { endpoint: &endpoint, flows: &[&[PASSWORD]] };
    challenge.pass(&api, request.auth.as_ref(), Some(&session)).await?;
    api.users.remove_devices(session.user, &[device]).await?;
    Ok(done())
}

async fn delete_many(
    State(api): State<Api>,
    Caller(session): Caller,
    Body(request): Body<Delete>,
) -> Result<Json<Value>, Halt> {
    let challenge = Challenge { endpoint: "delete_devices", flows: &[&[PASSWORD]] };
    challenge.pass(&api, request.auth.as_ref(), Some(&session)).await?;
    api.users.remove_devices(session.user, &request.devices).await?;
    Ok(done())
}
