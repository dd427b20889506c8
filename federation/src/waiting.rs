//! Events that other servers sent, from when they are stored as waiting until they are in their rooms.
//!
//! One task a room takes them in their order. One whose predecessors are missing and cannot be fetched now, because their
//! server is out of reach, is passed over and stays: it was acknowledged, so nobody sends it again. Those are tried again after a
//! pause, longer each time, and as soon as their server is heard from.

use crate::{Error, Federation, places::Places};
use dashmap::{DashMap, DashSet, Entry};
use postern_graph::{RoomNum, Seq};
use postern_rooms::{Waiting, now_ms};
use quick_cache::sync::Cache;
use ruma::OwnedServerName;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Events of a room that are read at once.
const AT_ONCE: usize = 50;
/// Rooms of which it is remembered up to where nothing waits.
const REMEMBERED: usize = 10_000;
/// Rooms in which an event is taken at the same time.
const ROOMS_AT_ONCE: usize = 64;
/// How many of these may be busy with events of one server. What is missing before an event is asked of the server that
/// sent it, and one that does not answer must not hold up what others sent.
const ROOMS_AT_ONCE_OF_ONE: usize = 8;
/// How long it is waited at least and at most before the many ends of a room are joined.
const ENDS_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// How long an event may wait for its predecessors, milliseconds: longer than networks are usually in pieces. Without it,
/// what follows later brings it, or it is history.
const PATIENCE_MS: u64 = 24 * 3_600_000;
/// Events of a room that are counted at a start.
const COUNTED: usize = 10_000;
/// Events of one server that may wait in one room: it must not take the places of the others.
const OF_ONE_SERVER: usize = 1_000;

/// The rooms that are being worked on.
#[derive(Debug)]
pub(crate) struct Rooms {
    working: DashMap<RoomNum, Arc<Work>>,
    /// Up to where nothing waits any more in a room. It spares walking over what has been deleted there.
    passed: Cache<RoomNum, Seq>,
    places: Places,
    /// Rooms whose ends are about to be joined.
    joining: DashSet<RoomNum>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            working: DashMap::new(),
            passed: Cache::new(REMEMBERED),
            places: Places::new(ROOMS_AT_ONCE, ROOMS_AT_ONCE_OF_ONE),
            joining: DashSet::new(),
        }
    }
}

impl Rooms {
    /// About how many events wait in a room.
    pub(crate) fn count(&self, room: RoomNum) -> usize {
        self.working.get(&room).map_or(0, |work| work.waiting.load(Ordering::Relaxed))
    }
}

/// A room that is being worked on.
#[derive(Debug, Default)]
struct Work {
    /// More has come.
    more: Notify,
    /// About how many wait.
    waiting: AtomicUsize,
}

impl Work {
    fn done(&self, count: usize) {
        // Never fails: the function always gives a number.
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(count)));
    }
}

/// How far the events of a room are.
#[derive(Default)]
struct Progress {
    /// The last that was looked at.
    after: Option<Seq>,
    /// How many of each server were passed over before it.
    passed_over: BTreeMap<OwnedServerName, usize>,
    /// Whether a server some of whose events were passed over was heard from since.
    hopeful: bool,
}

impl Federation {
    /// Takes the events that wait in a room, to which so many have come.
    pub(crate) fn work_on(&self, room: RoomNum, come: usize) {
        let work = match self.0.waiting.working.entry(room) {
            Entry::Occupied(working) => {
                working.get().waiting.fetch_add(come, Ordering::Relaxed);
                return working.get().more.notify_one();
            }
            Entry::Vacant(free) => free.insert(Arc::default()).clone(),
        };
        work.waiting.store(come, Ordering::Relaxed);
        let federation = self.clone();
        tokio::spawn(async move {
            let waiting = &federation.0.waiting;
            let last = tokio::select! {
                () = federation.0.stopping.cancelled() => return,
                last = federation.take_all(room, &work, waiting.passed.get(&room)) => last,
            };
            if let Some(last) = last {
                waiting.passed.insert(room, last);
            }
            federation.join_ends(room);
            waiting.working.remove(&room);
            // One may have come between the last look and now. A failed look is repeated by the task.
            if federation.0.rooms.staged(room, last, 1).is_ok_and(|left| left.is_empty()) {
                return;
            }
            federation.work_on(room, 1);
        });
    }

