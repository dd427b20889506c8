//! The rooms of a space, also where they are other servers' (specification: spaces).

use crate::{Api, http::ApiError};
use postern_graph::RoomNum;
use postern_rooms::Asker;
use postern_users::Session;
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Rooms visited for one request.
const ROOMS: usize = 5_000;
/// Rooms of other servers asked for in one request.
const ASKED_ELSEWHERE: usize = 100;
/// Servers by which a room is asked for.
const VIA: usize = 5;

/// Which part of a hierarchy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk {
    /// Only children that the space suggests.
    pub(super) suggested_only: bool,
    /// How deep, if bounded.
    pub(super) max_depth: Option<usize>,
    /// Rooms passed over first.
    pub(super) skip: usize,
    /// Rooms at most.
    pub(super) limit: usize,
}

/// A room that is to be visited.
struct Next {
    id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    depth: usize,
    /// What the server of its parent said of it.
    told: Option<Value>,
}

/// The rooms of a space, depth first, as the user may see them; and whether there are more.
///
/// # Errors
/// `M_FORBIDDEN` if the user may not see the space itself.
pub(super) async fn walk(
    api: &Api,
    session: &Session,
    root: OwnedRoomId,
    walk: Walk,
) -> Result<(Vec<Value>, bool), ApiError> {
    let mut found = Vec::new();
    let mut seen: HashSet<OwnedRoomId> = HashSet::new();
    let via = root.server_name().map(ToOwned::to_owned).into_iter().collect();
    let mut stack = vec![Next { id: root, via, depth: 0, told: None }];
    let (mut passed, mut asked) = (0, 0);
    while let Some(next) = stack.pop() {
        // A room linked twice is shown where it comes first.
        if seen.len() >= ROOMS || !seen.insert(next.id.clone()) {
            continue;
        }
        let visited = match resident(api, &next.id)? {
            Some(room) => here(api, session, room, walk.suggested_only)?,
            None if asked < ASKED_ELSEWHERE => {
                asked += 1;
                elsewhere(api, session, &next, walk.suggested_only).await?
            }
            None => None,
        };
        let Some((mut summary, links, mut children)) = visited else {
            if next.depth == 0 {
                return Err(ApiError::forbidden("you may not see this space"));
            }
            continue;
        };
        passed += 1;
        if passed > walk.skip {
            if found.len() == walk.limit {
                return Ok((found, true));
            }
            summary["children_state"] = links.clone().into();
            found.push(summary);
        }
        if walk.max_depth.is_some_and(|most| next.depth >= most) {
            continue;
        }
        for link in links.iter().rev() {
            let Some(id) = link["state_key"].as_str().and_then(|id| RoomId::parse(id).ok()) else { continue };
            let via = link["content"]["via"].as_array().into_iter().flatten();
            let via =
                via.filter_map(|server| OwnedServerName::try_from(server.as_str()?).ok()).take(VIA).collect();
            let told = children.iter().position(|child| child["room_id"] == id.as_str());
            let told = told.map(|at| children.swap_remove(at));
            stack.push(Next { id, via, depth: next.depth + 1, told });
        }
    }
    Ok((found, false))
}

/// A room's summary, its links to children, and what is known of these.
type Visited = Option<(Value, Vec<Value>, Vec<Value>)>;

fn resident(api: &Api, id: &RoomId) -> Result<Option<RoomNum>, ApiError> {
    match api.rooms.room(id)? {
        Some(room) if api.rooms.is_resident(room)? => Ok(Some(room)),
        _ => Ok(None),
    }
}

fn here(api: &Api, session: &Session, room: RoomNum, suggested_only: bool) -> Result<Visited, ApiError> {
    if !api.rooms.may_see_summary(room, Some(session.user))? {
        return Ok(None);
    }
    let asker = Asker::Device(&session.user_id, &session.device_id);
    let summary = api.rooms.summary(asker, room)?;
    let is_space = summary.listing.room_type.as_deref() == Some("m.space");
    let links = if is_space { api.rooms.space(asker, room, suggested_only)?.links } else { Vec::new() };
    Ok(Some((json!(summary), links, Vec::new())))
}

async fn elsewhere(
    api: &Api,
    session: &Session,
    next: &Next,
    suggested_only: bool,
) -> Result<Visited, ApiError> {
    // A room that is no space has nothing more to tell than its parent's server told.
    let is_space = next.told.as_ref().is_none_or(|told| told["room_type"] == "m.space");
    let mut answer = Value::Null;
    if is_space {
        match api.elsewhere.hierarchy(&next.id, &next.via, suggested_only).await {
            Ok(told) => answer = told,
            Err(error) => tracing::debug!(room = %next.id, error = error.message(), "a space is not told"),
        }
    }
    let mut summary = answer["room"].take();
    if summary["room_id"] != next.id.as_str() {
        let Some(told) = &next.told else { return Ok(None) };
        summary = told.clone();
    }
    let links = match summary["children_state"].take() {
        Value::Array(links) => links,
        _ => Vec::new(),
    };
    let children = match answer["children"].take() {
        Value::Array(children) => children,
        _ => Vec::new(),
    };
    if let Some(summary) = summary.as_object_mut() {
        summary.remove("children_state");
    }
    Ok(may_see(api, session, &summary)?.then_some((summary, links, children)))
}

/// Whether a user may know of a room of another server, which answered for all its users: anyone may if it can be
/// joined, knocked at or read by anyone; else who is invited, or in a room whose members may join.
fn may_see(api: &Api, session: &Session, summary: &Value) -> Result<bool, ApiError> {
    if summary["world_readable"] == true {
        return Ok(true);
    }
    let rule = summary["join_rule"].as_str().unwrap_or("public");
    if matches!(rule, "public" | "knock" | "knock_restricted") {
        return Ok(true);
    }
    let mut rooms = vec![&summary["room_id"]];
    if rule == "restricted" {
        rooms.extend(summary["allowed_room_ids"].as_array().into_iter().flatten());
    }
    for (n, id) in rooms.into_iter().filter_map(|id| RoomId::parse(id.as_str()?).ok()).enumerate() {
        let Some(room) = api.rooms.room(&id)? else { continue };
        let Some(membership) = api.rooms.member(room, session.user)? else { continue };
        use postern_rooms::MembershipKind::{Invite, Join};
        if membership.kind == Join || (n == 0 && membership.kind == Invite) {
            return Ok(true);
        }
    }
    Ok(false)
}
