//! Whose word it is: signatures of events and requests, and the keys they are made with.

use crate::{
    Mallory, Scene,
    answers::DAY_MS,
    fate,
    listen::Reply,
    peer::{canonical, number},
    room::{Pdu, now_ms, seal},
    server, shared, try_join,
};
use postern_world::{Method, Server, enc};
use ruma::signatures::Ed25519KeyPair;
use serde_json::{Value, json};

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// The transaction's answer says that the event is refused, and why.
#[track_caller]
fn refused(mallory: &Mallory, server: &Server, pdu: &Pdu) -> String {
    let said = mallory.transact(server, &[pdu], &[]).ok();
    let why = said["pdus"][&pdu.id]["error"].as_str();
    why.unwrap_or_else(|| panic!("{} is not refused: {said}", pdu.json)).to_owned()
}

fn pair(version: &str) -> Ed25519KeyPair {
    Ed25519KeyPair::from_der(&Ed25519KeyPair::generate(), version.to_owned()).unwrap()
}

#[test]
fn attack_08_an_event_signed_by_its_origin_but_not_by_its_senders_server_is_refused() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, room, .. } = &scene;
    let other = Mallory::new();
    let bob = other.user("bob");
    other.join(here, room, &bob);
    let kept = other.room(room);
    for sender in [alice.id(), &bob] {
        let forged = mallory.seal(&kept, kept.draft(sender, "m.room.message", None, text("forged")));
        refused(mallory, here, &forged);
        assert_eq!(alice.event(room, &forged.id).status(), 404);
    }
    // Bob's own server is believed, whoever brings it.
    let honest = other.seal(&kept, kept.draft(&bob, "m.room.message", None, text("honest")));
    mallory.tell(here, &honest);
    crate::until(|| alice.event(room, &honest.id).status() == 200, "bob is heard");
}

#[test]
fn attack_08_a_forged_event_is_refused_also_when_it_is_fetched() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let forged = mallory.change_room(room, |room| {
        let forged = mallory.seal(room, room.draft(alice.id(), "m.room.message", None, text("forged")));
        room.add(&forged);
        forged
    });
    // It follows on the forged one, which every endpoint tells as if it were right.
    let after = mallory.text(room, eve, "after");
    mallory.tell(here, &after);
    fate(here, &after.id, "an event is dropped");
    assert!(!mallory.seen("get_missing_events").is_empty());
    for id in [&forged.id, &after.id] {
        assert_eq!(alice.event(room, id).status(), 404);
    }
    let now = alice.messages(room, "dir=b&limit=50").to_string();
    assert!(!now.contains("forged"), "{now}");
}

#[test]
fn attack_08_a_hash_that_is_wrong_leaves_the_redacted_event_only() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let mut changed = mallory.text(room, eve, "before");
    changed.json["content"]["body"] = "changed on the way".into();
    mallory.tell(here, &changed);
    crate::until(|| alice.event(room, &changed.id).status() == 200, "it arrives");
    assert_eq!(alice.event(room, &changed.id).ok()["content"], json!({}));
}

#[test]
fn attack_09_a_key_serves_the_server_that_published_it_only() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    // Two servers whose keys have the same id; both are known.
    let other = Mallory::new();
    other.join(here, room, &other.user("bob"));
    let kept = mallory.room(room);
    let draft = kept.draft(eve, "m.room.message", None, text("in another's name"));
    let forged = seal(&kept.version, mallory.name(), &other.parts.pair, draft);
    refused(&other, here, &forged);
    refused(mallory, here, &forged);
    assert_eq!(alice.event(room, &forged.id).status(), 404);
    scene.settle();
}

