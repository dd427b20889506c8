//! Events that are properly signed and not allowed.

use crate::{Mallory, Scene, fate, room::Pdu, shared, try_join};
use postern_world::{Method, enc};
use serde_json::{Value, json};

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

impl Scene {
    /// The event is rejected, for a reason that says this.
    #[track_caller]
    fn rejected(&self, pdu: &Pdu, why: &str) {
        self.mallory.tell(self.here, pdu);
        let line = fate(self.here, &pdu.id, "is rejected");
        assert!(line.contains(why), "{line}");
        assert_eq!(self.alice.event(&self.room, &pdu.id).status(), 404);
    }

    #[track_caller]
    fn accepted(&self, pdu: &Pdu) {
        self.mallory.tell(self.here, pdu);
        crate::until(|| self.alice.event(&self.room, &pdu.id).status() == 200, "it is accepted");
    }

    /// Seals a draft that is not kept as part of the room.
    fn sealed(&self, draft: Value) -> Pdu {
        let room = self.mallory.room(&self.room);
        self.mallory.seal(&room, draft)
    }

    fn draft(&self, kind: &str, state_key: Option<&str>, content: Value) -> Value {
        self.mallory.room(&self.room).draft(&self.eve, kind, state_key, content)
    }

    /// Gives eve this power, and waits until her server knows.
    fn empower(&self, level: i64) {
        self.alice.change_power_levels(&self.room, |levels| levels["users"][&self.eve] = level.into());
        self.mallory.until(&self.room, "eve has power", |room| {
            room.content("m.room.power_levels", "")["users"][&self.eve] == level
        });
    }
}

#[test]
fn attack_17_events_of_another_room_authorize_nothing() {
    for version in ["6", "10", "12"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        let other = alice.create_room(json!({ "preset": "public_chat", "room_version": version,
            "power_level_content_override": { "users_default": 100 } }));
        mallory.join(here, &other, eve);
        let others = mallory.room(&other);
        let mut draft = scene.draft("m.room.topic", Some(""), json!({ "topic": "x" }));
        let levels = mallory.room(room).state_id("m.room.power_levels", "");
        let names = draft["auth_events"].as_array_mut().unwrap();
        names.retain(|id| *id != levels.as_str());
        names.push(others.state_id("m.room.power_levels", "").into());
        scene.rejected(&scene.sealed(draft), "not in the same room");
        // Nor is the other room's history followed on.
        let mut draft = scene.draft("m.room.message", None, text("x"));
        draft["prev_events"] = others.references(&others.ends);
        let pdu = scene.sealed(draft);
        mallory.tell(here, &pdu);
        fate(here, &pdu.id, "of another room");
        assert_eq!(alice.event(room, &pdu.id).status(), 404);
        scene.settle();
    }
}

#[test]
fn attack_17_events_of_another_room_that_are_fetched_authorize_nothing() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    // A room this server does not know, told under the endpoints of the one it knows.
    let other = mallory.create_room(eve, "10");
    let mut draft = scene.draft("m.room.topic", Some(""), json!({ "topic": "x" }));
    draft["auth_events"] =
        mallory.room(&other).draft(eve, "m.room.topic", Some(""), json!({}))["auth_events"].clone();
    let pdu = scene.sealed(draft);
    let chain = mallory.room(&other).auth_chain(mallory.room(&other).state().values());
    mallory.always("event_auth", crate::listen::Reply::json(&json!({ "auth_chain": chain })));
    mallory.tell(here, &pdu);
    fate(here, &pdu.id, "an event is dropped");
    mallory.be_honest();
    assert_eq!(alice.state(room, "m.room.topic", "").status(), 404);
    scene.settle();
}

#[test]
fn attack_18_what_rests_on_a_rejected_event_is_rejected() {
    for version in ["6", "10", "12"] {
        let scene = Scene::of_version(version);
        let eve = &scene.eve;
        let draft = scene.draft("m.room.power_levels", Some(""), json!({ "users": { eve: 100 } }));
        let levels = scene.sealed(draft);
        scene.rejected(&levels, "");
        let mut draft = scene.draft("m.room.topic", Some(""), json!({ "topic": "x" }));
        let before = scene.mallory.room(&scene.room).state_id("m.room.power_levels", "");
        let names = draft["auth_events"].as_array_mut().unwrap();
        names.retain(|id| *id != before.as_str());
        names.push(levels.id.as_str().into());
        scene.rejected(&scene.sealed(draft), "rejected auth event");
        assert_eq!(scene.alice.state(&scene.room, "m.room.topic", "").status(), 404);
        scene.settle();
    }
}

