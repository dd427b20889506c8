//! Read receipts (specification: receipts).

use crate::{
    Error, limits,
    rooms::{Rooms, now_ms},
};
use postern_graph::{
    Commit, Pos, RoomNum, Seq, UserNum,
    codec::Json,
    event::Receipt,
    log::LogEntry,
    schema::{ReceiptLog, Receipts},
};
use ruma::{EventId, OwnedEventId};
use std::collections::HashSet;

/// The kinds of receipt, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ReceiptKind {
    /// `m.read`: everyone in the room sees it.
    Public = 0,
    /// `m.read.private`: its owner alone does.
    Private = 1,
}

impl ReceiptKind {
    /// The specification's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "m.read",
            Self::Private => "m.read.private",
        }
    }
}

/// A receipt that a server told of one of its users.
#[derive(Debug, Clone)]
pub struct RemoteReceipt {
    /// Whose.
    pub user: UserNum,
    /// The thread it is for: `main`, a thread's root, or (empty) all of the room.
    pub thread: String,
    /// Up to where.
    pub event_id: OwnedEventId,
    /// When, milliseconds since the epoch, as the server says.
    pub ts: u64,
}

/// A receipt with whose it is.
#[derive(Debug, Clone)]
pub struct UserReceipt {
    /// Whose.
    pub user: UserNum,
    /// Public or private.
    pub kind: ReceiptKind,
    /// The thread it is for: `main`, a thread's root, or (empty) all of the room.
    pub thread: String,
    /// Up to where, and when.
    pub receipt: Receipt,
}

/// Stores a receipt instead of the one that stood `before`.
fn put(commit: &mut Commit, key: (RoomNum, UserNum, u8, String), before: Option<Seq>, receipt: Receipt) {
    let (room, user, kind, thread) = key.clone();
    if let Some(before) = before {
        commit.delete::<ReceiptLog>(&(room, before));
    }
    let since = commit.take_seq();
    commit.put::<Receipts>(&key, &(since, Json(receipt)));
    commit.put::<ReceiptLog>(&(room, since), &(user, kind, thread));
    commit.log(LogEntry::Receipt { room, user, private: kind == ReceiptKind::Private as u8 });
}

impl Rooms {
    /// Moves a user's receipt to an event. One that points further back than the present one changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the event is not of the room.
    pub async fn set_receipt(
        &self,
        room: RoomNum,
        user: UserNum,
        kind: ReceiptKind,
        thread: &str,
        event: &EventId,
    ) -> Result<(), Error> {
        let event = self
            .event_by_id(event)?
            .filter(|event| event.record.room == room && event.record.is_visible())
            .ok_or_else(|| Error::not_found("there is no such event in the room"))?;
        let seq = {
            let _turn = self.receipt_turn.lock().await;
            let key = (room, user, kind as u8, thread.to_owned());
            let mut commit = self.graph.begin();
            let present = self.graph.get::<Receipts>(&key)?;
            if present.as_ref().is_some_and(|(_, Json(present))| present.pos >= event.record.pos) {
                return Ok(());
            }
            let receipt = Receipt { event_id: event.id.to_string(), pos: event.record.pos, ts: now_ms() };
            put(&mut commit, key, present.map(|(since, _)| since), receipt);
            self.graph.commit(commit)?
        };
        self.durable(seq).await
    }

    /// Moves public receipts of users of another server, who are joined to the room. One that points further back than
    /// the present one changes nothing. An event that has not arrived yet is taken for the latest: it often follows.
    pub async fn take_receipts(&self, room: RoomNum, receipts: &[RemoteReceipt]) -> Result<(), Error> {
        let mut last = None;
        for receipts in receipts.chunks(limits::RECEIPTS_AT_ONCE) {
            let _turn = self.receipt_turn.lock().await;
            let mut commit = self.graph.begin();
            let mut moved = HashSet::new();
            for told in receipts {
                let key = (room, told.user, ReceiptKind::Public as u8, told.thread.clone());
                // One of each in a commit: what it has stored is not read back.
                if moved.contains(&(told.user, told.thread.as_str())) {
                    continue;
                }
                let present = self.graph.get::<Receipts>(&key)?;
                let Some(pos) = self.read_to(room, told, present.as_ref().map(|(_, Json(there))| there))?
                else {
                    continue;
                };
                let receipt = Receipt { event_id: told.event_id.to_string(), pos, ts: told.ts };
                put(&mut commit, key, present.map(|(since, _)| since), receipt);
                moved.insert((told.user, told.thread.as_str()));
            }
            if !moved.is_empty() {
                last = Some(self.graph.commit(commit)?);
            }
        }
        match last {
            Some(seq) => self.durable(seq).await,
            None => Ok(()),
        }
    }

    /// The position a told receipt moves to; nothing if it does not move.
    fn read_to(
        &self,
        room: RoomNum,
        told: &RemoteReceipt,
        present: Option<&Receipt>,
    ) -> Result<Option<Pos>, Error> {
        let Some(event) = self.event_by_id(&told.event_id)? else {
            let newer =
                present.is_none_or(|there| there.ts < told.ts && there.event_id != told.event_id.as_str());
            return Ok(newer.then(|| present.map_or(Pos::MIN, |there| there.pos)));
        };
        let of_room = event.record.room == room && event.record.is_visible();
        let further = present.is_none_or(|there| there.pos < event.record.pos);
        Ok((of_room && further).then_some(event.record.pos))
    }

    /// The receipts of a room that moved in `(after, up_to]`, as `viewer` may see them.
    pub fn receipts_between(
        &self,
        room: RoomNum,
        viewer: UserNum,
        after: Seq,
        up_to: Seq,
    ) -> Result<Vec<UserReceipt>, Error> {
        let mut found = Vec::new();
        let range = self.graph.scan::<ReceiptLog, _>(&(room,)).after(&(room, after)).up_to(&(room, up_to));
        for entry in range.iter() {
            let ((_, at), (user, kind, thread)) = entry?;
            let kind = if kind == 0 { ReceiptKind::Public } else { ReceiptKind::Private };
            if kind == ReceiptKind::Private && user != viewer {
                continue;
            }
            let stored = self.graph.get::<Receipts>(&(room, user, kind as u8, thread.clone()))?;
            if let Some((since, Json(receipt))) = stored
                && since == at
            {
                found.push(UserReceipt { user, kind, thread, receipt });
            }
        }
        Ok(found)
    }

    /// Up to where a user has read a room: in all of it, and thread by thread.
    pub fn read_up_to(&self, room: RoomNum, user: UserNum) -> Result<Vec<(String, Pos)>, Error> {
        let mut read: Vec<(String, Pos)> = Vec::new();
        for entry in self.graph.scan::<Receipts, _>(&(room, user)).iter() {
            let ((_, _, _, thread), (_, Json(receipt))) = entry?;
            match read.iter_mut().find(|(known, _)| *known == thread) {
                Some((_, pos)) => *pos = (*pos).max(receipt.pos),
                None => read.push((thread, receipt.pos)),
            }
        }
        Ok(read)
    }
}
