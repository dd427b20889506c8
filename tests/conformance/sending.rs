//! Sending, transaction ids, sizes, redactions (specification: sending events to a room; transaction identifiers; size
//! limits; redactions).

use super::*;

fn message(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

#[test]
fn a_message_arrives_with_all_that_belongs_to_an_event() {
    let (alice, bob, room) = two_in_a_room();
    let since = bob.now();
    let id = alice.send_text(&room, "tea?");
    let answer = bob.sync_until_event(&since, &room, &id);
    let event = timeline(&answer, &room).into_iter().find(|event| event["event_id"] == id).unwrap();
    assert_eq!(event["type"], "m.room.message");
    assert_eq!(event["sender"], alice.id());
    assert_eq!(event["content"], message("tea?"));
    assert!(event["origin_server_ts"].is_u64());
    assert!(event["unsigned"]["age"].is_i64());
    for internal in ["auth_events", "prev_events", "hashes", "signatures", "depth"] {
        assert!(event.get(internal).is_none(), "{internal}");
    }
}

#[test]
fn any_type_and_content_can_be_sent() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let content = json!({ "nested": { "list": [1, -2, true, null, "ü"] }, "": 0 });
    let event = alice.send(&room, "test.any thing/at all", content.clone());
    let read = alice.event(&room, &event).ok();
    assert_eq!((&read["type"], &read["content"]), (&json!("test.any thing/at all"), &content));
}

#[test]
fn the_same_transaction_is_carried_out_once() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let first = alice.send_as(&room, "m.room.message", "t1", message("once")).ok();
    let second = alice.send_as(&room, "m.room.message", "t1", message("twice")).ok();
    assert_eq!(first, second);
    let chunk = array(&alice.messages(&room, "dir=b&limit=2")["chunk"]);
    assert_eq!(bodies(&chunk), ["once"]);
}

#[test]
fn the_same_transaction_in_another_room_or_of_another_type_is_another() {
    let alice = user("alice");
    let (room, other) = (alice.create_room(json!({})), alice.create_room(json!({})));
    let first = alice.send_as(&room, "m.room.message", "t1", message("x")).ok()["event_id"].clone();
    assert_ne!(alice.send_as(&other, "m.room.message", "t1", message("x")).ok()["event_id"], first);
    assert_ne!(alice.send_as(&room, "test.other", "t1", json!({})).ok()["event_id"], first);
}

#[test]
fn the_same_transaction_of_another_device_is_another() {
    let alice = user("alice");
    let phone = alice.log_in_again();
    let room = alice.create_room(json!({}));
    let first = alice.send_as(&room, "m.room.message", "t1", message("x")).ok();
    assert_ne!(phone.send_as(&room, "m.room.message", "t1", message("x")).ok(), first);
}

#[test]
fn a_transaction_is_the_devices_also_after_a_refresh() {
    let phone = user("alice").log_in_with(json!({ "refresh_token": true }));
    let room = phone.create_room(json!({}));
    let first = phone.send_as(&room, "m.room.message", "t1", message("x")).ok();
    let answer = server().anyone().post("v3/refresh", json!({ "refresh_token": phone.refresh_token() })).ok();
    let phone = phone.with_token(&text(&answer["access_token"]));
    assert_eq!(phone.send_as(&room, "m.room.message", "t1", message("x")).ok(), first);
}

#[test]
fn a_transaction_is_carried_out_once_also_across_a_restart() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let room = alice.create_room(json!({}));
    let first = alice.send_as(&room, "m.room.message", "t1", message("x")).ok();
    server.kill();
    server.start_again();
    assert_eq!(alice.send_as(&room, "m.room.message", "t1", message("x")).ok(), first);
    assert_eq!(bodies(&array(&alice.messages(&room, "dir=b")["chunk"])), ["x"]);
}

#[test]
fn the_sender_sees_the_transaction_and_others_do_not() {
    let (alice, bob, room) = two_in_a_room();
    let event = text(&alice.send_as(&room, "m.room.message", "t1", message("x")).ok()["event_id"]);
    assert_eq!(alice.event(&room, &event).ok()["unsigned"]["transaction_id"], "t1");
    assert!(bob.event(&room, &event).ok()["unsigned"].get("transaction_id").is_none());
    let phone = alice.log_in_again();
    assert!(phone.event(&room, &event).ok()["unsigned"].get("transaction_id").is_none());
}

#[test]
fn the_transaction_stands_in_the_senders_sync() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let since = alice.now();
    let event = text(&alice.send_as(&room, "m.room.message", "t1", message("x")).ok()["event_id"]);
    let answer = alice.sync_until_event(&since, &room, &event);
    assert_eq!(timeline(&answer, &room)[0]["unsigned"]["transaction_id"], "t1");
}

