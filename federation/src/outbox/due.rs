//! What a server is due, as it is stored, and the transactions that are made of it.

use super::release::{release, released_part};
use crate::Error;
use parking_lot::Mutex;
use postern_graph::{
    Commit, EventNum, Graph, NameKind, RoomNum, Seq, ServerNum,
    codec::Raw,
    schema::{EventRecords, OutboxEdus, OutboxEvents, OutboxLatest, OutboxTransactions},
};
use postern_rooms::{Rooms, now_ms};
use quick_cache::sync::Cache;
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// PDUs of a transaction (specification: transactions).
const PDUS: usize = 50;
/// EDUs of a transaction (specification: transactions).
const EDUS: usize = 100;
/// The PDUs of a transaction, and its EDUs, are no more than this many bytes unless one alone is more: servers and
/// proxies before them bound what they take.
const BYTES: usize = 512 << 10;
/// Queued events looked at for one transaction; those that are not released are dropped.
const LOOKED_AT: usize = 500;
/// A server that cannot be reached is due at most this many events, and then the latest of each room…
const BACKLOG: usize = 1_000;
/// …as it is after this time, milliseconds: it will have to fetch what it missed anyway.
const BACKLOG_MS: u64 = 60 * 60_000;
/// Entries removed by one commit.
const REMOVED_AT_ONCE: usize = 10_000;
/// Queues whose beginning is remembered, 24 bytes each.
const BEGINNINGS: usize = 20_000;

/// What is sent in one piece.
#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) id: String,
    pub(super) body: Box<RawValue>,
    /// Whether it is stored until it is answered.
    pub(super) is_stored: bool,
    /// What it was made of, if that was now: nothing of it has left then before it is sent.
    pub(super) taken: Option<Taken>,
}

/// An event of a queue, as it is stored there.
type QueuedEvent = ((ServerNum, Seq), (EventNum, u64));
/// An EDU likewise.
type QueuedEdu = ((ServerNum, Seq, u32), (String, Raw));

/// What a transaction was made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    events: Vec<QueuedEvent>,
    edus: Vec<QueuedEdu>,
    /// Where events and EDUs of the server began.
    from: (Seq, Seq),
}

/// What a server that is due something waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// For being reached.
    ForReach,
    /// For the hours at which it is spoken with.
    ForHours,
}

#[derive(Serialize)]
struct Body<'a> {
    origin: &'a ServerName,
    origin_server_ts: u64,
    pdus: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    edus: Vec<Value>,
}

/// What is looked at of a stored one.
#[derive(Deserialize)]
struct Contents {
    pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    edus: Vec<Value>,
}

/// The queues of all servers in the graph.
///
/// They are worked off beside the log: nobody but the outbox has to hear of it, and a message in a room of a thousand
/// servers would be a thousand entries of the log.
#[derive(Debug)]
pub(super) struct Due {
    graph: Arc<Graph>,
    rooms: Arc<Rooms>,
    /// Up to where the outbox has followed the log: what is queued later lies behind that.
    pub(super) followed: Mutex<Seq>,
    /// Where the events and the EDUs of a server begin: before that lie only the remains of what was removed, which
    /// take time to pass over until the store has thrown them away.
    beginnings: Cache<ServerNum, (Seq, Seq)>,
}

/// What goes into a transaction.
#[derive(Default)]
struct Gathered {
    pdus: Vec<Box<RawValue>>,
    edus: Vec<Value>,
    /// Events taken from the queue, released or not.
    events: usize,
    /// What of the queue is in it.
    taken: Taken,
    /// Whether the queue is to be asked again: what was looked at was not released.
    again: bool,
}

impl Due {
    pub(super) fn new(graph: Arc<Graph>, rooms: Arc<Rooms>) -> Self {
        Self { graph, rooms, followed: Mutex::new(Seq::ZERO), beginnings: Cache::new(BEGINNINGS) }
    }

