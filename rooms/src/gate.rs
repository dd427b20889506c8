//! The gate: who, beyond the rules of rooms, may know what. The rules of a room are the same on all its servers; the gate is
//! this server's own.
//!
//! Everything that leaves this server, or reaches its users, passes here: an event before it is sent or served to another server
//! ([`Gate::released`]) or shown to a user ([`Gate::may_read`]), an event of another server before it is part of a room
//! ([`Gate::admitted`]), whoever comes into a room ([`Gate::knows`], [`Gate::may_enter`]). Without a gate, all that the rules
//! allow passes.

use crate::{Asker, CreateRoom, Draft, Error, Event, Relation, rooms::Rooms, version::Version, view::Viewer};
use postern_graph::{EventNum, RoomNum, schema::MediaReferences};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, OwnedUserId, RoomId, ServerName, UserId,
    canonical_json::redact_in_place,
};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc};

/// The content key of labels, in create events and others.
pub const LABEL: &str = "io.postern.label";
/// The content key, in create events, of the room's rule for end-to-end encryption.
pub const ENCRYPTION: &str = "io.postern.encryption";
/// The content key of the salt that keeps a redacted copy from being guessed: with it, nobody who knows the hash of
/// an event's content can find out by trying what the content was.
pub const SALT: &str = "io.postern.salt";

/// Types of state that are never sent redacted: other servers could not tell who may do what, that the room is encrypted, or
/// where it has gone. What stands in them is no secret from any server of the room.
pub const NEVER_REDACTED: [&str; 10] = [
    "m.room.create",
    "m.room.member",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.history_visibility",
    "m.room.third_party_invite",
    "m.room.encryption",
    "m.room.policy",
    "m.room.server_acl",
    "m.room.tombstone",
];

/// In which form a server gets an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Whole,
    /// As its redacted copy: same id, same signatures, same meaning for the room's state, no content.
    Redacted,
    /// Not at all: the server may not know the room.
    Nothing,
}

/// How a user comes to know a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// By joining it, or knocking at it.
    Join,
    /// By being invited to it.
    Invite,
    /// By looking at what a directory or a space says of it.
    Look,
}

/// What a gate does later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Digests (SHA-256) of public keys: of their `SubjectPublicKeyInfo` (RFC 7469, section 2.4).
pub type Pins = Arc<[[u8; 32]]>;

/// Decides what crosses the border. What it is asked it answers from what is stored and from its policies, at once.
pub trait Gate: Send + Sync + Debug {
    /// Whether this server speaks with another one at all now.
    fn speaks_with(&self, server: &ServerName) -> bool;

    /// Whether a server that is not spoken with now is at other hours.
    fn speaks_later(&self, _server: &ServerName) -> bool {
        false
    }

    /// Whether a server is reached by hand only: nothing goes to it or is taken from it over the network.
    fn is_by_hand(&self, _server: &ServerName) -> bool {
        false
    }

    /// Digests (SHA-256) of the public keys of which a server's certificates have to have one; none if any will do.
    fn pins(&self, _server: &ServerName) -> Pins {
        Pins::default()
    }

    /// Notes that a server showed another key than one of these, or none.
    fn other_key(&self, _server: &ServerName, _why: &str) {}

    /// Whether another server may make one more request now.
    fn takes_request(&self, server: &ServerName) -> bool;

    /// Whether users here may write to the devices of users of a server with whom they share no room.
    fn writes_to_strangers(&self, server: &ServerName) -> bool;

    /// Whether a server may know a room and be in it.
    ///
    /// # Errors
    /// The store's.
    fn knows(&self, rooms: &Rooms, server: &ServerName, room: RoomNum) -> Result<bool, Error>;

    /// In which form a server gets an event of a room. The answer for an event and a server stays the same.
    ///
    /// # Errors
    /// The store's.
    fn released(&self, rooms: &Rooms, server: &ServerName, event: &Event) -> Result<Form, Error>;

    /// Waits until it is on disk which events were released. Before, none of them may leave.
    fn settled(&self) -> Later<'_, ()>;

