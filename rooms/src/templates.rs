//! Joining, knocking and leaving across servers: a server of the room proposes the event, the user's server makes it,
//! the server of the room takes it in (specification: joining rooms, leaving rooms, knocking upon a room).

use crate::{
    Entry, Error, Event, Verified,
    batch::{Batch, Draft},
    limits,
    membership::{Admission, admission},
    rooms::Rooms,
    version::{Version, version},
};
use postern_graph::{
    RoomNum,
    event::{MembershipKind, RoomHead},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, RoomId, UserId,
    events::TimelineEventType, room_version_rules::EventsReferenceFormatVersion,
};
use serde_json::{Map, Value};

/// A hash of a reference in room versions 1 and 2, base64, in bytes: more than any in use.
const HASH_BYTES: usize = 128;

impl Rooms {
    /// The event by which a user of another server would join, knock at or leave a room of this server, without hashes
    /// and signatures, and the room's version.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the room's rules say no, [`Error::IncompatibleVersion`] if the room's version is none
    /// of `versions`, [`Error::UnableToAuthorise`], [`Error::UnableToGrant`] for restricted rooms.
    pub fn template(
        &self,
        room: &RoomId,
        user: &UserId,
        membership: MembershipKind,
        versions: Option<&[String]>,
    ) -> Result<(String, CanonicalJsonObject), Error> {
        let number = self.known_room(room)?;
        if !self.is_resident(number)? {
            return Err(Error::not_found("this server is not in the room"));
        }
        // The same answer as where this server does not know the room.
        if !self.may_know(user.server_name(), number)? {
            return Err(Error::not_found("this server is not in the room"));
        }
        if membership != MembershipKind::Leave {
            self.check_entry(user, number, Entry::Join)?;
        }
        self.has_whole_state(number)?;
        let batch = self.batch(number)?;
        let version = batch.version.id.to_string();
        if versions.is_some_and(|versions| !versions.contains(&version)) {
            return Err(Error::IncompatibleVersion(version));
        }
        let mut content = Map::from_iter([("membership".to_owned(), Value::from(membership.as_str()))]);
        let before = batch.state("m.room.member", user.as_str())?.and_then(|event| event.membership());
        if membership == MembershipKind::Join {
            match admission(&batch, user, before)? {
                Admission::By(member) => {
                    content.insert("join_authorised_via_users_server".to_owned(), member.to_string().into());
                }
                Admission::Unknown => {
                    return Err(Error::UnableToAuthorise(
                        "this server is in none of the rooms that allow joining".to_owned(),
                    ));
                }
                Admission::NobodyMay => {
                    return Err(Error::UnableToGrant(
                        "nobody on this server may invite to the room".to_owned(),
                    ));
                }
                Admission::NotNeeded | Admission::NotEntitled => {}
            }
        }
        let mut pdu = batch.build(user, &Draft::state("m.room.member", user.as_str(), &content)?)?;
        pdu.remove("event_id");
        batch.allowed_now(&pdu)?;
        Ok((version, pdu))
    }

    /// Makes the event that another server proposed for a local user. Of the proposal only what the event follows on and
    /// is authorized by is taken, its depth, and for a restricted room who authorizes it.
    ///
    /// # Errors
    /// [`Error::BadJson`] if the proposal is none, [`Error::UnsupportedVersion`].
    pub fn complete(
        &self,
        room: &RoomId,
        room_version: &str,
        user: &UserId,
        membership: MembershipKind,
        mut content: Map<String, Value>,
        template: &CanonicalJsonObject,
    ) -> Result<Verified, Error> {
        let version = version(room_version)?;
        content.insert("membership".to_owned(), membership.as_str().into());
        content.remove("join_authorised_via_users_server");
        if membership == MembershipKind::Join
            && let Some(member) = template
                .get("content")
                .and_then(CanonicalJsonValue::as_object)
                .and_then(|content| content.get("join_authorised_via_users_server"))
                .and_then(CanonicalJsonValue::as_str)
        {
            let member = UserId::parse(member).map_err(|error| Error::BadJson(error.to_string()))?;
            content.insert("join_authorised_via_users_server".to_owned(), member.to_string().into());
        }
        let head = RoomHead::default();
        let batch =
            Batch::new(self, self.graph.begin(), RoomNum::NONE, room.to_owned(), version.clone(), head);
        let mut pdu = batch.frame(user, &Draft::state("m.room.member", user.as_str(), &content)?)?;
        for (name, most) in
            [("prev_events", limits::PREV_EVENTS), ("auth_events", limits::TEMPLATE_AUTH_EVENTS)]
        {
            let list = template.get(name).and_then(CanonicalJsonValue::as_array);
            let fits = |list: &&[CanonicalJsonValue]| {
                list.len() <= most && list.iter().all(|entry| is_reference(entry, &version))
            };
            let list = list.filter(fits).ok_or_else(|| {
                Error::BadJson(format!("the proposed event has no list of at most {most} {name}"))
            })?;
            pdu.insert(name.to_owned(), CanonicalJsonValue::Array(list.to_vec()));
        }
        let depth = template.get("depth").and_then(CanonicalJsonValue::as_integer);
        let depth = depth.filter(|depth| *depth >= ruma::int!(0)).unwrap_or(ruma::int!(1));
        pdu.insert("depth".to_owned(), CanonicalJsonValue::Integer(depth));
        let (id, json) = batch.seal(pdu)?;
        Ok(Verified::own(id, json, &version))
    }

