//! Rooms between enclaves: who comes in, and what other servers enforce, too.

use crate::enclaves::{Enclave, Peer, content, document, high_and_low, join_by, label, mixed_room, together};
use postern_world::{Client, Seat, enc};
use serde_json::json;

#[test]
fn a_labelled_room_says_how_it_is_marked_and_lets_nobody_in_by_others() {
    let (high, low) = high_and_low();
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = alice.create_room(json!({
        "preset": "public_chat",
        "creation_content": { "io.postern.label": "Company INTERNAL" },
        "invite": [bob.id()],
    }));
    let state = |kind: &str| alice.state(&room, kind, "").ok();
    assert_eq!(state("m.room.create")["io.postern.label"]["class"], "INTERNAL");
    assert!(state("io.postern.banner")["text"].as_str().unwrap().contains("INTERNAL"));
    assert_eq!(state("m.room.join_rules")["join_rule"], "restricted");
    assert_eq!(state("m.room.power_levels")["invite"], 50);
    let acl = state("m.room.server_acl").to_string();
    let host = |server: &postern_world::Server| server.name().split(':').next().unwrap().to_owned();
    assert!(acl.contains(&host(&high.server)) && acl.contains(&host(&low.server)), "{acl}");
    join_by(&bob, &room, &high.server);
    let levels = |user: &str| {
        let mut levels = state("m.room.power_levels");
        levels["users"][user] = 50.into();
        levels
    };
    alice.try_set_state(&room, "m.room.power_levels", "", levels(bob.id())).refused(403, "M_FORBIDDEN");
    alice.set_state(
        &room,
        "m.room.power_levels",
        "",
        levels("@carol:other".replace("other", high.server.name()).as_str()),
    );
    alice
        .try_set_state(&room, "m.room.join_rules", "", json!({ "join_rule": "public" }))
        .refused(403, "M_FORBIDDEN");
    alice
        .try_set_state(
            &room,
            "m.room.history_visibility",
            "",
            json!({ "history_visibility": "world_readable" }),
        )
        .refused(403, "M_FORBIDDEN");
}

#[test]
fn who_is_not_a_peer_is_not_spoken_with() {
    let (here, there) = (Seat::take(), Seat::take());
    let closed = Enclave::start(&here, "Company INTERNAL", &[], "");
    let stranger = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let (alice, bob) = (closed.register("alice"), stranger.register("bob"));
    let room = alice.create_public_room();
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(closed.server.name()));
    assert_eq!(bob.post(&path, json!({})).status(), 403);
    let profile = bob.get(&format!("/_matrix/client/v3/profile/{}", enc(alice.id())));
    assert_eq!(profile.status(), 403, "{}", profile.describe());
}

#[test]
fn without_a_directory_what_has_no_label_crosses_as_everywhere_and_what_has_one_does_not() {
    let [here, there] = postern_world::pair(crate::PROGRAM);
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let room = alice.create_public_room();
    join_by(&bob, &room, &here);
    let since = bob.now();
    let hello = alice.send_text(&room, "hello");
    bob.sync_until_event(&since, &room, &hello);
    assert_eq!(content(&bob, &room, &hello), json!({ "msgtype": "m.text", "body": "hello" }), "without salt");
    let labelled = json!({ "creation_content": { "io.postern.label": label("PUBLIC") } });
    alice.post("/_matrix/client/v3/createRoom", labelled).refused(403, "M_FORBIDDEN");
}

#[test]
fn events_of_a_peer_above_its_accreditation_are_kept_in_quarantine() {
    let (here, there) = (Seat::take(), Seat::take());
    let doubted = "accreditation = \"Company PUBLIC\"";
    let high =
        Enclave::start(&here, "Company CONFIDENTIAL", &[Peer(&there, "Company INTERNAL", doubted)], "");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company CONFIDENTIAL", "")], "");
    let (alice, bob, room) = together(&high, &low);
    let since = alice.now();
    let say = |body: &str, class: &str| {
        bob.send(
            &room,
            "m.room.message",
            json!({ "msgtype": "m.text", "body": body, "io.postern.label": label(class) }),
        )
    };
    let doubtful = say("believe me", "INTERNAL");
    let fine = say("good morning", "PUBLIC");
    let seen = alice.sync_until_event(&since, &room, &fine).to_string();
    assert!(!seen.contains("believe me"), "{seen}");
    assert_eq!(alice.event(&room, &doubtful).status(), 404);
    assert!(high.server.log().contains("is not accredited for it"));
}

#[test]
fn the_form_of_an_event_stays_what_it_was_when_clearances_change() {
    let (here, there) = (Seat::take(), Seat::take());
    let high = Enclave::start(&here, "Company CONFIDENTIAL", &[Peer(&there, "Company INTERNAL", "")], "");
    let low = Enclave::start(&there, "Company CONFIDENTIAL", &[Peer(&here, "Company CONFIDENTIAL", "")], "");
    let (alice, bob, room) = together(&high, &low);
    let since = bob.now();
    let before = alice.send_text(&room, "before");
    bob.sync_until(&since, |answer| {
        answer.to_string().contains(&before) || bob.event(&room, &before).status() == 200
    });
    assert_eq!(content(&bob, &room, &before), json!({}));
    let raised =
        crate::enclaves::document("Company CONFIDENTIAL", &[Peer(&there, "Company CONFIDENTIAL", "")], "");
    high.write("border.toml", &raised);
    high.reread();
    let since = bob.now();
    let after = alice.send_text(&room, "after");
    bob.sync_until_event(&since, &room, &after);
    assert_eq!(content(&bob, &room, &after)["body"], "after");
    assert_eq!(content(&bob, &room, &before), json!({}), "what left redacted stays so");
}

