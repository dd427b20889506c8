//! The two servers, and what people on both do together.

use postern_world::{Client, Gate, Server, Synapse, enc};
use serde_json::{Value, json};
use std::{thread::sleep, time::Duration};

/// How often it is looked whether something has come about, and the pause between two looks.
const LOOKS: usize = 600;
const PAUSE: Duration = Duration::from_millis(100);

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Postern,
    Synapse,
}

/// The servers, and on which of them the room of a test is made.
pub struct Pair<'a> {
    pub postern: &'a Server,
    /// The gate through which Synapse reaches Postern.
    pub gate: &'a Gate,
    pub synapse: &'a Synapse,
    pub host: Side,
}

impl Pair<'_> {
    fn register(&self, side: Side, name: &str) -> Client {
        match side {
            Side::Postern => self.postern.register(name),
            Side::Synapse => self.synapse.register(name),
        }
    }

    /// Somebody on the server where the room is made.
    pub fn here(&self, name: &str) -> Client {
        self.register(self.host, name)
    }

    /// Somebody on the other server.
    pub fn there(&self, name: &str) -> Client {
        self.register(if self.host == Side::Postern { Side::Synapse } else { Side::Postern }, name)
    }

    /// Where somebody's client reaches the server: its URL.
    pub fn address_of(&self, who: &Client) -> String {
        let address = if who.server_name() == self.postern.name() {
            self.postern.address()
        } else {
            self.synapse.address()
        };
        format!("http://{address}")
    }

    /// Alice, where the room is made, and Bob on the other server.
    pub fn couple(&self) -> (Client, Client) {
        (self.here("alice"), self.there("bob"))
    }
}

/// Joins a room by way of somebody else's server.
#[track_caller]
pub fn join_by(who: &Client, room: &str, by: &Client) {
    try_join_by(who, room, by).done();
}

/// Asks to.
#[track_caller]
pub fn try_join_by(who: &Client, room: &str, by: &Client) -> postern_world::Answer {
    who.post(&format!("v3/join/{}?via={}", enc(room), enc(by.server_name())), json!({}))
}

/// A public room of `alice` that `bob` has joined, as both see.
#[track_caller]
pub fn shared_room(alice: &Client, bob: &Client) -> String {
    let room = alice.create_public_room();
    join_by(bob, &room, alice);
    sees_membership(alice, &room, bob, "join");
    room
}

/// Waits until something is so.
///
/// # Panics
/// It does not come about.
#[track_caller]
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if so() {
            return;
        }
        sleep(PAUSE);
    }
    panic!("never came about: {what}");
}

/// Waits until somebody sees somebody's membership.
#[track_caller]
pub fn sees_membership(who: &Client, room: &str, whose: &Client, membership: &str) {
    until(&format!("{} sees {} {membership}", who.id(), whose.id()), || {
        who.state(room, "m.room.member", whose.id())["membership"] == membership
    });
}

/// Waits until a state event's content is as wanted.
#[track_caller]
pub fn sees_state(who: &Client, room: &str, kind: &str, key: &str, content: &Value) {
    until(&format!("{} sees {kind} {key:?} {content}", who.id()), || {
        who.state(room, kind, key).body() == content
    });
}

/// Waits until an event can be read; the event.
#[track_caller]
pub fn sees_event(who: &Client, room: &str, event: &str) -> Value {
    let mut found = Value::Null;
    until(&format!("{} sees {event}", who.id()), || {
        let answer = who.event(room, event);
        found = answer.body().clone();
        answer.status() == 200
    });
    found
}

/// One says something and the other sees it in the timeline; the event's id.
#[track_caller]
pub fn says_to(from: &Client, to: &Client, room: &str, text: &str) -> String {
    let since = to.now();
    let said = from.send_text(room, text);
    to.sync_until_event(&since, room, &said);
    said
}

/// Both say something that the other sees.
#[track_caller]
pub fn talk(one: &Client, other: &Client, room: &str) {
    says_to(one, other, room, "hello");
    says_to(other, one, room, "hello yourself");
}

/// All of a room's events that somebody can page to, newest first.
#[track_caller]
pub fn walk(who: &Client, room: &str) -> Vec<Value> {
    /// Pages that are walked at most; empty ones may be among them.
    const PAGES: usize = 200;
    let mut events = Vec::new();
    let mut from = String::new();
    for _ in 0..PAGES {
        let page = who.messages(room, &format!("dir=b&limit=100{from}"));
        events.extend(page["chunk"].as_array().expect("a chunk").iter().cloned());
        match page["end"].as_str() {
            Some(end) => from = format!("&from={}", enc(end)),
            None => return events,
        }
    }
    panic!("the history of {room} does not end for {}", who.id());
}

/// The ids of events, sorted.
pub fn ids(events: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> =
        events.iter().filter_map(|event| event["event_id"].as_str()).map(str::to_owned).collect();
    ids.sort_unstable();
    ids
}
