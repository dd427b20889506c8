//! Memberships: joining, inviting, knocking, leaving, forgetting, kicking, banning (specification: room membership).

use super::*;

#[test]
fn a_public_room_is_joined_by_id_and_by_alias() {
    let (alice, bob) = two_users();
    let name = format!("den{}", alice.localpart());
    let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": name }));
    assert_eq!(bob.try_join(&format!("#{name}:here.test")).ok()["room_id"], room);
    let carol = user("carol");
    assert_eq!(carol.post(&Client::room_path(&room, "join"), json!({})).ok()["room_id"], room);
}

#[test]
fn joining_twice_changes_nothing() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    bob.join(&room);
    let before = alice.messages(&room, "dir=b&limit=1")["chunk"][0]["event_id"].clone();
    bob.join(&room);
    assert_eq!(alice.messages(&room, "dir=b&limit=1")["chunk"][0]["event_id"], before);
}

#[test]
fn a_join_may_say_why() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    bob.post(&format!("v3/join/{}", enc(&room)), json!({ "reason": "for the tea" })).done();
    assert_eq!(alice.state(&room, "m.room.member", bob.id()).ok()["reason"], "for the tea");
}

#[test]
fn a_join_carries_the_profile() {
    let (alice, bob) = two_users();
    bob.put(&format!("v3/profile/{}/displayname", bob.id_in_path()), json!({ "displayname": "Bob" })).done();
    let room = alice.create_public_room();
    bob.join(&room);
    assert_eq!(alice.state(&room, "m.room.member", bob.id()).ok()["displayname"], "Bob");
}

#[test]
fn a_private_room_cannot_be_joined_without_an_invitation() {
    let (alice, bob) = two_users();
    bob.try_join(&alice.create_room(json!({}))).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_room_that_is_not_there_cannot_be_joined() {
    let alice = user("alice");
    assert!(matches!(alice.try_join("!nothing:here.test").status(), 403 | 404));
    alice.try_join("#nothing-at-all:here.test").refused(404, "M_NOT_FOUND");
}

#[test]
fn the_invited_join() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({}));
    alice.invite(&room, &bob);
    assert_eq!(alice.membership_of(&room, &bob), "invite");
    bob.join(&room);
    assert_eq!(alice.membership_of(&room, &bob), "join");
}

#[test]
fn an_invitation_may_say_why() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({}));
    let body = json!({ "user_id": bob.id(), "reason": "tea" });
    alice.post(&Client::room_path(&room, "invite"), body).done();
    assert_eq!(alice.state(&room, "m.room.member", bob.id()).ok()["reason"], "tea");
}

#[test]
fn an_invitation_shows_in_sync_with_the_inviter() {
    let (alice, bob) = two_users();
    let since = bob.now();
    let room = alice.create_room(json!({ "name": "The Den" }));
    alice.invite(&room, &bob);
    let answer = bob.sync_until(&since, |answer| answer["rooms"]["invite"].get(&room).is_some());
    let events = events_of(&answer["rooms"]["invite"][&room]["invite_state"]);
    for kind in ["m.room.create", "m.room.join_rules", "m.room.name", "m.room.member"] {
        assert!(events.iter().any(|event| event["type"] == kind), "{kind}");
    }
    // Stripped; only the creation is shown whole, as the id of a version 12 room is made of it.
    let whole = |event: &&Value| event["type"] != "m.room.create" && event.get("event_id").is_some();
    assert_eq!(events.iter().find(whole), None);
}

#[test]
fn members_cannot_be_invited_again() {
    let (alice, bob, room) = two_in_a_room();
    alice.about_member(&room, "invite", bob.id()).refused(403, "M_FORBIDDEN");
    alice.about_member(&room, "invite", alice.id()).refused(403, "M_FORBIDDEN");
}

#[test]
fn strangers_cannot_invite() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    bob.about_member(&room, "invite", user("carol").id()).refused(403, "M_FORBIDDEN");
}

#[test]
fn without_the_power_members_cannot_invite() {
    let (alice, bob, room) = two_in_a_room();
    alice.change_power_levels(&room, |levels| levels["invite"] = 50.into());
    bob.about_member(&room, "invite", user("carol").id()).refused(403, "M_FORBIDDEN");
}

