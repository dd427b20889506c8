//! Who is typing where. Kept in memory only: it is true for seconds.

use dashmap::DashMap;
use parking_lot::Mutex;
use postern_graph::{RoomNum, UserNum};
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// The longest somebody may be said to be typing without saying so again.
const LONGEST: Duration = Duration::from_secs(120);

/// Rooms remembered though nobody types there any more.
const ROOMS: usize = 10_000;

/// Who is typing, and when that last changed, room by room.
#[derive(Debug)]
pub struct Typing {
    rooms: DashMap<RoomNum, Room>,
    /// Counts changes; begins at the time of the start so that it never falls behind a token of an earlier run.
    clock: AtomicU64,
    /// Rooms in which something changed that nobody was told of yet.
    untold: Mutex<HashSet<RoomNum>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Room {
    changed: u64,
    until: HashMap<UserNum, Instant>,
}

impl Default for Typing {
    fn default() -> Self {
        Self {
            rooms: DashMap::new(),
            clock: AtomicU64::new(crate::now_ms()),
            untold: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl Typing {
    /// The time of the last change of all.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Acquire)
    }

    /// `user` types for so long, or (none) no more. Returns whether that changes what others see; if so, whoever waits
    /// in [`Typing::changed`] is told.
    pub fn set(&self, room: RoomNum, user: UserNum, duration: Option<Duration>) -> bool {
        let changed = {
            let mut entry = self.rooms.entry(room).or_default();
            let changed = match duration {
                Some(duration) => entry.until.insert(user, Instant::now() + duration.min(LONGEST)).is_none(),
                None => entry.until.remove(&user).is_some(),
            };
            if changed {
                entry.changed = self.clock.fetch_add(1, Ordering::AcqRel) + 1;
            }
            changed
        };
        if changed {
            self.untold.lock().insert(room);
            self.changed.notify_one();
        }
        changed
    }

    /// Waits until something has changed that was not told of, and returns the rooms. For one who waits at a time.
    pub async fn changed(&self) -> HashSet<RoomNum> {
        loop {
            let rooms = std::mem::take(&mut *self.untold.lock());
            if !rooms.is_empty() {
                return rooms;
            }
            self.changed.notified().await;
        }
    }

    /// Ends what has run out and returns who typed where until then.
    pub fn expire(&self) -> Vec<(RoomNum, UserNum)> {
        let now = Instant::now();
        let mut ended = Vec::new();
        if self.rooms.len() > ROOMS {
            self.rooms.retain(|_, room| !room.until.is_empty());
        }
        for mut entry in self.rooms.iter_mut() {
            let (room, before) = (*entry.key(), entry.until.len());
            entry.until.retain(|user, until| {
                let goes_on = *until > now;
                if !goes_on {
                    ended.push((room, *user));
                }
                goes_on
            });
            if entry.until.len() != before {
                entry.changed = self.clock.fetch_add(1, Ordering::AcqRel) + 1;
            }
        }
        if !ended.is_empty() {
            self.untold.lock().extend(ended.iter().map(|(room, _)| *room));
            self.changed.notify_one();
        }
        ended
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomNum = RoomNum(1);

    #[tokio::test]
    async fn who_waits_is_told_of_every_change_and_of_none_twice() {
        let typing = Typing::default();
        assert!(typing.set(ROOM, UserNum(1), Some(LONGEST)));
        assert!(!typing.set(ROOM, UserNum(1), Some(Duration::ZERO)), "still typing");
        assert!(typing.set(RoomNum(2), UserNum(1), Some(LONGEST)));
        assert_eq!(typing.changed().await, HashSet::from([ROOM, RoomNum(2)]));
        assert_eq!(typing.expire(), [(ROOM, UserNum(1))]);
        assert_eq!(typing.changed().await, HashSet::from([ROOM]));
        assert!(typing.typing(ROOM).is_empty());
        assert!(!typing.set(ROOM, UserNum(1), None));
        let waiting = tokio::time::timeout(Duration::from_millis(20), typing.changed());
        assert!(waiting.await.is_err());
    }
}
