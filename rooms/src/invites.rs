//! Memberships of rooms this server is not in: invites it gets, knocks it makes, and their ends; and invites of this
//! server's users to others (specification: inviting to a room, knocking upon a room).

use crate::{
    Entry, Error, Event, MembershipChange, Received, Verified, batch::Batch, limits,
    membership::draft_membership, rooms::Rooms,
};
use postern_graph::{
    NameKind, Pos, RoomNum, UserNum,
    codec::{Json, Raw},
    event::{EventLinks, MembershipKind, RoomRecord, flags},
    schema::{InviteStates, Rooms as RoomRecords},
};
use ruma::{OwnedEventId, RoomId, UserId};
use serde_json::value::RawValue;

impl Rooms {
    /// Notes a membership of a local user in a room this server is not in, with the state the user is shown of it.
    /// The event was checked by the caller: it is signed by the server it comes from, and is of the user.
    ///
    /// # Errors
    /// [`Error::BadJson`] if it is no membership of this room, [`Error::BadState`] if this server is in the room.
    pub async fn note_membership(
        &self,
        room_id: &RoomId,
        event: Verified,
        shown: &[Box<RawValue>],
    ) -> Result<(), Error> {
        let version = crate::version::version(event.version())?;
        let mut commit = self.graph.begin();
        let room = RoomNum(self.graph.intern(NameKind::Room, room_id.as_str(), &mut commit)?);
        let seq = {
            let _lane = self.lane(room).await;
            if self.is_resident(room)? {
                return Err(Error::BadState("this server is in the room".to_owned()));
            }
            if self.record(room)?.is_none() {
                let record = RoomRecord {
                    version: version.id.to_string(),
                    create: None,
                    room_type: None,
                    federate: true,
                };
                commit.put::<RoomRecords>(&(room,), &Json(record));
            }
            let head = self.head(room)?;
            let known = head.is_some();
            let mut batch =
                Batch::new(self, commit, room, room_id.to_owned(), version, head.unwrap_or_default());
            batch.note(event, shown)?;
            batch.commit_apart(known)?
        };
        self.durable(seq).await
    }

    /// What a user was shown of a room this server is not in, when invited or knocking.
    pub fn shown_of(&self, room: RoomNum, user: UserNum) -> Result<Option<Vec<Box<RawValue>>>, Error> {
        let Some(Raw(stored)) = self.graph.get::<InviteStates>(&(user, room))? else { return Ok(None) };
        serde_json::from_slice(&stored).map(Some).map_err(|error| Error::BadJson(error.to_string()))
    }

    /// The event by which a local user invites one of another server, and what that one is shown of the room. It is no
    /// part of the room before the other server has signed it, and [`Self::finish_invite`].
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the room's rules say no.
    pub async fn draft_invite(
        &self,
        sender: &UserId,
        room: &RoomId,
        target: &UserId,
        change: &MembershipChange,
    ) -> Result<(Verified, Vec<Box<RawValue>>), Error> {
        let room = self.known_room(room)?;
        // The rules would let the invite pass, and its server be shown the room, but never the join.
        if self.record(room)?.is_some_and(|record| !record.federate) {
            return Err(Error::forbidden("the room is for users of this server only"));
        }
        if !self.may_know(target.server_name(), room)? {
            return Err(Error::forbidden(format!("{} may not know this room", target.server_name())));
        }
        self.check_entry(target, room, Entry::Invite)?;
        self.wait_for_whole_state(room).await?;
        let lane = self.lane(room).await;
        let mut batch = self.batch(room)?;
        let Some(draft) = draft_membership(&mut batch, sender, target, change)? else {
            return Err(Error::BadState(format!("{target} is invited already")));
        };
        let (id, json) = batch.draft(sender, &draft)?;
        let event = batch.met(id.clone(), json.clone())?;
        batch.authorize(&event)?;
        let shown = self.state_shown_to(room, target, sender)?;
        let version = batch.version.clone();
        drop((batch, lane));
        let invite = self.with_recommendation(room, Verified::own(id, json, &version)).await?;
        match invite.why_not_recommended() {
            None => Ok((invite, shown)),
            Some(why) => Err(Error::forbidden(why)),
        }
    }

    /// Takes an invite into the room that the invited user's server has signed. Its id.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the room's rules say no by now.
    pub async fn finish_invite(&self, room: &RoomId, event: Verified) -> Result<OwnedEventId, Error> {
        let id = event.id().to_owned();
        match self.receive(room, event, &[]).await? {
            Received::Accepted | Received::Known => Ok(id),
            Received::SoftFailed(why) | Received::Rejected(why) => Err(Error::Forbidden(why)),
        }
    }
}

impl Batch<'_> {
    fn note(&mut self, pdu: Verified, shown: &[Box<RawValue>]) -> Result<(), Error> {
        let pos = Pos::at(self.commit.take_seq());
        let mut event = self.met_at(pdu.id().to_owned(), pdu.json().to_owned(), pos)?;
        let (user, kind) = member_of(&event)
            .filter(|_| event.says_room(self.room_id()))
            .ok_or_else(|| Error::BadJson(format!("{} is no membership of this room", event.id)))?;
        event.record.flags = flags::OUTLIER;
        // What authorizes it is not here, and it authorizes nothing here: it has no place in the auth graph.
        let num = UserNum(self.rooms.graph.intern(NameKind::User, user.as_str(), &mut self.commit)?);
        let event = self.keep_aside(event, &EventLinks::default());
        self.membership_changed(&user, Some(&*event), pos)?;
        if matches!(kind, MembershipKind::Invite | MembershipKind::Knock) {
            let shown: Vec<&RawValue> =
                shown.iter().take(limits::INVITE_STATE_EVENTS).map(|event| &**event).collect();
            let bytes = serde_json::to_vec(&shown).map_err(|error| Error::BadJson(error.to_string()))?;
            if bytes.len() > limits::INVITE_STATE_BYTES {
                return Err(Error::TooLarge("the invite shows too much of the room".to_owned()));
            }
            self.commit.put::<InviteStates>(&(num, self.room), &Raw(bytes));
        }
        Ok(())
    }
}

fn member_of(event: &Event) -> Option<(ruma::OwnedUserId, MembershipKind)> {
    Some((UserId::parse(event.state_key()?).ok()?, event.membership()?))
}
