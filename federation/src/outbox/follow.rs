//! Following the log: what other servers are to be told of what happened.

use super::{Outbox, due::Due, edu, residents};
use crate::Error;
use postern_graph::{
    Commit, EventNum, Follower, NameKind, Seq, ServerNum, UserNum,
    log::{LogEntry, LogRecord},
    schema::{Cursors, OutboxEvents, Relayed},
};
use postern_rooms::{ReceiptKind, now_ms};
use ruma::{OwnedServerName, OwnedUserId};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// The name of the outbox's cursor.
pub(super) const NAME: &str = "outbox";
/// How often working off a piece of the log is tried before what cannot be worked off is passed over…
const ATTEMPTS: u32 = 5;
/// …and how long it is waited between attempts.
const PAUSE: Duration = Duration::from_secs(1);

type Records = [(Seq, Arc<LogRecord>)];

/// Follows the log until the server stops.
pub(super) async fn follow(outbox: Outbox, mut follower: Follower) {
    let mut failures = 0;
    loop {
        let records = tokio::select! {
            () = outbox.0.stop.cancelled() => return,
            records = follower.next() => records,
        };
        let worked_off = match &records {
            Ok(records) => work_off(&outbox, &mut follower, records, failures >= ATTEMPTS),
            Err(postern_graph::Error::Halted(why)) => {
                tracing::error!(why, "other servers are told nothing any more");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the log cannot be followed");
                Ok(())
            }
        };
        match (worked_off, records) {
            (Ok(()), Ok(_)) => {
                failures = 0;
                continue;
            }
            (Ok(()), Err(_)) => {}
            (Err(error), _) => tracing::error!(%error, "other servers were not told of something yet"),
        }
        failures += 1;
        tokio::select! {
            () = outbox.0.stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Queues what follows from `records` and moves the cursor, in one commit; then wakes the queues.
fn work_off(
    outbox: &Outbox,
    follower: &mut Follower,
    records: &Records,
    pass_over: bool,
) -> Result<(), Error> {
    let Some(last) = records.last().map(|(seq, _)| *seq) else { return Ok(()) };
    let mut work = Work {
        outbox,
        commit: outbox.0.graph.begin(),
        servers: BTreeSet::new(),
        events: 0,
        before: follower.cursor(),
    };
    for (seq, record) in records {
        for (n, entry) in record.entries.iter().enumerate() {
            match work.entry(*seq, u32::try_from(n).unwrap_or(u32::MAX), entry) {
                Err(error) if pass_over => {
                    tracing::error!(%error, ?entry, "other servers are not told of this")
                }
                done => done?,
            }
        }
        work.before = *seq;
    }
    let Work { mut commit, servers, events, .. } = work;
    if !commit.is_empty() {
        commit.put::<Cursors>(&(NAME.to_owned(),), &last);
        outbox.0.graph.commit_beside_log(commit)?;
        Due::count(events as f64);
    }
    follower.done(last)?;
    *outbox.0.due.followed.lock() = last;
    for server in servers {
        outbox.wake(&server);
    }
    Ok(())
}

/// A piece of the log being worked off.
struct Work<'o> {
    outbox: &'o Outbox,
    commit: Commit,
    servers: BTreeSet<OwnedServerName>,
    /// Events queued.
    events: usize,
    /// The record before the present one.
    before: Seq,
}

impl Work<'_> {
    fn entry(&mut self, seq: Seq, n: u32, entry: &LogEntry) -> Result<(), Error> {
        match entry {
            LogEntry::Event { event, pos, sender, .. } => self.event(*event, pos.seq(), *sender),
            LogEntry::Receipt { room, user, private: false } => {
                let Some(id) = self.local(*user)? else { return Ok(()) };
                let others = self.outbox.knowing(*room)?;
                if others.is_empty() {
                    return Ok(());
                }
                let room_id = self.outbox.0.rooms.room_id(*room)?;
                let moved = self.outbox.0.rooms.receipts_between(*room, *user, self.before, seq)?;
                for (m, moved) in moved.into_iter().enumerate() {
                    if moved.user != *user || moved.kind != ReceiptKind::Public {
                        continue;
                    }
                    let mut data = json!({ "ts": moved.receipt.ts });
                    if !moved.thread.is_empty() {
                        data["thread_id"] = moved.thread.clone().into();
                    }
                    let read = json!({ "data": data, "event_ids": [moved.receipt.event_id] });
                    let content = json!({ room_id.as_str(): { "m.read": { id.as_str(): read } } });
                    let kind = format!("receipt {} {} {}", room.0, user.0, moved.thread);
                    self.edu(&others, (seq, place(n, m)), &kind, "m.receipt", &content)?;
                }
                Ok(())
            }
            LogEntry::Presence { user } if self.outbox.0.presence => {
                let Some(id) = self.local(*user)? else { return Ok(()) };
                let Some((_, presence)) = self.outbox.0.users.presence(*user)? else { return Ok(()) };
                let others: Vec<_> = self.outbox.0.rooms.servers_with(*user)?.into_iter().collect();
                let mut content = json!({
                    "user_id": id,
                    "presence": presence.get("presence"),
                    "last_active_ts": presence.get("last_active_ts"),
                });
                if let Some(message) = presence.get("status_msg").filter(|message| message.is_string()) {
                    content["status_msg"] = message.clone();
                }
                self.edu(&others, (seq, place(n, 0)), &format!("presence {}", user.0), "m.presence", &content)
            }
            LogEntry::Outbox { server } => {
                self.servers.insert(self.outbox.0.due.name(*server)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An event of a user of this server, or one that it let into a room, goes to the servers of the room.
    fn event(&mut self, num: EventNum, at: Seq, sender: UserNum) -> Result<(), Error> {
        let is_local = self.local(sender)?.is_some();
        if !is_local {
            if !self.outbox.0.graph.has::<Relayed>(&(num,))? {
                return Ok(());
            }
            self.commit.delete::<Relayed>(&(num,));
        }
        let event = self.outbox.0.rooms.event(num)?;
        if !event.record.is_visible() {
            return Ok(());
        }
        let from = event.sender().server_name();
        let mut servers = residents::around(&self.outbox.0.rooms, &event)?;
        servers.extend(residents::waiting_outside(&self.outbox.0.rooms, &event)?);
        servers.extend(residents::invited_by_hand(&self.outbox.0.rooms, &event));
        // Who has made it has it.
        let servers = self.outbox.others(servers.into_iter().filter(|server| server != from));
        let now = now_ms();
        for server in servers {
            let number = self.number(&server)?;
            self.commit.put::<OutboxEvents>(&(number, at), &(num, now));
            self.servers.insert(server);
            self.events += 1;
        }
        Ok(())
    }

    fn edu(
        &mut self,
        servers: &[OwnedServerName],
        (seq, n): (Seq, u32),
        kind: &str,
        edu_type: &str,
        content: &Value,
    ) -> Result<(), Error> {
        let edu = json!({ "edu_type": edu_type, "content": content });
        for server in servers {
            let number = self.number(server)?;
            edu::put(&self.outbox.0.graph, &mut self.commit, (number, seq, n), kind, &edu)?;
            self.servers.insert(server.clone());
        }
        Ok(())
    }

    fn number(&mut self, server: &OwnedServerName) -> Result<ServerNum, Error> {
        Ok(ServerNum(self.outbox.0.graph.intern(NameKind::Server, server.as_str(), &mut self.commit)?))
    }

    /// The id of a user of this server.
    fn local(&self, user: UserNum) -> Result<Option<OwnedUserId>, Error> {
        let id = self.outbox.0.rooms.user_id(user)?;
        Ok(self.outbox.0.rooms.is_local(&id).then_some(id))
    }
}

/// Where an EDU stands among those of its record: after those that were queued in the commit itself, which have 0. One
/// entry of the log leads to few.
fn place(entry: u32, m: usize) -> u32 {
    entry.saturating_mul(64).saturating_add(u32::try_from(m).unwrap_or(63).min(63)).saturating_add(1)
}
