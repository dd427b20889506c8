//! Which events of a room go into a bundle.
//!
//! A server by hand can ask for nothing, so a bundle has all that is needed to take in what is in it: behind each event
//! those that authorize it, before the first ones the state they follow on. What a server was told of is remembered, and not told again.

use crate::{Error, Federation};
use postern_graph::{EventNum, NameKind, RoomNum, ServerNum, event::flags, schema::CarriedTold};
use postern_rooms::{Event, MembershipKind};
use ruma::{OwnedEventId, ServerName};
use std::{
    collections::{BTreeSet, BinaryHeap, HashSet},
    sync::Arc,
};

/// Events of one room in one bundle.
const EVENTS: usize = 100_000;
/// Events of a room in a keyframe, and of its history before the server came in: what is looked at first.
pub(super) const RECENT: usize = 500;
/// Events before which the state is told, for one room and bundle.
const GAPS: usize = 20;

/// As what a server was told of an event.
pub(super) const AUTHORIZING: u8 = 1;
pub(super) const IN_PLACE: u8 = 2;

/// The state before an event whose place is not told.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) before: Arc<Event>,
    pub(super) state: Vec<EventNum>,
}

/// What of a room goes into a bundle, in the order in which it can be taken in.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// What authorizes the rest.
    pub(super) authorizing: Vec<EventNum>,
    pub(super) snapshots: Vec<Snapshot>,
    /// In topological order.
    pub(super) events: Vec<EventNum>,
    /// Events that these follow on, and that are told nowhere.
    pub(super) missing: Vec<OwnedEventId>,
}

/// Chooses events for a server.
pub(super) struct Planner<'f> {
    federation: &'f Federation,
    server: &'f ServerName,
    number: Option<ServerNum>,
    /// Whether what was told before is told again.
    from_anew: bool,
}

impl<'f> Planner<'f> {
    pub(super) fn new(
        federation: &'f Federation,
        server: &'f ServerName,
        from_anew: bool,
    ) -> Result<Self, Error> {
        let number = federation.0.graph.number(NameKind::Server, server.as_str())?.map(ServerNum);
        Ok(Self { federation, server, number, from_anew })
    }

    fn told(&self, event: EventNum) -> Result<u8, Error> {
        let Some(number) = self.number else { return Ok(0) };
        Ok(self.federation.0.graph.get::<CarriedTold>(&(number, event))?.unwrap_or(0))
    }

    /// Whether the server has an event in its place.
    fn has(&self, event: &Event) -> Result<bool, Error> {
        Ok(!self.from_anew
            && (event.sender().server_name() == self.server || self.told(event.num)? == IN_PLACE))
    }

    /// The events from `ends` backwards that the server does not have, and what they rest on.
    pub(super) fn piece(&self, ends: &[EventNum]) -> Result<Piece, Error> {
        let most = if self.from_anew { RECENT } else { EVENTS };
        let chosen = self.backwards(ends, most, |event| self.has(event))?;
        self.complete(chosen)
    }

    /// The history of a room before the server came into it, whatever it was told of that.
    pub(super) fn history(&self, room: RoomNum) -> Result<Piece, Error> {
        let rooms = &self.federation.0.rooms;
        let mut before = BTreeSet::new();
        for (user, event) in rooms.members_of(room, MembershipKind::Join)? {
            if rooms.user_id(user)?.server_name() != self.server {
                continue;
            }
            for prev in rooms.event(event)?.prev_events() {
                before.extend(rooms.event_by_id(prev)?.map(|event| event.num));
            }
        }
        let ends: Vec<_> = before.into_iter().collect();
        let chosen = self.backwards(&ends, RECENT, |event| {
            Ok(event.sender().server_name() == self.server && event.membership().is_none())
        })?;
        self.complete(chosen)
    }

    /// The latest events from `ends` backwards, but for those that are `known`, oldest first.
    fn backwards(
        &self,
        ends: &[EventNum],
        most: usize,
        known: impl Fn(&Event) -> Result<bool, Error>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let rooms = &self.federation.0.rooms;
        let mut open: BinaryHeap<(u64, EventNum)> = BinaryHeap::new();
        let mut seen: HashSet<EventNum> = HashSet::new();
        let mut chosen = Vec::new();
        for num in ends {
            if seen.insert(*num) {
                open.push((rooms.event(*num)?.depth(), *num));
            }
        }
        while let Some((_, num)) = open.pop() {
            let event = rooms.event(num)?;
            if event.record.has(flags::OUTLIER) || known(&event)? {
                continue;
            }
            if chosen.len() == most {
                break;
            }
            for prev in event.prev_events() {
                if let Some(prev) = rooms.event_by_id(prev)?
                    && prev.record.room == event.record.room
                    && seen.insert(prev.num)
                {
                    open.push((prev.depth(), prev.num));
                }
            }
            chosen.push(event);
        }
        chosen.reverse();
        Ok(chosen)
    }

    /// Adds what events rest on.
    fn complete(&self, chosen: Vec<Arc<Event>>) -> Result<Piece, Error> {
        let rooms = &self.federation.0.rooms;
        let inside: HashSet<EventNum> = chosen.iter().map(|event| event.num).collect();
        let mut piece = Piece::default();
        let mut rests_on: Vec<EventNum> = inside.iter().copied().collect();
        let mut looked_at = HashSet::new();
        for event in &chosen {
            for id in event.prev_events() {
                let Some(prev) = rooms.event_by_id(id)? else {
                    piece.missing.push(id.clone());
                    continue;
                };
                if inside.contains(&prev.num) || !looked_at.insert(prev.num) || self.has(&prev)? {
                    continue;
                }
                match rooms.state_before_event(&prev) {
                    Ok((state, _)) if piece.snapshots.len() < GAPS => {
                        rests_on.extend(&state);
                        rests_on.push(prev.num);
                        piece.snapshots.push(Snapshot { before: prev, state });
                    }
                    _ => piece.missing.push(id.clone()),
                }
            }
        }
        piece.authorizing = self.authorizing(&rests_on, &inside)?;
        piece.events = chosen.iter().map(|event| event.num).collect();
        Ok(piece)
    }

    /// These events and all that authorizes them, but for those the server has and those `inside`, so that each comes after those
    /// that it names.
    fn authorizing(&self, rests_on: &[EventNum], inside: &HashSet<EventNum>) -> Result<Vec<EventNum>, Error> {
        let rooms = &self.federation.0.rooms;
        let mut all: HashSet<EventNum> = rooms.auth_chain(rests_on)?.into_iter().collect();
        all.extend(rests_on);
        let mut found = Vec::new();
        for num in all {
            if !inside.contains(&num) && (self.from_anew || self.told(num)? == 0) {
                found.push((rooms.event(num)?.depth(), num));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, num)| num).collect())
    }

    /// What somebody needs who is invited: the state before the invite, and what authorizes it.
    pub(super) fn invitation(&self, invite: &Arc<Event>) -> Result<Piece, Error> {
        let (state, _) = self.federation.0.rooms.state_before_event(invite)?;
        let mut rests_on = state.clone();
        rests_on.push(invite.num);
        let authorizing = self.authorizing(&rests_on, &HashSet::from([invite.num]))?;
        let snapshots = vec![Snapshot { before: invite.clone(), state }];
        Ok(Piece { authorizing, snapshots, ..Piece::default() })
    }
}
