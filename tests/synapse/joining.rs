//! Coming into rooms of the other server.

use crate::sides::{
    Pair, Side, ids, join_by, sees_event, sees_membership, shared_room, talk, try_join_by, until, walk,
};
use postern_world::{Client, enc};
use serde_json::json;

pub fn a_public_room_is_joined_by_id_or_alias(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = shared_room(&alice, &bob);
    talk(&alice, &bob, &room);

    let name = format!("square-{}", alice.localpart());
    let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": name }));
    let alias = format!("#{name}:{}", alice.server_name());
    let found = bob.get(&format!("v3/directory/room/{}", enc(&alias)));
    assert_eq!(found["room_id"], room.as_str(), "{}", found.describe());
    assert_eq!(bob.try_join(&alias).ok()["room_id"], room.as_str());
    talk(&bob, &alice, &room);
}

/// A room nobody but its maker is in, and that `bob` is invited to, as he sees.
fn invited(alice: &Client, bob: &Client) -> String {
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "secret" }));
    let since = bob.now();
    alice.invite(&room, bob);
    let seen = bob.sync_until(&since, |answer| answer["rooms"]["invite"][&room].is_object());
    let told = seen["rooms"]["invite"][&room]["invite_state"].to_string();
    assert!(told.contains("secret") && told.contains("m.room.create"), "{told}");
    room
}

pub fn somebody_is_invited_and_comes(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = invited(&alice, &bob);
    bob.join(&room);
    sees_membership(&alice, &room, &bob, "join");
    talk(&alice, &bob, &room);
    // A third, invited by somebody who is not of the room's first server.
    let carol = pair.here("carol");
    alice.change_power_levels(&room, |levels| levels["invite"] = json!(0));
    until("Bob may invite", || bob.about_member(&room, "invite", carol.id()).status() == 200);
    until("Carol is invited", || carol.sync(None)["rooms"]["invite"][&room].is_object());
    carol.join(&room);
    sees_membership(&bob, &room, &carol, "join");
}

pub fn an_invite_is_declined(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = invited(&alice, &bob);
    bob.leave(&room);
    sees_membership(&alice, &room, &bob, "leave");
    assert!(bob.sync(None)["rooms"]["invite"][&room].is_null());
}

pub fn an_invite_is_withdrawn(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = invited(&alice, &bob);
    let since = bob.now();
    alice.kick(&room, &bob);
    bob.sync_until(&since, |answer| answer["rooms"]["leave"][&room].is_object());
    assert_eq!(try_join_by(&bob, &room, &alice).status(), 403);
}

/// A room with a rule for who may join.
fn room_with_rule(alice: &Client, rule: &str) -> String {
    alice.create_room(json!({
        "preset": "private_chat",
        "room_version": "11",
        "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": rule } }],
    }))
}

fn knock(bob: &Client, alice: &Client, room: &str) {
    let since = bob.now();
    let path = format!("v3/knock/{}?via={}", enc(room), enc(alice.server_name()));
    bob.post(&path, json!({ "reason": "please" })).done();
    bob.sync_until(&since, |answer| answer["rooms"]["knock"][room].is_object());
    sees_membership(alice, room, bob, "knock");
    assert_eq!(alice.state(room, "m.room.member", bob.id())["reason"], "please");
}

pub fn somebody_knocks_and_is_let_in(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = room_with_rule(&alice, "knock");
    assert_eq!(try_join_by(&bob, &room, &alice).status(), 403);
    let since = bob.now();
    knock(&bob, &alice, &room);
    alice.invite(&room, &bob);
    bob.sync_until(&since, |answer| answer["rooms"]["invite"][&room].is_object());
    bob.join(&room);
    talk(&alice, &bob, &room);
}

pub fn a_knock_is_turned_away_and_may_be_repeated(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = room_with_rule(&alice, "knock");
    knock(&bob, &alice, &room);
    // Synapse neither tells nor takes it as the other's business that a knock was turned away.
    alice.kick(&room, &bob);
    assert_eq!(try_join_by(&bob, &room, &alice).status(), 403);
    knock(&bob, &alice, &room);
    alice.invite(&room, &bob);
    until("Bob is invited", || bob.sync(None)["rooms"]["invite"][&room].is_object());
    bob.join(&room);
    talk(&alice, &bob, &room);
}

pub fn a_knock_is_taken_back(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let room = room_with_rule(&alice, "knock");
    knock(&bob, &alice, &room);
    let since = bob.now();
    bob.leave(&room);
    bob.sync_until(&since, |answer| answer["rooms"]["leave"][&room].is_object());
    // Synapse takes a knock back without telling the room's server.
    if pair.host == Side::Synapse {
        sees_membership(&alice, &room, &bob, "leave");
    }
}

pub fn a_member_of_a_space_joins_a_restricted_room(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let (eve, carol) = (pair.there("eve"), pair.there("carol"));
    for version in ["8", "9", "10", "11", "12"] {
        let space = alice.create_room(json!({
            "preset": "public_chat",
            "room_version": version,
            "creation_content": { "type": "m.space" },
        }));
        let rule = json!({
            "join_rule": "restricted",
            "allow": [{ "type": "m.room_membership", "room_id": space }],
        });
        let room = alice.create_room(json!({
            "preset": "private_chat",
            "room_version": version,
            "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": rule }],
        }));
        join_by(&bob, &space, &alice);
        assert_eq!(try_join_by(&eve, &room, &alice).status(), 403, "version {version}");
        join_by(&bob, &room, &alice);
        sees_membership(&alice, &room, &bob, "join");
        let authorised = |who: &Client, whom: &Client| {
            who.state(&room, "m.room.member", whom.id())["join_authorised_via_users_server"].clone()
        };
        assert_eq!(authorised(&alice, &bob), alice.id(), "version {version}");
        assert_eq!(authorised(&bob, &bob), alice.id(), "version {version}");
        // Another of the same server, who asks the same server to be let in.
        join_by(&carol, &space, &alice);
        join_by(&carol, &room, &alice);
        sees_membership(&alice, &room, &carol, "join");
        talk(&alice, &carol, &room);
    }
}

pub fn somebody_joins_while_others_talk(pair: &Pair<'_>) {
    const MESSAGES: usize = 80;
    let (alice, bob) = pair.couple();
    let room = alice.create_public_room();
    let speakers = [pair.here("carol"), pair.here("dave")];
    for speaker in &speakers {
        speaker.join(&room);
    }
    std::thread::scope(|scope| {
        for speaker in &speakers {
            let room = &room;
            scope.spawn(move || {
                for number in 0..MESSAGES / 2 {
                    speaker.send_text(room, &format!("{number}"));
                }
            });
        }
        join_by(&bob, &room, &alice);
    });
    let said = bob.send_text(&room, "here I am");
    sees_event(&alice, &room, &said);
    let said = alice.send_text(&room, "welcome");
    sees_event(&bob, &room, &said);
    let all = ids(&walk(&alice, &room));
    assert!(all.len() > MESSAGES, "{}", all.len());
    until("both have the same history", || ids(&walk(&bob, &room)) == all);
}
