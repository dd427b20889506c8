//! Rooms, messages, keys and files that are shared by hand.

use crate::enclaves::Pair;
use postern_world::Client;
use serde_json::{Value, json};

/// The bodies of the messages a user sees in a room, oldest first.
pub fn bodies(user: &Client, room: &str) -> Vec<String> {
    let page = user.messages(room, "dir=b&limit=200");
    let mut bodies: Vec<String> = page["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["type"] == "m.room.message")
        .map(|event| event["content"]["body"].as_str().unwrap_or("(redacted)").to_owned())
        .collect();
    bodies.reverse();
    bodies
}

#[test]
fn a_room_is_shared_by_hand_both_ways_with_its_history() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "The road" }));
    alice.send_text(&room, "before the invite");
    alice.invite(&room, &bob);
    pair.to_b();
    let invited = bob.sync(None);
    assert!(invited["rooms"]["invite"][&room].to_string().contains("The road"), "{invited}");
    alice.send_text(&room, "before the join");
    bob.join(&room);
    bob.send_text(&room, "here I am");
    pair.to_a();
    assert_eq!(alice.membership_of(&room, &bob), "join");
    assert_eq!(bodies(&alice, &room), ["before the invite", "before the join", "here I am"]);
    pair.to_b();
    assert_eq!(bodies(&bob, &room), ["before the invite", "here I am", "before the join"]);
    let reply = alice.send_text(&room, "well come");
    pair.to_b();
    assert_eq!(bodies(&bob, &room).last().unwrap(), "well come");
    alice.redact(&room, &reply);
    pair.to_b();
    assert_eq!(bodies(&bob, &room).last().unwrap(), "(redacted)");
    bob.leave(&room);
    pair.to_a();
    assert_eq!(alice.membership_of(&room, &bob), "leave");
    // What is said from now on is not for the other enclave.
    alice.send_text(&room, "alone again");
    assert_eq!(pair.a.export()["events"].as_u64().unwrap_or(0), 0);
}

