//! Whether the rules of a room allow an event: by the events it names, and by a state.
//!
//! ruma asks for events through closures that cannot say that reading failed. An event that could not be read must not
//! pass for one that is not there, or the store's trouble would decide what a room's state is: [`Reading`] keeps the
//! first failure, and what was decided meanwhile is thrown away.

use crate::{Error, Event, batch::Batch};
use postern_graph::{Root, event::flags};
use ruma::{
    EventId,
    events::{StateEventType, TimelineEventType},
    state_res::{check_state_dependent_auth_rules, check_state_independent_auth_rules},
};
use std::{cell::RefCell, sync::Arc};

/// What the rules say: nothing against it, or why not.
pub(crate) type Verdict = Result<(), String>;

/// Reads for a decision that cannot be told of failures.
#[derive(Debug, Default)]
pub(crate) struct Reading(RefCell<Option<Error>>);

impl Reading {
    /// What was read; nothing if that failed.
    pub(crate) fn note<T>(&self, read: Result<Option<T>, Error>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.0.borrow_mut().get_or_insert(error);
            None
        })
    }

    /// The decision, unless something it rests on could not be read.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn decided<T>(self, decision: T) -> Result<T, Error> {
        self.0.into_inner().map_or(Ok(decision), Err)
    }
}

impl Batch<'_> {
    /// Whether the events an event names as authorizing it may be such.
    pub(crate) fn well_authorized(&self, event: &Event) -> Result<Verdict, Error> {
        let (rules, reading) = (&self.version.rules.authorization, Reading::default());
        let verdict = check_state_independent_auth_rules(rules, event, |id: &EventId| {
            reading.note(self.event_by_id(id))
        });
        reading.decided(verdict)
    }

    /// Whether the room's rules allow `event` by just the events it names.
    pub(crate) fn allowed_by_named(&self, event: &Event) -> Result<Verdict, Error> {
        let rules = &self.version.rules.authorization;
        let mut named: Vec<Arc<Event>> = Vec::new();
        for id in event.auth_events() {
            named.extend(self.event_by_id(id)?);
        }
        if rules.room_create_event_id_as_room_id {
            named.extend(self.create_by_room_id()?);
        }
        Ok(check_state_dependent_auth_rules(rules, event, |event_type: &StateEventType, state_key: &str| {
            let event_type = TimelineEventType::from(event_type.to_string());
            named
                .iter()
                .find(|event| *event.kind() == event_type && event.state_key() == Some(state_key))
                .cloned()
        }))
    }

    /// Among the events that `event` names as authorizing it, the membership of `user`.
    pub(crate) fn named_member(&self, event: &Event, user: &str) -> Result<Option<Arc<Event>>, Error> {
        for id in event.auth_events() {
            if let Some(named) = self.event_by_id(id)?
                && *named.kind() == TimelineEventType::RoomMember
                && named.state_key() == Some(user)
                && named.record.room == self.room
                && !named.record.has(flags::REJECTED)
            {
                return Ok(Some(named));
            }
        }
        Ok(None)
    }

    /// The create event of a room whose id is its hash.
    fn create_by_room_id(&self) -> Result<Option<Arc<Event>>, Error> {
        let id = format!("${}", self.room_id().as_str().trim_start_matches('!'));
        match EventId::parse(&id) {
            Ok(id) => self.event_by_id(&id),
            Err(_) => Ok(None),
        }
    }

    /// Whether the room's rules allow `event` where the state is `root`.
    pub(crate) fn allowed_in(&self, root: Root, event: &Event) -> Result<Verdict, Error> {
        let (rules, reading) = (&self.version.rules.authorization, Reading::default());
        let verdict =
            check_state_dependent_auth_rules(rules, event, |event_type: &StateEventType, state_key: &str| {
                let found = reading.note(self.state_event_in(root, &event_type.to_string(), state_key));
                if found.is_none() && self.is_partial && *event_type == StateEventType::RoomMember {
                    // Of memberships that are not here yet the event itself says which it rests on.
                    return reading.note(self.named_member(event, state_key));
                }
                found
            });
        reading.decided(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_that_rests_on_a_failed_read_is_none() {
        let reading = Reading::default();
        assert_eq!(reading.note(Ok(Some(1))), Some(1));
        assert_eq!(reading.note::<u8>(Err(Error::BadJson("damaged".to_owned()))), None);
        assert_eq!(reading.note(Ok(Some(2))), Some(2));
        assert!(matches!(reading.decided(true), Err(Error::BadJson(_))));
        assert!(Reading::default().decided(true).unwrap());
    }
}
