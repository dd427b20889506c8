//! Asking for what was told without its content.
//!
//! Any server of a room can tell what others said as redacted copies, and so have it forgotten by who believes that this is all
//! that may be known of it. So the server that said it is asked, and one more. What that server itself tells without its content is
//! its own decision, and not asked about.

use crate::{Error, Federation, gaps::enc, verify};
use postern_rooms::Verified;
use quick_cache::sync::Cache;
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Events asked for because of one answer or transaction.
const AT_ONCE: usize = 100;
/// Answers and transactions because of which it is asked at the same time; of more nothing is asked for.
const TASKS: usize = 64;
/// Events remembered of which nobody had more.
const REMEMBERED: usize = 10_000;
/// How often it is looked whether an event is in its room yet, and the pause between two looks.
const LOOKS: usize = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// What is being asked for.
#[derive(Debug)]
pub(crate) struct Copies {
    /// Events of which those who were asked had no more.
    settled: Cache<OwnedEventId, ()>,
    places: Arc<Semaphore>,
}

impl Default for Copies {
    fn default() -> Self {
        Self { settled: Cache::new(REMEMBERED), places: Arc::new(Semaphore::new(TASKS)) }
    }
}

#[derive(Deserialize)]
struct Pdus {
    pdus: Vec<Box<RawValue>>,
}

impl Federation {
    /// Asks for the content of those events that `teller` has told without it, though it was not theirs. It is asked beside
    /// whatever goes on, and they need not be in their room yet.
    pub(crate) fn ask_for_contents<'e>(
        &self,
        room: &RoomId,
        events: impl IntoIterator<Item = &'e Verified>,
        teller: &ServerName,
    ) {
        let copies = &self.0.copies;
        let is_open = |event: &&Verified| event.is_copy() && copies.settled.get(event.id()).is_none();
        let others = events.into_iter().filter(is_open).filter_map(|event| {
            let by = event.sent_by()?;
            (by != teller && by != self.0.rooms.server_name()).then(|| (event.id().to_owned(), by))
        });
        let asked: Vec<_> = others.take(AT_ONCE).collect();
        if asked.is_empty() {
            return;
        }
        let Ok(place) = copies.places.clone().try_acquire_owned() else {
            tracing::info!(%room, %teller, "contents are not asked for: too many are");
            return;
        };
        let (federation, room, teller) = (self.clone(), room.to_owned(), teller.to_owned());
        tokio::spawn(async move {
            let _place = place;
            for (event, by) in asked {
                let asking = federation.ask_for_content(&room, &event, by, &teller);
                tokio::select! {
                    () = federation.0.stopping.cancelled() => return,
                    asked = asking => if let Err(error) = asked {
                        tracing::info!(%error, %event, "the content of an event cannot be had now");
                    },
                }
            }
        });
    }

    /// Asks the server that sent an event, and one more, for all of it.
    async fn ask_for_content(
        &self,
        room: &RoomId,
        id: &EventId,
        by: OwnedServerName,
        teller: &ServerName,
    ) -> Result<(), Error> {
        if !self.is_lacking(id).await? {
            return Ok(());
        }
        tracing::info!(%room, event = %id, %teller, "somebody else's event was told without its content");
        let number = self.0.rooms.known_room(room)?;
        let version = self.0.rooms.version_of(number)?;
        let others = self.others(number, &by).into_iter().filter(|server| server != teller);
        let mut last = Ok(());
        for server in std::iter::once(by.clone()).chain(others.take(1)) {
            let path = format!("/_matrix/federation/v1/event/{}", enc(id.as_str()));
            let told: Pdus = match self.0.peers.get(&server, &path).await {
                Ok(told) => told,
                Err(error) => {
                    last = Err(error.into());
                    continue;
                }
            };
            let Some(pdu) = told.pdus.first() else { continue };
            let checked = match verify::parse(pdu) {
                Ok(pdu) => self.verify(&version, pdu, &server).await,
                Err(error) => Err(error.into()),
            };
            // One that answers with nonsense does not keep the other from being asked.
            let event = match checked {
                Ok(event) => event,
                Err(error) => {
                    last = Err(error);
                    continue;
                }
            };
            if event.id() == id && !event.is_copy() {
                return Ok(self.0.rooms.fill_in(room, &event).await?);
            }
        }
        // Who could not be reached may have it another day.
        if last.is_ok() {
            self.0.copies.settled.insert(id.to_owned(), ());
        }
        last
    }

    /// Whether an event lacks its content, once it is here; a redaction that came with it then says why it does.
    async fn is_lacking(&self, id: &EventId) -> Result<bool, Error> {
        for _ in 0..LOOKS {
            if let Some(lacks) = self.0.rooms.lacks_content(id)? {
                return Ok(lacks);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(false)
    }
}
