//! Events that were told without their content, as their redacted copies.
//!
//! A server of the room may be allowed no more of them, which its peers decide; the room's state is the same all the same. But any
//! server can tell such copies of what others said, to have it forgotten. So what comes later with the content, and with the hash
//! that says that it is this content, is taken, unless the event was redacted meanwhile.

use crate::{Error, Event, Verified, batch::Batch, rooms::Rooms};
use postern_graph::{Pos, codec::Raw, event::flags, schema::EventJson};
use ruma::{EventId, RoomId};

impl Rooms {
    /// Whether an event that was told is not here, or is without the content that it was told with now.
    ///
    /// # Errors
    /// The store's.
    pub fn is_news(&self, pdu: &Verified) -> Result<bool, Error> {
        Ok(self
            .event_by_id(pdu.id())?
            .is_none_or(|event| event.record.has(flags::OUTLIER) || (is_lacking(&event) && !pdu.is_copy())))
    }

    /// Whether an event lacks its content, and no redaction says why; nothing if it is not here.
    ///
    /// # Errors
    /// The store's.
    pub fn lacks_content(&self, id: &EventId) -> Result<Option<bool>, Error> {
        Ok(self.event_by_id(id)?.map(|event| is_lacking(&event)))
    }

    /// Gives an event of a room its content, which it was told without, if it still lacks that.
    ///
    /// # Errors
    /// The store's.
    pub async fn fill_in(&self, room: &RoomId, pdu: &Verified) -> Result<(), Error> {
        let room = self.known_room(room)?;
        let seq = {
            let _lane = self.lane(room).await;
            let mut batch = self.batch(room)?;
            if batch.event_by_id(pdu.id())?.is_none_or(|event| event.record.room != room) {
                return Ok(());
            }
            batch.fill_in(pdu)?;
            if batch.rewritten.is_empty() {
                return Ok(());
            }
            batch.commit()?
        };
        self.durable(seq).await
    }
}

/// Whether an event's content may come yet.
fn is_lacking(event: &Event) -> bool {
    event.record.has(flags::COPY) && event.record.redacted_by.is_none()
}

impl Batch<'_> {
    /// An event as it was told, or as it is here if that is more.
    pub(crate) fn met_as_told(&mut self, pdu: Verified, pos: Pos) -> Result<Event, Error> {
        let is_copy = pdu.is_copy();
        let here = self.event_by_id(pdu.id())?.filter(|here| is_copy && !here.record.has(flags::COPY));
        let json = here.as_ref().map_or_else(|| pdu.json().to_owned(), |here| here.json().to_owned());
        let mut event = self.met_at(pdu.id().to_owned(), json, pos)?;
        if is_copy && here.is_none() {
            event.record.flags |= flags::COPY;
        }
        Ok(event)
    }

    /// Gives an event that is here its content, if it lacks that and was told with it now.
    pub(crate) fn fill_in(&mut self, pdu: &Verified) -> Result<(), Error> {
        if pdu.is_copy() {
            return Ok(());
        }
        let Some(copy) = self.event_by_id(pdu.id())?.filter(|event| is_lacking(event)) else { return Ok(()) };
        let mut record = copy.record;
        record.flags &= !flags::COPY;
        let (id, room, json) = (copy.id.clone(), copy.room_id.clone(), pdu.json().to_owned());
        let whole = Event::from_parts(copy.num, id, room, record, json.into_boxed_str())?;
        if record.is_visible()
            && !self.rooms.is_local(whole.sender())
            && let Some(gate) = self.rooms.gate()
            && let Some(why) = gate.admitted(self.rooms, &whole)?
        {
            tracing::warn!(event = %whole.id, room = %whole.room_id, why, "the content of an event is not let in");
            return Ok(());
        }
        tracing::info!(event = %whole.id, "an event that was told without its content has it now");
        self.commit.put::<EventJson>(&(whole.num,), &Raw(whole.json().as_bytes().to_vec()));
        let num = whole.num;
        self.rewrite(whole);
        if record.is_visible() {
            self.apply_effects(&self.event(num)?)?;
        }
        Ok(())
    }
}
