//! Finding events and users (specification: server side search, user directory).

use crate::{
    Api,
    filter::EventFilter,
    http::{Answer, ApiError, Body, Caller, Query},
    rooms::{timeline::shown, viewer},
};
use axum::{Json, Router, extract::State, routing::post};
use postern_graph::{Pos, RoomNum};
use postern_rooms::{
    Event,
    view::{Direction, Format, Stretch, TimelineToken},
};
use postern_users::Session;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::HashSet, sync::Arc};

/// Events looked at for one search.
const LOOKED_AT: usize = 50_000;

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        router = router
            .route(&format!("/_matrix/client/{version}/search"), post(search))
            .route(&format!("/_matrix/client/{version}/user_directory/search"), post(users));
    }
    router
}

#[derive(Debug, Deserialize)]
struct Request {
    search_categories: Categories,
}

#[derive(Debug, Deserialize)]
struct Categories {
    room_events: Option<Criteria>,
}

#[derive(Debug, Deserialize)]
struct Criteria {
    search_term: String,
    #[serde(default = "all_keys")]
    keys: Vec<String>,
    #[serde(default)]
    filter: EventFilter,
    order_by: Option<String>,
    event_context: Option<Context>,
    #[serde(default)]
    include_state: bool,
}

fn all_keys() -> Vec<String> {
    ["content.body", "content.name", "content.topic"].map(str::to_owned).to_vec()
}

#[derive(Debug, Deserialize)]
struct Context {
    before_limit: Option<u64>,
    after_limit: Option<u64>,
    #[serde(default)]
    include_profile: bool,
}

#[derive(Debug, Deserialize)]
struct Next {
    next_batch: Option<String>,
}

async fn search(
    State(api): State<Api>,
    Caller(session): Caller,
    Query(next): Query<Next>,
    Body(request): Body<Request>,
) -> Answer {
    let Some(criteria) = request.search_categories.room_events else {
        return Ok(Json(json!({ "search_categories": {} })));
    };
    let skip: usize = match next.next_batch.as_deref() {
        None => 0,
        Some(token) => token
            .strip_prefix('q')
            .and_then(|skip| skip.parse().ok())
            .ok_or_else(|| ApiError::invalid_param("next_batch is no token of this server"))?,
    };
    let found = find(&api, &session, &criteria)?;
    let limit = criteria.filter.page(10).max(1);
    let total = found.len();
    let page: Vec<_> = found.into_iter().skip(skip).take(limit).collect();
    let viewer = viewer(&session);
    let mut results = Vec::with_capacity(page.len());
    let mut rooms = HashSet::new();
    for (rank, event) in &page {
        rooms.insert(event.record.room);
        let mut result = json!({
            "rank": rank,
            "result": api.rooms.client_event(event, &viewer, Format::FULL)?,
        });
        if let Some(context) = &criteria.event_context {
            result["context"] = around(&api, &session, event, context)?;
        }
        results.push(result);
    }
    let highlights: HashSet<String> = words(&criteria.search_term).into_iter().collect();
    let mut body = json!({ "count": total, "results": results, "highlights": highlights });
    // A full page may be the last one; asking for the next then gives an empty one.
    if page.len() == limit {
        body["next_batch"] = format!("q{}", skip + page.len()).into();
    }
    if criteria.include_state {
        let mut state = Map::new();
        for room in rooms {
            let events = shown(&api, &viewer, &api.rooms.current_state(room)?)?;
            state.insert(api.rooms.room_id(room)?.to_string(), json!(events));
        }
        body["state"] = Value::Object(state);
    }
    Ok(Json(json!({ "search_categories": { "room_events": body } })))
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Events that contain all words, the best or (as asked) the newest first.
fn find(api: &Api, session: &Session, criteria: &Criteria) -> Result<Vec<(f64, Arc<Event>)>, ApiError> {
    let wanted = words(&criteria.search_term);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let viewer = viewer(session);
    let mut rooms: Vec<RoomNum> = api.rooms.joined_rooms(session.user)?;
    // Rooms that were upgraded and left behind are still the user's.
    rooms.retain(|room| api.rooms.room_id(*room).is_ok_and(|id| criteria.filter.wants_room(&id)));
    let mut found: Vec<(f64, Arc<Event>)> = Vec::new();
    let mut budget = LOOKED_AT;
    for room in rooms {
        let mut from = TimelineToken(Pos::MAX);
        loop {
            let stretch = Stretch { from, until: None, direction: Direction::Backwards, limit: 500 };
            let page = api.rooms.page(room, &viewer, stretch, |event| criteria.filter.wants(event))?;
            budget = budget.saturating_sub(page.events.len().max(1));
            for event in page.events {
                if let Some(rank) = rank(&event, &criteria.keys, &wanted) {
                    found.push((rank, event));
                }
            }
            match page.next {
                Some(next) if budget > 0 => from = next,
                _ => break,
            }
        }
    }
    if criteria.order_by.as_deref() == Some("recent") {
        found.sort_by_key(|(_, event)| std::cmp::Reverse(event.record.pos));
    } else {
        found.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| y.record.pos.cmp(&x.record.pos)));
    }
    Ok(found)
}

