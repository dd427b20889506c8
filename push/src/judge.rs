//! Whether a user is notified of an event.

use crate::{
    Error, Push, limits,
    rules::{Rules, Scene, Subject, Verdict},
};
use postern_graph::{UserNum, event::MembershipKind};
use postern_rooms::{Event, Relation, Rooms, power::PowerLevels, view::Viewer};
use ruma::{EventId, UserId, events::TimelineEventType};
use std::sync::{Arc, OnceLock};

/// An event, and what all rules want to know of its room.
pub(crate) struct Occasion {
    pub(crate) event: Arc<Event>,
    subject: Arc<Subject>,
    members: OnceLock<u64>,
    powers: OnceLock<PowerLevels>,
}

/// An occasion for one user.
struct Seen<'o> {
    rooms: &'o Rooms,
    occasion: &'o Occasion,
    user: &'o UserId,
}

impl Scene for Seen<'_> {
    type Error = Error;

    fn room_id(&self) -> &str {
        self.occasion.event.room_id.as_str()
    }

    fn members(&self) -> Result<u64, Error> {
        if let Some(members) = self.occasion.members.get() {
            return Ok(*members);
        }
        let (joined, _) = self.rooms.member_counts(self.occasion.event.record.room)?;
        let joined = u64::try_from(joined).unwrap_or(u64::MAX);
        Ok(*self.occasion.members.get_or_init(|| joined))
    }

    fn sender_may_notify(&self, name: &str) -> Result<bool, Error> {
        let event = &self.occasion.event;
        let powers = match self.occasion.powers.get() {
            Some(powers) => powers,
            None => match self.rooms.power_levels(event.record.room) {
                Ok(powers) => self.occasion.powers.get_or_init(|| powers),
                // Of a room that is known by an invite only.
                Err(postern_rooms::Error::NotFound(_)) => return Ok(false),
                Err(error) => return Err(error.into()),
            },
        };
        Ok(powers.may_notify(event.sender(), name))
    }

    fn display_name(&self) -> Result<Option<String>, Error> {
        let room = self.occasion.event.record.room;
        let member = self.rooms.state(room, "m.room.member", self.user.as_str())?;
        let name = member.and_then(|member| member.content_text("displayname"));
        Ok(name.or_else(|| Some(self.user.localpart().to_owned())))
    }
}

impl Push {
    /// What there is to decide about an event; nothing if it is not shown to anybody, or its content is gone.
    pub(crate) fn occasion(&self, event: &Arc<Event>) -> Result<Option<Occasion>, Error> {
        if event.record.redacted_by.is_some() {
            return Ok(None);
        }
        let subject = match self.0.subjects.get(&event.num) {
            Some(subject) => subject,
            None => {
                let subject =
                    Subject::new(event.json()).map_err(|error| Error::Damaged(error.to_string()))?;
                let subject = Arc::new(subject);
                self.0.subjects.insert(event.num, subject.clone());
                subject
            }
        };
        let (members, powers) = (OnceLock::new(), OnceLock::new());
        Ok(Some(Occasion { event: event.clone(), subject, members, powers }))
    }

    /// What a member of the room is notified with; nothing if not. What they cannot see notifies nobody, nor what was said
    /// before they came.
    pub(crate) fn for_member(
        &self,
        occasion: &Occasion,
        user: UserNum,
        user_id: &UserId,
    ) -> Result<Option<Arc<Verdict>>, Error> {
        let event = &occasion.event;
        let Some(verdict) = self.verdict(occasion, user, user_id)? else { return Ok(None) };
        let then = self.0.rooms.state_in(event.record.state_before, "m.room.member", user_id.as_str())?;
        let was_there = then.is_some_and(|member| member.membership() == Some(MembershipKind::Join));
        let viewer = Viewer { user, user_id, device_id: "" };
        Ok((was_there && self.0.rooms.may_see(&viewer, event)?).then_some(verdict))
    }

    /// What the rules of a user say of an event, whether or not they may see it; nothing if they do not notify.
    pub(crate) fn verdict(
        &self,
        occasion: &Occasion,
        user: UserNum,
        user_id: &UserId,
    ) -> Result<Option<Arc<Verdict>>, Error> {
        let event = &occasion.event;
        if event.record.sender == user {
            return Ok(None);
        }
        let seen = Seen { rooms: &self.0.rooms, occasion, user: user_id };
        let rules = self.rules(user, user_id)?;
        let Some(verdict) = rules.verdict(&occasion.subject, &seen)?.filter(|verdict| verdict.notify) else {
            return Ok(None);
        };
        let ignored = self.0.users.ignored(user)?.contains(event.sender());
        Ok((!ignored).then(|| verdict.clone()))
    }

    fn rules(&self, user: UserNum, user_id: &UserId) -> Result<Arc<Rules>, Error> {
        let version = self.0.users.push_rules_version(user)?;
        if let Some((known, rules)) = self.0.rules.get(&user)
            && known == version
        {
            return Ok(rules);
        }
        let rules = Arc::new(Rules::new(&self.0.users.push_rules(user_id, user)?));
        self.0.rules.insert(user, (version, rules.clone()));
        Ok(rules)
    }

    /// What a redaction took the content of; nothing if it is none, or has no effect.
    pub(crate) fn taken_by(&self, redaction: &Event) -> Result<Option<Arc<Event>>, Error> {
        if *redaction.kind() != TimelineEventType::RoomRedaction {
            return Ok(None);
        }
        let Some(target) = redaction.redacts() else { return Ok(None) };
        let target = self.0.rooms.event_by_id(&target)?;
        let room = redaction.record.room;
        Ok(target.filter(|target| target.record.room == room && target.record.redacted_by.is_some()))
    }

    /// The thread an event is in: its own relation, or that of what it relates to (specification: threading).
    pub(crate) fn thread_of(&self, event: &Event) -> Result<Option<String>, Error> {
        let mut relation = Relation::of(event);
        for _ in 0..limits::RELATED {
            let Some((rel_type, target)) = relation.and_then(|one| Some((one.rel_type?, one.event_id?)))
            else {
                return Ok(None);
            };
            if rel_type == "m.thread" {
                return Ok(Some(target));
            }
            let Ok(target) = <&EventId>::try_from(target.as_str()) else { return Ok(None) };
            let target = self.0.rooms.event_by_id(target)?.filter(|it| it.record.room == event.record.room);
            relation = target.as_deref().and_then(Relation::of);
        }
        Ok(None)
    }
}