    /// Notes that the number of queued events has changed.
    pub(super) fn count(change: f64) {
        metrics::gauge!("postern_outbox_events").increment(change);
    }

    /// How many events are queued for all servers.
    pub(super) fn events(&self) -> Result<usize, Error> {
        let mut count = 0;
        for entry in self.graph.scan::<OutboxEvents, _>(&()).iter() {
            entry?;
            count += 1;
        }
        Ok(count)
    }

    /// The servers that are due anything.
    pub(super) fn servers(&self) -> Result<Vec<OwnedServerName>, Error> {
        let mut found = HashSet::new();
        for entry in self.graph.scan::<OutboxTransactions, _>(&()).iter() {
            found.insert(entry?.0.0);
        }
        let mut after = ServerNum(0);
        while let Some(((server, _), _)) = self.graph.scan::<OutboxEvents, _>(&()).after(&(after,)).first()? {
            found.insert(server);
            after = server;
        }
        let mut after = ServerNum(0);
        while let Some(((server, _, _), _)) =
            self.graph.scan::<OutboxEdus, _>(&()).after(&(after,)).first()?
        {
            found.insert(server);
            after = server;
        }
        found.into_iter().map(|server| self.name(server)).collect()
    }

    /// The name of a server.
    pub(super) fn name(&self, server: ServerNum) -> Result<OwnedServerName, Error> {
        let name = self.graph.name(NameKind::Server, server.0)?;
        Ok(ServerName::parse(&*name).map_err(|error| postern_rooms::Error::BadJson(error.to_string()))?)
    }

    fn number(&self, server: &ServerName) -> Result<Option<ServerNum>, Error> {
        Ok(self.graph.number(NameKind::Server, server.as_str())?.map(ServerNum))
    }

    /// The transaction that a server has not answered yet; if there is none, one of what it is due and of `passing`
    /// EDUs, which are not stored. Nothing if there is nothing.
    pub(super) async fn next(
        &self,
        server: &ServerName,
        mut passing: Vec<Value>,
    ) -> Result<Option<Transaction>, Error> {
        let number = self.number(server)?;
        if let Some(number) = number
            && let Some((id, Raw(body))) = self.graph.get::<OutboxTransactions>(&(number,))?
        {
            let body = serde_json::from_slice(&body).map_err(bad_json)?;
            if let Some(transaction) = self.again(server, number, id, body).await? {
                return Ok(Some(transaction));
            }
        }
        loop {
            let (mut commit, mut gathered) = (self.graph.begin(), Gathered::default());
            if let Some(number) = number {
                self.gather(server, number, &mut gathered, &mut commit)?;
            }
            let events = gathered.events;
            let is_stored = !gathered.pdus.is_empty() || !gathered.edus.is_empty();
            passing.truncate(EDUS.saturating_sub(gathered.edus.len()));
            gathered.edus.append(&mut passing);
            if gathered.pdus.is_empty() && gathered.edus.is_empty() {
                if !commit.is_empty() {
                    self.graph.commit_beside_log(commit)?;
                    Self::count(-(events as f64));
                }
                if gathered.again {
                    continue;
                }
                return Ok(None);
            }
            self.rooms.settled().await?;
            let (id, body) = self.composed(gathered.pdus, merge(gathered.edus, now_ms()))?;
            if let Some(number) = number.filter(|_| is_stored) {
                let stored = (id.clone(), Raw(body.get().as_bytes().to_vec()));
                commit.put::<OutboxTransactions>(&(number,), &stored);
                self.graph.commit_beside_log_durably(commit).await?;
            } else if !commit.is_empty() {
                self.graph.commit_beside_log(commit)?;
            }
            Self::count(-(events as f64));
            let taken = is_stored.then_some(gathered.taken);
            return Ok(Some(Transaction { id, body, is_stored, taken }));
        }
    }

