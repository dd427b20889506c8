//! This server as a policy server of rooms: signing, for other servers, what it recommends.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#policy-servers>

use crate::{
    Error, Federation,
    origin::{Body, Origin},
    verify,
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use postern_rooms::Error as RoomsError;
use postern_web::{Answer, ApiError};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, RoomId};
use serde_json::{json, value::RawValue};

pub(crate) fn routes() -> Router<Federation> {
    Router::new().route("/_matrix/policy/v1/sign", post(sign))
}

/// Endpoints that are not signed.
pub(crate) fn open_routes() -> Router<Federation> {
    Router::new().route("/.well-known/matrix/policy_server", get(well_known))
}

/// The key by which it signs, for who sets up a room.
async fn well_known(State(federation): State<Federation>) -> Answer {
    match federation.0.rooms.gate().filter(|gate| gate.is_policy_server()) {
        Some(gate) => Ok(Json(json!({ "public_keys": { "ed25519": gate.policy_key() } }))),
        None => Err(ApiError::not_found("this server is no policy server")),
    }
}

/// That an event is not signed, and why.
fn refused(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "M_FORBIDDEN", why)
}

async fn sign(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Body(pdu): Body<Box<RawValue>>,
) -> Answer {
    let rooms = &federation.0.rooms;
    let pdu = verify::parse(&pdu)?;
    let text = |name: &str| pdu.get(name).and_then(CanonicalJsonValue::as_str);
    let room = text("room_id").and_then(|id| <&RoomId>::try_from(id).ok());
    let room = room.ok_or_else(|| ApiError::bad_json("the event does not say of which room it is"))?;
    if text("type") == Some("m.room.policy") && text("state_key") == Some("") {
        return Err(ApiError::bad_json("the state that names the policy server needs no signature of it"));
    }
    let missing = || ApiError::not_found("this server is not the policy server of the room");
    let number = match rooms.room(room)? {
        Some(number) if rooms.may_know(&origin, number)? => number,
        _ => return Err(missing()),
    };
    federation.check_acl(number, &origin)?;
    rooms.has_whole_state(number).map_err(|_| missing())?;
    let content = pdu.get("content").cloned();
    let version = rooms.version_of(number)?;
    let event = federation.verify(&version, pdu, &origin).await.map_err(|error| match error {
        Error::Rooms(RoomsError::Unverified(why)) => refused(why),
        Error::Rooms(error) => error.into(),
        other => refused(other.to_string()),
    })?;
    let checked: CanonicalJsonObject =
        serde_json::from_str(event.json()).map_err(|error| ApiError::bad_json(error.to_string()))?;
    if checked.get("content") != content.as_ref() {
        // Nobody gets a signature under content that was not looked at.
        return Err(refused("the content is not that of which the event has the hash"));
    }
    match rooms.recommend(number, &event) {
        Ok(signature) => {
            Ok(Json(json!({ rooms.server_name().as_str(): { "ed25519:policy_server": signature } })))
        }
        Err(RoomsError::Forbidden(why)) => Err(refused(why)),
        Err(RoomsError::NotFound(_)) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}
