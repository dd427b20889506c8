//! The fixed records of events and rooms.

use crate::{
    codec::{Bytes, Damaged, Decode, Encode},
    ids::{EventNum, Pos, RoomNum, Root, StateKeyNum, TypeNum, UserNum},
};
use serde::{Deserialize, Serialize};

/// Facts about an event that are needed without reading its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRecord {
    /// The room it belongs to.
    pub room: RoomNum,
    /// Where it stands in the timeline; meaningless for outliers.
    pub pos: Pos,
    /// Its depth in the graph.
    pub depth: u64,
    /// `origin_server_ts`, milliseconds since the epoch.
    pub origin_ts: u64,
    /// Who sent it.
    pub sender: UserNum,
    /// Its type.
    pub kind: TypeNum,
    /// Its (type, state key), if it is a state event.
    pub state_key: Option<StateKeyNum>,
    /// See [`flags`].
    pub flags: u8,
    /// The redaction that took its content.
    pub redacted_by: Option<EventNum>,
    /// The room state before it.
    pub state_before: Root,
    /// The room state after it (equal to `state_before` unless it is an accepted state event).
    pub state_after: Root,
}

/// Bits of [`EventRecord::flags`].
pub mod flags {
    /// Known, but not part of the timeline (fetched as an auth event, or from an invite).
    pub const OUTLIER: u8 = 1;
    /// Failed authorization against its auth events or the state before it: never shown, never state.
    pub const REJECTED: u8 = 2;
    /// Failed authorization against the current state only: part of the graph, not shown.
    pub const SOFT_FAILED: u8 = 4;
    /// Told without its content, as its redacted copy, and no redaction says why: the content may come yet.
    pub const COPY: u8 = 8;
    /// Taken while events before it were missing: the timeline has a gap there.
    pub const AFTER_GAP: u8 = 16;
}

impl EventRecord {
    /// Of an event of which nothing is known but its room and its place.
    #[must_use]
    pub const fn blank(room: RoomNum, pos: Pos) -> Self {
        Self {
            room,
            pos,
            depth: 0,
            origin_ts: 0,
            sender: UserNum(0),
            kind: TypeNum(0),
            state_key: None,
            flags: 0,
            redacted_by: None,
            state_before: Root::EMPTY,
            state_after: Root::EMPTY,
        }
    }

    /// Whether clients may be shown it at all.
    #[must_use]
    pub const fn is_visible(&self) -> bool {
        self.flags & (flags::OUTLIER | flags::REJECTED | flags::SOFT_FAILED) == 0
    }

    /// Whether all of `bits` are set.
    #[must_use]
    pub const fn has(&self, bits: u8) -> bool {
        self.flags & bits == bits
    }
}

impl Encode for EventRecord {
    fn encode(&self, out: &mut Bytes) {
        (self.room, self.pos, self.depth, self.origin_ts, self.sender).encode(out);
        (self.kind, self.state_key.map_or(0, |k| k.0), self.flags, self.redacted_by.map_or(0, |e| e.0))
            .encode(out);
        self.state_before.encode(out);
        // Most events change no state: one byte instead of a second root.
        (self.state_after != self.state_before).encode(out);
        if self.state_after != self.state_before {
            self.state_after.encode(out);
        }
    }
}

impl Decode for EventRecord {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        let (room, pos, depth, origin_ts, sender) = Decode::decode(input)?;
        let (kind, state_key, flags, redacted_by): (_, u64, u8, u64) = Decode::decode(input)?;
        let state_before = Root::decode(input)?;
        let state_after = if bool::decode(input)? { Root::decode(input)? } else { state_before };
        Ok(Self {
            room,
            pos,
            depth,
            origin_ts,
            sender,
            kind,
            state_key: (state_key != 0).then_some(StateKeyNum(state_key)),
            flags,
            redacted_by: (redacted_by != 0).then_some(EventNum(redacted_by)),
            state_before,
            state_after,
        })
    }
}

/// The edges of an event in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventLinks {
    /// `prev_events`.
    pub prev: Vec<EventNum>,
    /// `auth_events` (in room versions where the create event is implied, without it, as in the event).
    pub auth: Vec<EventNum>,
}

impl Encode for EventLinks {
    fn encode(&self, out: &mut Bytes) {
        self.prev.encode(out);
        self.auth.encode(out);
    }
}
impl Decode for EventLinks {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        Ok(Self { prev: Decode::decode(input)?, auth: Decode::decode(input)? })
    }
}

/// What is fixed at a room's creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRecord {
    /// The room version.
    pub version: String,
    /// The `m.room.create` event, if the room is known with its state (an invite alone does not bring it).
    pub create: Option<EventNum>,
    /// `type` of the create event (`m.space`).
    pub room_type: Option<String>,
    /// Whether other servers may take part (`m.federate`).
    pub federate: bool,
}

/// A room that was joined before all of its state was told (specification: `omit_members` of `send_join`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialRoom {
    /// The event by which this server came in: the state before it is not whole here.
    pub join: EventNum,
    /// The servers that were in the room then.
    pub servers: Vec<String>,
    /// The server by which it came in.
    pub told_by: String,
    /// It left before the rest of the state was told, which is not asked for any more.
    #[serde(default)]
    pub given_up: bool,
}

/// Where a room is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomHead {
    /// The current (resolved) state.
    pub state: Root,
    /// The forward extremities.
    pub extremities: Vec<EventNum>,
    /// The greatest depth so far.
    pub depth: u64,
    /// Where the latest timeline event stands.
    pub latest: Option<Pos>,
}

impl Encode for RoomHead {
    fn encode(&self, out: &mut Bytes) {
        (self.state, self.depth, self.latest).encode(out);
        self.extremities.encode(out);
    }
}
impl Decode for RoomHead {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        let (state, depth, latest) = Decode::decode(input)?;
        Ok(Self { state, depth, latest, extremities: Decode::decode(input)? })
    }
}

/// The kinds of membership, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MembershipKind {
    /// `join`
    Join = 0,
    /// `invite`
    Invite = 1,
    /// `knock`
    Knock = 2,
    /// `leave`
    Leave = 3,
    /// `ban`
    Ban = 4,
}

impl MembershipKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Join, Self::Invite, Self::Knock, Self::Leave, Self::Ban];

    /// The specification's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }

    /// From the specification's word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl Encode for MembershipKind {
    fn encode(&self, out: &mut Bytes) {
        (*self as u8).encode(out);
    }
}
impl Decode for MembershipKind {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        let number = u8::decode(input)?;
        Self::ALL
            .into_iter()
            .find(|kind| *kind as u8 == number)
            .ok_or_else(|| Damaged(format!("{number} is no kind of membership")))
    }
}

/// A user's membership of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Which.
    pub kind: MembershipKind,
    /// The event that made it so.
    pub event: EventNum,
    /// Since when (the event's position, live).
    pub since: Pos,
    /// Who sent that event.
    pub sender: UserNum,
}

impl Encode for Membership {
    fn encode(&self, out: &mut Bytes) {
        (self.kind, self.event, self.since, self.sender).encode(out);
    }
}
impl Decode for Membership {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        let (kind, event, since, sender) = Decode::decode(input)?;
        Ok(Self { kind, event, since, sender })
    }
}

/// A read receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The event read up to.
    pub event_id: String,
    /// Its position, so that counting unread events is a range scan.
    pub pos: Pos,
    /// When, milliseconds since the epoch.
    pub ts: u64,
}
