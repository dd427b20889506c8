//! What is in a bundle: rooms, what users tell each other, keys, files.

use super::{
    plan::{AUTHORIZING, IN_PLACE, Piece, Planner},
    state::{State, forget, keep},
};
use crate::{Error, Federation, devices::told_keys, statement::VALID_AT_MOST_MS};
use postern_border::{ByHand, Joined};
use postern_bundles::{Kind, Media, Missing, Record, RoomHeads, from_hex, limits, spool};
use postern_graph::{
    Commit, EventNum, RoomNum,
    schema::{Media as MediaRecords, RoomServers},
};
use postern_rooms::{Asker, Event, Form, MembershipKind, media_shown, now_ms};
use postern_users::{KeyClaim, QueriedKeys};
use ruma::{RoomId, UserId};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    sync::Arc,
};

/// One-time keys of a device that a server by hand has in advance.
pub(super) const ONE_TIME_KEYS: u32 = 20;
/// The algorithm of the keys that are given out in advance (specification: one-time keys).
const ALGORITHM: &str = "signed_curve25519";
/// Rooms of one bundle, if each has few heads: its header has a bound, too.
const ROOMS: usize = limits::ROOMS as usize / 2;
/// Where it is kept which files wait for the next bundle.
const WAITING: &str = "file_waiting";

/// A bundle that is being made.
pub(super) struct Export<'f> {
    federation: &'f Federation,
    way: &'f ByHand,
    pub(super) label: Joined,
    pub(super) commit: Commit,
    pub(super) outgoing: spool::Outgoing,
    keyframe: bool,
    pub(super) told: BTreeMap<EventNum, u8>,
    pub(super) heads: Vec<RoomHeads>,
    pub(super) missing: Vec<Missing>,
    /// Files that events in it show, `server/id`.
    pub(super) files: BTreeSet<String>,
    pub(super) events: usize,
    pub(super) edus: usize,
    /// Events after which no other room is begun, and bytes after which no other file is.
    most_events: usize,
    most_file_bytes: u64,
    /// What it has no place for is due in the next one.
    pub(super) more: bool,
    pub(super) says_something: bool,
}

fn plain(kind: Kind, json: &impl Serialize) -> Result<Record, Error> {
    let bytes = serde_json::to_vec(json).map_err(|error| postern_rooms::Error::BadJson(error.to_string()))?;
    Ok(Record::Plain(kind, bytes))
}

impl<'f> Export<'f> {
    /// One without anything in it.
    pub(super) fn new(
        federation: &'f Federation,
        way: &'f ByHand,
        out: &postern_border::Outgoing,
        outgoing: spool::Outgoing,
        keyframe: bool,
    ) -> Result<Self, Error> {
        Ok(Self {
            federation,
            way,
            label: federation.border()?.joined(),
            commit: federation.0.graph.begin(),
            outgoing,
            keyframe,
            told: BTreeMap::new(),
            heads: Vec::new(),
            missing: Vec::new(),
            files: BTreeSet::new(),
            events: 0,
            edus: 0,
            most_events: out.events,
            most_file_bytes: out.file_bytes,
            more: false,
            says_something: keyframe,
        })
    }