    /// A new transaction: its id and what is sent.
    fn composed(&self, pdus: Vec<Box<RawValue>>, edus: Vec<Value>) -> Result<(String, Box<RawValue>), Error> {
        let now = now_ms();
        // Not the number of a commit: after a restore from a backup these are given out again.
        let id = format!("{now}-{:016x}", rand::random::<u64>());
        let body = Body { origin: self.rooms.server_name(), origin_server_ts: now, pdus, edus };
        Ok((id, serde_json::value::to_raw_value(&body).map_err(bad_json)?))
    }

    /// A stored transaction, of which something may have left: as it is, if all of it would still be told like this. Else another
    /// one of what is left of it, if anything is.
    async fn again(
        &self,
        server: &ServerName,
        number: ServerNum,
        id: String,
        body: Box<RawValue>,
    ) -> Result<Option<Transaction>, Error> {
        if self.rooms.gate().is_none() {
            return Ok(Some(Transaction { id, body, is_stored: true, taken: None }));
        }
        let Contents { pdus, edus } = serde_json::from_str(body.get()).map_err(bad_json)?;
        let mut is_same = true;
        let mut left = Vec::with_capacity(pdus.len());
        for pdu in pdus {
            let now = self.told_now(server, &pdu)?;
            is_same &= now.as_ref().is_some_and(|now| now.get() == pdu.get());
            left.extend(now);
        }
        let count = edus.len();
        let mut edus_left = Vec::with_capacity(count);
        for edu in edus {
            let now = released_part(&self.rooms, server, edu.clone())?;
            is_same &= now.as_ref() == Some(&edu);
            edus_left.extend(now);
        }
        if is_same {
            return Ok(Some(Transaction { id, body, is_stored: true, taken: None }));
        }
        tracing::info!(%server, transaction = id, "what a server is sent again has changed");
        self.rooms.settled().await?;
        let mut commit = self.graph.begin();
        if left.is_empty() && edus_left.is_empty() {
            commit.delete::<OutboxTransactions>(&(number,));
            self.graph.commit_beside_log(commit)?;
            return Ok(None);
        }
        let (id, body) = self.composed(left, edus_left)?;
        let stored = (id.clone(), Raw(body.get().as_bytes().to_vec()));
        commit.put::<OutboxTransactions>(&(number,), &stored);
        self.graph.commit_beside_log_durably(commit).await?;
        Ok(Some(Transaction { id, body, is_stored: true, taken: None }))
    }

    /// A PDU that was put into a transaction, as the server would be told it now.
    fn told_now(&self, server: &ServerName, pdu: &RawValue) -> Result<Option<Box<RawValue>>, Error> {
        let parsed: CanonicalJsonObject = serde_json::from_str(pdu.get()).map_err(bad_json)?;
        let room = parsed.get("room_id").and_then(CanonicalJsonValue::as_str);
        let Some(room) = room.and_then(|room| <&RoomId>::try_from(room).ok()) else {
            // A create event that is its room's id says no room; it has nothing that a server of the room may not know.
            return Ok(Some(pdu.to_owned()));
        };
        let Some(room) = self.rooms.room(room)? else { return Ok(None) };
        let id = postern_rooms::pdu::event_id(&parsed, &self.rooms.version_of(room)?.rules)?;
        let Some(event) = self.rooms.event_by_id(&id)? else { return Ok(None) };
        Ok(self.rooms.released(server, &event)?)
    }

    /// Nothing of a transaction has left: what it was made of is due again.
    pub(super) async fn unmake(&self, server: &ServerName, taken: Taken) -> Result<(), Error> {
        let released: Vec<EventNum> = taken.events.iter().map(|(_, (event, _))| *event).collect();
        self.rooms.not_sent(server, &released).await?;
        let Some(number) = self.number(server)? else { return Ok(()) };
        let mut commit = self.graph.begin();
        commit.delete::<OutboxTransactions>(&(number,));
        for (key, event) in &taken.events {
            commit.put::<OutboxEvents>(key, event);
        }
        for (key, edu) in &taken.edus {
            // Not noted as the latest of its kind: if one came meanwhile, that is.
            commit.put::<OutboxEdus>(key, edu);
        }
        self.graph.commit_beside_log(commit)?;
        self.beginnings.insert(number, taken.from);
        Self::count(released.len() as f64);
        Ok(())
    }

