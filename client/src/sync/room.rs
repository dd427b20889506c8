//! A room's part of a `/sync` (specification: syncing).

use super::token::SyncToken;
use crate::{
    Api,
    filter::{EventFilter, RoomFilter},
    http::ApiError,
    presence::shown_despite,
};
use postern_graph::{
    EventNum, NameKind, Pos, RoomNum, Root, Seq, UserNum,
    event::{Membership, MembershipKind, flags},
    intern::split_state_key_name,
};
use postern_push::Count;
use postern_rooms::{
    Event, UserReceipt,
    view::{Direction, Format, Stretch, TimelineToken, Viewer},
};
use postern_users::{Session, TypedContent};
use ruma::OwnedUserId;
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};
use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// Events in a timeline, if the client does not say.
pub(crate) const TIMELINE: usize = 10;
/// Users named in a summary (specification: `m.heroes`).
const HEROES: usize = 5;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Events {
    pub(crate) events: Vec<Box<RawValue>>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Timeline {
    pub(crate) events: Vec<Box<RawValue>>,
    pub(crate) limited: bool,
    pub(crate) prev_batch: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Joined {
    #[serde(skip_serializing_if = "Map::is_empty")]
    summary: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(rename = "state_after", skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    #[serde(rename = "org.matrix.msc4222.state_after", skip_serializing_if = "Option::is_none")]
    state_after_unstable: Option<Events>,
    timeline: Timeline,
    ephemeral: Events,
    account_data: Events,
    unread_notifications: Count,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unread_thread_notifications: BTreeMap<String, Count>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Left {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(rename = "state_after", skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    timeline: Timeline,
    account_data: Events,
}

/// What one request asks, the same for all rooms.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) api: &'a Api,
    pub(crate) viewer: Viewer<'a>,
    pub(crate) filter: &'a RoomFilter,
    pub(crate) event_fields: Option<&'a [String]>,
    pub(crate) since: Option<SyncToken>,
    pub(crate) up_to: Seq,
    pub(crate) full_state: bool,
    /// State as of the end of the timeline instead of its beginning (v1.16; MSC4222 by its unstable name).
    pub(crate) state_after: Option<StateAfter>,
    pub(crate) ignored: HashSet<OwnedUserId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateAfter {
    Stable,
    Unstable,
}

/// Changes of membership in a room that matter for whose devices are watched.
#[derive(Debug, Default)]
pub(crate) struct Comings {
    pub(crate) joined: HashSet<UserNum>,
    pub(crate) left: HashSet<UserNum>,
}

impl Comings {
    /// Notes who came into and who left a room between two positions, also because the user did.
    pub(crate) fn note(
        &mut self,
        api: &Api,
        session: &Session,
        room: RoomNum,
        now: &Membership,
        (start, end): (Pos, Pos),
    ) -> Result<(), ApiError> {
        let was = api.rooms.member_at(room, &session.user_id, now, start)?;
        let was = was.is_some_and(|(kind, _, _)| kind == MembershipKind::Join);
        match (was, now.kind == MembershipKind::Join) {
            (false, true) => self.joined.extend(api.rooms.joined_users(room)?),
            (true, false) => self.left.extend(api.rooms.joined_users(room)?),
            (true, true) => {
                let (came, went) = api.rooms.membership_changes(room, start, end)?;
                self.joined.extend(came);
                self.left.extend(went);
            }
            (false, false) => {}
        }
        Ok(())
    }
}

/// The newest events of a timeline, and whether there are more before them.
pub(crate) struct Stretched {
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) limited: bool,
    pub(crate) prev_batch: TimelineToken,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(
        api: &'a Api,
        viewer: Viewer<'a>,
        filter: &'a RoomFilter,
        since: Option<SyncToken>,
        up_to: Seq,
    ) -> Result<Self, ApiError> {
        let ignored = api.users.ignored(viewer.user)?;
        Ok(Self {
            api,
            viewer,
            filter,
            event_fields: None,
            since,
            up_to,
            full_state: false,
            state_after: None,
            ignored,
        })
    }

    fn since_seq(&self) -> Option<Seq> {
        self.since.map(|since| since.log)
    }

    /// Whether nothing is told of a room yet: to a client that is told all members, until they are known. It would take those
    /// it is told for all there are, and encrypt for them only.
    fn is_held_back(&self, room: RoomNum) -> bool {
        !self.filter.state.lazy_load_members && self.api.rooms.is_partial(room)
    }

    /// Whether nothing was told of a room when the client last heard, though the user was joined.
    pub(crate) fn was_held_back(&self, room: RoomNum) -> bool {
        let since = self.since_seq().filter(|_| !self.filter.state.lazy_load_members);
        since.is_some_and(|since| {
            self.api.rooms.whole_since(room).is_some_and(|whole| Pos::at(since) <= whole)
        })
    }

    /// Whether the user was joined when the client last heard.
    fn was_joined(&self, room: RoomNum, now: &Membership) -> Result<bool, ApiError> {
        let Some(since) = self.since_seq() else { return Ok(false) };
        let then = self.api.rooms.member_at(room, self.viewer.user_id, now, Pos::at(since))?;
        Ok(then.is_some_and(|(kind, _, _)| kind == MembershipKind::Join))
    }

    /// The newest events after `base` and up to `end`, oldest first.
    fn timeline(&self, room: RoomNum, base: Option<Seq>, end: Pos) -> Result<Stretched, ApiError> {
        self.newest(room, base, end, self.filter.timeline.page(TIMELINE))
    }

    /// The same, at most `limit` of them.
    pub(crate) fn newest(
        &self,
        room: RoomNum,
        base: Option<Seq>,
        end: Pos,
        limit: usize,
    ) -> Result<Stretched, ApiError> {
        let filter = &self.filter.timeline;
        let until = base.map(|seq| TimelineToken(Pos::at(seq)));
        if limit == 0 {
            return Ok(Stretched { events: Vec::new(), limited: true, prev_batch: TimelineToken(end) });
        }
        let stretch = Stretch { from: TimelineToken(end), until, direction: Direction::Backwards, limit };
        let after_gap = Cell::new(None);
        let mut page = self.api.rooms.page(room, &self.viewer, stretch, |event| {
            if event.record.has(flags::AFTER_GAP) && after_gap.get().is_none() {
                after_gap.set(Some(event.record.pos));
            }
            filter.wants(event)
                && shown_despite(&self.ignored, event)
                && filter.wants_related(&self.api.rooms, event)
        })?;
        // A timeline has no gap within, which nobody would look into: it begins after the last one.
        if let Some(begin) = after_gap.get() {
            page.events.retain(|event| event.record.pos >= begin);
            page.next = Some(TimelineToken(Pos(begin.0 - 1)));
        }
        let mut events = page.events;
        events.reverse();
        let limited = page.next.is_some();
        let prev_batch = page
            .next
            .or_else(|| events.first().map(|event| TimelineToken(Pos(event.record.pos.0 - 1))))
            .unwrap_or(TimelineToken(end));
        Ok(Stretched { events, limited, prev_batch })
    }

    pub(crate) fn show(&self, event: &Event) -> Result<Box<RawValue>, ApiError> {
        let shown = self.api.rooms.client_event(event, &self.viewer, Format::SYNC)?;
        match self.event_fields {
            Some(fields) => pick_fields(&shown, fields),
            None => Ok(shown),
        }
    }

    pub(crate) fn show_all(&self, events: &[Arc<Event>]) -> Result<Vec<Box<RawValue>>, ApiError> {
        events.iter().map(|event| self.show(event)).collect()
    }

    /// The state a client needs besides the timeline: what changed since `base`.
    fn state(
        &self,
        room: RoomNum,
        base: Root,
        start: Root,
        end: Root,
        timeline: &[Arc<Event>],
    ) -> Result<Vec<Arc<Event>>, ApiError> {
        let graph = self.api.rooms.graph();
        let shown: HashSet<EventNum> = timeline.iter().map(|event| event.num).collect();
        let mut wanted: Vec<EventNum> = Vec::new();
        let mut seen = HashSet::new();
        let after = self.state_after.is_some();
        let roots = if after { vec![end] } else { vec![start, end] };
        let senders: HashSet<&str> = timeline.iter().map(|event| event.sender().as_str()).collect();
        let lazy = self.filter.state.lazy_load_members;
        for root in roots {
            for change in graph.state_diff(base, root)? {
                let Some(num) = change.after else { continue };
                if (!after && shown.contains(&num)) || !seen.insert(num) {
                    continue;
                }
                if lazy {
                    let name = graph.name(NameKind::StateKey, change.key.0)?;
                    let member = split_state_key_name(&name)
                        .filter(|(event_type, _)| *event_type == "m.room.member")
                        .map(|(_, user)| user);
                    if let Some(user) = member
                        && user != self.viewer.user_id.as_str()
                        && !senders.contains(user)
                        // With state_after the timeline no longer carries changes of membership.
                        && !(after && shown.contains(&num))
                    {
                        continue;
                    }
                }
                wanted.push(num);
            }
        }
        if lazy {
            self.lazy_members(room, base, if after { end } else { start }, timeline, &seen, &mut wanted)?;
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut events = self.api.rooms.events(&wanted)?;
        events.retain(|event| self.filter.state.wants(event));
        Ok(events)
    }

    /// The members who sent what is shown, unless the device knows them.
    fn lazy_members(
        &self,
        room: RoomNum,
        base: Root,
        root: Root,
        timeline: &[Arc<Event>],
        seen: &HashSet<EventNum>,
        wanted: &mut Vec<EventNum>,
    ) -> Result<(), ApiError> {
        let mut senders: Vec<(UserNum, &str)> =
            timeline.iter().map(|event| (event.record.sender, event.sender().as_str())).collect();
        senders.sort_unstable();
        senders.dedup();
        let since = self.since_seq().filter(|_| base != Root::EMPTY);
        for (number, sender) in senders {
            let device = (self.viewer.user, self.viewer.device_id, room);
            let known = self.api.lazy.knows(device, number, since, self.up_to);
            if known && !self.filter.state.include_redundant_members {
                continue;
            }
            let mut member = self.api.rooms.state_in(root, "m.room.member", sender)?;
            if member.is_none()
                && self.api.rooms.is_partial(room)
                && let Some(event) = timeline.iter().find(|event| event.record.sender == number)
            {
                member = self.api.rooms.membership_named_by(event)?;
            }
            if let Some(member) = member
                && !seen.contains(&member.num)
                && !timeline.iter().any(|event| event.num == member.num)
            {
                wanted.push(member.num);
            }
        }
        Ok(())
    }

    /// A room the user is joined to. `heard` is what is new in its account data.
    pub(crate) fn joined(
        &self,
        room: RoomNum,
        now: &Membership,
        heard: Vec<TypedContent>,
        comings: &mut Comings,
    ) -> Result<Option<Joined>, ApiError> {
        if self.is_held_back(room) {
            return Ok(None);
        }
        let end = Pos::at(self.up_to);
        let was_joined = self.was_joined(room, now)? && !self.was_held_back(room);
        let base = self.since_seq().filter(|_| was_joined);
        let mut timeline = self.timeline(room, base, end)?;
        // Who comes into a room has missed something, also where the room is so young that all of it is shown.
        timeline.limited |= self.since.is_some() && base.is_none();
        let end_root = self.api.rooms.state_root_at(room, end)?;
        let base_root = match base {
            Some(seq) => self.api.rooms.state_root_at(room, Pos::at(seq))?,
            None => Root::EMPTY,
        };
        let start_root = timeline.events.first().map_or(end_root, |event| event.record.state_before);
        let from_root = if self.full_state { Root::EMPTY } else { base_root };
        let state = self.state(room, from_root, start_root, end_root, &timeline.events)?;
        let members_changed = base_root != end_root && self.note_comings(room, base, comings)?;

        let ephemeral = self.ephemeral(room, base.is_none())?;
        let account_data: Vec<Box<RawValue>> = heard
            .iter()
            .filter(|(data_type, _)| self.filter.account_data.wants_type(data_type))
            .filter_map(typed)
            .collect();
        let nothing =
            timeline.events.is_empty() && state.is_empty() && ephemeral.is_empty() && account_data.is_empty();
        if base.is_some() && nothing && !self.full_state {
            return Ok(None);
        }
        let counts = self.api.push.unread(&self.viewer, room, end)?;
        let by_thread = self.filter.timeline.unread_thread_notifications;
        let summary = if base.is_none() || members_changed || self.full_state {
            self.summary(room)?
        } else {
            Map::new()
        };
        let state = Events { events: self.show_all(&state)? };
        let (before, after, unstable) = match self.state_after {
            None => (Some(state), None, None),
            Some(StateAfter::Stable) => (None, Some(state), None),
            Some(StateAfter::Unstable) => (None, None, Some(state)),
        };
        Ok(Some(Joined {
            summary,
            state: before,
            state_after: after,
            state_after_unstable: unstable,
            timeline: Timeline {
                events: self.show_all(&timeline.events)?,
                limited: timeline.limited,
                prev_batch: timeline.prev_batch.at_time(self.up_to),
            },
            ephemeral: Events { events: ephemeral },
            account_data: Events { events: account_data },
            unread_notifications: if by_thread { counts.main } else { counts.all },
            unread_thread_notifications: if by_thread { counts.threads } else { BTreeMap::new() },
        }))
    }

    /// Who came and went since the client last heard; whether anybody did.
    fn note_comings(
        &self,
        room: RoomNum,
        base: Option<Seq>,
        comings: &mut Comings,
    ) -> Result<bool, ApiError> {
        let end = Pos::at(self.up_to);
        match base {
            Some(base) => {
                let (came, went) = self.api.rooms.membership_changes(room, Pos::at(base), end)?;
                let any = !came.is_empty() || !went.is_empty();
                comings.joined.extend(came);
                comings.left.extend(went);
                Ok(any)
            }
            None => {
                if self.since.is_some() {
                    // The user came: all others are new.
                    comings.joined.extend(self.api.rooms.joined_users(room)?);
                }
                Ok(true)
            }
        }
    }

    fn ephemeral(&self, room: RoomNum, initial: bool) -> Result<Vec<Box<RawValue>>, ApiError> {
        let mut events = Vec::new();
        if self.filter.ephemeral.wants_type("m.receipt") {
            let after = if initial { Seq::ZERO } else { self.since_seq().unwrap_or(Seq::ZERO) };
            let receipts = self.api.rooms.receipts_between(room, self.viewer.user, after, self.up_to)?;
            events.extend(receipt_event(self.api, &receipts, &self.filter.ephemeral, &self.ignored)?);
        }
        if self.filter.ephemeral.wants_type("m.typing") {
            let since = if initial { 0 } else { self.since.map_or(0, |since| since.typing) };
            if let Some(typing) = self.api.typing.changed_since(room, since)
                && (!initial || !typing.is_empty())
            {
                events.push(typing_event(self.api, &typing)?);
            }
        }
        Ok(events)
    }

    /// Who is in the room, for clients that name it after its members (specification: calculating the display name).
    pub(crate) fn summary(&self, room: RoomNum) -> Result<Map<String, Value>, ApiError> {
        let (joined, invited) = self.api.rooms.member_counts(room)?;
        let mut summary = Map::new();
        summary.insert("m.joined_member_count".to_owned(), joined.into());
        summary.insert("m.invited_member_count".to_owned(), invited.into());
        let named = self.api.rooms.state(room, "m.room.name", "")?.is_some()
            || self.api.rooms.state(room, "m.room.canonical_alias", "")?.is_some();
        if !named {
            let heroes: Vec<Value> =
                heroes(self.api, &self.viewer, room)?.into_iter().map(|id| id.to_string().into()).collect();
            summary.insert("m.heroes".to_owned(), heroes.into());
        }
        Ok(summary)
    }

    /// A room the user has left or was removed from.
    pub(crate) fn left(
        &self,
        room: RoomNum,
        now: &Membership,
        comings: &mut Comings,
    ) -> Result<Left, ApiError> {
        let end = now.since;
        let was_joined = self.was_joined(room, now)?;
        let leaving = self.api.rooms.event(now.event)?;
        let saw = self.since.is_none() || was_joined;
        let end_root = leaving.record.state_after;
        if !saw {
            // An invite declined, or a knock withdrawn: the user sees that, and nothing of the room.
            let event = self.show(&leaving)?;
            return Ok(Left {
                state: Some(Events::default()),
                state_after: None,
                timeline: Timeline {
                    events: vec![event],
                    limited: false,
                    prev_batch: TimelineToken(Pos(end.0 - 1)).to_string(),
                },
                account_data: Events::default(),
            });
        }
        let base = self.since_seq();
        let timeline = self.timeline(room, base, end)?;
        let base_root = match base {
            Some(seq) => self.api.rooms.state_root_at(room, Pos::at(seq))?,
            None => Root::EMPTY,
        };
        let start_root = timeline.events.first().map_or(end_root, |event| event.record.state_before);
        let from_root = if self.full_state { Root::EMPTY } else { base_root };
        let state = self.state(room, from_root, start_root, end_root, &timeline.events)?;
        if self.since.is_some() {
            comings.left.extend(self.api.rooms.joined_users(room)?);
        }
        let state = Events { events: self.show_all(&state)? };
        let (state, state_after) =
            if self.state_after.is_some() { (None, Some(state)) } else { (Some(state), None) };
        Ok(Left {
            state,
            state_after,
            timeline: Timeline {
                events: self.show_all(&timeline.events)?,
                limited: timeline.limited,
                prev_batch: timeline.prev_batch.at_time(self.up_to),
            },
            account_data: Events::default(),
        })
    }
}

/// The members a room is named after.
pub(crate) fn heroes(api: &Api, viewer: &Viewer<'_>, room: RoomNum) -> Result<Vec<OwnedUserId>, ApiError> {
    let mut heroes: Vec<(EventNum, UserNum)> = Vec::new();
    for kind in [MembershipKind::Join, MembershipKind::Invite] {
        heroes.extend(api.rooms.members_of(room, kind)?.into_iter().map(|(user, event)| (event, user)));
    }
    heroes.retain(|(_, user)| *user != viewer.user);
    if heroes.is_empty() {
        for kind in [MembershipKind::Leave, MembershipKind::Ban] {
            heroes.extend(api.rooms.members_of(room, kind)?.into_iter().map(|(user, event)| (event, user)));
        }
        heroes.retain(|(_, user)| *user != viewer.user);
    }
    heroes.sort_unstable();
    let mut ids = Vec::new();
    for (_, user) in heroes.into_iter().take(HEROES) {
        ids.push(api.rooms.user_id(user)?);
    }
    Ok(ids)
}

/// A piece of account data as an event.
pub(crate) fn typed((data_type, content): &TypedContent) -> Option<Box<RawValue>> {
    #[derive(Serialize)]
    struct Typed<'a> {
        #[serde(rename = "type")]
        data_type: &'a str,
        content: &'a RawValue,
    }
    let content: &RawValue = serde_json::from_str(content).ok()?;
    serde_json::value::to_raw_value(&Typed { data_type, content }).ok()
}

/// Receipts as one event; nothing if there are none.
pub(crate) fn receipt_event(
    api: &Api,
    receipts: &[UserReceipt],
    filter: &EventFilter,
    ignored: &HashSet<OwnedUserId>,
) -> Result<Option<Box<RawValue>>, ApiError> {
    let mut content: Map<String, Value> = Map::new();
    for receipt in receipts {
        let user = api.rooms.user_id(receipt.user)?;
        if !filter.wants_sender(&user) || ignored.contains(&user) {
            continue;
        }
        let mut about = json!({ "ts": receipt.receipt.ts });
        if !receipt.thread.is_empty() {
            about["thread_id"] = receipt.thread.as_str().into();
        }
        let event = content.entry(&receipt.receipt.event_id).or_insert_with(|| json!({}));
        let shown = &mut event[receipt.kind.as_str()][user.as_str()];
        // There is room for one of an event: what is for all of the room says more than what is for a thread (MSC4102).
        if receipt.thread.is_empty() || shown.is_null() {
            *shown = about;
        }
    }
    if content.is_empty() {
        return Ok(None);
    }
    raw(&json!({ "type": "m.receipt", "content": content })).map(Some)
}

/// Who is typing as an event.
pub(crate) fn typing_event(api: &Api, typing: &[UserNum]) -> Result<Box<RawValue>, ApiError> {
    let mut users = Vec::with_capacity(typing.len());
    for user in typing {
        users.push(api.rooms.user_id(*user)?);
    }
    users.sort();
    raw(&json!({ "type": "m.typing", "content": { "user_ids": users } }))
}

pub(crate) fn raw(value: &impl Serialize) -> Result<Box<RawValue>, ApiError> {
    serde_json::value::to_raw_value(value).map_err(|error| ApiError::internal(&error))
}

/// Only the fields a filter names (`event_fields`), in dotted form.
fn pick_fields(event: &RawValue, fields: &[String]) -> Result<Box<RawValue>, ApiError> {
    let whole: Value = serde_json::from_str(event.get()).map_err(|error| ApiError::internal(&error))?;
    let mut picked = json!({});
    for field in fields {
        let mut path: Vec<String> = vec![String::new()];
        let mut escaped = false;
        for c in field.chars() {
            match c {
                '\\' if !escaped => escaped = true,
                '.' if !escaped => path.push(String::new()),
                c => {
                    if let Some(last) = path.last_mut() {
                        last.push(c);
                    }
                    escaped = false;
                }
            }
        }
        copy_field(&whole, &mut picked, &path);
    }
    raw(&picked)
}

fn copy_field(from: &Value, to: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let Some(value) = from.get(first) else { return };
    let Value::Object(map) = to else { return };
    if rest.is_empty() {
        map.insert(first.clone(), value.clone());
    } else if value.is_object() {
        copy_field(value, map.entry(first.clone()).or_insert_with(|| json!({})), rest);
    }
}
