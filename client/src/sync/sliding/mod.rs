//! Simplified sliding sync (MSC4186): a client says which rooms it looks at, and is told of these.
//!
//! What a connection was told is kept in memory, for the answer given last and the one before it (which the client asks
//! for again when it lost the last). After a restart the client is told that its position is unknown and begins anew.

mod connection;
mod extensions;
mod lists;
mod rooms;

pub use connection::Connections;

use crate::{
    Api,
    filter::RoomFilter,
    http::{Answer, ApiError, Body, Caller, Query},
    presence,
    rooms::viewer,
    sync::{SyncToken, changes::changes, room::Asked},
};
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use connection::Connection;
pub(crate) use connection::Position;
use postern_graph::{RoomNum, event::Membership};
use postern_users::Session;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

pub fn routes() -> Router<Api> {
    Router::new().route("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", post(sync))
}

#[derive(Debug, Deserialize)]
struct At {
    pos: Option<String>,
    timeout: Option<u64>,
    set_presence: Option<String>,
}

/// What a client asks.
#[derive(Debug, Default, Deserialize)]
struct Request {
    conn_id: Option<String>,
    txn_id: Option<String>,
    #[serde(default)]
    lists: BTreeMap<String, lists::List>,
    #[serde(default)]
    room_subscriptions: BTreeMap<ruma::OwnedRoomId, lists::RoomConfig>,
    #[serde(default)]
    extensions: extensions::Asked,
}

/// What it is told.
#[derive(Debug, Serialize)]
struct Response {
    pos: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn_id: Option<String>,
    lists: BTreeMap<String, lists::Counted>,
    rooms: BTreeMap<String, rooms::Room>,
    extensions: extensions::Told,
}

async fn sync(
    State(api): State<Api>,
    Caller(session): Caller,
    Query(at): Query<At>,
    Body(request): Body<Request>,
) -> Answer<Json<Response>> {
    if request.lists.len() + request.room_subscriptions.len() > lists::MOST {
        return Err(ApiError::invalid_param("too many lists and subscriptions"));
    }
    presence::seen(&api, &session, at.set_presence.as_deref()).await?;
    let name = (session.user, session.device_id.clone(), request.conn_id.clone().unwrap_or_default());
    let known = match at.pos.as_deref() {
        None | Some("") => None,
        Some(pos) => {
            let unknown = || {
                ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "M_UNKNOWN_POS",
                    "the connection is not known (any more): begin anew",
                )
            };
            let position: Position = pos.parse().map_err(|()| unknown())?;
            Some((position, api.connections.at(&name, position).ok_or_else(unknown)?))
        }
    };
    if let Some(token) = request.extensions.to_device_since()? {
        api.users.to_device_acknowledge(session.user, &session.device_id, token)?;
    }
    let longest = api.config.limits.long_poll_max_ms;
    let patience = Duration::from_millis(at.timeout.unwrap_or(0).min(longest));
    let deadline = Instant::now() + patience;
    let mut waiter = api.wake.listen(session.user);
    loop {
        let (response, connection, something) = answer(&api, &session, &request, known.as_ref())?;
        let last = something || api.stopping.is_cancelled() || Instant::now() >= deadline;
        if last {
            let position = connection.position;
            api.connections.told(name, known.as_ref().map(|(position, _)| *position), connection);
            return Ok(Json(Response { pos: position.to_string(), ..response }));
        }
        drop((response, connection));
        tokio::select! {
            () = waiter.woken() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = api.stopping.cancelled() => {}
        }
    }
}

fn answer(
    api: &Api,
    session: &Session,
    request: &Request,
    known: Option<&(Position, Arc<Connection>)>,
) -> Result<(Response, Connection, bool), ApiError> {
    let typing = api.typing.now();
    let durable = api.graph.durable();
    let since = known.map(|(_, connection)| connection.position);
    let up_to = since.map_or(durable, |since| since.log.max(durable));
    let position = Position { answer: since.map_or(1, |since| since.answer + 1), log: up_to, typing };
    let mut connection = known.map_or_else(Connection::default, |(_, connection)| (**connection).clone());
    connection.position = position;

    let memberships: HashMap<RoomNum, Membership> = api.rooms.rooms_of(session.user)?.into_iter().collect();
    let token = since.map(|since| SyncToken { log: since.log, typing: since.typing, to_device: since.log });
    let filter = RoomFilter::default();
    let asked = Asked::new(api, viewer(session), &filter, token, up_to)?;

    let (wanted, counted) = lists::wanted(api, session, request, &memberships, &connection)?;
    let mut told = BTreeMap::new();
    let mut initial = Vec::new();
    for (room, config) in wanted {
        let before = connection.rooms.get(&room).cloned();
        if before.is_none() {
            initial.push(room);
        }
        if let Some(shown) = rooms::room(&asked, room, &config, before.as_ref(), memberships.get(&room))? {
            told.insert(api.rooms.room_id(room)?.to_string(), shown);
        }
        connection.remember(room, &config, up_to);
    }
    let news = match since {
        Some(since) => changes(api, session, &memberships, since.log, up_to)?,
        None => super::Changes { devices: true, key_counts: true, ..super::Changes::default() },
    };
    let extensions = extensions::told(
        &asked,
        session,
        &request.extensions,
        &extensions::Scope {
            connection: &connection,
            initial: &initial,
            memberships: &memberships,
            news: &news,
        },
    )?;
    // A changed window or a first answer is told at once, though nothing may have happened in its rooms.
    let something = since.is_none()
        || !told.is_empty()
        || !extensions.is_empty()
        || (request.txn_id.is_some() && connection.txn_id != request.txn_id)
        || connection.lists_changed(&counted);
    connection.txn_id.clone_from(&request.txn_id);
    connection.counts = counted.iter().map(|(name, counted)| (name.clone(), counted.count)).collect();
    let response = Response {
        pos: String::new(),
        txn_id: request.txn_id.clone(),
        lists: counted,
        rooms: told,
        extensions,
    };
    Ok((response, connection, something))
}