#[test]
fn without_a_directory_pictures_of_rooms_and_people_are_everybodys() {
    let [here, there] = postern_world::pair(crate::PROGRAM);
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let room = alice.create_public_room();
    let picture = alice.upload("image/png", None, b"a picture of the room");
    alice.set_state(&room, "m.room.avatar", "", json!({ "url": picture }));
    let path = format!("/_matrix/client/v1/media/download/{}", picture.trim_start_matches("mxc://"));
    // Bob is not in the room: he has it from the directory.
    assert_eq!(bob.loose().get(&path).bytes().as_ref(), b"a picture of the room");
}

#[test]
fn files_go_where_a_message_that_shows_them_may_go() {
    let (high, low) = high_and_low();
    let (alice, bob, room) = together(&high, &low);
    let since = bob.now();
    let show = |bytes: &[u8], class: &str| {
        let uri = alice.upload("text/plain", None, bytes);
        let content =
            json!({ "msgtype": "m.file", "body": "file", "url": uri, "io.postern.label": label(class) });
        (alice.send(&room, "m.room.message", content), uri)
    };
    let (_, secret) = show(b"the canary sings", "CONFIDENTIAL");
    let (shown, open) = show(b"lunch at noon", "INTERNAL");
    bob.sync_until_event(&since, &room, &shown);
    let get = |uri: &str| {
        bob.loose().get(&format!("/_matrix/client/v1/media/download/{}", uri.trim_start_matches("mxc://")))
    };
    assert_eq!(get(&open).bytes().as_ref(), b"lunch at noon");
    let (refused, missing) = (get(&secret), get(&format!("mxc://{}/nothing", high.server.name())));
    assert_eq!((refused.status(), refused.body()), (missing.status(), missing.body()), "it looks like none");
}

#[test]
fn a_policy_tells_messages_from_their_edits() {
    let (here, there) = (Seat::take(), Seat::take());
    let high = Enclave::start(&here, "Company INTERNAL", &[Peer(&there, "Company INTERNAL", "")], "");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let policy = "@id(\"no-edits\") forbid (principal is Server, action == Action::\"release\", resource is Event)\n\
                  when { resource.kind == Kind::\"edit\" };";
    high.write("policies/edits.cedar", policy);
    assert!(high.reread().contains("the border was read again"));
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = alice.create_room(json!({
        "creation_content": { "io.postern.label": label("INTERNAL") },
        "invite": [bob.id()],
    }));
    join_by(&bob, &room, &high.server);
    let since = bob.now();
    let first = alice.send_text(&room, "first");
    let edit = alice.send(
        &room,
        "m.room.message",
        json!({
            "msgtype": "m.text", "body": "* changed",
            "m.new_content": { "msgtype": "m.text", "body": "changed" },
            "m.relates_to": { "rel_type": "m.replace", "event_id": first },
        }),
    );
    let last = alice.send_text(&room, "last");
    bob.sync_until_event(&since, &room, &last);
    assert_eq!(content(&bob, &room, &first)["body"], "first");
    assert_eq!(content(&bob, &room, &edit), json!({}), "redacted");
    assert_eq!(content(&bob, &room, &last)["body"], "last");
}

/// Writes to all devices of somebody.
fn write_to_devices(from: &Client, to: &Client, text: &str) {
    let path = format!("/_matrix/client/v3/sendToDevice/org.example.note/{}", from.transaction());
    from.put(&path, json!({ "messages": { to.id(): { "*": { "text": text } } } })).done();
}

#[test]
fn without_a_directory_users_write_to_devices_of_strangers_as_everywhere() {
    let [here, there] = postern_world::pair(crate::PROGRAM);
    let (alice, bob) = (here.register("alice"), there.register("bob"));
    let since = bob.now();
    write_to_devices(&alice, &bob, "hello");
    bob.sync_until(&since, |answer| answer["to_device"].to_string().contains("hello"));
}

#[test]
fn between_peers_only_who_shares_a_room_writes_to_devices() {
    let (high, low) = high_and_low();
    let (alice, bob, eve) = (high.register("alice"), low.register("bob"), high.register("eve"));
    let room = mixed_room(&alice, &bob);
    join_by(&bob, &room, &high.server);
    let since = bob.now();
    write_to_devices(&eve, &bob, "the canary sings");
    write_to_devices(&alice, &bob, "hello");
    let seen = bob.sync_until(&since, |answer| answer["to_device"].to_string().contains("hello"));
    assert!(!seen["to_device"].to_string().contains("canary"), "{seen}");
    assert!(high.server.log().contains("a message to a device is not let out"));
}

#[test]
fn what_was_ready_for_a_peer_does_not_go_to_it_once_the_room_is_closed_to_it() {
    let (here, there) = (Seat::take(), Seat::take());
    let peers = [Peer(&there, "Company INTERNAL", "")];
    let high = Enclave::start(&here, "Company INTERNAL", &peers, "");
    let low = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let [closed, open] = [0, 1].map(|_| {
        let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.id()] }));
        join_by(&bob, &room, &high.server);
        room
    });
    let (since, last) = (bob.now(), alice.send_text(&open, "both are here"));
    bob.sync_until_event(&since, &open, &last);
    low.server.kill();
    let held = alice.send_text(&closed, "the canary sings");
    // It is tried.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let only = format!("rooms = [\"{open}\"]");
    high.write("border.toml", &document("Company INTERNAL", &[Peer(&there, "Company INTERNAL", &only)], ""));
    high.reread();
    low.server.start_again();
    let since = bob.now();
    let last = alice.send_text(&open, "back again");
    bob.sync_until_event(&since, &open, &last);
    assert_eq!(bob.event(&closed, &held).status(), 404);
    assert!(!bob.messages(&closed, "dir=b&limit=50").to_string().contains("canary"));
}
