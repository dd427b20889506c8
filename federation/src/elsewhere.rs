//! What local users ask of other servers.

use crate::{Error, Federation, PeerError, user_keys};
use futures::FutureExt;
use http::StatusCode;
use postern_graph::RoomNum;
use postern_rooms::MembershipChange;
use postern_web::{ApiError, Elsewhere, Pending};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId};
use serde_json::{Map, Value};

/// What a failure elsewhere is for a local user: what another server said of the matter is passed on, that it could not
/// be asked is a bad gateway.
fn told(error: Error) -> ApiError {
    match error {
        Error::Rooms(error) => match error {
            postern_rooms::Error::MissingEvents(_)
            | postern_rooms::Error::Unverified(_)
            | postern_rooms::Error::Unresolvable(_) => ApiError::new(
                StatusCode::BAD_GATEWAY,
                "M_UNKNOWN",
                format!("the other server's answer: {error}"),
            ),
            error => error.into(),
        },
        Error::Users(error) => error.into(),
        Error::Media(error) => error.into(),
        Error::Graph(error) => error.into(),
        Error::Peer(PeerError::Refused { status, errcode, message }) if status.is_client_error() => {
            let (status, code) = match errcode.as_str() {
                "M_FORBIDDEN" => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
                "M_NOT_FOUND" => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
                "M_INCOMPATIBLE_ROOM_VERSION" => (StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION"),
                "M_UNABLE_TO_AUTHORISE_JOIN" => (StatusCode::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN"),
                "M_UNABLE_TO_GRANT_JOIN" => (StatusCode::BAD_REQUEST, "M_UNABLE_TO_GRANT_JOIN"),
                "M_UNSUPPORTED_ROOM_VERSION" => (StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION"),
                "M_LIMIT_EXCEEDED" => (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
                _ => (
                    if status == StatusCode::UNAUTHORIZED { StatusCode::BAD_GATEWAY } else { status },
                    "M_UNKNOWN",
                ),
            };
            ApiError::new(status, code, message)
        }
        Error::Peer(PeerError::NotAllowed(server)) => {
            ApiError::forbidden(format!("this server does not federate with {server}"))
        }
        Error::Peer(error @ PeerError::NotNow(_)) => ApiError::forbidden(error.to_string()),
        error => ApiError::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error.to_string()),
    }
}

impl Elsewhere for Federation {
    fn join<'a>(
        &'a self,
        user: &'a UserId,
        room: &'a RoomId,
        via: &'a [OwnedServerName],
        content: Map<String, Value>,
    ) -> Pending<'a, ()> {
        async move { self.join_room(user, room, via, content).await.map_err(told) }.boxed()
    }

    fn knock<'a>(
        &'a self,
        user: &'a UserId,
        room: &'a RoomId,
        via: &'a [OwnedServerName],
        content: Map<String, Value>,
    ) -> Pending<'a, ()> {
        async move { self.knock_at(user, room, via, content).await.map_err(told) }.boxed()
    }

    fn leave<'a>(
        &'a self,
        user: &'a UserId,
        room: &'a RoomId,
        content: Map<String, Value>,
    ) -> Pending<'a, ()> {
        async move { self.leave_room(user, room, content).await.map_err(told) }.boxed()
    }

    fn invite<'a>(
        &'a self,
        sender: &'a UserId,
        room: &'a RoomId,
        target: &'a UserId,
        change: MembershipChange,
    ) -> Pending<'a, OwnedEventId> {
        async move { self.invite_to(sender, room, target, &change).await.map_err(told) }.boxed()
    }

    fn backfill(&self, room: RoomNum, limit: usize) -> Pending<'_, bool> {
        async move { self.backfill_room(room, limit).await.map_err(told) }.boxed()
    }

    fn typing(&self, room: RoomNum, user: &UserId, typing: bool) {
        self.0.outbox.typing(room, user, typing);
    }

    fn query_keys<'a>(&'a self, server: &'a ServerName, request: Value) -> Pending<'a, Value> {
        user_keys::query_keys(self, server, request).boxed()
    }

    fn claim_keys<'a>(&'a self, server: &'a ServerName, request: Value) -> Pending<'a, Value> {
        user_keys::claim_keys(self, server, request).boxed()
    }

    fn profile<'a>(&'a self, user: &'a UserId) -> Pending<'a, Map<String, Value>> {
        async move { self.look_up_profile(user).await.map_err(told) }.boxed()
    }

    fn alias<'a>(&'a self, alias: &'a RoomAliasId) -> Pending<'a, (OwnedRoomId, Vec<OwnedServerName>)> {
        async move { self.look_up_alias(alias).await.map_err(told) }.boxed()
    }

    fn public_rooms<'a>(&'a self, server: &'a ServerName, request: Value) -> Pending<'a, Value> {
        async move { self.look_up_public_rooms(server, request).await.map_err(told) }.boxed()
    }

    fn hierarchy<'a>(
        &'a self,
        room: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> Pending<'a, Value> {
        async move { self.look_up_hierarchy(room, via, suggested_only).await.map_err(told) }.boxed()
    }

    fn nearest_event<'a>(
        &'a self,
        room: &'a RoomId,
        ts: u64,
        forward: bool,
    ) -> Pending<'a, (OwnedEventId, u64)> {
        async move { self.look_up_event_at(room, ts, forward).await.map_err(told) }.boxed()
    }

    fn media<'a>(&'a self, server: &'a ServerName, id: &'a str, timeout_ms: u64) -> Pending<'a, ()> {
        async move { self.fetch_file(server, id, timeout_ms).await.map_err(told) }.boxed()
    }
}