#[test]
fn an_invitation_is_declined() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({}));
    alice.invite(&room, &bob);
    let since = bob.now();
    bob.leave(&room);
    assert_eq!(alice.membership_of(&room, &bob), "leave");
    bob.sync_until(&since, |answer| answer["rooms"]["leave"].get(&room).is_some());
    assert!(bob.sync(None)["rooms"]["invite"].get(&room).is_none());
}

#[test]
fn an_invitation_is_declined_also_when_everybody_has_left() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({ "invite": [bob.id()] }));
    alice.leave(&room);
    bob.leave(&room);
    assert!(bob.sync(None)["rooms"]["invite"].get(&room).is_none());
}

#[test]
fn an_invitation_is_taken_back_by_a_kick() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({ "invite": [bob.id()] }));
    alice.kick(&room, &bob);
    bob.try_join(&room).refused(403, "M_FORBIDDEN");
}

#[test]
fn whoever_left_can_be_invited_again() {
    let (alice, bob, room) = two_in_a_room();
    bob.leave(&room);
    alice.invite(&room, &bob);
    bob.join(&room);
    assert_eq!(alice.membership_of(&room, &bob), "join");
}

#[test]
fn the_creator_can_leave_and_be_invited_back() {
    let (alice, bob) = two_users();
    let room = alice.create_room_with(&[&bob]);
    alice.change_power_levels(&room, |levels| levels["invite"] = 0.into());
    alice.leave(&room);
    bob.invite(&room, &alice);
    alice.join(&room);
}

#[test]
fn a_leave_may_say_why() {
    let (alice, bob, room) = two_in_a_room();
    bob.post(&Client::room_path(&room, "leave"), json!({ "reason": "no tea" })).done();
    assert_eq!(alice.state(&room, "m.room.member", bob.id()).ok()["reason"], "no tea");
}

#[test]
fn whoever_left_cannot_send() {
    let (_, bob, room) = two_in_a_room();
    bob.leave(&room);
    let answer = bob.try_send(&room, "m.room.message", json!({ "msgtype": "m.text", "body": "x" }));
    answer.refused(403, "M_FORBIDDEN");
}

#[test]
fn whoever_was_never_there_cannot_leave() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    let answer = bob.post(&Client::room_path(&room, "leave"), json!({}));
    assert!(matches!(answer.status(), 403 | 404), "{}", answer.describe());
}

// ---- kicks and bans

#[test]
fn a_kick_puts_a_member_out_with_a_reason() {
    let (alice, bob, room) = two_in_a_room();
    let body = json!({ "user_id": bob.id(), "reason": "spilled tea" });
    alice.post(&Client::room_path(&room, "kick"), body).done();
    let member = alice.state(&room, "m.room.member", bob.id()).ok();
    assert_eq!((&member["membership"], &member["reason"]), (&json!("leave"), &json!("spilled tea")));
    let since = bob.sync(None);
    assert!(since["rooms"]["join"].get(&room).is_none());
}

#[test]
fn without_the_power_nobody_kicks_or_bans() {
    let (alice, bob, room) = two_in_a_room();
    for what in ["kick", "ban"] {
        bob.about_member(&room, what, alice.id()).refused(403, "M_FORBIDDEN");
    }
}

#[test]
fn equals_do_not_kick_each_other() {
    let (alice, bob, room) = two_in_a_room();
    let carol = user("carol");
    alice.invite(&room, &carol);
    carol.join(&room);
    alice.change_power_levels(&room, |levels| {
        levels["users"][bob.id()] = 50.into();
        levels["users"][carol.id()] = 50.into();
    });
    bob.about_member(&room, "kick", carol.id()).refused(403, "M_FORBIDDEN");
}

#[test]
fn who_is_not_there_cannot_be_kicked() {
    let (alice, bob, room) = two_in_a_room();
    alice.about_member(&room, "kick", user("carol").id()).refused(403, "M_FORBIDDEN");
    bob.leave(&room);
    alice.about_member(&room, "kick", bob.id()).refused(403, "M_FORBIDDEN");
}

#[test]
fn the_kicked_can_join_a_public_room_again() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    bob.join(&room);
    alice.kick(&room, &bob);
    bob.join(&room);
}

