//! Which rooms a client looks at: windows over sorted lists, and rooms it names.

use super::{Request, connection::Connection};
use crate::{Api, http::ApiError, rooms::viewer};
use postern_graph::{
    Pos, RoomNum,
    event::{Membership, MembershipKind},
};
use postern_rooms::view::{Direction, Stretch, TimelineToken, Viewer};
use postern_users::Session;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Lists and subscriptions in one request.
pub(crate) const MOST: usize = 1_000;
/// The longest timeline of a room.
const TIMELINE: usize = 100;
/// Events looked at to find the one a room is sorted by.
const BUMP_SCAN: usize = 50;

/// Events that move a room up (MSC4186).
const BUMPING: [&str; 9] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.beacon_info",
    "org.matrix.msc3672.beacon_info",
];

/// What a client wants of a room.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RoomConfig {
    pub(crate) timeline_limit: usize,
    pub(crate) required_state: BTreeSet<(String, String)>,
}

impl RoomConfig {
    /// What is wanted for either reason.
    pub(crate) fn joined_with(&self, other: &Self) -> Self {
        Self {
            timeline_limit: self.timeline_limit.max(other.timeline_limit).min(TIMELINE),
            required_state: self.required_state.union(&other.required_state).cloned().collect(),
        }
    }
}

/// A list and its windows.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct List {
    ranges: Vec<(usize, usize)>,
    #[serde(flatten)]
    config: RoomConfig,
    filters: Option<Filters>,
}

