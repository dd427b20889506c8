//! Pages of a room's timeline, and what stands around an event (specification: paginating events, event context).

use crate::{
    Api,
    filter::EventFilter,
    http::{Answer, ApiError, Caller, Params, Query},
    presence::shown_despite,
    rooms::{room_num, viewer},
};
use axum::{Json, Router, extract::State, routing::get};
use postern_graph::{Pos, RoomNum};
use postern_rooms::{
    Event,
    view::{Direction, Format, Stretch, TimelineToken, Viewer},
};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use std::{collections::BTreeSet, sync::Arc};

/// Events of history asked for elsewhere at least: each question costs other servers much, and each event little.
const BACKFILL: usize = 100;

/// Events on a page, if the client does not say.
const PAGE: usize = 10;

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let room = format!("/_matrix/client/{version}/rooms/{{room}}");
        router = router
            .route(&format!("{room}/messages"), get(messages))
            .route(&format!("{room}/context/{{event}}"), get(context));
    }
    router
}

/// A filter given as JSON in the query.
pub(crate) fn parse_filter(filter: Option<&str>) -> Result<EventFilter, ApiError> {
    match filter {
        None => Ok(EventFilter::default()),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| ApiError::bad_json(format!("the filter cannot be read: {error}"))),
    }
}

/// The direction a query names.
pub(crate) fn parse_direction(dir: &str) -> Result<Direction, ApiError> {
    match dir {
        "b" => Ok(Direction::Backwards),
        "f" => Ok(Direction::Forwards),
        _ => Err(ApiError::invalid_param("dir is b or f")),
    }
}

/// Events in the form clients get them.
pub(crate) fn shown(
    api: &Api,
    viewer: &Viewer<'_>,
    events: &[Arc<Event>],
) -> Result<Vec<Box<RawValue>>, ApiError> {
    events.iter().map(|event| Ok(api.rooms.client_event(event, viewer, Format::FULL)?)).collect()
}

/// The member events of those who sent `events`, as of the newest of them.
fn senders(
    api: &Api,
    viewer: &Viewer<'_>,
    filter: &EventFilter,
    events: &[Arc<Event>],
) -> Result<Vec<Box<RawValue>>, ApiError> {
    if !filter.lazy_load_members {
        return Ok(Vec::new());
    }
    let Some(newest) = events.iter().max_by_key(|event| event.record.pos) else { return Ok(Vec::new()) };
    let senders: BTreeSet<&str> = events.iter().map(|event| event.sender().as_str()).collect();
    let mut members = Vec::new();
    for sender in senders {
        if let Some(member) = api.rooms.state_in(newest.record.state_after, "m.room.member", sender)? {
            members.push(api.rooms.client_event(
                &member,
                viewer,
                Format { room_id: true, bundled: false },
            )?);
        }
    }
    Ok(members)
}

#[derive(Debug, Deserialize)]
struct Messages {
    dir: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
    filter: Option<String>,
}

async fn messages(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(room): Params<OwnedRoomId>,
    Query(query): Query<Messages>,
) -> Answer {
    let room = room_num(&api, &room)?;
    let viewer = viewer(&session);
    let (_, latest) = api.rooms.readable_state(room, &viewer)?;
    let mut filter = parse_filter(query.filter.as_deref())?;
    let dir = query.dir.as_deref().ok_or_else(|| ApiError::missing_param("dir is missing"))?;
    let direction = parse_direction(dir)?;
    let given = |token: Option<&String>| token.map(|token| token.parse::<TimelineToken>()).transpose();
    let mut from = given(query.from.as_ref())?.unwrap_or(match direction {
        Direction::Backwards => TimelineToken(Pos::MAX),
        Direction::Forwards => TimelineToken(Pos::MIN),
    });
    let until = given(query.to.as_ref())?;
    if let Some(limit) = query.limit {
        filter.limit = Some(limit.min(filter.limit.unwrap_or(u64::MAX)));
    }
    if direction == Direction::Backwards {
        // Former members see up to their leaving.
        from = TimelineToken(from.0.min(latest));
    }
    let start = query.from.clone().unwrap_or_else(|| from.to_string());
    let stretch = Stretch { from, until, direction, limit: filter.page(PAGE).max(1) };
    let ignored = api.users.ignored(session.user)?;
    let read = || {
        api.rooms.page(room, &viewer, stretch, |event| {
            event.record.pos <= latest
                && shown_despite(&ignored, event)
                && filter.wants(event)
                && filter.wants_related(&api.rooms, event)
        })
    };
    let mut page = read()?;
    let short = page.events.len() < stretch.limit && page.next.is_none() && until.is_none();
    if short && direction == Direction::Backwards && api.rooms.has_history_elsewhere(room)? {
        match api.elsewhere.backfill(room, stretch.limit.max(BACKFILL)).await {
            Ok(true) => page = read()?,
            Ok(false) => {}
            Err(error) => tracing::info!(error = error.message(), "history was not fetched"),
        }
    }
    let mut body = json!({
        "start": start,
        "chunk": shown(&api, &viewer, &page.events)?,
        "state": senders(&api, &viewer, &filter, &page.events)?,
    });
    // Clients ask on until a page is empty: only that one has no end.
    let beyond = page.events.last().map(|event| match direction {
        Direction::Backwards => TimelineToken(Pos(event.record.pos.0 - 1)),
        Direction::Forwards => TimelineToken(event.record.pos),
    });
    let hidden = page.next.filter(|_| direction == Direction::Backwards);
    if let Some(next) = page.next.filter(|_| beyond.is_some()).or(beyond).or(hidden) {
        body["end"] = next.to_string().into();
    }
    Ok(Json(body))
}

