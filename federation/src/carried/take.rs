//! Taking in what is in a bundle: by the checks that everything from other servers passes.

use super::{
    Fault,
    join::{Brought, INVITE},
    state::{KeyCounts, State, keep},
};
use crate::{
    Error, Federation,
    edus::{self, Edu},
    inbox::room_of,
    memberships::{Invite, invited},
    statement::Statement,
    verify,
};
use postern_border::ByHand;
use postern_bundles::{Header, Kind, Media, Record};
use postern_media::Upload;
use postern_rooms::{Error as RoomsError, Gap, Received, now_ms, version::version};
use postern_users::RemoteKeys;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use std::collections::{BTreeMap, HashSet};

/// Events that are checked at once.
const TOGETHER: usize = 50;
/// Events that authorize others and are taken together.
const AUTHORIZING: usize = 500;
/// Events of a room's history in one bundle.
const HISTORY: usize = 10_000;
/// States that are told of one room.
const GAPS: usize = 100;
/// Events of one state.
const STATE_EVENTS: usize = 500_000;
/// What was refused is told up to this many times.
const REFUSED: usize = 100;
/// What is true for a moment only is not taken after this time, milliseconds: ten minutes.
const FLEETING_MS: u64 = 10 * 60 * 1_000;

/// What was taken in.
#[derive(Debug, Default, Serialize)]
pub(super) struct Taken {
    pub(super) events: usize,
    pub(super) edus: usize,
    pub(super) files: usize,
    /// Events that were not taken, and why.
    pub(super) refused: Vec<(String, String)>,
}

/// The room whose records come.
#[derive(Default)]
struct Room {
    id: Option<OwnedRoomId>,
    authorizing: Vec<Box<RawValue>>,
    gaps: Vec<Gap>,
    events: Vec<Box<RawValue>>,
    /// Events that are history, and those of them that came.
    history: HashSet<OwnedEventId>,
    past: Vec<Box<RawValue>>,
}

/// A bundle that is being taken in.
pub(super) struct Taking<'f> {
    federation: &'f Federation,
    way: &'f ByHand,
    created: u64,
    room: Room,
    /// The file whose pieces come, and how many bytes came.
    file: Option<(Media, Upload, u64)>,
    taken: Taken,
}

#[derive(Deserialize)]
struct Snapshot {
    room_id: OwnedRoomId,
    #[serde(default)]
    event_id: Option<OwnedEventId>,
    #[serde(default)]
    state_ids: Vec<OwnedEventId>,
    #[serde(default)]
    history: Vec<OwnedEventId>,
}

/// What the other side asks for, or tells a user of this one: what of it there is depends on its type.
#[derive(Deserialize)]
struct Request {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<OwnedRoomId>,
    room_version: Option<String>,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
    #[serde(default)]
    wanted: KeyCounts,
}

/// The room of an event. Since room version 12 a create event does not say it: the room has the event's id.
fn room_of_event(pdu: &CanonicalJsonObject) -> Option<OwnedRoomId> {
    if let Some(room) = room_of(pdu) {
        return Some(room);
    }
    let text = |name: &str| pdu.get(name).and_then(CanonicalJsonValue::as_str);
    let content = pdu.get("content").and_then(CanonicalJsonValue::as_object);
    let said = content.and_then(|content| content.get("room_version")).and_then(CanonicalJsonValue::as_str);
    if text("type") != Some("m.room.create") {
        return None;
    }
    let id = postern_rooms::pdu::event_id(pdu, &version(said?).ok()?.rules).ok()?;
    RoomId::parse(format!("!{}", id.as_str().trim_start_matches('$'))).ok()
}

impl<'f> Taking<'f> {
    pub(super) fn new(federation: &'f Federation, way: &'f ByHand, header: &Header) -> Self {
        Self {
            federation,
            way,
            created: header.fields.created,
            room: Room::default(),
            file: None,
            taken: Taken::default(),
        }
    }