/// A hostile server whose statement about its keys is changed before anybody asks for it.
fn with_statement(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Mallory {
    let mallory = Mallory::new();
    let parts = mallory.parts.clone();
    mallory.on("key", move |_| {
        let mut said = crate::answers::keys(&parts, now_ms() + DAY_MS);
        said.as_object_mut().unwrap().remove("signatures");
        change(&mut said);
        Some(Reply::json(&parts.signed(said)))
    });
    mallory
}

fn public(pair: &Ed25519KeyPair) -> String {
    ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(pair.public_key().to_vec()).encode()
}

#[test]
fn attack_09_a_key_that_was_given_up_signs_no_later_events() {
    let here = shared();
    let old = pair("old");
    let key = public(&old);
    let given_up = now_ms() - DAY_MS;
    let mallory = with_statement(move |said| {
        said["old_verify_keys"] = json!({ "ed25519:old": { "key": key, "expired_ts": given_up } });
    });
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    for (version, looks) in [("4", false), ("10", true)] {
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version }));
        mallory.join(here, &room, &eve);
        let kept = mallory.room(&room);
        let at = |ts: u64| {
            let mut draft = kept.draft(&eve, "m.room.message", None, text("signed with an old key"));
            draft["origin_server_ts"] = ts.into();
            seal(version, mallory.name(), &old, draft)
        };
        mallory.tell(here, &at(given_up - 1_000));
        let later = at(given_up + 1_000);
        if looks {
            refused(&mallory, here, &later);
        } else {
            // Versions before 5 do not look at the time of keys.
            mallory.tell(here, &later);
        }
    }
    // And no requests.
    let target = "/_matrix/federation/v1/query/profile?user_id=@a:b";
    let signed = mallory.authorization(here.name(), &Method::GET, target, None);
    let with_old = signed.replace("ed25519:1", "ed25519:old");
    mallory.ask_as(here, &Method::GET, target, &[&with_old], None).refused(401, "M_UNAUTHORIZED");
}

#[test]
fn attack_09_a_key_is_not_believed_for_longer_than_a_week() {
    let here = shared();
    let mallory = with_statement(|said| said["valid_until_ts"] = (now_ms() + 60 * DAY_MS).into());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let room = alice.create_public_room();
    mallory.join(here, &room, &eve);
    let kept = mallory.room(&room);
    let at = |ts: u64| {
        let mut draft = kept.draft(&eve, "m.room.message", None, text("of the future"));
        draft["origin_server_ts"] = ts.into();
        mallory.seal(&kept, draft)
    };
    mallory.tell(here, &at(now_ms() + 6 * DAY_MS));
    refused(&mallory, here, &at(now_ms() + 8 * DAY_MS));
}

#[test]
fn attack_09_a_signature_by_an_unknown_key_is_none() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let kept = mallory.room(room);
    let stranger = pair("stranger");
    let draft = || kept.draft(eve, "m.room.message", None, text("hello"));
    refused(mallory, here, &seal(&kept.version, mallory.name(), &stranger, draft()));
    let mut unsigned = mallory.seal(&kept, draft());
    unsigned.json["signatures"] = json!({});
    refused(mallory, here, &unsigned);
    // An algorithm that is not known does not pass for a signature either.
    unsigned.json["signatures"] = json!({ mallory.name(): { "mldsa:1": "AAAA" } });
    refused(mallory, here, &unsigned);
    assert_eq!(alice.event(room, &unsigned.id).status(), 404);
    scene.settle();
}

#[test]
fn attack_10_a_key_that_everybody_knows_signs_nothing() {
    // The signing key of the specification's examples, seed and all.
    let published = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
    let seed = ruma::serde::Base64::<ruma::serde::base64::Standard>::parse(published).unwrap();
    // PKCS#8 of an Ed25519 seed (RFC 8410).
    let mut document = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    document.extend_from_slice(seed.as_bytes());
    let known = || Ed25519KeyPair::from_der(&document, "1".to_owned()).unwrap();
    let careless = Mallory::with_key(known());
    let path = "v1/query/profile?user_id=@a:b";
    careless.get(shared(), path).refused(401, "M_UNAUTHORIZED");
    // One that an administrator names.
    let shipped = Mallory::new();
    let listed = format!("[\"{}\"]", shipped.parts.public_key());
    let strict = crate::server_with(&[("federation.refused_keys", &listed)]);
    shipped.get(&strict, path).refused(401, "M_UNAUTHORIZED");
    let honest = shipped.get(shared(), path);
    assert_eq!(honest.status(), 400, "it is asked about a user of elsewhere: {}", honest.describe());
}

/// A restricted room of alice's, for the members of a room fay of the hostile server is in. Fay is in both.
fn restricted(version: &str) -> (Scene, String) {
    let scene = Scene::of_version(version);
    let rule = json!({ "join_rule": "restricted",
        "allow": [{ "type": "m.room_membership", "room_id": scene.room }] });
    let room = scene.alice.create_room(json!({ "preset": "private_chat", "room_version": version,
        "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": rule }] }));
    scene.mallory.join(scene.here, &room, &scene.eve);
    (scene, room)
}

