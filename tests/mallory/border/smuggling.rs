//! What goes past the rooms: ephemeral events, messages to devices, files.

use super::{
    CANARY, Stage, assert_same,
    enclaves::{Enclave, Peer, label},
    message,
};
use crate::peer::{Mallory, until};
use postern_world::{Seat, enc};
use serde_json::json;

#[test]
fn attack_50_nothing_goes_to_a_server_that_is_no_peer() {
    let stage = Stage::new();
    let (stranger, mine) = (Mallory::new(), Mallory::new());
    let bob = stranger.user("bob");
    let content = json!({ "messages": { bob.as_str(): { "*": { "body": CANARY } } } });
    stage.alice.put("v3/sendToDevice/org.example.note/1", content.clone()).done();
    let claim = json!({ "one_time_keys": { bob.as_str(): { "D": "signed_curve25519" } } });
    stage.alice.post("v3/keys/claim", claim).done();
    stage.alice.post("v3/keys/query", json!({ "device_keys": { bob.as_str(): [] } })).done();
    assert_eq!(stage.alice.get(&format!("v3/profile/{}", enc(&bob))).status(), 403);
    // The peer gets what is for it, which was sent after that.
    let to_eve = json!({ "messages": { stage.eve.as_str(): { "*": { "body": "for eve" } } } });
    stage.alice.put("v3/sendToDevice/org.example.note/2", to_eve).done();
    until(|| stage.mallory.heard().contains("for eve"), "the message to a device of the peer comes");
    stage.settle();
    assert_eq!(stranger.heard(), "", "not one request");
    assert_eq!(mine.heard(), "");
    // Nor does anything come in from it.
    let edu = json!({ "edu_type": "m.direct_to_device", "content": {
        "sender": bob, "type": "org.example.note", "message_id": "1",
        "messages": { stage.alice.id(): { "*": { "body": CANARY } } },
    } });
    let refused = stranger.transact(&stage.high.server, &[], &[edu]);
    assert_eq!(refused.status(), 403, "{}", refused.describe());
    assert!(!stage.alice.sync(None).to_string().contains(CANARY));
}

#[test]
fn attack_50_a_peer_hears_nothing_of_rooms_that_it_may_not_know() {
    let (here, there) = (Seat::take(), Seat::take());
    let cleared = "Company CONFIDENTIAL";
    let high = Enclave::start(&here, cleared, &[Peer(&there, cleared, "")], "");
    let mallory = Mallory::at(&there);
    let (alice, eve) = (high.register("alice"), mallory.user("eve"));
    let room = |class: &str| {
        alice.create_room(json!({
            "preset": "private_chat",
            "creation_content": { "io.postern.label": label(class) },
            "invite": [eve],
        }))
    };
    let (secret, open) = (room("CONFIDENTIAL"), room("INTERNAL"));
    for room in [&secret, &open] {
        mallory.join(&high.server, room, &eve);
    }
    // Eve is in both, and loses the right to know one of them.
    high.write(
        "border.toml",
        &super::enclaves::document(cleared, &[Peer(&there, "Company INTERNAL", "")], ""),
    );
    high.reread();
    let before = alice.send_text(&secret, CANARY);
    alice.typing(&secret, true);
    alice.read(&secret, &before);
    alice.set_state(&secret, "m.room.topic", "", json!({ "topic": CANARY }));
    alice.typing(&open, true);
    let last = alice.send_text(&open, "and that was all");
    alice.read(&open, &last);
    until(
        || mallory.heard().contains("m.typing") && mallory.heard().contains("m.receipt"),
        "what belongs to the open room comes",
    );
    mallory.until(&open, "the last word comes", |room| room.has(&last));
    let sent: Vec<String> = mallory.seen("send").iter().map(|asked| asked.json().to_string()).collect();
    let since: Vec<&String> = sent.iter().filter(|body| body.contains(&secret)).collect();
    assert!(since.is_empty(), "{since:?}");
    // And what it says there is not heard.
    let typing =
        json!({ "edu_type": "m.typing", "content": { "room_id": secret, "user_id": eve, "typing": true } });
    let read = json!({ "edu_type": "m.receipt", "content": {
        secret.as_str(): { "m.read": { eve.as_str(): { "data": { "ts": 1 }, "event_ids": [before] } } },
    } });
    let since = alice.now();
    let word = mallory.text(&secret, &eve, CANARY);
    let answer = mallory.transact(&high.server, &[&word], &[typing, read]).ok();
    assert_eq!(answer["pdus"], json!({}), "of a room that is not known no event is judged");
    mallory.say(&high.server, &alice, &open, &eve);
    let seen = alice.sync_with(&format!("since={}", enc(&since))).to_string();
    assert!(!seen.contains(CANARY) && !seen.contains("m.typing") && !seen.contains("\"m.read\""), "{seen}");
}

