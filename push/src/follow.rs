//! Following the log: who is notified of what happened, and what has been read meanwhile.

use crate::{
    CALL_TYPES, Error, Push,
    judge::Occasion,
    lanes::{PusherKey, counts_at},
    limits,
    payload::is_invite,
    rules::Verdict,
    unread::{CALL, HIGHLIGHT},
};
use postern_graph::{
    Commit, EventNum, Follower, Pos, RoomNum, Seq, UserNum,
    codec::Raw,
    event::MembershipKind,
    log::{LogEntry, LogRecord},
    schema::{Cursors, Notifications, PushDue, Unread},
};
use postern_rooms::{Event, now_ms};
use quick_cache::sync::Cache;
use ruma::OwnedUserId;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// The name of the cursor of push.
pub(crate) const NAME: &str = "push";
/// How often working off a record of the log is tried before it is passed over…
const ATTEMPTS: u32 = 5;
/// …and how long it is waited between attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The local members of a room.
type Members = Arc<Vec<(UserNum, OwnedUserId)>>;

/// Follows the log until the server stops.
pub(crate) async fn follow(push: Push, mut follower: Follower) {
    let mut work = Work::new(push.clone());
    let mut failures = 0;
    loop {
        let records = tokio::select! {
            () = push.0.stop.cancelled() => return,
            records = follower.next() => records,
        };
        let worked_off = match records {
            Ok(records) => work.work_off(&mut follower, &records, failures >= ATTEMPTS).await,
            Err(postern_graph::Error::Halted(why)) => {
                tracing::error!(why, "nobody is notified of anything any more");
                return;
            }
            Err(error) => Err(error.into()),
        };
        let Err(error) = worked_off else {
            failures = 0;
            continue;
        };
        tracing::error!(%error, "somebody was not notified of something yet");
        failures += 1;
        tokio::select! {
            () = push.0.stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// What is kept from one record to the next, and the commit of the present one.
struct Work {
    push: Push,
    /// The record that is being worked off.
    seq: Seq,
    commit: Commit,
    /// Pushers that are due something by it.
    due: BTreeSet<PusherKey>,
    members: Cache<RoomNum, Members>,
    /// How many unread notifications of a user there are in a room.
    unread: Cache<(UserNum, RoomNum), usize>,
    /// How many notifications there are of a user.
    listed: Cache<UserNum, usize>,
}

impl Work {
    fn new(push: Push) -> Self {
        Self {
            commit: push.0.graph.begin(),
            push,
            seq: Seq::ZERO,
            due: BTreeSet::new(),
            members: Cache::new(limits::ROOMS_IN_MEMORY),
            unread: Cache::new(limits::LENGTHS_IN_MEMORY),
            listed: Cache::new(limits::LENGTHS_IN_MEMORY),
        }
    }

    /// Works records off, each with a commit of its own, as what follows from one is read for the next. What fails is begun anew:
    /// doing it twice does no harm.
    async fn work_off(
        &mut self,
        follower: &mut Follower,
        records: &[(Seq, Arc<LogRecord>)],
        mut pass_over: bool,
    ) -> Result<(), Error> {
        for (seq, record) in records {
            let before = std::mem::replace(&mut self.seq, *seq);
            let worked_off = self.record(record).await;
            if worked_off.is_err() {
                self.commit = self.push.0.graph.begin();
                self.due.clear();
                // What was counted may not have come to be.
                self.unread.clear();
                self.listed.clear();
            }
            match worked_off {
                Err(error) if pass_over => {
                    tracing::error!(%error, seq = seq.0, "nobody is notified of this");
                    // Of what follows it is not known yet whether it can be worked off.
                    pass_over = false;
                }
                Err(error) => {
                    if before > follower.cursor() {
                        follower.done(before)?;
                    }
                    return Err(error);
                }
                Ok(()) => {}
            }
            self.settle(Some(*seq))?;
            self.push.0.followed.send_replace(*seq);
        }
        if let Some((last, _)) = records.last() {
            follower.done(*last)?;
        }
        Ok(())
    }

    /// Commits what was gathered, with the cursor if the record is done, and wakes the lanes.
    fn settle(&mut self, done: Option<Seq>) -> Result<(), Error> {
        let graph = &self.push.0.graph;
        if self.commit.is_empty() {
            return Ok(());
        }
        let mut commit = std::mem::replace(&mut self.commit, graph.begin());
        if let Some(seq) = done {
            commit.put::<Cursors>(&(NAME.to_owned(),), &seq);
        }
        graph.commit_beside_log(commit)?;
        for pusher in std::mem::take(&mut self.due) {
            self.push.wake(&pusher);
        }
        Ok(())
    }

    async fn record(&mut self, record: &LogRecord) -> Result<(), Error> {
        for entry in &record.entries {
            match entry {
                // What is fetched from the past is no news.
                LogEntry::Event { event, pos, .. } if pos.seq() > Seq::ZERO => {
                    self.event(*event, *pos).await?;
                }
                LogEntry::Membership { user, room } => {
                    if let Some(id) = self.local(*user)? {
                        self.members.remove(room);
                        self.membership(*room, *user, &id)?;
                    }
                }
                LogEntry::Receipt { room, user, .. } if self.local(*user)?.is_some() => {
                    let read = self.push.read(*room, *user)?;
                    self.forget(*room, *user, |pos, thread| read.has(pos, thread))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The id of a user of this server.
    fn local(&self, user: UserNum) -> Result<Option<OwnedUserId>, Error> {
        let id = self.push.0.users.id(user)?;
        Ok(self.push.0.rooms.is_local(&id).then_some(id))
    }

    async fn event(&mut self, num: EventNum, pos: Pos) -> Result<(), Error> {
        let event = self.push.0.rooms.event(num)?;
        if !event.record.is_visible() {
            return Ok(());
        }
        let (room, sender) = (event.record.room, event.record.sender);
        self.redaction(&event)?;
        // Who says something has read what was said. State is also changed without anybody looking at the room.
        if event.state_key().is_none() && self.local(sender)?.is_some() {
            let thread = self.push.thread_of(&event)?.unwrap_or_default();
            self.forget(room, sender, |stands, of| stands < pos && of == thread)?;
        }
        let Some(occasion) = self.push.occasion(&event)? else { return Ok(()) };
        let mut notified = 0;
        for (n, (user, id)) in self.members_of(room)?.iter().enumerate() {
            if n % limits::MEMBERS_AT_ONCE == limits::MEMBERS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let Some(verdict) = self.push.for_member(&occasion, *user, id)? else { continue };
            self.notify(&occasion, pos, *user, &verdict)?;
            notified += 1;
            if notified % limits::MEMBERS_A_COMMIT == 0 {
                self.settle(None)?;
            }
        }
        Ok(())
    }

    fn members_of(&self, room: RoomNum) -> Result<Members, Error> {
        if let Some(members) = self.members.get(&room) {
            return Ok(members);
        }
        let rooms = &self.push.0.rooms;
        let users = rooms.joined_users_of(room, rooms.server_name())?;
        let members: Result<_, Error> =
            users.into_iter().map(|user| Ok((user, self.push.0.users.id(user)?))).collect();
        let members: Members = Arc::new(members?);
        self.members.insert(room, members.clone());
        Ok(members)
    }

    /// A user of this server came, was invited, or went.
    fn membership(&mut self, room: RoomNum, user: UserNum, id: &OwnedUserId) -> Result<(), Error> {
        let now = self.push.0.rooms.member(room, user)?;
        let now = match now {
            Some(now) if now.kind == MembershipKind::Join => {
                // An invite is answered. Whoever has another name now has read no more by that.
                let before = self.push.0.rooms.event(now.event)?.record.state_before;
                let before = self.push.0.rooms.state_in(before, "m.room.member", id.as_str())?;
                if before.is_none_or(|before| before.membership() != Some(MembershipKind::Join)) {
                    self.forget(room, user, |pos, _| pos < now.since)?;
                }
                return Ok(());
            }
            now => now,
        };
        self.forget(room, user, |_, _| true)?;
        let Some(invite) = now.filter(|now| now.kind == MembershipKind::Invite) else { return Ok(()) };
        let event = self.push.0.rooms.event(invite.event)?;
        if !is_invite(&event, id) || invite.since.seq() == Seq::ZERO {
            return Ok(());
        }
        let Some(occasion) = self.push.occasion(&event)? else { return Ok(()) };
        match self.push.verdict(&occasion, user, id)? {
            Some(verdict) => self.notify(&occasion, invite.since, user, &verdict),
            None => Ok(()),
        }
    }

    /// What a redaction takes notifies nobody any more.
    fn redaction(&mut self, redaction: &Event) -> Result<(), Error> {
        let Some(target) = self.push.taken_by(redaction)? else { return Ok(()) };
        let room = redaction.record.room;
        let pos = target.record.pos;
        for (user, _) in self.members_of(room)?.iter() {
            if self.push.0.graph.has::<Notifications>(&(*user, pos))? {
                self.commit.delete::<Notifications>(&(*user, pos));
                self.listed.remove(user);
            }
            if self.push.0.graph.has::<Unread>(&(*user, room, pos))? {
                self.forget(room, *user, |stands, _| stands == pos)?;
            }
        }
        Ok(())
    }

    /// Takes what is unread away where `read` says so, and has the user's devices told of the new count.
    fn forget(
        &mut self,
        room: RoomNum,
        user: UserNum,
        read: impl Fn(Pos, &str) -> bool,
    ) -> Result<(), Error> {
        let mut any = false;
        let stored = self.push.0.graph.scan::<Unread, _>(&(user, room));
        for entry in stored.iter().take(limits::UNREAD + limits::SLACK) {
            let (key, (_, thread)) = entry?;
            if read(key.2, &thread) {
                self.commit.delete::<Unread>(&key);
                any = true;
            }
        }
        if any {
            self.unread.remove(&(user, room));
            self.queue(user, (counts_at(self.seq), RoomNum::NONE, EventNum::UNPLACED), "[]")?;
        }
        Ok(())
    }

    /// Keeps that a user is notified, and queues it for their pushers.
    fn notify(
        &mut self,
        occasion: &Occasion,
        pos: Pos,
        user: UserNum,
        verdict: &Verdict,
    ) -> Result<(), Error> {
        let (event, room) = (&occasion.event, occasion.event.record.room);
        let thread = self.push.thread_of(event)?.unwrap_or_default();
        let is_call = CALL_TYPES.contains(&event.kind().to_string().as_str());
        let bits = u8::from(verdict.highlight) * HIGHLIGHT + u8::from(is_call) * CALL;
        self.commit.put::<Unread>(&(user, room, pos), &(bits, thread));
        let actions = Raw(verdict.actions.as_bytes().to_vec());
        self.commit.put::<Notifications>(&(user, pos), &(room, event.num, verdict.highlight, actions));
        self.bound(user, room)?;
        self.queue(user, (pos, room, event.num), &verdict.actions)
    }

    /// Takes away the oldest of what became too much.
    fn bound(&mut self, user: UserNum, room: RoomNum) -> Result<(), Error> {
        let graph = self.push.0.graph.clone();
        let (unread, listed) =
            (|| graph.scan::<Unread, _>(&(user, room)), || graph.scan::<Notifications, _>(&(user,)));
        let place = (user, room);
        let mut count = self.unread.get(&place).unwrap_or_else(|| unread().iter().count()) + 1;
        if count > limits::UNREAD + limits::SLACK {
            for entry in unread().iter().take(count - limits::UNREAD) {
                self.commit.delete::<Unread>(&entry?.0);
            }
            count = limits::UNREAD;
        }
        self.unread.insert(place, count);
        let mut count = self.listed.get(&user).unwrap_or_else(|| listed().iter().count()) + 1;
        if count > limits::NOTIFICATIONS + limits::SLACK {
            for entry in listed().iter().take(count - limits::NOTIFICATIONS) {
                self.commit.delete::<Notifications>(&entry?.0);
            }
            count = limits::NOTIFICATIONS;
        }
        self.listed.insert(user, count);
        Ok(())
    }

    /// Queues an event, or (without one) the counts, for the pushers of a user.
    fn queue(
        &mut self,
        user: UserNum,
        (pos, room, event): (Pos, RoomNum, EventNum),
        actions: &str,
    ) -> Result<(), Error> {
        if !self.push.0.settings.enabled {
            return Ok(());
        }
        for pusher in self.push.0.users.pushers(user)? {
            let key = (user, pusher.app_id.clone(), pusher.pushkey.clone(), pos);
            let due = (room, event, now_ms(), Raw(actions.as_bytes().to_vec()));
            self.commit.put::<PushDue>(&key, &due);
            self.due.insert((user, pusher.app_id, pusher.pushkey));
        }
        Ok(())
    }
}
