//! Simplified sliding sync (MSC4186) and its extensions.

use super::*;

fn sliding(who: &Client, query: &str, body: Value) -> Answer {
    who.post(&format!("unstable/org.matrix.simplified_msc3575/sync{query}"), body)
}

fn list(ranges: Value) -> Value {
    json!({ "lists": { "all": {
        "ranges": ranges, "timeline_limit": 5, "required_state": [["m.room.create", ""], ["m.room.name", ""]],
    } } })
}

fn on(answer: &Value) -> String {
    format!("?timeout=0&pos={}", enc(answer["pos"].as_str().unwrap()))
}

#[test]
fn a_window_shows_the_rooms_with_the_latest_messages() {
    let alice = user("alice");
    let rooms: Vec<String> = (0..3).map(|_| alice.create_room(json!({}))).collect();
    alice.send_text(&rooms[0], "latest");
    let answer = sliding(&alice, "", list(json!([[0, 1]]))).ok();
    assert_eq!(answer["lists"]["all"]["count"], 3);
    let shown = answer["rooms"].as_object().unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[&rooms[0]]["initial"], true);
    assert!(shown.contains_key(&rooms[2]));
}

#[test]
fn a_room_comes_with_timeline_state_name_and_counts() {
    let (alice, bob, room) = two_in_a_room();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "The Den" }));
    alice.send_text(&room, "x");
    let answer = sliding(&bob, "", list(json!([[0, 9]]))).ok();
    let shown = &answer["rooms"][&room];
    assert_eq!(shown["name"], "The Den");
    assert_eq!((&shown["joined_count"], &shown["invited_count"]), (&json!(2), &json!(0)));
    assert_eq!(bodies(&array(&shown["timeline"])), ["x"]);
    let mut kinds = fields(&array(&shown["required_state"]), "type");
    kinds.sort();
    assert_eq!(kinds, ["m.room.create", "m.room.name"]);
    assert!(shown["bump_stamp"].is_u64());
}

#[test]
fn afterwards_only_what_is_new_is_shown() {
    let (alice, bob, room) = two_in_a_room();
    let first = sliding(&bob, "", list(json!([[0, 9]]))).ok();
    assert_eq!(sliding(&bob, &on(&first), list(json!([[0, 9]]))).ok()["rooms"], json!({}));
    alice.send_text(&room, "new");
    let answer = sliding(&bob, &on(&first), list(json!([[0, 9]]))).ok();
    assert_eq!(bodies(&array(&answer["rooms"][&room]["timeline"])), ["new"]);
    assert_ne!(answer["rooms"][&room]["initial"], true);
}

#[test]
fn a_position_that_is_not_known_begins_anew() {
    let alice = user("alice");
    sliding(&alice, "?pos=nonsense", list(json!([[0, 9]]))).refused(400, "M_UNKNOWN_POS");
}

#[test]
fn a_room_is_subscribed_to_by_name() {
    let alice = user("alice");
    let (room, other) = (alice.create_room(json!({})), alice.create_room(json!({})));
    let body =
        json!({ "room_subscriptions": { &room: { "timeline_limit": 1, "required_state": [["*", "*"]] } } });
    let answer = sliding(&alice, "", body).ok();
    assert!(answer["rooms"].get(&room).is_some() && answer["rooms"].get(&other).is_none());
    assert!(array(&answer["rooms"][&room]["required_state"]).len() > 3);
}

#[test]
fn strangers_subscribe_to_nothing() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({}));
    let body = json!({ "room_subscriptions": { &room: { "timeline_limit": 1, "required_state": [] } } });
    assert!(sliding(&bob, "", body).ok()["rooms"].get(&room).is_none());
}

#[test]
fn an_invitation_is_shown_stripped() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({ "name": "The Den", "invite": [bob.id()] }));
    let answer = sliding(&bob, "", list(json!([[0, 9]]))).ok();
    let kinds = fields(&array(&answer["rooms"][&room]["invite_state"]), "type");
    assert!(kinds.contains(&"m.room.name".to_owned()), "{answer}");
}

#[test]
fn lists_are_filtered() {
    let alice = user("alice");
    let _ = alice.create_room(json!({}));
    let space = alice.create_room(json!({ "creation_content": { "type": "m.space" } }));
    let mut body = list(json!([[0, 9]]));
    body["lists"]["all"]["filters"] = json!({ "room_types": ["m.space"] });
    let answer = sliding(&alice, "", body).ok();
    assert_eq!(answer["lists"]["all"]["count"], 1);
    assert!(answer["rooms"].get(&space).is_some());
}

#[test]
fn the_extensions_tell_what_they_are_asked_for() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    alice.read(&room, &event);
    alice.typing(&room, true);
    let data = format!("v3/user/{}/account_data/test.kept", bob.id_in_path());
    bob.put(&data, json!({ "n": 1 })).done();
    let messages = json!({ "messages": { bob.id(): { bob.device(): { "n": 1 } } } });
    alice.put("v3/sendToDevice/test.message/sliding", messages).done();
    let mut body = list(json!([[0, 9]]));
    let on = json!({ "enabled": true });
    body["extensions"] =
        json!({ "to_device": on, "e2ee": on, "account_data": on, "receipts": on, "typing": on });
    let told = sliding(&bob, "", body.clone()).ok()["extensions"].clone();
    assert_eq!(told["to_device"]["events"][0]["content"]["n"], 1);
    assert!(told["e2ee"]["device_one_time_keys_count"].is_object());
    assert!(fields(&array(&told["account_data"]["global"]), "type").contains(&"test.kept".to_owned()));
    assert!(told["receipts"]["rooms"][&room]["content"][&event]["m.read"][alice.id()].is_object());
    assert_eq!(told["typing"]["rooms"][&room]["content"]["user_ids"], json!([alice.id()]));
    // What was acknowledged does not come again.
    body["extensions"] =
        json!({ "to_device": { "enabled": true, "since": told["to_device"]["next_batch"] } });
    assert_eq!(sliding(&bob, "", body).ok()["extensions"]["to_device"]["events"], json!([]));
}

#[test]
fn a_waiting_request_is_answered_when_something_happens() {
    let (alice, bob, room) = two_in_a_room();
    let first = sliding(&bob, "", list(json!([[0, 9]]))).ok();
    let waiting = std::thread::spawn({
        let path = format!("?timeout=30000&pos={}", enc(first["pos"].as_str().unwrap()));
        move || sliding(&bob, &path, list(json!([[0, 9]]))).ok()
    });
    alice.send_text(&room, "now");
    assert_eq!(bodies(&array(&waiting.join().unwrap()["rooms"][&room]["timeline"])), ["now"]);
}
