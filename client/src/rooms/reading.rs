//! Single events (specification: getting events for a room, jump to date, reporting).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params, Query, done},
    rooms::{
        joined_room, known, room_num,
        timeline::{parse_direction, visible_event},
        viewer,
    },
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use postern_rooms::view::Format;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

pub fn routes() -> Router<Api> {
    let mut router = Router::new()
        .route("/_matrix/client/v1/rooms/{room}/timestamp_to_event", get(at_time))
        .route("/_matrix/client/v3/users/{user}/report", post(report_user));
    for version in ["r0", "v3"] {
        let room = format!("/_matrix/client/{version}/rooms/{{room}}");
        router = router
            .route(&format!("{room}/event/{{event}}"), get(event))
            .route(&format!("{room}/report"), post(report_room))
            .route(&format!("{room}/report/{{event}}"), post(report_event));
    }
    router
}

async fn event(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event)): Params<(OwnedRoomId, OwnedEventId)>,
) -> Answer<Json<Box<RawValue>>> {
    let missing = |_| ApiError::not_found("there is no such event, or you may not see it");
    let room = room_num(&api, &room).map_err(missing)?;
    let viewer = viewer(&session);
    let event = visible_event(&api, room, &viewer, &event)?;
    Ok(Json(api.rooms.client_event(&event, &viewer, Format::FULL)?))
}

#[derive(Debug, Deserialize)]
struct AtTime {
    ts: u64,
    dir: String,
}

async fn at_time(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Query(query): Query<AtTime>,
) -> Answer {
    let number = room_num(&api, &room)?;
    let viewer = viewer(&session);
    api.rooms.readable_state(number, &viewer)?;
    let direction = parse_direction(&query.dir)?;
    let found = api.rooms.event_at(number, &viewer, query.ts, direction)?;
    let member = api.rooms.is_joined(number, session.user)?;
    if member && api.rooms.has_history_elsewhere(number)? {
        // What is nearer may lie in the history that is not here.
        let asked = api
            .elsewhere
            .nearest_event(&room, query.ts, direction == postern_rooms::view::Direction::Forwards)
            .await;
        if let Ok((id, ts)) = asked
            && found
                .as_ref()
                .is_none_or(|here| ts.abs_diff(query.ts) < here.origin_server_ts().abs_diff(query.ts))
        {
            return Ok(Json(json!({ "event_id": id, "origin_server_ts": ts })));
        }
    }
    let event = found.ok_or_else(|| ApiError::not_found("there is no event on that side of that time"))?;
    Ok(Json(json!({ "event_id": event.id, "origin_server_ts": event.origin_server_ts() })))
}

#[derive(Debug, Deserialize)]
struct Report {
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    score: Option<Value>,
}

async fn report_event(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event)): Params<(OwnedRoomId, OwnedEventId)>,
    Body(report): Body<Report>,
) -> Answer {
    let missing = |_| ApiError::not_found("there is no such event, or you may not see it");
    let number = joined_room(&api, &session, &room).map_err(missing)?;
    if report.score.as_ref().is_some_and(|score| !score.is_null() && score.as_i64().is_none()) {
        return Err(ApiError::bad_json("the score is a whole number"));
    }
    let event = visible_event(&api, number, &viewer(&session), &event)?;
    tracing::warn!(by = %session.user_id, %room, event = %event.id, reason = report.reason, "an event was reported");
    Ok(done())
}

async fn report_room(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Body(report): Body<Report>,
) -> Answer {
    if known(&api, Some(&session), &room)?.is_none() {
        return Err(ApiError::not_found("there is no such room"));
    }
    tracing::warn!(by = %session.user_id, %room, reason = report.reason, "a room was reported");
    Ok(done())
}

async fn report_user(
    Caller(session): Caller,
    Params(user): Params<OwnedUserId>,
    Body(report): Body<Report>,
) -> Answer {
    // Whether there is such a user is not told.
    tracing::warn!(by = %session.user_id, %user, reason = report.reason, "a user was reported");
    Ok(done())
}
