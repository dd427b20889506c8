//! What the server is and can do: versions, capabilities, well-known (specification: server discovery).

use crate::{
    Api,
    http::{Answer, ApiError, Caller, MaybeCaller},
};
use axum::{Json, Router, extract::State, routing::get};
use postern_config::Config;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/client/versions", get(versions))
        .route("/_matrix/client/v3/capabilities", get(capabilities))
        .route("/_matrix/client/r0/capabilities", get(capabilities))
        .route("/.well-known/matrix/client", get(well_known))
        .route("/.well-known/matrix/support", get(support))
        .route("/_matrix/client/v3/voip/turnServer", get(turn_server))
        .route("/_matrix/client/v3/thirdparty/protocols", get(protocols))
}

async fn versions(_: MaybeCaller) -> Json<Value> {
    let versions = [
        "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2",
        "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14",
        "v1.15", "v1.16",
    ];
    let features = [
        "org.matrix.e2e_cross_signing",
        "org.matrix.label_based_filtering",
        "org.matrix.msc2285.stable",
        "org.matrix.msc3440.stable",
        "org.matrix.msc3771",
        "org.matrix.msc3773",
        "org.matrix.msc3827.stable",
        "org.matrix.msc3916.stable",
        "org.matrix.simplified_msc3575",
        "org.matrix.msc4222",
        "uk.tcpip.msc4133.stable",
    ];
    let features: serde_json::Map<String, Value> =
        features.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
    Json(json!({ "versions": versions, "unstable_features": features }))
}

async fn capabilities(State(config): State<Arc<Config>>, _: Caller) -> Json<Value> {
    let available: serde_json::Map<String, Value> =
        postern_rooms::version::SUPPORTED.iter().map(|v| ((*v).to_owned(), "stable".into())).collect();
    let profile = matches!(config.users.profile_changes, postern_config::Who::Anyone);
    Json(json!({ "capabilities": {
        "m.room_versions": { "default": config.rooms.default_version.as_str(), "available": available },
        "m.change_password": { "enabled": config.passwords.enabled },
        "m.set_displayname": { "enabled": profile },
        "m.set_avatar_url": { "enabled": profile },
        "m.profile_fields": { "enabled": profile },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": true },
        "m.forget_forced_upon_leave": { "enabled": false },
    } }))
}

async fn well_known(State(config): State<Arc<Config>>) -> Answer {
    let url = config
        .server
        .public_base_url
        .as_ref()
        .ok_or_else(|| ApiError::not_found("this server does not say where it is reached"))?;
    Ok(Json(json!({ "m.homeserver": { "base_url": url.as_str().trim_end_matches('/') } })))
}

async fn support(State(config): State<Arc<Config>>) -> Answer {
    let server = &config.server;
    let mut contact = serde_json::Map::new();
    if let Some(email) = &server.support_email {
        contact.insert("email_address".to_owned(), email.as_str().into());
    }
    if let Some(id) = &server.support_matrix_id {
        contact.insert("matrix_id".to_owned(), id.as_str().into());
    }
    let mut body = serde_json::Map::new();
    if !contact.is_empty() {
        contact.insert("role".to_owned(), "m.role.admin".into());
        body.insert("contacts".to_owned(), json!([contact]));
    }
    if let Some(page) = &server.support_page {
        body.insert("support_page".to_owned(), page.as_str().into());
    }
    if body.is_empty() {
        return Err(ApiError::not_found("this server names nobody to turn to"));
    }
    Ok(Json(Value::Object(body)))
}

async fn turn_server(_: Caller) -> Json<Value> {
    Json(json!({}))
}

async fn protocols(_: Caller) -> Json<Value> {
    Json(json!({}))
}
