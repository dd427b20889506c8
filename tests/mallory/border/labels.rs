//! Labels that are not what they should be.

use super::{CANARY, Stage, message, mixed_room};
use crate::{
    border::enclaves::label,
    fate,
    peer::{canonical, until},
};
use postern_world::enc;
use serde_json::{Value, json};
use std::fmt::Write as _;

#[test]
fn attack_43_nothing_local_relates_to_what_is_above_its_own_label() {
    let stage = Stage::new();
    let (alice, room) = (&stage.alice, &stage.room);
    let parent = stage.say("CONFIDENTIAL", CANARY);
    let relations = [
        json!({ "rel_type": "m.replace", "event_id": parent }),
        json!({ "rel_type": "m.thread", "event_id": parent }),
        json!({ "rel_type": "m.reference", "event_id": parent }),
        json!({ "m.in_reply_to": { "event_id": parent } }),
        json!({ "rel_type": "m.thread", "event_id": stage.say("INTERNAL", "hm"), "m.in_reply_to": { "event_id": parent } }),
    ];
    for relation in relations {
        let new = json!({ "msgtype": "m.text", "body": "new" });
        let content = message("INTERNAL", "lower", json!({ "m.relates_to": relation, "m.new_content": new }));
        alice.try_send(room, "m.room.message", content).refused(403, "M_FORBIDDEN");
    }
    let annotation = json!({
        "m.relates_to": { "rel_type": "m.annotation", "event_id": parent, "key": "so" },
        "io.postern.label": label("INTERNAL"),
    });
    alice.try_send(room, "m.reaction", annotation).refused(403, "M_FORBIDDEN");
    let redaction = json!({ "redacts": parent, "reason": CANARY, "io.postern.label": label("INTERNAL") });
    alice.try_send(room, "m.room.redaction", redaction).refused(403, "M_FORBIDDEN");
    // An edit of something that is low may be high, and not say that it becomes low when it is applied.
    let low = stage.say("INTERNAL", "low");
    let edit = |class: &str, new: &str| {
        message(
            class,
            CANARY,
            json!({
                "m.relates_to": { "rel_type": "m.replace", "event_id": low },
                "m.new_content": { "msgtype": "m.text", "body": CANARY, "io.postern.label": label(new) },
            }),
        )
    };
    alice.try_send(room, "m.room.message", edit("CONFIDENTIAL", "INTERNAL")).refused(403, "M_FORBIDDEN");
    let edited = alice.send(room, "m.room.message", edit("CONFIDENTIAL", "CONFIDENTIAL"));
    alice.redact(room, &parent);
    stage.settle();
    assert_eq!(stage.told(&edited), json!({}));
    assert!(!stage.mallory.heard().contains(CANARY));
}

#[test]
fn attack_43_what_a_peer_says_below_what_it_relates_to_is_kept_in_quarantine() {
    let stage = Stage::new();
    let parent = stage.say("CONFIDENTIAL", "high");
    stage.settle();
    for relation in [
        json!({ "rel_type": "m.thread", "event_id": parent }),
        json!({ "rel_type": "m.replace", "event_id": parent }),
        json!({ "m.in_reply_to": { "event_id": parent } }),
    ] {
        let content = message("INTERNAL", "lower", json!({ "m.relates_to": relation }));
        let pdu = stage.mallory.make(&stage.room, &stage.eve, "m.room.message", None, content);
        stage.mallory.tell(&stage.high.server, &pdu);
        fate(&stage.high.server, &pdu.id, "its label is below that of what it relates to");
        assert_eq!(stage.alice.event(&stage.room, &pdu.id).status(), 404);
    }
    let bundled = stage.alice.event(&stage.room, &parent).ok();
    assert!(bundled["unsigned"]["m.relations"].is_null(), "{bundled}");
    stage.hear();
}

