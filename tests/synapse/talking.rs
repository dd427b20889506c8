//! What is said in a room with members on both servers.

use crate::sides::{Pair, ids, join_by, says_to, sees_event, sees_state, shared_room, talk, until, walk};
use postern_world::{Client, events_of, timeline};
use serde_json::{Value, json};

/// The same, with either of the two as the first.
fn both_ways<'a>(alice: &'a Client, bob: &'a Client) -> [(&'a Client, &'a Client); 2] {
    [(alice, bob), (bob, alice)]
}

pub fn messages_pass_both_ways(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    for (from, to) in both_ways(&alice, &bob) {
        let content = json!({
            "msgtype": "m.text",
            "body": "Grüße, \u{1f980} \u{0}\"\\\u{2028}",
            "org.example.more": { "numbers": [0, -1, 9_007_199_254_740_991_i64], "null": null, "flag": true },
        });
        let since = to.now();
        let said = from.send(&room, "m.room.message", content.clone());
        let seen = to.sync_until_event(&since, &room, &said);
        let event = timeline(&seen, &room).into_iter().find(|event| event["event_id"] == said.as_str());
        let event = event.unwrap();
        assert_eq!(event["content"], content);
        assert_eq!(event["sender"], from.id());
        // One after the other, in order.
        let since = to.now();
        let said: Vec<String> = (0..10).map(|number| from.send_text(&room, &format!("{number}"))).collect();
        let mut seen: Vec<Value> = Vec::new();
        to.sync_until(&since, |answer| {
            seen.extend(timeline(answer, &room));
            seen.iter().any(|event| event["event_id"] == said[9].as_str())
        });
        let seen: Vec<&str> = seen.iter().filter_map(|event| event["event_id"].as_str()).collect();
        assert_eq!(seen, said);
    }
}

pub fn a_message_is_edited_and_reacted_to(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    for (from, to) in both_ways(&alice, &bob) {
        let said = says_to(from, to, &room, "frist");
        let edit = from.send(
            &room,
            "m.room.message",
            json!({
                "msgtype": "m.text",
                "body": "* first",
                "m.new_content": { "msgtype": "m.text", "body": "first" },
                "m.relates_to": { "rel_type": "m.replace", "event_id": said },
            }),
        );
        until("the edit is bundled", || {
            let event = to.event(&room, &said);
            event["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit.as_str()
        });
        let reaction =
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said, "key": "👍" } });
        let reaction = to.send(&room, "m.reaction", reaction);
        let path = Client::room_path(&room, &format!("relations/{}/m.annotation", postern_world::enc(&said)));
        let path = path.replacen("v3", "v1", 1);
        until("the reaction is found", || from.get(&path)["chunk"][0]["event_id"] == reaction.as_str());
        // An answer in a thread.
        let answer = to.send(
            &room,
            "m.room.message",
            json!({
                "msgtype": "m.text",
                "body": "in a thread",
                "m.relates_to": { "rel_type": "m.thread", "event_id": said },
            }),
        );
        until("the thread is bundled", || {
            let event = from.event(&room, &said);
            event["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"] == answer.as_str()
        });
    }
}

pub fn messages_are_redacted(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    for version in ["10", "11", "12"] {
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version }));
        join_by(&bob, &room, &alice);
        for (from, to) in both_ways(&alice, &bob) {
            let said = says_to(from, to, &room, "oh");
            let redaction = from.redact(&room, &said);
            until("the content is gone", || to.event(&room, &said)["content"] == json!({}));
            let because = to.event(&room, &said)["unsigned"]["redacted_because"]["event_id"].clone();
            assert_eq!(because, redaction.as_str(), "version {version}");
        }
        // Whoever has the power redacts what others said.
        let said = says_to(&bob, &alice, &room, "oh");
        alice.redact(&room, &said);
        until("the content is gone", || bob.event(&room, &said)["content"] == json!({}));
    }
}

