//! Room upgrades, guests, rate limits (specification: room upgrades; guest access; rate limiting).

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
    assert_eq!(alice.state(&new, "m.room.canonical_alias", "").ok()["alias"], format!("#{name}:here.test"));
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

// ---- guests

#[test]
fn guests_register_and_are_told_that_they_are_guests() {
    let guest = server().register_guest();
    assert_eq!(guest.get("v3/account/whoami").ok()["is_guest"], true);
    assert!(!guest.device().is_empty());
}

#[test]
fn guests_join_rooms_that_take_them_and_no_others() {
    let alice = user("alice");
    let guest = server().register_guest();
    let open = alice.create_room(json!({ "preset": "public_chat", "initial_state": [
        { "type": "m.room.guest_access", "state_key": "", "content": { "guest_access": "can_join" } },
    ] }));
    guest.join(&open);
    guest.send_text(&open, "hello");
    let answer = guest.try_join(&alice.create_public_room());
    assert_eq!(answer.status(), 403, "{}", answer.describe());
}

#[test]
fn where_guests_are_not_taken_none_registers() {
    let server = Server::with(PROGRAM, &[("registration.guests", "false")]);
    let answer = server.anyone().post("v3/register?kind=guest", json!({}));
    answer.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
}

// ---- rate limits

/// Does something until it is refused; what it is refused with.
fn until_refused(mut what: impl FnMut() -> Answer) -> Answer {
    (0..100).map(|_| what()).find(|answer| answer.status() == 429).expect("a limit")
}

fn limited(key: &str) -> Server {
    let burst = format!("rate_limits.{key}_burst");
    let rate = format!("rate_limits.{key}_per_second");
    Server::with(PROGRAM, &[("rate_limits.enabled", "true"), (&burst, "3"), (&rate, "0.01")])
}

#[test]
fn too_many_messages_are_refused_with_the_time_to_wait() {
    let server = limited("message");
    let alice = server.register("alice");
    let room = alice.create_room(json!({}));
    let answer = until_refused(|| alice.try_send(&room, "test.event", json!({})));
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(answer.refused(429, "M_LIMIT_EXCEEDED")["retry_after_ms"].as_u64().unwrap() > 0);
    // The limit is one user's.
    let bob = server.register("bob");
    bob.send_text(&bob.create_room(json!({})), "unhindered");
}

#[test]
fn too_many_attempts_to_log_in_are_refused_though_the_password_is_right() {
    let server = limited("login");
    let alice = server.register("alice");
    let body = json!({
        "type": "m.login.password", "password": "wrong",
        "identifier": { "type": "m.id.user", "user": alice.id() },
    });
    until_refused(|| server.anyone().post("v3/login", body.clone())).refused(429, "M_LIMIT_EXCEEDED");
}

#[test]
fn too_many_registrations_invitations_and_rooms_are_refused() {
    let server = limited("registration");
    let body = json!({ "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    until_refused(|| server.anyone().post("v3/register", body.clone())).refused(429, "M_LIMIT_EXCEEDED");
    let server = limited("join");
    let alice = server.register("alice");
    until_refused(|| alice.post("v3/createRoom", json!({}))).refused(429, "M_LIMIT_EXCEEDED");
    let server = limited("invite");
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let room = alice.create_room(json!({}));
    let answer = until_refused(|| {
        let answer = alice.about_member(&room, "invite", bob.id());
        let _ = alice.about_member(&room, "kick", bob.id());
        answer
    });
    answer.refused(429, "M_LIMIT_EXCEEDED");
}