    /// Adds all that the peer is due, as far as there is place for it.
    pub(super) async fn everything(&mut self, state: &mut State) -> Result<(), Error> {
        let (federation, peer) = (self.federation, &self.way.peer);
        let rooms = &federation.0.rooms;
        let keys = rooms.keys().signed_server_keys(now_ms() + VALID_AT_MOST_MS)?;
        self.outgoing.add(&plain(Kind::Key, &keys)?)?;
        let due = federation.0.outbox.for_bundle(peer, &mut self.commit)?;
        let mut by_room: BTreeMap<RoomNum, BTreeSet<EventNum>> = BTreeMap::new();
        for num in due.events {
            by_room.entry(rooms.event(num)?.record.room).or_default().insert(num);
        }
        self.more = due.more;
        let shared = self.shared_rooms()?;
        for room in self.followed_rooms()? {
            by_room.entry(room).or_default().extend(rooms.head(room)?.unwrap_or_default().extremities);
        }
        for room in &shared {
            by_room.entry(*room).or_default().extend(rooms.head(*room)?.unwrap_or_default().extremities);
        }
        let mut known_to = BTreeSet::new();
        // A keyframe that had no place for all rooms goes on where it stopped.
        let from = state.keyframe_from.take().filter(|_| self.keyframe);
        for (room, ends) in by_room {
            let is_shared = shared.contains(&room);
            // What is told of other rooms is out of the queue, and has to go now.
            if is_shared && self.is_full() {
                self.more = true;
                if self.keyframe {
                    state.keyframe_from.get_or_insert(room.0);
                }
                continue;
            }
            if from.is_some_and(|from| is_shared && room.0 < from) {
                continue;
            }
            self.room(room, &ends.into_iter().collect::<Vec<_>>(), is_shared)?;
            let invited = rooms.members_of(room, MembershipKind::Invite)?.into_iter();
            let invites = invited
                .map(|(user, _)| Ok(rooms.user_id(user)?.server_name() == *peer))
                .collect::<Result<Vec<_>, Error>>()?;
            if is_shared || invites.contains(&true) {
                known_to.extend(rooms.joined_users_of(room, rooms.server_name())?);
            }
        }
        for edu in due.edus {
            // Lists of devices are told as a whole, below.
            let kind = edu.get("edu_type").and_then(Value::as_str);
            if !matches!(kind, Some("m.device_list_update" | "m.signing_key_update")) {
                let mut edu = edu;
                edu["origin"] = rooms.server_name().as_str().into();
                self.outgoing.add(&plain(Kind::Edu, &edu)?)?;
                self.edus += 1;
                self.says_something = true;
            }
        }
        for user in known_to {
            self.keys_of(&rooms.user_id(user)?, state).await?;
        }
        self.wants(state)?;
        self.media(&shared, state).await
    }

    /// Whether no other room is begun.
    fn is_full(&self) -> bool {
        self.told.len() >= self.most_events || self.heads.len() >= ROOMS
    }

    /// The rooms that the peer is in, and may know.
    fn shared_rooms(&self) -> Result<BTreeSet<RoomNum>, Error> {
        let rooms = &self.federation.0.rooms;
        let mut shared = BTreeSet::new();
        for entry in self.federation.0.graph.scan::<RoomServers, _>(&()).iter() {
            let ((room, server), (count, _)) = entry?;
            if count > 0
                && server == self.way.peer.as_str()
                && rooms.is_resident(room)?
                && rooms.may_know(&self.way.peer, room)?
            {
                shared.insert(room);
            }
        }
        Ok(shared)
    }

    /// Where nothing comes back: the rooms that users of the peer are invited to. Nobody hears of their joins.
    fn followed_rooms(&self) -> Result<BTreeSet<RoomNum>, Error> {
        let federation = self.federation;
        let mut followed = BTreeSet::new();
        if self.way.into.is_some() {
            return Ok(followed);
        }
        for (room, _) in federation.all_kept(&self.way.peer, "followed")? {
            if let Some(room) =
                RoomId::parse(room).ok().map(|id| federation.0.rooms.room(&id)).transpose()?.flatten()
            {
                followed.insert(room);
            }
        }
        Ok(followed)
    }