#[derive(Debug, Deserialize)]
struct Around {
    limit: Option<u64>,
    filter: Option<String>,
}

/// An event of a room that the viewer may see.
pub(crate) fn visible_event(
    api: &Api,
    room: RoomNum,
    viewer: &Viewer<'_>,
    event: &ruma::EventId,
) -> Result<Arc<Event>, ApiError> {
    let missing = || ApiError::not_found("there is no such event, or you may not see it");
    let event =
        api.rooms.event_by_id(event)?.filter(|event| event.record.room == room).ok_or_else(missing)?;
    if api.rooms.may_see(viewer, &event)? { Ok(event) } else { Err(missing()) }
}

async fn context(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((room, event)): Params<(OwnedRoomId, OwnedEventId)>,
    Query(query): Query<Around>,
) -> Answer {
    let missing = |_| ApiError::not_found("there is no such event, or you may not see it");
    let room = room_num(&api, &room).map_err(missing)?;
    let viewer = viewer(&session);
    let event = visible_event(&api, room, &viewer, &event)?;
    let filter = parse_filter(query.filter.as_deref())?;
    let limit = usize::try_from(query.limit.unwrap_or(10)).unwrap_or(10).min(crate::filter::MOST_EVENTS);
    let ignored = api.users.ignored(session.user)?;
    let wanted = |event: &Event| {
        shown_despite(&ignored, event) && filter.wants(event) && filter.wants_related(&api.rooms, event)
    };
    let here = event.record.pos;
    let before = limit / 2;
    let around = |from: Pos, direction, limit| {
        let stretch = Stretch { from: TimelineToken(from), until: None, direction, limit };
        api.rooms.page(room, &viewer, stretch, wanted)
    };
    let older = around(Pos(here.0 - 1), Direction::Backwards, before)?;
    let newer = around(here, Direction::Forwards, limit - before)?;
    let mut all: Vec<Arc<Event>> = older.events.clone();
    all.push(event.clone());
    all.extend(newer.events.iter().cloned());
    let newest = newer.events.last().unwrap_or(&event);
    let mut state = Vec::new();
    let lazy: BTreeSet<String> = all.iter().map(|event| event.sender().to_string()).collect();
    for entry in api.rooms.all_state_in(newest.record.state_after)? {
        let is_member = entry.kind().to_string() == "m.room.member";
        let needed = !filter.lazy_load_members
            || !is_member
            || entry.state_key().is_some_and(|key| lazy.contains(key));
        if needed {
            state.push(api.rooms.client_event(&entry, &viewer, Format { room_id: true, bundled: false })?);
        }
    }
    let start = older.next.unwrap_or(TimelineToken(older.events.last().map_or(here, |e| e.record.pos)));
    let end = newer.next.unwrap_or(TimelineToken(newest.record.pos));
    Ok(Json(json!({
        "start": start.to_string(),
        "end": end.to_string(),
        "event": api.rooms.client_event(&event, &viewer, Format::FULL)?,
        "events_before": shown(&api, &viewer, &older.events)?,
        "events_after": shown(&api, &viewer, &newer.events)?,
        "state": state,
    })))
}
