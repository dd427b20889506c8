//! Read receipts (specification: receipts).

use crate::{
    Error,
    rooms::{Rooms, now_ms},
};
use postern_graph::{
    Pos, RoomNum, Seq, UserNum,
    codec::Json,
    event::Receipt,
    log::LogEntry,
    schema::{ReceiptLog, Receipts},
};
use ruma::EventId;

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
            if let Some((since, Json(present))) = self.graph.get::<Receipts>(&key)? {
                if present.pos >= event.record.pos {
                    return Ok(());
                }
                commit.delete::<ReceiptLog>(&(room, since));
            }
            let receipt = Receipt { event_id: event.id.to_string(), pos: event.record.pos, ts: now_ms() };
            let since = commit.take_seq();
            commit.put::<Receipts>(&key, &(since, Json(receipt)));
            commit.put::<ReceiptLog>(&(room, since), &(user, kind as u8, thread.to_owned()));
            commit.log(LogEntry::Receipt { room, user, private: kind == ReceiptKind::Private });
            self.graph.commit(commit)?
        };
        self.durable(seq).await
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
