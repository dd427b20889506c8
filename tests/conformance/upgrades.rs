//! Room upgrades (specification: room upgrades).

use super::*;

fn upgrade(alice: &Client, room: &str, version: &str) -> String {
    let body = json!({ "new_version": version });
    text(&alice.post(&Client::room_path(room, "upgrade"), body).ok()["replacement_room"])
}

#[test]
fn an_upgraded_room_points_to_its_successor_and_back() {
    let alice = user("alice");
    let old = alice.create_room(json!({ "room_version": "10" }));
    let new = upgrade(&alice, &old, "11");
    assert_eq!(alice.state(&old, "m.room.tombstone", "").ok()["replacement_room"], new);
    let create = alice.state(&new, "m.room.create", "").ok();
    assert_eq!(create["predecessor"]["room_id"], old);
    assert_eq!(create["room_version"], "11");
}

#[test]
fn an_upgrade_takes_along_what_makes_the_room() {
    let (alice, bob) = two_users();
    let old = alice.create_room(json!({
        "room_version": "10", "preset": "public_chat", "name": "The Den", "topic": "tea",
        "power_level_content_override": { "users": { alice.id(): 100, bob.id(): 50 } },
    }));
    alice.set_state(&old, "m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2" }));
    alice.ban(&old, &user("carol"));
    let new = upgrade(&alice, &old, "11");
    for kind in
        ["m.room.name", "m.room.topic", "m.room.join_rules", "m.room.encryption", "m.room.history_visibility"]
    {
        assert_eq!(alice.state(&new, kind, "").ok(), alice.state(&old, kind, "").ok(), "{kind}");
    }
    assert_eq!(alice.state(&new, "m.room.power_levels", "").ok()["users"][bob.id()], 50);
    let banned = array(&alice.get(&Client::room_path(&new, "members?membership=ban")).ok()["chunk"]);
    assert_eq!(banned.len(), 1);
}

#[test]
fn an_upgrade_moves_the_aliases() {
    let alice = user("alice");
    let name = format!("moved{}", alice.localpart());
    let old = alice.create_room(json!({ "room_version": "10", "room_alias_name": name }));
    let new = upgrade(&alice, &old, "11");
    let found = alice.get(&format!("v3/directory/room/{}", enc(&format!("#{name}:here.test")))).ok();
    assert_eq!(found["room_id"], new);
}

#[test]
fn nobody_speaks_in_a_room_that_was_upgraded_without_the_power() {
    let (alice, bob) = two_users();
    let old = alice.create_room(json!({ "room_version": "10", "preset": "public_chat" }));
    bob.join(&old);
    upgrade(&alice, &old, "11");
    let answer = bob.try_send(&old, "m.room.message", json!({ "msgtype": "m.text", "body": "x" }));
    answer.refused(403, "M_FORBIDDEN");
}

#[test]
fn only_with_the_power_and_to_a_known_version_a_room_is_upgraded() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({ "room_version": "10", "preset": "public_chat" }));
    bob.join(&room);
    let path = Client::room_path(&room, "upgrade");
    bob.post(&path, json!({ "new_version": "11" })).refused(403, "M_FORBIDDEN");
    alice.post(&path, json!({ "new_version": "none" })).refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    alice.state(&room, "m.room.tombstone", "").refused(404, "M_NOT_FOUND");
}

#[test]
fn an_upgrade_to_version_12_makes_the_upgrader_the_creator() {
    let alice = user("alice");
    let old = alice.create_room(json!({ "room_version": "11" }));
    let new = upgrade(&alice, &old, "12");
    assert!(!new.contains(':'));
    assert!(alice.state(&new, "m.room.power_levels", "").ok()["users"].get(alice.id()).is_none());
    alice.set_state(&new, "m.room.name", "", json!({ "name": "still mine" }));
}
