//! The list of what one was notified of.

use crate::{gateway::until, server, two_in_a_room};
use postern_world::Client;
use serde_json::{Value, json};

fn list(who: &Client, query: &str) -> (Vec<Value>, Option<String>) {
    let answer = who.get(&format!("v3/notifications{query}")).ok();
    let next = answer.get("next_token").map(|token| token.as_str().unwrap().to_owned());
    (answer["notifications"].as_array().unwrap().clone(), next)
}

fn ids(notifications: &[Value]) -> Vec<&str> {
    notifications.iter().map(|one| one["event"]["event_id"].as_str().unwrap()).collect()
}

#[test]
fn what_one_was_notified_of_is_listed_newest_first_page_by_page() {
    let (alice, bob, room) = two_in_a_room();
    let other = alice.create_room_with(&[&bob]);
    let mut sent = Vec::new();
    for number in 0..5 {
        sent.push(alice.send_text(if number % 2 == 0 { &room } else { &other }, "x"));
    }
    bob.read(&room, &sent[2]);
    let (first, next) = list(&bob, "?limit=2");
    assert_eq!(ids(&first), [sent[4].as_str(), &sent[3]]);
    assert_eq!(first[0]["room_id"], room.as_str());
    assert_eq!(first[0]["actions"], json!(["notify", { "set_tweak": "sound", "value": "default" }]));
    assert!(
        first[0]["event"].get("room_id").is_none() && first[0]["ts"].as_u64().unwrap() > 1_600_000_000_000
    );
    let (second, next) = list(&bob, &format!("?limit=2&from={}", next.unwrap()));
    assert_eq!(ids(&second), [sent[2].as_str(), &sent[1]]);
    assert_eq!((&second[0]["read"], &second[1]["read"]), (&json!(true), &json!(false)));
    let (rest, next) = list(&bob, &format!("?limit=100&from={}", next.unwrap()));
    // The invites to both rooms, answered.
    assert_eq!(rest[0]["event"]["event_id"], sent[0].as_str());
    assert!(rest[1..].iter().all(|one| one["event"]["type"] == "m.room.member" && one["read"] == true));
    assert_eq!((rest.len(), next), (3, None));
    assert!(list(&alice, "").0.is_empty());
}

#[test]
fn only_highlights_are_listed_if_asked_for() {
    let (alice, bob, room) = two_in_a_room();
    let mention = json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [bob.id()] } });
    let mention = alice.send(&room, "m.room.message", mention);
    alice.send_text(&room, "x");
    let (highlights, next) = list(&bob, "?only=highlight");
    assert_eq!((ids(&highlights), next), (vec![mention.as_str()], None));
}

#[test]
fn what_one_may_not_see_any_more_is_not_listed() {
    let (alice, bob, room) = two_in_a_room();
    let kept = alice.send_text(&room, "kept");
    let regretted = alice.send_text(&room, "regretted");
    assert_eq!(ids(&list(&bob, "").0)[..2], [regretted.as_str(), &kept]);
    alice.redact(&room, &regretted);
    until("what was taken back is gone", || (ids(&list(&bob, "").0)[0] == kept).then_some(()));
}

#[test]
fn a_token_of_somebody_else_s_making_is_refused() {
    let alice = server().register("alice");
    for token in ["x", "n", "nx", "s1_2", ""] {
        let _ = alice.get(&format!("v3/notifications?from={token}")).refused(400, "M_INVALID_PARAM");
    }
}
