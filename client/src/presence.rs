//! Presence (specification: presence).

use crate::sync::Changes;
use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params, done},
};
use axum::{Json, Router, extract::State, routing::get};
use postern_graph::{
    RoomNum, Seq, UserNum,
    event::{Membership, MembershipKind},
};
use postern_rooms::now_ms;
use postern_users::Session;
use ruma::OwnedUserId;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        router = router
            .route(&format!("/_matrix/client/{version}/presence/{{user}}/status"), get(status).put(set));
    }
    router
}

async fn status(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(user): Params<OwnedUserId>,
) -> Answer {
    let number = api.users.number(&user)?.ok_or_else(|| ApiError::not_found("no such user"))?;
    if number != session.user && !shares_room(&api, session.user, number)? {
        return Err(ApiError::forbidden("you share no room with this user"));
    }
    let stored = api.users.presence(number)?.map(|(_, presence)| presence);
    Ok(Json(content(stored.as_ref())))
}

/// Presence as clients see it.
pub(crate) fn content(stored: Option<&Value>) -> Value {
    let presence = stored.and_then(|p| p.get("presence")).cloned().unwrap_or_else(|| "offline".into());
    let mut body = json!({ "presence": presence });
    if let Some(last) = stored.and_then(|p| p.get("last_active_ts")).and_then(Value::as_u64) {
        let ago = now_ms().saturating_sub(last);
        body["last_active_ago"] = ago.into();
        body["currently_active"] = (presence == "online" && ago < 60_000).into();
    }
    if let Some(message) = stored.and_then(|p| p.get("status_msg")).filter(|message| !message.is_null()) {
        body["status_msg"] = message.clone();
    }
    body
}

fn shares_room(api: &Api, a: UserNum, b: UserNum) -> Result<bool, ApiError> {
    for room in api.rooms.joined_rooms(a)? {
        if api.rooms.is_joined(room, b)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How often being online is written down again while nothing else changes, milliseconds.
const REFRESH_MS: u64 = 5 * 60_000;

/// A client is there: its user is online, unless it says otherwise (specification: `set_presence` of `/sync`).
pub(crate) async fn seen(api: &Api, session: &Session, set: Option<&str>) -> Result<(), ApiError> {
    let wanted = match set {
        Some("offline") => return Ok(()),
        None | Some("online") => "online",
        Some("unavailable") => "unavailable",
        Some(_) => return Err(ApiError::invalid_param("set_presence is online, offline or unavailable")),
    };
    if !api.config.users.presence {
        return Ok(());
    }
    let stored = api.users.presence(session.user)?.map(|(_, presence)| presence).unwrap_or_default();
    let text = |name: &str| stored.get(name).and_then(Value::as_str);
    let active = stored.get("last_active_ts").and_then(Value::as_u64).unwrap_or(0);
    if text("presence") == Some(wanted) && now_ms().saturating_sub(active) < REFRESH_MS {
        return Ok(());
    }
    let presence = json!({
        "presence": wanted,
        "status_msg": stored.get("status_msg"),
        "last_active_ts": now_ms(),
    });
    Ok(api.users.set_presence(session.user, presence).await?)
}

/// The presence of those one shares rooms with, where it changed in `(since, up_to]`, and of those newly `met`.
pub(crate) fn changed(
    api: &Api,
    session: &Session,
    rooms: &HashMap<RoomNum, Membership>,
    (since, up_to): (Option<Seq>, Seq),
    changes: &Changes,
    met: &HashSet<UserNum>,
) -> Result<Vec<(OwnedUserId, Value)>, ApiError> {
    if !api.config.users.presence {
        return Ok(Vec::new());
    }
    let mut candidates: HashSet<UserNum> = match &changes.presence {
        Some(changed) => changed.clone(),
        None => {
            let mut all = HashSet::from([session.user]);
            for (room, membership) in rooms {
                if membership.kind == MembershipKind::Join && all.len() < MOST_WATCHED {
                    all.extend(api.rooms.joined_users(*room)?);
                }
            }
            all
        }
    };
    candidates.extend(met.iter().take(MOST_WATCHED));
    let mut found = Vec::new();
    for user in candidates {
        let Some((at, presence)) = api.users.presence(user)? else { continue };
        let is_new = at <= up_to && (met.contains(&user) || since.is_none_or(|since| at > since));
        if !is_new || (user != session.user && !in_rooms(api, rooms, user)?) {
            continue;
        }
        found.push((api.users.id(user)?, content(Some(&presence))));
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

fn in_rooms(api: &Api, rooms: &HashMap<RoomNum, Membership>, user: UserNum) -> Result<bool, ApiError> {
    for (room, membership) in rooms {
        if membership.kind == MembershipKind::Join && api.rooms.is_joined(*room, user)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Users whose presence a first `/sync` tells, at most.
const MOST_WATCHED: usize = 2_000;

/// Whether an event is shown to someone who ignores these users: their state is, what they say is not.
pub(crate) fn shown_despite(ignored: &HashSet<OwnedUserId>, event: &postern_rooms::Event) -> bool {
    event.state_key().is_some() || !ignored.contains(event.sender())
}

#[derive(Debug, Deserialize)]
struct Set {
    presence: String,
    status_msg: Option<String>,
}

async fn set(
    State(api): State<Api>,
    Caller(session): Caller,
    Params(user): Params<OwnedUserId>,
    Body(request): Body<Set>,
) -> Answer {
    if user != session.user_id {
        return Err(ApiError::forbidden("this is another user's presence"));
    }
    if !matches!(request.presence.as_str(), "online" | "offline" | "unavailable") {
        return Err(ApiError::bad_json("presence is online, offline or unavailable"));
    }
    if !api.config.users.presence {
        return Ok(done());
    }
    let presence = json!({
        "presence": request.presence,
        "status_msg": request.status_msg,
        "last_active_ts": now_ms(),
    });
    api.users.set_presence(session.user, presence).await?;
    Ok(done())
}
