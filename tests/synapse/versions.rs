//! Room versions, and going from one to the next.

use crate::sides::{Pair, ids, join_by, says_to, sees_membership, talk, until, walk};
use postern_world::Client;
use serde_json::json;

pub fn rooms_of_every_version_are_shared(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    for version in 1..=12 {
        let version = version.to_string();
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version }));
        let before = alice.send_text(&room, "before");
        join_by(&bob, &room, &alice);
        sees_membership(&alice, &room, &bob, "join");
        talk(&alice, &bob, &room);
        let topic = alice.set_state(&room, "m.room.topic", "", json!({ "topic": "a version" }));
        let said = says_to(&bob, &alice, &room, "more");
        alice.redact(&room, &said);
        until("the redaction arrives", || bob.event(&room, &said)["content"] == json!({}));
        // The other server does not have this one yet.
        alice.redact(&room, &before);
        let state = |who: &Client| ids(&who.all_state(&room));
        until("both have the same state", || state(&alice) == state(&bob));
        assert!(state(&bob).contains(&topic));
        until("both have the same history", || ids(&walk(&alice, &room)) == ids(&walk(&bob, &room)));
        until("the redaction holds", || bob.event(&room, &before)["content"] == json!({}));
    }
}

pub fn a_room_is_upgraded_and_followed(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    for (from, to) in [("9", "11"), ("11", "12")] {
        let name = format!("v{from}-{}", alice.localpart());
        let old = alice.create_room(json!({
            "preset": "public_chat",
            "name": "moving",
            "room_version": from,
            "room_alias_name": name,
        }));
        join_by(&bob, &old, &alice);
        sees_membership(&alice, &old, &bob, "join");
        let since = bob.now();
        let new = alice.post(&Client::room_path(&old, "upgrade"), json!({ "new_version": to })).ok();
        let new = new["replacement_room"].as_str().unwrap().to_owned();
        bob.sync_until(&since, |answer| {
            let timeline = postern_world::timeline(answer, &old);
            timeline.iter().any(|event| {
                event["type"] == "m.room.tombstone" && event["content"]["replacement_room"] == new.as_str()
            })
        });
        join_by(&bob, &new, &alice);
        sees_membership(&alice, &new, &bob, "join");
        let created = bob.state(&new, "m.room.create", "").ok();
        assert_eq!(created["predecessor"]["room_id"], old.as_str(), "{created}");
        assert_eq!(created["room_version"], to);
        assert_eq!(bob.state(&new, "m.room.name", "")["name"], "moving");
        let alias = format!("#{name}:{}", alice.server_name());
        let found = bob.get(&format!("v3/directory/room/{}", postern_world::enc(&alias)));
        assert_eq!(found["room_id"], new.as_str(), "{}", found.describe());
        talk(&alice, &bob, &new);
    }
}
