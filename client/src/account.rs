//! The account itself: who am I, password, deactivation (specification: account management).

use crate::{
    Api,
    http::{Answer, Body, Caller, done},
    register::check_password_strength,
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
            .route(&format!("/_matrix/client/{version}/account/whoami"), get(whoami))
            .route(&format!("/_matrix/client/{version}/account/password"), post(password))
            .route(&format!("/_matrix/client/{version}/account/deactivate"), post(deactivate))
            .route(&format!("/_matrix/client/{version}/account/3pid"), get(third_party_ids));
    }
    router
}

async fn whoami(Caller(session): Caller) -> Json<Value> {
    let mut body = json!({ "user_id": session.user_id, "device_id": session.device_id });
    if session.is_guest {
        body["is_guest"] = true.into();
    }
    Json(body)
}

async fn third_party_ids(_: Caller) -> Json<Value> {
    Json(json!({ "threepids": [] }))
}

#[derive(Debug, Deserialize)]
struct Password {
    new_password: String,
    #[serde(default = "yes")]
    logout_devices: bool,
    auth: Option<Value>,
}

const fn yes() -> bool {
    true
}

async fn password(
    State(api): State<Api>,
    Caller(session): Caller,
    Body(request): Body<Password>,
) -> Result<Json<Value>, Halt> {
    check_password_strength(&api, &request.new_password)?;
    let challenge = Challenge { endpoint: "password", flows: &[&[PASSWORD]] };
    challenge.pass(&api, request.auth.as_ref(), Some(&session)).await?;
    api.users.set_password(&session.user_id, &request.new_password).await?;
    if request.logout_devices {
        api.users.remove_all_devices(session.user, Some(&session.device_id)).await?;
    }
    Ok(done())
}

#[derive(Debug, Deserialize)]
struct Deactivate {
    #[serde(default)]
    erase: bool,
    auth: Option<Value>,
}

async fn deactivate(
    State(api): State<Api>,
    Caller(session): Caller,
    Body(request): Body<Deactivate>,
) -> Result<Json<Value>, Halt> {
    let challenge = Challenge { endpoint: "deactivate", flows: &[&[PASSWORD]] };
    challenge.pass(&api, request.auth.as_ref(), Some(&session)).await?;
    leave_everything(&api, &session.user_id, session.user).await?;
    api.users.deactivate(&session.user_id, request.erase).await?;
    Ok(Json(json!({ "id_server_unbind_result": "success" })))
}

async fn leave_everything(api: &Api, user: &ruma::UserId, number: postern_graph::UserNum) -> Answer<()> {
    use postern_rooms::{MembershipChange, MembershipKind};
    for (room, membership) in api.rooms.rooms_of(number)? {
        if matches!(membership.kind, MembershipKind::Join | MembershipKind::Invite | MembershipKind::Knock) {
            let room = api.rooms.room_id(room)?;
            let change = MembershipChange::to(MembershipKind::Leave);
            if let Err(error) = api.rooms.membership(user, &room, user, change).await {
                tracing::warn!(%error, %room, "a deactivated user could not leave a room");
            }
        }
    }
    Ok(())
}