    fn peer(&self) -> &'f ServerName {
        &self.way.peer
    }

    fn refuse(&mut self, what: impl Into<String>, why: impl ToString) {
        let (what, why) = (what.into(), why.to_string());
        tracing::info!(peer = %self.way.peer, what, why, "something in a bundle is not taken");
        if self.taken.refused.len() < REFUSED {
            self.taken.refused.push((what, why));
        }
    }

    /// Takes in a record.
    ///
    /// # Errors
    /// The store's: the bundle is taken in again later. What is wrong with the record is noted only.
    pub(super) async fn record(&mut self, record: Record, state: &mut State) -> Result<(), Error> {
        let result = match record {
            Record::Media(media) => self.begin_file(media).await,
            Record::MediaPiece(piece) => self.piece(&piece.bytes, piece.offset),
            Record::Plain(kind, payload) => self.plain(kind, payload, state).await,
        };
        match result {
            Err(error) if is_ours(&error) => Err(error),
            Err(error) => {
                self.refuse("a record", error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn plain(&mut self, kind: Kind, payload: Vec<u8>, state: &mut State) -> Result<(), Error> {
        match kind {
            Kind::AuthPdu | Kind::Pdu => return self.event(kind, &payload).await,
            Kind::StateSnapshot => return self.snapshot(json(&payload)?).await,
            _ => self.flush().await?,
        }
        let federation = self.federation;
        match kind {
            Kind::Key => {
                let statement = Statement::check(json(&payload)?, self.peer(), now_ms());
                let statement = statement.map_err(RoomsError::BadJson)?;
                federation.0.ring.keep(&statement, true)
            }
            Kind::Edu => {
                let edu: Value = json(&payload)?;
                let fleeting = edu
                    .get("edu_type")
                    .and_then(Value::as_str)
                    .is_some_and(|kind| matches!(kind, "m.presence" | "m.typing" | "m.receipt"));
                if fleeting && now_ms().saturating_sub(self.created) > FLEETING_MS {
                    return Ok(());
                }
                let edu: Edu = serde_json::from_value(edu).map_err(bad)?;
                self.taken.edus += 1;
                edus::receive(federation, self.peer(), edu).await
            }
            Kind::DeviceKeys => self.device_keys(json(&payload)?).await,
            Kind::OneTimeKeys => {
                #[derive(Deserialize)]
                struct Given {
                    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<String, BTreeMap<String, Value>>>,
                }
                let given: Given = json(&payload)?;
                let mut commit = federation.0.graph.begin();
                federation.keep_one_time_keys(&mut commit, self.peer(), &given.one_time_keys)?;
                Ok(federation.0.graph.commit_beside_log(commit)?)
            }
            Kind::Request => {
                let request: Request = json(&payload)?;
                match (request.kind.as_str(), request.room_id, request.room_version, request.event) {
                    ("m.invite", Some(room), Some(room_version), Some(event)) => {
                        let invite_room_state = request.invite_room_state;
                        self.invite(&room, Invite { room_version, event, invite_room_state }).await
                    }
                    ("m.one_time_keys", ..) => {
                        state.wanted = request.wanted;
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    async fn invite(&mut self, room: &RoomId, invite: Invite) -> Result<(), Error> {
        let parsed = verify::parse(&invite.event)?;
        let version = version(&invite.room_version)?;
        let id = postern_rooms::pdu::event_id(&parsed, &version.rules)?;
        if self.federation.0.rooms.event_by_id(&id)?.is_some() {
            return Ok(());
        }
        if let Err(error) = invited(self.federation, self.peer(), room, &id, invite).await {
            self.refuse(id.as_str(), error.message());
        }
        Ok(())
    }

    async fn device_keys(&mut self, mut told: Value) -> Result<(), Error> {
        let federation = self.federation;
        let users: Vec<OwnedUserId> = told
            .get("device_keys")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|users| users.keys())
            .filter_map(|user| OwnedUserId::try_from(user.as_str()).ok())
            .filter(|user| user.server_name() == self.peer())
            .collect();
        for user in users {
            let mut commit = federation.0.graph.begin();
            keep(&mut commit, self.peer(), "keys", user.as_str(), told.to_string().into_bytes());
            federation.0.graph.commit_beside_log(commit)?;
            let Some(number) = federation.met(&user)? else { continue };
            let last_change = federation.0.users.last_device_change(number)?;
            let mut of =
                |part: &str| told.get_mut(part).and_then(|part| part.get_mut(user.as_str())).map(Value::take);
            let devices = of("device_keys").and_then(|devices| serde_json::from_value(devices).ok());
            let keys = RemoteKeys::checked(
                &user,
                devices.unwrap_or_default(),
                of("master_keys"),
                of("self_signing_keys"),
            );
            federation.0.users.follow_keys(number, &keys, None, last_change)?;
        }
        Ok(())
    }

    // ---- events ------------------------------------------------------------------------------------------------

    async fn event(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        let text = std::str::from_utf8(payload).map_err(|error| RoomsError::BadJson(error.to_string()))?;
        let raw = RawValue::from_string(text.to_owned()).map_err(bad)?;
        let pdu = verify::parse(&raw)?;
        let room =
            room_of_event(&pdu).ok_or_else(|| RoomsError::BadJson("an event of no room".to_owned()))?;
        self.enter(room).await?;
        if kind == Kind::AuthPdu {
            self.room.authorizing.push(raw);
            if self.room.authorizing.len() >= AUTHORIZING {
                self.flush_authorizing().await?;
            }
        } else {
            self.flush_authorizing().await?;
            if self.is_history(&pdu)? {
                self.room.past.push(raw);
                return Ok(());
            }
            self.flush_history().await?;
            self.room.events.push(raw);
            if self.room.events.len() >= TOGETHER {
                self.flush_events().await?;
            }
        }
        Ok(())
    }

    async fn snapshot(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        self.enter(snapshot.room_id).await?;
        self.flush_authorizing().await?;
        self.flush_events().await?;
        if !snapshot.history.is_empty() {
            self.room.history.extend(snapshot.history.into_iter().take(HISTORY));
        }
        let Some(prev) = snapshot.event_id else { return Ok(()) };
        let count = self.room.gaps.len();
        let known = self.room.gaps.iter_mut().find(|gap| gap.prev == prev);
        match known {
            Some(gap) if gap.state.len() < STATE_EVENTS => gap.state.extend(snapshot.state_ids),
            None if count < GAPS => self.room.gaps.push(Gap { prev, state: snapshot.state_ids }),
            _ => self.refuse(prev.as_str(), "too much state is told"),
        }
        Ok(())
    }

    /// Whether an event is of those that are history.
    fn is_history(&self, pdu: &CanonicalJsonObject) -> Result<bool, Error> {
        if room_of(pdu).is_none() {
            // The create event is the beginning of the room's history, wherever it stands.
            return Ok(self.room.past.len() < HISTORY);
        }
        let (Some(id), false) = (&self.room.id, self.room.history.is_empty()) else { return Ok(false) };
        let rooms = &self.federation.0.rooms;
        let Some(room) = rooms.room(id)? else { return Ok(false) };
        let id = postern_rooms::pdu::event_id(pdu, &rooms.version_of(room)?.rules)?;
        Ok(self.room.history.contains(&id) && self.room.past.len() < HISTORY)
    }

    /// Takes in the history that has come, as what is fetched from before the room's beginning here.
    async fn flush_history(&mut self) -> Result<(), Error> {
        let past = std::mem::take(&mut self.room.past);
        let (Some(id), false) = (self.room.id.clone(), past.is_empty()) else { return Ok(()) };
        let (federation, peer) = (self.federation, self.peer());
        let rooms = &federation.0.rooms;
        let place = match federation.place(&id, peer) {
            Ok(place)
                if rooms.is_resident(place.num)?
                    && rooms.may_know(peer, place.num)?
                    && rooms.server_allowed(place.num, peer)? =>
            {
                place
            }
            _ => {
                self.refuse(id.as_str(), "the history of a room that is not shared");
                return Ok(());
            }
        };
        let events = federation.verify_all(&place.version, &past, peer).await;
        if events.len() < past.len() {
            self.refuse(id.as_str(), "some events of its history are not what they should be");
        }
        self.taken.events += rooms.add_history(&id, events, &self.room.gaps).await?;
        Ok(())
    }

    /// What comes now is of this room.
    async fn enter(&mut self, room: OwnedRoomId) -> Result<(), Error> {
        if self.room.id.as_ref() != Some(&room) {
            self.flush().await?;
            self.room.id = Some(room);
        }
        Ok(())
    }

    /// Takes in what has come of the present room.
    async fn flush(&mut self) -> Result<(), Error> {
        self.flush_authorizing().await?;
        self.flush_history().await?;
        self.flush_events().await?;
        let Room { id, gaps, .. } = std::mem::take(&mut self.room);
        let Some(id) = id else { return Ok(()) };
        let rooms = &self.federation.0.rooms;
        let Some(room) = rooms.room(&id)? else { return Ok(()) };
        if rooms.is_resident(room)? {
            return Ok(());
        }
        let mut commit = self.federation.0.graph.begin();
        for Gap { prev, state } in gaps {
            let bytes = serde_json::to_vec(&Brought { state }).map_err(bad)?;
            keep(&mut commit, self.peer(), INVITE, prev.as_str(), bytes);
        }
        if !commit.is_empty() {
            self.federation.0.graph.commit_beside_log(commit)?;
        }
        Ok(())
    }

    async fn flush_authorizing(&mut self) -> Result<(), Error> {
        let events = std::mem::take(&mut self.room.authorizing);
        let (Some(id), false) = (self.room.id.clone(), events.is_empty()) else { return Ok(()) };
        let peer = self.peer();
        let Ok(place) = self.federation.place(&id, peer) else {
            self.refuse(id.as_str(), "this server has nothing to do with the room");
            return Ok(());
        };
        let verified = self.federation.verify_all(&place.version, &events, peer).await;
        if verified.len() < events.len() {
            self.refuse(
                id.as_str(),
                format!("{} events are not what they should be", events.len() - verified.len()),
            );
        }
        match self.federation.add_outliers(&place, verified).await {
            Err(error) if !is_ours(&error) => {
                self.refuse(id.as_str(), error);
                Ok(())
            }
            done => done,
        }
    }

    async fn flush_events(&mut self) -> Result<(), Error> {
        let events = std::mem::take(&mut self.room.events);
        let (Some(id), false) = (self.room.id.clone(), events.is_empty()) else { return Ok(()) };
        let (federation, peer) = (self.federation, self.peer());
        let mut pdus = Vec::with_capacity(events.len());
        for event in &events {
            let pdu = verify::parse(event)?;
            match federation.noted_outside(peer, &pdu).await {
                Ok(Some(_)) => self.taken.events += 1,
                Ok(None) => pdus.push(pdu),
                Err(error) if is_ours(&error) => return Err(error),
                Err(error) => self.refuse(id.as_str(), error),
            }
        }
        let admitted = federation
            .admit(peer, pdus)
            .await
            .map_err(|error| Fault::BrokeOff(error.message().to_owned()))?;
        for event in admitted {
            match event {
                Ok((room, pdu)) => {
                    let event = pdu.id().to_owned();
                    let pdu = federation.0.rooms.with_recommendation(room, pdu).await?;
                    match federation.0.rooms.receive(&id, pdu, &self.room.gaps).await {
                        Ok(Received::Accepted) => self.taken.events += 1,
                        Ok(Received::Known) => {}
                        Ok(Received::SoftFailed(why) | Received::Rejected(why)) => {
                            self.refuse(event.as_str(), why)
                        }
                        Err(error @ RoomsError::Graph(_)) => return Err(error.into()),
                        Err(error) => self.refuse(event.as_str(), error),
                    }
                }
                Err((_, error)) if is_ours(&error) => return Err(error),
                Err((event, error)) => self.refuse(event.unwrap_or_else(|| id.to_string()), error),
            }
        }
        Ok(())
    }

    // ---- files -------------------------------------------------------------------------------------------------

    async fn begin_file(&mut self, media: Media) -> Result<(), Error> {
        self.flush().await?;
        self.end_file().await?;
        let Some((server, id)) = media.mxc.strip_prefix("mxc://").and_then(|name| name.split_once('/'))
        else {
            return Err(RoomsError::BadJson(format!("{} is no file", media.mxc)).into());
        };
        if server != self.peer().as_str() {
            return Err(RoomsError::BadJson(format!("{} is a file of another server", media.mxc)).into());
        }
        if self.federation.0.media.record(server, id).is_ok() {
            return Ok(());
        }
        let upload = self.federation.0.media.begin_copy(server, id)?;
        let is_empty = media.len == 0;
        self.file = Some((media, upload, 0));
        if is_empty { self.end_file().await } else { Ok(()) }
    }

    fn piece(&mut self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let Some((media, upload, come)) = &mut self.file else { return Ok(()) };
        if offset != *come {
            return Err(RoomsError::BadJson(format!("a piece of {} is missing", media.mxc)).into());
        }
        *come += bytes.len() as u64;
        Ok(upload.push(bytes)?)
    }

    async fn end_file(&mut self) -> Result<(), Error> {
        let Some((media, upload, come)) = self.file.take() else { return Ok(()) };
        if come != media.len {
            return Err(RoomsError::BadJson(format!("{} is not whole", media.mxc)).into());
        }
        upload.finish(media.content_type, media.file_name).await?;
        self.taken.files += 1;
        Ok(())
    }

    /// All has come.
    pub(super) async fn end(mut self) -> Result<Taken, Error> {
        self.flush().await?;
        if let Err(error) = self.end_file().await {
            if is_ours(&error) {
                return Err(error);
            }
            self.refuse("a file", error);
        }
        Ok(self.taken)
    }
}

fn json<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, Error> {
    Ok(serde_json::from_slice(payload).map_err(|error| RoomsError::BadJson(error.to_string()))?)
}

fn bad(error: serde_json::Error) -> Error {
    RoomsError::BadJson(error.to_string()).into()
}

/// Whether it is this server's own trouble, which may pass.
fn is_ours(error: &Error) -> bool {
    matches!(
        error,
        Error::Graph(_)
            | Error::Rooms(RoomsError::Graph(_))
            | Error::Users(postern_users::Error::Graph(_))
            | Error::Media(postern_media::Error::Graph(_))
            | Error::ByHand(_)
            | Error::Border(_)
    )
}