#[test]
fn attack_43_a_room_is_not_replaced_by_one_that_forgets_its_label() {
    let stage = Stage::new();
    stage.alice.set_state(&stage.room, "m.room.name", "", json!({ "name": CANARY }));
    let upgrade = format!("v3/rooms/{}/upgrade", enc(&stage.room));
    // Redaction takes away what an old room's create event says.
    stage.alice.post(&upgrade, json!({ "new_version": "10" })).refused(403, "M_FORBIDDEN");
    let request =
        json!({ "room_version": "10", "creation_content": { "io.postern.label": label("INTERNAL") } });
    stage.alice.post("v3/createRoom", request).refused(403, "M_FORBIDDEN");
    let new = stage.alice.post(&upgrade, json!({ "new_version": "12" })).ok();
    let new = new["replacement_room"].as_str().unwrap();
    let create = stage.alice.state(new, "m.room.create", "").ok();
    assert_eq!(create["io.postern.label"]["class"], "CONFIDENTIAL", "{create}");
    assert_eq!(create["io.postern.floor"]["class"], "INTERNAL", "{create}");
    assert_eq!(stage.alice.state(new, "m.room.name", "").ok()["name"], CANARY);
    stage
        .mallory
        .until(&stage.room, "mallory hears of it", |room| !room.content("m.room.tombstone", "").is_null());
    assert!(!stage.mallory.heard().contains(CANARY));
}

#[test]
fn attack_44_what_is_above_the_floor_leaves_in_no_state_reaction_or_poll() {
    let stage = Stage::new();
    let (alice, room) = (&stage.alice, &stage.room);
    let words =
        json!({ "name": CANARY, "topic": CANARY, "url": format!("mxc://{}/{CANARY}", alice.server_name()) });
    let mut said = Vec::new();
    for kind in ["m.room.name", "m.room.topic", "m.room.avatar", "m.room.pinned_events", "org.example.note"] {
        said.push(alice.set_state(room, kind, "", words.clone()));
    }
    let alias = format!("#{CANARY}-{}:{}", crate::peer::number(), alice.server_name());
    let of_alias = format!("v3/directory/room/{}", enc(&alias));
    alice.put(&of_alias, json!({ "room_id": room })).done();
    said.push(alice.set_state(room, "m.room.canonical_alias", "", json!({ "alias": alias })));
    let child = json!({ "via": [alice.server_name()], "order": CANARY });
    said.push(alice.set_state(room, "m.space.child", "!child:nowhere", child));
    let parent = stage.say("INTERNAL", "low");
    let reaction =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": parent, "key": CANARY } });
    said.push(alice.send(room, "m.reaction", reaction));
    let poll = json!({
        "m.text": [{ "body": CANARY }],
        "m.poll": { "question": { "m.text": [{ "body": CANARY }] }, "answers": [{ "m.id": "1", "m.text": [{ "body": CANARY }] }] },
    });
    said.push(alice.send(room, "m.poll.start", poll));
    stage.settle();
    for event in said {
        assert_eq!(stage.told(&event), json!({}), "{event}");
    }
    // What all servers see is refused where it says that it is above what they may see, and has no room for reasons.
    let above = |mut content: Value| {
        content["io.postern.label"] = label("CONFIDENTIAL");
        content
    };
    let member = json!({ "membership": "join", "displayname": CANARY });
    for (kind, key, content) in [
        ("m.room.member", alice.id(), above(member)),
        ("m.room.tombstone", "", above(json!({ "body": CANARY, "replacement_room": "!x:y" }))),
        ("m.room.history_visibility", "", above(json!({ "history_visibility": "shared" }))),
        ("m.room.member", alice.id(), json!({ "membership": "join", "reason": CANARY })),
    ] {
        alice.try_set_state(room, kind, key, content).refused(403, "M_FORBIDDEN");
    }
    let leave = format!("v3/rooms/{}/leave", enc(room));
    alice.post(&leave, json!({ "reason": CANARY })).refused(403, "M_FORBIDDEN");
    // All ways to ask for what is above.
    let room = enc(room);
    let directory = format!("v1/query/directory?room_alias={}", enc(&alias));
    for path in [
        format!("v1/hierarchy/{room}"),
        format!("v1/state/{room}?event_id={}", enc(&parent)),
        "v1/publicRooms".to_owned(),
        directory,
    ] {
        let answer = stage.get(&path);
        assert!(!answer.describe().contains(CANARY) || path.contains(CANARY), "{}", answer.describe());
    }
    assert!(!stage.mallory.heard().contains(CANARY));
}

