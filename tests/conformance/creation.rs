//! Making rooms, and room versions (specification: creation; room versions).

use super::*;

fn state_of(alice: &Client, room: &str, kind: &str) -> Value {
    alice.state(room, kind, "").ok()
}

#[test]
fn a_room_begins_with_its_creation_its_creator_and_power_levels() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let chunk = array(&alice.messages(&room, "dir=f&limit=3")["chunk"]);
    let types = fields(&chunk, "type");
    assert_eq!(types, ["m.room.create", "m.room.member", "m.room.power_levels"]);
    assert_eq!(chunk[1]["content"]["membership"], "join");
}

#[test]
fn a_room_without_a_preset_is_private() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    assert_eq!(state_of(&alice, &room, "m.room.join_rules")["join_rule"], "invite");
    assert_eq!(state_of(&alice, &room, "m.room.history_visibility")["history_visibility"], "shared");
    assert_eq!(state_of(&alice, &room, "m.room.guest_access")["guest_access"], "can_join");
}

#[test]
fn a_public_chat_can_be_joined_and_takes_no_guests() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "preset": "public_chat" }));
    assert_eq!(state_of(&alice, &room, "m.room.join_rules")["join_rule"], "public");
    assert_eq!(state_of(&alice, &room, "m.room.history_visibility")["history_visibility"], "shared");
    let guests = alice.state(&room, "m.room.guest_access", "");
    assert!(guests.status() == 404 || guests["guest_access"] == "forbidden", "{}", guests.describe());
}

#[test]
fn a_room_visible_to_the_public_is_a_public_chat() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "visibility": "public" }));
    assert_eq!(state_of(&alice, &room, "m.room.join_rules")["join_rule"], "public");
    assert_eq!(alice.get(&format!("v3/directory/list/room/{}", enc(&room))).ok()["visibility"], "public");
}

#[test]
fn a_trusted_private_chat_gives_everybody_the_creators_power() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({
        "preset": "trusted_private_chat", "invite": [bob.id()], "room_version": "11",
    }));
    assert_eq!(state_of(&alice, &room, "m.room.power_levels")["users"][bob.id()], 100);
}

#[test]
fn in_version_12_a_trusted_private_chat_makes_everybody_a_creator() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({
        "preset": "trusted_private_chat", "invite": [bob.id()], "room_version": "12",
    }));
    let creators = state_of(&alice, &room, "m.room.create")["additional_creators"].clone();
    assert_eq!(creators, json!([bob.id()]));
}

#[test]
fn name_and_topic_become_state() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "name": "The Den", "topic": "Tea" }));
    assert_eq!(state_of(&alice, &room, "m.room.name"), json!({ "name": "The Den" }));
    assert_eq!(state_of(&alice, &room, "m.room.topic")["topic"], "Tea");
}

#[test]
fn a_topic_is_also_written_as_extensible_text() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "topic": "Tea" }));
    let topic = state_of(&alice, &room, "m.room.topic");
    let texts = array(&topic["m.topic"]["m.text"]);
    assert!(texts.iter().any(|text| text["body"] == "Tea"), "{topic}");
}

#[test]
fn initial_state_is_set() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "initial_state": [
        { "type": "m.room.topic", "state_key": "", "content": { "topic": "given" } },
        { "type": "test.thing", "state_key": "key", "content": { "a": 1 } },
    ] }));
    assert_eq!(state_of(&alice, &room, "m.room.topic")["topic"], "given");
    assert_eq!(alice.state(&room, "test.thing", "key").ok(), json!({ "a": 1 }));
}

#[test]
fn initial_state_wins_over_the_preset() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": [
        { "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" } },
    ] }));
    assert_eq!(state_of(&alice, &room, "m.room.history_visibility")["history_visibility"], "joined");
}

#[test]
fn a_topic_wins_over_initial_state() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "topic": "said", "initial_state": [
        { "type": "m.room.topic", "state_key": "", "content": { "topic": "given" } },
    ] }));
    assert_eq!(state_of(&alice, &room, "m.room.topic")["topic"], "said");
}

#[test]
fn the_state_key_of_initial_state_may_be_left_out() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "initial_state": [
        { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
    ] }));
    assert_eq!(state_of(&alice, &room, "m.room.encryption")["algorithm"], "m.megolm.v1.aes-sha2");
}

#[test]
fn creation_content_is_kept_but_does_not_choose_the_version() {
    let alice = user("alice");
    let room = alice.create_room(json!({
        "room_version": "11",
        "creation_content": { "m.federate": false, "room_version": "5", "test.more": 1 },
    }));
    let create = state_of(&alice, &room, "m.room.create");
    assert_eq!((&create["m.federate"], &create["test.more"]), (&json!(false), &json!(1)));
    assert_eq!(create["room_version"], "11");
}

#[test]
fn power_levels_can_be_overridden() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "power_level_content_override": { "invite": 77 } }));
    let levels = state_of(&alice, &room, "m.room.power_levels");
    assert_eq!(levels["invite"], 77);
    assert!(levels["events"].is_object());
}

#[test]
fn a_creator_who_overrides_power_levels_so_that_nothing_works_is_refused() {
    let body = json!({ "room_version": "11", "power_level_content_override": { "users": {}, "state_default": 100 } , "name": "x"});
    let answer = user("alice").post("v3/createRoom", body);
    assert!(matches!(answer.status(), 400 | 403), "{}", answer.describe());
}

#[test]
fn the_invited_are_invited_with_what_they_need_to_know() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({ "name": "The Den", "invite": [bob.id()], "is_direct": true }));
    let invite = bob.sync(None)["rooms"]["invite"][&room]["invite_state"].clone();
    let events = events_of(&invite);
    assert!(fields(&events, "type").contains(&"m.room.name".to_owned()));
    let own = events.iter().find(|event| event["state_key"] == bob.id()).unwrap();
    assert_eq!(own["content"]["is_direct"], true);
}

