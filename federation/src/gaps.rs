//! Fetching what is missing between what a server sent and what is here (specification: checks performed on receipt of a
//! PDU, backfilling and retrieving missing events).

use crate::{Error, Federation, PeerError, history::oldest_first};
use futures::{StreamExt, stream};
use postern_graph::RoomNum;
use postern_rooms::{Error as RoomsError, Gap, Received, Verified, version::Version};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Missing events asked for at once (`/get_missing_events`), as other servers do.
const MISSING_AT_ONCE: usize = 20;
/// How often they are asked for because of one gap. What is missing beyond is history, which is fetched when somebody looks.
const FILL_ROUNDS: usize = 20;
/// Missing events of one answer by which a server tells that there may be more: what it tells at once, however many are
/// asked for.
const FILL_MORE: usize = 10;
/// Missing events after which no more are asked for, in bytes.
const FILL_BYTES: usize = 8 << 20;
/// Rounds of fetching authorizing events that authorizing events name.
const AUTH_ROUNDS: usize = 8;
/// Events fetched one by one for one gap; more are fetched as whole state.
const SINGLE_EVENTS: usize = 200;
/// Events fetched one by one at the same time.
const SINGLE_AT_ONCE: usize = 8;
/// Events of one state that are taken from another server.
const STATE_EVENTS: usize = 200_000;
/// Events before which the state is asked for, because of one event or one piece of history. Another server says how many
/// are missing, and more than it are asked.
pub(crate) const GAPS_AT_ONCE: usize = 20;
/// Other servers of a room that are asked when the first does not know.
const OTHERS: usize = 3;

#[derive(Deserialize)]
struct Events {
    events: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Pdus {
    pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    auth_chain: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct StateIds {
    pdu_ids: Vec<OwnedEventId>,
    auth_chain_ids: Vec<OwnedEventId>,
}

#[derive(Deserialize)]
struct AuthChain {
    auth_chain: Vec<Box<RawValue>>,
}

/// What stands as it is both in a path and in the value of a query (RFC 3986): ids stay readable.
const PLAIN: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'@')
    .remove(b':');

/// A name in the path or the query of a request.
pub(crate) fn enc(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, &PLAIN).to_string()
}

/// A room and how to ask about it.
pub(crate) struct Place<'a> {
    pub(crate) room: &'a RoomId,
    pub(crate) num: RoomNum,
    pub(crate) version: Arc<Version>,
    /// The server asked first.
    pub(crate) origin: &'a ServerName,
}

impl Federation {
    /// Where to ask about a room.
    ///
    /// # Errors
    /// [`RoomsError::NotFound`].
    pub(crate) fn place<'a>(&self, room: &'a RoomId, origin: &'a ServerName) -> Result<Place<'a>, Error> {
        let num = self.0.rooms.known_room(room)?;
        Ok(Place { room, num, version: self.0.rooms.version_of(num)?, origin })
    }

    /// Takes an event into its room, fetching what is missing before it.
    ///
    /// # Errors
    /// [`RoomsError::MissingEvents`] if that cannot be had; an error that is transient if it may be had later.
    pub(crate) async fn take(&self, place: &Place<'_>, pdu: Verified) -> Result<Received, Error> {
        let rooms = &self.0.rooms;
        if !rooms.is_news(&pdu)? {
            return Ok(Received::Known);
        }
        let pdu = rooms.with_recommendation(place.num, pdu).await?;
        match rooms.receive(place.room, pdu.clone(), &[]).await {
            Err(RoomsError::MissingEvents(_)) => {}
            other => return Ok(other?),
        }
        let (prev, auth) = references(&pdu)?;
        let mut behind = false;
        for id in &prev {
            behind = behind || !rooms.is_in_graph(id)?;
        }
        let trouble = if behind { self.fill(place, &pdu).await? } else { None };
        if !rooms.unknown_events(&auth)?.is_empty() {
            self.fetch_auth(place, pdu.id()).await?;
        }
        // An event that its server sends and whose predecessors it does not tell is not taken: it would be the room's only
        // end, with a state that nobody but that server vouches for.
        match rooms.receive(place.room, pdu, &[]).await {
            Err(missing @ RoomsError::MissingEvents(_)) => Err(trouble.unwrap_or_else(|| missing.into())),
            other => Ok(other?),
        }
    }