#[test]
fn the_banned_cannot_join_nor_be_invited() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    bob.join(&room);
    alice.ban(&room, &bob);
    assert_eq!(alice.membership_of(&room, &bob), "ban");
    bob.try_join(&room).refused(403, "M_FORBIDDEN");
    alice.about_member(&room, "invite", bob.id()).refused(403, "M_FORBIDDEN");
}

#[test]
fn who_was_never_there_can_be_banned() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    alice.ban(&room, &bob);
    bob.try_join(&room).refused(403, "M_FORBIDDEN");
}

#[test]
fn the_unbanned_can_join_again() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    alice.ban(&room, &bob);
    alice.unban(&room, &bob);
    assert_eq!(alice.membership_of(&room, &bob), "leave");
    bob.join(&room);
}

#[test]
fn strangers_cannot_ban() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    bob.about_member(&room, "ban", alice.id()).refused(403, "M_FORBIDDEN");
}

// ---- knocking and restricted rooms

fn with_join_rule(alice: &Client, version: &str, rule: Value) -> String {
    alice.create_room(json!({ "room_version": version, "initial_state": [
        { "type": "m.room.join_rules", "state_key": "", "content": rule },
    ] }))
}

#[test]
fn a_knock_is_seen_by_the_members_and_answered_by_an_invitation() {
    let (alice, bob) = two_users();
    let room = with_join_rule(&alice, "11", json!({ "join_rule": "knock" }));
    let since = bob.now();
    assert_eq!(bob.try_knock(&room, "let me in").ok()["room_id"], room);
    let member = alice.state(&room, "m.room.member", bob.id()).ok();
    assert_eq!((&member["membership"], &member["reason"]), (&json!("knock"), &json!("let me in")));
    bob.sync_until(&since, |answer| answer["rooms"]["knock"].get(&room).is_some());
    alice.invite(&room, &bob);
    bob.join(&room);
}

#[test]
fn a_knock_is_taken_back_or_turned_down() {
    let (alice, bob) = two_users();
    let room = with_join_rule(&alice, "11", json!({ "join_rule": "knock" }));
    bob.try_knock(&room, "").done();
    bob.leave(&room);
    assert_eq!(alice.membership_of(&room, &bob), "leave");
    bob.try_knock(&room, "").done();
    alice.kick(&room, &bob);
    assert_eq!(alice.membership_of(&room, &bob), "leave");
}

#[test]
fn whoever_knocks_cannot_join() {
    let (alice, bob) = two_users();
    let room = with_join_rule(&alice, "11", json!({ "join_rule": "knock" }));
    bob.try_knock(&room, "").done();
    bob.try_join(&room).refused(403, "M_FORBIDDEN");
}

#[test]
fn rooms_that_do_not_say_so_cannot_be_knocked_at() {
    let (alice, bob) = two_users();
    bob.try_knock(&alice.create_room(json!({})), "").refused(403, "M_FORBIDDEN");
    bob.try_knock(&alice.create_public_room(), "").refused(403, "M_FORBIDDEN");
}

#[test]
fn members_and_the_banned_cannot_knock() {
    let (alice, bob) = two_users();
    let room = with_join_rule(&alice, "11", json!({ "join_rule": "knock" }));
    alice.try_knock(&room, "").refused(403, "M_FORBIDDEN");
    alice.ban(&room, &bob);
    bob.try_knock(&room, "").refused(403, "M_FORBIDDEN");
}

#[test]
fn a_restricted_room_takes_the_members_of_the_rooms_it_names() {
    let (alice, bob, space) = two_in_a_room();
    for version in ["8", "9", "10", "11", "12"] {
        let rule = json!({ "join_rule": "restricted", "allow": [
            { "type": "m.room_membership", "room_id": space },
        ] });
        let room = with_join_rule(&alice, version, rule);
        user("carol").try_join(&room).refused(403, "M_FORBIDDEN");
        bob.join(&room);
        let member = alice.state(&room, "m.room.member", bob.id()).ok();
        assert_eq!(member["join_authorised_via_users_server"], alice.id(), "version {version}");
    }
}

#[test]
fn a_restricted_room_takes_the_invited_too() {
    let (alice, bob) = two_users();
    let room = with_join_rule(&alice, "11", json!({ "join_rule": "restricted", "allow": [] }));
    bob.try_join(&room).refused(403, "M_FORBIDDEN");
    alice.invite(&room, &bob);
    bob.join(&room);
}

