//! What is said at which label, and who gets it in which form.

use crate::enclaves::{content, high_and_low, label, together};
use postern_world::enc;
use serde_json::json;

#[test]
fn what_is_above_a_peers_clearance_reaches_it_redacted_and_the_rest_whole() {
    let (high, low) = high_and_low();
    let (alice, bob, room) = together(&high, &low);
    let since = bob.now();
    let secret = alice.send_text(&room, "the canary sings");
    let open = alice.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "lunch at noon", "io.postern.label": label("INTERNAL") }),
    );
    bob.sync_until_event(&since, &room, &open);
    assert_eq!(content(&bob, &room, &open)["body"], "lunch at noon");
    assert_eq!(bob.event(&room, &secret).status(), 404, "nobody there is cleared for it");
    assert_eq!(content(&alice, &room, &secret)["body"], "the canary sings");
    assert!(!bob.messages(&room, "dir=b&limit=100").to_string().contains("canary"));
    // And the other way everything is taken.
    let since = alice.now();
    let answer = bob.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.text", "body": "at one", "io.postern.label": label("INTERNAL") }),
    );
    alice.sync_until_event(&since, &room, &answer);
    assert_eq!(content(&alice, &room, &answer)["body"], "at one");
}

#[test]
fn a_room_above_a_peers_clearance_stays_inside() {
    let (high, low) = high_and_low();
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = alice.create_room(json!({
        "preset": "private_chat",
        "name": "canary",
        "creation_content": { "io.postern.label": label("CONFIDENTIAL") },
    }));
    let create = alice.state(&room, "m.room.create", "");
    assert_eq!(create.body()["m.federate"], false, "nobody else could be in it");
    let invite = json!({ "user_id": bob.id() });
    alice
        .post(&format!("/_matrix/client/v3/rooms/{}/invite", enc(&room)), invite)
        .refused(403, "M_FORBIDDEN");
    let path = format!("/_matrix/client/v3/join/{}?via={}", enc(&room), enc(high.server.name()));
    let unknown = format!("/_matrix/client/v3/join/{}?via={}", enc("!unknown"), enc(high.server.name()));
    let (refused, missing) = (bob.post(&path, json!({})), bob.post(&unknown, json!({})));
    assert_eq!((refused.status(), refused.body()), (missing.status(), missing.body()), "it looks like none");
}

#[test]
fn a_message_may_not_be_labelled_above_its_room_or_below_what_it_answers() {
    let (high, low) = high_and_low();
    let (alice, bob) = (high.register("alice"), low.register("bob"));
    let room = alice.create_room(json!({
        "preset": "private_chat",
        "creation_content": { "io.postern.label": label("INTERNAL") },
        "invite": [bob.id()],
    }));
    let said = |label, more: serde_json::Value| {
        let mut content = json!({ "msgtype": "m.text", "body": "hello", "io.postern.label": label });
        content.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        content
    };
    alice
        .try_send(&room, "m.room.message", said(label("CONFIDENTIAL"), json!({})))
        .refused(403, "M_FORBIDDEN");
    alice
        .try_send(&room, "m.room.message", said(json!({ "policy": "Company" }), json!({})))
        .refused(403, "M_FORBIDDEN");
    alice
        .try_send(&room, "m.room.message", said(json!({ "policy": "None such", "class": "X" }), json!({})))
        .refused(403, "M_FORBIDDEN");
    let parent = alice.send_text(&room, "internal");
    for relation in [
        json!({ "rel_type": "m.replace", "event_id": parent }),
        json!({ "rel_type": "m.thread", "event_id": parent }),
        json!({ "m.in_reply_to": { "event_id": parent } }),
    ] {
        alice
            .try_send(&room, "m.room.message", said(label("PUBLIC"), json!({ "m.relates_to": relation })))
            .refused(403, "M_FORBIDDEN");
    }
    // A label may be written as people write it.
    let typed = alice.send(&room, "m.room.message", said(json!("Company PUBLIC"), json!({})));
    assert_eq!(content(&alice, &room, &typed)["io.postern.label"]["class"], "PUBLIC");
}