#[test]
fn attack_11_nobody_is_let_into_a_restricted_room_by_a_forged_or_absent_signature() {
    for version in ["8", "10", "12"] {
        let (scene, room) = restricted(version);
        let Scene { here, mallory, alice, .. } = &scene;
        let (kept, uma) = (mallory.room(&room), mallory.user("uma"));
        // Uma is in none of the rooms; the proposal is refused.
        let path = format!("v1/make_join/{}/{}?ver={version}", enc(&room), enc(&uma));
        assert_eq!(mallory.get(here, &path).status(), 403);
        let content = json!({ "membership": "join", "join_authorised_via_users_server": alice.id() });
        let mut join = mallory.seal(&kept, kept.draft(&uma, "m.room.member", Some(&uma), content));
        // Without alice's server's signature.
        refused(mallory, here, &join);
        // With one that is made up.
        let forged = join.json["signatures"][mallory.name()].clone();
        join.json["signatures"][here.name()] = forged;
        refused(mallory, here, &join);
        // Nor does her server sign what it would not have proposed.
        join.json["signatures"].as_object_mut().unwrap().remove(here.name());
        let path = format!("v2/send_join/{}/{}", enc(&room), enc(&join.id));
        let said = mallory.put(here, &path, &join.json);
        assert_eq!(said.status(), 403, "version {version}: {}", said.describe());
        assert_eq!(alice.state(&room, "m.room.member", &uma).status(), 404);
        // Somebody who has left the room that allows joining is not in it.
        mallory.join(here, &scene.room, &uma);
        mallory.join(here, &room, &uma);
    }
}

#[test]
fn attack_13_json_that_means_several_things_or_no_number_is_refused() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let transact = |pdu: &str| {
        let body = format!(
            "{{\"edus\":[],\"origin\":\"{}\",\"origin_server_ts\":1,\"pdus\":[{pdu}]}}",
            mallory.name()
        );
        mallory.ask_text(here, Method::PUT, &format!("/_matrix/federation/v1/send/{}", number()), Some(&body))
    };
    let kept = mallory.room(room);
    let made = |body: &str| mallory.seal(&kept, kept.draft(eve, "m.room.message", None, text(body)));
    let honest = made("honest");
    let text = canonical(&honest.json);
    for wrong in [
        text.replace("\"depth\":", "\"depth\":1,\"depth\":"),
        text.replace("\"body\":", "\"body\":\"other\",\"body\":"),
        text.replace("\"depth\":", "\"depth\":NaN,\"x\":"),
        text.replace("\"depth\":", "\"depth\":Infinity,\"x\":"),
        text.replace("\"depth\":", "\"depth\":01,\"x\":"),
        text.replace("\"honest\"", "\"\u{0}\""),
        format!("{}{}{}", "[".repeat(100_000), text, "]".repeat(100_000)),
        text.replace("{\"body\"", "{\"a\":".repeat(2_000).as_str()),
    ] {
        let said = transact(&wrong);
        assert_eq!(said.status(), 400, "{}: {}", &wrong[..wrong.len().min(300)], said.describe());
        assert_eq!(alice.event(room, &honest.id).status(), 404);
    }
    // Numbers that events cannot have: the event is dropped, and the rest of the transaction is not.
    for number in ["1.5", "1e3", "9007199254740992", "-9007199254740992", "9223372036854775807", "1e400"] {
        let wrong = text.replace("\"depth\":", &format!("\"depth\":{number},\"x\":"));
        let beside = made("beside");
        let said = transact(&format!("{wrong},{}", canonical(&beside.json)));
        if said.status() == 200 {
            assert_eq!(said["pdus"][&beside.id], json!({}), "{number}: {}", said.describe());
            assert!(said["pdus"][&honest.id].is_null(), "{number}: {}", said.describe());
        } else {
            assert!((400..500).contains(&said.status()), "{number}: {}", said.describe());
            mallory.tell(here, &beside);
        }
        assert_eq!(alice.event(room, &honest.id).status(), 404);
    }
    transact(&text).done();
    crate::until(|| alice.event(room, &honest.id).status() == 200, "the honest form arrives");
}

#[test]
fn attack_13_an_event_of_the_greatest_depth_does_not_stop_a_room() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let deep = mallory.change_room(room, |room| {
        let mut draft = room.draft(eve, "m.room.message", None, text("deep"));
        draft["depth"] = 9_007_199_254_740_991_u64.into();
        let deep = mallory.seal(room, draft);
        room.add(&deep);
        deep
    });
    mallory.tell(here, &deep);
    crate::until(|| alice.event(room, &deep.id).status() == 200, "it arrives");
    for body in ["one", "two"] {
        let said = alice.send_text(room, body);
        mallory.until(room, "alice is heard", |room| room.has(&said));
        let depth = mallory.room(room).event(&said).unwrap()["depth"].clone();
        assert!(depth.as_u64().is_some_and(|depth| depth <= 9_007_199_254_740_991), "{depth}");
    }
    let bob = here.register("bob");
    bob.join(room);
    mallory.until(room, "bob's join arrives", |room| room.membership(bob.id()) == "join");
}

