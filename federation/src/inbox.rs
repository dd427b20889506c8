//! Transactions from other servers (specification: transactions).
//!
//! A transaction is answered once its events are checked and stored as waiting; each room's events are then taken in
//! their order by one task a room ([`crate::waiting`]), so that a room whose events are hard to take holds up no other.

use crate::{
    Error, Federation, edus,
    origin::{Body, Origin, Params},
    verify,
};
use axum::{Json, Router, extract::State, routing::put};
use postern_graph::{RoomNum, schema::ReceivedTransactions};
use postern_rooms::{Error as RoomsError, MembershipKind, Verified, now_ms};
use postern_web::{Answer, ApiError};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Map, json, value::RawValue};

/// PDUs in a transaction (specification).
const PDUS: usize = 50;
/// EDUs in a transaction (specification).
const EDUS: usize = 100;
/// Events of one room that may wait; then the servers that send are asked to wait.
const WAITING_IN_ROOM: usize = 10_000;
/// Transactions remembered of one server: it repeats only its last.
const TRANSACTIONS_REMEMBERED: usize = 32;

pub(crate) fn routes() -> Router<Federation> {
    Router::new().route("/_matrix/federation/v1/send/{txn}", put(send))
}

#[derive(Debug, Deserialize)]
struct Transaction {
    #[serde(default)]
    pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    edus: Vec<edus::Edu>,
}

async fn send(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(txn): Params<String>,
    Body(transaction): Body<Transaction>,
) -> Answer {
    if transaction.pdus.len() > PDUS || transaction.edus.len() > EDUS {
        return Err(ApiError::bad_json(format!("a transaction has at most {PDUS} PDUs and {EDUS} EDUs")));
    }
    let graph = &federation.0.graph;
    let key = (origin.to_string(), txn);
    if graph.has::<ReceivedTransactions>(&key)? {
        return Ok(Json(json!({ "pdus": {} })));
    }
    let mut results = Map::new();
    let mut staged = Vec::new();
    for pdu in &transaction.pdus {
        match federation.noted_outside(&origin, pdu).await {
            Ok(Some(id)) => {
                results.insert(id, json!({}));
                continue;
            }
            Ok(None) => {}
            Err(why) => tracing::info!(%origin, %why, "what happens to an invite is not taken"),
        }
        match federation.admit(&origin, pdu).await {
            Ok((room, pdu)) => {
                results.insert(pdu.id().to_string(), json!({}));
                staged.push((room, pdu));
            }
            Err((Some(id), why)) => {
                tracing::info!(%origin, event = %id, %why, "an event is refused");
                results.insert(id, json!({ "error": why.to_string() }));
            }
            Err((None, why)) => tracing::info!(%origin, %why, "a PDU is dropped"),
        }
    }
    for edu in transaction.edus {
        edus::receive(&federation, &origin, edu).await.map_err(|error| ApiError::internal(&error))?;
    }
    let rooms: Vec<RoomNum> = staged.iter().map(|(room, _)| *room).collect();
    if rooms.iter().any(|room| federation.0.rooms.staged_count(*room, WAITING_IN_ROOM) >= WAITING_IN_ROOM) {
        return Err(ApiError::limit_exceeded(10_000));
    }
    let mut commit = graph.begin();
    federation.0.rooms.stage(&mut commit, &origin, staged)?;
    let remembered: Vec<_> =
        graph.scan::<ReceivedTransactions, _>(&(key.0.clone(),)).iter().collect::<Result<_, _>>()?;
    if remembered.len() >= TRANSACTIONS_REMEMBERED
        && let Some((oldest, _)) = remembered.iter().min_by_key(|(_, at)| *at)
    {
        commit.delete::<ReceivedTransactions>(oldest);
    }
    commit.put::<ReceivedTransactions>(&key, &now_ms());
    let seq = graph.commit(commit)?;
    graph.durable_at(seq).await?;
    for room in rooms {
        federation.work_on(room);
    }
    Ok(Json(json!({ "pdus": results })))
}

