//! What a member of a room may not ask for though the room's rules would not mind, or would say so less helpfully: what
//! can stand in no room, and relations the specification wants refused (avoiding duplicate annotations; validation of
//! `m.thread` relationships). What comes from other servers is not held to this.

use crate::{Draft, Error, Event, effects::Relation, rooms::Rooms};
use postern_graph::{
    RoomNum, UserNum,
    schema::{EventRecords, Relations},
};
use ruma::UserId;
use serde_json::{Map, Value};

/// Annotations of one event looked at for a second one of the same user, newest first.
const ANNOTATIONS: usize = 5_000;

impl Rooms {
    /// Refuses what the sender cannot mean. The caller holds the lane.
    pub(crate) fn check_intent(&self, room: RoomNum, sender: &UserId, draft: &Draft) -> Result<(), Error> {
        // Others are refused by the rules, and learn nothing of the room before.
        let Some(sender) = self.user(sender)? else { return Ok(()) };
        if !self.is_joined(room, sender)? {
            return Ok(());
        }
        match (draft.event_type.as_str(), draft.state_key.as_deref()) {
            ("m.room.create", _) => Err(Error::BadState("the room is created already".to_owned())),
            ("m.room.power_levels", Some("")) => {
                let levels: Map<String, Value> = serde_json::from_str(draft.content.get())
                    .map_err(|error| Error::BadJson(error.to_string()))?;
                let users = levels.get("users").and_then(Value::as_object);
                let named = users.into_iter().flat_map(Map::keys);
                self.power_levels(room)?.check_named(named.map(String::as_str))
            }
            _ => self.check_relation(room, sender, draft),
        }
    }

    fn check_relation(&self, room: RoomNum, sender: UserNum, draft: &Draft) -> Result<(), Error> {
        let Some(made) = Relation::in_content(&draft.content) else { return Ok(()) };
        let (Some(rel_type), Some(parent)) = (&made.rel_type, &made.event_id) else { return Ok(()) };
        let Ok(parent) = <&ruma::EventId>::try_from(parent.as_str()) else { return Ok(()) };
        let Some(parent) = self.event_by_id(parent)?.filter(|parent| parent.record.room == room) else {
            return Ok(());
        };
        match rel_type.as_str() {
            // A reply without a relation type may begin a thread: clients do that.
            "m.thread" if Relation::of(&parent).is_some_and(|of| of.rel_type.is_some()) => Err(
                Error::BadRelation("a thread cannot begin at an event that has a relation itself".to_owned()),
            ),
            "m.annotation" => self.check_annotation(sender, &parent, &draft.event_type, made.key.as_deref()),
            _ => Ok(()),
        }
    }

    fn check_annotation(
        &self,
        sender: UserNum,
        parent: &Event,
        kind: &str,
        key: Option<&str>,
    ) -> Result<(), Error> {
        let Some(key) = key else { return Ok(()) };
        let annotations = (parent.num, "m.annotation".to_owned());
        for entry in self.graph.scan::<Relations, _>(&annotations).reverse().iter().take(ANNOTATIONS) {
            let (_, child) = entry?;
            let own =
                self.graph.get::<EventRecords>(&(child,))?.is_some_and(|record| record.sender == sender);
            if !own {
                continue;
            }
            let child = self.event(child)?;
            let same = child.kind().to_string() == kind
                && Relation::of(&child).is_some_and(|made| made.key.as_deref() == Some(key));
            if same {
                return Err(Error::DuplicateAnnotation);
            }
        }
        Ok(())
    }
}
