//! Which relations a user may make (specification: avoiding duplicate annotations; validation of `m.thread`
//! relationships). What comes from other servers is not held to this.

use crate::{Draft, Error, Event, effects::Relation, rooms::Rooms};
use postern_graph::{
    RoomNum,
    schema::{EventRecords, Relations},
};
use ruma::UserId;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Annotations of one event looked at for a second one of the same user, newest first.
const ANNOTATIONS: usize = 5_000;

impl Rooms {
    /// Refuses what is no good relation. The caller holds the lane.
    pub(crate) fn check_relation(&self, room: RoomNum, sender: &UserId, draft: &Draft) -> Result<(), Error> {
        let Some(made) = Made::of(&draft.content) else { return Ok(()) };
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
        sender: &UserId,
        parent: &Event,
        kind: &str,
        key: Option<&str>,
    ) -> Result<(), Error> {
        let (Some(sender), Some(key)) = (self.user(sender)?, key) else { return Ok(()) };
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
                && Made::of(child.content()).is_some_and(|made| made.key.as_deref() == Some(key));
            if same {
                return Err(Error::DuplicateAnnotation);
            }
        }
        Ok(())
    }
}

/// The relation a content makes.
#[derive(Debug, Deserialize)]
struct Made {
    rel_type: Option<String>,
    event_id: Option<String>,
    key: Option<String>,
}

impl Made {
    fn of(content: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Content {
            #[serde(rename = "m.relates_to")]
            relates_to: Option<Made>,
        }
        serde_json::from_str::<Content>(content.get()).ok()?.relates_to
    }
}
