//! What a redacted copy of an event still says: its type, its state key, and all of it where it is never redacted. What guards
//! find there cannot be held back later, so it is not said.

use crate::{
    Border, Error,
    facts::RoomFacts,
    gate::dominates,
    rulings::{across, rule},
    saying::Saying,
    standing::{Peer, Standing},
};
use postern_guards::Guards;
use postern_policy::decide::Action;
use postern_rooms::{Error as RoomsError, Rooms};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::Arc};

/// What guards find in all of what somebody wants to say.
pub(crate) fn found_in(
    standing: &Standing,
    event_type: &str,
    content: &Map<String, Value>,
) -> BTreeSet<String> {
    let Some(guards) = &standing.guards else { return BTreeSet::new() };
    guards.inspect_event(&Value::Object(content.clone()), event_type).classes().clone()
}

/// What guards find where it cannot be redacted.
fn found_open(guards: &Guards, saying: &Saying<'_>, never_redacted: bool) -> BTreeSet<String> {
    let open = if never_redacted { saying.content.clone() } else { Map::new() };
    let mut found = guards.inspect_event(&Value::Object(open), &saying.draft.event_type).classes().clone();
    let key = saying.draft.state_key.as_deref().unwrap_or_default();
    found.extend(guards.inspect_text(key, "state key").classes().iter().cloned());
    // That it is encrypted is said by the type, and is nothing that was found.
    found.remove("encrypted");
    found
}

impl Border {
    /// # Errors
    /// [`RoomsError::Forbidden`] if some server that is in the room, or may come in, would be sent what must not be released to
    /// it.
    pub(crate) fn check_open(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        saying: &Saying<'_>,
        never_redacted: bool,
    ) -> Result<(), Error> {
        let Some(guards) = &standing.guards else { return Ok(()) };
        let found = found_open(guards, saying, never_redacted);
        if found.is_empty() || !saying.facts.federate {
            return Ok(());
        }
        let resource = self.resource_of(standing, rooms, saying)?;
        for peer in self.may_come(standing, rooms, saying.facts)? {
            let cleared = dominates(&peer.clearance, &saying.facts.floor);
            let mut question = across(&peer, Action::Release, resource.clone(), cleared);
            question.context.guard = found.clone();
            let ruling = rule(standing, &self.0.ledger, question);
            if cleared && !ruling.allowed {
                let (room, who) = (&saying.facts.id, &saying.user.id);
                self.refuse("release", who, room.as_str(), &ruling.why);
                let why = format!(
                    "{} would have to see this, however it is redacted, and may not: {}",
                    peer.server.name, ruling.why
                );
                return Err(RoomsError::Forbidden(why).into());
            }
        }
        Ok(())
    }

    /// The servers that are in a room, and those written down that may be.
    fn may_come(
        &self,
        standing: &Standing,
        rooms: &Rooms,
        facts: &RoomFacts,
    ) -> Result<Vec<Arc<Peer>>, Error> {
        let mut peers: Vec<Arc<Peer>> = standing.peers().map(|(_, peer)| peer.clone()).collect();
        // One that is being created is nobody else's yet.
        if let Some(room) = rooms.room(&facts.id)? {
            let others = rooms.servers_in(room)?.into_iter().filter(|server| *server != self.0.server);
            peers.extend(others.map(|server| standing.peer(&server)).filter(|peer| !peer.is_known));
        }
        Ok(peers)
    }
}
