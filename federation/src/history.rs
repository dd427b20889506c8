//! What other servers read of the rooms they are in, and what is read from them: events, state, history (specification:
//! retrieving events, backfilling and retrieving missing events, event authorization).

use crate::{
    Error, Federation,
    gaps::{GAPS_AT_ONCE, Place, enc, references},
    origin::{Body, Origin, Params, Query},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use postern_graph::{EventNum, RoomNum};
use postern_rooms::{Asking, Event, Gap, Verified, now_ms};
use postern_web::{Answer, ApiError};
use ruma::{OwnedEventId, OwnedRoomId, ServerName};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{collections::HashMap, sync::Arc};

/// Events a server that backfills gets when it does not say how many.
const BACKFILL_DEFAULT: usize = 10;
/// Missing events a server gets when it does not say how many (specification).
const MISSING_DEFAULT: usize = 10;
/// Ends of the history here from which more is asked for at once.
const ENDS: usize = 5;
/// Servers asked for history before giving up.
const SERVERS_ASKED: usize = 4;
/// Events asked for at once.
const HISTORY_AT_ONCE: usize = 100;

pub(crate) fn routes() -> Router<Federation> {
    let base = "/_matrix/federation/v1";
    Router::new()
        .route(&format!("{base}/event/{{event}}"), get(event))
        .route(&format!("{base}/state/{{room}}"), get(state))
        .route(&format!("{base}/state_ids/{{room}}"), get(state_ids))
        .route(&format!("{base}/event_auth/{{room}}/{{event}}"), get(event_auth))
        .route(&format!("{base}/backfill/{{room}}"), get(backfill))
        .route(&format!("{base}/get_missing_events/{{room}}"), post(missing_events))
}

#[derive(Debug, Deserialize)]
struct AtEvent {
    event_id: OwnedEventId,
}

impl Federation {
    /// What `origin` may ask about a room: it has to be in it, and not be denied by its ACL.
    pub(crate) fn asking<'a>(
        &self,
        origin: &'a ServerName,
        room: &ruma::RoomId,
    ) -> Result<Asking<'a>, ApiError> {
        let asking = self.0.rooms.asking(origin, room)?;
        self.check_acl(asking.room, origin)?;
        Ok(asking)
    }

    /// # Errors
    /// `M_FORBIDDEN` if the room's ACL denies the server.
    pub(crate) fn check_acl(&self, room: RoomNum, origin: &ServerName) -> Result<(), ApiError> {
        if self.0.rooms.server_allowed(room, origin)? {
            Ok(())
        } else {
            Err(ApiError::forbidden("the server is not allowed in the room"))
        }
    }

    fn served(&self, asking: Asking<'_>, nums: &[EventNum]) -> Result<Vec<Box<RawValue>>, ApiError> {
        let rooms = &self.0.rooms;
        nums.iter().map(|num| Ok(rooms.served(asking, &*rooms.event(*num)?)?)).collect()
    }

    fn transaction(&self, asking: Asking<'_>, events: &[Arc<Event>]) -> Result<Value, ApiError> {
        let pdus =
            events.iter().map(|event| self.0.rooms.served(asking, event)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "origin": self.0.rooms.server_name(), "origin_server_ts": now_ms(), "pdus": pdus }))
    }

    fn ids(&self, nums: &[EventNum]) -> Result<Vec<OwnedEventId>, ApiError> {
        nums.iter().map(|num| Ok(self.0.rooms.event(*num)?.id.clone())).collect()
    }
}

async fn event(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(id): Params<OwnedEventId>,
) -> Answer {
    let rooms = &federation.0.rooms;
    // Whether the event is not here or not for the server is not told.
    let unknown = || ApiError::not_found("the event is not known to this server");
    let event = rooms.event_by_id(&id)?.ok_or_else(unknown)?;
    let asking = federation.asking(&origin, &event.room_id).map_err(|_| unknown())?;
    Ok(Json(federation.transaction(asking, &[event])?))
}