    /// Joins the ends of a room, if what came has left many. Other servers of the room see them too: the pause is of random
    /// length, so that one does it for all.
    fn join_ends(&self, room: RoomNum) {
        if !matches!(self.0.rooms.has_many_ends(room), Ok(true)) || !self.0.waiting.joining.insert(room) {
            return;
        }
        let federation = self.clone();
        tokio::spawn(async move {
            let pause = rand::random_range(ENDS_PAUSE.0..ENDS_PAUSE.1);
            tokio::select! {
                () = federation.0.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            federation.0.waiting.joining.remove(&room);
            if let Err(error) = federation.0.rooms.join_many_ends(room).await {
                tracing::error!(%error, room = room.0, "the ends of a room cannot be joined");
            }
        });
    }

    /// Goes on with what waited when the server stopped.
    pub(crate) fn resume_waiting(&self) -> Result<(), Error> {
        for room in self.0.rooms.rooms_with_staged()? {
            self.work_on(room, self.0.rooms.staged_count(room, COUNTED));
        }
        Ok(())
    }

    /// Takes the events of a room behind `from` until none is left. The last one that was there.
    async fn take_all(&self, room: RoomNum, work: &Work, from: Option<Seq>) -> Option<Seq> {
        let settings = &self.0.config.federation;
        let shortest = Duration::from_millis(settings.backoff_min_ms);
        let longest = Duration::from_millis(settings.backoff_max_ms).max(shortest);
        let mut pause = shortest;
        let mut progress = Progress { after: from, ..Progress::default() };
        let mut begun = Instant::now();
        let mut before = usize::MAX;
        loop {
            let failed = match self.take_on(room, work, &mut progress).await {
                Ok(()) => false,
                Err(error) => {
                    tracing::error!(%error, room = room.0, "events that wait cannot be taken");
                    true
                }
            };
            let left: usize = progress.passed_over.values().sum();
            if left == 0 && !failed {
                return progress.after;
            }
            if left < before {
                pause = shortest;
            }
            let again = begun + if progress.hopeful { shortest } else { pause };
            tokio::select! {
                () = tokio::time::sleep_until(again) => {
                    before = left;
                    pause = (pause * 2).min(longest);
                    progress = Progress { after: from, ..Progress::default() };
                    begun = Instant::now();
                }
                // Those that came lie behind.
                () = work.more.notified() => {}
            }
        }
    }

    /// Takes the events of a room from where `progress` is.
    async fn take_on(&self, room: RoomNum, work: &Work, progress: &mut Progress) -> Result<(), Error> {
        let rooms = &self.0.rooms;
        loop {
            let waiting = rooms.staged(room, progress.after, AT_ONCE)?;
            if waiting.is_empty() {
                return Ok(());
            }
            let taken = self.0.waiting.places.any(rooms.receive_waiting(room, &waiting)).await;
            let taken = match taken.map_err(Error::from) {
                Err(error) if error.is_transient() => return Err(error),
                taken => taken.unwrap_or(0),
            };
            work.done(taken);
            for event in waiting.iter().take(taken) {
                progress.after = Some(event.seq);
                progress.hopeful |= progress.passed_over.contains_key(&event.origin);
            }
            // Taking them together ended here; those behind are read again.
            if let Some(event) = waiting.into_iter().nth(taken) {
                progress.after = Some(event.seq);
                let (seq, origin) = (event.seq, event.origin.clone());
                let passed_over = progress.passed_over.get(&origin).copied().unwrap_or_default();
                if self.take_one(room, event, passed_over < OF_ONE_SERVER).await? {
                    rooms.unstage(room, seq)?;
                    work.done(1);
                    progress.hopeful |= passed_over > 0;
                } else {
                    *progress.passed_over.entry(origin).or_default() += 1;
                }
            }
        }
    }

    /// Takes an event, or drops it. Not if it should wait, which it may only where `may_wait`.
    async fn take_one(&self, room: RoomNum, event: Waiting, may_wait: bool) -> Result<bool, Error> {
        let room = self.0.rooms.room_id(room)?;
        let place = self.place(&room, &event.origin)?;
        let id = event.pdu.id().to_owned();
        let taken = self.0.waiting.places.in_turn(event.origin.as_str(), self.take(&place, event.pdu)).await;
        let Err(error) = taken else { return Ok(true) };
        let waits = may_wait && error.is_transient() && now_ms().saturating_sub(event.since) < PATIENCE_MS;
        if waits {
            tracing::debug!(%error, event = %id, "what is before an event cannot be fetched yet");
        } else {
            tracing::info!(%error, event = %id, origin = %event.origin, "an event is dropped");
        }
        Ok(!waits)
    }
}
