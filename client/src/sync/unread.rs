//! Counting what a user has not read: push rules decide what counts (specification: receiving notifications).
//!
//! Counting goes on from where it was: each event is looked at once for a user. What is in memory can be lost; it is
//! then counted again from the user's receipts.

use crate::{Api, http::ApiError};
use futures::FutureExt;
use postern_graph::{EventNum, Pos, RoomNum, UserNum, event::Membership};
use postern_rooms::{Event, Relation, view::Viewer};
use quick_cache::sync::Cache;
use ruma::{
    UInt,
    events::room::power_levels::{RoomPowerLevels, RoomPowerLevelsSource},
    push::{Action, FlattenedJson, PushConditionRoomCtx, Ruleset},
    serde::Raw,
};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc};

/// Users and rooms whose counts are kept.
const COUNTS: usize = 50_000;
/// Notifying events remembered for one user in one room; a higher count is not told.
const REMEMBERED: usize = 500;
/// Events looked at when counting begins anew.
const LOOK_BACK: usize = 500;
/// Events kept in the form push rules are matched on.
const FLATTENED: usize = 256;

/// How much is unread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) highlight_count: u64,
    pub(crate) notification_count: u64,
}

/// The counts of a room: as a whole or for its main timeline, and thread by thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) all: Count,
    pub(crate) main: Count,
    pub(crate) threads: BTreeMap<String, Count>,
}

#[derive(Debug, Clone)]
struct Notifying {
    pos: Pos,
    /// The root of its thread, if it is in one.
    thread: Option<Arc<str>>,
    highlight: bool,
}

#[derive(Debug, Clone)]
struct Known {
    up_to: Pos,
    notifying: Vec<Notifying>,
}

/// What has been counted so far.
#[derive(Debug)]
pub struct Unread {
    known: Cache<(UserNum, RoomNum), Arc<Known>>,
    flattened: Cache<EventNum, Arc<FlattenedJson>>,
}

impl Default for Unread {
    fn default() -> Self {
        Self { known: Cache::new(COUNTS), flattened: Cache::new(FLATTENED) }
    }
}

/// What is unread for `viewer` in a room, up to a position.
pub(crate) fn unread(
    api: &Api,
    viewer: &Viewer<'_>,
    room: RoomNum,
    membership: &Membership,
    up_to: Pos,
) -> Result<Counts, ApiError> {
    let read = api.rooms.read_up_to(room, viewer.user)?;
    let at = |thread: &str| read.iter().find(|(known, _)| known == thread).map_or(Pos::MIN, |(_, pos)| *pos);
    let everywhere = at("").max(membership.since.min(up_to));
    let key = (viewer.user, room);
    let before = api.unread.known.get(&key).filter(|known| known.up_to <= up_to);
    let known = match before {
        Some(known) if known.up_to == up_to => known,
        before => {
            let from = before.as_ref().map_or(everywhere, |known| known.up_to);
            let mut notifying: Vec<Notifying> = before.map_or_else(Vec::new, |known| known.notifying.clone());
            notifying.retain(|event| event.pos > everywhere);
            count(api, viewer, room, (from.max(everywhere), up_to), &mut notifying)?;
            if notifying.len() > REMEMBERED {
                notifying.drain(..notifying.len() - REMEMBERED);
            }
            let known = Arc::new(Known { up_to, notifying });
            api.unread.known.insert(key, known.clone());
            known
        }
    };
    let mut counts = Counts::default();
    let main = at("main").max(everywhere);
    for event in &known.notifying {
        let (read_up_to, count) = match &event.thread {
            None => (main, &mut counts.main),
            Some(thread) => {
                (at(thread).max(everywhere), counts.threads.entry(thread.to_string()).or_default())
            }
        };
        if event.pos > read_up_to {
            for count in [count, &mut counts.all] {
                count.notification_count += 1;
                count.highlight_count += u64::from(event.highlight);
            }
        }
    }
    counts.threads.retain(|_, count| count.notification_count > 0);
    Ok(counts)
}