#[test]
fn attack_14_an_event_told_under_another_id_is_not_taken() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    // The hostile server withholds an event, and tells another when asked for it by its id.
    let (withheld, other) = (mallory.text(room, eve, "withheld"), mallory.text(room, eve, "other"));
    let named = withheld.id.clone();
    let told = other.json.clone();
    mallory.always("get_missing_events", Reply::json(&json!({ "events": [told] })));
    mallory.always("backfill", Reply::json(&json!({ "pdus": [told] })));
    mallory.always("event", Reply::json(&json!({ "pdus": [told] })));
    let after = mallory.change_room(room, |room| {
        let draft = room.draft_on([&named], eve, "m.room.message", None, text("after"));
        mallory.seal(room, draft)
    });
    mallory.tell(here, &after);
    fate(here, &after.id, "dropped");
    assert_eq!(alice.event(room, &named).status(), 404);
    assert_eq!(alice.event(room, &after.id).status(), 404);
    // An id that an event says of itself is not its id.
    mallory.be_honest();
    let kept = mallory.room(room);
    let mut draft = kept.draft(eve, "m.room.message", None, text("says"));
    draft["event_id"] = after.id.as_str().into();
    let says = mallory.seal(&kept, draft);
    assert_ne!(says.id, after.id);
    mallory.tell(here, &says);
    crate::until(|| alice.event(room, &says.id).status() == 200, "it has the id of its hash");
    assert_eq!(alice.event(room, &after.id).status(), 404);
}

#[test]
fn attack_15_a_request_is_for_one_server_from_one_server() {
    let (here, other, mallory) = (shared(), server(), Mallory::new());
    let target = "/_matrix/federation/v1/query/profile?user_id=@a:b";
    let get = |server: &Server, headers: &[&str]| mallory.ask_as(server, &Method::GET, target, headers, None);
    let honest = mallory.authorization(here.name(), &Method::GET, target, None);
    let passes = |server: &Server, headers: &[&str]| get(server, headers).status() == 400;
    assert!(passes(here, &[&honest]));
    assert!(passes(&other, &[&mallory.authorization(other.name(), &Method::GET, target, None)]));
    // To another server, as it is and without saying for whom it was.
    let no_destination = honest.replace(&format!("destination=\"{}\",", here.name()), "");
    assert!(passes(here, &[&no_destination]), "the older form");
    get(&other, &[&honest]).refused(401, "M_UNAUTHORIZED");
    get(&other, &[&no_destination]).refused(401, "M_UNAUTHORIZED");
    let name = format!("origin=\"{}\"", mallory.name());
    for wrong in [
        honest.replace(&format!("{name},"), ""),
        honest.replace(&name, "origin=\"\""),
        honest.replace(&name, &format!("{name},{name}")),
        honest.replace(&name, &format!("origin=\"{}\"", here.name())),
        honest.replace(&name, &format!("origin=\"{}\"", other.name())),
        honest.replace(&name, &format!("{name},origin=\"{}\"", other.name())),
        honest.replace("key=\"ed25519:1\",", ""),
        honest.replace("ed25519:1", "ed25519:2"),
        honest.replace("sig=", "sig=\"\",x="),
        honest.replace("X-Matrix", "Bearer"),
        honest.replace(&format!("destination=\"{}\"", here.name()), "destination=\"elsewhere.test\""),
        String::new(),
    ] {
        get(here, &[&wrong]).refused(401, "M_UNAUTHORIZED");
    }
    // Two headers of two servers.
    let second = Mallory::new();
    let other_origin = second.authorization(here.name(), &Method::GET, target, None);
    get(here, &[&honest, &other_origin]).refused(401, "M_UNAUTHORIZED");
    // For another path, method or body.
    let elsewhere = "/_matrix/federation/v1/query/profile?user_id=@c:d";
    mallory.ask_as(here, &Method::GET, elsewhere, &[&honest], None).refused(401, "M_UNAUTHORIZED");
    let (query, other_query) = (json!({ "device_keys": {} }), json!({ "device_keys": { "@a:b": [] } }));
    let path = "/_matrix/federation/v1/user/keys/query";
    let signed = mallory.authorization(here.name(), &Method::POST, path, Some(&canonical(&query)));
    let post = |body: &Value| mallory.ask_as(here, &Method::POST, path, &[&signed], Some(&canonical(body)));
    post(&query).done();
    post(&other_query).refused(401, "M_UNAUTHORIZED");
    post(&Value::Null).refused(401, "M_UNAUTHORIZED");
}

