//! The policy room: a room of this server whose state holds a signed bundle of policies, beside those in files.
//!
//! A bundle counts by its signatures and its version, not by who put it there. One that cannot be used is refused to whoever
//! sends it; if it comes to stand in the room all the same, what counted before goes on counting. So it does when the state is
//! redacted or cannot be read: policies are taken back by a new version.

use crate::{Border, Error, Wrong, standing::Standing, table::Tables};
use postern_graph::{RoomNum, Seq, log::LogEntry};
use postern_policy::decide::{Accepted, Bundle, Handed};
use postern_rooms::{Draft, Error as RoomsError, Event, Rooms};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The type of the state, with an empty state key: its content is the bundle.
pub const POLICIES: &str = "io.postern.policies";
/// What the bundle is called in problems.
const NAME: &str = "the policy room";

/// A bundle that stands in the policy room.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Published {
    pub(crate) room: OwnedRoomId,
    /// JSON.
    bundle: String,
}

impl Published {
    /// What the content of a state says. Fields that every event may have here are no part of it.
    pub(crate) fn of(room: &RoomId, content: &str) -> Result<Self, Wrong> {
        let wrong = |error: serde_json::Error| Wrong(vec![format!("{NAME}: {error}")]);
        let mut content: Map<String, Value> = serde_json::from_str(content).map_err(wrong)?;
        content.retain(|key, _| !key.starts_with("io.postern."));
        Ok(Self { room: room.to_owned(), bundle: Value::Object(content).to_string() })
    }

    /// The bundle, as JSON.
    pub(crate) fn json(&self) -> &str {
        &self.bundle
    }

    pub(crate) fn handed(&self) -> Handed {
        Handed::Bundle { name: NAME.to_owned(), json: self.bundle.clone().into_bytes() }
    }

    /// Is it the bundle that was taken?
    pub(crate) fn is(&self, taken: &Accepted) -> bool {
        Bundle::parse(self.bundle.as_bytes()).is_ok_and(|bundle| bundle.digest() == taken.digest)
    }
}

/// What the policy room said when it was looked at last.
#[derive(Debug, Default)]
struct Seen {
    event: Option<OwnedEventId>,
    wrong: Vec<String>,
}

impl Border {
    /// Whether what a local user sends is a bundle that can be used, if it is meant to be one.
    pub(crate) fn check_published(
        &self,
        standing: &Standing,
        room: &RoomId,
        draft: &Draft,
    ) -> Result<(), Error> {
        let is_meant = draft.event_type == POLICIES
            && draft.state_key.as_deref() == Some("")
            && standing.policy_room.as_deref() == Some(room);
        if !is_meant {
            return Ok(());
        }
        let usable = Published::of(room, draft.content.get()).and_then(|published| {
            let loaded = standing.sources.load(&[published.handed()], standing.bundle.as_ref())?;
            let is_newest = loaded.bundle.is_some_and(|taken| published.is(&taken));
            let older = || Wrong(vec![format!("{NAME}: the bundle in the directory of policies is newer")]);
            is_newest.then_some(()).ok_or_else(older)
        });
        usable.map_err(|Wrong(wrong)| {
            metrics::counter!("postern_border_policies_refused", "from" => "room").increment(1);
            RoomsError::Forbidden(format!("these policies cannot be used:\n{}", wrong.join("\n"))).into()
        })
    }

