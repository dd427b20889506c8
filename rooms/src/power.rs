//! Who may do what in a room, read as leniently as authorization reads it.

use crate::{Error, Event, version::Version};
use ruma::{
    OwnedUserId, UserId,
    events::TimelineEventType,
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// Actions with a power level of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Inviting.
    Invite,
    /// Removing a member.
    Kick,
    /// Banning, and lifting a ban.
    Ban,
    /// Redacting the events of others.
    Redact,
}

/// The power levels of a room at one moment.
#[derive(Debug)]
pub struct PowerLevels {
    version: Arc<Version>,
    creators: HashSet<OwnedUserId>,
    event: Option<RoomPowerLevelsEvent<Arc<Event>>>,
    users: BTreeMap<OwnedUserId, i64>,
    /// What notifying many at once takes, by its name.
    notifications: BTreeMap<String, i64>,
}

/// What notifying many at once takes where the room does not say (specification: `m.room.power_levels`).
const NOTIFYING: i64 = 50;

/// The levels under `notifications`. Other than those that authorization goes by, they may be anything: what is no level is none.
fn notifications(levels: &Event) -> BTreeMap<String, i64> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        notifications: BTreeMap<String, Value>,
    }
    let content = levels.content_as::<Content>();
    let level = |value: &Value| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
    content
        .into_iter()
        .flat_map(|content| content.notifications)
        .filter_map(|(name, value)| Some((name, level(&value)?)))
        .collect()
}

impl PowerLevels {
    /// From the create and the power levels event.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a create event: there is no such room.
    pub fn of(
        version: &Arc<Version>,
        create: Option<Arc<Event>>,
        levels: Option<Arc<Event>>,
    ) -> Result<Self, Error> {
        let create = create.ok_or_else(|| Error::not_found("the room is not known"))?;
        let rules = &version.rules.authorization;
        let creators = RoomCreateEvent::new(create).creators(rules).map_err(Error::BadJson)?;
        let notifications = levels.as_deref().map(notifications).unwrap_or_default();
        let event = levels.map(RoomPowerLevelsEvent::new);
        let users = match &event {
            Some(event) => event
                .users(rules)
                .map_err(Error::BadJson)?
                .map(|users| users.iter().map(|(user, level)| (user.clone(), (*level).into())).collect())
                .unwrap_or_default(),
            None => BTreeMap::new(),
        };
        Ok(Self { version: version.clone(), creators, event, users, notifications })
    }

    /// Creators stand above all power levels since room version 12, and have none.
    ///
    /// # Errors
    /// [`Error::BadJson`] if one of the users whose level is to be set is such a creator.
    pub(crate) fn check_named<'a>(&self, mut users: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        if !self.version.rules.authorization.explicitly_privilege_room_creators {
            return Ok(());
        }
        match users.find(|user| self.creators.iter().any(|creator| creator == user)) {
            Some(user) => Err(Error::BadJson(format!("{user} created the room and has no power level"))),
            None => Ok(()),
        }
    }

    fn field(&self, field: RoomPowerLevelsIntField) -> i64 {
        let rules = &self.version.rules.authorization;
        match &self.event {
            Some(event) => event.get_as_int_or_default(field, rules).unwrap_or(field.default_value()).into(),
            // Without the event nothing but state is restricted, and that is not either.
            None => match field {
                RoomPowerLevelsIntField::StateDefault | RoomPowerLevelsIntField::EventsDefault => 0,
                other => other.default_value().into(),
            },
        }
    }

    /// The level of `user`; creators of rooms since version 12 stand above every level.
    #[must_use]
    pub fn level(&self, user: &UserId) -> i64 {
        let rules = &self.version.rules.authorization;
        if self.creators.contains(user) && (rules.explicitly_privilege_room_creators || self.event.is_none())
        {
            return if rules.explicitly_privilege_room_creators { i64::MAX } else { 100 };
        }
        match &self.event {
            Some(_) => match self.users.get(user) {
                Some(level) => *level,
                None => self.field(RoomPowerLevelsIntField::UsersDefault),
            },
            None => 0,
        }
    }

    /// The level that sending an event takes.
    #[must_use]
    pub fn needed_for(&self, event_type: &TimelineEventType, is_state: bool) -> i64 {
        let rules = &self.version.rules.authorization;
        self.event.as_ref().map_or(0, |event| {
            event
                .event_power_level(event_type, is_state.then_some(""), rules)
                .map_or_else(|_| if is_state { 50 } else { 0 }, Into::into)
        })
    }

    /// Whether `user` may send events of this type.
    #[must_use]
    pub fn may_send(&self, user: &UserId, event_type: &TimelineEventType, is_state: bool) -> bool {
        self.level(user) >= self.needed_for(event_type, is_state)
    }

    /// Whether `user` may do `action` (to someone below, where it is done to someone).
    #[must_use]
    pub fn may(&self, user: &UserId, action: Action) -> bool {
        let field = match action {
            Action::Invite => RoomPowerLevelsIntField::Invite,
            Action::Kick => RoomPowerLevelsIntField::Kick,
            Action::Ban => RoomPowerLevelsIntField::Ban,
            Action::Redact => RoomPowerLevelsIntField::Redact,
        };
        self.level(user) >= self.field(field)
    }

    /// Whether what `user` says may notify all whom `name` stands for, as `room` for all members (specification: push rules,
    /// `sender_notification_permission`).
    #[must_use]
    pub fn may_notify(&self, user: &UserId, name: &str) -> bool {
        self.level(user) >= self.notifications.get(name).copied().unwrap_or(NOTIFYING)
    }

    /// The room's creators, where they are privileged.
    #[must_use]
    pub const fn creators(&self) -> &HashSet<OwnedUserId> {
        &self.creators
    }

    /// The levels given to users by name.
    #[must_use]
    pub const fn users(&self) -> &BTreeMap<OwnedUserId, i64> {
        &self.users
    }
}