    /// Notes that nothing of what was to bring these events to a server has left. Those that were released for that alone count as
    /// if they had not been.
    fn not_sent<'a>(&'a self, _server: &'a ServerName, _events: &'a [EventNum]) -> Later<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Why an event of another server is not let in. It is then kept in quarantine, and not shown.
    ///
    /// # Errors
    /// The store's.
    fn admitted(&self, rooms: &Rooms, event: &Event) -> Result<Option<String>, Error>;

    /// A soft-failed event of another server is state of its room nevertheless: by the rules of the room, which are not this
    /// server's to change. It may be one that was not admitted.
    fn overruled(&self, _rooms: &Rooms, _event: &Event) {}

    /// Why a user, or somebody who does not say who they are, may not come to know a room.
    ///
    /// # Errors
    /// The store's.
    fn may_enter(
        &self,
        rooms: &Rooms,
        user: Option<&UserId>,
        room: RoomNum,
        entry: Entry,
    ) -> Result<Option<String>, Error>;

    /// Why a local user may not be in a room of another server, with the content of its create event as far as that is known.
    ///
    /// # Errors
    /// The store's.
    fn may_enter_elsewhere(
        &self,
        rooms: &Rooms,
        user: &UserId,
        room: &RoomId,
        create: Option<&RawValue>,
    ) -> Result<Option<String>, Error>;

    /// Whether a user may read an event which the rules of its room let them see.
    ///
    /// # Errors
    /// The store's.
    fn may_read(&self, rooms: &Rooms, viewer: &Viewer<'_>, event: &Event) -> Result<bool, Error>;

    /// In which form a push gateway, which is nobody's and often somebody else's, is told of an event that a user may read: as it
    /// is, by its id alone, or not at all.
    ///
    /// # Errors
    /// The store's.
    fn pushed(&self, _rooms: &Rooms, _viewer: &Viewer<'_>, _event: &Event) -> Result<Form, Error> {
        Ok(Form::Whole)
    }

    /// The public key by which this server signs as a policy server, unpadded base64.
    fn policy_key(&self) -> String;

    /// Whether this server offers itself as a policy server.
    fn is_policy_server(&self) -> bool;

    /// This server's signature as a policy server under an event that has no place in its room yet, or why there is none.
    ///
    /// # Errors
    /// The store's.
    fn recommended(
        &self,
        rooms: &Rooms,
        version: &Version,
        event: &Event,
    ) -> Result<Result<String, String>, Error>;

    /// Whether a user may join a labelled room because they are cleared for it, where its join rules ask for that.
    ///
    /// # Errors
    /// The store's.
    fn clears(&self, rooms: &Rooms, user: &UserId, room: RoomNum) -> Result<bool, Error>;

    /// Whether a user is cleared for all that may be said in a room.
    ///
    /// # Errors
    /// The store's.
    fn may_read_all(&self, rooms: &Rooms, user: &UserId, room: RoomNum) -> Result<bool, Error>;

    /// Whether a user or a server may have a file, `server/id`.
    ///
    /// # Errors
    /// The store's.
    fn may_fetch(&self, rooms: &Rooms, asker: Asker<'_>, media: &str) -> Result<bool, Error>;

    /// Whether a file of this server may go to another one as far as what is in it goes, which is looked at.
    fn may_leave<'a>(&'a self, _server: &'a ServerName, _media: &'a str) -> Later<'a, bool> {
        Box::pin(async { Ok(true) })
    }

    /// A local user wants to upload a file of a type, and may say which label it has: the label it gets, in the form in which it
    /// is kept.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the reason.
    fn uploading(
        &self,
        _user: &UserId,
        _device: &str,
        _content_type: Option<&str>,
        _label: Option<&str>,
    ) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Local users who are in a room with this create event from the beginning.
    fn always_in(&self, _create: &Map<String, Value>) -> Vec<OwnedUserId> {
        Vec::new()
    }

    /// A local user wants to create a room: what is asked for may be changed, or refused.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the reason.
    fn creating(&self, rooms: &Rooms, creator: &UserId, request: &mut CreateRoom) -> Result<(), Error>;

    /// A local user wants to say something in a room that was created by `create`: it may be changed, or refused. `related` are
    /// the events it relates to.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the reason.
    fn saying(
        &self,
        rooms: &Rooms,
        create: &Event,
        sender: &UserId,
        draft: &mut Draft,
        related: &[Arc<Event>],
    ) -> Result<(), Error>;
}

impl Rooms {
    /// From now on `gate` decides what crosses the border.
    pub fn guard(&self, gate: Arc<dyn Gate>) {
        // The first stands: there is one border.
        let _ = self.gate.set(gate);
    }

    /// The gate, if there is one.
    #[must_use]
    pub fn gate(&self) -> Option<&Arc<dyn Gate>> {
        self.gate.get()
    }

    /// Whether this server speaks with another one, as far as the gate is concerned.
    #[must_use]
    pub fn speaks_with(&self, server: &ServerName) -> bool {
        self.gate().is_none_or(|gate| gate.speaks_with(server))
    }

