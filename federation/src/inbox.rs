//! Transactions from other servers (specification: transactions).
//!
//! A transaction is answered once its events are checked and stored as waiting; each room's events are then taken in
//! their order by one task a room ([`crate::waiting`]), so that a room whose events are hard to take holds up no other.

use crate::{
    Error, Federation, edus,
    gaps::references,
    origin::{Body, Origin, Params},
    transactions, verify,
};
use axum::{Json, Router, extract::State, routing::put};
use postern_graph::RoomNum;
use postern_rooms::{Error as RoomsError, MembershipKind, Verified, version::Version};
use postern_web::{Answer, ApiError};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, RoomId, ServerName, UserId,
    signatures::PublicKeyMap,
};
use serde::Deserialize;
use serde_json::{Map, json, value::RawValue};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// PDUs in a transaction (specification).
const PDUS: usize = 50;
/// EDUs in a transaction (specification).
const EDUS: usize = 100;
/// Events of one room that may wait; then the servers that send are asked to wait.
const WAITING_IN_ROOM: usize = 10_000;

pub(crate) fn routes() -> Router<Federation> {
    Router::new().route("/_matrix/federation/v1/send/{txn}", put(send))
}

/// The body of a transaction.
#[derive(Debug, Deserialize)]
pub(crate) struct Transaction {
    #[serde(default)]
    pub(crate) pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    pub(crate) edus: Vec<edus::Edu>,
}

impl Transaction {
    pub(crate) fn is_within_bounds(&self) -> bool {
        self.pdus.len() <= PDUS && self.edus.len() <= EDUS
    }
}