    fn gather(
        &self,
        server: &ServerName,
        number: ServerNum,
        gathered: &mut Gathered,
        commit: &mut Commit,
    ) -> Result<(), Error> {
        // First: what is queued while the queue is read lies behind it.
        let followed = *self.followed.lock();
        let (events, edus) = self.beginnings.get(&number).unwrap_or_default();
        gathered.taken.from = (events, edus);
        let events = self.gather_events(server, (number, events), gathered, commit)?;
        let edus = self.gather_edus(server, (number, edus), gathered, commit)?;
        let from = |reached: Option<Seq>| reached.unwrap_or(followed).min(followed);
        self.beginnings.insert(number, (from(events), from(edus)));
        Ok(())
    }

    /// Moves events from the queue. The place of the first that stays.
    fn gather_events(
        &self,
        server: &ServerName,
        (number, from): (ServerNum, Seq),
        gathered: &mut Gathered,
        commit: &mut Commit,
    ) -> Result<Option<Seq>, Error> {
        let mut bytes = 0;
        let range = self.graph.scan::<OutboxEvents, _>(&(number,)).from(&(number, from));
        for (looked_at, entry) in range.iter().enumerate() {
            let ((_, seq), (num, queued)) = entry?;
            if looked_at == LOOKED_AT || gathered.pdus.len() == PDUS {
                gathered.again = gathered.pdus.is_empty();
                return Ok(Some(seq));
            }
            let event = self.rooms.event(num)?;
            // Before it is asked for: what is released is sent.
            if bytes + event.json().len() > BYTES && !gathered.pdus.is_empty() {
                return Ok(Some(seq));
            }
            if let Some(pdu) = release(&self.rooms, server, &event)? {
                bytes += pdu.get().len();
                gathered.pdus.push(pdu);
                gathered.taken.events.push(((number, seq), (num, queued)));
            } else {
                tracing::debug!(%server, event = num.0, "an event is not released");
            }
            commit.delete::<OutboxEvents>(&(number, seq));
            gathered.events += 1;
        }
        Ok(None)
    }

    /// Moves EDUs from the queue likewise.
    fn gather_edus(
        &self,
        server: &ServerName,
        (number, from): (ServerNum, Seq),
        gathered: &mut Gathered,
        commit: &mut Commit,
    ) -> Result<Option<Seq>, Error> {
        let mut bytes = 0;
        for entry in self.graph.scan::<OutboxEdus, _>(&(number,)).from(&(number, from)).iter() {
            let ((_, seq, n), (kind, Raw(edu))) = entry?;
            let of_kind = (number, kind);
            // Whoever queues one reads which is the latest without waiting for this: that of a kind nobody has noted
            // is the latest too.
            let latest = self.graph.get::<OutboxLatest>(&of_kind)?;
            if latest.is_none_or(|latest| latest == (seq, n)) {
                bytes += edu.len();
                if gathered.edus.len() == EDUS || (bytes > BYTES && !gathered.edus.is_empty()) {
                    return Ok(Some(seq));
                }
                let told = serde_json::from_slice(&edu).map_err(bad_json)?;
                if let Some(told) = released_part(&self.rooms, server, told)? {
                    gathered.edus.push(told);
                    gathered.taken.edus.push(((number, seq, n), (of_kind.1.clone(), Raw(edu))));
                }
                commit.delete::<OutboxLatest>(&of_kind);
            }
            commit.delete::<OutboxEdus>(&(number, seq, n));
        }
        Ok(None)
    }

