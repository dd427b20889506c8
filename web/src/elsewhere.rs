//! What other servers are asked for on behalf of local users.
//!
//! The client-server API asks, federation answers; they do not know each other. [`Nowhere`] is for
//! what needs no other servers.

use crate::ApiError;
use futures::future::{BoxFuture, FutureExt, ready};
use postern_graph::RoomNum;
use postern_rooms::MembershipChange;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UserId};
use serde_json::{Map, Value};
use std::fmt::Debug;

/// What will be answered.
pub type Pending<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

fn nowhere<'a, T: Send + 'a>() -> Pending<'a, T> {
    ready(Err(ApiError::not_found("this server does not federate"))).boxed()
}

/// Other servers. Each method says what it does when asked; who may ask is decided by the caller.
pub trait Elsewhere: Send + Sync + Debug {
    /// Joins a local user to a room this server is not in, by one of the servers `via`. `content` goes into the event.
    fn join<'a>(
        &'a self,
        _user: &'a UserId,
        _room: &'a RoomId,
        _via: &'a [OwnedServerName],
        _content: Map<String, Value>,
    ) -> Pending<'a, ()> {
        nowhere()
    }

    /// Knocks likewise.
    fn knock<'a>(
        &'a self,
        _user: &'a UserId,
        _room: &'a RoomId,
        _via: &'a [OwnedServerName],
        _content: Map<String, Value>,
    ) -> Pending<'a, ()> {
        nowhere()
    }

    /// Leaves a room this server is not in: declines an invite, takes a knock back. Succeeds locally even if no
    /// server of the room can be reached.
    fn leave<'a>(
        &'a self,
        _user: &'a UserId,
        _room: &'a RoomId,
        _content: Map<String, Value>,
    ) -> Pending<'a, ()> {
        nowhere()
    }

    /// Invites a user of another server to a room of this server: their server signs the event first.
    fn invite<'a>(
        &'a self,
        _sender: &'a UserId,
        _room: &'a RoomId,
        _target: &'a UserId,
        _change: MembershipChange,
    ) -> Pending<'a, OwnedEventId> {
        nowhere()
    }

    /// Fetches history of a room before what is here, about `limit` events. Whether anything came.
    fn backfill(&self, _room: RoomNum, _limit: usize) -> Pending<'_, bool> {
        nowhere()
    }

    /// The room an alias of another server points to, and servers that are in it.
    fn alias<'a>(&'a self, _alias: &'a RoomAliasId) -> Pending<'a, (OwnedRoomId, Vec<OwnedServerName>)> {
        nowhere()
    }

    /// The profile of a user of another server.
    fn profile<'a>(&'a self, _user: &'a UserId) -> Pending<'a, Map<String, Value>> {
        nowhere()
    }

    /// The public rooms of another server: the query and body of the client's request, and its answer.
    fn public_rooms<'a>(&'a self, _server: &'a ServerName, _request: Value) -> Pending<'a, Value> {
        nowhere()
    }

    /// The rooms of a space this server is not in: the answer of `GET /_matrix/federation/v1/hierarchy/{roomId}`.
    fn hierarchy<'a>(
        &'a self,
        _room: &'a RoomId,
        _via: &'a [OwnedServerName],
        _suggested_only: bool,
    ) -> Pending<'a, Value> {
        nowhere()
    }

    /// The event of a room nearest to a time (milliseconds since the epoch) that servers of the room know: its id and
    /// time.
    fn nearest_event<'a>(
        &'a self,
        _room: &'a RoomId,
        _ts: u64,
        _forward: bool,
    ) -> Pending<'a, (OwnedEventId, u64)> {
        nowhere()
    }

    /// Fetches a file of another server into this server's media, at most once for
    /// all who ask at the same time.
    fn media<'a>(&'a self, _server: &'a ServerName, _id: &'a str, _timeout_ms: u64) -> Pending<'a, ()> {
        nowhere()
    }

    /// Keys of users of another server: the body and the answer of `POST /_matrix/federation/v1/user/keys/query`.
    fn query_keys<'a>(&'a self, _server: &'a ServerName, _request: Value) -> Pending<'a, Value> {
        nowhere()
    }

    /// One-time keys of users of another server: the body and the answer of
    /// `POST /_matrix/federation/v1/user/keys/claim`.
    fn claim_keys<'a>(&'a self, _server: &'a ServerName, _request: Value) -> Pending<'a, Value> {
        nowhere()
    }

    /// A local user began or stopped typing.
    fn typing(&self, _room: RoomNum, _user: &UserId, _typing: bool) {}
}

/// No other servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Elsewhere for Nowhere {}
