//! State resolution of room version 1.
//!
//! <https://spec.matrix.org/latest/rooms/v1/#state-resolution>

use super::Conflicts;
use crate::{Error, Event, batch::Batch};
use postern_graph::{EventNum, Root, StateKeyNum};
use sha1::{Digest, Sha1};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

/// The types that are resolved before all others, in this order.
const FIRST: [&str; 3] = ["m.room.power_levels", "m.room.join_rules", "m.room.member"];

impl Batch<'_> {
    pub(super) fn resolve_first(&mut self, base: Root, conflicts: &Conflicts) -> Result<Root, Error> {
        let mut root = base;
        // By state key, so that every server goes through them in the same order.
        let mut contested: BTreeMap<(String, StateKeyNum), Vec<Arc<Event>>> = BTreeMap::new();
        for (key, values) in conflicts {
            let mut nums: Vec<EventNum> = values.iter().flatten().copied().collect();
            nums.sort_unstable();
            nums.dedup();
            let graph = &self.rooms.graph;
            match nums.as_slice() {
                // A key that some states lack is not in conflict in this version.
                [only] => root = graph.state_set(&mut self.commit, root, *key, Some(*only))?,
                several => {
                    root = graph.state_set(&mut self.commit, root, *key, None)?;
                    let events = several.iter().map(|num| self.event(*num)).collect::<Result<Vec<_>, _>>()?;
                    let state_key = events.first().and_then(|event| event.state_key()).unwrap_or_default();
                    contested.insert((state_key.to_owned(), *key), events);
                }
            }
        }
        for kind in FIRST {
            for ((_, key), events) in contested.iter().filter(|(_, events)| is(events, kind)) {
                let winner = self.last_allowed_in_a_row(root, *key, by_depth(events))?;
                root = self.rooms.graph.state_set(&mut self.commit, root, *key, winner)?;
            }
        }
        for ((_, key), events) in
            contested.iter().filter(|(_, events)| !FIRST.iter().any(|kind| is(events, kind)))
        {
            let mut candidates = by_depth(events);
            candidates.reverse();
            // The specification leaves open what happens if none is allowed: the oldest then, as other servers do.
            let mut winner = candidates.last().map(|event| event.num);
            for event in &candidates {
                if self.allowed_in(root, event)?.is_ok() {
                    winner = Some(event.num);
                    break;
                }
            }
            root = self.rooms.graph.state_set(&mut self.commit, root, *key, winner)?;
        }
        Ok(root)
    }

    /// The first event stands; each further one replaces it while it is allowed by what stands so far.
    fn last_allowed_in_a_row(
        &mut self,
        root: Root,
        key: StateKeyNum,
        events: Vec<Arc<Event>>,
    ) -> Result<Option<EventNum>, Error> {
        let mut standing: Option<EventNum> = None;
        for event in events {
            if standing.is_some() {
                let with = self.rooms.graph.state_set(&mut self.commit, root, key, standing)?;
                if self.allowed_in(with, &event)?.is_err() {
                    break;
                }
            }
            standing = Some(event.num);
        }
        Ok(standing)
    }
}

fn is(events: &[Arc<Event>], kind: &str) -> bool {
    events.first().is_some_and(|event| event.kind().to_string() == kind)
}

/// By ascending depth, then descending SHA-1 of the event id.
fn by_depth(events: &[Arc<Event>]) -> Vec<Arc<Event>> {
    let mut sorted = events.to_vec();
    sorted.sort_by_cached_key(|event| {
        (event.record.depth, Reverse(Sha1::digest(event.id.as_bytes()).to_vec()))
    });
    sorted
}