async fn state(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(room): Params<OwnedRoomId>,
    Query(at): Query<AtEvent>,
) -> Answer {
    let asking = federation.asking(&origin, &room)?;
    let event = federation.0.rooms.event_asked_for(asking, &at.event_id)?;
    federation.0.rooms.wait_for_whole_state(event.record.room).await?;
    let (state, chain) = federation.0.rooms.state_before_event(&event)?;
    Ok(Json(json!({
        "pdus": federation.served(asking, &state)?,
        "auth_chain": federation.served(asking, &chain)?,
    })))
}

async fn state_ids(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(room): Params<OwnedRoomId>,
    Query(at): Query<AtEvent>,
) -> Answer {
    let asking = federation.asking(&origin, &room)?;
    let event = federation.0.rooms.event_asked_for(asking, &at.event_id)?;
    federation.0.rooms.wait_for_whole_state(event.record.room).await?;
    let (state, chain) = federation.0.rooms.state_before_event(&event)?;
    Ok(Json(json!({ "pdu_ids": federation.ids(&state)?, "auth_chain_ids": federation.ids(&chain)? })))
}

async fn event_auth(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params((room, id)): Params<(OwnedRoomId, OwnedEventId)>,
) -> Answer {
    let asking = federation.asking(&origin, &room)?;
    let event = federation.0.rooms.event_asked_for(asking, &id)?;
    let chain = federation.0.rooms.auth_chain(&[event.num])?;
    Ok(Json(json!({ "auth_chain": federation.served(asking, &chain)? })))
}

async fn backfill(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(room): Params<OwnedRoomId>,
    Query(query): Query<Vec<(String, String)>>,
) -> Answer {
    let asking = federation.asking(&origin, &room)?;
    let mut from = Vec::new();
    let mut limit = BACKFILL_DEFAULT;
    for (name, value) in query {
        match name.as_str() {
            "v" if from.len() < HISTORY_AT_ONCE => from.push(
                OwnedEventId::try_from(value).map_err(|error| ApiError::invalid_param(error.to_string()))?,
            ),
            "limit" => {
                limit = value.parse().map_err(|_| ApiError::invalid_param("the limit is a number"))?;
            }
            _ => {}
        }
    }
    let events = federation.0.rooms.history_before(asking, &from, limit)?;
    Ok(Json(federation.transaction(asking, &events)?))
}

#[derive(Debug, Deserialize)]
struct Missing {
    earliest_events: Vec<OwnedEventId>,
    latest_events: Vec<OwnedEventId>,
    limit: Option<usize>,
    #[serde(default)]
    min_depth: u64,
}

async fn missing_events(
    State(federation): State<Federation>,
    Origin(origin): Origin,
    Params(room): Params<OwnedRoomId>,
    Body(request): Body<Missing>,
) -> Answer {
    let asking = federation.asking(&origin, &room)?;
    let events = federation.0.rooms.events_between(
        asking,
        &request.earliest_events,
        &request.latest_events,
        request.limit.unwrap_or(MISSING_DEFAULT),
        request.min_depth,
    )?;
    let events =
        events.iter().map(|event| federation.0.rooms.served(asking, event)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "events": events })))
}

#[derive(Deserialize)]
struct Pdus {
    pdus: Vec<Box<RawValue>>,
}

