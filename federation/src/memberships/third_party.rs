//! Invites of who was known by an e-mail address only, once it is known which user that is.
//!
//! The room has the public keys of the identity server in its state (`m.room.third_party_invite`); its signature says
//! whose the address is. The server of whoever invited makes the invite, since only it can sign for them.
//!
//! <https://spec.matrix.org/latest/server-server-api/#third-party-invites>

use crate::{
    Error, Federation,
    gaps::enc,
    origin::{Body, Origin, Params},
};
use axum::{Router, extract::State, routing::put};
use postern_graph::event::MembershipKind;
use postern_rooms::MembershipChange;
use postern_web::{Answer, ApiError, Class, ClientAddress, done};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Invites told of with one address.
const INVITES: usize = 20;

/// What the identity server signed.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Signed {
    mxid: OwnedUserId,
    token: String,
    signatures: Map<String, Value>,
}

/// The invite of a user of the asking server, to be made for a user of this one.
#[derive(Debug, Deserialize)]
struct Proposal {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Debug, Deserialize)]
struct Content {
    membership: String,
    third_party_invite: Invite,
}

#[derive(Debug, Deserialize)]
struct Invite {
    signed: Signed,
}

/// An address has been bound to a user.
#[derive(Debug, Deserialize)]
struct Bound {
    mxid: OwnedUserId,
    #[serde(default)]
    invites: Vec<Pending>,
}

/// An invite that waited for that.
#[derive(Debug, Deserialize)]
struct Pending {
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    signed: Signed,
}

pub(super) fn routes() -> Router<Federation> {
    Router::new().route("/_matrix/federation/v1/exchange_third_party_invite/{room}", put(exchange))
}

/// What identity servers call, which sign no requests: only the signature inside counts, and the room's rules check it.
pub(crate) fn open_routes() -> Router<Federation> {
    Router::new().route("/_matrix/federation/v1/3pid/onbind", put(bound))
}

async fn exchange(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(room): Params<OwnedRoomId>,
    Body(proposal): Body<Proposal>,
) -> Answer {
    let Proposal { kind, room_id, sender, state_key: target, content } = proposal;
    if kind != "m.room.member" || content.membership != "invite" || room_id != room {
        return Err(ApiError::bad_json("the event is no invite to the room of the path"));
    }
    let rooms = &federation.0.rooms;
    if target.server_name() != origin || !rooms.is_local(&sender) {
        return Err(ApiError::forbidden(
            "the invited user is not of the asking server, or the inviting not of this",
        ));
    }
    super::serve::room_to_enter(&federation, &origin, &room)?;
    federation
        .invite_bound(&room, &sender, &target, content.third_party_invite.signed)
        .await
        .map_err(refused)?;
    Ok(done())
}

async fn bound(
    State(federation): State<Federation>,
    ClientAddress(address): ClientAddress,
    Body(bound): Body<Bound>,
) -> Answer {
    // Anyone may say this of anyone, and other servers are asked for it.
    let limiter = &federation.0.limiter;
    limiter.check(Class::Binding, &address)?;
    limiter.check(Class::Binding, bound.mxid.as_str())?;
    if !federation.0.rooms.is_local(&bound.mxid) || !federation.0.users.is_active(&bound.mxid)? {
        return Err(ApiError::not_found("there is no such user"));
    }
    for Pending { room_id, sender, signed } in bound.invites.into_iter().take(INVITES) {
        let invited = federation.accept_bound(&room_id, &sender, &bound.mxid, signed).await;
        if let Err(error) = invited {
            tracing::info!(%error, room = %room_id, "an invite by address was not made");
        }
    }
    Ok(done())
}

/// What another server is told of a failure: what the room's rules say is said as it is.
fn refused(error: Error) -> ApiError {
    match error {
        Error::Rooms(error) => error.into(),
        error => ApiError::forbidden(error.to_string()),
    }
}

impl Federation {
    /// A local user is invited with what an identity server signed: by this server, if the one who invites is of it, else
    /// by theirs.
    async fn accept_bound(
        &self,
        room: &RoomId,
        sender: &UserId,
        target: &UserId,
        signed: Signed,
    ) -> Result<(), Error> {
        if self.0.rooms.is_local(sender) {
            return self.invite_bound(room, sender, target, signed).await;
        }
        let display_name = match self.0.rooms.room(room)? {
            Some(number) => self.shown_name(number, &signed.token)?,
            None => String::new(),
        };
        let path = format!("/_matrix/federation/v1/exchange_third_party_invite/{}", enc(room.as_str()));
        let proposal = json!({
            "type": "m.room.member",
            "room_id": room,
            "sender": sender,
            "state_key": target,
            "content": {
                "membership": "invite",
                "third_party_invite": { "display_name": display_name, "signed": signed },
            },
        });
        let _: Value = self.0.peers.put(sender.server_name(), &path, &proposal).await?;
        Ok(())
    }

    /// A local user's invite of somebody whose address is known to be `target`'s by now.
    async fn invite_bound(
        &self,
        room: &RoomId,
        sender: &UserId,
        target: &UserId,
        signed: Signed,
    ) -> Result<(), Error> {
        let rooms = &self.0.rooms;
        let display_name = self.shown_name(rooms.known_room(room)?, &signed.token)?;
        let mut change = MembershipChange::to(MembershipKind::Invite);
        let invite = json!({ "display_name": display_name, "signed": signed });
        change.extra.insert("third_party_invite".to_owned(), invite);
        if rooms.is_local(target) {
            rooms.membership(sender, room, target, change).await?;
        } else {
            self.invite_to(sender, room, target, &change).await?;
        }
        Ok(())
    }

    /// The name by which the room knows who was invited with a token.
    fn shown_name(&self, room: postern_graph::RoomNum, token: &str) -> Result<String, Error> {
        let invite = self.0.rooms.state(room, "m.room.third_party_invite", token)?;
        Ok(invite.and_then(|event| event.content_text("display_name")).unwrap_or_default())
    }
}
