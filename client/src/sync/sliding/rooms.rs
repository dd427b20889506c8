//! A room as sliding sync tells of it.

use super::{
    connection::Told,
    lists::{RoomConfig, bump_stamp, direct_rooms},
};
use crate::{
    http::ApiError,
    sync::room::{Asked, heroes, raw},
};
use postern_graph::{
    EventNum, NameKind, Pos, RoomNum, Root,
    event::{Membership, MembershipKind},
    intern::split_state_key_name,
};
use postern_rooms::Event;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

#[derive(Debug, Default, Serialize)]
pub(crate) struct Room {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heroes: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    initial: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_dm: bool,
    membership: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_state: Option<Vec<Box<RawValue>>>,
    notification_count: u64,
    highlight_count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_state: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    limited: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unstable_expanded_timeline: bool,
    num_live: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invited_count: Option<usize>,
    bump_stamp: i64,
}

/// What is new in a room for a client that was told `before`; nothing if there is nothing.
pub(crate) fn room(
    asked: &Asked<'_>,
    room: RoomNum,
    config: &RoomConfig,
    before: Option<&Told>,
    membership: Option<&Membership>,
) -> Result<Option<Room>, ApiError> {
    let api = asked.api;
    let session_user = asked.viewer.user_id;
    let end = Pos::at(asked.up_to);
    let kind = membership.map(|membership| membership.kind);
    let stamp = match membership {
        Some(membership) => bump_stamp(api, &asked.viewer, room, membership)?,
        None => Pos(0),
    };
    if let Some(membership) = membership
        && matches!(membership.kind, MembershipKind::Invite | MembershipKind::Knock)
    {
        if before.is_some_and(|told| membership.since <= Pos::at(told.up_to)) || membership.since > end {
            return Ok(None);
        }
        return Ok(Some(Room {
            initial: true,
            membership: membership.kind.as_str(),
            invite_state: Some(api.rooms.stripped_state(room, session_user)?),
            bump_stamp: stamp.0,
            ..Room::default()
        }));
    }
    let end = match membership {
        Some(membership) if membership.kind != MembershipKind::Join => membership.since,
        _ => end,
    };
    // Who comes (back) into a room is told of all of it.
    let was_told = before.filter(|told| {
        membership.is_none_or(|membership| {
            membership.kind != MembershipKind::Join
                || membership.since <= Pos::at(told.up_to)
                || was_joined(asked, room, membership, told)
        })
    });
    let base = was_told.map(|told| told.up_to);
    let more_timeline = was_told.is_some_and(|told| config.timeline_limit > told.config.timeline_limit);
    let stretch_base = base.filter(|_| !more_timeline);
    let timeline = asked.newest(room, stretch_base, end, config.timeline_limit)?;
    let end_root = api.rooms.state_root_at(room, end)?;
    let base_root = match base {
        Some(seq) => api.rooms.state_root_at(room, Pos::at(seq))?,
        None => Root::EMPTY,
    };
    let fresh: BTreeSet<(String, String)> = match was_told {
        Some(told) => config.required_state.difference(&told.config.required_state).cloned().collect(),
        None => BTreeSet::new(),
    };
    let mut state = required(asked, base_root, end_root, &config.required_state, &timeline.events)?;
    if !fresh.is_empty() {
        state.extend(required(asked, Root::EMPTY, end_root, &fresh, &timeline.events)?);
        let mut seen = HashSet::new();
        state.retain(|event| seen.insert(event.num));
    }
    let live = timeline
        .events
        .iter()
        .filter(|event| asked.since.is_some_and(|since| event.record.pos > Pos::at(since.log)))
        .count();
    let read_moved = match base {
        Some(base) => !api
            .rooms
            .receipts_between(room, asked.viewer.user, base, asked.up_to)?
            .iter()
            .all(|receipt| receipt.user != asked.viewer.user),
        None => true,
    };
    let something = live > 0 || !state.is_empty() || more_timeline || base.is_none() || read_moved;
    if !something && (timeline.events.is_empty() || stretch_base.is_some()) && timeline.events.is_empty() {
        return Ok(None);
    }
    let initial = base.is_none();
    let members_changed = initial || base_root != end_root;
    let mut shown = Room {
        initial,
        membership: kind.map_or("leave", MembershipKind::as_str),
        required_state: asked.show_all(&state)?,
        timeline: asked.show_all(&timeline.events)?,
        prev_batch: (initial || timeline.limited || more_timeline)
            .then(|| timeline.prev_batch.at_time(asked.up_to)),
        limited: timeline.limited,
        unstable_expanded_timeline: more_timeline,
        num_live: live,
        bump_stamp: stamp.0,
        ..Room::default()
    };
    if kind == Some(MembershipKind::Join) {
        let counts = api.push.unread(&asked.viewer, room, end)?.all;
        shown.notification_count = counts.notification_count;
        shown.highlight_count = counts.highlight_count;
    }
    if members_changed {
        describe(asked, room, &mut shown)?;
    }
    Ok(Some(shown))
}

