//! What push gateways are told of an event that its reader may read.

use crate::{Border, Error, facts::room_facts, gate::dominates, standing::Standing};
use postern_policy::ResolvedClearance;
use postern_rooms::{Event, Form, Rooms};

impl Border {
    /// In which form a push gateway is told of an event: whole, by its ids, or not at all.
    pub(crate) fn pushes(&self, standing: &Standing, rooms: &Rooms, event: &Event) -> Result<Form, Error> {
        let room = event.record.room;
        let facts = room_facts(standing, rooms, room)?;
        let is_here = rooms.record(room)?.is_some_and(|record| record.create.is_some());
        if !is_here {
            // An invite to a room of another server: what label that has is not known for certain.
            return Ok(if standing.watches_all { Form::Redacted } else { Form::Whole });
        }
        if self.is_plain(standing, rooms, &facts, event)? {
            return Ok(Form::Whole);
        }
        let known = self.event_facts(standing, rooms, &facts, event)?;
        // With what is said goes how the room is called, which has the room's label.
        let may_have =
            |up_to: &ResolvedClearance| dominates(up_to, &known.label) && dominates(up_to, &facts.ceiling);
        Ok(if may_have(&standing.push_content) {
            Form::Whole
        } else if standing.push_ids.as_deref().is_none_or(may_have) {
            Form::Redacted
        } else {
            Form::Nothing
        })
    }
}