#[test]
fn an_alias_is_made_with_the_room() {
    let alice = user("alice");
    let name = format!("den{}", alice.localpart());
    let room = alice.create_room(json!({ "room_alias_name": name }));
    let alias = format!("#{name}:here.test");
    assert_eq!(alice.get(&format!("v3/directory/room/{}", enc(&alias))).ok()["room_id"], room);
    assert_eq!(state_of(&alice, &room, "m.room.canonical_alias")["alias"], alias);
}

#[test]
fn an_alias_in_use_is_refused_and_no_room_is_made() {
    let alice = user("alice");
    let body = json!({ "room_alias_name": format!("den{}", alice.localpart()) });
    alice.post("v3/createRoom", body.clone()).done();
    alice.post("v3/createRoom", body).refused(400, "M_ROOM_IN_USE");
    assert_eq!(array(&alice.get("v3/joined_rooms").ok()["joined_rooms"]).len(), 1);
}

#[test]
fn every_version_from_1_to_12_can_be_made_and_used() {
    let (alice, bob) = two_users();
    for version in 1..=12 {
        let version = version.to_string();
        let room = alice.create_room(json!({ "room_version": version, "preset": "public_chat" }));
        bob.join(&room);
        let event = bob.send_text(&room, "hello");
        bob.redact(&room, &event);
        assert_eq!(alice.event(&room, &event).ok()["content"], json!({}), "version {version}");
        let create = state_of(&bob, &room, "m.room.create");
        assert!(create["room_version"] == version || version == "1", "{create}");
    }
}

#[test]
fn up_to_version_10_the_creation_names_the_creator() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "room_version": "10" }));
    assert_eq!(state_of(&alice, &room, "m.room.create")["creator"], alice.id());
    let room = alice.create_room(json!({ "room_version": "11" }));
    assert!(state_of(&alice, &room, "m.room.create").get("creator").is_none());
}

#[test]
fn a_version_12_room_is_named_after_its_creation_event() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "room_version": "12" }));
    assert!(!room.contains(':'), "{room}");
    let create = alice.all_state(&room).into_iter().find(|event| event["type"] == "m.room.create").unwrap();
    assert_eq!(text(&create["event_id"])[1..], room[1..]);
}

#[test]
fn in_version_12_creators_stand_above_all_power_levels() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({ "room_version": "12", "preset": "public_chat" }));
    bob.join(&room);
    assert!(state_of(&alice, &room, "m.room.power_levels")["users"].get(alice.id()).is_none());
    alice.change_power_levels(&room, |levels| levels["users"][bob.id()] = 100.into());
    assert_eq!(bob.about_member(&room, "kick", alice.id()).status(), 403);
    alice.kick(&room, &bob);
}

#[test]
fn in_version_12_creators_cannot_be_given_a_power_level() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "room_version": "12" }));
    let mut levels = state_of(&alice, &room, "m.room.power_levels");
    levels["users"] = json!({ alice.id(): 100 });
    let answer = alice.try_set_state(&room, "m.room.power_levels", "", levels);
    assert!(matches!(answer.status(), 400 | 403), "{}", answer.describe());
}

#[test]
fn in_version_12_replacing_a_room_takes_150() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "room_version": "12" }));
    assert_eq!(state_of(&alice, &room, "m.room.power_levels")["events"]["m.room.tombstone"], 150);
}

#[test]
fn an_unknown_version_is_refused() {
    let answer = user("alice").post("v3/createRoom", json!({ "room_version": "ahead-of-its-time" }));
    answer.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
}

#[test]
fn a_version_that_is_a_number_is_refused() {
    user("alice").post("v3/createRoom", json!({ "room_version": 1 })).refused(400, "M_BAD_JSON");
}

#[test]
fn a_room_shows_in_the_creators_sync_and_list() {
    let alice = user("alice");
    let since = alice.now();
    let room = alice.create_room(json!({}));
    let answer = alice.sync_until(&since, |answer| answer["rooms"]["join"].get(&room).is_some());
    let types = fields(&timeline(&answer, &room), "type");
    assert!(types.contains(&"m.room.create".to_owned()), "{types:?}");
    assert_eq!(alice.get("v3/joined_rooms").ok()["joined_rooms"], json!([room]));
}

#[test]
fn guests_cannot_make_rooms() {
    let guest = server().register_guest();
    let answer = guest.post("v3/createRoom", json!({}));
    answer.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
}

#[test]
fn where_rooms_are_encrypted_by_default_private_ones_are() {
    let server = Server::with(PROGRAM, &[("rooms.encrypt_by_default", "private")]);
    let alice = server.register("alice");
    let private = alice.create_room(json!({ "preset": "private_chat" }));
    assert_eq!(state_of(&alice, &private, "m.room.encryption")["algorithm"], "m.megolm.v1.aes-sha2");
    let public = alice.create_room(json!({ "preset": "public_chat" }));
    alice.state(&public, "m.room.encryption", "").refused(404, "M_NOT_FOUND");
}

#[test]
fn the_operator_chooses_the_default_version() {
    let server = Server::with(PROGRAM, &[("rooms.default_version", "9")]);
    let alice = server.register("alice");
    let room = alice.create_room(json!({}));
    assert_eq!(state_of(&alice, &room, "m.room.create")["room_version"], "9");
    let capabilities = alice.get("v3/capabilities").ok();
    assert_eq!(capabilities["capabilities"]["m.room_versions"]["default"], "9");
}