    /// Fetches the events between the ends of the room here and `pdu`, and takes them. What kept it from doing so, if the
    /// same may go well later.
    async fn fill(&self, place: &Place<'_>, pdu: &Verified) -> Result<Option<Error>, Error> {
        let rooms = &self.0.rooms;
        let mut found = match self.missing_before(place, pdu).await {
            Ok(found) => found,
            Err(error) if error.is_transient() => return Ok(Some(error)),
            Err(error) => {
                tracing::debug!(%error, origin = %place.origin, "missing events were not told");
                return Ok(None);
            }
        };
        let mut trouble = None;
        let mut gaps_left = GAPS_AT_ONCE;
        for id in oldest_first(&found)? {
            let Some(pdu) = found.remove(&id) else { continue };
            let pdu = rooms.with_recommendation(place.num, pdu).await?;
            // The oldest may lie behind a gap, and what follows on them can then be taken as it is.
            match Box::pin(self.take_after_gap(place, pdu, &mut gaps_left)).await {
                Ok(_) => {}
                Err(error) if error.is_transient() => trouble = Some(error),
                Err(error) => tracing::debug!(%error, "a missing event is dropped"),
            }
        }
        Ok(trouble)
    }

    /// The events between the ends of the room here and `pdu`, as its server tells them; of a wide gap the newest.
    async fn missing_before(
        &self,
        place: &Place<'_>,
        pdu: &Verified,
    ) -> Result<HashMap<OwnedEventId, Verified>, Error> {
        let rooms = &self.0.rooms;
        let head = rooms.head(place.num)?.unwrap_or_default();
        let mut earliest = Vec::with_capacity(head.extremities.len());
        for num in head.extremities.iter().rev().take(MISSING_AT_ONCE) {
            earliest.push(rooms.event(*num)?.id.clone());
        }
        let path = format!("/_matrix/federation/v1/get_missing_events/{}", enc(place.room.as_str()));
        let mut found: HashMap<OwnedEventId, Verified> = HashMap::new();
        let (mut latest, mut bytes) = (vec![pdu.id().to_owned()], 0);
        for _ in 0..FILL_ROUNDS {
            if latest.is_empty() || bytes >= FILL_BYTES {
                break;
            }
            latest.truncate(MISSING_AT_ONCE);
            let request = json!({
                "earliest_events": earliest,
                "latest_events": latest,
                "limit": MISSING_AT_ONCE,
                "min_depth": 0,
            });
            let answer: Events = self.0.peers.post(place.origin, &path, &request).await?;
            let told: Vec<_> = answer.events.into_iter().take(MISSING_AT_ONCE).collect();
            let told = self.verify_all(&place.version, &told, place.origin).await;
            self.ask_for_contents(place.room, &told, place.origin);
            let mut news = Vec::with_capacity(told.len());
            for event in told {
                if rooms.is_news(&event)? && !found.contains_key(event.id()) {
                    bytes += event.json().len();
                    news.push(event.id().to_owned());
                    found.insert(event.id().to_owned(), event);
                }
            }
            latest = Vec::new();
            if news.len() < FILL_MORE {
                break;
            }
            // Before which of them is something missing still?
            for id in news {
                let Some(event) = found.get(&id) else { continue };
                for prev in references(event)?.0 {
                    if !found.contains_key(&prev) && !rooms.is_in_graph(&prev)? {
                        latest.push(id);
                        break;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Takes an event whose previous events are not here, with the state that other servers say was after them.
    async fn take_after_gap(
        &self,
        place: &Place<'_>,
        pdu: Verified,
        gaps_left: &mut usize,
    ) -> Result<Received, Error> {
        let rooms = &self.0.rooms;
        let (prev, auth) = references(&pdu)?;
        let mut gaps = Vec::new();
        for id in prev {
            if rooms.is_in_graph(&id)? {
                continue;
            }
            let Some(left) = gaps_left.checked_sub(1) else {
                return Err(RoomsError::MissingEvents(vec![id]).into());
            };
            *gaps_left = left;
            gaps.push(self.gap(place, id).await?);
        }
        if !rooms.unknown_events(&auth)?.is_empty() {
            self.fetch_auth(place, pdu.id()).await?;
        }
        Ok(rooms.receive(place.room, pdu, &gaps).await?)
    }

    /// The state before `prev`, fetched with all its events, and `prev` itself.
    pub(crate) async fn gap(&self, place: &Place<'_>, prev: OwnedEventId) -> Result<Gap, Error> {
        let rooms = &self.0.rooms;
        let room = enc(place.room.as_str());
        let path = format!("/_matrix/federation/v1/state_ids/{room}?event_id={}", enc(prev.as_str()));
        let ids: StateIds = self.ask_about(place, &path).await?;
        if ids.pdu_ids.len() + ids.auth_chain_ids.len() > STATE_EVENTS {
            return Err(PeerError::BadAnswer("the state is too large".to_owned()).into());
        }
        let wanted: BTreeSet<&OwnedEventId> =
            ids.pdu_ids.iter().chain(&ids.auth_chain_ids).chain([&prev]).collect();
        let unknown = rooms.unknown_events(wanted)?;
        if unknown.len() > SINGLE_EVENTS {
            let path = format!("/_matrix/federation/v1/state/{room}?event_id={}", enc(prev.as_str()));
            let (state, teller): (Pdus, _) = self.ask_somebody(place, &path).await?;
            let all: Vec<_> = state.auth_chain.into_iter().chain(state.pdus).take(STATE_EVENTS).collect();
            let events = self.verify_all(&place.version, &all, place.origin).await;
            self.ask_for_contents(place.room, &events, &teller);
            self.add_outliers(place, events).await?;
            self.fetch_events(place, vec![prev.clone()]).await?;
        } else {
            self.fetch_events(place, unknown).await?;
        }
        Ok(Gap { prev, state: ids.pdu_ids })
    }

    /// Fetches events one by one and adds them as outliers. Those that no server has are left out.
    ///
    /// # Errors
    /// One that is transient if some could not be had now: a state without them would be another one.
    pub(crate) async fn fetch_events(&self, place: &Place<'_>, ids: Vec<OwnedEventId>) -> Result<(), Error> {
        let ids = self.0.rooms.unknown_events(&ids)?;
        let fetched: Vec<Result<Verified, Error>> = stream::iter(ids)
            .map(|id| async move {
                self.fetch_event(place, &id)
                    .await
                    .inspect_err(|error| tracing::debug!(%error, %id, "an event was not fetched"))
            })
            .buffered(SINGLE_AT_ONCE)
            .collect()
            .await;
        let mut found = Vec::with_capacity(fetched.len());
        let mut trouble = Ok(());
        for event in fetched {
            match event {
                Ok(event) => found.push(event),
                Err(error) if error.is_transient() => trouble = Err(error),
                Err(_) => {}
            }
        }
        self.add_outliers(place, found).await?;
        trouble
    }

    /// One event of the room, from a server of the room.
    pub(crate) async fn fetch_event(&self, place: &Place<'_>, id: &EventId) -> Result<Verified, Error> {
        let path = format!("/_matrix/federation/v1/event/{}", enc(id.as_str()));
        let (answer, teller): (Pdus, _) = self.ask_somebody(place, &path).await?;
        let pdu =
            answer.pdus.first().ok_or_else(|| PeerError::BadAnswer("there is no event in it".to_owned()))?;
        let event = self.verify(&place.version, crate::verify::parse(pdu)?, place.origin).await?;
        if event.id() == id {
            self.ask_for_contents(place.room, [&event], &teller);
            Ok(event)
        } else {
            Err(PeerError::BadAnswer(format!("it is the event {}, not {id}", event.id())).into())
        }
    }

    /// Fetches the events that authorize an event, and adds them as outliers.
    async fn fetch_auth(&self, place: &Place<'_>, id: &EventId) -> Result<(), Error> {
        let path =
            format!("/_matrix/federation/v1/event_auth/{}/{}", enc(place.room.as_str()), enc(id.as_str()));
        let answer: AuthChain = self.ask_about(place, &path).await?;
        let chain: Vec<_> = answer.auth_chain.into_iter().take(STATE_EVENTS).collect();
        let events = self.verify_all(&place.version, &chain, place.origin).await;
        self.add_outliers(place, events).await
    }

    /// Adds events as outliers, fetching those that authorize them and are not here. Those that still cannot be judged
    /// are left out.
    pub(crate) async fn add_outliers(
        &self,
        place: &Place<'_>,
        mut events: Vec<Verified>,
    ) -> Result<(), Error> {
        for _ in 0..AUTH_ROUNDS {
            let missing = match self.0.rooms.add_outliers(place.room, events.clone()).await {
                Err(RoomsError::MissingEvents(missing)) => missing,
                other => return Ok(other?),
            };
            let more: Vec<Verified> = stream::iter(missing.into_iter().take(SINGLE_EVENTS))
                .map(|id| async move { self.fetch_event(place, &id).await.ok() })
                .buffered(SINGLE_AT_ONCE)
                .filter_map(|event| async move { event })
                .collect()
                .await;
            if more.is_empty() {
                break;
            }
            events.extend(more);
        }
        // What rests on something nobody has cannot be judged.
        loop {
            match self.0.rooms.add_outliers(place.room, events.clone()).await {
                Err(RoomsError::MissingEvents(missing)) => {
                    let before = events.len();
                    events.retain(|event| {
                        references(event).is_ok_and(|(_, auth)| !auth.iter().any(|id| missing.contains(id)))
                    });
                    if events.len() == before {
                        return Err(RoomsError::MissingEvents(missing).into());
                    }
                }
                other => return Ok(other?),
            }
        }
    }

    /// Asks the origin, and if it does not answer some other servers of the room.
    pub(crate) async fn ask_about<A: serde::de::DeserializeOwned>(
        &self,
        place: &Place<'_>,
        path: &str,
    ) -> Result<A, PeerError> {
        self.ask_somebody(place, path).await.map(|(answer, _)| answer)
    }

    /// The same, with who answered.
    async fn ask_somebody<A: serde::de::DeserializeOwned>(
        &self,
        place: &Place<'_>,
        path: &str,
    ) -> Result<(A, OwnedServerName), PeerError> {
        let first = match self.0.peers.get(place.origin, path).await {
            Ok(answer) => return Ok((answer, place.origin.to_owned())),
            Err(error) => error,
        };
        for server in self.others(place.num, place.origin).into_iter().take(OTHERS) {
            if let Ok(answer) = self.0.peers.get(&server, path).await {
                return Ok((answer, server));
            }
        }
        Err(first)
    }

    /// The servers of a room other than this one and `origin`.
    pub(crate) fn others(&self, room: RoomNum, origin: &ServerName) -> Vec<OwnedServerName> {
        let servers = self.0.rooms.servers_in(room).unwrap_or_default();
        servers
            .into_iter()
            .filter(|server| server != self.0.rooms.server_name() && server != origin)
            .collect()
    }
}

/// The previous and the authorizing events that an event names.
pub(crate) fn references(pdu: &Verified) -> Result<(Vec<OwnedEventId>, Vec<OwnedEventId>), Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Reference {
        Id(OwnedEventId),
        WithHash((OwnedEventId, serde::de::IgnoredAny)),
    }
    #[derive(Deserialize)]
    struct Edges {
        prev_events: Vec<Reference>,
        auth_events: Vec<Reference>,
    }
    let id = |reference| match reference {
        Reference::Id(id) | Reference::WithHash((id, _)) => id,
    };
    let edges: Edges = serde_json::from_str(pdu.json())
        .map_err(|error| RoomsError::BadJson(format!("the event {} is no PDU: {error}", pdu.id())))?;
    Ok((edges.prev_events.into_iter().map(id).collect(), edges.auth_events.into_iter().map(id).collect()))
}