/// How many rooms a list has.
#[derive(Debug, Serialize)]
pub(crate) struct Counted {
    pub(crate) count: usize,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Filters {
    is_dm: Option<bool>,
    spaces: Option<Vec<ruma::OwnedRoomId>>,
    is_encrypted: Option<bool>,
    is_invite: Option<bool>,
    room_types: Option<Vec<Option<String>>>,
    not_room_types: Option<Vec<Option<String>>>,
    room_name_like: Option<String>,
    tags: Option<Vec<String>>,
    not_tags: Option<Vec<String>>,
}

/// The rooms that are direct chats.
pub(crate) fn direct_rooms(api: &Api, session: &Session) -> Result<HashSet<String>, ApiError> {
    let stored = api.users.account_data(session.user, RoomNum::NONE, "m.direct")?;
    let content: Value = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let rooms = content.as_object().into_iter().flatten().filter_map(|(_, rooms)| rooms.as_array());
    Ok(rooms.flatten().filter_map(|room| room.as_str().map(str::to_owned)).collect())
}

/// The position a room is sorted by: that of its last event of interest.
pub(crate) fn bump_stamp(
    api: &Api,
    viewer: &Viewer<'_>,
    room: RoomNum,
    membership: &Membership,
) -> Result<Pos, ApiError> {
    if membership.kind != MembershipKind::Join {
        return Ok(membership.since);
    }
    let latest = api.rooms.head(room)?.and_then(|head| head.latest).unwrap_or(membership.since);
    if let Some((at, bump)) = api.bumps.get(&room)
        && at == latest
    {
        return Ok(bump.max(Pos(0)));
    }
    let stretch = Stretch {
        from: TimelineToken(Pos::MAX),
        until: None,
        direction: Direction::Backwards,
        limit: BUMP_SCAN,
    };
    let page = api.rooms.page(room, viewer, stretch, |_| true)?;
    let bump = page
        .events
        .iter()
        .find(|event| BUMPING.contains(&event.kind().to_string().as_str()))
        .map_or(membership.since, |event| event.record.pos);
    api.bumps.insert(room, (latest, bump));
    Ok(bump)
}

/// The rooms to tell of, with what is wanted of each, and how long each list is.
#[allow(clippy::type_complexity, reason = "two parts of one answer")]
pub(crate) fn wanted(
    api: &Api,
    session: &Session,
    request: &Request,
    memberships: &HashMap<RoomNum, Membership>,
    connection: &Connection,
) -> Result<(BTreeMap<RoomNum, RoomConfig>, BTreeMap<String, Counted>), ApiError> {
    let viewer = crate::rooms::viewer(session);
    let mut sorted = Vec::new();
    if !request.lists.is_empty() {
        for (room, membership) in memberships {
            if matches!(
                membership.kind,
                MembershipKind::Join | MembershipKind::Invite | MembershipKind::Knock
            ) {
                sorted.push((bump_stamp(api, &viewer, *room, membership)?, *room));
            }
        }
        sorted.sort_unstable_by(|a, b| b.cmp(a));
    }
    let direct = direct_rooms(api, session)?;
    let mut wanted: BTreeMap<RoomNum, RoomConfig> = BTreeMap::new();
    let mut want = |room: RoomNum, config: &RoomConfig| {
        let entry = wanted.entry(room).or_default();
        *entry = entry.joined_with(config);
    };
    let mut counted = BTreeMap::new();
    for (name, list) in &request.lists {
        let mut members = Vec::new();
        for (_, room) in &sorted {
            let fits = match &list.filters {
                None => true,
                Some(filters) => filters.let_through(api, session, *room, &memberships[room], &direct)?,
            };
            if fits {
                members.push(*room);
            }
        }
        for (from, to) in &list.ranges {
            for room in members.iter().take(to.saturating_add(1)).skip(*from) {
                want(*room, &list.config);
            }
        }
        counted.insert(name.clone(), Counted { count: members.len() });
    }
    for (id, config) in &request.room_subscriptions {
        if let Some(room) = api.rooms.room(id)?
            && (memberships.contains_key(&room) || api.rooms.is_world_readable(room)?)
        {
            want(room, config);
        }
    }
    // Rooms that were told of and then left: the client hears of the leaving.
    for (room, told) in &connection.rooms {
        let left = memberships.get(room).is_some_and(|membership| {
            matches!(membership.kind, MembershipKind::Leave | MembershipKind::Ban)
                && membership.since > Pos::at(told.up_to)
        });
        if left {
            want(*room, &told.config);
        }
    }
    Ok((wanted, counted))
}

impl Filters {
    fn let_through(
        &self,
        api: &Api,
        session: &Session,
        room: RoomNum,
        membership: &Membership,
        direct: &HashSet<String>,
    ) -> Result<bool, ApiError> {
        let id = api.rooms.room_id(room)?;
        let is = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        if !is(self.is_invite, membership.kind == MembershipKind::Invite)
            || !is(self.is_dm, direct.contains(id.as_str()))
        {
            return Ok(false);
        }
        if self.is_encrypted.is_some()
            && !is(self.is_encrypted, api.rooms.state(room, "m.room.encryption", "")?.is_some())
        {
            return Ok(false);
        }
        if self.room_types.is_some() || self.not_room_types.is_some() {
            let room_type = api.rooms.record(room)?.and_then(|record| record.room_type);
            if self.room_types.as_ref().is_some_and(|types| !types.contains(&room_type))
                || self.not_room_types.as_ref().is_some_and(|types| types.contains(&room_type))
            {
                return Ok(false);
            }
        }
        if let Some(like) = &self.room_name_like {
            // What the user may not read is not to be guessed at either.
            let content: Value = match api.rooms.state(room, "m.room.name", "")? {
                Some(event) => serde_json::from_str(api.rooms.content_for(&viewer(session), &event)?.get())
                    .unwrap_or_default(),
                None => Value::Null,
            };
            let name = content["name"].as_str();
            if !name.is_some_and(|name| name.to_lowercase().contains(&like.to_lowercase())) {
                return Ok(false);
            }
        }
        if self.tags.is_some() || self.not_tags.is_some() {
            let stored = api.users.account_data(session.user, room, "m.tag")?;
            let content: Value = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let has = |tag: &String| content.pointer("/tags").is_some_and(|tags| tags.get(tag).is_some());
            if self.tags.as_ref().is_some_and(|tags| !tags.iter().any(has))
                || self.not_tags.as_ref().is_some_and(|tags| tags.iter().any(has))
            {
                return Ok(false);
            }
        }
        if let Some(spaces) = &self.spaces {
            let mut inside = false;
            for space in spaces {
                let Some(space) = api.rooms.room(space)? else { continue };
                let child = api.rooms.state(space, "m.space.child", id.as_str())?;
                inside |= api.rooms.is_joined(space, session.user)?
                    && child.is_some_and(|event| {
                        let content: Value = event.content_as().unwrap_or_default();
                        content.get("via").and_then(Value::as_array).is_some_and(|via| !via.is_empty())
                    });
            }
            return Ok(inside);
        }
        Ok(true)
    }
}