#[test]
fn attack_19_two_events_for_one_key_authorize_nothing() {
    let scene = Scene::new();
    let old = scene.mallory.room(&scene.room).state_id("m.room.power_levels", "");
    scene.empower(50);
    let new = scene.mallory.room(&scene.room).state_id("m.room.power_levels", "");
    for twice in [&old, &new] {
        let mut draft = scene.draft("m.room.topic", Some(""), json!({ "topic": "x" }));
        draft["auth_events"].as_array_mut().unwrap().push(twice.as_str().into());
        scene.rejected(&scene.sealed(draft), "duplicate auth event");
    }
    let honest = scene.sealed(scene.draft("m.room.topic", Some(""), json!({ "topic": "honest" })));
    scene.accepted(&honest);
}

#[test]
fn attack_20_events_that_do_not_belong_there_authorize_nothing() {
    let scene = Scene::with(json!({ "preset": "public_chat", "room_version": "10", "name": "a room" }));
    let Scene { alice, room, .. } = &scene;
    let said = alice.send_text(room, "no state at all");
    scene.mallory.until(room, "it is heard", |room| room.has(&said));
    let kept = scene.mallory.room(room);
    let superfluous = [
        kept.state_id("m.room.join_rules", ""),
        kept.state_id("m.room.name", ""),
        kept.state_id("m.room.member", alice.id()),
        said,
    ];
    for id in &superfluous {
        let mut draft = scene.draft("m.room.message", None, text("x"));
        draft["auth_events"].as_array_mut().unwrap().push(id.as_str().into());
        scene.rejected(&scene.sealed(draft), "auth event");
    }
    // More than events may name, and none.
    let mut draft = scene.draft("m.room.message", None, text("x"));
    draft["auth_events"] = vec![superfluous[0].as_str(); 11].into();
    let pdu = scene.sealed(draft);
    let answer = scene.mallory.transact(scene.here, &[&pdu], &[]).ok();
    assert!(answer["pdus"][&pdu.id]["error"].is_string(), "{answer}");
    let mut draft = scene.draft("m.room.message", None, text("x"));
    draft["auth_events"] = json!([]);
    scene.rejected(&scene.sealed(draft), "m.room.create");
    scene.settle();
}

#[test]
fn attack_22_a_room_has_one_create_event_which_says_no_room() {
    for version in ["10", "11", "12"] {
        let scene = Scene::of_version(version);
        let eve = &scene.eve;
        let content = json!({ "room_version": version, "creator": eve });
        let mut draft = scene.draft("m.room.create", Some(""), content);
        scene.rejected(&scene.sealed(draft.clone()), "");
        draft["prev_events"] = json!([]);
        draft["auth_events"] = json!([]);
        // One that begins a history of its own is none of the room's either.
        let pdu = scene.sealed(draft.clone());
        scene.mallory.transact(scene.here, &[&pdu], &[]).done();
        scene.settle();
        assert_ne!(scene.alice.state(&scene.room, "m.room.create", "").ok()["creator"], *eve);
        assert_eq!(scene.alice.event(&scene.room, &pdu.id).status(), 404);
        draft.as_object_mut().unwrap().remove("room_id");
        let pdu = scene.sealed(draft);
        let said = scene.mallory.transact(scene.here, &[&pdu], &[]).ok();
        assert!(said["pdus"][&pdu.id] != json!({}), "{said}");
        scene.settle();
    }
}

#[test]
fn attack_22_a_room_of_version_12_whose_create_event_is_wrong_is_not_joined() {
    let (here, mallory) = (shared(), Mallory::new());
    let (eve, fay) = (mallory.user("eve"), mallory.user("fay"));
    let alice = here.register("alice");
    for wrong in [json!("@fay:x"), json!([1]), json!(["fay"]), json!([fay, "@"]), json!({ "@fay:x": 100 })] {
        let room = mallory.create_room_with(&eve, "12", json!({ "additional_creators": wrong }), &[]);
        let answer = try_join(&alice, &room, &mallory);
        assert!(answer.status() >= 400, "{wrong}: {}", answer.describe());
        assert!(alice.sync(None)["rooms"]["join"][&room].is_null(), "{wrong}");
    }
    let room = mallory.create_room_with(&eve, "12", json!({ "additional_creators": [fay] }), &[]);
    try_join(&alice, &room, &mallory).done();
}