#[test]
fn attack_51_a_file_is_not_had_by_whoever_shows_it_themselves() {
    let more = "[[user]]\nid = \"@clerk*\"\nclearance = \"Company INTERNAL\"\n";
    let stage = Stage::with("", more);
    let (alice, clerk) = (&stage.alice, stage.high.register("clerk"));
    alice.invite(&stage.room, &clerk);
    clerk.join(&stage.room);
    let file = alice.upload("text/plain", Some(CANARY), CANARY.as_bytes());
    let show = |class: &str| message(class, "a file", json!({ "msgtype": "m.file", "url": file }));
    alice.send(&stage.room, "m.room.message", show("CONFIDENTIAL"));
    stage.settle();
    let id = file.rsplit('/').next().unwrap().to_owned();
    let path = format!("v1/media/download/{id}");
    let missing = stage.get("v1/media/download/AAAAAAAAAAAAAAAAAAAAAAAA");
    assert_same(&stage.get(&path), &missing);
    // It has guessed where the file is, and says so itself in all places.
    let pdu = stage.mallory.make(&stage.room, &stage.eve, "m.room.message", None, show("INTERNAL"));
    stage.mallory.tell(&stage.high.server, &pdu);
    let avatar = json!({ "membership": "join", "avatar_url": file });
    let member = stage.mallory.make(&stage.room, &stage.eve, "m.room.member", Some(&stage.eve), avatar);
    stage.mallory.tell(&stage.high.server, &member);
    stage.hear();
    assert_same(&stage.get(&path), &missing);
    assert_same(
        &stage.get(&format!("v1/media/thumbnail/{id}?width=32&height=32")),
        &stage.get("v1/media/thumbnail/AAAAAAAAAAAAAAAAAAAAAAAA?width=32&height=32"),
    );
    // So does a user here who is not cleared.
    let download = format!("/_matrix/client/v1/media/download/{}/{id}", alice.server_name());
    let none = format!("/_matrix/client/v1/media/download/{}/AAAAAAAAAAAAAAAAAAAAAAAA", alice.server_name());
    assert_same(&clerk.loose().get(&download), &clerk.loose().get(&none));
    clerk.send(&stage.room, "m.room.message", show("INTERNAL"));
    assert_same(&clerk.loose().get(&download), &clerk.loose().get(&none));
    assert_eq!(alice.loose().get(&download).bytes().as_ref(), CANARY.as_bytes());
    // Who has it may pass it on.
    alice.send(&stage.room, "m.room.message", show("INTERNAL"));
    assert_eq!(clerk.loose().get(&download).bytes().as_ref(), CANARY.as_bytes());
    assert_eq!(stage.get(&path).status(), 200);
}

#[test]
fn attack_51_a_redacted_message_shows_no_file_any_more() {
    let stage = Stage::new();
    let file = stage.alice.upload("text/plain", None, CANARY.as_bytes());
    let show = message("INTERNAL", "a file", json!({ "msgtype": "m.file", "url": file }));
    let shown = stage.alice.send(&stage.room, "m.room.message", show);
    let path = format!("v1/media/download/{}", file.rsplit('/').next().unwrap());
    assert_eq!(stage.get(&path).status(), 200);
    let high = message("CONFIDENTIAL", "a file", json!({ "msgtype": "m.file", "url": file }));
    stage.alice.send(&stage.room, "m.room.message", high);
    stage.alice.redact(&stage.room, &shown);
    assert_same(&stage.get(&path), &stage.get("v1/media/download/AAAAAAAAAAAAAAAAAAAAAAAA"));
}