    /// A server has answered: its transaction is over.
    pub(super) fn answered(&self, server: &ServerName) -> Result<(), Error> {
        if let Some(number) = self.number(server)? {
            let mut commit = self.graph.begin();
            commit.delete::<OutboxTransactions>(&(number,));
            self.graph.commit_beside_log(commit)?;
        }
        Ok(())
    }

    /// Nothing is sent to a server any more.
    pub(super) fn forget(&self, server: &ServerName) -> Result<(), Error> {
        if let Some(number) = self.number(server)? {
            let mut commit = self.graph.begin();
            commit.delete::<OutboxTransactions>(&(number,));
            commit.delete_all::<OutboxEvents, _>(&(number,));
            commit.delete_all::<OutboxEdus, _>(&(number,));
            commit.delete_all::<OutboxLatest, _>(&(number,));
            let events = self.graph.scan::<OutboxEvents, _>(&(number,)).iter().count();
            self.graph.commit_beside_log(commit)?;
            Self::count(-(events as f64));
        }
        Ok(())
    }

    /// Of what a server was not sent for long, only the latest event of each room stays, and those that a room ends
    /// with: it fetches the rest itself. How long it waits for its hours does not count.
    pub(super) fn shorten(&self, server: &ServerName, waits: Waits) -> Result<(), Error> {
        let Some(number) = self.number(server)? else { return Ok(()) };
        let (from, _) = self.beginnings.get(&number).unwrap_or_default();
        let queue = || self.graph.scan::<OutboxEvents, _>(&(number,)).from(&(number, from));
        let Some((_, (_, since))) = queue().first()? else { return Ok(()) };
        let is_old = waits == Waits::ForReach && now_ms().saturating_sub(since) > BACKLOG_MS;
        if !is_old && queue().iter().take(BACKLOG + 1).count() <= BACKLOG {
            return Ok(());
        }
        let mut latest: HashMap<RoomNum, (Seq, EventNum)> = HashMap::new();
        let (mut commit, mut removed, mut all) = (self.graph.begin(), 0_usize, 0_usize);
        for entry in queue().iter() {
            let ((_, seq), (event, _)) = entry?;
            let record = self
                .graph
                .get::<EventRecords>(&(event,))?
                .ok_or_else(|| postern_graph::Error::Missing(format!("the record of event {}", event.0)))?;
            let Some((before, event)) = latest.insert(record.room, (seq, event)) else { continue };
            let ends = self.rooms.head(record.room)?.unwrap_or_default().extremities;
            if ends.contains(&event) {
                continue;
            }
            commit.delete::<OutboxEvents>(&(number, before));
            removed += 1;
            if removed == REMOVED_AT_ONCE {
                let full = std::mem::replace(&mut commit, self.graph.begin());
                self.graph.commit_beside_log(full)?;
                (removed, all) = (0, all + removed);
            }
        }
        self.graph.commit_beside_log(commit)?;
        let events = all + removed;
        if events > 0 {
            Self::count(-(events as f64));
            tracing::info!(%server, events, "a server was not reached for long and has to fetch these events itself");
        }
        Ok(())
    }
}

fn bad_json(error: serde_json::Error) -> postern_rooms::Error {
    postern_rooms::Error::BadJson(error.to_string())
}

/// Makes few EDUs of many that say one thing each, and gives presence its form: how long ago somebody was active
/// depends on when it is told.
pub(super) fn merge(edus: Vec<Value>, now: u64) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(edus.len());
    let (mut presence, mut receipts): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for mut edu in edus {
        match edu.get("edu_type").and_then(Value::as_str) {
            Some("m.presence") => presence.extend(presence_update(edu, now)),
            Some("m.receipt") => {
                let content = edu.get_mut("content").map(Value::take).unwrap_or_default();
                if !receipts.iter_mut().any(|into| join_receipts(into, &content)) {
                    receipts.push(content);
                }
            }
            _ => merged.push(edu),
        }
    }
    merged.extend(receipts.into_iter().map(|content| json!({ "edu_type": "m.receipt", "content": content })));
    if !presence.is_empty() {
        merged.push(json!({ "edu_type": "m.presence", "content": { "push": presence } }));
    }
    merged
}