    /// This server's signature, under a membership of another server's user that a local user has to do with: an invite
    /// of one, or a join that one authorises.
    ///
    /// # Errors
    /// [`Error::Signing`] if it is neither.
    pub fn cosign(&self, room_version: &str, pdu: &mut CanonicalJsonObject) -> Result<(), Error> {
        self.keys.cosign(pdu, &*version(room_version)?)
    }

    /// Whether this server may let a user join who names a local user as authorising it: the user is in a room that allows
    /// joining, or needs nobody's leave.
    ///
    /// # Errors
    /// [`Error::BadJson`] if it is the join of nobody.
    pub fn admits(&self, room: &RoomId, pdu: &CanonicalJsonObject) -> Result<bool, Error> {
        let user = pdu.get("sender").and_then(CanonicalJsonValue::as_str).unwrap_or_default();
        let user = UserId::parse(user).map_err(|error| Error::BadJson(error.to_string()))?;
        let batch = self.batch(self.known_room(room)?)?;
        let before = batch.state("m.room.member", user.as_str())?.and_then(|event| event.membership());
        Ok(matches!(admission(&batch, &user, before)?, Admission::By(_) | Admission::NotNeeded))
    }

    /// Whether a join names a local user as the one who authorises it, so that this server has to sign it.
    #[must_use]
    pub fn authorises(&self, pdu: &CanonicalJsonObject) -> bool {
        pdu.get("content")
            .and_then(CanonicalJsonValue::as_object)
            .and_then(|content| content.get("join_authorised_via_users_server"))
            .and_then(CanonicalJsonValue::as_str)
            .and_then(|user| UserId::parse(user).ok())
            .is_some_and(|user| self.is_local(&user))
    }
}

/// Whether an entry of another server's list of events is a reference to an event and nothing more: it will be signed.
fn is_reference(entry: &CanonicalJsonValue, version: &Version) -> bool {
    let is_id = |id: &CanonicalJsonValue| id.as_str().is_some_and(|id| EventId::parse(id).is_ok());
    match (version.rules.events_reference_format, entry) {
        (EventsReferenceFormatVersion::V1, CanonicalJsonValue::Array(pair)) => {
            let [id, CanonicalJsonValue::Object(hashes)] = pair.as_slice() else { return false };
            is_id(id)
                && hashes.values().all(|hash| hash.as_str().is_some_and(|hash| hash.len() <= HASH_BYTES))
        }
        (EventsReferenceFormatVersion::V1, _) => false,
        (_, id) => is_id(id),
    }
}

impl Batch<'_> {
    /// Whether the room's rules allow a PDU that is not an event yet.
    fn allowed_now(&self, pdu: &CanonicalJsonObject) -> Result<(), Error> {
        let id: OwnedEventId =
            EventId::parse("$proposed").map_err(|error| Error::BadJson(error.to_string()))?;
        let json = serde_json::to_string(pdu).map_err(|error| Error::BadJson(error.to_string()))?;
        let event = Event::unplaced(self.room, self.room_id.clone(), id, json.into_boxed_str())?;
        self.allowed_in(self.head.state, &event)?.map_err(Error::forbidden)
    }
}

/// Checks that a PDU is a membership of this kind that a user of `server` gives themselves.
///
/// # Errors
/// [`Error::BadJson`].
pub fn check_own_membership(
    pdu: &CanonicalJsonObject,
    membership: MembershipKind,
    server: &ruma::ServerName,
) -> Result<(), Error> {
    let text = |name: &str| pdu.get(name).and_then(CanonicalJsonValue::as_str);
    let said = pdu
        .get("content")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|content| content.get("membership"))
        .and_then(CanonicalJsonValue::as_str);
    let sender = text("sender").and_then(|sender| UserId::parse(sender).ok());
    let own = sender
        .is_some_and(|sender| sender.server_name() == server && text("state_key") == Some(sender.as_str()));
    let kind = TimelineEventType::RoomMember.to_string();
    if text("type") == Some(kind.as_str()) && said == Some(membership.as_str()) && own {
        return Ok(());
    }
    Err(Error::BadJson(format!("it is no {} of a user of {server}", membership.as_str())))
}
