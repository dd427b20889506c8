//! Numbers that stand for names, and positions in the log.

use crate::codec::{Bytes, Damaged, Decode, Encode};
use serde::{Deserialize, Serialize};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl Encode for $name {
            fn encode(&self, out: &mut Bytes) { self.0.encode(out); }
        }
        impl Decode for $name {
            fn decode(input: &mut &[u8]) -> Result<Self, Damaged> { u64::decode(input).map(Self) }
        }
    )*};
}

numbers! {
    /// An event's number. Never 0.
    EventNum,
    /// A room's number. Never 0; `RoomNum::NONE` stands for "no room" in keys that have both.
    RoomNum,
    /// A user's number. Never 0.
    UserNum,
    /// The number of a (type, state key) pair. Never 0.
    StateKeyNum,
    /// The number of an event type. Never 0.
    TypeNum,
    /// A server's number. Never 0.
    ServerNum,
    /// A chain of the chain-cover index.
    ChainNum,
}

impl RoomNum {
    /// Stands where a key has a room or none (account data, push).
    pub const NONE: Self = Self(0);
}

impl EventNum {
    /// No event's number: of one that is not stored.
    pub const UNPLACED: Self = Self(0);
}

/// Numbers above this are placeholders for sequence numbers of a commit that is not yet applied.
const PENDING: u64 = u64::MAX - u16::MAX as u64;

/// A position in the log: every commit takes the next ones. The first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    pub(crate) const fn pending(slot: u16) -> Self {
        Self(PENDING + slot as u64)
    }

    pub(crate) fn pending_slot(self) -> Option<u16> {
        self.0.checked_sub(PENDING).and_then(|slot| u16::try_from(slot).ok())
    }

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where an event stands in its room's timeline: the [`Seq`] of its commit for what arrived live, below zero for what
/// was fetched from the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pos(pub i64);

impl Pos {
    /// Before every position.
    pub const MIN: Self = Self(i64::MIN);
    /// After every position.
    pub const MAX: Self = Self(i64::MAX);
    /// The newest position of a backfilled event; the next older ones count down from here.
    pub const BACKFILL: Self = Self(-(1 << 17));

    /// The live position at `seq`.
    #[must_use]
    pub fn at(seq: Seq) -> Self {
        // A pending sequence number does not fit; it becomes one of the numbers between BACKFILL and 0.
        Self(i64::try_from(seq.0).unwrap_or_else(|_| seq.0.cast_signed()))
    }

    /// The sequence number of a live position; zero for backfilled ones.
    #[must_use]
    pub fn seq(self) -> Seq {
        Seq(u64::try_from(self.0).unwrap_or(0))
    }

    fn pending_slot(self) -> Option<u16> {
        Seq(self.0.cast_unsigned()).pending_slot()
    }
}

/// Order is kept by flipping the sign bit; a pending position is stamped like a [`Seq`] (with the bit set).
impl Encode for Pos {
    fn encode(&self, out: &mut Bytes) {
        if let Some(slot) = self.pending_slot() {
            out.stamps.push((u32::try_from(out.data.len()).unwrap_or(u32::MAX), slot));
            // The high bit of the placeholder tells the stamp to keep it: see `Commit::stamp`.
            out.raw(&POS_PLACEHOLDER.to_be_bytes());
        } else {
            self.0.encode(out);
        }
    }
}
impl Decode for Pos {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        i64::decode(input).map(Self)
    }
}

/// What stands for a [`Pos`] until its commit is applied (a [`Seq`] placeholder is never this).
pub(crate) const POS_PLACEHOLDER: u64 = 1 << 63;

/// The name of a node of a persistent state map: the first 16 bytes of the SHA-256 of its bytes. The root's name is
/// the name of the map: equal maps have equal roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Root(pub [u8; 16]);

impl Root {
    /// The empty map.
    pub const EMPTY: Self = Self([0; 16]);
}

impl Encode for Root {
    fn encode(&self, out: &mut Bytes) {
        self.0.encode(out);
    }
}
impl Decode for Root {
    fn decode(input: &mut &[u8]) -> Result<Self, Damaged> {
        Decode::decode(input).map(Self)
    }
}