/// How well an event matches: how much of the text that was searched the words make up.
fn rank(event: &Event, keys: &[String], wanted: &[String]) -> Option<f64> {
    let content: Map<String, Value> = event.content_as()?;
    let text: String = keys
        .iter()
        .filter_map(|key| content.get(key.strip_prefix("content.")?)?.as_str())
        .collect::<Vec<_>>()
        .join(" ");
    let there = words(&text);
    let hits = wanted.iter().filter(|word| there.contains(word)).count();
    #[allow(clippy::cast_precision_loss, reason = "a rank is rough")]
    (hits == wanted.len()).then(|| hits as f64 / there.len() as f64)
}

fn around(api: &Api, session: &Session, event: &Event, context: &Context) -> Result<Value, ApiError> {
    let viewer = viewer(session);
    let limit = |limit: Option<u64>| usize::try_from(limit.unwrap_or(5)).unwrap_or(5).min(100);
    let page = |from, direction, limit| {
        let stretch = Stretch { from: TimelineToken(from), until: None, direction, limit };
        api.rooms.page(event.record.room, &viewer, stretch, |_| true)
    };
    let here = event.record.pos;
    let before = page(Pos(here.0 - 1), Direction::Backwards, limit(context.before_limit))?;
    let after = page(here, Direction::Forwards, limit(context.after_limit))?;
    let mut body = json!({
        "start": before.next.unwrap_or(TimelineToken(here)).to_string(),
        "end": after.next.unwrap_or(TimelineToken(here)).to_string(),
        "events_before": shown(api, &viewer, &before.events)?,
        "events_after": shown(api, &viewer, &after.events)?,
    });
    if context.include_profile {
        let mut profiles = Map::new();
        for other in before.events.iter().chain(&after.events).map(AsRef::as_ref).chain([event]) {
            if let Some(profile) = api.users.profile(other.sender())? {
                profiles.insert(other.sender().to_string(), Value::Object(profile));
            }
        }
        body["profile_info"] = Value::Object(profiles);
    }
    Ok(body)
}

#[derive(Debug, Deserialize)]
struct UserSearch {
    search_term: String,
    limit: Option<u64>,
}

async fn users(State(api): State<Api>, Caller(session): Caller, Body(request): Body<UserSearch>) -> Answer {
    let limit = usize::try_from(request.limit.unwrap_or(10).clamp(1, 50)).unwrap_or(10);
    let visible = if api.config.users.directory_finds_all {
        None
    } else {
        Some(api.rooms.visible_users(session.user)?)
    };
    let mut found = api.users.search(&request.search_term, visible.as_ref(), limit + 2)?;
    found.retain(|(user, _)| *user != session.user_id);
    let limited = found.len() > limit;
    found.truncate(limit);
    let results: Vec<Value> = found
        .into_iter()
        .map(|(user, profile)| {
            let mut result = json!({ "user_id": user });
            for (theirs, ours) in [("displayname", "display_name"), ("avatar_url", "avatar_url")] {
                if let Some(value) = profile.get(theirs).filter(|value| value.is_string()) {
                    result[ours] = value.clone();
                }
            }
            result
        })
        .collect();
    Ok(Json(json!({ "limited": limited, "results": results })))
}
