//! The rooms of this server: reading them, and taking turns at writing to them.

use crate::{
    Error, Event,
    acl::Acl,
    batch::{Batch, Draft},
    gate::{Gate, SALT},
    keys::Keys,
    limits,
    partial::Partial,
    policy::PolicyServers,
    power::PowerLevels,
    say::Wish,
    typing::Typing,
    version::{Version, version},
};
use dashmap::DashMap;
use postern_graph::{
    EventNum, Graph, NameKind, Pos, RoomNum, Root, Seq, StateKeyNum, UserNum,
    codec::{Json, Raw},
    event::{Membership, MembershipKind, RoomHead, RoomRecord},
    intern::{split_state_key_name, state_key_name},
    schema::{
        CurrentState, EventJson, EventRecords, Forgotten, Heads, Members, Memberships, Published,
        Rooms as RoomRecords, StateAt, Transactions,
    },
};
use quick_cache::sync::Cache;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId, events::TimelineEventType,
};
use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Now, in milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// The rooms. Share behind an `Arc`.
pub struct Rooms {
    pub(crate) graph: Arc<Graph>,
    pub(crate) keys: Keys,
    default_version: String,
    events: Cache<EventNum, Arc<Event>>,
    lanes: DashMap<RoomNum, Arc<Mutex<()>>>,
    /// Joined and invited users of rooms, with the state they were counted in.
    counts: Cache<RoomNum, (Root, (usize, usize))>,
    /// Changes of aliases take turns, whichever room they are of.
    pub(crate) alias_turn: Mutex<()>,
    /// Moves of receipts take turns.
    pub(crate) receipt_turn: Mutex<()>,
    /// Access control lists, by their event and whether that is redacted.
    pub(crate) acls: Cache<(EventNum, bool), Arc<Acl>>,
    typing: Arc<Typing>,
    pub(crate) partial: Partial,
    pub(crate) policy_servers: OnceLock<Arc<dyn PolicyServers>>,
    pub(crate) gate: OnceLock<Arc<dyn Gate>>,
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rooms").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Rooms {
    /// The rooms in `graph`, of the server `server_name`; new rooms get `default_version` unless asked otherwise.
    ///
    /// # Errors
    /// [`Error::UnsupportedVersion`], or what loading the signing key says.
    pub fn new(graph: Arc<Graph>, server_name: &ServerName, default_version: &str) -> Result<Self, Error> {
        version(default_version)?;
        let keys = Keys::load(&graph, server_name)?;
        crate::servers::count_once(&graph)?;
        let partial = Partial::load(&graph)?;
        Ok(Self {
            partial,
            policy_servers: OnceLock::new(),
            gate: OnceLock::new(),
            graph,
            keys,
            default_version: default_version.to_owned(),
            events: Cache::new(limits::EVENTS_IN_MEMORY),
            lanes: DashMap::new(),
            counts: Cache::new(limits::ROOMS_IN_MEMORY),
            alias_turn: Mutex::new(()),
            receipt_turn: Mutex::new(()),
            acls: Cache::new(limits::ACLS_IN_MEMORY),
            typing: Arc::default(),
        })
    }

    /// This server's name.
    #[must_use]
    pub fn server_name(&self) -> &ServerName {
        self.keys.server_name()
    }

    /// The room version new rooms get.
    #[must_use]
    pub fn default_version(&self) -> &str {
        &self.default_version
    }

    /// The graph the rooms are in.
    #[must_use]
    pub const fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The server's signing key.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Who is typing.
    #[must_use]
    pub const fn typing(&self) -> &Arc<Typing> {
        &self.typing
    }

    // ---- names -----------------------------------------------------------------------------------------------

    /// The number of a room this server knows.
    pub fn room(&self, id: &RoomId) -> Result<Option<RoomNum>, Error> {
        Ok(self.graph.number(NameKind::Room, id.as_str())?.map(RoomNum))
    }