impl Federation {
    /// Checks a PDU of a transaction as far as can be without its room's history. An error has the event's id, if that
    /// is known.
    async fn admit(
        &self,
        origin: &ServerName,
        pdu: &RawValue,
    ) -> Result<(RoomNum, Verified), (Option<String>, Error)> {
        let pdu = verify::parse(pdu).map_err(|error| (None, error.into()))?;
        let room_id = room_of(&pdu).ok_or_else(|| (None, bad("the PDU has no room_id")))?;
        let rooms = &self.0.rooms;
        let unknown = || (None, bad(&format!("this server is not in the room {room_id}")));
        let room = rooms.room(&room_id).map_err(|error| (None, error.into()))?.ok_or_else(unknown)?;
        let version = rooms.version_of(room).map_err(|error| (None, error.into()))?;
        let id = postern_rooms::pdu::event_id(&pdu, &version.rules).map_err(|error| (None, error.into()))?;
        let named = |error: Error| (Some(id.to_string()), error);
        if !rooms.is_resident(room).map_err(|error| named(error.into()))? {
            return Err(named(bad("this server is not in the room")));
        }
        if !rooms.server_allowed(room, origin).map_err(|error| named(error.into()))? {
            return Err(named(
                RoomsError::Forbidden("the room's server ACL denies the server".to_owned()).into(),
            ));
        }
        let verified = self.verify(&version, pdu).await.map_err(named)?;
        Ok((room, verified))
    }

    /// Takes the event by which an invite or a knock of a local user ends, in a room this server is not in. Its id, if it
    /// is such an event.
    async fn noted_outside(&self, origin: &ServerName, pdu: &RawValue) -> Result<Option<String>, Error> {
        let rooms = &self.0.rooms;
        let pdu = verify::parse(pdu)?;
        let text = |name: &str| pdu.get(name).and_then(CanonicalJsonValue::as_str);
        let Some(user) = text("state_key").and_then(|user| UserId::parse(user).ok()) else { return Ok(None) };
        let (Some(room_id), Some("m.room.member")) = (room_of(&pdu), text("type")) else { return Ok(None) };
        let ends = pdu
            .get("content")
            .and_then(CanonicalJsonValue::as_object)
            .and_then(|content| content.get("membership"))
            .and_then(CanonicalJsonValue::as_str)
            .is_some_and(|membership| matches!(membership, "leave" | "ban"));
        let Some(sender) = text("sender").and_then(|sender| UserId::parse(sender).ok()) else {
            return Ok(None);
        };
        if !ends || sender.server_name() != origin || !rooms.is_local(&user) {
            return Ok(None);
        }
        let (Some(room), Some(number)) = (rooms.room(&room_id)?, rooms.user(&user)?) else { return Ok(None) };
        if rooms.is_resident(room)? {
            return Ok(None);
        }
        let ends_it = match rooms.member(room, number)? {
            // Who else may take an invite back cannot be told without the room's state.
            Some(now) if now.kind == MembershipKind::Invite => rooms.user_id(now.sender)? == sender,
            Some(now) => now.kind == MembershipKind::Knock,
            None => false,
        };
        if !ends_it {
            return Ok(None);
        }
        let version = rooms.version_of(room)?;
        let event = self.verify(&version, pdu).await?;
        let id = event.id().to_string();
        rooms.note_membership(&room_id, event, &[]).await?;
        Ok(Some(id))
    }
}

fn bad(why: &str) -> Error {
    RoomsError::BadJson(why.to_owned()).into()
}

/// The room a PDU is of.
fn room_of(pdu: &CanonicalJsonObject) -> Option<OwnedRoomId> {
    RoomId::parse(pdu.get("room_id").and_then(CanonicalJsonValue::as_str)?).ok()
}
