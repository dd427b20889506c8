//! What follows from an event being part of a room: flat current state, memberships, redactions, relations, threads.

use crate::{
    Error, Event,
    batch::Batch,
    limits,
    power::{Action, PowerLevels},
};
use postern_graph::{
    EventNum, NameKind, Pos, Root, UserNum,
    codec::Raw,
    event::{Membership, MembershipKind, flags},
    log::LogEntry,
    schema::{
        CurrentState, EventJson, EventOriginals, EventRecords, Forgotten, FurtherRedactions, InviteStates,
        MediaReferences, Members, Memberships, PendingRedactions, Relations, StateAt, ThreadTips, Threads,
    },
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, UserId, canonical_json::redact_in_place,
    events::TimelineEventType,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The `m.relates_to` of an event.
#[derive(Debug, Clone, Deserialize)]
pub struct Relation {
    /// The relation's kind.
    pub rel_type: Option<String>,
    /// The event related to.
    pub event_id: Option<String>,
    /// What an annotation annotates with.
    pub key: Option<String>,
    /// The event it replies to.
    #[serde(rename = "m.in_reply_to")]
    in_reply_to: Option<InReplyTo>,
}

#[derive(Debug, Clone, Deserialize)]
struct InReplyTo {
    event_id: Option<String>,
}

impl Relation {
    /// The relation of an event, if its content has one.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        Self::in_content(event.content())
    }

    /// The events related to.
    pub(crate) fn targets(&self) -> impl Iterator<Item = OwnedEventId> {
        let replied_to = self.in_reply_to.as_ref().and_then(|reply| reply.event_id.as_deref());
        [self.event_id.as_deref(), replied_to].into_iter().flatten().filter_map(|id| EventId::parse(id).ok())
    }

    /// The relation that an event with this content makes, if any.
    pub(crate) fn in_content(content: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Content {
            #[serde(rename = "m.relates_to")]
            relates_to: Option<Relation>,
        }
        serde_json::from_str::<Content>(content.get()).ok()?.relates_to
    }
}