impl Federation {
    /// Fetches history of a room before what is here. Whether anything came.
    pub(crate) async fn backfill_room(&self, room: RoomNum, limit: usize) -> Result<bool, Error> {
        let rooms = &self.0.rooms;
        let ends = rooms.history_ends(room, ENDS)?;
        if ends.is_empty() {
            return Ok(false);
        }
        let id = rooms.room_id(room)?;
        let limit = limit.clamp(1, HISTORY_AT_ONCE);
        let mut path = format!("/_matrix/federation/v1/backfill/{}?limit={limit}", enc(id.as_str()));
        for end in &ends {
            path.push_str("&v=");
            path.push_str(&enc(end.id.as_str()));
        }
        for server in self.others(room, rooms.server_name()).into_iter().take(SERVERS_ASKED) {
            let answer: Pdus = match self.0.peers.get(&server, &path).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%error, %server, "history was not told");
                    continue;
                }
            };
            let place = self.place(&id, &server)?;
            let pdus: Vec<_> = answer.pdus.into_iter().take(HISTORY_AT_ONCE).collect();
            let events = self.verify_all(&place.version, &pdus, &server).await;
            self.ask_for_contents(&id, &events, &server);
            if self.add_history(&place, events).await? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fetches one event of the past and takes it into the room's history.
    pub(crate) async fn fetch_past(&self, place: &Place<'_>, id: &ruma::EventId) -> Result<(), Error> {
        if self.0.rooms.is_in_graph(id)? {
            return Ok(());
        }
        let event = self.fetch_event(place, id).await?;
        self.add_history(place, vec![event]).await?;
        Ok(())
    }

    async fn add_history(&self, place: &Place<'_>, events: Vec<Verified>) -> Result<usize, Error> {
        let rooms = &self.0.rooms;
        let mut wanted: HashMap<OwnedEventId, Verified> = HashMap::new();
        for event in events {
            if rooms.is_news(&event)? {
                wanted.insert(event.id().to_owned(), event);
            }
        }
        let order = oldest_first(&wanted)?;
        let (mut gaps, mut gaps_left) = (Vec::<Gap>::new(), GAPS_AT_ONCE);
        let mut placed = Vec::with_capacity(order.len());
        for id in order {
            let Some(event) = wanted.get(&id) else { continue };
            let (prev, auth) = references(event)?;
            let unknown = rooms.unknown_events(&auth)?;
            let unknown: Vec<_> = unknown.into_iter().filter(|id| !wanted.contains_key(id)).collect();
            if let Err(error) = self.fetch_events(place, unknown).await {
                tracing::debug!(%error, "not all that authorizes an event of the past was told");
            }
            // What authorizes within the same piece of history has to be known before it is judged.
            let within: Vec<Verified> = auth.iter().filter_map(|id| wanted.get(id)).cloned().collect();
            self.add_outliers(place, within).await?;
            let mut open = Vec::new();
            for id in prev {
                let known = wanted.contains_key(&id) || rooms.is_in_graph(&id)?;
                if !known && !gaps.iter().any(|gap| gap.prev == id) {
                    open.push(id);
                }
            }
            let mut told = open.len() <= gaps_left;
            for id in open.into_iter().take(gaps_left) {
                gaps_left -= 1;
                match self.gap(place, id).await {
                    Ok(gap) => gaps.push(gap),
                    Err(error) => {
                        tracing::debug!(%error, "the state in the past was not told");
                        told = false;
                    }
                }
            }
            if told {
                placed.push(event.clone());
            }
        }
        Ok(rooms.add_history(place.room, placed, &gaps).await?)
    }
}

/// The ids so that an event comes after those it follows on.
pub(crate) fn oldest_first(events: &HashMap<OwnedEventId, Verified>) -> Result<Vec<OwnedEventId>, Error> {
    let mut order = Vec::with_capacity(events.len());
    let mut begun = std::collections::HashSet::new();
    let mut ids: Vec<&OwnedEventId> = events.keys().collect();
    ids.sort_unstable();
    for id in ids {
        let mut open = vec![(id.clone(), false)];
        while let Some((id, looked_at)) = open.pop() {
            let Some(event) = events.get(&id) else { continue };
            if looked_at {
                order.push(id);
            } else if begun.insert(id.clone()) {
                open.push((id, true));
                open.extend(references(event)?.0.into_iter().map(|prev| (prev, false)));
            }
        }
    }
    Ok(order)
}