#[test]
fn an_event_that_is_too_large_is_refused() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let answer = alice.try_send(&room, "m.room.message", message(&"x".repeat(70_000)));
    answer.refused(413, "M_TOO_LARGE");
    let answer = alice.try_set_state(&room, "test.large", "", json!({ "x": "x".repeat(70_000) }));
    answer.refused(413, "M_TOO_LARGE");
    alice.send_text(&room, &"x".repeat(60_000));
}

#[test]
fn a_type_or_state_key_that_is_too_long_is_refused() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let long = "x".repeat(256);
    assert!(matches!(alice.try_send(&room, &long, json!({})).status(), 400 | 413));
    assert!(matches!(alice.try_set_state(&room, "test.key", &long, json!({})).status(), 400 | 413));
    alice.set_state(&room, "test.key", &"x".repeat(255), json!({}));
}

#[test]
fn numbers_that_are_not_canonical_are_refused() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    for number in ["1.5", "9007199254740992", "-9007199254740992", "1e3", "NaN"] {
        let body = format!("{{\"n\": {number}}}");
        let path = Client::room_path(&room, &format!("send/test.number/{}", alice.transaction()));
        let answer = alice.send_bytes(Method::PUT, &path, &[], body);
        assert_eq!(answer.status(), 400, "{number}: {}", answer.describe());
    }
    alice.send(&room, "test.number", json!({ "n": 9_007_199_254_740_991_i64 }));
}

#[test]
fn nobody_sends_to_a_room_that_is_not_there() {
    let answer = user("alice").try_send("!nothing:here.test", "m.room.message", message("x"));
    assert!(matches!(answer.status(), 403 | 404), "{}", answer.describe());
}

#[test]
fn state_cannot_be_sent_as_a_message_by_its_endpoint() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    alice.send(&room, "m.room.topic", json!({ "topic": "no state" }));
    alice.state(&room, "m.room.topic", "").refused(404, "M_NOT_FOUND");
}

// ---- redactions

#[test]
fn a_redacted_event_has_lost_its_content_and_says_why() {
    let (alice, bob, room) = two_in_a_room();
    let event = bob.send_text(&room, "oops");
    let redaction = text(&bob.try_redact(&room, &event, "a slip").ok()["event_id"]);
    let read = alice.event(&room, &event).ok();
    assert_eq!(read["content"], json!({}));
    let because = &read["unsigned"]["redacted_because"];
    assert_eq!(because["event_id"], redaction);
    assert_eq!(because["content"]["reason"], "a slip");
}

#[test]
fn a_redaction_shows_in_sync_and_names_what_it_redacts() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "oops");
    let since = bob.now();
    let redaction = alice.redact(&room, &event);
    let answer = bob.sync_until_event(&since, &room, &redaction);
    let shown = timeline(&answer, &room).pop().unwrap();
    assert_eq!(shown["type"], "m.room.redaction");
    assert!(shown["redacts"] == event || shown["content"]["redacts"] == event, "{shown}");
}

#[test]
fn only_with_the_power_others_messages_are_redacted() {
    let (alice, bob, room) = two_in_a_room();
    let (hers, his) = (alice.send_text(&room, "hers"), bob.send_text(&room, "his"));
    bob.try_redact(&room, &hers, "").refused(403, "M_FORBIDDEN");
    alice.redact(&room, &his);
}

#[test]
fn redactions_are_idempotent_by_transaction() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "oops");
    let path = Client::room_path(&room, &format!("redact/{}/r1", enc(&event)));
    let first = alice.put(&path, json!({})).ok();
    assert_eq!(alice.put(&path, json!({})).ok(), first);
}

#[test]
fn what_is_redacted_of_a_member_event_is_not_its_membership() {
    let (alice, bob, room) = two_in_a_room();
    bob.put(&format!("v3/profile/{}/displayname", bob.id_in_path()), json!({ "displayname": "Bob" })).done();
    let event =
        bob.get(&Client::room_path(&room, &format!("state/m.room.member/{}?format=event", bob.id_in_path())));
    alice.redact(&room, &text(&event.ok()["event_id"]));
    let member = alice.state(&room, "m.room.member", bob.id()).ok();
    assert_eq!(member, json!({ "membership": "join" }));
}

#[test]
fn a_redaction_of_something_that_is_not_there_is_refused() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let answer = alice.try_redact(&room, "$nothing", "");
    assert!(matches!(answer.status(), 400 | 403 | 404), "{}", answer.describe());
}

#[test]
fn a_redacted_message_is_not_in_history_search_or_relations() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "xylophone");
    alice.redact(&room, &event);
    let chunk = array(&alice.messages(&room, "dir=b&limit=10")["chunk"]);
    assert!(bodies(&chunk).is_empty());
    let search = json!({ "search_categories": { "room_events": { "search_term": "xylophone" } } });
    let found = alice.post("v3/search", search).ok();
    assert_eq!(found["search_categories"]["room_events"]["count"], 0);
}