#[test]
fn attack_15_quotes_case_and_spaces_of_the_header_mean_the_same_or_nothing() {
    let (here, mallory) = (shared(), Mallory::new());
    let target = "/_matrix/federation/v1/query/profile?user_id=@a:b";
    let honest = mallory.authorization(here.name(), &Method::GET, target, None);
    let status = |header: &str| mallory.ask_as(here, &Method::GET, target, &[header], None).status();
    for same in [
        honest.clone(),
        honest.replace("X-Matrix", "x-matrix"),
        honest.replace("origin=", "ORIGIN="),
        honest.replace("\",", "\" , "),
        honest.replace("key=\"ed25519:1\"", "key=ed25519:1"),
        honest.replace("key=\"ed25519:1\"", "key=\"ed25519\\:1\""),
        format!("{honest},unknown=\"a,origin=\\\"b.test\\\"\""),
    ] {
        assert_eq!(status(&same), 400, "{same}");
    }
    for wrong in [
        honest.replace("\",", "\";"),
        honest.replace("origin=\"", "origin=\"a.test\",x=\""),
        format!("{honest}\""),
        honest.trim_end_matches('"').to_owned(),
    ] {
        assert_eq!(status(&wrong), 401, "{wrong}");
    }
    // The hostile server can be joined by; the control of the whole.
    let room = mallory.create_room(&mallory.user("eve"), "10");
    try_join(&here.register("alice"), &room, &mallory).done();
}

#[test]
fn attack_13_numbers_at_their_ends_are_numbers() {
    // Where the time of an event is not held against its server's keys.
    let scene = Scene::of_version("4");
    let Scene { here, mallory, alice, eve, room } = &scene;
    let since = alice.now();
    for (field, value) in [
        ("origin_server_ts", 0_i64),
        ("origin_server_ts", 9_007_199_254_740_991),
        ("depth", 0),
        ("depth", 9_007_199_254_740_991),
    ] {
        let kept = mallory.room(room);
        let mut draft = kept.draft(eve, "m.room.message", None, text(&format!("{field} {value}")));
        draft[field] = value.into();
        let pdu = mallory.seal(&kept, draft);
        mallory.tell(here, &pdu);
        crate::until(|| alice.event(room, &pdu.id).status() == 200, "it is taken");
    }
    for (field, value) in [("origin_server_ts", -1_i64), ("depth", -1), ("depth", -9_007_199_254_740_991)] {
        let kept = mallory.room(room);
        let mut draft = kept.draft(eve, "m.room.message", None, text(&format!("{field} {value}")));
        draft[field] = value.into();
        let pdu = mallory.seal(&kept, draft);
        mallory.transact(here, &[&pdu], &[]).done();
        scene.settle();
        assert_eq!(alice.event(room, &pdu.id).status(), 404, "{field} {value}");
    }
    assert!(alice.sync(Some(&since))["rooms"]["join"][room].is_object());
    let page = alice.messages(room, "dir=b&limit=50")["chunk"].as_array().unwrap().len();
    assert!(page > 5);
    let path = |ts: &str| format!("/_matrix/client/v1/rooms/{}/timestamp_to_event?dir=b&ts={ts}", enc(room));
    for ts in ["0", "1", "9007199254740991"] {
        assert!(alice.get(&path(ts)).status() < 500);
    }
}

#[test]
fn attack_14_an_id_of_versions_1_and_2_is_its_servers() {
    for version in ["1", "2"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        let kept = mallory.room(room);
        let known = alice.send_text(room, "known");
        let (nobody, local) = (format!("${:0>43}", 7), format!("$mine:{}", here.name()));
        for id in [&nobody, &local, &known, "$mine:elsewhere.test", "mine"] {
            let mut draft = kept.draft(eve, "m.room.message", None, text("under another's id"));
            draft["event_id"] = id.into();
            let pdu = mallory.seal(&kept, draft);
            let said = mallory.transact(here, &[&pdu], &[]).ok();
            assert_ne!(said["pdus"][id], json!({}), "{id}: {said}");
        }
        scene.settle();
        assert_eq!(alice.event(room, &known).ok()["content"]["body"], "known");
        assert_eq!(alice.event(room, &nobody).status(), 404);
    }
}
