//! What the hostile server proposes or tells when a user here wants to join, leave or knock.

use crate::{
    Mallory,
    answers::{joined, propose},
    listen::Reply,
    room::{Room, id_of, key_of},
    shared, try_join, until,
};
use postern_world::{Client, Server, enc};
use serde_json::{Value, json};

/// Changes a proposal in one respect.
type Change = fn(&mut Value, &Mallory);

const CHANGES: [(&str, Change); 9] = [
    ("type", |answer, _| answer["event"]["type"] = "m.room.power_levels".into()),
    ("sender", |answer, mallory| answer["event"]["sender"] = mallory.user("eve").into()),
    ("state key", |answer, mallory| answer["event"]["state_key"] = mallory.user("eve").into()),
    ("no state key", |answer, _| {
        answer["event"].as_object_mut().unwrap().remove("state_key");
    }),
    ("membership", |answer, _| answer["event"]["content"]["membership"] = "ban".into()),
    ("room", |answer, _| answer["event"]["room_id"] = "!admins:here.test".into()),
    ("content", |answer, _| answer["event"]["content"]["users"] = json!({ "@eve:x": 100 })),
    ("third party", |answer, _| {
        answer["event"]["content"]["third_party_invite"] = json!({ "signed": { "token": "x" } });
    }),
    ("redacts", |answer, _| answer["event"]["redacts"] = "$something".into()),
];

/// What the server sent to `endpoint` is a membership of the user in the room, and nothing else that was proposed.
#[track_caller]
fn is_plain(sent: &Value, who: &Client, room: &str, membership: &str, change: &str) {
    assert_eq!(sent["type"], "m.room.member", "{change}: {sent}");
    assert_eq!((&sent["sender"], &sent["state_key"]), (&json!(who.id()), &json!(who.id())), "{change}");
    assert_eq!(sent["room_id"], room, "{change}");
    assert_eq!(sent["content"]["membership"], membership, "{change}");
    for extra in ["users", "third_party_invite"] {
        assert!(sent["content"][extra].is_null(), "{change}: {sent}");
    }
    assert!(sent["redacts"].is_null(), "{change}: {sent}");
}

#[test]
fn attack_06_of_a_proposed_join_only_its_place_in_the_room_is_taken() {
    let here = shared();
    for (change, apply) in CHANGES {
        let mallory = Mallory::new();
        let room = mallory.create_room(&mallory.user("eve"), "10");
        lie(&mallory, "make_join", apply);
        let alice = here.register("alice");
        try_join(&alice, &room, &mallory).done();
        let sent = mallory.seen("send_join")[0].json();
        is_plain(&sent, &alice, &room, "join", change);
    }
}

/// Changes the honest proposals.
fn lie(mallory: &Mallory, endpoint: &str, apply: Change) {
    let copy = Mallory::new();
    let parts = mallory.parts.clone();
    mallory.on(endpoint, move |asked| {
        let honest = crate::answers::honest(&parts, asked);
        let mut answer: Value = serde_json::from_slice(&honest.body).unwrap();
        if answer["event"].is_object() {
            apply(&mut answer, &copy);
        }
        Some(Reply::json(&answer))
    });
}

#[test]
fn attack_06_of_a_proposed_leave_or_knock_only_its_place_in_the_room_is_taken() {
    let here = shared();
    for (change, apply) in CHANGES {
        let mallory = Mallory::new();
        let eve = mallory.user("eve");
        let rule = json!({ "join_rule": "knock" });
        let room = mallory.create_room_with(&eve, "10", json!({}), &[("m.room.join_rules", "", rule)]);
        let alice = here.register("alice");
        lie(&mallory, "make_knock", apply);
        let path = format!("/_matrix/client/v3/knock/{}?via={}", enc(&room), enc(mallory.name()));
        alice.post(&path, json!({})).done();
        is_plain(&mallory.seen("send_knock")[0].json(), &alice, &room, "knock", change);
        lie(&mallory, "make_leave", apply);
        alice.leave(&room);
        is_plain(&mallory.seen("send_leave")[0].json(), &alice, &room, "leave", change);
    }
}