#[test]
fn attack_45_labels_that_are_too_high_or_mean_nothing_are_refused_and_kept_out() {
    let stage = Stage::with("accreditation = \"Company PUBLIC\"", "");
    let bad = [
        json!({ "policy": "Company", "class": "SECRET" }),
        json!({ "policy": "NATO", "class": "COSMIC TOP SECRET" }),
        json!({ "policy": "None such", "class": "INTERNAL" }),
        json!({ "policy": "Company" }),
        json!({ "policy": "Company", "class": "INTERNAL", "unheard of": 1 }),
        json!(7),
        json!(null),
    ];
    for wrong in &bad {
        let content = json!({ "msgtype": "m.text", "body": CANARY, "io.postern.label": wrong });
        let refused = stage.alice.try_send(&stage.room, "m.room.message", content.clone());
        assert_eq!(refused.status(), 403, "{wrong}: {}", refused.describe());
        let pdu = stage.mallory.make(&stage.room, &stage.eve, "m.room.message", None, content);
        stage.mallory.tell(&stage.high.server, &pdu);
        fate(&stage.high.server, &pdu.id, "is not let in");
        assert_eq!(stage.alice.event(&stage.room, &pdu.id).status(), 404, "{wrong}");
    }
    // Without a label it is at that of the room, which this peer is not believed in; so is what it says at its floor.
    for content in [json!({ "msgtype": "m.text", "body": CANARY }), message("INTERNAL", CANARY, json!({}))] {
        let pdu = stage.mallory.make(&stage.room, &stage.eve, "m.room.message", None, content);
        stage.mallory.tell(&stage.high.server, &pdu);
        fate(&stage.high.server, &pdu.id, "is not accredited for it");
    }
    let believed = message("PUBLIC", "an honest word", json!({}));
    let pdu = stage.mallory.make(&stage.room, &stage.eve, "m.room.message", None, believed);
    stage.mallory.tell(&stage.high.server, &pdu);
    until(|| stage.alice.event(&stage.room, &pdu.id).status() == 200, "what it is believed in arrives");
    let page = stage.alice.messages(&stage.room, "dir=b&limit=100").to_string();
    assert!(!page.contains(CANARY), "{page}");
}

#[test]
fn attack_45_a_label_is_marked_as_its_policy_says_and_not_as_a_client_says() {
    let stage = Stage::new();
    let mut lying = label("INTERNAL");
    lying["mark"] = "COMPANY PUBLIC".into();
    lying["spif"] = format!("sha256:{}", "0".repeat(64)).into();
    let content = json!({ "msgtype": "m.text", "body": "hm", "io.postern.label": lying });
    let event = stage.alice.send(&stage.room, "m.room.message", content);
    let said = stage.alice.event(&stage.room, &event).ok()["content"]["io.postern.label"].clone();
    let create = stage.alice.state(&stage.room, "m.room.create", "").ok();
    assert_eq!(said["spif"], create["io.postern.label"]["spif"], "{said}");
    assert!(said["mark"].as_str().is_some_and(|mark| mark.contains("INTERNAL")), "{said}");
}

#[test]
fn attack_45_nobody_says_what_they_are_not_cleared_for() {
    let more = "[[user]]\nid = \"@clerk*\"\nclearance = \"Company INTERNAL\"\n";
    let stage = Stage::with("", more);
    let clerk = stage.high.register("clerk");
    stage.alice.invite(&stage.room, &clerk);
    clerk.join(&stage.room);
    let body = json!({ "msgtype": "m.text", "body": "at the room's label" });
    clerk.try_send(&stage.room, "m.room.message", body).refused(403, "M_FORBIDDEN");
    let high = message("CONFIDENTIAL", "above mine", json!({}));
    clerk.try_send(&stage.room, "m.room.message", high).refused(403, "M_FORBIDDEN");
    clerk.send(&stage.room, "m.room.message", message("INTERNAL", "mine", json!({})));
}

/// The SHA-256 that an event would have with this content.
fn hash_with(event: &Value, content: Value) -> String {
    let mut whole = event.clone();
    whole["content"] = content;
    for field in ["signatures", "hashes", "unsigned"] {
        whole.as_object_mut().unwrap().remove(field);
    }
    ruma::signatures::content_hash(&serde_json::from_str(&canonical(&whole)).unwrap()).unwrap().encode()
}

