//! What follows from an event being part of a room: flat current state, memberships, redactions, relations, threads.

use crate::{
    Error, Event,
    batch::Batch,
    power::{Action, PowerLevels},
};
use postern_graph::{
    EventNum, NameKind, Pos, Root, UserNum,
    codec::Raw,
    event::{Membership, MembershipKind},
    log::LogEntry,
    schema::{
        CurrentState, EventJson, EventOriginals, EventRecords, Forgotten, InviteStates, Members, Memberships,
        PendingRedactions, Relations, StateAt, ThreadTips, Threads,
    },
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, UserId, canonical_json::redact_in_place,
    events::TimelineEventType,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// The `m.relates_to` of an event.
#[derive(Debug, Clone, Deserialize)]
pub struct Relation {
    /// The relation's kind.
    pub rel_type: Option<String>,
    /// The event related to.
    pub event_id: Option<String>,
    /// What an annotation annotates with.
    pub key: Option<String>,
}

impl Relation {
    /// The relation of an event, if its content has one.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        Self::in_content(event.content())
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
    /// The current state becomes `to`, because of `cause`: in the flat form, in memberships, in what was when.
    pub(crate) fn move_state(&mut self, to: Root, cause: &Arc<Event>) -> Result<(), Error> {
        let from = std::mem::replace(&mut self.head.state, to);
        if from == to {
            return Ok(());
        }
        let pos = cause.record.pos;
        self.commit.put::<StateAt>(&(self.room, pos), &to);
        let changes = self.rooms.graph.state_diff_in(&self.commit, from, to)?;
        if changes.iter().any(|change| change.after != Some(cause.num)) {
            self.commit.log(LogEntry::RoomState { room: self.room });
        }
        for change in changes {
            let Some(num) = change.after.or(change.before) else { continue };
            let event = self.event(num)?;
            let Some(state_key) = event.state_key() else { continue };
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
        if *event.kind() == TimelineEventType::RoomRedaction {
            self.redaction(event)?;
        }
        let pending = (self.room, event.id.to_string());
        if let Some(by) = self.rooms.graph.get::<PendingRedactions>(&pending)? {
            self.commit.delete::<PendingRedactions>(&pending);
            let by = self.event(by)?;
            if self.may_redact(by.sender(), event)? {
                self.redact(event, by.num)?;
            }
        }
        Ok(())
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

    fn relate(&mut self, event: &Arc<Event>) -> Result<(), Error> {
        let Some(relation) = Relation::of(event) else { return Ok(()) };
        let (Some(rel_type), Some(parent)) = (relation.rel_type, relation.event_id) else { return Ok(()) };
        let Ok(parent) = <&ruma::EventId>::try_from(parent.as_str()) else { return Ok(()) };
        let Some(parent) = self.rooms.event_by_id(parent)?.filter(|parent| parent.record.room == self.room)
        else {
            return Ok(());
        };
        self.commit.put::<Relations>(&(parent.num, rel_type.clone(), event.record.pos), &event.num);
        if rel_type == "m.thread" {
            let replies = match self.rooms.graph.get::<ThreadTips>(&(parent.num,))? {
                Some((latest, replies)) => {
                    self.commit.delete::<Threads>(&(self.room, latest, parent.num));
                    replies
                }
                None => 0,
            };
            self.commit.put::<Threads>(&(self.room, event.record.pos, parent.num), &());
            self.commit.put::<ThreadTips>(&(parent.num,), &(event.record.pos, replies + 1));
        }
        Ok(())
    }

    /// A redaction takes effect if its sender sent the redacted event or may redact in the room (specification:
    /// "handling redactions"; users of one server are told apart by their server).
    fn redaction(&mut self, redaction: &Arc<Event>) -> Result<(), Error> {
        let Some(target_id) = redaction.redacts() else { return Ok(()) };
        let Some(target) = self.rooms.event_by_id(&target_id)? else {
            self.commit.put::<PendingRedactions>(&(self.room, target_id.to_string()), &redaction.num);
            return Ok(());
        };
        if target.record.room == self.room && self.may_redact(redaction.sender(), &target)? {
            self.redact(&target, redaction.num)?;
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
        self.commit.put::<EventJson>(&(target.num,), &Raw(json.into_bytes()));
        let mut record = target.record;
        record.redacted_by = Some(by);
        self.commit.put::<EventRecords>(&(target.num,), &record);
        // Of an event that is only being added the record is written with the batch, after this.
        if let Some(added) = self.added.get_mut(&target.num) {
            Arc::make_mut(added).record = record;
        }
        self.unrelate(target)?;
        self.rewritten.push(target.num);
        Ok(())
    }

    /// A redacted event relates to nothing any more.
    fn unrelate(&mut self, event: &Event) -> Result<(), Error> {
        let Some(relation) = Relation::of(event) else { return Ok(()) };
        let (Some(rel_type), Some(parent)) = (relation.rel_type, relation.event_id) else { return Ok(()) };
        let Ok(parent) = <&ruma::EventId>::try_from(parent.as_str()) else { return Ok(()) };
        let Some(parent) = self.rooms.event_by_id(parent)? else { return Ok(()) };
        self.commit.delete::<Relations>(&(parent.num, rel_type.clone(), event.record.pos));
        if rel_type == "m.thread"
            && let Some((latest, replies)) = self.rooms.graph.get::<ThreadTips>(&(parent.num,))?
        {
            self.commit.delete::<Threads>(&(self.room, latest, parent.num));
            let tip = self
                .rooms
                .graph
                .scan::<Relations, _>(&(parent.num, rel_type))
                .reverse()
                .iter()
                .filter_map(Result::ok)
                .map(|((_, _, pos), _)| pos)
                .find(|pos| *pos != event.record.pos);
            match tip {
                Some(tip) => {
                    self.commit.put::<Threads>(&(self.room, tip, parent.num), &());
                    self.commit.put::<ThreadTips>(&(parent.num,), &(tip, replies.saturating_sub(1)));
                }
                None => self.commit.delete::<ThreadTips>(&(parent.num,)),
            }
        }
        Ok(())
    }
}