pub fn what_was_said_before_is_read(pair: &Pair<'_>) {
    const MESSAGES: usize = 250;
    let (alice, bob) = pair.couple();
    let room = alice.create_public_room();
    for number in 0..MESSAGES {
        if number % 50 == 0 {
            alice.set_state(&room, "m.room.topic", "", json!({ "topic": format!("topic {number}") }));
        }
        alice.send_text(&room, &format!("{number}"));
    }
    join_by(&bob, &room, &alice);
    talk(&alice, &bob, &room);
    let all = ids(&walk(&alice, &room));
    until("all of the history is read", || ids(&walk(&bob, &room)) == all);
    let state = |who: &Client| ids(&who.all_state(&room));
    assert_eq!(state(&alice), state(&bob));
    // The order is the same, too.
    let said = |who: &Client| -> Vec<Value> {
        let events = walk(who, &room).into_iter();
        events
            .filter(|event| event["type"] == "m.room.message")
            .map(|event| event["content"]["body"].clone())
            .collect()
    };
    assert_eq!(said(&alice), said(&bob));
}

pub fn typing_and_receipts_are_seen(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    for (from, to) in both_ways(&alice, &bob) {
        let said = says_to(to, from, &room, "read this");
        let ephemeral = |answer: &Value, kind: &str| {
            events_of(&answer["rooms"]["join"][&room]["ephemeral"])
                .into_iter()
                .find(|event| event["type"] == kind)
                .map(|event| event["content"].clone())
        };
        let since = to.now();
        from.typing(&room, true);
        to.sync_until(&since, |answer| {
            ephemeral(answer, "m.typing").is_some_and(|content| content["user_ids"] == json!([from.id()]))
        });
        from.typing(&room, false);
        to.sync_until(&since, |answer| {
            ephemeral(answer, "m.typing").is_some_and(|content| content["user_ids"] == json!([]))
        });
        let since = to.now();
        from.read(&room, &said);
        to.sync_until(&since, |answer| {
            ephemeral(answer, "m.receipt")
                .is_some_and(|content| content[&said]["m.read"][from.id()]["ts"].is_number())
        });
    }
}

pub fn presence_is_seen(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    shared_room(&alice, &bob);
    for (from, to) in both_ways(&alice, &bob) {
        let since = to.now();
        let path = format!("v3/presence/{}/status", from.id_in_path());
        from.put(&path, json!({ "presence": "online", "status_msg": "here I am" })).done();
        to.sync_until(&since, |answer| {
            events_of(&answer["presence"]).iter().any(|event| {
                event["sender"] == from.id()
                    && event["content"]["status_msg"] == "here I am"
                    && event["content"]["presence"] == "online"
            })
        });
    }
}

pub fn state_is_changed_from_both_sides(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    alice.change_power_levels(&room, |levels| levels["users"][bob.id()] = json!(100));
    until("Bob has the power", || bob.state(&room, "m.room.power_levels", "")["users"][bob.id()] == 100);
    for round in 0..3 {
        for (from, to) in both_ways(&alice, &bob) {
            let topic = json!({ "topic": format!("{round} by {}", from.id()) });
            let event = from.set_state(&room, "m.room.topic", "", topic.clone());
            sees_event(to, &room, &event);
            sees_state(to, &room, "m.room.topic", "", &topic);
        }
    }
    // At once: whichever wins, it is the same on both sides.
    std::thread::scope(|scope| {
        for who in [&alice, &bob] {
            let room = &room;
            scope.spawn(move || {
                for number in 0..15 {
                    who.set_state(
                        room,
                        "m.room.name",
                        "",
                        json!({ "name": format!("{number} {}", who.id()) }),
                    );
                    who.set_state(room, "org.example.counter", who.id(), json!({ "number": number }));
                }
            });
        }
    });
    talk(&alice, &bob, &room);
    until("both have the same state", || ids(&alice.all_state(&room)) == ids(&bob.all_state(&room)));
}
