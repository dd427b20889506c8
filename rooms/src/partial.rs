//! Rooms that are joined before all of their state is here.
//!
//! A server that joins a large room is told its state without the members, and the room is used at once (specification:
//! `omit_members` of `send_join`). Until the rest has come, a membership that is not here is taken from the events that
//! an event names as authorizing it; who asks for all members waits; other servers are told no state. When the rest is
//! here, [`Rooms::make_whole`] works out the states after everything that has come meanwhile again, and judges it by them.

use crate::{Error, Event, Gap, batch::Batch, limits, rooms::Rooms};
use dashmap::DashMap;
use postern_graph::{
    EventNum, Graph, Pos, RoomNum, Root,
    codec::Json,
    event::{PartialRoom, flags},
    schema::{PartialRooms, Timeline, WholeSince},
};
use ruma::{OwnedServerName, RoomId, ServerName};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::Notify;

/// What a server that let this one into a room has told instead of the members.
#[derive(Debug, Clone)]
pub struct Omitted {
    /// The servers in the room.
    pub servers: Vec<OwnedServerName>,
    /// The server that told.
    pub told_by: OwnedServerName,
}

/// The rooms whose state is not whole, as they are stored, kept in memory: nearly always there is none.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    rooms: DashMap<RoomNum, Arc<PartialRoom>>,
    /// Those whose state has become whole since they were joined, and when.
    whole: DashMap<RoomNum, Pos>,
    ended: Notify,
}

impl Partial {
    pub(crate) fn load(graph: &Graph) -> Result<Self, Error> {
        let partial = Self::default();
        for entry in graph.scan::<PartialRooms, _>(&()).iter() {
            let ((room,), Json(record)) = entry?;
            partial.rooms.insert(room, Arc::new(record));
        }
        for entry in graph.scan::<WholeSince, _>(&()).iter() {
            let ((room,), since) = entry?;
            partial.whole.insert(room, since);
        }
        Ok(partial)
    }

    /// A room is partial, or is not any more.
    pub(crate) fn note(&self, room: RoomNum, record: Option<PartialRoom>) {
        match record {
            Some(record) => {
                self.rooms.insert(room, Arc::new(record));
            }
            None => {
                self.rooms.remove(&room);
                self.ended.notify_waiters();
            }
        }
    }

    /// The state of a room is whole. Whoever found before that it was not did so at `since` at the latest.
    fn end(&self, room: RoomNum, since: Pos) {
        self.whole.insert(room, since);
        self.note(room, None);
    }

    /// The servers of a room whose members are not known; nobody if they are.
    pub(crate) fn servers(&self, room: RoomNum) -> BTreeSet<OwnedServerName> {
        if self.rooms.is_empty() {
            return BTreeSet::new();
        }
        self.rooms.get(&room).map_or_else(BTreeSet::new, |record| {
            record.servers.iter().filter_map(|server| ServerName::parse(server).ok()).collect()
        })
    }
}

impl Rooms {
    /// Whether the state of a room is not whole here yet.
    #[must_use]
    pub fn is_partial(&self, room: RoomNum) -> bool {
        self.partial_room(room).is_some()
    }

    /// The rooms whose state is not whole here yet: the event before which it has to be asked for, and whom to ask first.
    pub fn partial_rooms(&self) -> Vec<(RoomNum, Arc<PartialRoom>)> {
        let rooms = self.partial.rooms.iter().filter(|entry| !entry.given_up);
        rooms.map(|entry| (*entry.key(), entry.value().clone())).collect()
    }

    /// What is known of a room whose state is not whole here yet.
    #[must_use]
    pub fn partial_room(&self, room: RoomNum) -> Option<Arc<PartialRoom>> {
        if self.partial.rooms.is_empty() {
            return None;
        }
        self.partial.rooms.get(&room).map(|record| record.clone()).filter(|record| !record.given_up)
    }

