//! What a user has not read: what was stored of it, and what has not been followed yet.

use crate::{Error, Push, limits};
use postern_graph::{Pos, RoomNum, UserNum, schema::Unread};
use postern_rooms::view::Viewer;
use serde::Serialize;
use std::collections::BTreeMap;

/// It is shown as particularly important.
pub(crate) const HIGHLIGHT: u8 = 1;
/// Somebody called.
pub(crate) const CALL: u8 = 2;

/// How much is unread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Of these, how many are highlighted.
    pub highlight_count: u64,
    /// How many notified.
    pub notification_count: u64,
}

impl Count {
    fn add(&mut self, bits: u8) {
        self.notification_count += 1;
        self.highlight_count += u64::from(bits & HIGHLIGHT != 0);
    }
}

/// The counts of a room: as a whole or for its main timeline, and thread by thread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of the room.
    pub all: Count,
    /// Outside of threads.
    pub main: Count,
    /// The threads in which something is unread, by their roots.
    pub threads: BTreeMap<String, Count>,
}

/// Up to where a user has read a room.
#[derive(Debug)]
pub(crate) struct Read(Vec<(String, Pos)>);

impl Read {
    fn at(&self, thread: &str) -> Pos {
        self.0.iter().find(|(known, _)| known == thread).map_or(Pos::MIN, |(_, pos)| *pos)
    }

    /// Up to where all was read.
    pub(crate) fn everywhere(&self) -> Pos {
        self.at("")
    }

    /// Whether what stands there, in a thread or (empty) outside, was read.
    pub(crate) fn has(&self, pos: Pos, thread: &str) -> bool {
        pos <= self.everywhere().max(self.at(if thread.is_empty() { "main" } else { thread }))
    }
}

impl Push {
    pub(crate) fn read(&self, room: RoomNum, user: UserNum) -> Result<Read, Error> {
        Ok(Read(self.0.rooms.read_up_to(room, user)?))
    }

    /// What is unread for `viewer` in a room, up to a position.
    ///
    /// # Errors
    /// The store's.
    pub fn unread(&self, viewer: &Viewer<'_>, room: RoomNum, up_to: Pos) -> Result<Counts, Error> {
        // Read first: what is stored reaches at least as far.
        let followed = Pos::at(*self.0.followed.borrow());
        let read = self.read(room, viewer.user)?;
        let mut found: Vec<(Pos, u8, String)> = Vec::new();
        let stored = self.0.graph.scan::<Unread, _>(&(viewer.user, room));
        let stored = stored.after(&(viewer.user, room, read.everywhere()));
        let stored = stored.up_to(&(viewer.user, room, followed.min(up_to))).reverse();
        for entry in stored.iter().take(limits::UNREAD) {
            let ((_, _, pos), (bits, thread)) = entry?;
            found.push((pos, bits, thread));
        }
        let stretch = (followed.max(read.everywhere()), up_to);
        if stretch.0 < stretch.1 {
            self.not_followed(viewer, room, stretch, &mut found)?;
        }
        let mut counts = Counts::default();
        for (pos, bits, thread) in found {
            if read.has(pos, &thread) {
                continue;
            }
            counts.all.add(bits);
            if thread.is_empty() {
                counts.main.add(bits);
            } else {
                counts.threads.entry(thread).or_default().add(bits);
            }
        }
        Ok(counts)
    }

    /// Adds what the follower has not come to yet, and takes away what was read by sending something.
    fn not_followed(
        &self,
        viewer: &Viewer<'_>,
        room: RoomNum,
        stretch: (Pos, Pos),
        found: &mut Vec<(Pos, u8, String)>,
    ) -> Result<(), Error> {
        for event in self.0.rooms.happened(room, viewer, stretch, limits::LOOK_BACK)? {
            if let Some(taken) = self.taken_by(&event)? {
                found.retain(|(pos, _, _)| *pos != taken.record.pos);
            }
            if event.record.sender == viewer.user {
                let thread = self.thread_of(&event)?.unwrap_or_default();
                found.retain(|(_, _, of)| *of != thread);
                continue;
            }
            let Some(occasion) = self.occasion(&event)? else { continue };
            if let Some(verdict) = self.for_member(&occasion, viewer.user, viewer.user_id)? {
                let thread = self.thread_of(&event)?.unwrap_or_default();
                found.push((event.record.pos, u8::from(verdict.highlight) * HIGHLIGHT, thread));
            }
        }
        Ok(())
    }

    /// How much a user has not read in all rooms, and how many calls of that were missed: what a badge shows.
    pub(crate) fn badge(&self, user: UserNum) -> Result<(u64, u64), Error> {
        let (mut unread, mut calls) = (0, 0);
        for entry in self.0.graph.scan::<Unread, _>(&(user,)).iter().take(limits::BADGE) {
            let (_, (bits, _)) = entry?;
            unread += 1;
            calls += u64::from(bits & CALL != 0);
        }
        Ok((unread, calls))
    }
}
