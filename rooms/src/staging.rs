//! Events that other servers have sent and that wait to be taken into their rooms: stored before they are acknowledged.

use crate::{Error, Received, Verified, now_ms, rooms::Rooms};
use postern_graph::{
    RoomNum, Seq,
    codec::Raw,
    schema::{Relayed, Staged},
};
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::{Deserialize, Serialize};

/// A staged event as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    origin: OwnedServerName,
    id: OwnedEventId,
    version: String,
    json: String,
    /// Whether it came without its content.
    #[serde(default)]
    is_copy: bool,
    /// When it came, milliseconds.
    #[serde(default)]
    since: u64,
}

/// An event that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its place among those of its room.
    pub seq: Seq,
    /// The server that sent it.
    pub origin: OwnedServerName,
    /// The event.
    pub pdu: Verified,
    /// When it came, milliseconds since 1970.
    pub since: u64,
}

/// Whether an event can be taken in one commit with those before it. Not where its effects are read from the store: what
/// relates to other events, or takes them back, or is state. When in doubt, no.
fn may_be_one_of_many(pdu: &Verified) -> bool {
    !["\"state_key\"", "\"m.relates_to\"", "\"redacts\""].iter().any(|name| pdu.json().contains(name))
}

impl Rooms {
    /// Adds events that `origin` has sent to those that wait, in this order.
    pub fn stage(
        &self,
        commit: &mut postern_graph::Commit,
        origin: &ServerName,
        pdus: Vec<(RoomNum, Verified)>,
    ) -> Result<(), Error> {
        for (room, pdu) in pdus {
            let seq = commit.take_seq();
            let stored = Stored {
                origin: origin.to_owned(),
                id: pdu.id().to_owned(),
                version: pdu.version().to_owned(),
                json: pdu.json().to_owned(),
                is_copy: pdu.is_copy(),
                since: now_ms(),
            };
            let stored = serde_json::to_vec(&stored).map_err(|error| Error::BadJson(error.to_string()))?;
            commit.put::<Staged>(&(room, seq), &Raw(stored));
        }
        Ok(())
    }

    /// The first events of a room that wait behind `after`, at most `limit`.
    pub fn staged(&self, room: RoomNum, after: Option<Seq>, limit: usize) -> Result<Vec<Waiting>, Error> {
        let mut waiting = Vec::new();
        let from = Seq(after.map_or(0, |after| after.0 + 1));
        for entry in self.graph().scan::<Staged, _>(&(room,)).from(&(room, from)).iter().take(limit) {
            let ((_, seq), Raw(stored)) = entry?;
            let Stored { origin, id, version, json, is_copy, since } =
                serde_json::from_slice(&stored).map_err(|error| Error::BadJson(error.to_string()))?;
            let pdu = Verified::from_store(id, json, version, is_copy);
            waiting.push(Waiting { seq, origin, pdu, since });
        }
        Ok(waiting)
    }

    /// How many events of a room wait; counted up to `limit`.
    pub fn staged_count(&self, room: RoomNum, limit: usize) -> usize {
        self.graph().scan::<Staged, _>(&(room,)).iter().take(limit).count()
    }

    /// The rooms in which events wait.
    pub fn rooms_with_staged(&self) -> Result<Vec<RoomNum>, Error> {
        let mut rooms = Vec::new();
        let mut after = RoomNum::NONE;
        while let Some(((room, _), _)) =
            self.graph().scan::<Staged, _>(&()).from(&(RoomNum(after.0 + 1),)).first()?
        {
            rooms.push(room);
            after = room;
        }
        Ok(rooms)
    }

    /// Takes the first of these events, as many as can be taken as they are, in their order; they wait no more. How many: the one
    /// behind them lacks something, or is none.
    ///
    /// Nobody waits for these events to be on disk: until they are, they are still among those that wait.
    ///
    /// # Errors
    /// The store's.
    pub async fn receive_waiting(&self, room: RoomNum, waiting: &[Waiting]) -> Result<usize, Error> {
        if self.policy_server(room)?.is_some() {
            // Each has to be asked for, which is not done while the room waits.
            return Ok(0);
        }
        let _lane = self.lane(room).await;
        let mut batch = self.batch(room)?;
        let mut taken = 0;
        for Waiting { seq, pdu, .. } in waiting {
            let together = may_be_one_of_many(pdu);
            let mut received = if together { batch.receive_next(pdu.clone()) } else { Ok(None) };
            if matches!(received, Ok(None)) {
                batch.commit()?;
                batch = self.batch(room)?;
                received = batch.receive(pdu.clone(), &[]).map(Some);
            }
            match received {
                Ok(_) => batch.commit.delete::<Staged>(&(room, *seq)),
                Err(error @ (Error::Graph(_) | Error::Signing(_))) => return Err(error),
                // It is looked at again by itself.
                Err(_) => break,
            }
            taken += 1;
            if !together {
                batch.commit()?;
                batch = self.batch(room)?;
            }
        }
        batch.commit()?;
        Ok(taken)
    }

    /// An event has been dealt with.
    pub fn unstage(&self, room: RoomNum, seq: Seq) -> Result<(), Error> {
        let mut commit = self.graph().begin();
        commit.delete::<Staged>(&(room, seq));
        self.graph().commit(commit)?;
        Ok(())
    }

    /// Takes an event into a room of this server by which a user of another server joins, knocks or leaves, and passes
    /// it on to the other servers of the room.
    ///
    /// # Errors
    /// [`Error::MissingEvents`] if it does not follow on what is here; [`Error::Forbidden`] if the room's rules say no.
    pub async fn accept(&self, room: &RoomId, pdu: Verified) -> Result<(), Error> {
        let room = self.known_room(room)?;
        let seq = {
            let _lane = self.lane(room).await;
            if !self.is_resident(room)? {
                return Err(Error::not_found("this server is not in the room"));
            }
            self.has_whole_state(room)?;
            let mut batch = self.batch(room)?;
            let id = pdu.id().to_owned();
            match batch.receive(pdu, &[])? {
                Received::Known => self.graph().applied(),
                Received::Accepted => {
                    if let Some(event) = batch.event_by_id(&id)? {
                        batch.commit.put::<Relayed>(&(event.num,), &());
                    }
                    batch.commit()?
                }
                Received::SoftFailed(why) | Received::Rejected(why) => return Err(Error::Forbidden(why)),
            }
        };
        self.durable(seq).await
    }
}