/// Adds the receipts of `more` unless one of the same user in the same room is there: they are for different threads.
fn join_receipts(into: &mut Value, more: &Value) -> bool {
    let (Some(rooms), Some(more)) = (into.as_object_mut(), more.as_object()) else { return false };
    let read =
        |content: &Value| content.get("m.read").and_then(Value::as_object).cloned().unwrap_or_default();
    for (room, receipts) in more {
        let there = rooms.get(room).map(read).unwrap_or_default();
        if read(receipts).keys().any(|user| there.contains_key(user)) {
            return false;
        }
    }
    for (room, receipts) in more {
        let mut there = rooms.get(room).map(read).unwrap_or_default();
        there.extend(read(receipts));
        rooms.insert(room.clone(), json!({ "m.read": there }));
    }
    true
}

/// How long after the last activity a user counts as active, milliseconds.
const ACTIVE_MS: u64 = 60_000;

/// A queued presence in the form of the specification.
fn presence_update(edu: Value, now: u64) -> Option<Value> {
    let mut update = edu.get("content")?.as_object()?.clone();
    let active = update.remove("last_active_ts").and_then(|ts| ts.as_u64()).unwrap_or(0);
    let ago = now.saturating_sub(active);
    let is_online = update.get("presence").and_then(Value::as_str) == Some("online");
    update.insert("last_active_ago".to_owned(), ago.into());
    update.insert("currently_active".to_owned(), (is_online && ago < ACTIVE_MS).into());
    Some(Value::Object(update))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(room: &str, user: &str, event: &str) -> Value {
        let data = json!({ "data": { "ts": 1 }, "event_ids": [event] });
        json!({ "edu_type": "m.receipt", "content": { room: { "m.read": { user: data } } } })
    }

    #[test]
    fn receipts_become_one_edu_unless_they_are_of_the_same_user_in_the_same_room() {
        let merged = merge(
            vec![
                receipt("!a:h", "@a:h", "$1"),
                json!({ "edu_type": "m.direct_to_device", "content": {} }),
                receipt("!a:h", "@b:h", "$2"),
                receipt("!b:h", "@a:h", "$3"),
                receipt("!a:h", "@a:h", "$4"),
            ],
            0,
        );
        assert_eq!(merged.len(), 3, "{merged:#?}");
        let first = &merged[1]["content"];
        assert_eq!(first["!a:h"]["m.read"]["@a:h"]["event_ids"], json!(["$1"]));
        assert_eq!(first["!a:h"]["m.read"]["@b:h"]["event_ids"], json!(["$2"]));
        assert_eq!(first["!b:h"]["m.read"]["@a:h"]["event_ids"], json!(["$3"]));
        assert_eq!(merged[2]["content"]["!a:h"]["m.read"]["@a:h"]["event_ids"], json!(["$4"]));
    }

    #[test]
    fn presence_says_how_long_ago_when_it_is_sent() {
        let edu = |user: &str, presence: &str| {
            let content = json!({ "user_id": user, "presence": presence, "last_active_ts": 1_000 });
            json!({ "edu_type": "m.presence", "content": content })
        };
        let merged = merge(vec![edu("@a:h", "online"), edu("@b:h", "unavailable")], 3_000);
        assert_eq!(
            merged,
            [json!({ "edu_type": "m.presence", "content": { "push": [
                { "user_id": "@a:h", "presence": "online", "last_active_ago": 2_000, "currently_active": true },
                { "user_id": "@b:h", "presence": "unavailable", "last_active_ago": 2_000, "currently_active": false },
            ] } })]
        );
    }
}
