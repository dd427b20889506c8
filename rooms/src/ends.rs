//! Rooms that end in many events at once: they are joined by events that say nothing.
//!
//! Each end costs every event that comes a look at the state after it. A room in which nobody of this server says
//! anything keeps the ends that others make. Other servers do the same, with events of the same type.

use crate::{
    Error, Event,
    batch::{Batch, Draft},
    limits,
    power::PowerLevels,
    rooms::Rooms,
    say::Wish,
};
use postern_graph::RoomNum;
use ruma::{OwnedUserId, events::TimelineEventType};
use serde_json::value::RawValue;

/// The type of an event that only joins the ends of its room. Nobody is shown it.
const DUMMY: &str = "org.matrix.dummy_event";

/// Whether an event only joins the ends of its room.
pub(crate) fn is_dummy(event: &Event) -> bool {
    event.state_key().is_none() && event.kind().to_string() == DUMMY
}

impl Rooms {
    /// Whether a room ends in more events than it should go on with.
    ///
    /// # Errors
    /// The store's.
    pub fn has_many_ends(&self, room: RoomNum) -> Result<bool, Error> {
        self.has_ends(room, limits::MANY_ENDS)
    }

    fn has_ends(&self, room: RoomNum, many: usize) -> Result<bool, Error> {
        Ok(self.head(room)?.is_some_and(|head| head.extremities.len() >= many))
    }

    /// Joins the ends of a room, if they are many, by events of a local user who may send them. Whether they are few now.
    ///
    /// # Errors
    /// The store's.
    pub async fn join_many_ends(&self, room: RoomNum) -> Result<bool, Error> {
        self.join_ends(room, limits::MANY_ENDS).await
    }

    /// Joins the ends of a room if there is more than one: a server that has just come in by one of them hears of the
    /// others, which were sent while it came.
    ///
    /// # Errors
    /// The store's.
    pub async fn join_all_ends(&self, room: RoomNum) -> Result<bool, Error> {
        self.join_ends(room, 2).await
    }

    async fn join_ends(&self, room: RoomNum, many: usize) -> Result<bool, Error> {
        for _ in 0..limits::JOINING_EVENTS {
            if !self.has_ends(room, many)? {
                return Ok(true);
            }
            let Some(sender) = self.may_join_ends(room)? else { return Ok(false) };
            let content = RawValue::from_string("{}".to_owned());
            let content = content.map_err(|error| Error::BadJson(error.to_string()))?;
            let wish = |_: &mut Batch<'_>| {
                if self.has_ends(room, many)? {
                    Ok(Wish::Say(Draft::message(DUMMY, content.clone())))
                } else {
                    Ok(Wish::Nothing(None))
                }
            };
            match self.say(room, &sender, wish).await {
                Ok(_) => {}
                Err(Error::Forbidden(why)) => {
                    tracing::info!(room = room.0, why, "the ends of a room cannot be joined");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(!self.has_ends(room, many)?)
    }

    /// The local member with the most power, if that is enough for a message.
    fn may_join_ends(&self, room: RoomNum) -> Result<Option<OwnedUserId>, Error> {
        let levels: PowerLevels = self.power_levels(room)?;
        let mut best: Option<OwnedUserId> = None;
        let kind = TimelineEventType::from(DUMMY);
        for user in self.joined_users_of(room, self.server_name())? {
            let user = self.user_id(user)?;
            if levels.may_send(&user, &kind, false)
                && best.as_ref().is_none_or(|best| levels.level(best) < levels.level(&user))
            {
                best = Some(user);
            }
        }
        Ok(best)
    }
}