    /// Since when the state of a room is whole here, if it was joined before it was: whatever was told up to then, that
    /// position included, may have been told without knowing all of it.
    #[must_use]
    pub fn whole_since(&self, room: RoomNum) -> Option<Pos> {
        self.partial.whole.get(&room).map(|since| *since)
    }

    /// The other servers of a room whose members are not known yet; nobody if they are. Of this server's users all is
    /// known.
    #[must_use]
    pub fn servers_beside_members(&self, room: RoomNum) -> BTreeSet<OwnedServerName> {
        let mut servers = self.partial.servers(room);
        servers.remove(self.server_name());
        servers
    }

    /// The membership of whoever sent `event`, as far as the event itself says: the one among the events it names as
    /// authorizing it. Where the state is not whole that is what is known of it.
    pub fn membership_named_by(&self, event: &Event) -> Result<Option<Arc<Event>>, Error> {
        self.batch(event.record.room)?.named_member(event, event.sender().as_str())
    }

    /// # Errors
    /// [`Error::PartialState`] if the state of the room is not whole here.
    pub fn has_whole_state(&self, room: RoomNum) -> Result<(), Error> {
        if self.is_partial(room) { Err(Error::PartialState) } else { Ok(()) }
    }

    /// Waits until the state of a room is whole, for as long as somebody who asks can be let wait.
    ///
    /// # Errors
    /// [`Error::PartialState`] if it is not then.
    pub async fn wait_for_whole_state(&self, room: RoomNum) -> Result<(), Error> {
        let whole = async {
            loop {
                let ended = self.partial.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if !self.is_partial(room) {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(limits::WHOLE_STATE_PATIENCE, whole).await.map_err(|_| Error::PartialState)
    }

    /// Nobody of this server is in the room any more: the rest of its state will not be asked for. Its servers stay known:
    /// they have to hear that nobody is.
    ///
    /// # Errors
    /// The store's.
    pub async fn give_up_whole_state(&self, room: RoomNum) -> Result<(), Error> {
        let _lane = self.lane(room).await;
        let Some(record) = self.partial_room(room) else { return Ok(()) };
        let record = PartialRoom { given_up: true, ..(*record).clone() };
        let mut commit = self.graph.begin();
        commit.put::<PartialRooms>(&(room,), &Json(record.clone()));
        let seq = self.graph.commit(commit)?;
        self.partial.note(room, Some(record));
        self.partial.ended.notify_waiters();
        self.durable(seq).await
    }

    /// The whole state before the event by which this server came into a room, told by another server. `told` says what
    /// it was before that event, or before the only event that it follows on; its events, and the latter, were given to
    /// [`Rooms::add_outliers`]. All that has happened since is judged by it.
    ///
    /// # Errors
    /// [`Error::BadJson`] if it is no state of the room.
    pub async fn make_whole(&self, room: &RoomId, told: &Gap) -> Result<(), Error> {
        let room = self.known_room(room)?;
        let seq = {
            let _lane = self.lane(room).await;
            let Some(record) = self.partial_room(room) else { return Ok(()) };
            let mut batch = self.batch(room)?;
            batch.is_partial = false;
            batch.make_whole(record.join, told)?;
            let seq = batch.commit()?;
            self.partial.end(room, Pos::at(self.graph.applied().max(seq)));
            seq
        };
        self.durable(seq).await
    }
}

impl Batch<'_> {
    /// Notes what is omitted of the room's state, or that nothing is.
    pub(crate) fn note_partial(&mut self, join: EventNum, omitted: Option<Omitted>) -> Option<PartialRoom> {
        let record = omitted.map(|omitted| PartialRoom {
            join,
            servers: omitted
                .servers
                .iter()
                .take(limits::SERVERS_OF_A_PARTIAL_ROOM)
                .map(ToString::to_string)
                .collect(),
            told_by: omitted.told_by.to_string(),
            given_up: false,
        });
        match &record {
            Some(record) => self.commit.put::<PartialRooms>(&(self.room,), &Json(record.clone())),
            None => self.commit.delete::<PartialRooms>(&(self.room,)),
        }
        record
    }

    fn make_whole(&mut self, join: EventNum, told: &Gap) -> Result<(), Error> {
        let whole = self.state_before_join(join, told)?;
        let start = self.event(join)?.record.pos;
        let since: Vec<EventNum> = self
            .rooms
            .graph
            .scan::<Timeline, _>(&(self.room,))
            .from(&(self.room, start))
            .iter()
            .map(|entry| entry.map(|(_, num)| num))
            .collect::<Result<_, _>>()?;
        let mut states: HashMap<EventNum, Root> = HashMap::with_capacity(since.len());
        let mut rejected = Vec::new();
        for num in since {
            let before = if num == join { whole } else { self.whole_state_before(num, &states)? };
            let (after, is_rejected) = self.judge_again(num, before)?;
            states.insert(num, after);
            if is_rejected {
                rejected.push(self.event(num)?);
            }
        }
        self.unrelate_rejected(&rejected)?;
        let mut ends = Vec::with_capacity(self.head.extremities.len());
        for num in &self.head.extremities {
            if self.event(*num)?.record.is_visible() {
                ends.push(*num);
            }
        }
        if !ends.is_empty() {
            self.head.extremities = ends;
        }
        let mut roots = Vec::with_capacity(self.head.extremities.len());
        for num in &self.head.extremities {
            roots.push(self.event(*num)?.record.state_after);
        }
        let state = self.resolve(roots)?;
        let pos = Pos::at(self.commit.take_seq());
        self.move_state(state, pos, None)?;
        self.commit.delete::<PartialRooms>(&(self.room,));
        self.commit.put::<WholeSince>(&(self.room,), &pos);
        Ok(())
    }

    fn state_before_join(&mut self, join: EventNum, told: &Gap) -> Result<Root, Error> {
        let state = self.told_state(&told.state)?;
        let Some(event) = self.event_by_id(&told.prev)? else {
            return Err(Error::MissingEvents(vec![told.prev.clone()]));
        };
        if event.num == join {
            return Ok(state);
        }
        if event.record.room != self.room || !self.event(join)?.prev_events().eq([&told.prev]) {
            return Err(Error::BadJson(format!("the join does not follow on the event {}", told.prev)));
        }
        match event.record.state_key {
            // A server may tell the state after it, which then holds it already.
            Some(key) if !event.record.has(flags::REJECTED) => {
                Ok(self.rooms.graph.state_set(&mut self.commit, state, key, Some(event.num))?)
            }
            _ => Ok(state),
        }
    }

    /// The state before an event that has come since, by the states that were worked out again. What other servers told
    /// of the state after events that are not here stands.
    fn whole_state_before(&mut self, num: EventNum, states: &HashMap<EventNum, Root>) -> Result<Root, Error> {
        let event = self.event(num)?;
        let (prev, missing) = self.prev_links(&event)?;
        let mut roots: HashSet<Root> = HashSet::with_capacity(prev.len() + 1);
        for num in &prev {
            roots.insert(match states.get(num) {
                Some(root) => *root,
                None => self.event(*num)?.record.state_after,
            });
        }
        if roots.is_empty() || !missing.is_empty() {
            roots.insert(event.record.state_before);
        }
        self.resolve(roots)
    }

    /// Judges an event that is part of the room again, where the state before it is `before`. The state after it, and
    /// whether it is rejected from now on.
    fn judge_again(&mut self, num: EventNum, before: Root) -> Result<(Root, bool), Error> {
        let known = self.event(num)?;
        let mut event = (*known).clone();
        if event.record.is_visible()
            && let Err(why) = self.allowed_in(before, &event)?
        {
            tracing::info!(event = %event.id, why, "an event is rejected by the whole state of its room");
            event.record.flags |= flags::REJECTED;
        }
        self.set_states(&mut event, before)?;
        let after = event.record.state_after;
        let is_rejected = event.record.has(flags::REJECTED) && !known.record.has(flags::REJECTED);
        if event.record != known.record {
            self.rewrite(event);
        }
        Ok((after, is_rejected))
    }
}
