//! Receipts, read markers, typing, presence (specification: receipts; fully read markers; typing notifications; presence).

use super::*;

fn ephemeral(answer: &Value, room: &str, kind: &str) -> Option<Value> {
    let events = events_of(&answer["rooms"]["join"][room]["ephemeral"]);
    events.into_iter().find(|event| event["type"] == kind)
}

fn receipt(who: &Client, room: &str, kind: &str, event: &str, body: Value) -> Answer {
    who.post(&Client::room_path(room, &format!("receipt/{kind}/{}", enc(event))), body)
}

#[test]
fn others_see_what_was_read() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    let since = alice.now();
    bob.read(&room, &event);
    let answer = alice.sync_until(&since, |answer| ephemeral(answer, &room, "m.receipt").is_some());
    let shown = ephemeral(&answer, &room, "m.receipt").unwrap();
    assert!(shown["content"][&event]["m.read"][bob.id()]["ts"].is_u64());
    assert!(shown.get("room_id").is_none());
}

#[test]
fn others_do_not_see_what_was_read_in_private() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    let since = alice.now();
    let own = bob.now();
    receipt(&bob, &room, "m.read.private", &event, json!({})).done();
    bob.sync_until(&own, |answer| {
        ephemeral(answer, &room, "m.receipt")
            .is_some_and(|shown| shown["content"][&event]["m.read.private"][bob.id()].is_object())
    });
    assert!(ephemeral(&alice.sync(Some(&since)), &room, "m.receipt").is_none());
}

#[test]
fn a_receipt_belongs_to_a_thread_or_to_the_main_timeline() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    let since = alice.now();
    receipt(&bob, &room, "m.read", &event, json!({ "thread_id": "main" })).done();
    let answer = alice.sync_until(&since, |answer| ephemeral(answer, &room, "m.receipt").is_some());
    let shown = ephemeral(&answer, &room, "m.receipt").unwrap();
    assert_eq!(shown["content"][&event]["m.read"][bob.id()]["thread_id"], "main");
    receipt(&bob, &room, "m.read", &event, json!({ "thread_id": "" })).refused(400, "M_INVALID_PARAM");
}

#[test]
fn of_two_receipts_for_one_event_the_one_for_all_of_the_room_is_shown() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    receipt(&bob, &room, "m.read", &event, json!({})).done();
    receipt(&bob, &room, "m.read", &event, json!({ "thread_id": "main" })).done();
    let answer = alice.sync(None);
    let shown = ephemeral(&answer, &room, "m.receipt").unwrap();
    let shown = &shown["content"][&event]["m.read"][bob.id()];
    assert!(shown["ts"].is_u64() && shown["thread_id"].is_null(), "{shown}");
}

#[test]
fn an_unknown_kind_of_receipt_is_refused() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    let answer = receipt(&bob.loose(), &room, "m.guessed", &event, json!({}));
    assert_eq!(answer.status(), 400, "{}", answer.describe());
}

#[test]
fn strangers_send_no_receipts() {
    let (alice, _, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    assert!(matches!(receipt(&user("carol"), &room, "m.read", &event, json!({})).status(), 403 | 404));
}

#[test]
fn the_fully_read_marker_is_account_data_of_the_room() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "x");
    let since = alice.now();
    let body = json!({ "m.fully_read": event, "m.read": event });
    alice.post(&Client::room_path(&room, "read_markers"), body).done();
    let answer = alice.sync_until(&since, |answer| answer["rooms"]["join"].get(&room).is_some());
    let data = events_of(&answer["rooms"]["join"][&room]["account_data"]);
    let marker = data.iter().find(|event| event["type"] == "m.fully_read").unwrap();
    assert_eq!(marker["content"]["event_id"], event);
}

#[test]
fn the_fully_read_marker_is_not_set_as_account_data() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let path = format!("v3/user/{}/rooms/{}/account_data/m.fully_read", alice.id_in_path(), enc(&room));
    assert_eq!(alice.put(&path, json!({ "event_id": "$x" })).status(), 405);
}

#[test]
fn others_see_who_types_and_when_they_stop() {
    let (alice, bob, room) = two_in_a_room();
    let since = alice.now();
    bob.typing(&room, true);
    let answer = alice.sync_until(&since, |answer| ephemeral(answer, &room, "m.typing").is_some());
    let shown = ephemeral(&answer, &room, "m.typing").unwrap();
    assert_eq!(shown["content"]["user_ids"], json!([bob.id()]));
    assert!(shown.get("room_id").is_none());
    let since = text(&answer["next_batch"]);
    bob.typing(&room, false);
    alice.sync_until(&since, |answer| {
        ephemeral(answer, &room, "m.typing").is_some_and(|shown| shown["content"]["user_ids"] == json!([]))
    });
}

#[test]
fn one_types_for_oneself_and_in_ones_rooms_only() {
    let (alice, bob, room) = two_in_a_room();
    let path = |of: &Client| Client::room_path(&room, &format!("typing/{}", of.id_in_path()));
    bob.put(&path(&alice), json!({ "typing": true, "timeout": 1000 })).refused(403, "M_FORBIDDEN");
    let carol = user("carol");
    carol.put(&path(&carol), json!({ "typing": true, "timeout": 1000 })).refused(403, "M_FORBIDDEN");
}

fn presence(of: &Client) -> String {
    format!("v3/presence/{}/status", of.id_in_path())
}

#[test]
fn presence_is_set_and_seen_by_who_shares_a_room() {
    let (alice, bob, _room) = two_in_a_room();
    let since = alice.now();
    bob.put(&presence(&bob), json!({ "presence": "unavailable", "status_msg": "tea" })).done();
    let answer = alice.sync_until(&since, |answer| {
        events_of(&answer["presence"])
            .iter()
            .any(|event| event["sender"] == bob.id() && event["content"]["presence"] == "unavailable")
    });
    let shown = events_of(&answer["presence"]).into_iter().find(|event| event["sender"] == bob.id()).unwrap();
    assert_eq!((&shown["type"], &shown["content"]["status_msg"]), (&json!("m.presence"), &json!("tea")));
    assert_eq!(alice.get(&presence(&bob)).ok()["presence"], "unavailable");
}

#[test]
fn presence_is_ones_own_to_set_and_not_for_strangers_to_see() {
    let (alice, bob) = two_users();
    alice.put(&presence(&bob), json!({ "presence": "online" })).refused(403, "M_FORBIDDEN");
    let answer = alice.get(&presence(&bob));
    assert!(matches!(answer.status(), 403 | 404), "{}", answer.describe());
}

#[test]
fn an_unknown_presence_is_refused() {
    let alice = user("alice");
    assert_eq!(alice.put(&presence(&alice), json!({ "presence": "asleep" })).status(), 400);
}

#[test]
fn where_presence_is_off_nobody_sees_any() {
    let server = Server::with(PROGRAM, &[("users.presence", "false")]);
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let _ = alice.create_room_with(&[&bob]);
    bob.put(&presence(&bob), json!({ "presence": "online" })).done();
    assert!(events_of(&alice.sync(None)["presence"]).is_empty());
}
