//! What relates to an event: bundled into it, and as pages (specification: relationships between events).

use super::{Format, Viewer};
use crate::{Error, Event, rooms::Rooms};
use postern_graph::{
    EventNum, Pos, RoomNum,
    schema::{Relations, ThreadTips, Threads},
};
use ruma::UserId;
use serde_json::{Map, Value, json};
use std::{collections::HashSet, sync::Arc};

/// Children of one event looked at for bundling.
const BUNDLE_SCAN: usize = 1_000;
/// References named in a bundle.
const REFERENCES: usize = 50;
/// Events a recursive query visits, and how deep it goes.
const RECURSE: (usize, usize) = (1_000, 3);

/// Which related events.
#[derive(Debug, Clone, Default)]
pub struct RelationQuery {
    /// Of this relation type.
    pub rel_type: Option<String>,
    /// Of this event type.
    pub event_type: Option<String>,
    /// Also what relates to these in turn.
    pub recurse: bool,
}

impl Rooms {
    pub(super) fn bundle(&self, event: &Event, viewer: &Viewer<'_>) -> Result<Option<Value>, Error> {
        if event.record.redacted_by.is_some() {
            return Ok(None);
        }
        let mut replace: Option<Arc<Event>> = None;
        let mut references = Vec::new();
        let mut thread = None;
        let mut participated = false;
        for entry in self.graph.scan::<Relations, _>(&(event.num,)).iter().take(BUNDLE_SCAN) {
            let ((_, rel_type, _), child) = entry?;
            match rel_type.as_str() {
                "m.replace" if event.state_key().is_none() => {
                    let child = self.event(child)?;
                    let fits = child.sender() == event.sender() && child.kind() == event.kind();
                    // The newest by its server's clock, ties by id (specification: event replacements).
                    let newer = replace.as_ref().is_none_or(|best| {
                        (child.origin_server_ts(), &child.id) > (best.origin_server_ts(), &best.id)
                    });
                    if fits && newer && child.record.redacted_by.is_none() && self.may_read(viewer, &child)? {
                        replace = Some(child);
                    }
                }
                "m.reference" if references.len() < REFERENCES => {
                    references.push(json!({ "event_id": self.event(child)?.id }));
                }
                "m.thread" => {
                    let child = self.event(child)?;
                    participated |= child.record.sender == viewer.user;
                    thread = Some(child);
                }
                _ => {}
            }
        }
        let mut bundle = Map::new();
        if let Some(edit) = replace {
            let shown = self.render(&edit, viewer, self.unsigned(&edit, viewer)?, Format::FULL)?;
            bundle.insert("m.replace".to_owned(), parse(shown.get())?);
        }
        if !references.is_empty() {
            bundle.insert("m.reference".to_owned(), json!({ "chunk": references }));
        }
        if let Some(latest) = thread
            && let Some((tip, count)) = self.graph.get::<ThreadTips>(&(event.num,))?
        {
            let latest = match self.graph.get::<Relations>(&(event.num, "m.thread".to_owned(), tip))? {
                Some(num) => self.event(num)?,
                None => latest,
            };
            // One level deep: the latest reply with its own edits, but not with threads of its own.
            let shown = self.client_event(&latest, viewer, Format::FULL)?;
            bundle.insert(
                "m.thread".to_owned(),
                json!({
                    "latest_event": parse(shown.get())?,
                    "count": count,
                    "current_user_participated": participated || event.record.sender == viewer.user,
                }),
            );
        }
        Ok((!bundle.is_empty()).then_some(Value::Object(bundle)))
    }

    /// Events that relate to `parent`, newest first, at most `limit`, older than `before` and newer than `after`;
    /// and where to go on.
    pub fn related(
        &self,
        parent: &Event,
        query: &RelationQuery,
        (after, before): (Pos, Pos),
        forwards: bool,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, Option<Pos>), Error> {
        let mut found: Vec<(Pos, Arc<Event>)> = Vec::new();
        let mut seen = HashSet::from([parent.num]);
        let mut level = vec![parent.num];
        let depth = if query.recurse { RECURSE.1 } else { 1 };
        for _ in 0..depth {
            let mut next = Vec::new();
            for num in level {
                self.children(num, query, &mut seen, &mut next, &mut found)?;
            }
            if next.is_empty() || seen.len() > RECURSE.0 {
                break;
            }
            level = next;
        }
        found.retain(|(pos, event)| *pos > after && *pos <= before && event.record.is_visible());
        found.sort_by_key(|(pos, _)| *pos);
        if !forwards {
            found.reverse();
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(pos, _)| *pos);
        Ok((found.into_iter().map(|(_, event)| event).collect(), next))
    }

    /// Whether something relates to `event` in a way (relation type, sender) that `wanted` lets through.
    pub fn has_relation(&self, event: &Event, wanted: impl Fn(&str, &UserId) -> bool) -> Result<bool, Error> {
        for entry in self.graph.scan::<Relations, _>(&(event.num,)).iter().take(BUNDLE_SCAN) {
            let ((_, rel_type, _), child) = entry?;
            if wanted(&rel_type, self.event(child)?.sender()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn children(
        &self,
        parent: EventNum,
        query: &RelationQuery,
        seen: &mut HashSet<EventNum>,
        next: &mut Vec<EventNum>,
        found: &mut Vec<(Pos, Arc<Event>)>,
    ) -> Result<(), Error> {
        for entry in self.graph.scan::<Relations, _>(&(parent,)).iter().take(RECURSE.0) {
            let ((_, rel_type, pos), child) = entry?;
            if !seen.insert(child) {
                continue;
            }
            next.push(child);
            if query.rel_type.as_ref().is_some_and(|wanted| *wanted != rel_type) {
                continue;
            }
            let event = self.event(child)?;
            if query.event_type.as_ref().is_none_or(|wanted| event.kind().to_string() == *wanted) {
                found.push((pos, event));
            }
        }
        Ok(())
    }

    /// The threads of a room, the most recently active first: roots older than `before` by their latest reply.
    pub fn threads(
        &self,
        room: RoomNum,
        before: Pos,
        participant: Option<&Viewer<'_>>,
        limit: usize,
    ) -> Result<(Vec<Arc<Event>>, Option<Pos>), Error> {
        let mut roots = Vec::new();
        for entry in self.graph.scan::<Threads, _>(&(room,)).below(&(room, before)).reverse().iter() {
            let ((_, pos, root), ()) = entry?;
            let root = self.event(root)?;
            if let Some(viewer) = participant
                && root.record.sender != viewer.user
                && !self.took_part(&root, viewer)?
            {
                continue;
            }
            roots.push(root);
            if roots.len() == limit {
                return Ok((roots, Some(pos)));
            }
        }
        Ok((roots, None))
    }

    fn took_part(&self, root: &Event, viewer: &Viewer<'_>) -> Result<bool, Error> {
        for entry in
            self.graph.scan::<Relations, _>(&(root.num, "m.thread".to_owned())).iter().take(BUNDLE_SCAN)
        {
            if self.event(entry?.1)?.record.sender == viewer.user {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn parse(json: &str) -> Result<Value, Error> {
    serde_json::from_str(json).map_err(|error| Error::BadJson(error.to_string()))
}