    /// The same, for a room that has to be there.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn known_room(&self, id: &RoomId) -> Result<RoomNum, Error> {
        self.room(id)?.ok_or_else(|| Error::not_found(format!("the room {id} is not known to this server")))
    }

    /// The id of a room.
    pub fn room_id(&self, room: RoomNum) -> Result<OwnedRoomId, Error> {
        let name = self.graph.name(NameKind::Room, room.0)?;
        RoomId::parse(&*name).map_err(|error| Error::BadJson(error.to_string()))
    }

    /// The number of a user this server has met.
    pub fn user(&self, id: &UserId) -> Result<Option<UserNum>, Error> {
        Ok(self.graph.number(NameKind::User, id.as_str())?.map(UserNum))
    }

    /// The id of a user.
    pub fn user_id(&self, user: UserNum) -> Result<OwnedUserId, Error> {
        let name = self.graph.name(NameKind::User, user.0)?;
        UserId::parse(&*name).map_err(|error| Error::BadJson(error.to_string()))
    }

    /// Whether `user` belongs to this server.
    #[must_use]
    pub fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name()
    }

    // ---- memberships -----------------------------------------------------------------------------------------

    /// A user's membership of a room.
    pub fn member(&self, room: RoomNum, user: UserNum) -> Result<Option<Membership>, Error> {
        Ok(self.graph.get::<Memberships>(&(user, room))?)
    }

    /// Whether a user is joined.
    pub fn is_joined(&self, room: RoomNum, user: UserNum) -> Result<bool, Error> {
        Ok(self.member(room, user)?.is_some_and(|membership| membership.kind == MembershipKind::Join))
    }

    /// The rooms a user has anything to do with, and how.
    pub fn rooms_of(&self, user: UserNum) -> Result<Vec<(RoomNum, Membership)>, Error> {
        self.graph
            .scan::<Memberships, _>(&(user,))
            .iter()
            .map(|entry| entry.map(|((_, room), membership)| (room, membership)).map_err(Error::from))
            .collect()
    }

    /// The rooms a user is joined to.
    pub fn joined_rooms(&self, user: UserNum) -> Result<Vec<RoomNum>, Error> {
        let mut rooms = self.rooms_of(user)?;
        rooms.retain(|(_, membership)| membership.kind == MembershipKind::Join);
        Ok(rooms.into_iter().map(|(room, _)| room).collect())
    }

    /// The users of a room with one kind of membership, and the events that say so.
    pub fn members_of(&self, room: RoomNum, kind: MembershipKind) -> Result<Vec<(UserNum, EventNum)>, Error> {
        self.graph
            .scan::<Members, _>(&(room, kind as u8))
            .iter()
            .map(|entry| entry.map(|((_, _, user), event)| (user, event)).map_err(Error::from))
            .collect()
    }

    /// Whether a user of this server is joined: only then this server hears what happens there.
    pub fn is_resident(&self, room: RoomNum) -> Result<bool, Error> {
        self.is_in(self.server_name(), room)
    }

    /// The users joined to a room.
    pub fn joined_users(&self, room: RoomNum) -> Result<Vec<UserNum>, Error> {
        Ok(self.members_of(room, MembershipKind::Join)?.into_iter().map(|(user, _)| user).collect())
    }

    /// Up to where a user has forgotten a room, if at all.
    pub fn forgotten(&self, room: RoomNum, user: UserNum) -> Result<Option<Pos>, Error> {
        Ok(self.graph.get::<Forgotten>(&(user, room))?)
    }

    // ---- events and state ------------------------------------------------------------------------------------

    /// A stored event.
    ///
    /// # Errors
    /// [`Error::Graph`] if it is not there: numbers of events come from the graph.
    pub fn event(&self, num: EventNum) -> Result<Arc<Event>, Error> {
        self.events.get_or_insert_with(&num, || self.load_event(num))
    }

    /// Stored events, in the order of their numbers given.
    pub fn events(&self, nums: &[EventNum]) -> Result<Vec<Arc<Event>>, Error> {
        nums.iter().map(|num| self.event(*num)).collect()
    }

    fn load_event(&self, num: EventNum) -> Result<Arc<Event>, Error> {
        let missing = |what: &str| postern_graph::Error::Missing(format!("the {what} of event {}", num.0));
        let record = self.graph.get::<EventRecords>(&(num,))?.ok_or_else(|| missing("record"))?;
        let Raw(json) = self.graph.get::<EventJson>(&(num,))?.ok_or_else(|| missing("JSON"))?;
        let json = String::from_utf8(json).map_err(|error| Error::BadJson(error.to_string()))?;
        let id = self.graph.name(NameKind::Event, num.0)?;
        let id = EventId::parse(&*id).map_err(|error| Error::BadJson(error.to_string()))?;
        let room_id = self.room_id(record.room)?;
        Ok(Arc::new(Event::from_parts(num, id, room_id, record, json.into_boxed_str())?))
    }

    /// The event changed in the store (it was redacted).
    pub(crate) fn forget_cached(&self, num: EventNum) {
        // Replacing wins over a concurrent load of the old form; removing might lose to it.
        match self.load_event(num) {
            Ok(event) => self.events.insert(num, event),
            Err(_) => {
                self.events.remove(&num);
            }
        }
    }

    /// A stored event by its id.
    pub fn event_by_id(&self, id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        match self.graph.number(NameKind::Event, id.as_str())? {
            Some(num) if self.graph.has::<EventRecords>(&(EventNum(num),))? => {
                self.event(EventNum(num)).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The current state event at (type, state key).
    pub fn state(
        &self,
        room: RoomNum,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, Error> {
        let key = (room, event_type.to_owned(), state_key.to_owned());
        self.graph.get::<CurrentState>(&key)?.map(|num| self.event(num)).transpose()
    }

    /// All current state.
    pub fn current_state(&self, room: RoomNum) -> Result<Vec<Arc<Event>>, Error> {
        self.graph.scan::<CurrentState, _>(&(room,)).iter().map(|entry| self.event(entry?.1)).collect()
    }

    /// The current state of one type.
    pub fn current_state_of_type(&self, room: RoomNum, event_type: &str) -> Result<Vec<Arc<Event>>, Error> {
        let prefix = (room, event_type.to_owned());
        self.graph.scan::<CurrentState, _>(&prefix).iter().map(|entry| self.event(entry?.1)).collect()
    }

    /// The state event at (type, state key) in a state map.
    pub fn state_in(
        &self,
        root: Root,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, Error> {
        let Some(key) = self.graph.number(NameKind::StateKey, &state_key_name(event_type, state_key))? else {
            return Ok(None);
        };
        self.graph.state_get(root, StateKeyNum(key))?.map(|num| self.event(num)).transpose()
    }

    /// Every event of a state map, in the order they became known.
    pub fn all_state_in(&self, root: Root) -> Result<Vec<Arc<Event>>, Error> {
        let mut nums: Vec<EventNum> =
            self.graph.state_entries(root)?.into_iter().map(|(_, num)| num).collect();
        nums.sort_unstable();
        self.events(&nums)
    }

    /// A user's membership as of a position: what it was there, and the event that made it so.
    pub fn member_at(
        &self,
        room: RoomNum,
        user: &UserId,
        now: &Membership,
        pos: Pos,
    ) -> Result<Option<(MembershipKind, EventNum, Pos)>, Error> {
        if now.since <= pos {
            return Ok(Some((now.kind, now.event, now.since)));
        }
        let event = self.state_in(self.state_root_at(room, pos)?, "m.room.member", user.as_str())?;
        Ok(event
            .and_then(|event| Some((crate::membership::membership_of(&event)?, event.num, event.record.pos))))
    }

    /// Who joined and who left a room between two positions.
    pub fn membership_changes(
        &self,
        room: RoomNum,
        start: Pos,
        end: Pos,
    ) -> Result<(Vec<UserNum>, Vec<UserNum>), Error> {
        let (before, after) = (self.state_root_at(room, start)?, self.state_root_at(room, end)?);
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for change in self.graph.state_diff(before, after)? {
            let name = self.graph.name(NameKind::StateKey, change.key.0)?;
            let Some(("m.room.member", user)) = split_state_key_name(&name) else { continue };
            let Some(number) = self.graph.number(NameKind::User, user)? else { continue };
            let is_joined = |num: Option<EventNum>| -> Result<bool, Error> {
                let Some(num) = num else { return Ok(false) };
                Ok(crate::membership::membership_of(&*self.event(num)?) == Some(MembershipKind::Join))
            };
            match (is_joined(change.before)?, is_joined(change.after)?) {
                (false, true) => came.push(UserNum(number)),
                (true, false) => went.push(UserNum(number)),
                _ => {}
            }
        }
        Ok((came, went))
    }

    /// How many users of a room are joined and how many invited.
    pub fn member_counts(&self, room: RoomNum) -> Result<(usize, usize), Error> {
        let root = self.head(room)?.unwrap_or_default().state;
        if let Some((of, counts)) = self.counts.get(&room)
            && of == root
        {
            return Ok(counts);
        }
        let count = |kind: MembershipKind| -> Result<usize, Error> {
            Ok(self.graph.scan::<Members, _>(&(room, kind as u8)).iter().count())
        };
        let counts = (count(MembershipKind::Join)?, count(MembershipKind::Invite)?);
        self.counts.insert(room, (root, counts));
        Ok(counts)
    }

    /// Those `user` may find: who shares a room with them, or is in a public one.
    pub fn visible_users(&self, user: UserNum) -> Result<HashSet<UserNum>, Error> {
        let mut visible = HashSet::from([user]);
        let mut rooms = self.joined_rooms(user)?;
        for entry in self.graph.scan::<Published, _>(&()).iter().take(limits::PUBLIC_ROOMS) {
            rooms.push(entry?.0.0);
        }
        for room in rooms {
            visible.extend(self.joined_users(room)?);
            if visible.len() > limits::VISIBLE_USERS {
                break;
            }
        }
        Ok(visible)
    }

    /// The state of the room as of a position in its timeline (after the event there).
    pub fn state_root_at(&self, room: RoomNum, pos: Pos) -> Result<Root, Error> {
        let found = self.graph.scan::<StateAt, _>(&(room,)).up_to(&(room, pos)).reverse().first()?;
        Ok(found.map_or(Root::EMPTY, |(_, root)| root))
    }

    /// What is fixed about a room.
    pub fn record(&self, room: RoomNum) -> Result<Option<RoomRecord>, Error> {
        Ok(self.graph.get::<RoomRecords>(&(room,))?.map(|Json(record)| record))
    }

    /// The version of a room.
    pub fn version_of(&self, room: RoomNum) -> Result<Arc<Version>, Error> {
        let record =
            self.record(room)?.ok_or_else(|| Error::not_found("the room is not known to this server"))?;
        version(&record.version)
    }

    /// Where a room is now.
    pub fn head(&self, room: RoomNum) -> Result<Option<RoomHead>, Error> {
        Ok(self.graph.get::<Heads>(&(room,))?)
    }

    /// The power levels of a room.
    pub fn power_levels(&self, room: RoomNum) -> Result<PowerLevels, Error> {
        PowerLevels::of(
            &self.version_of(room)?,
            self.state(room, "m.room.create", "")?,
            self.state(room, "m.room.power_levels", "")?,
        )
    }

    // ---- writing ---------------------------------------------------------------------------------------------

    /// Waits for the room's lane. Writers of one room take turns; rooms do not wait for each other.
    pub(crate) async fn lane(&self, room: RoomNum) -> OwnedMutexGuard<()> {
        if self.lanes.len() > limits::LANES_IN_MEMORY {
            self.lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        let lane = self.lanes.entry(room).or_default().clone();
        lane.lock_owned().await
    }

    /// Waits until nobody is changing a room: what the log has of it by then is read as it is.
    pub async fn at_rest(&self, room: RoomNum) {
        drop(self.lane(room).await);
    }

    /// A batch on top of the room as it is. The caller holds the lane.
    pub(crate) fn batch(&self, room: RoomNum) -> Result<Batch<'_>, Error> {
        let head =
            self.head(room)?.ok_or_else(|| Error::not_found("the room is not known to this server"))?;
        Ok(Batch::new(self, self.graph.begin(), room, self.room_id(room)?, self.version_of(room)?, head))
    }

    /// Waits until `seq` is durable: only then may anything be acknowledged.
    pub(crate) async fn durable(&self, seq: Seq) -> Result<(), Error> {
        Ok(self.graph.durable_at(seq).await?)
    }

    /// Sends an event as a local user. The answer to a repeated transaction is the first one's.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the room's rules say no; [`Error::BadJson`], [`Error::TooLarge`] for what may not be
    /// an event.
    pub async fn send(&self, sender: &UserId, room: &RoomId, draft: Draft) -> Result<OwnedEventId, Error> {
        let room = self.known_room(room)?;
        self.check_entry_by(room, &draft)?;
        let wish = |batch: &mut Batch<'_>| {
            if let Some(event) = self.repeated(sender, &draft)? {
                return Ok(Wish::Nothing(Some(event)));
            }
            if let Some(event) = self.unchanged_state(room, sender, &draft)? {
                return Ok(Wish::Nothing(Some(event)));
            }
            self.check_intent(room, sender, &draft)?;
            if draft.event_type == "m.room.redaction"
                && let Some(target) = &draft.redacts
            {
                self.check_redaction(batch, sender, target)?;
            }
            Ok(Wish::Say(draft.clone()))
        };
        let event = self.say(room, sender, wish).await?;
        event.ok_or_else(|| Error::BadState("there is nothing to say".to_owned()))
    }

    /// The event a transaction already made.
    pub(crate) fn repeated(&self, sender: &UserId, draft: &Draft) -> Result<Option<OwnedEventId>, Error> {
        let Some(txn) = &draft.txn else { return Ok(None) };
        let Some(user) = self.user(sender)? else { return Ok(None) };
        let stored = self.graph.get::<Transactions>(&(user, txn.device.clone(), txn.key()))?;
        Ok(stored.and_then(|(_, Raw(id))| EventId::parse(std::str::from_utf8(&id).ok()?).ok()))
    }

    /// Setting state to what it is already changes nothing, and is answered with the event that set it.
    fn unchanged_state(
        &self,
        room: RoomNum,
        sender: &UserId,
        draft: &Draft,
    ) -> Result<Option<OwnedEventId>, Error> {
        let Some(state_key) = &draft.state_key else { return Ok(None) };
        let Some(current) = self.state(room, &draft.event_type, state_key)? else { return Ok(None) };
        let joined = match self.user(sender)? {
            Some(user) => self.is_joined(room, user)?,
            None => false,
        };
        let said = |content: &str| {
            let mut content = serde_json::from_str::<ruma::CanonicalJsonObject>(content).ok()?;
            // Which is another one each time.
            content.remove(SALT);
            Some(content)
        };
        let same = |a: &str, b: &str| said(a) == said(b);
        Ok((joined && current.sender() == sender && same(current.content().get(), draft.content.get()))
            .then(|| current.id.clone()))
    }

    fn check_redaction(&self, batch: &Batch<'_>, sender: &UserId, target: &EventId) -> Result<(), Error> {
        let found = self.event_by_id(target)?;
        if found.is_none() && self.servers_in(batch.room)?.iter().any(|server| server != self.server_name()) {
            // It may be elsewhere: the redaction takes effect wherever the event is, and here if it comes.
            return Ok(());
        }
        let target = found
            .filter(|target| target.room_id == *batch.room_id())
            .ok_or_else(|| Error::not_found("the event to redact is not in this room"))?;
        // A room would be left without its version, or with a list that lets no server in.
        if matches!(target.kind(), TimelineEventType::RoomCreate | TimelineEventType::RoomServerAcl) {
            return Err(Error::forbidden("the create event and server ACLs of a room cannot be redacted"));
        }
        if batch.may_redact(sender, &target)? {
            return Ok(());
        }
        Err(Error::forbidden("you may not redact the events of others in this room"))
    }
}
