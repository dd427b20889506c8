//! Rooms, messages, keys and files that are shared by hand.

use crate::enclaves::{Pair, Says, good};
use postern_world::Client;
use serde_json::{Value, json};
use std::fs;

/// The bodies of the messages a user sees in a room, oldest first.
pub fn bodies(user: &Client, room: &str) -> Vec<String> {
    let page = user.messages(room, "dir=b&limit=200");
    let mut bodies: Vec<String> = page["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["type"] == "m.room.message")
        .map(|event| event["content"]["body"].as_str().unwrap_or("(redacted)").to_owned())
        .collect();
    bodies.reverse();
    bodies
}

#[test]
fn a_room_is_shared_by_hand_both_ways_with_its_history() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "The road" }));
    alice.send_text(&room, "before the invite");
    alice.invite(&room, &bob);
    pair.to_b();
    let invited = bob.sync(None);
    assert!(invited["rooms"]["invite"][&room].to_string().contains("The road"), "{invited}");
    alice.send_text(&room, "before the join");
    bob.join(&room);
    bob.send_text(&room, "here I am");
    pair.to_a();
    assert_eq!(alice.membership_of(&room, &bob), "join");
    assert_eq!(bodies(&alice, &room), ["before the invite", "before the join", "here I am"]);
    pair.to_b();
    assert_eq!(bodies(&bob, &room), ["before the invite", "here I am", "before the join"]);
    let reply = alice.send_text(&room, "well come");
    pair.to_b();
    assert_eq!(bodies(&bob, &room).last().unwrap(), "well come");
    alice.redact(&room, &reply);
    pair.to_b();
    assert_eq!(bodies(&bob, &room).last().unwrap(), "(redacted)");
    bob.leave(&room);
    pair.to_a();
    assert_eq!(alice.membership_of(&room, &bob), "leave");
    // What is said from now on is not for the other enclave.
    alice.send_text(&room, "alone again");
    assert_eq!(pair.a.export()["events"].as_u64().unwrap_or(0), 0);
}

fn keys_of(user: &Client, of: &Client) -> Value {
    user.post("v3/keys/query", json!({ "device_keys": { of.id(): [] } })).ok()
}

fn claim(user: &Client, of: &Client) -> Value {
    let wanted = json!({ "one_time_keys": { of.id(): { of.device(): "signed_curve25519" } } });
    user.post("v3/keys/claim", wanted).ok()["one_time_keys"][of.id()][of.device()].clone()
}

fn upload_keys(user: &Client, one_time: usize) {
    let (id, device) = (user.id(), user.device());
    let signatures = json!({ id: { format!("ed25519:{device}"): "sig" } });
    let key = |n: usize| json!({ "key": format!("{device} {n}"), "signatures": signatures });
    let one_time: serde_json::Map<String, Value> =
        (0..one_time).map(|n| (format!("signed_curve25519:K{n:03}"), key(n))).collect();
    let mut fallback = key(999);
    fallback["fallback"] = true.into();
    let keys = json!({
        "device_keys": {
            "user_id": id,
            "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": { format!("curve25519:{device}"): "curve", format!("ed25519:{device}"): "ed" },
            "signatures": signatures,
        },
        "one_time_keys": one_time,
        "fallback_keys": { "signed_curve25519:F": fallback },
    });
    user.post("v3/keys/upload", keys).done();
}

#[test]
fn encrypted_messages_cross_with_keys_given_out_beforehand() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    upload_keys(&alice, 30);
    upload_keys(&bob, 2);
    let encryption = json!({ "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
    let room =
        pair.shared_room(&alice, &bob, json!({ "preset": "private_chat", "initial_state": [encryption] }));
    // Each side has the other's devices, and keys to begin a session with.
    assert!(keys_of(&alice, &bob)["device_keys"][bob.id()][bob.device()].is_object());
    assert!(keys_of(&bob, &alice)["device_keys"][alice.id()][alice.device()].is_object());
    let first = claim(&bob, &alice);
    let second = claim(&bob, &alice);
    assert!(first.is_object() && first != second, "{first} {second}");
    let claimed: Vec<_> = (0..4).map(|_| claim(&alice, &bob)).collect();
    assert_ne!(claimed[0], claimed[1]);
    assert_eq!(claimed[2], claimed[3], "the fallback key is given again and again");
    // Nobody at home gets a key that was given away.
    let carol = pair.a.register("carol");
    let at_home = claim(&carol, &alice);
    assert!(at_home != first && at_home != second, "{at_home}");
    // The room key goes by a message to the device, the message by the room.
    let since = bob.now();
    let key = json!({ "messages": { bob.id(): { bob.device(): { "algorithm": "m.olm.v1", "ciphertext": "room key" } } } });
    alice.put("v3/sendToDevice/m.room.encrypted/one", key).done();
    let said = alice.send(
        &room,
        "m.room.encrypted",
        json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "words" }),
    );
    pair.to_b();
    let seen = bob.sync(Some(&since));
    assert!(seen["to_device"].to_string().contains("room key"), "{seen}");
    assert_eq!(bob.event(&room, &said).ok()["content"]["ciphertext"], "words");
    // A device that comes later is told of, too.
    let tablet = alice.log_in_again();
    upload_keys(&tablet, 1);
    let since = bob.now();
    pair.to_b();
    assert!(bob.sync(Some(&since))["device_lists"].to_string().contains(alice.id()));
    assert!(keys_of(&bob, &alice)["device_keys"][alice.id()][tablet.device()].is_object());
}