#[test]
fn attack_22_creators_of_version_12_have_no_power_level_to_be_taken() {
    let (here, mallory) = (shared(), Mallory::new());
    let (eve, fay) = (mallory.user("eve"), mallory.user("fay"));
    let alice = here.register("alice");
    let room = mallory.create_room_with(&eve, "12", json!({ "additional_creators": [fay] }), &[]);
    try_join(&alice, &room, &mallory).done();
    let honest =
        mallory.make(&room, &eve, "m.room.power_levels", Some(""), json!({ "users": { alice.id(): 100 } }));
    mallory.tell(here, &honest);
    crate::until(|| alice.event(&room, &honest.id).status() == 200, "alice has power");
    for creator in [&eve, &fay] {
        let kept = mallory.room(&room);
        let content = json!({ "users": { alice.id(): 100, creator.as_str(): 0 } });
        let levels = mallory.seal(&kept, kept.draft(&eve, "m.room.power_levels", Some(""), content.clone()));
        mallory.tell(here, &levels);
        fate(here, &levels.id, "is rejected");
        let answer = alice.try_set_state(&room, "m.room.power_levels", "", content);
        assert!(answer.status() >= 400, "{}", answer.describe());
    }
    assert!(alice.about_member(&room, "kick", &eve).status() >= 400, "nobody is above a creator");
}

#[test]
fn attack_25_power_levels_that_are_no_numbers_or_of_nobody_are_rejected() {
    for (version, texts) in [("9", true), ("10", false)] {
        let scene = Scene::of_version(version);
        scene.empower(100);
        let Scene { alice, eve, room, .. } = &scene;
        let with = |field: &str, value: Value| {
            let mut levels = alice.state(room, "m.room.power_levels", "").ok();
            levels[field] = value;
            scene.sealed(scene.draft("m.room.power_levels", Some(""), levels))
        };
        let users = |key: &str, value: Value| json!({ alice.id(): 100, eve: 100, key: value });
        for (field, value) in [
            ("ban", json!("fifty")),
            ("ban", json!([50])),
            ("ban", json!(true)),
            ("users_default", json!({})),
            ("events", json!([])),
            ("events", json!({ "m.room.name": {} })),
            ("users", json!([])),
            ("users", users("@bob:x", json!("fifty"))),
            ("users", users("@bob:x", json!(null))),
            ("users", users("bob", json!(50))),
        ] {
            scene.rejected(&with(field, value), "");
        }
        for (field, value) in [("ban", json!("50")), ("users", users("@bob:x", json!("50")))] {
            let pdu = with(field, value);
            if texts { scene.accepted(&pdu) } else { scene.rejected(&pdu, "") }
        }
        // More than one has cannot be given.
        scene.rejected(&with("ban", json!(9_007_199_254_740_991_i64)), "");
        scene.accepted(&with("kick", json!(-9_007_199_254_740_991_i64)));
        // What is missing has its default: eve, not named any more, has no power.
        let bare = scene.sealed(scene.draft(
            "m.room.power_levels",
            Some(""),
            json!({ "users": { alice.id(): 100 } }),
        ));
        scene.accepted(&bare);
        scene.mallory.change_room(room, |room| room.add(&bare));
        scene.rejected(&scene.sealed(scene.draft("m.room.name", Some(""), json!({ "name": "x" }))), "");
        alice.set_state(room, "m.room.name", "", json!({ "name": "a room" }));
        scene.settle();
    }
}

