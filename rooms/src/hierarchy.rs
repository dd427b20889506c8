//! Spaces and the rooms in them (specification: spaces).

use crate::{Error, Event, directory::Summary, limits, rooms::Rooms, view::Viewer};
use postern_graph::RoomNum;
use ruma::RoomId;
use serde_json::{Value, json, value::RawValue};
use std::{cmp::Ordering, collections::HashSet, sync::Arc};

/// A room of a hierarchy: what is said of it, and the links to its children.
#[derive(Debug)]
pub struct Node {
    /// The room.
    pub summary: Summary,
    /// Its `m.space.child` events, in the order of the specification.
    pub children: Vec<Value>,
}

/// Which part of a hierarchy.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Only children that the space suggests.
    pub suggested_only: bool,
    /// How deep, if bounded.
    pub max_depth: Option<usize>,
    /// Rooms passed over first.
    pub skip: usize,
    /// Rooms at most.
    pub limit: usize,
}

/// The children of a space.
#[derive(Debug, Default)]
pub struct Space {
    /// Those known here.
    pub known: Vec<(String, RoomNum)>,
    /// The links to all of them, as stripped `m.space.child` events.
    pub links: Vec<Value>,
}

struct Child {
    room: Option<RoomNum>,
    order: Option<String>,
    ts: u64,
    id: String,
    event: Arc<Event>,
}

impl Rooms {
    /// The rooms of a space, depth first, as `viewer` may see them; and whether there are more.
    ///
    /// # Errors
    /// [`Error::Forbidden`] if the viewer may not see the space itself.
    pub fn hierarchy(
        &self,
        root: RoomNum,
        viewer: &Viewer<'_>,
        walk: Walk,
    ) -> Result<(Vec<Node>, bool), Error> {
        if !self.may_see_summary(root, Some(viewer.user))? {
            return Err(Error::forbidden("you may not see this space"));
        }
        let mut nodes = Vec::new();
        let mut seen = HashSet::from([root]);
        let mut stack = vec![(root, 0_usize)];
        let mut passed = 0;
        while let Some((room, depth)) = stack.pop() {
            let summary = self.summary(room)?;
            let is_space = summary.listing.room_type.as_deref() == Some("m.space");
            let mut children = if is_space { self.children_of(room)? } else { Vec::new() };
            if walk.suggested_only {
                children.retain(|child| suggested(&child.event));
            }
            passed += 1;
            if passed > walk.skip {
                if nodes.len() == walk.limit {
                    return Ok((nodes, true));
                }
                let links = children.iter().map(|child| link(&child.event)).collect();
                nodes.push(Node { summary, children: links });
            }
            if passed > limits::HIERARCHY_ROOMS || walk.max_depth.is_some_and(|most| depth >= most) {
                continue;
            }
            for child in children.into_iter().rev() {
                if let Some(room) = child.room
                    && !seen.contains(&room)
                    && self.may_see_summary(room, Some(viewer.user))?
                {
                    stack.push((room, depth + 1));
                }
            }
            // A room linked twice is shown where it comes first.
            while let Some((room, _)) = stack.last()
                && !seen.insert(*room)
            {
                stack.pop();
            }
        }
        Ok((nodes, false))
    }

    /// The children of a space as its state says: those known here, in their order, and the links to all of them.
    pub fn space(&self, room: RoomNum, suggested_only: bool) -> Result<Space, Error> {
        let mut space = Space::default();
        for child in self.children_of(room)? {
            if suggested_only && !suggested(&child.event) {
                continue;
            }
            space.links.push(link(&child.event));
            space.known.extend(child.room.map(|room| (child.id, room)));
        }
        Ok(space)
    }

    fn children_of(&self, space: RoomNum) -> Result<Vec<Child>, Error> {
        let mut children = Vec::new();
        for event in self.current_state_of_type(space, "m.space.child")? {
            let content: Value = event.content_as().unwrap_or_default();
            let via = content.get("via").and_then(Value::as_array);
            let Some(id) = event.state_key().filter(|_| via.is_some_and(|via| !via.is_empty())) else {
                continue;
            };
            let room = match <&RoomId>::try_from(id) {
                Ok(id) => self.room(id)?,
                Err(_) => None,
            };
            let order = content.get("order").and_then(Value::as_str).filter(|order| valid_order(order));
            children.push(Child {
                room,
                order: order.map(str::to_owned),
                ts: event.origin_server_ts(),
                id: id.to_owned(),
                event,
            });
        }
        children.sort_by(|a, b| {
            let by_order = match (&a.order, &b.order) {
                (Some(a), Some(b)) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => Ordering::Equal,
            };
            by_order.then_with(|| a.ts.cmp(&b.ts)).then_with(|| a.id.cmp(&b.id))
        });
        Ok(children)
    }
}

fn suggested(event: &Event) -> bool {
    let content: Value = event.content_as().unwrap_or_default();
    content.get("suggested").and_then(Value::as_bool).unwrap_or(false)
}

/// An order is printable ASCII, at most 50 characters; anything else counts as none.
fn valid_order(order: &str) -> bool {
    order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

fn link(event: &Event) -> Value {
    let content: Value = serde_json::from_str(<RawValue>::get(event.content())).unwrap_or_else(|_| json!({}));
    json!({
        "type": "m.space.child",
        "state_key": event.state_key(),
        "sender": event.sender(),
        "origin_server_ts": event.origin_server_ts(),
        "content": content,
    })
}