async fn send(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(txn): Params<String>,
    Body(transaction): Body<Transaction>,
) -> Answer {
    if !transaction.is_within_bounds() {
        return Err(ApiError::bad_json(format!("a transaction has at most {PDUS} PDUs and {EDUS} EDUs")));
    }
    let graph = &federation.0.graph;
    if txn.len() > transactions::ID_BYTES {
        return Err(ApiError::invalid_param("the id of the transaction is too long"));
    }
    if federation.0.taken.has(&origin, &txn)? {
        return Ok(Json(json!({ "pdus": {} })));
    }
    let mut results = Map::new();
    let mut pdus = Vec::with_capacity(transaction.pdus.len());
    for pdu in &transaction.pdus {
        let pdu = match verify::parse(pdu) {
            Ok(pdu) => pdu,
            Err(why) => {
                tracing::info!(%origin, %why, "a PDU is dropped");
                continue;
            }
        };
        match federation.noted_outside(&origin, &pdu).await {
            Ok(Some(id)) => {
                results.insert(id, json!({}));
                continue;
            }
            Ok(None) => {}
            Err(why) => tracing::info!(%origin, %why, "what happens to an invite is not taken"),
        }
        pdus.push(pdu);
    }
    let mut staged = Vec::with_capacity(pdus.len());
    for admitted in federation.admit(&origin, pdus).await? {
        match admitted {
            Ok((room, pdu)) => {
                results.insert(pdu.id().to_string(), json!({}));
                staged.push((room, pdu));
            }
            // Nobody would send it again.
            Err((_, why @ (Error::Graph(_) | Error::Rooms(RoomsError::Graph(_))))) => {
                return Err(ApiError::internal(&why));
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
    let mut rooms: BTreeMap<RoomNum, usize> = BTreeMap::new();
    let mut copies: BTreeMap<RoomNum, Vec<Verified>> = BTreeMap::new();
    for (room, pdu) in &staged {
        *rooms.entry(*room).or_default() += 1;
        if pdu.is_copy() {
            copies.entry(*room).or_default().push(pdu.clone());
        }
    }
    if rooms.keys().any(|room| federation.0.waiting.count(*room) >= WAITING_IN_ROOM) {
        return Err(ApiError::limit_exceeded(10_000));
    }
    let mut commit = graph.begin();
    federation.0.rooms.stage(&mut commit, &origin, staged)?;
    federation.0.taken.take(&mut commit, &origin, &txn)?;
    let seq = graph.commit(commit)?;
    graph.durable_at(seq).await?;
    for (room, more) in rooms {
        federation.work_on(room, more);
    }
    for (room, copies) in copies {
        federation.ask_for_contents(&federation.0.rooms.room_id(room)?, &copies, &origin);
    }
    Ok(Json(json!({ "pdus": results })))
}

impl Federation {
    /// Checks PDUs of a transaction as far as can be without their rooms' history.
    pub(crate) async fn admit(
        &self,
        origin: &ServerName,
        pdus: Vec<CanonicalJsonObject>,
    ) -> Result<Vec<Admitted>, ApiError> {
        let mut entrances: HashMap<OwnedRoomId, Entrance> = HashMap::new();
        let mut prepared = Vec::with_capacity(pdus.len());
        for pdu in pdus {
            prepared.push(match self.entrance(origin, &pdu, &mut entrances) {
                Ok((room, version)) => match self.keys_for(&version, &pdu, origin).await {
                    Ok(keys) => Ok((room, version, pdu, keys)),
                    Err(why) => Err((id_of(&version, &pdu), why)),
                },
                Err(refused) => Err(refused),
            });
        }
        // All of one transaction by one thread, which others wait for meanwhile.
        let checked = tokio::task::spawn_blocking(move || {
            let check =
                |prepared: Result<(RoomNum, Arc<Version>, CanonicalJsonObject, PublicKeyMap), Refused>| {
                    let (room, version, pdu, keys) = prepared?;
                    let id = pdu.clone();
                    Verified::check(&version, pdu, &keys)
                        .map(|verified| (room, verified))
                        .map_err(|why| (id_of(&version, &id), why.into()))
                };
            prepared.into_iter().map(check).collect::<Vec<Admitted>>()
        })
        .await;
        checked.map_err(|error| ApiError::internal(&error))
    }

    /// The room of a PDU, if `origin` may send to it.
    fn entrance(
        &self,
        origin: &ServerName,
        pdu: &CanonicalJsonObject,
        known: &mut HashMap<OwnedRoomId, Entrance>,
    ) -> Result<Entrance, Refused> {
        let room_id = room_of(pdu).ok_or_else(|| (None, bad("the PDU has no room_id")))?;
        if let Some(entrance) = known.get(&room_id) {
            return Ok(entrance.clone());
        }
        let rooms = &self.0.rooms;
        let unknown = || (None, bad(&format!("this server is not in the room {room_id}")));
        let room = rooms.room(&room_id).map_err(|error| (None, error.into()))?.ok_or_else(unknown)?;
        let version = rooms.version_of(room).map_err(|error| (None, error.into()))?;
        let named = |error: Error| (id_of(&version, pdu), error);
        if !rooms.is_resident(room).map_err(|error| named(error.into()))? {
            return Err(named(bad("this server is not in the room")));
        }
        if !rooms.may_know(origin, room).map_err(|error| named(error.into()))? {
            return Err(unknown());
        }
        if !rooms.server_allowed(room, origin).map_err(|error| named(error.into()))? {
            return Err(named(
                RoomsError::Forbidden("the room's server ACL denies the server".to_owned()).into(),
            ));
        }
        known.insert(room_id, (room, version.clone()));
        Ok((room, version))
    }

    /// Takes the event by which an invite or a knock of a local user ends, in a room this server is not in. Its id, if it
    /// is such an event.
    pub(crate) async fn noted_outside(
        &self,
        origin: &ServerName,
        pdu: &CanonicalJsonObject,
    ) -> Result<Option<String>, Error> {
        let rooms = &self.0.rooms;
        let text = |name: &str| pdu.get(name).and_then(CanonicalJsonValue::as_str);
        let Some(user) = text("state_key").and_then(|user| UserId::parse(user).ok()) else { return Ok(None) };
        let (Some(room_id), Some("m.room.member")) = (room_of(pdu), text("type")) else { return Ok(None) };
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
        let Some(now) = rooms.member(room, number)? else { return Ok(None) };
        let may_end_it = match now.kind {
            // Who else may take an invite back cannot be told without the room's state.
            MembershipKind::Invite => rooms.user_id(now.sender)? == sender,
            kind => kind == MembershipKind::Knock,
        };
        if !may_end_it {
            return Ok(None);
        }
        let version = rooms.version_of(room)?;
        let event = self.verify(&version, pdu.clone(), origin).await?;
        // It rests on what it ends. One that comes late ends an earlier invite or knock, not the present one. Whether its
        // sender has the power to end a knock cannot be told without the room's state, which nobody tells a server that is
        // not in the room. But only the room's servers know the knock's id, and only the sender's is listened to here
        // (as MSC4233 has it; the specification says nothing of it).
        let ended = rooms.event(now.event)?;
        if !references(&event)?.1.contains(&ended.id) {
            return Ok(None);
        }
        let id = event.id().to_string();
        rooms.note_membership(&room_id, event, &[]).await?;
        Ok(Some(id))
    }
}

/// A PDU that passed, or what is known of one that did not: its id, and why.
pub(crate) type Admitted = Result<(RoomNum, Verified), Refused>;
pub(crate) type Refused = (Option<String>, Error);
/// A room that its sender may send to.
type Entrance = (RoomNum, Arc<Version>);

pub(crate) fn id_of(version: &Version, pdu: &CanonicalJsonObject) -> Option<String> {
    postern_rooms::pdu::event_id(pdu, &version.rules).ok().map(|id| id.to_string())
}

fn bad(why: &str) -> Error {
    RoomsError::BadJson(why.to_owned()).into()
}

/// The room a PDU is of.
pub(crate) fn room_of(pdu: &CanonicalJsonObject) -> Option<OwnedRoomId> {
    RoomId::parse(pdu.get("room_id").and_then(CanonicalJsonValue::as_str)?).ok()
}
