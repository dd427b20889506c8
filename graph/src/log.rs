//! The log: what each commit did, for those who act on it.

use crate::{
    codec::{Bytes, Damaged, Decode, Encode},
    ids::{EventNum, Pos, RoomNum, ServerNum, StateKeyNum, UserNum},
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEntry {
    /// An event entered a room's timeline.
    Event {
        /// The room.
        room: RoomNum,
        /// The event.
        event: EventNum,
        /// Where it stands.
        pos: Pos,
        /// Who sent it.
        sender: UserNum,
        /// Set for state events.
        state_key: Option<StateKeyNum>,
    },
    /// A user's membership of a room changed; an `Event` of the same commit says how, except for invites and knocks
    /// of rooms this server is not in.
    Membership {
        /// Whose.
        user: UserNum,
        /// Of which room.
        room: RoomNum,
    },
    /// A read receipt moved.
    Receipt {
        /// In this room.
        room: RoomNum,
        /// Whose.
        user: UserNum,
        /// Seen by its owner only.
        private: bool,
    },
    /// Account data changed (`RoomNum::NONE`: global).
    AccountData {
        /// Whose.
        user: UserNum,
        /// For this room.
        room: RoomNum,
    },
    /// A message for a device was stored.
    ToDevice {
        /// For this user.
        user: UserNum,
        /// And this device.
        device: String,
    },
    /// A user's devices, device keys or cross-signing keys changed.
    DeviceList {
        /// Whose.
        user: UserNum,
    },
    /// One-time or fallback keys of a device were used up or added.
    KeyCounts {
        /// Whose.
        user: UserNum,
        /// Which device's.
        device: String,
    },
    /// Presence changed.
    Presence {
        /// Whose.
        user: UserNum,
    },
    /// A profile changed.
    Profile {
        /// Whose.
        user: UserNum,
    },
    /// The state of a room at the server's end of things changed without a timeline event (state resolution).
    RoomState {
        /// The room.
        room: RoomNum,
    },
    /// Something was queued for another server.
    Outbox {
        /// Which.
        server: ServerNum,
    },
}

impl Encode for LogEntry {
    fn encode(&self, out: &mut Bytes) {
        match self {
            Self::Event { room, event, pos, sender, state_key } => {
                (0_u8, *room, *event, *pos).encode(out);
                (*sender, *state_key).encode(out);
            }
            Self::Membership { user, room } => (1_u8, *user, *room).encode(out),
            Self::Receipt { room, user, private } => (2_u8, *room, *user, *private).encode(out),
            Self::AccountData { user, room } => (3_u8, *user, *room).encode(out),
            Self::ToDevice { user, device } => {
                (4_u8, *user).encode(out);
                device.encode(out);
            }
            Self::DeviceList { user } => (5_u8, *user).encode(out),
            Self::KeyCounts { user, device } => {
                (6_u8, *user).encode(out);
                device.encode(out);
            }
            Self::Presence { user } => (7_u8, *user).encode(out),
            Self::Profile { user } => (8_u8, *user).encode(out),
            Self::RoomState { room } => (9_u8, *room).encode(out),
            Self::Outbox { server } => (10_u8, *server).encode(out),
        }
    }
}

impl Decode for LogEntry {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        Ok(match u8::decode(input)? {
            0 => {
                let (room, event, pos, sender, state_key) = Decode::decode(input)?;
                Self::Event { room, event, pos, sender, state_key }
            }
            1 => {
                let (user, room) = Decode::decode(input)?;
                Self::Membership { user, room }
            }
            2 => {
                let (room, user, private) = Decode::decode(input)?;
                Self::Receipt { room, user, private }
            }
            3 => {
                let (user, room) = Decode::decode(input)?;
                Self::AccountData { user, room }
            }
            4 => {
                let (user, device) = Decode::decode(input)?;
                Self::ToDevice { user, device }
            }
            5 => Self::DeviceList { user: Decode::decode(input)? },
            6 => {
                let (user, device) = Decode::decode(input)?;
                Self::KeyCounts { user, device }
            }
            7 => Self::Presence { user: Decode::decode(input)? },
            8 => Self::Profile { user: Decode::decode(input)? },
            9 => Self::RoomState { room: Decode::decode(input)? },
            10 => Self::Outbox { server: Decode::decode(input)? },
            other => return Err(Damaged(format!("{other} is no kind of log entry"))),
        })
    }
}

/// What one commit did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogRecord {
    /// In the order it was done.
    pub entries: Vec<LogEntry>,
}

impl Encode for LogRecord {
    fn encode(&self, out: &mut Bytes) {
        self.entries.encode(out);
    }
}
impl Decode for LogRecord {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        Ok(Self { entries: Decode::decode(input)? })
    }
}
