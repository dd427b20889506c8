//! A room as other servers may read it: events, state, auth chains, history (specification: retrieving events,
//! backfilling and retrieving missing events).
//!
//! Nothing is read for a server without asking what it may see: [`Rooms::served`] gives an event whole, as its redacted
//! copy, or not at all.

use crate::{Error, Event, limits, rooms::Rooms};
use postern_graph::{
    EventNum, Pos, RoomNum, Root,
    event::{MembershipKind, flags},
    schema::Timeline,
};
use ruma::{EventId, OwnedEventId, RoomId, ServerName, UserId, events::TimelineEventType};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BinaryHeap, HashSet},
    sync::Arc,
};

/// What a server asks for in one room, with the right to.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Who asks.
    pub server: &'a ServerName,
    /// About this room.
    pub room: RoomNum,
}

/// The state of a room for a server that joins it.
#[derive(Debug)]
pub struct JoinState {
    /// The state before the join.
    pub state: Vec<EventNum>,
    /// What authorizes it and the join.
    pub auth_chain: Vec<EventNum>,
}

impl Rooms {
    /// A server that asks about a room it is in.
    ///
    /// # Errors
    /// [`Error::Forbidden`], the same whether the room is unknown or not the server's business.
    pub fn asking<'a>(&self, server: &'a ServerName, room: &RoomId) -> Result<Asking<'a>, Error> {
        let refused = || Error::forbidden("the server is not in the room");
        let room = self.room(room)?.ok_or_else(refused)?;
        if !self.is_resident(room)? || !self.is_in(server, room)? || !self.may_know(server, room)? {
            return Err(refused());
        }
        Ok(Asking { server, room })
    }

    /// An event of the room by its id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not here or of another room: which of these is not told.
    pub fn event_asked_for(&self, asking: Asking<'_>, id: &EventId) -> Result<Arc<Event>, Error> {
        self.event_by_id(id)?
            .filter(|event| event.record.room == asking.room)
            .ok_or_else(|| Error::not_found("the event is not known to this server"))
    }

    /// The PDU of an event as the asking server gets it: whole if its users may see it, else as the redacted copy, which
    /// has the same id and still carries its signatures. It may leave once [`Rooms::settled`] says so.
    pub fn served(&self, asking: Asking<'_>, event: &Event) -> Result<Box<RawValue>, Error> {
        if !self.server_may_see(asking.server, event)? {
            return self.redacted_copy(event);
        }
        match self.released(asking.server, event)? {
            Some(pdu) => Ok(pdu),
            // It may have lost the right to know the room since it was let ask.
            None => self.redacted_copy(event),
        }
    }

    /// Whether the history visibility at the event lets a server that is in the room see it.
    fn server_may_see(&self, server: &ServerName, event: &Event) -> Result<bool, Error> {
        if event.state_key().is_some() || event.sender().server_name() == server {
            // State is every member server's to resolve.
            return Ok(true);
        }
        if event.record.has(flags::OUTLIER) {
            // What was before a gap may be a message. Where it stands is not known, and so not who might see it there.
            return Ok(false);
        }
        let before = event.record.state_before;
        let visibility = self.state_in(before, "m.room.history_visibility", "")?;
        let wanted: &[&str] =
            match visibility.and_then(|event| event.content_text("history_visibility")).as_deref() {
                Some("invited") => &["join", "invite"],
                Some("joined") => &["join"],
                _ => return Ok(true),
            };
        self.server_was(before, server, wanted)
    }

    fn server_was(&self, root: Root, server: &ServerName, memberships: &[&str]) -> Result<bool, Error> {
        for event in self.all_state_in(root)? {
            if *event.kind() != TimelineEventType::RoomMember {
                continue;
            }
            let user = event.state_key().and_then(|user| UserId::parse(user).ok());
            if user.is_some_and(|user| user.server_name() == server)
                && event.membership().is_some_and(|kind| memberships.contains(&kind.as_str()))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The state before an event, and the auth chain of all of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an event whose state is not known, [`Error::PartialState`] while no state of the room is.
    pub fn state_before_event(&self, event: &Event) -> Result<(Vec<EventNum>, Vec<EventNum>), Error> {
        self.has_whole_state(event.record.room)?;
        if event.record.has(flags::OUTLIER) {
            return Err(Error::not_found("the state at the event is not known to this server"));
        }
        let state: Vec<EventNum> =
            self.graph.state_entries(event.record.state_before)?.into_iter().map(|(_, num)| num).collect();
        let chain = self.auth_chain(&state)?;
        Ok((state, chain))
    }

    /// What a server is told whose user joins by `join`. With `omit_members` only those memberships stand in the state
    /// by which the room is called when it has no name (specification: `send_join`).
    ///
    /// # Errors
    /// As [`Rooms::state_before_event`].
    pub fn state_for_join(&self, join: &Event, omit_members: bool) -> Result<JoinState, Error> {
        let room = join.record.room;
        self.has_whole_state(room)?;
        let mut state: Vec<EventNum> =
            self.graph.state_entries(join.record.state_before)?.into_iter().map(|(_, num)| num).collect();
        if omit_members {
            let members: HashSet<EventNum> = MembershipKind::ALL
                .iter()
                .map(|kind| self.members_of(room, *kind))
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten()
                .map(|(_, event)| event)
                .collect();
            let heroes = if self.is_named(room)? { Vec::new() } else { self.first_members(join)? };
            state.retain(|num| !members.contains(num) || heroes.contains(num));
        }
        let told: HashSet<EventNum> = state.iter().copied().collect();
        let rests_on: Vec<EventNum> = state.iter().copied().chain([join.num]).collect();
        let mut auth_chain = self.auth_chain(&rests_on)?;
        if omit_members {
            auth_chain.retain(|num| !told.contains(num));
        }
        Ok(JoinState { state, auth_chain })
    }

    fn is_named(&self, room: RoomNum) -> Result<bool, Error> {
        let says = |kind: &str, field: &str| -> Result<bool, Error> {
            let event = self.state(room, kind, "")?;
            Ok(event.and_then(|event| event.content_text(field)).is_some_and(|text| !text.is_empty()))
        };
        Ok(says("m.room.name", "name")? || says("m.room.canonical_alias", "alias")?)
    }

    /// The members after whom a room without a name is called, but for who joins.
    fn first_members(&self, join: &Event) -> Result<Vec<EventNum>, Error> {
        let mut first = self.members_of(join.record.room, MembershipKind::Join)?;
        first.extend(self.members_of(join.record.room, MembershipKind::Invite)?);
        let mut first: Vec<EventNum> =
            first.into_iter().map(|(_, event)| event).filter(|event| *event != join.num).collect();
        first.sort_unstable();
        first.truncate(limits::HEROES);
        Ok(first)
    }

    /// The events that authorize these, the events that authorize those, and so on.
    ///
    /// # Errors
    /// [`Error::Unresolvable`] if there are more than [`limits::AUTH_CHAIN`].
    pub fn auth_chain(&self, of: &[EventNum]) -> Result<Vec<EventNum>, Error> {
        let commit = self.graph.begin();
        let (mut seen, mut open) = (HashSet::new(), of.to_vec());
        while let Some(num) = open.pop() {
            for auth in self.graph.auth_events_in(&commit, num)? {
                if seen.insert(auth) {
                    open.push(auth);
                }
            }
            if seen.len() > limits::AUTH_CHAIN {
                return Err(Error::Unresolvable("the auth chain is too long".to_owned()));
            }
        }
        // Since room version 12 events do not name the create event they all rest on.
        if let Some(first) = of.first()
            && let Some(create) =
                self.record(self.event(*first)?.record.room)?.and_then(|record| record.create)
        {
            seen.insert(create);
        }
        let mut chain: Vec<EventNum> = seen.into_iter().collect();
        chain.sort_unstable();
        Ok(chain)
    }

    /// Events of the room from these backwards, newest first, themselves included.
    pub fn history_before(
        &self,
        asking: Asking<'_>,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let mut open: BinaryHeap<(u64, Pos, EventNum)> = BinaryHeap::new();
        let mut seen = HashSet::new();
        for id in from {
            if let Some(event) = self.event_by_id(id)?
                && event.record.room == asking.room
                && !event.record.has(flags::OUTLIER)
                && seen.insert(event.num)
            {
                open.push((event.record.depth, event.record.pos, event.num));
            }
        }
        let mut found = Vec::new();
        let limit = limit.min(limits::BACKFILL_EVENTS);
        while let Some((_, _, num)) = open.pop() {
            let event = self.event(num)?;
            for prev in event.prev_events() {
                if let Some(prev) = self.event_by_id(prev)?
                    && !prev.record.has(flags::OUTLIER)
                    && seen.len() < limits::HISTORY_WALK
                    && seen.insert(prev.num)
                {
                    open.push((prev.record.depth, prev.record.pos, prev.num));
                }
            }
            if !event.record.has(flags::REJECTED) {
                found.push(event);
            }
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Events between `earliest` (not included) and `latest` (not included), oldest first.
    pub fn events_between(
        &self,
        asking: Asking<'_>,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        limit: usize,
        min_depth: u64,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let stop: HashSet<&OwnedEventId> = earliest.iter().collect();
        let mut found: BTreeMap<(u64, Pos), Arc<Event>> = BTreeMap::new();
        let mut seen: HashSet<OwnedEventId> = latest.iter().cloned().collect();
        let mut open: std::collections::VecDeque<OwnedEventId> = latest.iter().cloned().collect();
        let limit = limit.min(limits::MISSING_EVENTS);
        while let Some(id) = open.pop_front() {
            let Some(event) = self.event_by_id(&id)? else { continue };
            if event.record.room != asking.room || event.record.has(flags::OUTLIER) {
                continue;
            }
            for prev in event.prev_events() {
                if stop.contains(prev) || !seen.insert(prev.clone()) || seen.len() > limits::HISTORY_WALK {
                    continue;
                }
                let Some(prev) = self.event_by_id(prev)? else { continue };
                if prev.record.room != asking.room
                    || prev.record.has(flags::OUTLIER)
                    || prev.record.depth < min_depth
                {
                    continue;
                }
                open.push_back(prev.id.clone());
                found.insert((prev.record.depth, prev.record.pos), prev);
                if found.len() >= limit {
                    return Ok(found.into_values().collect());
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Whether the room has history before what is here.
    pub fn has_history_elsewhere(&self, room: RoomNum) -> Result<bool, Error> {
        Ok(!self.history_ends(room, 1)?.is_empty())
    }

    /// The oldest events of the timeline whose previous events are not all here, newest first: where history that is
    /// elsewhere begins.
    pub fn history_ends(&self, room: RoomNum, limit: usize) -> Result<Vec<Arc<Event>>, Error> {
        let mut ends = Vec::new();
        let first = self.graph.scan::<Timeline, _>(&(room,)).first()?;
        if let Some((_, first)) = first
            && *self.event(first)?.kind() == TimelineEventType::RoomCreate
        {
            return Ok(ends);
        }
        for entry in self.graph.scan::<Timeline, _>(&(room,)).iter().take(limits::HISTORY_WALK) {
            let event = self.event(entry?.1)?;
            let mut open = false;
            for prev in event.prev_events() {
                open = open || self.event_by_id(prev)?.is_none_or(|prev| prev.record.has(flags::OUTLIER));
            }
            if open {
                ends.push(event);
            }
            if ends.len() >= limit {
                break;
            }
        }
        Ok(ends)
    }
}