/// Adds the events in `(from, up_to]` that notify, oldest first, and takes away what the user has read by sending
/// something (specification: marking notifications as read).
fn count(
    api: &Api,
    viewer: &Viewer<'_>,
    room: RoomNum,
    (from, up_to): (Pos, Pos),
    notifying: &mut Vec<Notifying>,
) -> Result<(), ApiError> {
    if from >= up_to {
        return Ok(());
    }
    let events = api.rooms.happened(room, viewer, (from, up_to), LOOK_BACK)?;
    if events.is_empty() {
        return Ok(());
    }
    let rules = api.users.push_ruleset(viewer.user_id, viewer.user)?;
    let mut context = context(api, viewer, room)?;
    for event in &events {
        if event.record.sender == viewer.user {
            let thread = thread_of(api, event)?;
            notifying.retain(|other| other.thread != thread);
            continue;
        }
        let flat = flatten(api, event);
        let whole_room = flat.get_str("content.body").is_some_and(|body| body.contains("@room"))
            || flat.get("content.m\\.mentions.room").is_some();
        if whole_room && context.power_levels.is_none() {
            context.power_levels = power_levels(api, room)?;
        }
        let Some(actions) = actions(&rules, &flat, &context) else { continue };
        if actions.iter().any(Action::should_notify) {
            notifying.push(Notifying {
                pos: event.record.pos,
                thread: thread_of(api, event)?,
                highlight: actions.iter().any(Action::is_highlight),
            });
        }
    }
    Ok(())
}

fn flatten(api: &Api, event: &Event) -> Arc<FlattenedJson> {
    if let Some(flat) = api.unread.flattened.get(&event.num) {
        return flat;
    }
    let json = RawValue::from_string(event.json().to_owned()).unwrap_or_default();
    let raw: Raw<serde_json::Value> = Raw::from_json(json);
    let flat = Arc::new(FlattenedJson::from_raw(&raw));
    api.unread.flattened.insert(event.num, flat.clone());
    flat
}

/// What the first rule that applies asks for.
fn actions<'r>(
    rules: &'r Ruleset,
    event: &FlattenedJson,
    context: &PushConditionRoomCtx,
) -> Option<&'r [Action]> {
    // Rules only wait for thread subscriptions, which are not asked for here.
    let rule = rules.iter().find(|rule| rule.applies(event, context).now_or_never().unwrap_or(false))?;
    Some(rule.actions())
}

fn context(api: &Api, viewer: &Viewer<'_>, room: RoomNum) -> Result<PushConditionRoomCtx, ApiError> {
    let (joined, _) = api.rooms.member_counts(room)?;
    let member = api.rooms.state(room, "m.room.member", viewer.user_id.as_str())?;
    let name = member.and_then(|event| event.content_text("displayname"));
    Ok(PushConditionRoomCtx::new(
        api.rooms.room_id(room)?,
        UInt::try_from(joined).unwrap_or(UInt::MAX),
        viewer.user_id.to_owned(),
        name.unwrap_or_else(|| viewer.user_id.localpart().to_owned()),
    ))
}

fn power_levels(
    api: &Api,
    room: RoomNum,
) -> Result<Option<ruma::push::PushConditionPowerLevelsCtx>, ApiError> {
    let version = api.rooms.version_of(room)?;
    let Some(event) = api.rooms.state(room, "m.room.power_levels", "")? else { return Ok(None) };
    let levels = api.rooms.power_levels(room)?;
    let Some(content) = event.content_as() else { return Ok(None) };
    let levels = RoomPowerLevels::new(
        RoomPowerLevelsSource::Original(content),
        &version.rules.authorization,
        levels.creators().iter().cloned(),
    );
    Ok(Some(levels.into()))
}

/// The thread an event is in: its own relation, or that of the event it relates to.
fn thread_of(api: &Api, event: &Event) -> Result<Option<Arc<str>>, ApiError> {
    let Some(relation) = Relation::of(event) else { return Ok(None) };
    let Some(parent) = relation.event_id else { return Ok(None) };
    if relation.rel_type.as_deref() == Some("m.thread") {
        return Ok(Some(parent.into()));
    }
    let Ok(parent) = <&ruma::EventId>::try_from(parent.as_str()) else { return Ok(None) };
    let Some(parent) = api.rooms.event_by_id(parent)? else { return Ok(None) };
    Ok(Relation::of(&parent)
        .filter(|relation| relation.rel_type.as_deref() == Some("m.thread"))
        .and_then(|relation| relation.event_id)
        .map(Into::into))
}
