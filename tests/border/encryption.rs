//! The rules of rooms for end-to-end encryption.

use crate::enclaves::{Enclave, Peer, document, join_by};
use postern_world::{Client, Seat, enc};
use serde_json::{Value, json};

const MESSAGE: &str = "m.room.message";
const ENCRYPTED: &str = "m.room.encrypted";

fn room(creator: &Client, rule: Option<&str>, invited: &[&Client]) -> String {
    let content = rule.map_or_else(|| json!({}), |rule| json!({ "io.postern.encryption": rule }));
    let invite: Vec<&str> = invited.iter().map(|user| user.id()).collect();
    creator.create_room(json!({ "preset": "private_chat", "creation_content": content, "invite": invite }))
}

fn clear() -> Value {
    json!({ "msgtype": "m.text", "body": "in the clear" })
}

fn cipher() -> Value {
    json!({
        "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgAEnAC", "session_id": "s", "device_id": "d",
        "sender_key": "k",
    })
}

/// Two enclaves that think nothing of encryption, unless a line of the first says so.
fn two(lines: &str) -> (Enclave, Enclave) {
    let (here, there) = (Seat::take(), Seat::take());
    let one = Enclave::start(&here, "Company INTERNAL", &[Peer(&there, "Company INTERNAL", "")], lines);
    let other = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    (one, other)
}

#[test]
fn in_a_room_that_is_inspected_nothing_is_encrypted_and_in_an_encrypted_one_everything_is() {
    let (one, other) = two("");
    let (alice, bob) = (one.register("alice"), other.register("bob"));
    let turn_on = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    let (inspected, encrypted, free) = (
        room(&alice, Some("inspectable"), &[&bob]),
        room(&alice, Some("e2ee"), &[&bob]),
        room(&alice, None, &[]),
    );
    for joined in [&inspected, &encrypted] {
        join_by(&bob, joined, &one.server);
    }
    assert_eq!(alice.state(&encrypted, "m.room.encryption", "").ok(), turn_on);
    assert_eq!(alice.state(&inspected, "m.room.encryption", "").status(), 404);
    // The rule is in the create event, so both sides keep to it.
    for user in [&alice, &bob] {
        user.try_send(&inspected, MESSAGE, clear()).done();
        user.try_send(&inspected, ENCRYPTED, cipher()).refused(403, "M_FORBIDDEN");
        user.try_send(&encrypted, ENCRYPTED, cipher()).done();
        for kind in [MESSAGE, "m.sticker", "m.poll.start", "io.example.note"] {
            user.try_send(&encrypted, kind, clear()).refused(403, "M_FORBIDDEN");
        }
    }
    alice.try_set_state(&inspected, "m.room.encryption", "", turn_on.clone()).refused(403, "M_FORBIDDEN");
    let event = alice.send(&encrypted, ENCRYPTED, cipher());
    let relation = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": "+" } });
    alice.try_send(&encrypted, "m.reaction", relation).done();
    alice.redact(&encrypted, &event);
    for kind in [MESSAGE, ENCRYPTED] {
        let content = if kind == MESSAGE { clear() } else { cipher() };
        alice.try_send(&free, kind, content).done();
    }
    let create = |rule: &str, state: Value| {
        let request =
            json!({ "creation_content": { "io.postern.encryption": rule }, "initial_state": state });
        alice.post("/_matrix/client/v3/createRoom", request)
    };
    let state = json!([{ "type": "m.room.encryption", "state_key": "", "content": turn_on }]);
    create("inspectable", state).refused(403, "M_FORBIDDEN");
    create("sometimes", json!([])).refused(403, "M_FORBIDDEN");
    create("e2ee_auditor", json!([])).refused(403, "M_FORBIDDEN");
}

#[test]
fn an_auditor_is_in_the_rooms_that_have_to_have_one_and_stays_there() {
    let (here, there) = (Seat::take(), Seat::take());
    let peers = [Peer(&there, "Company INTERNAL", "")];
    let one = Enclave::start(&here, "Company INTERNAL", &peers, "");
    let other = Enclave::start(&there, "Company INTERNAL", &[Peer(&here, "Company INTERNAL", "")], "");
    let (auditing, alice, bob) = (one.register("auditor"), one.register("alice"), other.register("bob"));
    let lines = |auditor: &str| format!("default_encryption = \"e2ee_auditor\"\nauditor = \"{auditor}\"\n");
    let nobody = lines(&format!("@nobody:{}", one.server.name()));
    one.write("border.toml", &document("Company INTERNAL", &peers, &nobody));
    one.reread();
    alice.post("/_matrix/client/v3/createRoom", json!({})).refused(403, "M_FORBIDDEN");
    let auditor = auditing.id();
    one.write("border.toml", &document("Company INTERNAL", &peers, &lines(auditor)));
    one.reread();
    let room = room(&alice, None, &[&bob]);
    join_by(&bob, &room, &one.server);
    let membership = |room: &str| alice.state(room, "m.room.member", auditor).ok()["membership"].clone();
    assert_eq!(membership(&room), "join");
    assert_eq!(alice.state(&room, "m.room.create", "").ok()["io.postern.auditor"], auditor);
    alice.about_member(&room, "kick", auditor).refused(403, "M_FORBIDDEN");
    alice.about_member(&room, "ban", auditor).refused(403, "M_FORBIDDEN");
    for user in [&alice, &bob] {
        user.try_send(&room, ENCRYPTED, cipher()).done();
    }
    // A room that replaces it has the same rule and the same auditor.
    let path = format!("/_matrix/client/v3/rooms/{}/upgrade", enc(&room));
    let answer = alice.post(&path, json!({ "new_version": "12" })).ok();
    let next = answer["replacement_room"].as_str().unwrap().to_owned();
    assert_eq!(membership(&next), "join");
    alice.try_send(&next, ENCRYPTED, cipher()).done();
    alice.try_send(&next, MESSAGE, clear()).refused(403, "M_FORBIDDEN");
    // Where the auditor has left, nobody goes on.
    auditing.leave(&next);
    let refused = alice.try_send(&next, ENCRYPTED, cipher()).refused(403, "M_FORBIDDEN");
    assert!(refused["error"].as_str().unwrap().contains("auditor is not in this room"), "{refused}");
}

#[test]
fn an_auditor_of_another_server_and_a_rule_without_one_are_refused_with_their_place() {
    let (one, _) = two("");
    for (lines, why) in [
        (
            "auditor = \"@auditor:elsewhere.example\"\n",
            "auditor: @auditor:elsewhere.example is not of this server",
        ),
        ("default_encryption = \"e2ee_auditor\"\n", "default_encryption: there is no auditor"),
    ] {
        one.write("border.toml", &document("Company INTERNAL", &[], lines));
        let log = one.reread();
        assert!(log.contains(why), "{log}");
    }
}
