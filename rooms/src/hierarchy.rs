//! Spaces and the rooms in them (specification: spaces).

use crate::{Asker, Error, Event, rooms::Rooms};
use postern_graph::RoomNum;
use ruma::RoomId;
use serde_json::{Value, json, value::RawValue};
use std::{cmp::Ordering, sync::Arc};

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
    /// The children of a space as its state says: those known here, in their order, and the links to all of them. A link that
    /// who asks may not be told of is left out.
    pub fn space(&self, asker: Asker<'_>, room: RoomNum, suggested_only: bool) -> Result<Space, Error> {
        let mut space = Space::default();
        for child in self.children_of(room)? {
            if suggested_only && !suggested(&child.event) || !self.may_be_told(asker, &child.event)? {
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
