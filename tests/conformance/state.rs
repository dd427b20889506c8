//! State: reading and setting it, power levels (specification: getting events for a room; sending events; permissions).

use super::*;

#[test]
fn state_is_set_and_read_by_type_and_key() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    alice.set_state(&room, "test.thing", "a key/with ümlauts", json!({ "n": 1 }));
    assert_eq!(alice.state(&room, "test.thing", "a key/with ümlauts").ok(), json!({ "n": 1 }));
    alice.state(&room, "test.thing", "another").refused(404, "M_NOT_FOUND");
}

#[test]
fn an_empty_key_may_be_left_out_with_or_without_the_slash() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    alice.put(&Client::room_path(&room, "state/m.room.name"), json!({ "name": "one" })).done();
    assert_eq!(alice.get(&Client::room_path(&room, "state/m.room.name/")).ok()["name"], "one");
    alice.put(&Client::room_path(&room, "state/m.room.name/"), json!({ "name": "two" })).done();
    assert_eq!(alice.get(&Client::room_path(&room, "state/m.room.name")).ok()["name"], "two");
}

#[test]
fn state_can_be_asked_for_as_an_event() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "name": "The Den" }));
    let event = alice.get(&Client::room_path(&room, "state/m.room.name/?format=event")).ok();
    assert_eq!((&event["type"], &event["sender"]), (&json!("m.room.name"), &json!(alice.id())));
    assert_eq!(event["content"]["name"], "The Den");
}

#[test]
fn the_newest_state_counts_and_names_what_it_replaced() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let first = alice.set_state(&room, "m.room.name", "", json!({ "name": "one" }));
    let second = alice.set_state(&room, "m.room.name", "", json!({ "name": "two" }));
    let event = alice.event(&room, &second).ok();
    assert_eq!(event["unsigned"]["replaces_state"], first);
    assert_eq!(event["unsigned"]["prev_content"]["name"], "one");
}

#[test]
fn setting_the_same_state_again_is_the_same_event() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let first = alice.set_state(&room, "m.room.name", "", json!({ "name": "one" }));
    assert_eq!(alice.set_state(&room, "m.room.name", "", json!({ "name": "one" })), first);
}

#[test]
fn all_state_has_one_event_for_each_type_and_key() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "name": "one" }));
    alice.set_state(&room, "m.room.name", "", json!({ "name": "two" }));
    let state = alice.all_state(&room);
    let names: Vec<_> = state.iter().filter(|event| event["type"] == "m.room.name").collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0]["content"]["name"], "two");
}

#[test]
fn strangers_neither_read_nor_set_state() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({}));
    bob.state(&room, "m.room.create", "").refused(403, "M_FORBIDDEN");
    bob.get(&Client::room_path(&room, "state")).refused(403, "M_FORBIDDEN");
    bob.try_set_state(&room, "test.thing", "", json!({})).refused(403, "M_FORBIDDEN");
}

#[test]
fn state_keys_that_are_user_ids_are_that_users_alone() {
    let (alice, bob, room) = two_in_a_room();
    alice.change_power_levels(&room, |levels| levels["events"]["test.own"] = 0.into());
    bob.set_state(&room, "test.own", bob.id(), json!({}));
    bob.try_set_state(&room, "test.own", alice.id(), json!({})).refused(403, "M_FORBIDDEN");
}

#[test]
fn ordinary_members_cannot_change_the_room() {
    let (_, bob, room) = two_in_a_room();
    for (kind, content) in [
        ("m.room.name", json!({ "name": "x" })),
        ("m.room.topic", json!({ "topic": "x" })),
        ("m.room.join_rules", json!({ "join_rule": "public" })),
        ("m.room.history_visibility", json!({ "history_visibility": "joined" })),
        ("m.room.server_acl", json!({ "allow": ["*"] })),
        ("test.anything", json!({})),
    ] {
        bob.try_set_state(&room, kind, "", content).refused(403, "M_FORBIDDEN");
    }
}

#[test]
fn the_creation_cannot_be_changed() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let answer = alice.try_set_state(&room, "m.room.create", "", json!({ "room_version": "11" }));
    assert!(matches!(answer.status(), 400 | 403), "{}", answer.describe());
}

#[test]
fn a_type_may_need_more_power_than_others() {
    let (alice, bob, room) = two_in_a_room();
    alice.change_power_levels(&room, |levels| levels["events"]["test.important"] = 30.into());
    bob.try_send(&room, "test.important", json!({})).refused(403, "M_FORBIDDEN");
    bob.send(&room, "test.ordinary", json!({}));
    alice.change_power_levels(&room, |levels| levels["users"][bob.id()] = 30.into());
    bob.send(&room, "test.important", json!({}));
}

#[test]
fn messages_may_need_power_by_default() {
    let (alice, bob, room) = two_in_a_room();
    alice.change_power_levels(&room, |levels| levels["events_default"] = 10.into());
    let answer = bob.try_send(&room, "m.room.message", json!({ "msgtype": "m.text", "body": "x" }));
    answer.refused(403, "M_FORBIDDEN");
    alice.send_text(&room, "hear ye");
}

