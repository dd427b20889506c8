//! Quarantine: events of other servers that the gate does not let in. They are kept as soft-failed ones are (specification:
//! soft failure), so that what follows on them has its place, and shown to nobody until somebody lets them in.

use crate::{
    Error, Event,
    batch::Batch,
    rooms::{Rooms, now_ms},
};
use postern_graph::{
    EventNum, Pos,
    codec::Json,
    event::{EventLinks, flags},
    schema::{Children, EventOriginals, Links, Quarantine, Timeline},
};
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Why an event is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// What the gate said.
    pub why: String,
    /// The server of its sender.
    pub origin: OwnedServerName,
    /// Since when, milliseconds since the epoch.
    pub at: u64,
}

impl Batch<'_> {
    pub(crate) fn quarantine(&mut self, event: EventNum, origin: &ServerName, why: &str) {
        let about = Quarantined { why: why.to_owned(), origin: origin.to_owned(), at: now_ms() };
        self.commit.put::<Quarantine>(&(event,), &Json(serde_json::json!(about)));
    }

    /// Shows an event from here on that was not shown when it came. Its state has been that of what follows on it all the time.
    fn show(&mut self, event: &Event, links: &EventLinks) -> Result<(), Error> {
        let mut event = event.clone();
        self.commit.delete::<Timeline>(&(self.room, event.record.pos));
        event.record.pos = Pos::at(self.commit.take_seq());
        event.record.flags &= !flags::SOFT_FAILED;
        let mut is_followed = false;
        for child in self.rooms.graph.scan::<Children, _>(&(event.num,)).iter() {
            let ((_, child), ()) = child?;
            if self.event(child)?.record.is_visible() {
                is_followed = true;
                break;
            }
        }
        let event = self.keep(event, links)?;
        self.announce(&event);
        if !is_followed {
            let (prev, _) = self.prev_links(&event)?;
            self.extend_head(&event, &prev)?;
        }
        self.apply_effects(&event)
    }
}

impl Rooms {
    /// The events in quarantine after one, in the order in which they came here, at most so many.
    ///
    /// # Errors
    /// The store's.
    pub fn quarantined(&self, after: EventNum, most: usize) -> Result<Vec<(Arc<Event>, Quarantined)>, Error> {
        let from = (EventNum(after.0.saturating_add(1)),);
        let mut found = Vec::new();
        for entry in self.graph.scan::<Quarantine, _>(&()).from(&from).iter().take(most) {
            let ((num,), Json(about)) = entry?;
            let about = serde_json::from_value(about).map_err(|error| Error::BadJson(error.to_string()))?;
            found.push((self.event(num)?, about));
        }
        Ok(found)
    }

    /// Lets an event in that was kept in quarantine: it is shown as if it came now.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not in quarantine; [`Error::Forbidden`] if the rules of the room say no by now.
    pub async fn let_in(&self, num: EventNum) -> Result<(), Error> {
        let room = self.event(num)?.record.room;
        let seq = {
            let _lane = self.lane(room).await;
            if !self.graph.has::<Quarantine>(&(num,))? {
                return Err(Error::not_found("the event is not in quarantine"));
            }
            let mut batch = self.batch(room)?;
            let event = batch.event(num)?;
            batch.allowed_in(batch.head.state, &event)?.map_err(Error::forbidden)?;
            let links = self.graph.get::<Links>(&(num,))?.unwrap_or_default();
            batch.commit.delete::<Quarantine>(&(num,));
            batch.show(&event, &links)?;
            batch.commit()?
        };
        self.durable(seq).await
    }

    /// Destroys what a redacted event said, which is otherwise kept for as long as the specification allows.
    ///
    /// # Errors
    /// The store's.
    pub async fn destroy_original(&self, num: EventNum) -> Result<(), Error> {
        let mut commit = self.graph.begin();
        commit.delete::<EventOriginals>(&(num,));
        Ok(self.graph.commit_beside_log_durably(commit).await?)
    }

    /// Keeps an event out for good: it stays soft-failed, and nobody is asked about it any more.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not in quarantine.
    pub async fn keep_out(&self, num: EventNum) -> Result<(), Error> {
        let room = self.event(num)?.record.room;
        let _lane = self.lane(room).await;
        if !self.graph.has::<Quarantine>(&(num,))? {
            return Err(Error::not_found("the event is not in quarantine"));
        }
        let mut commit = self.graph.begin();
        commit.delete::<Quarantine>(&(num,));
        Ok(self.graph.commit_beside_log_durably(commit).await?)
    }
}
