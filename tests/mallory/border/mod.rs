//! The border attacked: the hostile server is a peer that is cleared for what is internal, in rooms that go further.

mod denial;
#[path = "../../border/enclaves.rs"]
mod enclaves;
mod guarded;
mod labels;
mod overruling;
mod pulling;
mod repeating;
mod smuggling;
mod switching;

use crate::peer::{Mallory, until};
use enclaves::{Enclave, Peer, label};
use postern_world::{Answer, Client, Seat, enc};
use serde_json::{Value, json};

/// What is above the hostile server's clearance says this.
const CANARY: &str = "canary-7f3a9c";

/// An enclave, the hostile server as its peer, and a mixed room of both.
struct Stage {
    high: Enclave,
    mallory: Mallory,
    alice: Client,
    eve: String,
    room: String,
}

impl Stage {
    fn new() -> Self {
        Self::with("", "")
    }

    /// With these lines of the peer's entry and these of `border.toml`.
    fn with(entry: &str, more: &str) -> Self {
        let (here, there) = (Seat::take(), Seat::take());
        let peers = [Peer(&there, "Company INTERNAL", entry)];
        let high = Enclave::start(&here, "Company CONFIDENTIAL", &peers, more);
        let mallory = Mallory::at(&there);
        let alice = high.register("alice");
        let eve = mallory.user("eve");
        let room = mixed_room(&alice, &eve);
        mallory.join(&high.server, &room, &eve);
        Self { high, mallory, alice, eve, room }
    }

    /// Alice says something at the label of a class.
    #[track_caller]
    fn say(&self, class: &str, text: &str) -> String {
        self.alice.send(&self.room, "m.room.message", message(class, text, json!({})))
    }

    /// Something that mallory gets whole reaches it; what was sent before has then reached it, too.
    #[track_caller]
    fn settle(&self) -> String {
        let last = self.say("INTERNAL", "and that was all");
        self.mallory.until(&self.room, "the last word reaches mallory", |room| room.has(&last));
        last
    }

    /// Alice sees something that mallory says; what it said before is then judged.
    #[track_caller]
    fn hear(&self) {
        let content = message("INTERNAL", "an honest word", json!({}));
        let pdu = self.mallory.make(&self.room, &self.eve, "m.room.message", None, content);
        self.mallory.tell(&self.high.server, &pdu);
        until(|| self.alice.event(&self.room, &pdu.id).status() == 200, "an honest word arrives");
    }

    /// What an event says, as mallory has it.
    #[track_caller]
    fn told(&self, event: &str) -> Value {
        let room = self.mallory.room(&self.room);
        room.event(event).unwrap_or_else(|| panic!("mallory was not sent {event}"))["content"].clone()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        self.mallory.get(&self.high.server, path)
    }
}

/// A message at the label of a class, with more.
fn message(class: &str, text: &str, more: Value) -> Value {
    let mut content = json!({ "msgtype": "m.text", "body": text, "io.postern.label": label(class) });
    content.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    content
}

/// A room up to what is confidential, in which servers may be that are cleared for what is internal.
fn mixed_room(creator: &Client, invited: &str) -> String {
    creator.create_room(json!({
        "preset": "private_chat",
        "creation_content": { "io.postern.label": label("CONFIDENTIAL"), "io.postern.floor": label("INTERNAL") },
        "invite": [invited],
    }))
}

/// The answer says the same as another one, to the byte: status, headers but the date, body.
#[track_caller]
fn assert_same(answer: &Answer, other: &Answer) {
    let parts = |answer: &Answer| {
        let mut headers: Vec<(String, String)> = answer
            .headers()
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        headers.sort();
        (answer.status(), headers, answer.bytes().clone())
    };
    assert_eq!(parts(answer), parts(other), "{}\n{}", answer.describe(), other.describe());
}

fn room_path(what: &str, room: &str, more: &str) -> String {
    format!("v1/{what}/{}{more}", enc(room))
}