#[test]
fn a_room_can_be_both_restricted_and_open_to_knocks() {
    let (alice, bob, space) = two_in_a_room();
    let rule = json!({ "join_rule": "knock_restricted", "allow": [
        { "type": "m.room_membership", "room_id": space },
    ] });
    let room = with_join_rule(&alice, "11", rule);
    bob.join(&room);
    user("carol").try_knock(&room, "").done();
}

// ---- forgetting

#[test]
fn a_room_is_forgotten_only_after_leaving_it() {
    let (_, bob, room) = two_in_a_room();
    let answer = bob.post(&Client::room_path(&room, "forget"), json!({}));
    assert_eq!(answer.status(), 400, "{}", answer.describe());
    bob.leave(&room);
    bob.forget(&room);
}

#[test]
fn a_forgotten_room_cannot_be_read_any_more() {
    let (_, bob, room) = two_in_a_room();
    bob.leave(&room);
    bob.get(&Client::room_path(&room, "messages?dir=b")).done();
    bob.forget(&room);
    assert!(matches!(bob.get(&Client::room_path(&room, "messages?dir=b")).status(), 403 | 404));
}

#[test]
fn a_forgotten_room_is_not_in_a_first_sync() {
    let (_, bob, room) = two_in_a_room();
    bob.leave(&room);
    let filter = json!({ "room": { "include_leave": true } });
    assert!(bob.sync_filtered(None, &filter)["rooms"]["leave"].get(&room).is_some());
    bob.forget(&room);
    assert!(bob.sync_filtered(None, &filter)["rooms"]["leave"].get(&room).is_none());
}

#[test]
fn the_kicked_can_forget_and_be_invited_again() {
    let (alice, bob, room) = two_in_a_room();
    alice.kick(&room, &bob);
    bob.forget(&room);
    alice.invite(&room, &bob);
    bob.join(&room);
    assert!(array(&bob.messages(&room, "dir=b")["chunk"]).len() > 3);
}

// ---- who is there

#[test]
fn joined_members_have_names_and_are_told_to_members_only() {
    let (alice, bob, room) = two_in_a_room();
    bob.put(&format!("v3/profile/{}/displayname", bob.id_in_path()), json!({ "displayname": "Bob" })).done();
    let joined = alice.get(&Client::room_path(&room, "joined_members")).ok();
    assert_eq!(joined["joined"][bob.id()]["display_name"], "Bob");
    assert_eq!(joined["joined"].as_object().unwrap().len(), 2);
    bob.leave(&room);
    bob.get(&Client::room_path(&room, "joined_members")).refused(403, "M_FORBIDDEN");
}

#[test]
fn members_are_listed_by_membership() {
    let (alice, bob, room) = two_in_a_room();
    let carol = user("carol");
    alice.invite(&room, &carol);
    bob.leave(&room);
    let listed = |query: &str| {
        let chunk = array(&alice.get(&Client::room_path(&room, &format!("members{query}"))).ok()["chunk"]);
        let mut keys = fields(&chunk, "state_key");
        keys.sort();
        keys
    };
    assert_eq!(listed("?membership=join"), [alice.id()]);
    assert_eq!(listed("?membership=leave"), [bob.id()]);
    assert_eq!(listed("?not_membership=leave"), [alice.id(), carol.id()]);
    assert_eq!(listed("").len(), 3);
}

#[test]
fn members_are_listed_as_of_a_point_in_time() {
    let (alice, bob) = two_users();
    let room = alice.create_public_room();
    let then = alice.now();
    bob.join(&room);
    let path = Client::room_path(&room, &format!("members?at={}", enc(&then)));
    assert_eq!(fields(&array(&alice.get(&path).ok()["chunk"]), "state_key"), [alice.id()]);
}

#[test]
fn strangers_do_not_see_the_members() {
    let (_, _, room) = two_in_a_room();
    user("carol").get(&Client::room_path(&room, "members")).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_member_events_history_stands_in_unsigned() {
    let (alice, bob, room) = two_in_a_room();
    bob.leave(&room);
    let event = alice.messages(&room, "dir=b&limit=1")["chunk"][0].clone();
    assert_eq!(event["unsigned"]["prev_content"]["membership"], "join");
}