#[test]
fn attack_46_what_a_redacted_copy_said_is_not_found_out_by_trying() {
    let stage = Stage::new();
    let candidates = ["yes", "no", "maybe"];
    let reply = json!({ "msgtype": "m.text", "body": "yes" });
    let secret = stage.alice.send(&stage.room, "m.room.message", reply);
    stage.settle();
    let room = stage.mallory.room(&stage.room);
    let copy = room.event(&secret).unwrap();
    assert_eq!(copy["content"], json!({}));
    let hash = copy["hashes"]["sha256"].as_str().unwrap();
    for body in candidates {
        let guess = json!({ "msgtype": "m.text", "body": body });
        assert_ne!(hash_with(copy, guess.clone()), hash);
        let with_label = message("CONFIDENTIAL", body, json!({}));
        assert_ne!(hash_with(copy, with_label), hash);
    }
    // With all of it the same sum comes out: it was worked out as servers do.
    let whole = stage.alice.event(&stage.room, &secret).ok()["content"].clone();
    assert_eq!(whole["body"], "yes");
    assert_eq!(whole["io.postern.salt"].as_str().map(str::len), Some(32), "128 bits");
    assert_eq!(hash_with(copy, whole), hash);
}

#[test]
fn attack_46_what_a_policy_holds_back_without_a_label_is_not_found_out_either() {
    let stage = Stage::new();
    let policy = "@id(\"no-messages\") forbid (principal is Server, action == Action::\"release\", resource is Event)\n\
                  when { resource.kind == Kind::\"message\" };";
    stage.high.write("policies/messages.cedar", policy);
    assert!(stage.high.reread().contains("the border was read again"));
    let room = stage.alice.create_room(json!({ "preset": "private_chat", "invite": [stage.eve] }));
    stage.mallory.join(&stage.high.server, &room, &stage.eve);
    let secret = stage.alice.send_text(&room, "yes");
    stage.mallory.until(&room, "the redacted copy comes", |room| room.has(&secret));
    let copies = stage.mallory.room(&room);
    let copy = copies.event(&secret).unwrap();
    assert_eq!(copy["content"], json!({}));
    let guess = json!({ "msgtype": "m.text", "body": "yes" });
    assert_ne!(hash_with(copy, guess), copy["hashes"]["sha256"].as_str().unwrap());
}

#[test]
fn attack_46_every_local_event_of_a_labelled_room_has_a_salt_of_its_own() {
    let stage = Stage::new();
    let room = mixed_room(&stage.alice, &stage.eve);
    let mut salts = String::new();
    for _ in 0..3 {
        let event = stage.alice.send_text(&room, "yes");
        let salt = stage.alice.event(&room, &event).ok()["content"]["io.postern.salt"].clone();
        let salt = salt.as_str().unwrap().to_owned();
        assert!(!salts.contains(&salt));
        writeln!(salts, "{salt}").unwrap();
    }
    // A client cannot choose it.
    let own = json!({ "msgtype": "m.text", "body": "yes", "io.postern.salt": "0" });
    let event = stage.alice.send(&room, "m.room.message", own);
    assert_ne!(stage.alice.event(&room, &event).ok()["content"]["io.postern.salt"], "0");
}

#[test]
fn attack_45_state_that_is_not_let_in_and_counts_all_the_same_raises_an_alarm() {
    let stage = Stage::new();
    let officer = stage.high.server.anyone().register_by_secret("officer", true);
    stage.alice.change_power_levels(&stage.room, |levels| levels["events"]["io.example.plan"] = json!(0));
    stage.settle();
    let content = json!({ "plan": "b", "io.postern.label": label("CONFIDENTIAL") });
    let pdu = stage.mallory.make(&stage.room, &stage.eve, "io.example.plan", Some(""), content);
    stage.mallory.tell(&stage.high.server, &pdu);
    fate(&stage.high.server, &pdu.id, "is not accredited");
    let alarms = || {
        let refusals = officer.get("/_postern/border/refusals").ok();
        let all = refusals["refusals"].as_array().unwrap().clone();
        all.into_iter().filter(|one| one["action"] == "quarantined_state").collect::<Vec<_>>()
    };
    assert_eq!(alarms(), [Value::Null; 0], "nothing follows on it yet");
    // What follows on it has it in its state, at every server.
    stage.hear();
    let raised = alarms();
    assert_eq!(raised.len(), 1, "{raised:?}");
    assert_eq!((&raised[0]["what"], &raised[0]["who"]), (&json!(pdu.id), &json!(stage.eve)));
    assert!(stage.high.server.log().contains("a state event that was not let in counts in its room"));
}
