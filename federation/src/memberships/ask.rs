//! For local users: joining, knocking, leaving and inviting by way of other servers.

use super::serve::{create_content, stripped};
use crate::{
    Error, Federation, PeerError,
    gaps::{enc, references},
    verify,
};
use postern_graph::event::MembershipKind;
use postern_rooms::{
    Error as RoomsError, MembershipChange, Omitted, Received, Verified,
    version::{SUPPORTED, Version, version},
};
use ruma::{CanonicalJsonObject, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use std::{collections::HashSet, sync::Arc, time::Duration};

/// Servers by which a room is tried to be entered.
const SERVERS_TRIED: usize = 10;
/// A server of a large room takes its time to tell the state.
const JOIN_PATIENCE: Duration = Duration::from_secs(120);
/// How long it is waited for the rest of the state of a room that was joined, before the user is told that it is.
const SOON_WHOLE: Duration = Duration::from_millis(250);
/// Events of the state and the auth chain of a room that is joined.
const STATE_EVENTS: usize = 500_000;

#[derive(Deserialize)]
struct Proposal {
    room_version: Option<String>,
    event: Box<RawValue>,
}

#[derive(Deserialize)]
struct Joined {
    state: Vec<Box<RawValue>>,
    auth_chain: Vec<Box<RawValue>>,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    members_omitted: bool,
    #[serde(default)]
    servers_in_room: Vec<OwnedServerName>,
}

#[derive(Deserialize)]
struct Knocked {
    #[serde(default, alias = "knock_state_events")]
    knock_room_state: Vec<Box<RawValue>>,
}

impl Federation {
    /// Joins a local user to a room this server is not in.
    ///
    /// # Errors
    /// What the last server said.
    pub(crate) async fn join_room(
        &self,
        user: &UserId,
        room: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let mut last = nobody();
        for server in self.ways_into(user, room, via)? {
            match self.join_by(&server, user, room, content.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::info!(%error, %server, %room, "a room cannot be joined by this server");
                    last = worse(last, error);
                }
            }
        }
        Err(last)
    }

    async fn join_by(
        &self,
        server: &ServerName,
        user: &UserId,
        room: &RoomId,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        if self.0.rooms.is_by_hand(server) {
            return self.join_by_hand(server, user, room, content).await;
        }
        let (version, join) =
            self.propose(server, "make_join", user, room, MembershipKind::Join, content).await?;
        let path = format!(
            "/_matrix/federation/v2/send_join/{}/{}?omit_members=true",
            enc(room.as_str()),
            enc(join.id().as_str())
        );
        let body = raw(join.json())?;
        let answer: Joined =
            self.0.peers.ask(server, http::Method::PUT, &path, Some(&body), JOIN_PATIENCE).await?;
        if answer.state.len() + answer.auth_chain.len() > STATE_EVENTS {
            return Err(PeerError::BadAnswer("the room is too large".to_owned()).into());
        }
        // What the room is, is told only now; nobody here is in it before it is taken over.
        let create = answer.state.iter().find_map(|event| create_content(event));
        if let Err(refused) = self.0.rooms.check_entry_elsewhere(user, room, create.as_deref()) {
            if let Err(error) = self.leave_by(server, user, room, Map::new()).await {
                tracing::warn!(%error, %room, "a room that may not be entered cannot be left either");
            }
            return Err(refused.into());
        }
        // A restricted room's server has added its signature.
        let join = match &answer.event {
            Some(event) => {
                let signed = self.verify(&version, verify::parse(event)?, server).await?;
                if signed.id() != join.id() {
                    return Err(
                        PeerError::BadAnswer("the server joined with another event".to_owned()).into()
                    );
                }
                signed
            }
            None => join,
        };
        let rooms = &self.0.rooms;
        if let Some(number) = rooms.room(room)?
            && rooms.is_resident(number)?
        {
            // The room is here already, and only the way in was another server's.
            let place = self.place(room, server)?;
            return match self.take(&place, join).await? {
                Received::Accepted | Received::Known => Ok(()),
                Received::SoftFailed(why) | Received::Rejected(why) => Err(RoomsError::Forbidden(why).into()),
            };
        }
        let (state, auth_chain) = tokio::join!(
            self.verify_all(&version, &answer.state, server),
            self.verify_all(&version, &answer.auth_chain, server)
        );
        let (state, auth_chain) = judgeable(state, auth_chain)?;
        let omitted = answer
            .members_omitted
            .then(|| Omitted { servers: answer.servers_in_room, told_by: server.to_owned() });
        let is_partial = omitted.is_some();
        let copies: Vec<Verified> =
            state.iter().chain(&auth_chain).filter(|event| event.is_copy()).cloned().collect();
        rooms.adopt(room, version.id.as_str(), state, auth_chain, join, omitted).await?;
        self.ask_for_contents(room, &copies, server);
        if is_partial && let Some(number) = rooms.room(room)? {
            self.fetch_whole_state(number);
            // Of a small room all is here in a moment, and who has just joined sees all of it at once.
            let whole = rooms.wait_for_whole_state(number);
            if tokio::time::timeout(SOON_WHOLE, whole).await.is_err() {
                tracing::debug!(%room, "the room is used before its state is whole");
            }
        }
        Ok(())
    }

    /// Knocks at a room this server is not in.
    ///
    /// # Errors
    /// What the last server said.
    pub(crate) async fn knock_at(
        &self,
        user: &UserId,
        room: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let mut last = nobody();
        for server in self.ways_into(user, room, via)? {
            match self.knock_by(&server, user, room, content.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => last = worse(last, error),
            }
        }
        Err(last)
    }

    async fn knock_by(
        &self,
        server: &ServerName,
        user: &UserId,
        room: &RoomId,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let (_, knock) =
            self.propose(server, "make_knock", user, room, MembershipKind::Knock, content).await?;
        let path =
            format!("/_matrix/federation/v1/send_knock/{}/{}", enc(room.as_str()), enc(knock.id().as_str()));
        let answer: Knocked = self.0.peers.put(server, &path, &raw(knock.json())?).await?;
        let shown: Vec<_> = answer.knock_room_state.iter().filter_map(|event| stripped(event)).collect();
        self.0.rooms.note_membership(room, knock, &shown).await?;
        Ok(())
    }

    /// Leaves a room this server is not in. If no server of the room takes it, the user has left all the same here.
    ///
    /// # Errors
    /// [`RoomsError::Forbidden`] if the user has nothing to do with the room.
    pub(crate) async fn leave_room(
        &self,
        user: &UserId,
        room: &RoomId,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        let rooms = &self.0.rooms;
        let number = rooms.known_room(room)?;
        let membership = match rooms.user(user)? {
            Some(user) => rooms.member(number, user)?,
            None => None,
        };
        let membership = membership
            .filter(|now| {
                matches!(now.kind, MembershipKind::Invite | MembershipKind::Knock | MembershipKind::Join)
            })
            .ok_or_else(|| RoomsError::Forbidden("you are not in this room".to_owned()))?;
        for server in self.ways_into(user, room, &[])? {
            match self.leave_by(&server, user, room, content.clone()).await {
                Ok(leave) => return Ok(rooms.note_membership(room, leave, &[]).await?),
                Err(error) => tracing::info!(%error, %server, %room, "a room cannot be left by this server"),
            }
        }
        let last = rooms.event(membership.event)?;
        let version = rooms.version_of(number)?;
        let proposal: CanonicalJsonObject = serde_json::from_value(json!({
            "prev_events": reference(&version, last.id.as_str()),
            "auth_events": reference(&version, last.id.as_str()),
            "depth": last.depth().saturating_add(1).min(1 << 52),
        }))
        .map_err(|error| RoomsError::BadJson(error.to_string()))?;
        let leave =
            rooms.complete(room, version.id.as_str(), user, MembershipKind::Leave, content, &proposal)?;
        Ok(rooms.note_membership(room, leave, &[]).await?)
    }

    async fn leave_by(
        &self,
        server: &ServerName,
        user: &UserId,
        room: &RoomId,
        content: Map<String, Value>,
    ) -> Result<Verified, Error> {
        let (_, leave) =
            self.propose(server, "make_leave", user, room, MembershipKind::Leave, content).await?;
        let path =
            format!("/_matrix/federation/v2/send_leave/{}/{}", enc(room.as_str()), enc(leave.id().as_str()));
        let _: Value = self.0.peers.put(server, &path, &raw(leave.json())?).await?;
        Ok(leave)
    }

    /// Invites a user of another server.
    ///
    /// # Errors
    /// What their server or the room's rules say.
    pub(crate) async fn invite_to(
        &self,
        sender: &UserId,
        room: &RoomId,
        target: &UserId,
        change: &MembershipChange,
    ) -> Result<OwnedEventId, Error> {
        #[derive(Deserialize)]
        struct Signed {
            event: Box<RawValue>,
        }
        let rooms = &self.0.rooms;
        let (invite, shown) = rooms.draft_invite(sender, room, target, change).await?;
        if rooms.is_by_hand(target.server_name()) {
            // The next bundle brings it, with the room it is for. Nobody there can sign it now, and no rule asks for that.
            return Ok(rooms.finish_invite(room, invite).await?);
        }
        let version = version(invite.version())?;
        let path =
            format!("/_matrix/federation/v2/invite/{}/{}", enc(room.as_str()), enc(invite.id().as_str()));
        let body = json!({
            "room_version": version.id.as_str(),
            "event": raw(invite.json())?,
            "invite_room_state": shown,
        });
        self.0.peers.wanted(target.server_name());
        let answer: Signed = self.0.peers.put(target.server_name(), &path, &body).await?;
        let signed = verify::parse(&answer.event)?;
        if !signed_by(&signed, target.server_name()) {
            return Err(PeerError::BadAnswer(
                "the invite is not signed by the invited user's server".to_owned(),
            )
            .into());
        }
        let signed = self.verify(&version, signed, target.server_name()).await?;
        if signed.id() != invite.id() {
            return Err(PeerError::BadAnswer("the server signed another event".to_owned()).into());
        }
        Ok(rooms.finish_invite(room, signed).await?)
    }

    /// Asks a server for the event by which a user enters or leaves a room, and makes it.
    async fn propose(
        &self,
        server: &ServerName,
        endpoint: &str,
        user: &UserId,
        room: &RoomId,
        membership: MembershipKind,
        content: Map<String, Value>,
    ) -> Result<(Arc<Version>, Verified), Error> {
        let versions: Vec<String> = SUPPORTED.iter().map(|version| format!("ver={version}")).collect();
        let path = format!(
            "/_matrix/federation/v1/{endpoint}/{}/{}?{}",
            enc(room.as_str()),
            enc(user.as_str()),
            versions.join("&")
        );
        self.0.peers.wanted(server);
        let answer: Proposal = self.0.peers.get(server, &path).await?;
        let version = version(answer.room_version.as_deref().unwrap_or("1"))?;
        let proposal = verify::parse(&answer.event)?;
        let event = self.0.rooms.complete(room, version.id.as_str(), user, membership, content, &proposal)?;
        Ok((version, event))
    }

    /// The servers by which a user may enter a room, the most promising first: those named, that of whoever invited the
    /// user, that in the room's id.
    fn ways_into(
        &self,
        user: &UserId,
        room: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<Vec<OwnedServerName>, Error> {
        let rooms = &self.0.rooms;
        let mut ways: Vec<OwnedServerName> =
            via.iter().filter(|server| *server != rooms.server_name()).cloned().collect();
        let are_named = !ways.is_empty();
        let number = rooms.room(room)?;
        if let (Some(number), Some(user)) = (number, rooms.user(user)?)
            && let Some(membership) = rooms.member(number, user)?
            && membership.kind == MembershipKind::Invite
        {
            ways.push(rooms.user_id(membership.sender)?.server_name().to_owned());
        }
        // Who names other servers means these.
        if !are_named {
            if let Some(number) = number {
                ways.extend(rooms.servers_in(number)?);
            }
            ways.extend(room.server_name().map(ToOwned::to_owned));
        }
        let mut seen = HashSet::new();
        ways.retain(|server| server != rooms.server_name() && seen.insert(server.clone()));
        ways.truncate(SERVERS_TRIED);
        Ok(ways)
    }
}

/// Leaves out what rests on events that the server did not send: it cannot be judged.
fn judgeable(
    state: Vec<Verified>,
    auth_chain: Vec<Verified>,
) -> Result<(Vec<Verified>, Vec<Verified>), Error> {
    let mut known: HashSet<OwnedEventId> =
        state.iter().chain(&auth_chain).map(|event| event.id().to_owned()).collect();
    let (mut state, mut auth_chain) = (state, auth_chain);
    loop {
        let before = known.len();
        for events in [&mut state, &mut auth_chain] {
            let mut kept = Vec::with_capacity(events.len());
            for event in events.drain(..) {
                if references(&event)?.1.iter().all(|id| known.contains(id)) {
                    kept.push(event);
                } else {
                    tracing::info!(event = %event.id(), "an event of the state rests on one that was not sent");
                    known.remove(event.id());
                }
            }
            *events = kept;
        }
        if known.len() == before {
            return Ok((state, auth_chain));
        }
    }
}

fn signed_by(pdu: &CanonicalJsonObject, server: &ServerName) -> bool {
    pdu.get("signatures")
        .and_then(ruma::CanonicalJsonValue::as_object)
        .and_then(|all| all.get(server.as_str()))
        .and_then(ruma::CanonicalJsonValue::as_object)
        .is_some_and(|keys| !keys.is_empty())
}

fn reference(version: &Version, id: &str) -> Value {
    if version.rules.event_format.require_event_id { json!([[id, {}]]) } else { json!([id]) }
}

fn raw(json: &str) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(json.to_owned()).map_err(|error| RoomsError::BadJson(error.to_string()).into())
}

fn nobody() -> Error {
    RoomsError::NotFound("no server that is in the room is known".to_owned()).into()
}

/// Of two failures the one that says more: a refusal says more than silence.
fn worse(last: Error, next: Error) -> Error {
    let says = |error: &Error| match error {
        Error::Peer(PeerError::Refused { status, .. }) if *status == http::StatusCode::FORBIDDEN => 2,
        Error::Peer(peer) if peer.is_transient() => 0,
        Error::Rooms(RoomsError::NotFound(_)) => 0,
        _ => 1,
    };
    if says(&next) < says(&last) { last } else { next }
}