#[test]
fn attack_06_a_proposal_that_makes_no_sense_is_not_signed() {
    let here = shared();
    let alice = here.register("alice");
    let wrong: [(&str, Value); 7] = [
        ("prev_events", json!("all")),
        ("prev_events", json!(vec!["$a"; 10_000])),
        ("prev_events", json!([{ "content": "of anything" }])),
        ("auth_events", json!(vec!["$a"; 10_000])),
        ("auth_events", json!([1])),
        ("auth_events", json!(null)),
        ("depth", json!("deep")),
    ];
    for (field, value) in wrong {
        let mallory = Mallory::new();
        let room = mallory.create_room(&mallory.user("eve"), "10");
        let parts = mallory.parts.clone();
        let (name, said) = (field.to_owned(), value.clone());
        mallory.on("make_join", move |asked| {
            let honest = crate::answers::honest(&parts, asked);
            let mut answer: Value = serde_json::from_slice(&honest.body).unwrap();
            answer["event"][name.as_str()] = said.clone();
            Some(Reply::json(&answer))
        });
        let answer = try_join(&alice, &room, &mallory);
        let sent = mallory.seen("send_join");
        if field == "depth" {
            assert!(sent[0].json()["depth"].is_u64());
        } else {
            assert!(answer.status() >= 400, "{field} {value}: {}", answer.describe());
            assert!(sent.is_empty(), "{field} {value}: signed {}", sent[0].json());
        }
    }
}

/// Changes the honest answer to a join: (room, answer).
type Lie = fn(&Mallory, &Room, &mut Value);

/// A join whose answer is changed; what alice is told, and what she then has of the room.
fn join_with(version: &str, lie: Lie) -> (postern_world::Answer, Client, String) {
    let (here, mallory) = (shared(), Mallory::new());
    let room = mallory.create_room(&mallory.user("eve"), version);
    let lying = std::sync::Arc::new(mallory);
    let (weak, id) = (std::sync::Arc::downgrade(&lying), room.clone());
    lying.on("send_join", move |asked| {
        let mallory = weak.upgrade()?;
        let mut kept = mallory.room(&id);
        let mut answer = joined(&mallory.parts, &mut kept, &asked.json());
        lie(&mallory, &kept, &mut answer);
        Some(Reply::json(&answer))
    });
    let alice = here.register("alice");
    let answer = try_join(&alice, &room, &lying);
    (answer, alice, room)
}

fn retain(answer: &mut Value, list: &str, keep: impl Fn(&Value) -> bool) {
    answer[list].as_array_mut().unwrap().retain(keep);
}

fn other_create(mallory: &Mallory, room: &Room) -> Value {
    let mut draft = Room::new(&room.id, &room.version).draft(
        &mallory.user("eve"),
        "m.room.create",
        Some(""),
        json!({ "room_version": room.version, "creator": mallory.user("eve"), "x": 1 }),
    );
    if room.version == "12" {
        draft.as_object_mut().unwrap().remove("room_id");
    }
    mallory.seal(room, draft).json
}

#[test]
fn attack_07_a_join_whose_state_is_not_that_of_the_room_is_none() {
    let lies: [(&str, Lie); 6] = [
        ("no create event", |_, _, answer| {
            for list in ["state", "auth_chain"] {
                retain(answer, list, |event| event["type"] != "m.room.create");
            }
        }),
        ("two create events", |mallory, room, answer| {
            let second = other_create(mallory, room);
            answer["state"].as_array_mut().unwrap().push(second);
        }),
        ("nothing at all", |_, _, answer| {
            answer["state"] = json!([]);
            answer["auth_chain"] = json!([]);
        }),
        ("nothing is signed", |_, _, answer| {
            for list in ["state", "auth_chain"] {
                for event in answer[list].as_array_mut().unwrap() {
                    event["signatures"] = json!({});
                }
            }
        }),
        ("another event than the join", |_, _, answer| {
            let first = answer["state"][0].clone();
            answer["event"] = first;
        }),
        ("a message among the state", |mallory, room, answer| {
            let text = json!({ "msgtype": "m.text", "body": "x" });
            let message = room.draft(&mallory.user("eve"), "m.room.message", None, text);
            let message = mallory.seal(room, message);
            answer["state"].as_array_mut().unwrap().push(message.json);
        }),
    ];
    for version in ["10", "12"] {
        for (what, lie) in lies {
            let (answer, alice, room) = join_with(version, lie);
            assert!(answer.status() >= 400, "{what}, version {version}: {}", answer.describe());
            let seen = alice.sync(None);
            assert!(seen["rooms"]["join"][&room].is_null(), "{what}, version {version}: {seen}");
        }
        let (answer, alice, room) = join_with(version, |_, _, _| {});
        answer.done();
        assert_eq!(alice.state(&room, "m.room.create", "").status(), 200);
    }
}

