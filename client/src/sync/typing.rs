//! Who is typing where. Kept in memory only: it is true for seconds.

use dashmap::DashMap;
use postern_graph::{RoomNum, UserNum};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The longest somebody may be said to be typing without saying so again.
pub(crate) const LONGEST: Duration = Duration::from_secs(120);

/// Rooms remembered though nobody types there any more.
const ROOMS: usize = 10_000;

/// Who is typing, and when that last changed, room by room.
#[derive(Debug)]
pub struct Typing {
    rooms: DashMap<RoomNum, Room>,
    /// Counts changes; begins at the time of the start so that it never falls behind a token of an earlier run.
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Room {
    changed: u64,
    until: HashMap<UserNum, Instant>,
}

impl Default for Typing {
    fn default() -> Self {
        Self { rooms: DashMap::new(), clock: AtomicU64::new(postern_rooms::now_ms()) }
    }
}

impl Typing {
    /// The time of the last change of all.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Acquire)
    }

    /// `user` types for so long, or (none) no more. Returns whether that changes what others see.
    pub fn set(&self, room: RoomNum, user: UserNum, duration: Option<Duration>) -> bool {
        let mut entry = self.rooms.entry(room).or_default();
        let changed = match duration {
            Some(duration) => entry.until.insert(user, Instant::now() + duration.min(LONGEST)).is_none(),
            None => entry.until.remove(&user).is_some(),
        };
        if changed {
            entry.changed = self.clock.fetch_add(1, Ordering::AcqRel) + 1;
        }
        changed
    }

    /// Ends what has run out and returns the rooms in which that changed something.
    pub fn expire(&self) -> Vec<RoomNum> {
        let now = Instant::now();
        let mut changed = Vec::new();
        if self.rooms.len() > ROOMS {
            self.rooms.retain(|_, room| !room.until.is_empty());
        }
        for mut entry in self.rooms.iter_mut() {
            let before = entry.until.len();
            entry.until.retain(|_, until| *until > now);
            if entry.until.len() != before {
                entry.changed = self.clock.fetch_add(1, Ordering::AcqRel) + 1;
                changed.push(*entry.key());
            }
        }
        changed
    }

    /// Who types in a room, if that changed after `since`.
    #[must_use]
    pub fn changed_since(&self, room: RoomNum, since: u64) -> Option<Vec<UserNum>> {
        let entry = self.rooms.get(&room)?;
        (entry.changed > since).then(|| entry.until.keys().copied().collect())
    }

    /// Who types in a room.
    #[must_use]
    pub fn typing(&self, room: RoomNum) -> Vec<UserNum> {
        self.rooms.get(&room).map_or_else(Vec::new, |entry| entry.until.keys().copied().collect())
    }
}
