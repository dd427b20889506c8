//! The rest of the state of rooms that were joined without their members.

use crate::{Error, Federation, PeerError};
use postern_graph::{EventNum, RoomNum};
use ruma::{OwnedServerName, ServerName};
use std::time::Duration;

/// How long it is waited after the servers of a room did not tell its state…
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// …and at most, when that goes on.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A state of which one event in this many cannot be had is not taken.
const MAY_LACK: usize = 10;
/// Servers that are asked one after the other, before it is waited.
const SERVERS_ASKED: usize = 5;

impl Federation {
    /// Has the rest of a room's state fetched, for as long as it takes and the server runs.
    pub(crate) fn fetch_whole_state(&self, room: RoomNum) {
        let Some(record) = self.0.rooms.partial_room(room) else { return };
        let federation = self.clone();
        tokio::spawn(async move {
            let stopping = federation.0.stopping.clone();
            tokio::select! {
                () = stopping.cancelled() => {}
                () = federation.until_whole(room, record.join) => {}
            }
        });
    }

    /// Who left and came back has the state asked for anew, as of another join.
    async fn until_whole(&self, room: RoomNum, join: EventNum) {
        let (mut pause, mut turn) = (FIRST_PAUSE, 0);
        while self.0.rooms.partial_room(room).is_some_and(|record| record.join == join) {
            match self.try_whole(room, turn).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::info!(%error, room = room.0, "the whole state of a room is not here yet")
                }
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            turn += SERVERS_ASKED;
        }
    }

    /// Asks some servers of the room, those first whose turn it is.
    async fn try_whole(&self, room: RoomNum, turn: usize) -> Result<(), Error> {
        let rooms = &self.0.rooms;
        let Some(record) = rooms.partial_room(room) else { return Ok(()) };
        if !rooms.is_resident(room)? {
            return Ok(rooms.give_up_whole_state(room).await?);
        }
        let mut servers: Vec<OwnedServerName> = ServerName::parse(&record.told_by).into_iter().collect();
        let others = self.others(room, servers.first().map_or(rooms.server_name(), |first| first));
        if !others.is_empty() {
            servers.extend((0..SERVERS_ASKED).filter_map(|n| others.get((turn + n) % others.len()).cloned()));
        }
        let mut last = Error::from(PeerError::BadAnswer("nobody can be asked".to_owned()));
        for server in servers {
            match self.whole_from(room, &server).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn whole_from(&self, room: RoomNum, server: &ServerName) -> Result<(), Error> {
        let rooms = &self.0.rooms;
        let Some(record) = rooms.partial_room(room) else { return Ok(()) };
        let room_id = rooms.room_id(room)?;
        let join = rooms.event(record.join)?;
        // What was before the join every server of the room has; the join itself may still be on its way to some.
        let mut before = join.prev_events();
        let at = match (before.next(), before.next()) {
            (Some(only), None) => only.clone(),
            _ => join.id.clone(),
        };
        let place = self.place(&room_id, server)?;
        let told = self.gap(&place, at).await?;
        let lacking = rooms.unknown_events(&told.state)?.len();
        if told.state.is_empty() || lacking > told.state.len() / MAY_LACK {
            return Err(PeerError::BadAnswer(format!(
                "{lacking} of {} events of the state cannot be had",
                told.state.len()
            ))
            .into());
        }
        if !rooms.unknown_events([&told.prev])?.is_empty() {
            return Err(PeerError::BadAnswer(format!("the event {} cannot be had", told.prev)).into());
        }
        Ok(rooms.make_whole(&room_id, &told).await?)
    }
}