impl Batch<'_> {
    /// The current state becomes `to` at `pos`, because of the event `cause` if that alone changes it: in the flat
    /// form, in memberships, in what was when.
    pub(crate) fn move_state(&mut self, to: Root, pos: Pos, cause: Option<EventNum>) -> Result<(), Error> {
        let from = std::mem::replace(&mut self.head.state, to);
        if from == to {
            return Ok(());
        }
        self.commit.put::<StateAt>(&(self.room, pos), &to);
        let changes = self.rooms.graph.state_diff_in(&self.commit, from, to)?;
        if changes.iter().any(|change| change.after.is_none() || change.after != cause) {
            self.commit.log(LogEntry::RoomState { room: self.room });
        }
        for change in changes {
            let Some(num) = change.after.or(change.before) else { continue };
            let event = self.event(num)?;
            let Some(state_key) = event.state_key() else { continue };
            if change.after.is_some() && event.record.has(flags::SOFT_FAILED) {
                self.overruling.push(num);
            }
            let key = (self.room, event.kind().to_string(), state_key.to_owned());
            match change.after {
                Some(num) => self.commit.put::<CurrentState>(&key, &num),
                None => self.commit.delete::<CurrentState>(&key),
            }
            if *event.kind() == TimelineEventType::RoomMember
                && let Ok(user) = <&UserId>::try_from(state_key)
            {
                self.membership_changed(user, change.after.map(|_| &*event), pos)?;
            }
        }
        Ok(())
    }

    /// What follows from an event that is shown, beside its being state.
    pub(crate) fn apply_effects(&mut self, event: &Arc<Event>) -> Result<(), Error> {
        self.relate(event)?;
        for media in media_shown(event) {
            self.commit.put::<MediaReferences>(&(media, event.num), &());
        }
        if *event.kind() == TimelineEventType::RoomRedaction {
            self.redaction(event)?;
        }
        for by in self.redactions_before(event)? {
            let by = self.event(by)?;
            if self.may_redact(by.sender(), event)? {
                return self.redact(event, by.num);
            }
        }
        Ok(())
    }

    /// The redactions of an event that came before it, which wait no more.
    fn redactions_before(&mut self, event: &Event) -> Result<Vec<EventNum>, Error> {
        let pending = (self.room, event.id.to_string());
        let Some(first) = self.rooms.graph.get::<PendingRedactions>(&pending)? else { return Ok(Vec::new()) };
        self.commit.delete::<PendingRedactions>(&pending);
        let mut all = vec![first];
        for entry in self.rooms.graph.scan::<FurtherRedactions, _>(&pending).iter() {
            let (key, ()) = entry?;
            self.commit.delete::<FurtherRedactions>(&key);
            all.push(key.2);
        }
        Ok(all)
    }

    /// `event` is now what says of `user`'s membership, or nothing is.
    pub(crate) fn membership_changed(
        &mut self,
        user: &UserId,
        event: Option<&Event>,
        since: Pos,
    ) -> Result<(), Error> {
        let num = UserNum(self.rooms.graph.intern(NameKind::User, user.as_str(), &mut self.commit)?);
        let before = match self.membership_overlay.get(&num) {
            Some(kind) => *kind,
            None => self.rooms.member(self.room, num)?.map(|membership| membership.kind),
        };
        let now = event.and_then(|event| Some((event, event.membership()?)));
        if let Some(before) = before {
            self.commit.delete::<Members>(&(self.room, before as u8, num));
        }
        match now {
            Some((event, kind)) => {
                self.commit.put::<Members>(&(self.room, kind as u8, num), &event.num);
                let membership = Membership { kind, event: event.num, since, sender: event.record.sender };
                self.commit.put::<Memberships>(&(num, self.room), &membership);
                if matches!(kind, MembershipKind::Join | MembershipKind::Invite | MembershipKind::Knock) {
                    self.commit.delete::<Forgotten>(&(num, self.room));
                }
            }
            None => self.commit.delete::<Memberships>(&(num, self.room)),
        }
        if !matches!(now, Some((_, MembershipKind::Invite | MembershipKind::Knock))) {
            self.commit.delete::<InviteStates>(&(num, self.room));
        }
        let kind = now.map(|(_, kind)| kind);
        self.count_server(user.server_name(), before, kind, since)?;
        self.membership_overlay.insert(num, kind);
        self.commit.log(LogEntry::Membership { user: num, room: self.room });
        Ok(())
    }

    /// The kind of relation that an event makes, and the event of the room that it is to.
    fn relation(&self, event: &Event) -> Result<Option<(String, Arc<Event>)>, Error> {
        let Some(relation) = Relation::of(event) else { return Ok(None) };
        let (Some(rel_type), Some(parent)) = (relation.rel_type, relation.event_id) else { return Ok(None) };
        let Ok(parent) = <&ruma::EventId>::try_from(parent.as_str()) else { return Ok(None) };
        // It may have come in the same batch, as a piece of history.
        let parent = self.event_by_id(parent)?.filter(|parent| parent.record.room == self.room);
        Ok(parent.map(|parent| (rel_type, parent)))
    }

    fn relate(&mut self, event: &Arc<Event>) -> Result<(), Error> {
        let Some((rel_type, parent)) = self.relation(event)? else { return Ok(()) };
        self.commit.put::<Relations>(&(parent.num, rel_type.clone(), event.record.pos), &event.num);
        if rel_type == "m.thread" {
            let pos = event.record.pos;
            let (latest, replies) = self.thread_tip(parent.num)?.unwrap_or((pos, 0));
            // What comes now is the latest; its position is not known yet and cannot be compared.
            let latest = if pos > Pos::BACKFILL { pos } else { latest.max(pos) };
            self.set_thread_tip(parent.num, Some((latest, replies + 1)))?;
        }
        Ok(())
    }

    /// Where the latest reply of a thread stands, and how many there are, as the batch has left it.
    fn thread_tip(&self, root: EventNum) -> Result<Option<(Pos, u64)>, Error> {
        match self.thread_overlay.get(&root) {
            Some(tip) => Ok(*tip),
            None => Ok(self.rooms.graph.get::<ThreadTips>(&(root,))?),
        }
    }

    /// The replies to a thread that came in this batch, in their order.
    fn added_replies(&self, root: &Event) -> impl Iterator<Item = &Arc<Event>> {
        self.order.iter().filter_map(|num| self.added.get(num)).filter(move |added| {
            Relation::of(added).is_some_and(|relation| {
                relation.rel_type.as_deref() == Some("m.thread")
                    && relation.event_id.as_deref() == Some(root.id.as_str())
            })
        })
    }

    fn set_thread_tip(&mut self, root: EventNum, tip: Option<(Pos, u64)>) -> Result<(), Error> {
        if let Some((latest, _)) = self.thread_tip(root)? {
            self.commit.delete::<Threads>(&(self.room, latest, root));
        }
        match tip {
            Some(tip) => {
                self.commit.put::<Threads>(&(self.room, tip.0, root), &());
                self.commit.put::<ThreadTips>(&(root,), &tip);
            }
            None => self.commit.delete::<ThreadTips>(&(root,)),
        }
        self.thread_overlay.insert(root, tip);
        Ok(())
    }

    /// A redaction takes effect if its sender sent the redacted event or may redact in the room (specification:
    /// "handling redactions"; users of one server are told apart by their server).
    fn redaction(&mut self, redaction: &Arc<Event>) -> Result<(), Error> {
        let Some(target_id) = redaction.redacts() else { return Ok(()) };
        let Some(target) = self.event_by_id(&target_id)? else {
            return self.wait_for_target(target_id.to_string(), redaction.num);
        };
        if target.record.room == self.room && self.may_redact(redaction.sender(), &target)? {
            self.redact(&target, redaction.num)?;
        }
        Ok(())
    }

    /// Keeps a redaction until its event comes. Who may redact that is only known then, so that none displaces another.
    fn wait_for_target(&mut self, target: String, redaction: EventNum) -> Result<(), Error> {
        let pending = (self.room, target);
        if self.rooms.graph.get::<PendingRedactions>(&pending)?.is_none() {
            self.commit.put::<PendingRedactions>(&pending, &redaction);
            return Ok(());
        }
        let further = self.rooms.graph.scan::<FurtherRedactions, _>(&pending);
        if further.iter().take(limits::REDACTIONS_WAITING).count() < limits::REDACTIONS_WAITING {
            self.commit.put::<FurtherRedactions>(&(pending.0, pending.1, redaction), &());
        }
        Ok(())
    }

    /// The power levels of the room as the batch has left it.
    pub(crate) fn power_levels(&self) -> Result<PowerLevels, Error> {
        PowerLevels::of(
            &self.version,
            self.state("m.room.create", "")?,
            self.state("m.room.power_levels", "")?,
        )
    }

    pub(crate) fn may_redact(&self, sender: &UserId, target: &Event) -> Result<bool, Error> {
        let same = if self.rooms.is_local(sender) {
            target.sender() == sender
        } else {
            // Another server answers for its users, and its events are told apart by server only.
            target.sender().server_name() == sender.server_name()
        };
        Ok(same || self.power_levels()?.may(sender, Action::Redact))
    }

    fn redact(&mut self, target: &Event, by: EventNum) -> Result<(), Error> {
        if target.record.redacted_by.is_some() || *target.kind() == TimelineEventType::RoomCreate {
            return Ok(());
        }
        let mut pdu: CanonicalJsonObject =
            serde_json::from_str(target.json()).map_err(|error| Error::BadJson(error.to_string()))?;
        redact_in_place(&mut pdu, &self.version.rules.redaction, None)
            .map_err(|error| Error::BadJson(error.to_string()))?;
        let json = serde_json::to_string(&CanonicalJsonValue::Object(pdu))
            .map_err(|error| Error::BadJson(error.to_string()))?;
        let original = (crate::rooms::now_ms(), Raw(target.json().as_bytes().to_vec()));
        self.commit.put::<EventOriginals>(&(target.num,), &original);
        self.commit.put::<EventJson>(&(target.num,), &Raw(json.as_bytes().to_vec()));
        let mut record = target.record;
        record.redacted_by = Some(by);
        self.commit.put::<EventRecords>(&(target.num,), &record);
        if let Some(added) = self.added.get_mut(&target.num) {
            // Its record is written at the end of the batch.
            let (id, room) = (target.id.clone(), target.room_id.clone());
            *added = Arc::new(Event::from_parts(target.num, id, room, record, json.into_boxed_str())?);
        }
        self.unrelate(target)?;
        for media in media_shown(target) {
            self.commit.delete::<MediaReferences>(&(media, target.num));
        }
        self.rewritten.push(target.num);
        Ok(())
    }

    /// A redacted event relates to nothing any more.
    fn unrelate(&mut self, event: &Event) -> Result<(), Error> {
        let Some((rel_type, parent)) = self.relation(event)? else { return Ok(()) };
        self.commit.delete::<Relations>(&(parent.num, rel_type.clone(), event.record.pos));
        if rel_type == "m.thread"
            && let Some((_, replies)) = self.thread_tip(parent.num)?
        {
            let stored = self.rooms.graph.scan::<Relations, _>(&(parent.num, rel_type.clone()));
            let stored = stored.reverse().iter().filter_map(Result::ok).map(|((_, _, pos), _)| pos);
            let before = stored.into_iter().find(|pos| *pos != event.record.pos);
            // What is redacted relates to nothing, so that it is not among these.
            let added = self.added_replies(&parent).filter(|added| added.num != event.num);
            let (now, past): (Vec<_>, Vec<_>) =
                added.map(|added| added.record.pos).partition(|pos| *pos > Pos::BACKFILL);
            let latest = now.last().copied().or(past.into_iter().max().max(before));
            self.set_thread_tip(parent.num, latest.map(|latest| (latest, replies.saturating_sub(1))))?;
        }
        Ok(())
    }

    /// Events that were shown and are rejected now relate to nothing any more. Nothing else is added in this batch.
    pub(crate) fn unrelate_rejected(&mut self, rejected: &[Arc<Event>]) -> Result<(), Error> {
        let mut gone: BTreeMap<(EventNum, String), BTreeSet<Pos>> = BTreeMap::new();
        for event in rejected {
            let Some((rel_type, parent)) = self.relation(event)? else { continue };
            let pos = event.record.pos;
            // What it is to may have come after it, and knows nothing of it.
            if self.rooms.graph.has::<Relations>(&(parent.num, rel_type.clone(), pos))? {
                gone.entry((parent.num, rel_type)).or_default().insert(pos);
            }
        }
        for ((parent, rel_type), gone) in gone {
            for pos in &gone {
                self.commit.delete::<Relations>(&(parent, rel_type.clone(), *pos));
            }
            if rel_type != "m.thread" {
                continue;
            }
            let Some((_, replies)) = self.thread_tip(parent)? else { continue };
            let mut latest = None;
            for entry in self.rooms.graph.scan::<Relations, _>(&(parent, rel_type)).reverse().iter() {
                let ((_, _, pos), _) = entry?;
                if !gone.contains(&pos) {
                    latest = Some(pos);
                    break;
                }
            }
            let left = replies.saturating_sub(gone.len() as u64);
            self.set_thread_tip(parent, latest.map(|latest| (latest, left)))?;
        }
        Ok(())
    }
}

/// The files that an event shows: `server/id` of each.
#[must_use]
pub fn media_shown(event: &Event) -> Vec<String> {
    media_named(event.content().get())
}

/// The files that a content, as JSON, names: `server/id` of each.
#[must_use]
pub fn media_named(content: &str) -> Vec<String> {
    let of_uri = |rest: &str| -> String {
        let is_part = |c: &char| c.is_ascii_alphanumeric() || "-_.:/[]~=+".contains(*c);
        rest.chars().take_while(is_part).collect()
    };
    let mentioned = content.split("mxc://").skip(1).take(limits::MEDIA_OF_AN_EVENT).map(of_uri);
    mentioned.filter(|name| name.contains('/') && name.len() <= limits::FIELD_BYTES).collect()
}
