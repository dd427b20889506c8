//! What is unread, and what makes it so no more.

use crate::{server_with, two_in_a_room};
use postern_world::Client;
use serde_json::{Value, json};

/// Notifications and highlights.
fn unread(who: &Client, room: &str) -> (u64, u64) {
    let counts = who.sync(None)["rooms"]["join"][room]["unread_notifications"].clone();
    let count = |name: &str| counts[name].as_u64().unwrap();
    (count("notification_count"), count("highlight_count"))
}

fn by_thread(who: &Client, room: &str) -> (Value, Value) {
    let filter = json!({ "room": { "timeline": { "unread_thread_notifications": true } } });
    let shown = who.sync_filtered(None, &filter)["rooms"]["join"][room].clone();
    (
        shown["unread_notifications"]["notification_count"].clone(),
        shown["unread_thread_notifications"].clone(),
    )
}

fn reply(root: &str, more: Value) -> Value {
    let mut content = json!({
        "msgtype": "m.text", "body": "reply", "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    content.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    content
}

#[test]
fn what_is_unread_survives_a_restart_and_a_power_cut() {
    let server = server_with(&[]);
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let room = alice.create_room_with(&[&bob]);
    alice.send_text(&room, "one");
    let mention = json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [bob.id()] } });
    alice.send(&room, "m.room.message", mention);
    assert_eq!(unread(&bob, &room), (2, 1));
    server.restart();
    assert_eq!(unread(&bob, &room), (2, 1));
    server.kill();
    server.start_again();
    let last = alice.send_text(&room, "three");
    assert_eq!(unread(&bob, &room), (3, 1));
    bob.read(&room, &last);
    assert_eq!(unread(&bob, &room), (0, 0));
}

#[test]
fn counts_are_never_behind_the_messages_they_come_with() {
    let (alice, bob, room) = two_in_a_room();
    let mut since = bob.now();
    for number in 1..=50 {
        let event = alice.send_text(&room, "x");
        let answer = bob.sync_until_event(&since, &room, &event);
        assert_eq!(answer["rooms"]["join"][&room]["unread_notifications"]["notification_count"], number);
        since = answer["next_batch"].as_str().unwrap().to_owned();
    }
}

#[test]
fn a_new_name_is_no_reading() {
    let (alice, bob, room) = two_in_a_room();
    alice.send_text(&room, "one");
    bob.put(&format!("v3/profile/{}/displayname", bob.id_in_path()), json!({ "displayname": "Robert" }))
        .done();
    assert_eq!(unread(&bob, &room), (1, 0));
    alice.send_text(&room, "robert?");
    assert_eq!(unread(&bob, &room), (2, 1));
}

#[test]
fn what_is_taken_back_is_not_unread() {
    let (alice, bob, room) = two_in_a_room();
    alice.send_text(&room, "kept");
    let regretted = alice.send_text(&room, "regretted");
    assert_eq!(unread(&bob, &room), (2, 0));
    alice.redact(&room, &regretted);
    assert_eq!(unread(&bob, &room), (1, 0));
}

#[test]
fn who_leaves_and_comes_back_begins_anew() {
    let (alice, bob, room) = two_in_a_room();
    alice.send_text(&room, "before");
    assert_eq!(unread(&bob, &room), (1, 0));
    bob.leave(&room);
    alice.send_text(&room, "meanwhile");
    alice.invite(&room, &bob);
    bob.join(&room);
    assert_eq!(unread(&bob, &room), (0, 0));
    alice.send_text(&room, "after");
    assert_eq!(unread(&bob, &room), (1, 0));
}

#[test]
fn threads_are_read_apart() {
    let (alice, bob, room) = two_in_a_room();
    let (one, two) = (alice.send_text(&room, "root"), alice.send_text(&room, "another"));
    let first = alice.send(&room, "m.room.message", reply(&one, json!({})));
    let mention = json!({ "m.mentions": { "user_ids": [bob.id()] } });
    alice.send(&room, "m.room.message", reply(&one, mention));
    alice.send(&room, "m.room.message", reply(&two, json!({})));
    let (main, threads) = by_thread(&bob, &room);
    assert_eq!(main, 2);
    assert_eq!(threads[&one], json!({ "notification_count": 2, "highlight_count": 1 }));
    assert_eq!(threads[&two], json!({ "notification_count": 1, "highlight_count": 0 }));
    assert_eq!(unread(&bob, &room), (5, 1));
    let receipt = |thread: &str, event: &str| {
        let path = Client::room_path(&room, &format!("receipt/m.read/{}", postern_world::enc(event)));
        bob.post(&path, json!({ "thread_id": thread })).done();
    };
    receipt(&one, &first);
    receipt("main", &one);
    let (main, threads) = by_thread(&bob, &room);
    assert_eq!(main, 1);
    assert_eq!(threads[&one], json!({ "notification_count": 1, "highlight_count": 1 }));
    // Saying something in a thread reads that thread.
    bob.send(&room, "m.room.message", reply(&one, json!({})));
    let (main, threads) = by_thread(&bob, &room);
    assert_eq!((main, threads.get(&one), &threads[&two]["notification_count"]), (json!(1), None, &json!(1)));
    // A receipt for no thread reads all before it.
    bob.read(&room, &alice.send_text(&room, "last"));
    assert_eq!(by_thread(&bob, &room), (json!(0), Value::Null));
}

#[test]
fn a_vote_is_nothing_and_a_poll_is_something() {
    let (alice, bob, room) = two_in_a_room();
    let poll = json!({ "org.matrix.msc3381.poll.start": { "question": { "body": "?" }, "answers": [] } });
    let poll = alice.send(&room, "org.matrix.msc3381.poll.start", poll);
    assert_eq!(unread(&bob, &room), (1, 0));
    let vote = json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": poll } });
    alice.send(&room, "org.matrix.msc3381.poll.response", vote);
    assert_eq!(unread(&bob, &room), (1, 0));
}

#[test]
fn creators_may_notify_a_room_of_the_newest_version_and_others_by_their_power() {
    let (alice, bob, _) = two_in_a_room();
    let carol = crate::server().register("carol");
    let room = alice.create_room(json!({
        "room_version": "12",
        "preset": "private_chat",
        "invite": [bob.id(), carol.id()],
        "power_level_content_override": { "notifications": { "room": 90 } },
    }));
    bob.join(&room);
    carol.join(&room);
    let all = || json!({ "msgtype": "m.text", "body": "all", "m.mentions": { "room": true } });
    alice.send(&room, "m.room.message", all());
    assert_eq!(unread(&bob, &room), (1, 1));
    carol.send(&room, "m.room.message", all());
    assert_eq!(unread(&bob, &room), (2, 1));
}

#[test]
fn a_room_with_much_unread_tells_a_bounded_count() {
    let (alice, bob, room) = two_in_a_room();
    let mut last = String::new();
    for number in 0..700 {
        last = alice.send_text(&room, &number.to_string());
    }
    assert_eq!(unread(&bob, &room), (500, 0));
    bob.read(&room, &last);
    assert_eq!(unread(&bob, &room), (0, 0));
}