#[test]
fn attack_07_state_of_another_room_does_not_come_with_a_join() {
    let (answer, alice, room) = join_with("10", |mallory, _, answer| {
        let name = ("m.room.name", "", json!({ "name": "of elsewhere" }));
        let other = mallory.create_room_with(&mallory.user("eve"), "10", json!({}), &[name]);
        let other = mallory.room(&other);
        let event = other.event(&other.state_id("m.room.name", "")).unwrap().clone();
        answer["state"].as_array_mut().unwrap().push(event);
        answer["auth_chain"].as_array_mut().unwrap().extend(other.auth_chain(other.state().values()));
    });
    if answer.status() == 200 {
        assert_eq!(alice.state(&room, "m.room.name", "").status(), 404);
    } else {
        assert!(alice.sync(None)["rooms"]["join"][&room].is_null());
    }
}

#[test]
fn attack_07_unsigned_and_unallowed_events_do_not_come_with_a_join() {
    let (answer, alice, room) = join_with("10", |mallory, room, answer| {
        let eve = mallory.user("eve");
        let state = answer["state"].as_array_mut().unwrap();
        // Changed after it was signed, and signed by somebody else than its sender's server.
        let mut name = mallory.seal(room, room.draft(&eve, "m.room.name", Some(""), json!({ "name": "x" })));
        name.json["content"]["name"] = "forged".into();
        name.json["signatures"] = json!({ mallory.name(): { "ed25519:1": "AAAA" } });
        state.push(name.json);
        let topic = room.draft("@bob:elsewhere.test", "m.room.topic", Some(""), json!({ "topic": "x" }));
        state.push(mallory.seal(room, topic).json);
        // Properly signed, but by somebody who was never in the room.
        let avatar =
            room.draft(&mallory.user("fay"), "m.room.avatar", Some(""), json!({ "url": "mxc://a/b" }));
        state.push(mallory.seal(room, avatar).json);
    });
    answer.done();
    for kind in ["m.room.name", "m.room.topic", "m.room.avatar"] {
        assert_eq!(alice.state(&room, kind, "").status(), 404, "{kind}");
    }
    assert_eq!(alice.state(&room, "m.room.join_rules", "").status(), 200);
}

#[test]
fn attack_07_a_join_in_another_version_than_the_rooms_is_none() {
    let (here, mallory) = (shared(), Mallory::new());
    let room = mallory.create_room(&mallory.user("eve"), "10");
    for version in ["9", "11", "99", ""] {
        let parts = mallory.parts.clone();
        let said = version.to_owned();
        mallory.on("make_join", move |asked| {
            let rooms = parts.rooms();
            let room = rooms.get(&asked.segments[4])?;
            let honest = propose(room, &asked.segments[5], "join");
            let mut answer: Value = serde_json::from_slice(&honest.body).unwrap();
            answer["room_version"] = said.as_str().into();
            Some(Reply::json(&answer))
        });
        let alice = here.register("alice");
        let answer = try_join(&alice, &room, &mallory);
        assert!(answer.status() >= 400, "{version}: {}", answer.describe());
        assert!(alice.sync(None)["rooms"]["join"][&room].is_null());
        mallory.be_honest();
    }
}

#[test]
fn attack_07_a_hundred_thousand_events_in_a_join_are_no_way_in() {
    let (answer, alice, room) = join_with("10", |mallory, room, answer| {
        let junk = room.draft(&mallory.user("eve"), "m.room.member", Some("@a:b"), json!({}));
        answer["state"] = vec![junk; 100_000].into();
    });
    assert!(answer.status() >= 400, "{}", answer.describe());
    assert!(alice.sync(None)["rooms"]["join"][&room].is_null());
    let _ = alice.create_public_room();
}

/// The control of what is above: nothing is left of a failed join that would be in the way of an honest one.
#[test]
fn attack_07_after_a_refused_join_an_honest_one_succeeds() {
    let (here, mallory): (&Server, _) = (shared(), Mallory::new());
    let eve = mallory.user("eve");
    let room = mallory.create_room(&eve, "10");
    mallory.on("send_join", |_| Some(Reply::json(&json!({ "state": [], "auth_chain": [] }))));
    let alice = here.register("alice");
    assert!(try_join(&alice, &room, &mallory).status() >= 400);
    mallory.be_honest();
    until(|| try_join(&alice, &room, &mallory).status() == 200, "alice joins");
    let kept = mallory.room(&room);
    let create = kept.event(&kept.state_id("m.room.create", "")).unwrap().clone();
    assert_eq!(key_of(&create).unwrap().0, "m.room.create");
    assert_eq!(id_of("10", &create), kept.state_id("m.room.create", ""));
    mallory.say(here, &alice, &room, &eve);
}