    /// Whether a server with which this one does not speak now is spoken with at other hours.
    #[must_use]
    pub fn speaks_later(&self, server: &ServerName) -> bool {
        self.gate().is_some_and(|gate| gate.speaks_later(server))
    }

    /// Whether a server is reached by hand only, and never over the network.
    #[must_use]
    pub fn is_by_hand(&self, server: &ServerName) -> bool {
        self.gate().is_some_and(|gate| gate.is_by_hand(server))
    }

    /// # Errors
    /// [`Error::Forbidden`] if a local user may not be in a room of another server, with the content of its create event as far
    /// as that is known.
    pub fn check_entry_elsewhere(
        &self,
        user: &UserId,
        room: &RoomId,
        create: Option<&RawValue>,
    ) -> Result<(), Error> {
        let refused = self.gate().map(|gate| gate.may_enter_elsewhere(self, user, room, create));
        match refused.transpose()?.flatten() {
            None => Ok(()),
            Some(why) => Err(Error::Forbidden(why)),
        }
    }

    /// Whether a server may know a room, as far as this server is concerned.
    ///
    /// # Errors
    /// The store's.
    pub fn may_know(&self, server: &ServerName, room: RoomNum) -> Result<bool, Error> {
        self.gate().map_or(Ok(true), |gate| gate.knows(self, server, room))
    }

    /// In which form a server gets an event that it may see by the rules of the room.
    ///
    /// # Errors
    /// The store's.
    pub fn form_for(&self, server: &ServerName, event: &Event) -> Result<Form, Error> {
        self.gate().map_or(Ok(Form::Whole), |gate| gate.released(self, server, event))
    }

    /// The PDU of an event as a server gets it that may see it by the rules of the room; nothing if it may not know the room.
    /// It may leave once [`Rooms::settled`] says so.
    ///
    /// # Errors
    /// The store's.
    pub fn released(&self, server: &ServerName, event: &Event) -> Result<Option<Box<RawValue>>, Error> {
        match self.form_for(server, event)? {
            Form::Whole => text(event.json().to_owned()).map(Some),
            Form::Redacted => self.redacted_copy(event).map(Some),
            Form::Nothing => Ok(None),
        }
    }

    /// Whether a user or a server may have a file, `server/id`.
    ///
    /// # Errors
    /// The store's.
    pub fn may_fetch(&self, asker: Asker<'_>, media: &str) -> Result<bool, Error> {
        self.gate().map_or(Ok(true), |gate| gate.may_fetch(self, asker, media))
    }

    /// The events that show a file, `server/id`, the first ones, at most so many.
    ///
    /// # Errors
    /// The store's.
    pub fn events_showing(&self, media: &str, most: usize) -> Result<Vec<Arc<Event>>, Error> {
        let shown = self.graph.scan::<MediaReferences, _>(&(media.to_owned(),));
        shown.iter().take(most).map(|entry| self.event(entry?.0.1)).collect()
    }

    /// Waits until what was released may leave.
    ///
    /// # Errors
    /// The store's.
    pub async fn settled(&self) -> Result<(), Error> {
        match self.gate() {
            Some(gate) => gate.settled().await,
            None => Ok(()),
        }
    }

    /// Notes that nothing of what was to bring these events to a server has left.
    ///
    /// # Errors
    /// The store's.
    pub async fn not_sent(&self, server: &ServerName, events: &[EventNum]) -> Result<(), Error> {
        match self.gate() {
            Some(gate) => gate.not_sent(server, events).await,
            None => Ok(()),
        }
    }

    /// # Errors
    /// [`Error::Forbidden`] if a user may not come to know a room.
    pub fn check_entry(&self, user: &UserId, room: RoomNum, entry: Entry) -> Result<(), Error> {
        match self.gate().map_or(Ok(None), |gate| gate.may_enter(self, Some(user), room, entry))? {
            None => Ok(()),
            Some(why) => Err(Error::Forbidden(why)),
        }
    }

