//! Waking those who wait for something to happen: a follower of the log, for as long as the server runs.

use dashmap::DashMap;
use postern_graph::{
    Graph, RoomNum, Seq, UserNum,
    log::{LogEntry, LogRecord},
};
use postern_rooms::Rooms;
use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Rooms whose members are kept in memory for waking.
const ROOMS: usize = 2_048;

/// Changes of presence are told together, this often: everyone who comes changes it, and everyone would wake for each.
const PRESENCE: Duration = Duration::from_secs(1);

/// Who waits. An entry exists only while somebody does.
#[derive(Debug, Default)]
pub struct Wake {
    waiting: DashMap<UserNum, Arc<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    woken: AtomicU64,
    waiters: AtomicUsize,
    notify: Notify,
}

impl Wake {
    /// From now on `user` hears of what happens.
    pub fn listen(&self, user: UserNum) -> Waiter<'_> {
        let slot = {
            let entry = self.waiting.entry(user).or_default();
            entry.waiters.fetch_add(1, Ordering::Relaxed);
            entry.clone()
        };
        let seen = slot.woken.load(Ordering::Acquire);
        Waiter { wake: self, user, slot, seen }
    }

    /// Something happened that concerns `user`.
    pub fn wake(&self, user: UserNum) {
        if let Some(slot) = self.waiting.get(&user) {
            slot.woken.fetch_add(1, Ordering::Release);
            slot.notify.notify_waiters();
        }
    }

    /// Something happened that concerns all of `users`.
    pub fn wake_all(&self, users: &HashSet<UserNum>) {
        if users.len() <= self.waiting.len() {
            for user in users {
                self.wake(*user);
            }
            return;
        }
        let waiting: Vec<UserNum> = self.waiting.iter().map(|entry| *entry.key()).collect();
        for user in waiting.into_iter().filter(|user| users.contains(user)) {
            self.wake(user);
        }
    }
}

/// One who waits.
#[derive(Debug)]
pub struct Waiter<'w> {
    wake: &'w Wake,
    user: UserNum,
    slot: Arc<Slot>,
    seen: u64,
}

impl Waiter<'_> {
    /// Returns once something has happened since the last time (or since listening began).
    pub async fn woken(&mut self) {
        loop {
            let mut notified = pin!(self.slot.notify.notified());
            notified.as_mut().enable();
            let now = self.slot.woken.load(Ordering::Acquire);
            if now != self.seen {
                self.seen = now;
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.wake.waiting.remove_if(&self.user, |_, slot| slot.waiters.fetch_sub(1, Ordering::Relaxed) == 1);
    }
}

/// Follows the log and wakes whom it concerns, until the server stops.
pub(crate) async fn follow(
    graph: Arc<Graph>,
    rooms: Arc<Rooms>,
    wake: Arc<Wake>,
    stopping: CancellationToken,
) {
    let mut follower = graph.follow_from(graph.durable());
    let mut members = Members { rooms, joined: HashMap::new(), presence: HashSet::new() };
    let mut presence = tokio::time::interval(PRESENCE);
    loop {
        let records = tokio::select! {
            () = stopping.cancelled() => return,
            _ = presence.tick() => {
                if let Err(error) = members.tell_presence(&wake) {
                    tracing::error!(%error, "somebody was not woken");
                }
                continue;
            }
            records = follower.next() => records,
        };
        let records: Vec<(Seq, Arc<LogRecord>)> = match records {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "the log cannot be followed; waiting clients are not woken any more");
                return;
            }
        };
        let Some(last) = records.last().map(|(seq, _)| *seq) else { continue };
        for entry in records.iter().flat_map(|(_, record)| &record.entries) {
            if let Err(error) = concerns(entry, &mut members, &wake) {
                tracing::error!(%error, "somebody was not woken");
            }
        }
        if let Err(error) = follower.done(last) {
            tracing::error!(%error, "the log cannot be followed");
        }
    }
}

fn concerns(entry: &LogEntry, members: &mut Members, wake: &Wake) -> Result<(), postern_rooms::Error> {
    match entry {
        LogEntry::Event { room, .. }
        | LogEntry::RoomState { room }
        | LogEntry::Receipt { room, private: false, .. } => wake.wake_all(members.of(*room)?),
        LogEntry::Membership { user, room } => {
            members.changed(*user, *room)?;
            wake.wake(*user);
        }
        LogEntry::Receipt { user, .. }
        | LogEntry::AccountData { user, .. }
        | LogEntry::ToDevice { user, .. }
        | LogEntry::KeyCounts { user, .. } => wake.wake(*user),
        LogEntry::DeviceList { user } => members.tell(*user, wake)?,
        LogEntry::Presence { user } => {
            members.presence.insert(*user);
        }
        LogEntry::Profile { .. } | LogEntry::Outbox { .. } => {}
    }
    Ok(())
}

/// The members of rooms in which something happens, kept up to date from the log.
struct Members {
    rooms: Arc<Rooms>,
    joined: HashMap<RoomNum, HashSet<UserNum>>,
    /// Whose presence changed since that was last told.
    presence: HashSet<UserNum>,
}

impl Members {
    fn of(&mut self, room: RoomNum) -> Result<&HashSet<UserNum>, postern_rooms::Error> {
        if self.joined.len() >= ROOMS && !self.joined.contains_key(&room) {
            self.joined.clear();
        }
        match self.joined.entry(room) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                Ok(entry.insert(self.rooms.joined_users(room)?.into_iter().collect()))
            }
        }
    }

    /// Wakes `user` and all who share a room with them.
    fn tell(&mut self, user: UserNum, wake: &Wake) -> Result<(), postern_rooms::Error> {
        wake.wake(user);
        for room in self.rooms.joined_rooms(user)? {
            wake.wake_all(self.of(room)?);
        }
        Ok(())
    }

    fn tell_presence(&mut self, wake: &Wake) -> Result<(), postern_rooms::Error> {
        for user in std::mem::take(&mut self.presence) {
            self.tell(user, wake)?;
        }
        Ok(())
    }

    fn changed(&mut self, user: UserNum, room: RoomNum) -> Result<(), postern_rooms::Error> {
        let Some(joined) = self.joined.get_mut(&room) else { return Ok(()) };
        if self.rooms.is_joined(room, user)? {
            joined.insert(user);
        } else {
            joined.remove(&user);
        }
        Ok(())
    }
}