#[test]
fn attack_26_a_room_that_is_not_federated_has_no_members_of_elsewhere() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    for version in ["10", "12"] {
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version,
            "creation_content": { "m.federate": false } }));
        let path = format!("v1/make_join/{}/{}?ver={version}", enc(&room), enc(&eve));
        assert!(mallory.get(here, &path).status() >= 400);
        // Made without being proposed, on what the hostile server learned otherwise.
        let mut kept = crate::room::Room::new(&room, version);
        let state = alice.all_state(&room);
        let id = |kind: &str| -> String {
            let event = state.iter().find(|event| event["type"] == kind).unwrap();
            event["event_id"].as_str().unwrap().to_owned()
        };
        let mut draft = kept.draft(&eve, "m.room.member", Some(&eve), json!({ "membership": "join" }));
        let mut auth = vec![id("m.room.power_levels"), id("m.room.join_rules")];
        if version == "10" {
            auth.push(id("m.room.create"));
        }
        draft["auth_events"] = kept.references(&auth);
        draft["prev_events"] = kept.references([&id("m.room.history_visibility")]);
        let join = mallory.seal(&kept, draft);
        kept.add(&join);
        let path = format!("v2/send_join/{}/{}", enc(&room), enc(&join.id));
        mallory.put(here, &path, &join.json).refused(403, "M_FORBIDDEN");
        mallory.transact(here, &[&join], &[]).done();
        fate(here, &join.id, "is rejected");
        assert_eq!(alice.state(&room, "m.room.member", &eve).status(), 404);
        assert!(alice.about_member(&room, "invite", &eve).status() >= 400);
        // And the other way round.
        let closed = mallory.create_room_with(&eve, version, json!({ "m.federate": false }), &[]);
        assert!(try_join(&alice, &closed, &mallory).status() >= 400);
    }
}

#[test]
fn attack_27_a_redaction_by_who_may_not_redact_does_nothing() {
    for version in ["6", "10", "11", "12"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        let said = alice.send_text(room, "to stay");
        mallory.until(room, "alice is heard", |room| room.has(&said));
        let redaction = |target: &str| {
            let mut draft = scene.draft("m.room.redaction", None, json!({ "redacts": target }));
            draft["redacts"] = target.into();
            scene.sealed(draft)
        };
        let kept = mallory.room(room);
        let state =
            ["m.room.create", "m.room.power_levels", "m.room.join_rules"].map(|kind| kept.state_id(kind, ""));
        for target in state.iter().chain([&said]) {
            let pdu = redaction(target);
            mallory.tell(here, &pdu);
        }
        scene.settle();
        assert_eq!(alice.event(room, &said).ok()["content"]["body"], "to stay", "version {version}");
        assert_eq!(alice.state(room, "m.room.join_rules", "").ok()["join_rule"], "public");
        // Her own she may.
        let own = mallory.say(here, alice, room, eve);
        mallory.tell(here, &redaction(&own));
        crate::until(|| alice.event(room, &own).ok()["content"] == json!({}), "her own is redacted");
    }
}

#[test]
fn attack_27_redacting_what_authorizes_changes_nobodys_power() {
    let scene = Scene::of_version("10");
    let Scene { mallory, alice, room, .. } = &scene;
    let kept = mallory.room(room);
    for kind in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        let key = if kind == "m.room.member" { alice.id() } else { "" };
        let _ = alice.try_redact(room, &kept.state_id(kind, key), "to see what happens");
    }
    let acl =
        alice.set_state(room, "m.room.server_acl", "", json!({ "allow": ["*"], "deny": ["evil.test"] }));
    // What would leave a room without its version, or without its list of servers, is not asked for.
    for event in [kept.state_id("m.room.create", ""), acl] {
        alice.try_redact(room, &event, "to see what happens").refused(403, "M_FORBIDDEN");
    }
    scene.settle();
    alice.set_state(room, "m.room.name", "", json!({ "name": "alice still may" }));
    scene.rejected(&scene.sealed(scene.draft("m.room.topic", Some(""), json!({ "topic": "x" }))), "");
    let bob = scene.here.register("bob");
    bob.join(room);
}