#[test]
fn one_time_keys_that_are_used_up_are_asked_for() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    upload_keys(&alice, 60);
    pair.shared_room(&alice, &bob, json!({ "preset": "private_chat" }));
    let mut seen: Vec<_> = (0..15).map(|_| claim(&bob, &alice)).collect();
    pair.to_a();
    pair.to_b();
    seen.extend((0..20).map(|_| claim(&bob, &alice)));
    let all = seen.len();
    seen.sort_by_key(ToString::to_string);
    seen.dedup();
    assert_eq!(seen.len(), all, "no key is given twice");
    assert!(!seen.iter().any(|key| key.to_string().contains("fallback")));
}

#[test]
fn files_cross_with_the_messages_that_show_them() {
    let pair = Pair::new();
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let room = pair.shared_room(&alice, &bob, json!({ "preset": "private_chat" }));
    let bytes: Vec<u8> = (0..1_300_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let uri = alice.upload("application/octet-stream", Some("map.bin"), &bytes);
    let unshown = alice.upload("text/plain", None, b"nobody was shown this");
    alice.send(&room, "m.room.message", json!({ "msgtype": "m.file", "body": "map.bin", "url": uri }));
    let taken = pair.to_b();
    assert_eq!(taken["bundles"][0]["taken"]["files"], 1, "{taken:#}");
    let path =
        |uri: &str| format!("/_matrix/client/v1/media/download/{}", uri.strip_prefix("mxc://").unwrap());
    let got = bob.get(&path(&uri));
    assert_eq!((got.status(), &got.bytes()[..]), (200, &bytes[..]));
    assert_ne!(bob.get(&path(&unshown)).status(), 200);
    // In an encrypted room no event says which files it shows.
    let encryption = json!({ "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } });
    pair.shared_room(&alice, &bob, json!({ "preset": "private_chat", "initial_state": [encryption] }));
    let sealed = alice.upload("application/octet-stream", None, b"ciphertext");
    pair.to_b();
    assert_eq!(&bob.get(&path(&sealed)).bytes()[..], b"ciphertext");
}

#[test]
fn what_has_no_place_in_a_bundle_goes_in_the_next() {
    let small = Says { out_lines: "events = 1\nfile_bytes = 1", ..Says::default() };
    let pair = Pair::saying(&small, &Says::default());
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let rooms: Vec<String> =
        (0..3).map(|_| pair.shared_room(&alice, &bob, json!({ "preset": "private_chat" }))).collect();
    let mut shown = Vec::new();
    for room in &rooms {
        let uri = alice.upload("text/plain", None, room.as_bytes());
        alice.send(room, "m.room.message", json!({ "msgtype": "m.file", "body": "here", "url": uri }));
        shown.push(uri);
    }
    let made = pair.a.done(&["export", "courier"])["bundles"].as_array().unwrap().len();
    assert!(made >= 3, "{made}");
    assert_eq!(pair.files("ab").len(), pair.a.done(&["links"])["links"][0]["out"]["made"]);
    good(pair.b.import());
    for (room, uri) in rooms.iter().zip(&shown) {
        assert_eq!(bodies(&bob, room), ["here"]);
        let path = format!("/_matrix/client/v1/media/download/{}", uri.strip_prefix("mxc://").unwrap());
        assert_eq!(bob.get(&path).bytes()[..], *room.as_bytes());
    }
    // A keyframe stands for all of them, in as many bundles, also where what went before is lost.
    for room in &rooms {
        alice.send_text(room, "lost");
    }
    let before = pair.files("ab").len();
    pair.a.export();
    for file in pair.files("ab").drain(before..) {
        fs::remove_file(file).unwrap();
    }
    let frames = pair.a.done(&["export", "courier", "--keyframe"]);
    let frames = frames["bundles"].as_array().unwrap();
    assert!(frames.len() >= 3 && frames.iter().all(|frame| frame["kind"] == "keyframe"), "{frames:#?}");
    pair.b.import();
    for room in &rooms {
        assert_eq!(bodies(&bob, room), ["here", "lost"]);
    }
}

#[test]
fn attack_52_what_is_above_the_peers_clearance_crosses_redacted() {
    let of_a = Says { peer_clearance: "Company INTERNAL", ..Says::default() };
    let of_b = Says { clearance: "Company INTERNAL", ..Says::default() };
    let pair = Pair::saying(&of_a, &of_b);
    let (alice, bob) = (pair.a.register("alice"), pair.b.register("bob"));
    let label = |class: &str| json!({ "policy": "Company", "class": class });
    let request = json!({
        "preset": "private_chat",
        "creation_content": { "io.postern.label": label("CONFIDENTIAL"), "io.postern.floor": label("INTERNAL") },
    });
    let room = pair.shared_room(&alice, &bob, request);
    let secret = alice.send_text(&room, "the canary sings");
    let open = alice.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "lunch at noon", "io.postern.label": label("INTERNAL") }),
    );
    let exported = pair.a.export();
    assert!(exported["label"].as_str().unwrap().contains("INTERNAL"), "{exported}");
    good(pair.b.import());
    assert_eq!(bob.event(&room, &open).ok()["content"]["body"], "lunch at noon");
    let event = bob.event(&room, &secret);
    assert!(!event.body().to_string().contains("canary"), "{}", event.describe());
    // Nothing that was carried has it, and neither has what the other server wrote down.
    let files = pair.files("ab");
    assert!(!files.is_empty());
    assert!(!pair.b.server.log().contains("canary"));
    // A room that is all above is not told of at all.
    let above =
        alice.create_room(json!({ "creation_content": { "io.postern.label": label("CONFIDENTIAL") } }));
    let invite = json!({ "user_id": bob.id() });
    alice.post(&Client::room_path(&above, "invite"), invite).refused(403, "M_FORBIDDEN");
}
