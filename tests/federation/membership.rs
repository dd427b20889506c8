//! Joining, talking, inviting, knocking and leaving across servers.

use crate::PROGRAM;
use postern_world::{Server, enc};
use serde_json::json;
use std::sync::OnceLock;

/// Two servers all tests share.
pub fn servers() -> (&'static Server, &'static Server) {
    static SHARED: OnceLock<(Server, Server)> = OnceLock::new();
    let (one, two) =
        SHARED.get_or_init(|| (Server::federating(PROGRAM, &[]), Server::federating(PROGRAM, &[])));
    (one, two)
}

#[test]
fn two_people_of_two_servers_talk_in_one_room() {
    let (here, there) = servers();
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let room = alice.create_public_room();
    let first = alice.send_text(&room, "before");
    let since = alice.now();
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(here.name()));
    assert_eq!(bob.post(&path, json!({})).status(), 200);
    alice.sync_until(&since, |answer| answer["rooms"]["join"][&room].to_string().contains(bob.id()));
    let since = bob.now();
    let hello = alice.send_text(&room, "hello");
    bob.sync_until_event(&since, &room, &hello);
    let since = alice.now();
    let answer = bob.send_text(&room, "hello yourself");
    alice.sync_until_event(&since, &room, &answer);
    // What was said before one came is fetched from elsewhere.
    let history = bob.messages(&room, "dir=b&limit=50").to_string();
    assert!(history.contains(&first) && history.contains("m.room.create"), "{history}");
}

#[test]
fn somebody_of_another_server_is_invited_and_comes() {
    let (here, there) = servers();
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "secret" }));
    let since = bob.now();
    alice.invite(&room, &bob);
    let seen = bob.sync_until(&since, |answer| answer["rooms"]["invite"][&room].is_object());
    assert!(seen["rooms"]["invite"][&room].to_string().contains("secret"), "{seen}");
    bob.join(&room);
    let since = alice.now();
    let said = bob.send_text(&room, "here I am");
    alice.sync_until_event(&since, &room, &said);
    let since = alice.now();
    bob.leave(&room);
    alice.sync_until(&since, |answer| {
        answer["rooms"]["join"][&room]["timeline"].to_string().contains("\"leave\"")
    });
}

#[test]
fn an_invite_is_declined() {
    let (here, there) = servers();
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat" }));
    let since = bob.now();
    alice.invite(&room, &bob);
    bob.sync_until(&since, |answer| answer["rooms"]["invite"][&room].is_object());
    let since = alice.now();
    bob.leave(&room);
    alice.sync_until(&since, |answer| {
        answer["rooms"]["join"][&room]["timeline"].to_string().contains("\"leave\"")
    });
    assert_eq!(alice.membership_of(&room, &bob), "leave");
}

#[test]
fn somebody_of_another_server_knocks_and_is_let_in() {
    let (here, there) = servers();
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat" }));
    alice.set_state(&room, "m.room.join_rules", "", json!({ "join_rule": "knock" }));
    let since = alice.now();
    let path = format!("/_matrix/client/v3/knock/{}?via={}", enc(&room), enc(here.name()));
    assert_eq!(bob.post(&path, json!({ "reason": "please" })).status(), 200);
    alice.sync_until(&since, |answer| {
        answer["rooms"]["join"][&room]["timeline"].to_string().contains("\"knock\"")
    });
    let since = bob.now();
    alice.invite(&room, &bob);
    bob.sync_until(&since, |answer| answer["rooms"]["invite"][&room].is_object());
    bob.join(&room);
    assert_eq!(alice.membership_of(&room, &bob), "join");
}

#[test]
fn a_member_of_a_space_joins_a_restricted_room_of_another_server() {
    let (here, there) = servers();
    let (alice, bob, eve) = (here.register("alice"), there.register("bob"), there.register("eve"));
    for version in ["8", "11", "12"] {
        let space = alice.create_room(json!({ "preset": "public_chat", "room_version": version }));
        let rule = json!({
            "join_rule": "restricted",
            "allow": [{ "type": "m.room_membership", "room_id": space }],
        });
        let room = alice.create_room(json!({
            "preset": "private_chat",
            "room_version": version,
            "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": rule }],
        }));
        let via = enc(here.name());
        let join = |who: &postern_world::Client, room: &str| {
            who.post(&format!("/_matrix/client/v3/join/{}?via={via}", enc(room)), json!({})).status()
        };
        assert_eq!(join(&bob, &space), 200, "version {version}");
        assert_eq!(join(&eve, &room), 403, "version {version}");
        assert_eq!(join(&bob, &room), 200, "version {version}");
    }
}

#[test]
fn rooms_of_every_version_are_shared() {
    let (here, there) = servers();
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    for version in 1..=12 {
        let version = version.to_string();
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version }));
        let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(here.name()));
        let answer = bob.post(&path, json!({}));
        assert_eq!(answer.status(), 200, "version {version}: {}", answer.describe());
        let since = bob.now();
        let said = alice.send_text(&room, "hello");
        bob.sync_until_event(&since, &room, &said);
        let since = bob.now();
        alice.redact(&room, &said);
        bob.sync_until(&since, |answer| {
            answer["rooms"]["join"][&room].to_string().contains("m.room.redaction")
        });
        let seen = bob.event(&room, &said);
        assert!(seen.body()["content"]["body"].is_null(), "version {version}: {}", seen.describe());
    }
}

#[test]
fn what_was_said_while_a_server_was_down_arrives_when_it_is_back() {
    let (here, there) = (Server::federating(PROGRAM, &[]), Server::federating(PROGRAM, &[]));
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let room = alice.create_public_room();
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(here.name()));
    assert_eq!(bob.post(&path, json!({})).status(), 200);
    there.kill();
    let said: Vec<String> = (0..120).map(|number| alice.send_text(&room, &format!("{number}"))).collect();
    here.restart();
    there.start_again();
    // What the one that was down sends wakes the other.
    bob.send_text(&room, "back");
    for _ in 0..100 {
        let seen = bob.messages(&room, "dir=b&limit=200").to_string();
        if said.iter().all(|id| seen.contains(id.as_str())) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("not everything arrived");
}

#[test]
fn somebody_is_invited_as_soon_as_their_server_is_back() {
    // Once it could not be reached, a server is left alone for an hour; who wants something of it now does not wait.
    let hour = "3600000";
    let settings = [("federation.backoff_min_ms", hour), ("federation.backoff_max_ms", hour)];
    let here = Server::federating(PROGRAM, &settings);
    let there = Server::federating(PROGRAM, &[]);
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    there.kill();
    let room = alice.create_room(json!({ "preset": "private_chat" }));
    assert_ne!(alice.loose().about_member(&room, "invite", bob.id()).status(), 200);
    there.start_again();
    let since = bob.now();
    alice.invite(&room, &bob);
    bob.sync_until(&since, |answer| answer["rooms"]["invite"][&room].is_object());
}