#[test]
fn attack_29_a_denied_server_is_heard_in_no_way() {
    let deny = [
        json!({ "allow": ["*"], "deny": ["127.0.0.*"] }),
        json!({ "allow": ["*"], "deny": ["127.0.0.???", "127.0.0.??", "127.0.0.?"] }),
        json!({ "allow": ["*"], "deny": [format!("{}b", "*".repeat(200)), "*a*a*a*a*a*a*a*a*b", "*.*"] }),
        json!({ "allow": ["*"], "allow_ip_literals": false }),
        json!({ "allow": ["elsewhere.test"] }),
        json!({}),
    ];
    for acl in deny {
        let scene = Scene::new();
        let Scene { here, mallory, alice, eve, room } = &scene;
        // Its port, were it looked at, would let it in.
        let mut acl = acl;
        if acl["allow"].is_array() && acl["allow"][0] != "*" {
            acl["allow"].as_array_mut().unwrap().push(mallory.name().into());
        }
        let before = mallory.room(room);
        let known = before.ends.iter().next().unwrap().clone();
        alice.set_state(room, "m.room.server_acl", "", acl.clone());
        let pdu = scene.sealed(scene.draft("m.room.message", None, text("denied")));
        let said = mallory.transact(here, &[&pdu], &[]).ok();
        assert!(said["pdus"][&pdu.id]["error"].is_string(), "{acl}: {said}");
        let (id, user, event) = (enc(room), enc(&mallory.user("fay")), enc(&known));
        for path in [
            format!("v1/make_join/{id}/{user}?ver=10"),
            format!("v1/make_leave/{id}/{}", enc(eve)),
            format!("v1/make_knock/{id}/{user}?ver=10"),
            format!("v1/state/{id}?event_id={event}"),
            format!("v1/state_ids/{id}?event_id={event}"),
            format!("v1/event_auth/{id}/{event}"),
            format!("v1/backfill/{id}?v={event}&limit=5"),
            format!("v1/timestamp_to_event/{id}?ts=0&dir=f"),
        ] {
            mallory.get(here, &path).refused(403, "M_FORBIDDEN");
        }
        for path in [format!("v1/event/{event}"), format!("v1/hierarchy/{id}")] {
            mallory.get(here, &path).refused(404, "M_NOT_FOUND");
        }
        let missing = json!({ "earliest_events": [], "latest_events": [known] });
        mallory.post(here, &format!("v1/get_missing_events/{id}"), &missing).refused(403, "M_FORBIDDEN");
        let leave = scene.sealed(scene.draft("m.room.member", Some(eve), json!({ "membership": "leave" })));
        let path = format!("v2/send_leave/{id}/{}", enc(&leave.id));
        mallory.ask(here, Method::PUT, &path, Some(&leave.json)).refused(403, "M_FORBIDDEN");
        // What it says beside events does not count either.
        let since = alice.now();
        let typing =
            json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": eve, "typing": true } });
        let receipt = json!({ "edu_type": "m.receipt", "content": { room.as_str(): { "m.read": {
            eve.as_str(): { "event_ids": [known], "data": { "ts": 1 } } } } } });
        mallory.transact(here, &[], &[typing, receipt]).done();
        let seen = alice.sync(Some(&since));
        assert!(!seen["rooms"]["join"][room]["ephemeral"].to_string().contains(eve.as_str()), "{seen}");
        // Let in again, it is heard.
        alice.set_state(room, "m.room.server_acl", "", json!({ "allow": ["127.0.0.*"] }));
        scene.settle();
    }
}

#[test]
fn attack_27_a_redaction_from_before_its_sender_lost_the_power_does_nothing() {
    let scene = Scene::of_version("11");
    let Scene { here, mallory, alice, eve, room } = &scene;
    scene.empower(50);
    let said = alice.send_text(room, "to stay");
    mallory.until(room, "alice is heard", |room| room.has(&said));
    let past = mallory.room(room).ends;
    scene.empower(0);
    let redaction = mallory.change_room(room, |room| {
        let content = json!({ "redacts": said });
        let pdu = mallory.seal(room, room.draft_on(&past, eve, "m.room.redaction", None, content));
        room.keep(&pdu);
        pdu
    });
    // The rules of rooms let it pass; whether it takes effect is another question.
    mallory.tell(here, &redaction);
    // Nor when it is followed on.
    let kept = mallory.room(room);
    let prev: Vec<String> = kept.ends.iter().cloned().chain([redaction.id.clone()]).collect();
    let merge = mallory.seal(&kept, kept.draft_on(&prev, eve, "m.room.message", None, text("merge")));
    scene.accepted(&merge);
    assert_eq!(alice.event(room, &said).ok()["content"]["body"], "to stay");
}
