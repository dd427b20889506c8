//! What a server by hand is due, for a bundle.

use super::{Outbox, due::merge, release::release, residents::invited_by_hand};
use crate::Error;
use postern_graph::{
    Commit, EventNum, NameKind, ServerNum,
    codec::Raw,
    schema::{OutboxEdus, OutboxEvents, OutboxLatest, OutboxTransactions},
};
use postern_rooms::{Event, now_ms};
use ruma::ServerName;
use serde_json::{Value, value::RawValue};

/// Events taken from the queue for one bundle.
const EVENTS: usize = 100_000;
/// EDUs of one bundle.
const EDUS: usize = 100_000;

/// What the queue of a server has.
#[derive(Debug, Default)]
pub(crate) struct ForBundle {
    /// Events, oldest first. Whether and how each may go is still to be asked.
    pub(crate) events: Vec<EventNum>,
    /// EDUs in their order.
    pub(crate) edus: Vec<Value>,
    /// Whether more is left than was taken.
    pub(crate) more: bool,
}

impl Outbox {
    /// What a server by hand is due. It is out of the queue once `commit` is applied.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn for_bundle(&self, server: &ServerName, commit: &mut Commit) -> Result<ForBundle, Error> {
        let (graph, mut found) = (&self.0.graph, ForBundle::default());
        let Some(number) = graph.number(NameKind::Server, server.as_str())?.map(ServerNum) else {
            return Ok(found);
        };
        // From before the server was one by hand; what is in it is told otherwise.
        commit.delete::<OutboxTransactions>(&(number,));
        for entry in graph.scan::<OutboxEvents, _>(&(number,)).iter().take(EVENTS) {
            let (key, (event, _)) = entry?;
            found.events.push(event);
            commit.delete::<OutboxEvents>(&key);
        }
        for entry in graph.scan::<OutboxEdus, _>(&(number,)).iter().take(EDUS) {
            let ((_, seq, n), (kind, Raw(edu))) = entry?;
            let of_kind = (number, kind);
            let latest = graph.get::<OutboxLatest>(&of_kind)?;
            if latest.is_none_or(|latest| latest == (seq, n)) {
                let edu = serde_json::from_slice(&edu);
                found.edus.push(edu.map_err(|error| postern_rooms::Error::BadJson(error.to_string()))?);
                commit.delete::<OutboxLatest>(&of_kind);
            }
            commit.delete::<OutboxEdus>(&(number, seq, n));
        }
        found.more = found.events.len() == EVENTS || found.edus.len() == EDUS;
        found.edus = merge(found.edus, now_ms());
        Ok(found)
    }

    /// The form in which an event that a server was due goes to it; nothing if it does not.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn form_by_hand(
        &self,
        server: &ServerName,
        event: &Event,
    ) -> Result<Option<Box<RawValue>>, Error> {
        if invited_by_hand(&self.0.rooms, event).is_some_and(|invited| invited == server) {
            return Ok(self.0.rooms.released(server, event)?);
        }
        release(&self.0.rooms, server, event)
    }
}
