//! What this server tells others of its users' devices (specification: device management): a follower of the log.
//!
//! Each server that shares a room with a local user is sent the user's devices once, and from then on what changes
//! (`m.device_list_update`, one for each device, and `m.signing_key_update`). The updates of a user to one server form a
//! sequence: each names the one before (`prev_id`), so that a server that misses one notices. What was told is stored as
//! a hash for each device (`schema::ToldKeys`); telling is comparing, so doing it again does no harm.
//!
//! The same follower hands messages to devices of other servers to the outbox, and stops following the device lists of
//! users of other servers with whom no room is shared any more.

use crate::{
    Error, Federation,
    devices::{told_devices, told_keys},
    outbox,
};
use postern_graph::{
    Commit, RoomNum, Seq, UserNum,
    codec::Raw,
    log::{LogEntry, LogRecord},
    schema::{RemoteToDevice, ToldKeys, ToldServers, ToldUpdates},
};
use postern_rooms::MembershipKind;
use postern_users::RemoteKeys;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The follower's name.
const NAME: &str = "federation_devices";

/// How long it waits after a failure before it tries again.
const RETRY: Duration = Duration::from_secs(5);

/// Messages handed to the outbox by one commit.
const MESSAGES_AT_ONCE: usize = 100;

/// Where the hash of the cross-signing keys stands: no device has this id.
const SIGNING_KEYS: &str = "";

/// Follows the log until the server stops.
pub(crate) async fn follow(federation: Federation) {
    let stopping = federation.0.stopping.clone();
    tokio::select! {
        () = stopping.cancelled() => {}
        () = work(&federation) => {}
    }
}