fn was_joined(asked: &Asked<'_>, room: RoomNum, membership: &Membership, told: &Told) -> bool {
    asked
        .api
        .rooms
        .member_at(room, asked.viewer.user_id, membership, Pos::at(told.up_to))
        .is_ok_and(|then| then.is_some_and(|(kind, _, _)| kind == MembershipKind::Join))
}

/// Name, avatar, members.
fn describe(asked: &Asked<'_>, room: RoomNum, shown: &mut Room) -> Result<(), ApiError> {
    let api = asked.api;
    let text = |event_type: &str, field: &str| -> Result<Option<String>, ApiError> {
        let Some(event) = api.rooms.state(room, event_type, "")? else { return Ok(None) };
        let content: Value =
            serde_json::from_str(api.rooms.content_for(&asked.viewer, &event)?.get()).unwrap_or_default();
        Ok(content[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned))
    };
    shown.name = text("m.room.name", "name")?;
    if shown.name.is_none() {
        shown.name = text("m.room.canonical_alias", "alias")?;
    }
    shown.avatar = text("m.room.avatar", "url")?;
    let (joined, invited) = api.rooms.member_counts(room)?;
    shown.joined_count = Some(joined);
    shown.invited_count = Some(invited);
    let session = postern_users::Session {
        user_id: asked.viewer.user_id.to_owned(),
        user: asked.viewer.user,
        device_id: asked.viewer.device_id.to_owned(),
        is_guest: false,
        is_admin: false,
        expires: None,
        token: [0; 32],
    };
    shown.is_dm = direct_rooms(api, &session)?.contains(api.rooms.room_id(room)?.as_str());
    if shown.name.is_none() {
        let mut named = Vec::new();
        for user in heroes(api, &asked.viewer, room)? {
            let member = api.rooms.state(room, "m.room.member", user.as_str())?;
            let field = |name: &str| member.as_ref().and_then(|event| event.content_text(name));
            let mut hero = json!({ "user_id": user });
            if let Some(name) = field("displayname") {
                hero["displayname"] = name.into();
            }
            if let Some(avatar) = field("avatar_url") {
                hero["avatar_url"] = avatar.into();
            }
            named.push(raw(&hero)?);
        }
        shown.heroes = Some(named);
    }
    Ok(())
}

/// The state between two maps that is asked for.
fn required(
    asked: &Asked<'_>,
    base: Root,
    end: Root,
    wanted: &BTreeSet<(String, String)>,
    timeline: &[Arc<Event>],
) -> Result<Vec<Arc<Event>>, ApiError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let api = asked.api;
    let graph = api.rooms.graph();
    let me = asked.viewer.user_id.as_str();
    let lazy = wanted.contains(&("m.room.member".to_owned(), "$LAZY".to_owned()));
    let senders: HashSet<&str> = timeline.iter().map(|event| event.sender().as_str()).collect();
    let mut nums: Vec<EventNum> = Vec::new();
    for change in graph.state_diff(base, end)? {
        let Some(num) = change.after else { continue };
        let name = graph.name(NameKind::StateKey, change.key.0)?;
        let Some((event_type, key)) = split_state_key_name(&name) else { continue };
        let fits = wanted.iter().any(|(wanted_type, wanted_key)| {
            (wanted_type == "*" || wanted_type == event_type)
                && (wanted_key == "*"
                    || wanted_key == key
                    || (wanted_key == "$ME" && key == me)
                    || (wanted_key == "$LAZY" && event_type == "m.room.member" && senders.contains(key)))
        });
        if fits {
            nums.push(num);
        }
    }
    if lazy && base != Root::EMPTY {
        // Members who speak for the first time since the client began to listen.
        for event in timeline {
            let device = (asked.viewer.user, asked.viewer.device_id, event.record.room);
            let since = asked.since.map(|since| since.log);
            if !api.lazy.knows(device, event.record.sender, since, asked.up_to)
                && let Some(member) = api.rooms.state_in(end, "m.room.member", event.sender().as_str())?
            {
                nums.push(member.num);
            }
        }
    }
    nums.sort_unstable();
    nums.dedup();
    Ok(api.rooms.events(&nums)?)
}
