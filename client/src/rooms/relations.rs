//! What relates to an event, and threads (specification: relationships between events, threading).

use crate::{
    Api,
    http::{Answer, ApiError, Caller, Params, Query},
    rooms::{
        room_num,
        timeline::{shown, visible_event},
        viewer,
    },
};
use axum::{Json, Router, extract::State, routing::get};
use postern_graph::Pos;
use postern_rooms::view::{RelationQuery, TimelineToken};
use postern_users::Session;
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::json;

/// Events on a page, if the client does not say; and at most.
const PAGE: (u64, u64) = (20, 1_000);

pub fn routes() -> Router<Api> {
    let mut router = Router::new().route("/_matrix/client/v1/rooms/{room}/threads", get(threads));
    for version in ["v1", "unstable"] {
        let relations = format!("/_matrix/client/{version}/rooms/{{room}}/relations/{{event}}");
        router = router
            .route(&relations, get(all))
            .route(&format!("{relations}/{{rel_type}}"), get(of_relation))
            .route(&format!("{relations}/{{rel_type}}/{{event_type}}"), get(of_type));
    }
    router
}

#[derive(Debug, Deserialize)]
struct Pages {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    #[serde(default)]
    recurse: bool,
}

async fn all(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event)): Params<(OwnedRoomId, OwnedEventId)>,
    Query(query): Query<Pages>,
) -> Answer {
    let wanted = RelationQuery { recurse: query.recurse, ..RelationQuery::default() };
    related(&api, &session, &room, &event, &query, &wanted)
}

async fn of_relation(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event, rel_type)): Params<(OwnedRoomId, OwnedEventId, String)>,
    Query(query): Query<Pages>,
) -> Answer {
    let wanted = RelationQuery { rel_type: Some(rel_type), event_type: None, recurse: query.recurse };
    related(&api, &session, &room, &event, &query, &wanted)
}

async fn of_type(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event, rel_type, event_type)): Params<(OwnedRoomId, OwnedEventId, String, String)>,
    Query(query): Query<Pages>,
) -> Answer {
    let wanted =
        RelationQuery { rel_type: Some(rel_type), event_type: Some(event_type), recurse: query.recurse };
    related(&api, &session, &room, &event, &query, &wanted)
}

fn token(text: Option<&String>) -> Result<Option<Pos>, ApiError> {
    Ok(text.map(|text| text.parse::<TimelineToken>()).transpose()?.map(|token| token.0))
}

fn page(limit: Option<u64>) -> usize {
    usize::try_from(limit.unwrap_or(PAGE.0).clamp(1, PAGE.1)).unwrap_or(1)
}

fn related(
    api: &Api,
    session: &Session,
    room: &ruma::RoomId,
    event: &ruma::EventId,
    query: &Pages,
    wanted: &RelationQuery,
) -> Answer {
    let room = room_num(api, room)?;
    let viewer = viewer(session);
    api.rooms.readable_state(room, &viewer)?;
    let parent = visible_event(api, room, &viewer, event)?;
    let forwards = match query.dir.as_deref() {
        None | Some("b") => false,
        Some("f") => true,
        Some(_) => return Err(ApiError::invalid_param("dir is b or f")),
    };
    let (from, to) = (token(query.from.as_ref())?, token(query.to.as_ref())?);
    let span = if forwards {
        (from.unwrap_or(Pos::MIN), to.unwrap_or(Pos::MAX))
    } else {
        (to.unwrap_or(Pos::MIN), from.unwrap_or(Pos::MAX))
    };
    let (mut events, next) = api.rooms.related(&parent, wanted, span, forwards, page(query.limit))?;
    let mut visible = Vec::with_capacity(events.len());
    for event in events.drain(..) {
        if api.rooms.may_see(&viewer, &event)? {
            visible.push(event);
        }
    }
    let mut body = json!({ "chunk": shown(api, &viewer, &visible)? });
    if let Some(from) = &query.from {
        body["prev_batch"] = from.as_str().into();
    }
    if wanted.recurse {
        body["recursion_depth"] = 3.into();
    }
    if let Some(next) = next {
        let next = if forwards { next } else { Pos(next.0 - 1) };
        body["next_batch"] = TimelineToken(next).to_string().into();
    }
    Ok(Json(body))
}

#[derive(Debug, Deserialize)]
struct Threads {
    include: Option<String>,
    from: Option<String>,
    limit: Option<u64>,
}

async fn threads(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Query(query): Query<Threads>,
) -> Answer {
    let room = room_num(&api, &room)?;
    let viewer = viewer(&session);
    api.rooms.readable_state(room, &viewer)?;
    let participant = match query.include.as_deref() {
        None | Some("all") => None,
        Some("participated") => Some(&viewer),
        Some(_) => return Err(ApiError::invalid_param("include is all or participated")),
    };
    let before = token(query.from.as_ref())?.unwrap_or(Pos::MAX);
    let (roots, next) = api.rooms.threads(room, before, participant, page(query.limit))?;
    let mut visible = Vec::with_capacity(roots.len());
    for root in roots {
        if api.rooms.may_see(&viewer, &root)? {
            visible.push(root);
        }
    }
    let mut body = json!({ "chunk": shown(&api, &viewer, &visible)? });
    if let Some(next) = next {
        body["next_batch"] = TimelineToken(next).to_string().into();
    }
    Ok(Json(body))
}