#[test]
fn users_default_lowers_everybody_who_is_not_named() {
    let (alice, bob, room) = two_in_a_room();
    alice.change_power_levels(&room, |levels| levels["users_default"] = (-10).into());
    let answer = bob.try_send(&room, "m.room.message", json!({ "msgtype": "m.text", "body": "x" }));
    answer.refused(403, "M_FORBIDDEN");
}

#[test]
fn nobody_gives_more_power_than_they_have() {
    let (alice, bob, room) = two_in_a_room();
    alice.change_power_levels(&room, |levels| {
        levels["users"][bob.id()] = 50.into();
        levels["events"]["m.room.power_levels"] = 50.into();
    });
    let mut levels = bob.state(&room, "m.room.power_levels", "").ok();
    levels["users"][bob.id()] = 60.into();
    bob.try_set_state(&room, "m.room.power_levels", "", levels.clone()).refused(403, "M_FORBIDDEN");
    levels["users"][bob.id()] = 40.into();
    bob.set_state(&room, "m.room.power_levels", "", levels);
}

#[test]
fn nobody_lowers_whoever_has_as_much_power() {
    let alice = user("alice");
    let bob = user("bob");
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" }));
    bob.join(&room);
    alice.change_power_levels(&room, |levels| levels["users"][bob.id()] = 100.into());
    let mut levels = bob.state(&room, "m.room.power_levels", "").ok();
    levels["users"][alice.id()] = 0.into();
    bob.try_set_state(&room, "m.room.power_levels", "", levels).refused(403, "M_FORBIDDEN");
}

#[test]
fn power_levels_of_a_wrong_shape_are_refused() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "room_version": "11" }));
    for content in [json!({ "users": { "not an id": 5 } }), json!({ "ban": "50" }), json!({ "users": [] })] {
        let answer = alice.try_set_state(&room, "m.room.power_levels", "", content);
        assert!(matches!(answer.status(), 400 | 403), "{}", answer.describe());
    }
}

#[test]
fn one_event_is_read_by_members_only() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "tea");
    let read = bob.event(&room, &event).ok();
    assert_eq!((&read["content"]["body"], &read["room_id"]), (&json!("tea"), &json!(room)));
    let answer = user("carol").event(&room, &event);
    assert!(matches!(answer.status(), 403 | 404), "{}", answer.describe());
}

#[test]
fn an_event_that_is_not_there_or_elsewhere_is_not_found() {
    let alice = user("alice");
    let (room, other) = (alice.create_room(json!({})), alice.create_room(json!({})));
    alice.event(&room, "$nothing").refused(404, "M_NOT_FOUND");
    let event = alice.send_text(&other, "elsewhere");
    alice.event(&room, &event).refused(404, "M_NOT_FOUND");
}

#[test]
fn whoever_left_reads_the_state_as_it_was_then() {
    let (alice, bob) = two_users();
    let room = alice.create_room_with(&[&bob]);
    alice.set_state(&room, "m.room.name", "", json!({ "name": "before" }));
    bob.leave(&room);
    alice.set_state(&room, "m.room.name", "", json!({ "name": "after" }));
    assert_eq!(bob.state(&room, "m.room.name", "").ok()["name"], "before");
    let names = bob.all_state(&room).into_iter().find(|event| event["type"] == "m.room.name").unwrap();
    assert_eq!(names["content"]["name"], "before");
}

#[test]
fn a_canonical_alias_has_to_be_one_of_this_room() {
    let alice = user("alice");
    let (room, other) = (alice.create_room(json!({})), alice.create_room(json!({})));
    let alias = format!("#canon{}:here.test", alice.localpart());
    let set = |content: Value| alice.try_set_state(&room, "m.room.canonical_alias", "", content);
    set(json!({ "alias": alias })).refused(400, "M_BAD_ALIAS");
    alice.put(&format!("v3/directory/room/{}", enc(&alias)), json!({ "room_id": other })).done();
    set(json!({ "alias": alias })).refused(400, "M_BAD_ALIAS");
    set(json!({ "alt_aliases": [alias] })).refused(400, "M_BAD_ALIAS");
    alice.delete(&format!("v3/directory/room/{}", enc(&alias))).done();
    alice.put(&format!("v3/directory/room/{}", enc(&alias)), json!({ "room_id": room })).done();
    set(json!({ "alias": alias, "alt_aliases": [alias] })).done();
}

#[test]
fn a_canonical_alias_that_is_none_is_invalid() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    for content in [json!({ "alias": "not an alias" }), json!({ "alt_aliases": ["%alias"] })] {
        let answer = alice.try_set_state(&room, "m.room.canonical_alias", "", content);
        assert_eq!(answer.status(), 400, "{}", answer.describe());
    }
}