    /// Has the policies in the policy room count, as they change, until the server stops.
    pub async fn keep_policies(self, rooms: Arc<Rooms>, stopping: CancellationToken) {
        let mut follower = self.0.graph.follow_from(self.0.graph.durable());
        let mut seen = Seen::default();
        loop {
            if let Err(error) = self.look_at_policies(&rooms, &mut seen).await {
                tracing::error!(%error, "the policy room cannot be looked at: the policies stay as they were");
            }
            // Until it may say something else.
            loop {
                let records = tokio::select! {
                    () = stopping.cancelled() => return,
                    () = self.0.policy_room_stale.notified() => break,
                    records = follower.next() => records,
                };
                let changed = records.and_then(|records| {
                    let last: Option<Seq> = records.last().map(|(seq, _)| *seq);
                    last.map_or(Ok(()), |last| follower.done(last))?;
                    let Some(wanted) = self.policy_room(&rooms)? else { return Ok(false) };
                    // A message may redact the state.
                    Ok(records.iter().flat_map(|(_, record)| &record.entries).any(|entry| {
                        matches!(entry, LogEntry::Event { room, .. } | LogEntry::RoomState { room } if *room == wanted)
                    }))
                });
                match changed {
                    Ok(false) => {}
                    Ok(true) => break,
                    Err(error) => {
                        tracing::error!(%error, "the policy room cannot be followed");
                        return;
                    }
                }
            }
        }
    }

    fn policy_room(&self, rooms: &Rooms) -> Result<Option<RoomNum>, postern_graph::Error> {
        let Some(room) = self.standing().policy_room.clone() else { return Ok(None) };
        match rooms.room(&room) {
            Ok(room) => Ok(room),
            Err(RoomsError::Graph(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    async fn look_at_policies(&self, rooms: &Rooms, seen: &mut Seen) -> Result<(), Error> {
        let Some(room) = self.policy_room(rooms)? else {
            if let Some(room) = &self.standing().policy_room {
                tracing::warn!(%room, "the policy room is not here");
            }
            return Ok(());
        };
        // What is in memory of a redacted event is replaced a moment after the log has the redaction.
        rooms.at_rest(room).await;
        let Some(event) = rooms.state(room, POLICIES, "")? else { return Ok(()) };
        let _writing = self.0.writing.lock().await;
        let wrong = match self.taken(&event) {
            Ok(None) => Vec::new(),
            Ok(Some(standing)) => {
                let version = standing.bundle.map_or(0, |bundle| bundle.version);
                let revision = standing.decider.revision();
                self.take(standing)?;
                tracing::info!(target: "postern::border", event = %event.id, sender = %event.sender(), version, %revision, "the policies in the policy room are in force");
                Vec::new()
            }
            Err(Error::Wrong(Wrong(wrong))) => wrong,
            Err(error) => return Err(error),
        };
        let is_new = seen.event.as_deref() != Some(&event.id) || seen.wrong != wrong;
        if is_new && !wrong.is_empty() {
            self.refuse_policies(&event.id, &event, &wrong.join("\n"));
        }
        *seen = Seen { event: Some(event.id.clone()), wrong };
        Ok(())
    }

    /// How things stand with what an event says; nothing if they stand like this already.
    fn taken(&self, event: &Event) -> Result<Option<Standing>, Error> {
        if event.sender().server_name() != self.0.server {
            return Err(Wrong(vec![format!("{NAME}: {} is not of this server", event.sender())]).into());
        }
        let published = Published::of(&event.room_id, event.content().get())?;
        let now = self.standing();
        if now.published.is_some() && now.bundle.is_some_and(|taken| published.is(&taken)) {
            return Ok(None);
        }
        let tables = Tables::read(&self.0.graph)?;
        let standing = match self.load_with(&tables, Some(published)) {
            Ok(standing) => standing,
            // Is it this that is wrong, or what was there before?
            Err(error) => {
                self.load(&tables)?;
                return Err(error);
            }
        };
        // What is older than the bundle in the directory is left alone.
        Ok(standing.published.is_some().then_some(standing))
    }

    fn refuse_policies(&self, id: &EventId, event: &Event, why: &str) {
        metrics::counter!("postern_border_policies_refused", "from" => "room").increment(1);
        tracing::error!(event = %id, sender = %event.sender(), why, "the policies in the policy room cannot be used; those before them stay in force");
        self.refuse("policies", event.sender().as_str(), event.room_id.as_str(), why);
    }
}