    /// # Errors
    /// [`Error::Forbidden`] if by an event somebody would come into a room who may not.
    pub(crate) fn check_entry_by(&self, room: RoomNum, draft: &Draft) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Member {
            membership: String,
        }
        let Some(key) = draft.state_key.as_deref().filter(|_| draft.event_type == "m.room.member") else {
            return Ok(());
        };
        let (Ok(user), Ok(content)) =
            (<&UserId>::try_from(key), serde_json::from_str::<Member>(draft.content.get()))
        else {
            return Ok(());
        };
        let is_in = self.user(user)?.map_or(Ok(false), |number| self.is_joined(room, number))?;
        match content.membership.as_str() {
            // Who is in it changes their name in it.
            "join" if is_in => Ok(()),
            "join" | "knock" => self.check_entry(user, room, Entry::Join),
            "invite" => self.check_entry(user, room, Entry::Invite),
            _ => Ok(()),
        }
    }

    /// The same as an answer, for what is left out where it may not be seen.
    ///
    /// # Errors
    /// The store's.
    pub fn may_enter(&self, user: Option<&UserId>, room: RoomNum, entry: Entry) -> Result<bool, Error> {
        Ok(self.gate().map_or(Ok(None), |gate| gate.may_enter(self, user, room, entry))?.is_none())
    }

    /// The aliases of a room that a user may be told. They have no label of their own, and so that of the room.
    ///
    /// # Errors
    /// The store's.
    pub fn aliases_for(&self, user: &UserId, room: RoomNum) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let may_see = self.gate().map_or(Ok(true), |gate| gate.may_read_all(self, user, room))?;
        if may_see { self.aliases(room) } else { Ok(Vec::new()) }
    }

    /// Whether what an event says may be told to who asks.
    ///
    /// # Errors
    /// The store's.
    pub(crate) fn may_be_told(&self, asker: Asker<'_>, event: &Event) -> Result<bool, Error> {
        match asker {
            Asker::Server(server) => Ok(self.form_for(server, event)? == Form::Whole),
            Asker::User(Some(user_id)) => self.may_be_told(Asker::Device(user_id, ""), event),
            Asker::Device(user_id, device_id) => match self.user(user_id)? {
                Some(user) => self.may_read(&Viewer { user, user_id, device_id }, event),
                None => self.may_enter(None, event.record.room, Entry::Look),
            },
            // Such a room has no label.
            Asker::User(None) => self.may_enter(None, event.record.room, Entry::Look),
        }
    }

    /// What an event says, as a user may read it.
    ///
    /// # Errors
    /// The store's.
    pub fn content_for(&self, viewer: &Viewer<'_>, event: &Event) -> Result<Box<RawValue>, Error> {
        if self.may_read(viewer, event)? {
            Ok(event.content().to_owned())
        } else {
            self.redacted_content(event)
        }
    }

    /// In which form a push gateway is told of an event for a user on a device.
    ///
    /// # Errors
    /// The store's.
    pub fn pushed(&self, viewer: &Viewer<'_>, event: &Event) -> Result<Form, Error> {
        if !self.may_read(viewer, event)? {
            return Ok(Form::Nothing);
        }
        self.gate().map_or(Ok(Form::Whole), |gate| gate.pushed(self, viewer, event))
    }

    /// Whether the gate lets a user read an event.
    pub(crate) fn may_read(&self, viewer: &Viewer<'_>, event: &Event) -> Result<bool, Error> {
        self.gate().map_or(Ok(true), |gate| gate.may_read(self, viewer, event))
    }

    /// The redacted copy of an event: it has the same id and still carries its signatures.
    pub(crate) fn redacted_copy(&self, event: &Event) -> Result<Box<RawValue>, Error> {
        let mut pdu: CanonicalJsonObject =
            serde_json::from_str(event.json()).map_err(|error| Error::BadJson(error.to_string()))?;
        redact_in_place(&mut pdu, &self.version_of(event.record.room)?.rules.redaction, None)
            .map_err(|error| Error::BadJson(error.to_string()))?;
        let json = serde_json::to_string(&CanonicalJsonValue::Object(pdu))
            .map_err(|error| Error::BadJson(error.to_string()))?;
        text(json)
    }

    /// What is left of an event's content in its redacted copy.
    pub(crate) fn redacted_content(&self, event: &Event) -> Result<Box<RawValue>, Error> {
        #[derive(Deserialize)]
        struct Copy {
            content: Box<RawValue>,
        }
        let copy: Copy = serde_json::from_str(self.redacted_copy(event)?.get())
            .map_err(|error| Error::BadJson(error.to_string()))?;
        Ok(copy.content)
    }

    /// The events of the same room that an event with this content relates to, as far as they are known.
    ///
    /// # Errors
    /// The store's.
    pub fn related_by(&self, room: &RoomId, content: &RawValue) -> Result<Vec<Arc<Event>>, Error> {
        let mut related = Vec::new();
        for id in Relation::in_content(content).iter().flat_map(Relation::targets) {
            related.extend(self.event_by_id(&id)?.filter(|event| event.room_id == *room));
        }
        Ok(related)
    }
}

fn text(json: String) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(json).map_err(|error| Error::BadJson(error.to_string()))
}