async fn work(federation: &Federation) {
    loop {
        if let Err(error) = work_on(federation).await {
            tracing::error!(%error, "other servers are not told of devices; trying again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn work_on(federation: &Federation) -> Result<(), Error> {
    let mut follower = federation.0.graph.follow(NAME)?;
    // Once from the beginning: what came before the follower did.
    hand_over(federation, Seq::ZERO)?;
    loop {
        let records = follower.next().await?;
        let Some((last, _)) = records.last() else { continue };
        let last = *last;
        hand_over(federation, follower.cursor())?;
        let concerned = concerned(federation, follower.cursor(), &records)?;
        for user in concerned.tell {
            tell(federation, user)?;
        }
        for user in concerned.look_at {
            look_at(federation, user)?;
        }
        for user in concerned.doubt {
            federation.0.users.doubt_keys(user)?;
        }
        follower.done(last)?;
        tokio::task::yield_now().await;
    }
}

/// Hands messages to devices of other servers, stored after `after`, to the outbox: out of one family into the other in
/// one commit.
fn hand_over(federation: &Federation, after: Seq) -> Result<(), Error> {
    let graph = &federation.0.graph;
    // What is not durable yet would be sent although a crash may undo it.
    let durable = graph.durable();
    loop {
        let mut commit = graph.begin();
        let mut count = 0;
        let waiting = graph.scan::<RemoteToDevice, _>(&()).after(&(after,)).up_to(&(durable,)).iter();
        for entry in waiting.take(MESSAGES_AT_ONCE) {
            let (key, Raw(content)) = entry?;
            let (_, server, id) = &key;
            let server = <&ServerName>::try_from(server.as_str());
            match (server, serde_json::from_slice::<Value>(&content)) {
                (Ok(server), Ok(content)) if !may_write(federation, server, &content)? => {
                    tracing::warn!(%server, id, "a message to a device is not let out");
                }
                (Ok(server), Ok(content)) => {
                    let edu = json!({ "edu_type": "m.direct_to_device", "content": content });
                    outbox::edu(graph, &mut commit, server, &format!("m.direct_to_device {id}"), &edu)?;
                }
                _ => tracing::error!(id, "a stored message to a device cannot be read"),
            }
            commit.delete::<RemoteToDevice>(&key);
            count += 1;
        }
        if count > 0 {
            graph.commit(commit)?;
        }
        if count < MESSAGES_AT_ONCE {
            return Ok(());
        }
    }
}

/// Whether the sender of a message to devices may write to the users of a server: who shares a room with them that the server may
/// know, and everybody where the gate lets users write to strangers.
fn may_write(federation: &Federation, server: &ServerName, content: &Value) -> Result<bool, Error> {
    let rooms = &federation.0.rooms;
    if !rooms.speaks_with(server) && !rooms.speaks_later(server) {
        return Ok(false);
    }
    if rooms.gate().is_none_or(|gate| gate.writes_to_strangers(server)) {
        return Ok(true);
    }
    let sender = content.get("sender").and_then(Value::as_str).and_then(|sender| UserId::parse(sender).ok());
    let Some(sender) = sender else { return Ok(false) };
    Ok(rooms.shares_room(server, &sender)? || rooms.has_invited(server, &sender)?)
}

/// Whom what happened concerns.
#[derive(Debug, Default)]
struct Concerned {
    /// Local users of whose devices other servers may have to be told.
    tell: BTreeSet<UserNum>,
    /// Users of other servers with whom perhaps no room is shared any more.
    look_at: BTreeSet<UserNum>,
    /// Users of other servers with whom for a while no room may have been shared.
    doubt: BTreeSet<UserNum>,
}

fn concerned(
    federation: &Federation,
    cursor: Seq,
    records: &[(Seq, Arc<LogRecord>)],
) -> Result<Concerned, Error> {
    let rooms = &federation.0.rooms;
    let mut concerned = Concerned::default();
    let mut before = cursor;
    for (seq, record) in records {
        let mut entered: BTreeSet<(RoomNum, OwnedServerName)> = BTreeSet::new();
        for entry in &record.entries {
            match entry {
                LogEntry::DeviceList { user } if rooms.is_local(&rooms.user_id(*user)?) => {
                    concerned.tell.insert(*user);
                }
                LogEntry::Membership { user, room } => {
                    let id = rooms.user_id(*user)?;
                    if rooms.is_local(&id) {
                        concerned.tell.insert(*user);
                        local_moved(federation, *room, *seq, &mut concerned)?;
                    } else {
                        remote_moved(federation, *user, *room, *seq, &mut concerned)?;
                        entered.insert((*room, id.server_name().to_owned()));
                    }
                }
                _ => {}
            }
        }
        for (room, server) in entered {
            // Users of a server that has been there have been told of already.
            let since = rooms.in_since(&server, room)?.map(|since| since.seq());
            if since.is_some_and(|since| before < since && since <= *seq) {
                concerned.tell.extend(rooms.joined_users_of(room, rooms.server_name())?);
            }
        }
        before = *seq;
    }
    Ok(concerned)
}

/// A local user came into a room or left it, in the commit `seq`.
fn local_moved(
    federation: &Federation,
    room: RoomNum,
    seq: Seq,
    concerned: &mut Concerned,
) -> Result<(), Error> {
    let rooms = &federation.0.rooms;
    let since = rooms.in_since(rooms.server_name(), room)?.map(|since| since.seq());
    // If this server is there since before this commit, or came with it, all is as it was.
    if since.is_some_and(|since| since <= seq) {
        return Ok(());
    }
    for user in rooms.joined_users(room)? {
        if federation.0.users.followed(user)?.is_some() {
            // It left, and perhaps came back since.
            if since.is_some() {
                concerned.doubt.insert(user)
            } else {
                concerned.look_at.insert(user)
            };
        }
    }
    Ok(())
}

/// A user of another server came into a room or left it, in the commit `seq`.
fn remote_moved(
    federation: &Federation,
    user: UserNum,
    room: RoomNum,
    seq: Seq,
    concerned: &mut Concerned,
) -> Result<(), Error> {
    if federation.0.users.followed(user)?.is_none() {
        return Ok(());
    }
    match federation.0.rooms.member(room, user)? {
        Some(now) if now.kind == MembershipKind::Join && now.since.seq() <= seq => {}
        Some(now) if now.kind == MembershipKind::Join => {
            concerned.doubt.insert(user);
        }
        _ => {
            concerned.look_at.insert(user);
        }
    }
    Ok(())
}

/// Stops following the devices of a user with whom no room is shared any more.
fn look_at(federation: &Federation, user: UserNum) -> Result<(), Error> {
    if federation.met(&federation.0.rooms.user_id(user)?)?.is_none() {
        federation.0.users.unfollow_keys(user)?;
    }
    Ok(())
}

/// What of a device or of keys is compared to what was told. Fields of an object are in the order of their names.
fn hash(fields: &Map<String, Value>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, value) in fields {
        hash.update(format!("{name:?}:{value};"));
    }
    hash.finalize().into()
}

/// EDUs queued by one commit, for as many servers as there are: each takes a number of the log.
const EDUS_AT_ONCE: usize = 1_000;

/// Servers, and the last update each was sent.
type Servers = BTreeMap<OwnedServerName, Option<u64>>;

/// Telling other servers of one local user's devices.
struct Telling<'f> {
    federation: &'f Federation,
    user_id: OwnedUserId,
    user: UserNum,
    commit: Commit,
    /// EDUs in the commit.
    edus: usize,
    /// The last update.
    last: u64,
    /// Those that were told before.
    old: Servers,
    /// Those that were not.
    new: Servers,
}

/// Tells the servers that share a room with a local user what changed of the user's devices since they were last told;
/// those that are new, all there is.
pub(crate) fn tell(federation: &Federation, user: UserNum) -> Result<(), Error> {
    let graph = &federation.0.graph;
    let mut commit = graph.begin();
    let servers = federation.0.rooms.servers_with(user)?;
    let mut servers: BTreeMap<String, OwnedServerName> =
        servers.into_iter().map(|server| (server.to_string(), server)).collect();
    let mut old = Servers::new();
    for entry in graph.scan::<ToldServers, _>(&(user,)).iter() {
        let ((_, server), last) = entry?;
        match servers.remove(&server) {
            Some(server) => {
                old.insert(server, Some(last));
            }
            // No room is shared any more. If one is again, it is told of everything.
            None => commit.delete::<ToldServers>(&(user, server)),
        }
    }
    let new: Servers = servers.into_values().map(|server| (server, None)).collect();
    let nobody = old.is_empty() && new.is_empty();
    let mut telling = Telling {
        federation,
        user_id: federation.0.rooms.user_id(user)?,
        user,
        commit,
        edus: 0,
        last: graph.get::<ToldUpdates>(&(user,))?.unwrap_or_default(),
        old,
        new,
    };
    if !nobody {
        telling.everything()?;
    }
    telling.save()
}

impl Telling<'_> {
    fn everything(&mut self) -> Result<(), Error> {
        let mut told: BTreeMap<String, [u8; 32]> = BTreeMap::new();
        for entry in self.federation.0.graph.scan::<ToldKeys, _>(&(self.user,)).iter() {
            let ((_, name), hash) = entry?;
            told.insert(name, hash);
        }
        let mut keys = told_keys(self.federation, &self.user_id)?;
        for (device, fields) in told_devices(self.federation, self.user, &mut keys)? {
            if self.edus >= EDUS_AT_ONCE {
                self.save()?;
            }
            let hash = hash(&fields);
            let changed = told.remove(&device) != Some(hash);
            if changed {
                self.commit.put::<ToldKeys>(&(self.user, device.clone()), &hash);
            }
            self.device(&device, Some(&fields), changed, true)?;
        }
        let before = told.remove(SIGNING_KEYS);
        for device in told.into_keys() {
            if self.edus >= EDUS_AT_ONCE {
                self.save()?;
            }
            self.commit.delete::<ToldKeys>(&(self.user, device.clone()));
            self.device(&device, None, true, false)?;
        }
        self.signing_keys(before, keys)
    }

    /// The next update, of one device (gone, if there are no `fields`), to those that were told before and to the others.
    fn device(
        &mut self,
        device: &str,
        fields: Option<&Map<String, Value>>,
        to_old: bool,
        to_new: bool,
    ) -> Result<(), Error> {
        let mut by_previous: BTreeMap<Option<u64>, Vec<OwnedServerName>> = BTreeMap::new();
        let old = self.old.iter_mut().filter(|_| to_old);
        let new = self.new.iter_mut().filter(|_| to_new);
        for (server, previous) in old.chain(new) {
            by_previous.entry(*previous).or_default().push(server.clone());
            *previous = Some(self.last + 1);
        }
        if by_previous.is_empty() {
            return Ok(());
        }
        self.last += 1;
        for (previous, servers) in by_previous {
            let mut content = fields.cloned().unwrap_or_default();
            content.insert("user_id".to_owned(), self.user_id.as_str().into());
            content.insert("device_id".to_owned(), device.into());
            content.insert("stream_id".to_owned(), self.last.into());
            content.insert("prev_id".to_owned(), previous.into_iter().collect());
            if fields.is_none() {
                content.insert("deleted".to_owned(), true.into());
            }
            // A later update of the device replaces one that waits: the server notices the gap and asks for all.
            let kind = format!("m.device_list_update {} {device}", self.user_id);
            self.edu(&servers, &kind, "m.device_list_update", content)?;
        }
        Ok(())
    }

    fn signing_keys(&mut self, before: Option<[u8; 32]>, keys: RemoteKeys) -> Result<(), Error> {
        let mut content = Map::new();
        for (name, key) in [("master_key", keys.master_key), ("self_signing_key", keys.self_signing_key)] {
            if let Some(key) = key {
                content.insert(name.to_owned(), Value::Object(key));
            }
        }
        if content.is_empty() {
            // There is no way to say so: what a server was told stays until the user has new ones.
            return Ok(());
        }
        let hash = hash(&content);
        let changed = before != Some(hash);
        if changed {
            self.commit.put::<ToldKeys>(&(self.user, SIGNING_KEYS.to_owned()), &hash);
        }
        content.insert("user_id".to_owned(), self.user_id.as_str().into());
        let old = self.old.keys().filter(|_| changed);
        let servers: Vec<OwnedServerName> = old.chain(self.new.keys()).cloned().collect();
        let kind = format!("m.signing_key_update {}", self.user_id);
        self.edu(&servers, &kind, "m.signing_key_update", content)
    }

    fn edu(
        &mut self,
        servers: &[OwnedServerName],
        kind: &str,
        edu_type: &str,
        content: Map<String, Value>,
    ) -> Result<(), Error> {
        if servers.is_empty() {
            return Ok(());
        }
        self.edus += 1;
        let edu = json!({ "edu_type": edu_type, "content": content });
        let servers = servers.iter().map(|server| &**server);
        outbox::edu_for_all(&self.federation.0.graph, &mut self.commit, servers, kind, &edu)
    }

    /// Applies what was gathered, with how far each server was told.
    fn save(&mut self) -> Result<(), Error> {
        let graph = &self.federation.0.graph;
        let mut commit = std::mem::replace(&mut self.commit, graph.begin());
        if self.edus > 0 {
            for (server, told) in self.old.iter().chain(&self.new) {
                if let Some(told) = told {
                    commit.put::<ToldServers>(&(self.user, server.to_string()), told);
                }
            }
            commit.put::<ToldUpdates>(&(self.user,), &self.last);
        }
        self.edus = 0;
        if !commit.is_empty() {
            graph.commit(commit)?;
        }
        Ok(())
    }
}