    /// Whether a user of the peer is invited to a room of which nothing comes back.
    fn is_followed(&self, room: RoomNum) -> Result<bool, Error> {
        let rooms = &self.federation.0.rooms;
        if self.way.into.is_some() || !rooms.may_know(&self.way.peer, room)? {
            return Ok(false);
        }
        for (user, _) in rooms.members_of(room, MembershipKind::Invite)? {
            if rooms.user_id(user)?.server_name() == self.way.peer {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn room(&mut self, room: RoomNum, ends: &[EventNum], is_shared: bool) -> Result<(), Error> {
        let (federation, peer) = (self.federation, &self.way.peer);
        let rooms = &federation.0.rooms;
        let is_followed = !is_shared && self.is_followed(room)?;
        let planner = Planner::new(federation, peer, self.keyframe && (is_shared || is_followed))?;
        let id = rooms.room_id(room)?;
        let version = rooms.version_of(room)?.id.to_string();
        if !is_shared {
            let invites: Vec<EventNum> = match self.keyframe && is_followed {
                true => rooms
                    .members_of(room, MembershipKind::Invite)?
                    .into_iter()
                    .map(|(_, event)| event)
                    .collect(),
                false => ends.to_vec(),
            };
            for num in &invites {
                let event = rooms.event(*num)?;
                if event.record.is_visible() && event.membership() == Some(MembershipKind::Invite) {
                    self.invite(&planner, &event, &version)?;
                }
            }
        }
        if is_shared && federation.kept(peer, "history", id.as_str())?.is_none() {
            let history = planner.history(room)?;
            if !history.events.is_empty() {
                let ids = history.events.iter().map(|num| Ok(rooms.event(*num)?.id.to_string()));
                let ids = ids.collect::<Result<Vec<_>, Error>>()?;
                self.authorizing(&history, true)?;
                let marker = json!({ "room_id": id, "history": ids });
                self.outgoing.add(&plain(Kind::StateSnapshot, &marker)?)?;
                self.placed(&history, true)?;
            }
            keep(&mut self.commit, peer, "history", id.as_str(), Vec::new());
        }
        // Invites are told as such.
        let ends: Vec<EventNum> = ends.iter().filter(|num| !self.told.contains_key(num)).copied().collect();
        let piece = planner.piece(&ends)?;
        let depth = |num: &EventNum| Ok::<_, Error>(rooms.event(*num)?.depth());
        let last_depth = piece.events.iter().map(depth).collect::<Result<Vec<_>, _>>()?.into_iter().max();
        let said = self.piece(&piece, is_shared)?;
        if said > 0 {
            let after =
                ends.iter().take(limits::EVENT_IDS as usize).map(|num| Ok(rooms.event(*num)?.id.to_string()));
            self.heads.push(RoomHeads {
                room: id.to_string(),
                version,
                last_depth: last_depth.unwrap_or_default(),
                before: Vec::new(),
                after: after.collect::<Result<_, Error>>()?,
            });
        }
        if !piece.missing.is_empty() {
            let events = piece.missing.iter().take(limits::EVENT_IDS as usize).map(ToString::to_string);
            self.missing.push(Missing { room: id.to_string(), events: events.collect() });
        }
        Ok(())
    }

    /// An invite of a user of the peer, with the room it is for.
    fn invite(&mut self, planner: &Planner<'_>, event: &Arc<Event>, version: &str) -> Result<(), Error> {
        let (federation, peer) = (self.federation, &self.way.peer);
        let rooms = &federation.0.rooms;
        let target = event.state_key().and_then(|user| UserId::parse(user).ok());
        let Some(target) = target.filter(|user| user.server_name() == *peer) else { return Ok(()) };
        let Some(pdu) = federation.0.outbox.form_by_hand(peer, event)? else { return Ok(()) };
        let shown = rooms.state_shown_to(event.record.room, &target, event.sender())?;
        let request = json!({
            "type": "m.invite",
            "room_id": event.room_id,
            "room_version": version,
            "event": pdu,
            "invite_room_state": shown,
        });
        self.outgoing.add(&plain(Kind::Request, &request)?)?;
        self.piece(&planner.invitation(event)?, false)?;
        self.told.insert(event.num, IN_PLACE);
        keep(&mut self.commit, peer, "followed", event.room_id.as_str(), Vec::new());
        self.says_something = true;
        Ok(())
    }

    /// How many events it has.
    fn piece(&mut self, piece: &Piece, is_shared: bool) -> Result<usize, Error> {
        self.authorizing(piece, is_shared)?;
        self.placed(piece, is_shared)
    }

    fn authorizing(&mut self, piece: &Piece, is_shared: bool) -> Result<(), Error> {
        let rooms = &self.federation.0.rooms;
        for num in &piece.authorizing {
            let event = rooms.event(*num)?;
            if let Some(pdu) = self.form(&event, is_shared, true)? {
                self.outgoing.add(&Record::Plain(Kind::AuthPdu, pdu.get().as_bytes().to_vec()))?;
                self.told.entry(*num).or_insert(AUTHORIZING);
                self.says_something = true;
            }
        }
        for snapshot in &piece.snapshots {
            let ids = snapshot.state.iter().map(|num| Ok(rooms.event(*num)?.id.to_string()));
            let json = json!({
                "room_id": snapshot.before.room_id,
                "event_id": snapshot.before.id,
                "state_ids": ids.collect::<Result<Vec<_>, Error>>()?,
            });
            self.state_snapshot(&json)?;
        }
        Ok(())
    }

    /// A large state is told in several parts: a record has a bound.
    fn state_snapshot(&mut self, json: &Value) -> Result<(), Error> {
        const AT_ONCE: usize = 10_000;
        let empty = Vec::new();
        let ids = json.get("state_ids").and_then(Value::as_array).unwrap_or(&empty);
        for part in ids.chunks(AT_ONCE) {
            let mut json = json.clone();
            json["state_ids"] = part.into();
            self.outgoing.add(&plain(Kind::StateSnapshot, &json)?)?;
        }
        Ok(())
    }

    fn placed(&mut self, piece: &Piece, is_shared: bool) -> Result<usize, Error> {
        let mut said = 0;
        for num in &piece.events {
            let event = self.federation.0.rooms.event(*num)?;
            let Some(pdu) = self.form(&event, is_shared, false)? else { continue };
            self.outgoing.add(&Record::Plain(Kind::Pdu, pdu.get().as_bytes().to_vec()))?;
            self.told.insert(*num, IN_PLACE);
            said += 1;
        }
        self.events += said;
        self.says_something |= said > 0;
        Ok(said)
    }

    /// The form in which an event goes to the peer: the same that it would get over the network.
    fn form(
        &mut self,
        event: &Event,
        is_shared: bool,
        is_authorizing: bool,
    ) -> Result<Option<Box<RawValue>>, Error> {
        let (federation, peer) = (self.federation, &self.way.peer);
        let rooms = &federation.0.rooms;
        let pdu = if is_shared {
            let asking = rooms.asking(peer, &event.room_id)?;
            Some(rooms.served(asking, event)?)
        } else if is_authorizing || self.is_told_as_invited(event)? {
            rooms.released(peer, event)?
        } else {
            federation.0.outbox.form_by_hand(peer, event)?
        };
        if pdu.is_some() {
            let is_whole = rooms.form_for(peer, event)? == Form::Whole;
            federation.border()?.join_label(&mut self.label, rooms, event, is_whole)?;
            if is_whole {
                self.files.extend(media_shown(event));
            }
        }
        Ok(pdu)
    }

    /// Whether an event is told although the peer's users are only invited, as far as this side knows.
    fn is_told_as_invited(&self, event: &Event) -> Result<bool, Error> {
        if !event.record.is_visible() || !self.is_followed(event.record.room)? {
            return Ok(false);
        }
        let rooms = &self.federation.0.rooms;
        let rule = rooms.state_in(event.record.state_before, "m.room.history_visibility", "")?;
        let rule = rule.and_then(|event| event.content_text("history_visibility"));
        Ok(event.state_key().is_some() || rule.as_deref() != Some("joined"))
    }

    /// The keys of a local user whom the peer's users may write to, if they are others than were told, and one-time keys.
    async fn keys_of(&mut self, user: &UserId, state: &mut State) -> Result<(), Error> {
        let (federation, peer) = (self.federation, &self.way.peer);
        let keys = told_keys(federation, user)?;
        let devices: Vec<String> = keys.devices.keys().cloned().collect();
        let mut found = QueriedKeys::default();
        keys.add_to(&mut found, user, &[]);
        let told = json!({
            "device_keys": found.device_keys,
            "master_keys": found.master_keys,
            "self_signing_keys": found.self_signing_keys,
        });
        let hash = Sha256::digest(told.to_string()).to_vec();
        if self.keyframe || federation.kept(peer, "told_keys", user.as_str())?.as_ref() != Some(&hash) {
            self.outgoing.add(&plain(Kind::DeviceKeys, &told)?)?;
            keep(&mut self.commit, peer, "told_keys", user.as_str(), hash);
            self.says_something = true;
        }
        for device in devices {
            let name = format!("{user} {device}");
            let asked = state.wanted.get_mut(user.as_str()).and_then(|devices| devices.remove(&device));
            let wanted = match asked {
                Some(count) => count.min(ONE_TIME_KEYS),
                None if federation.kept(peer, "given_keys", &name)?.is_none() => ONE_TIME_KEYS,
                None => continue,
            };
            self.one_time_keys(user, &device, wanted).await?;
            keep(&mut self.commit, peer, "given_keys", &name, Vec::new());
        }
        Ok(())
    }

    /// Gives out one-time keys in advance: nobody else gets them.
    async fn one_time_keys(&mut self, user: &UserId, device: &str, wanted: u32) -> Result<(), Error> {
        let mut given = BTreeMap::new();
        let claim =
            KeyClaim::from([(user.to_owned(), BTreeMap::from([(device.to_owned(), ALGORITHM.to_owned())]))]);
        for _ in 0..wanted {
            let mut claimed = self.federation.0.users.claim_keys(&claim).await?;
            let keys = claimed.remove(user).and_then(|mut devices| devices.remove(device));
            let Some((id, key)) = keys.into_iter().flatten().next() else { break };
            let is_fallback = key.get("fallback") == Some(&true.into());
            // The fallback key is given again and again.
            if given.insert(id, key).is_some() || is_fallback {
                break;
            }
        }
        if given.is_empty() {
            return Ok(());
        }
        let json = json!({ "one_time_keys": { user.as_str(): { device: given } } });
        self.outgoing.add(&plain(Kind::OneTimeKeys, &json)?)?;
        self.says_something = true;
        Ok(())
    }

    /// What this side asks for: one-time keys that are used up.
    fn wants(&mut self, state: &mut State) -> Result<(), Error> {
        state.wanted.retain(|_, devices| !devices.is_empty());
        if self.way.into.is_none() {
            return Ok(());
        }
        let wanted = self.federation.used_up(&self.way.peer)?;
        if !wanted.is_empty() {
            let request = json!({ "type": "m.one_time_keys", "wanted": wanted });
            self.outgoing.add(&plain(Kind::Request, &request)?)?;
            self.says_something = true;
        }
        Ok(())
    }

    /// Files: those that events in the bundle show, and those that users may have shown in encrypted rooms, where no event says which.
    async fn media(&mut self, shared: &BTreeSet<RoomNum>, state: &mut State) -> Result<(), Error> {
        let federation = self.federation;
        let (rooms, own) = (&federation.0.rooms, federation.0.rooms.server_name());
        let mut uploaders = BTreeSet::new();
        for room in shared {
            if rooms.state(*room, "m.room.encryption", "")?.is_some() {
                uploaders.extend(rooms.joined_users_of(*room, own)?);
            }
        }
        let (since, until) = (state.files_until, now_ms());
        if !uploaders.is_empty() {
            for entry in federation.0.graph.scan::<MediaRecords, _>(&(own.as_str().to_owned(),)).iter() {
                let ((_, id), _) = entry?;
                let Ok(record) = federation.0.media.record(own.as_str(), &id) else { continue };
                let name = format!("{own}/{id}");
                if record.created >= since
                    && uploaders.contains(&record.uploader)
                    && rooms.events_showing(&name, 1)?.is_empty()
                {
                    self.files.insert(name);
                }
            }
            state.files_until = until;
        }
        let mut files = std::mem::take(&mut self.files);
        files.extend(federation.all_kept(&self.way.peer, WAITING)?.into_iter().map(|(name, _)| name));
        let mut bytes = 0;
        for name in files {
            let Some((server, id)) = name.split_once('/') else { continue };
            if bytes >= self.most_file_bytes {
                keep(&mut self.commit, &self.way.peer, WAITING, &name, Vec::new());
                self.more = true;
                continue;
            }
            forget(&mut self.commit, &self.way.peer, WAITING, &name);
            if server != own.as_str()
                || !self.keyframe && federation.kept(&self.way.peer, "file", id)?.is_some()
                || !rooms.may_fetch(Asker::Server(&self.way.peer), &name)?
            {
                continue;
            }
            if let Some(gate) = rooms.gate()
                && !gate.may_leave(&self.way.peer, &name).await?
            {
                continue;
            }
            if let Some(size) = self.file(server, id)? {
                bytes += size;
                keep(&mut self.commit, &self.way.peer, "file", id, Vec::new());
                self.says_something = true;
                self.files.insert(name);
            }
        }
        Ok(())
    }

    /// Adds a file, if it is there. Its bytes.
    fn file(&mut self, server: &str, id: &str) -> Result<Option<u64>, Error> {
        let federation = self.federation;
        let Ok(record) = federation.0.media.record(server, id) else { return Ok(None) };
        let Some(sha256) = from_hex(&record.sha256) else { return Ok(None) };
        let media = Media {
            sha256,
            len: record.size,
            mxc: format!("mxc://{server}/{id}"),
            content_type: record.content_type,
            file_name: record.file_name,
        };
        let pieces = federation.0.media.read(server, id, 0..record.size);
        self.outgoing.add_media(&media, Pieces { pieces, rest: bytes::Bytes::new() })?;
        Ok(Some(record.size))
    }
}

/// A file as it is read.
struct Pieces {
    pieces: postern_media::Pieces,
    rest: bytes::Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.rest = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let part = self.rest.split_to(self.rest.len().min(buffer.len()));
        for (to, from) in buffer.iter_mut().zip(&part) {
            *to = *from;
        }
        Ok(part.len())
    }
}
