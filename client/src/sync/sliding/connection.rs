//! What clients were told over sliding sync.

use super::lists::{Counted, RoomConfig};
use postern_graph::{RoomNum, Seq, UserNum};
use quick_cache::sync::Cache;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
};

/// Connections remembered; the client of one that is forgotten begins anew.
const CONNECTIONS: usize = 20_000;

/// Where a connection is: which answer, and how far that reached. Written `p<answer>_<log>_<typing>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) answer: u64,
    pub(crate) log: Seq,
    pub(crate) typing: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}_{}_{}", self.answer, self.log.0, self.typing)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_prefix('p').ok_or(())?.split('_').map(|part| part.parse::<u64>());
        let mut part = || parts.next().and_then(Result::ok).ok_or(());
        let position = Self { answer: part()?, log: Seq(part()?), typing: part()? };
        if parts.next().is_some() { Err(()) } else { Ok(position) }
    }
}

/// What a client was told of a room.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) up_to: Seq,
    pub(crate) config: RoomConfig,
}

/// What a client was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection {
    pub(crate) position: Position,
    pub(crate) rooms: HashMap<RoomNum, Told>,
    pub(crate) counts: BTreeMap<String, usize>,
    pub(crate) txn_id: Option<String>,
}

impl Connection {
    pub(crate) fn remember(&mut self, room: RoomNum, config: &RoomConfig, up_to: Seq) {
        match self.rooms.get_mut(&room) {
            Some(told) => {
                told.up_to = up_to;
                told.config = told.config.joined_with(config);
            }
            None => {
                self.rooms.insert(room, Told { up_to, config: config.clone() });
            }
        }
    }

    pub(crate) fn lists_changed(&self, now: &BTreeMap<String, Counted>) -> bool {
        now.iter().any(|(name, counted)| self.counts.get(name) != Some(&counted.count))
    }
}

/// User, device, and what the client calls it.
type Name = (UserNum, String, String);

/// The last two states of a connection.
#[derive(Debug, Clone)]
struct Last {
    now: Arc<Connection>,
    before: Option<Arc<Connection>>,
}

/// All connections.
#[derive(Debug)]
pub struct Connections {
    last: Cache<Name, Last>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { last: Cache::new(CONNECTIONS) }
    }
}

impl Connections {
    /// What a client had been told when it was at a position.
    pub(crate) fn at(&self, name: &Name, position: Position) -> Option<Arc<Connection>> {
        let last = self.last.get(name)?;
        [Some(&last.now), last.before.as_ref()]
            .into_iter()
            .flatten()
            .find(|connection| connection.position == position)
            .cloned()
    }

    /// A client that was at a position was told more.
    pub(crate) fn told(&self, name: Name, from: Option<Position>, connection: Connection) {
        let before = from.and_then(|position| self.at(&name, position));
        self.last.insert(name, Last { now: Arc::new(connection), before });
    }
}
