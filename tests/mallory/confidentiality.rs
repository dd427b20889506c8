//! What another server, or somebody here, learns of what is not theirs.

use crate::{Mallory, Scene, peer::canonical, shared, until};
use postern_world::{Answer, Client, Method, Server, enc};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Every request about a room that only its servers may make.
fn about(room: &str, event: &str) -> Vec<(Method, String, Option<Value>)> {
    let (id, at) = (enc(room), enc(event));
    let get = |path: String| (Method::GET, path, None);
    vec![
        get(format!("v1/state/{id}?event_id={at}")),
        get(format!("v1/state_ids/{id}?event_id={at}")),
        get(format!("v1/event_auth/{id}/{at}")),
        get(format!("v1/backfill/{id}?v={at}&limit=5")),
        get(format!("v1/timestamp_to_event/{id}?ts=0&dir=f")),
        (
            Method::POST,
            format!("v1/get_missing_events/{id}"),
            Some(json!({ "earliest_events": [], "latest_events": [event], "limit": 10 })),
        ),
    ]
}

/// What can be told of an answer.
fn shown(answer: &Answer) -> (u16, Vec<u8>) {
    (answer.status(), answer.bytes().to_vec())
}

/// A room that the server does not know, and an event nobody has.
fn unknown(here: &Server) -> (String, String) {
    (format!("!nothing-of-this-kind:{}", here.name()), format!("${}", "x".repeat(43)))
}

#[test]
fn attack_31_whoever_is_not_in_a_room_learns_nothing_of_it_not_even_that_it_is_there() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let (eve, fay, gus) = (mallory.user("eve"), mallory.user("fay"), mallory.user("gus"));
    // In one room never, in one invited, in one no longer, in one banned.
    let never = alice.create_room(json!({ "preset": "private_chat" }));
    let invited = alice.create_room(json!({ "preset": "private_chat" }));
    let left = alice.create_public_room();
    let banned = alice.create_public_room();
    alice.about_member(&invited, "invite", &eve).done();
    for (room, user) in [(&left, &fay), (&banned, &gus)] {
        mallory.join(here, room, user);
    }
    let before = alice.send_text(&left, "while fay was there");
    let leave = mallory.make(&left, &fay, "m.room.member", Some(&fay), json!({ "membership": "leave" }));
    let path = format!("v2/send_leave/{}/{}", enc(&left), enc(&leave.id));
    mallory.put(here, &path, &leave.json).done();
    alice.about_member(&banned, "ban", &gus).done();
    let (no_room, no_event) = unknown(here);
    for room in [&never, &invited, &left, &banned] {
        let secret = alice.send_text(room, "secret");
        for event in [&secret, &before, &no_event] {
            let asked = about(room, event).into_iter().zip(about(&no_room, &no_event));
            for ((method, path, body), (_, other, nothing)) in asked {
                let said = mallory.ask(here, method.clone(), &path, body.as_ref());
                let control = mallory.ask(here, method, &other, nothing.as_ref());
                assert_eq!(shown(&said), shown(&control), "{}", said.describe());
                assert_eq!(said.status(), 403);
            }
            let said = mallory.get(here, &format!("v1/event/{}", enc(event)));
            let control = mallory.get(here, &format!("v1/event/{}", enc(&no_event)));
            assert_eq!(shown(&said), shown(&control));
            assert_eq!(said.status(), 404);
        }
    }
}

#[test]
fn attack_31_whoever_is_in_one_room_learns_nothing_of_another_by_way_of_it() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, room, .. } = &scene;
    let other = alice.create_room(json!({ "preset": "private_chat", "name": "secret" }));
    let secret = alice.send_text(&other, "secret");
    let (_, no_event) = unknown(here);
    for ((method, path, body), (_, control, nothing)) in
        about(room, &secret).into_iter().zip(about(room, &no_event))
    {
        let said = mallory.ask(here, method.clone(), &path, body.as_ref());
        let control = mallory.ask(here, method, &control, nothing.as_ref());
        // The time stands in some answers.
        let without_time = |answer: &Answer| {
            let mut body = answer.body().clone();
            if let Some(body) = body.as_object_mut() {
                body.remove("origin_server_ts");
            }
            (answer.status(), body)
        };
        assert_eq!(without_time(&said), without_time(&control), "{path}");
        assert!(!String::from_utf8_lossy(said.bytes()).contains("secret"), "{}", said.describe());
    }
    // In its own room it is answered: the control.
    let event = alice.send_text(room, "not secret");
    for (method, path, body) in about(room, &event) {
        mallory.ask(here, method, &path, body.as_ref()).done();
    }
}

#[test]
fn attack_32_an_event_that_is_only_known_apart_is_not_shown_to_who_may_not_see_it() {
    let (here, mallory, other) = (shared(), Mallory::new(), Mallory::new());
    let (eve, fay, alice) = (mallory.user("eve"), other.user("fay"), here.register("alice"));
    let joined = json!({ "history_visibility": "joined" });
    let room = mallory.create_room_with(&eve, "10", json!({}), &[("m.room.history_visibility", "", joined)]);
    crate::try_join(&alice, &room, &mallory).done();
    // Alice's server misses the first two of these, and learns of the second as what is before a gap.
    let said: Vec<_> =
        ["lost", "secret", "third", "fourth"].iter().map(|body| mallory.text(&room, &eve, body)).collect();
    let known = said[2].json.clone();
    mallory
        .on("get_missing_events", move |_| Some(crate::listen::Reply::json(&json!({ "events": [known] }))));
    mallory.tell(here, &said[3]);
    until(|| alice.event(&room, &said[3].id).status() == 200, "what is after the gap is taken");
    // Fay comes later, and may not see what was before.
    other.join(here, &room, &fay);
    for pdu in &said {
        let told = other.get(here, &format!("v1/event/{}", enc(&pdu.id)));
        let all = String::from_utf8_lossy(told.bytes());
        assert!(!all.contains("m.text"), "{}", told.describe());
    }
    let after = alice.send_text(&room, "for fay too");
    let told = other.get(here, &format!("v1/event/{}", enc(&after))).ok();
    assert_eq!(told["pdus"][0]["content"]["body"], "for fay too");
}

#[test]
fn attack_35_a_private_room_is_described_to_nobody() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, bob) = (here.register("alice"), here.register("bob"));
    let room = alice
        .create_room(json!({ "preset": "private_chat", "name": "secret name", "topic": "secret topic" }));
    let (no_room, _) = unknown(here);
    let said = mallory.get(here, &format!("v1/hierarchy/{}", enc(&room)));
    let control = mallory.get(here, &format!("v1/hierarchy/{}", enc(&no_room)));
    assert_eq!(shown(&said), shown(&control));
    assert_eq!(said.status(), 404);
    let listed = mallory.get(here, "v1/publicRooms").ok().to_string();
    assert!(!listed.contains("secret name"), "{listed}");
    // A space tells of a private child only that it is one.
    let space =
        alice.create_room(json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } }));
    alice.set_state(&space, "m.space.child", &room, json!({ "via": [here.name()] }));
    let told = mallory.get(here, &format!("v1/hierarchy/{}", enc(&space))).ok();
    assert_eq!(told["children"], json!([]));
    assert!(!told.to_string().contains("secret"), "{told}");
    for path in ["members", "joined_members", "state", "messages?dir=b", "context/$x", "aliases"] {
        let answer = bob.get(&Client::room_path(&room, path));
        assert!(answer.status() >= 400, "{}", answer.describe());
    }
    for path in [
        format!("/_matrix/client/v1/room_summary/{}", enc(&room)),
        format!("/_matrix/client/v1/rooms/{}/hierarchy", enc(&room)),
    ] {
        let answer = bob.get(&path);
        assert!(answer.status() >= 400, "{}", answer.describe());
        assert!(!String::from_utf8_lossy(answer.bytes()).contains("secret"), "{}", answer.describe());
    }
}

#[test]
fn attack_35_an_invite_shows_what_describes_the_room_and_no_more() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "a name",
        "initial_state": [{ "type": "org.example.secret", "state_key": "", "content": { "secret": 1 } }] }));
    alice.send_text(&room, "a secret message");
    alice.about_member(&room, "invite", &eve).done();
    let body = mallory.seen("invite")[0].json();
    let state = body["invite_room_state"].as_array().unwrap();
    let kinds: Vec<&str> = state.iter().filter_map(|event| event["type"].as_str()).collect();
    for kind in &kinds {
        let may = [
            "m.room.create",
            "m.room.name",
            "m.room.avatar",
            "m.room.topic",
            "m.room.join_rules",
            "m.room.canonical_alias",
            "m.room.encryption",
            "m.room.member",
            "m.room.history_visibility",
        ];
        assert!(may.contains(kind), "{kind}");
    }
    assert!(kinds.contains(&"m.room.name") && !body.to_string().contains("secret"), "{body}");
    // Who knocks is shown the same.
    alice.set_state(&room, "m.room.join_rules", "", json!({ "join_rule": "knock" }));
    let fay = mallory.user("fay");
    let proposed = mallory.get(here, &format!("v1/make_knock/{}/{}?ver=12", enc(&room), enc(&fay))).ok();
    let knock = crate::room::seal("12", mallory.name(), &mallory.parts.pair, proposed["event"].clone());
    let said =
        mallory.put(here, &format!("v1/send_knock/{}/{}", enc(&room), enc(&knock.id)), &knock.json).ok();
    assert!(said["knock_room_state"].to_string().contains("a name"), "{said}");
    assert!(!said.to_string().contains("secret"), "{said}");
}

#[test]
fn attack_36_devices_are_told_to_servers_that_share_a_room_only() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let devices = |user: &str| mallory.get(here, &format!("v1/user/devices/{}", enc(user)));
    let nobody = devices(&format!("@nobody-at-all:{}", here.name()));
    assert_eq!(shown(&devices(alice.id())), shown(&nobody));
    assert_eq!(nobody.status(), 403);
    let room = alice.create_public_room();
    mallory.join(here, &room, &eve);
    assert_eq!(devices(alice.id()).ok()["user_id"], alice.id());
    alice.about_member(&room, "kick", &eve).done();
    assert_eq!(shown(&devices(alice.id())), shown(&nobody));
}

#[test]
fn attack_37_who_shares_no_room_is_not_found_by_searching() {
    let here = shared();
    let (alice, bob) = (here.register("alice"), here.register("bob"));
    let hidden = here.register("hidden");
    hidden
        .put(
            &format!("v3/profile/{}/displayname", hidden.id_in_path()),
            json!({ "displayname": "Zacharias Zorn" }),
        )
        .done();
    let search = |who: &Client, term: &str| {
        who.post("v3/user_directory/search", json!({ "search_term": term })).ok()["results"].to_string()
    };
    for term in ["Zacharias", "zorn", hidden.localpart(), hidden.id()] {
        assert!(!search(&bob, term).contains(hidden.id()), "{term}");
    }
    let _ = alice.create_room_with(&[&hidden]);
    assert!(search(&alice, "Zacharias").contains(hidden.id()), "who shares a room is found");
    assert!(!search(&bob, "Zacharias").contains(hidden.id()));
}

#[test]
fn attack_37_a_profile_is_told_by_its_own_server_only() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let profile = |user: &str| mallory.get(here, &format!("v1/query/profile?user_id={}", enc(user)));
    assert!(profile(alice.id()).ok()["displayname"].is_string());
    for other in [mallory.user("eve"), "@a:elsewhere.test".to_owned()] {
        profile(&other).refused(400, "M_INVALID_PARAM");
    }
    // Beside what its user says there, nothing is in it.
    let said = profile(alice.id()).ok();
    let known = ["displayname", "avatar_url"];
    assert!(said.as_object().unwrap().keys().all(|field| known.contains(&field.as_str())), "{said}");
    // A room of which the hostile server is no part has its own names, which are not told.
    let unknown = profile(&format!("@nobody-at-all:{}", here.name()));
    unknown.refused(404, "M_NOT_FOUND");
}

#[test]
fn attack_40_nobody_is_said_to_have_read_or_to_type_by_another_server() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let other = Mallory::new();
    let bob = other.user("bob");
    other.join(here, room, &bob);
    let event = alice.send_text(room, "read by nobody");
    let since = alice.now();
    let receipt = |user: &str| {
        json!({ "edu_type": "m.receipt", "content": { room.as_str(): { "m.read": {
            user: { "event_ids": [event], "data": { "ts": 1 } } } } } })
    };
    let typing = |user: &str| json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": user, "typing": true } });
    let fay = mallory.user("fay-who-is-not-in-the-room");
    for user in [alice.id(), &bob, &fay] {
        mallory.transact(here, &[], &[receipt(user), typing(user)]).done();
    }
    let presence = json!({ "edu_type": "m.presence", "content": { "push": [
        { "user_id": bob, "presence": "online", "status_msg": "forged", "last_active_ago": 1 },
        { "user_id": alice.id(), "presence": "unavailable", "status_msg": "forged", "last_active_ago": 1 } ] } });
    mallory.transact(here, &[], &[presence]).done();
    // The honest form comes, and nothing of the others is there.
    mallory.transact(here, &[], &[receipt(eve), typing(eve)]).done();
    let ephemeral = |answer: &Value| answer["rooms"]["join"][room]["ephemeral"].to_string();
    let mut all = String::new();
    alice.sync_until(&since, |answer| {
        all.push_str(&ephemeral(answer));
        all.push_str(&answer["presence"].to_string());
        all.contains("m.receipt") && all.contains("m.typing") && all.contains(eve.as_str())
    });
    for user in [&bob, &fay, "forged"] {
        assert!(!all.contains(user), "{all}");
    }
    assert!(!all.contains(alice.id()), "{all}");
}

#[test]
fn attack_40_receipts_are_kept_of_threads_that_are_there() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let event = alice.send_text(room, "read in many threads");
    let elsewhere = alice.create_public_room();
    let elsewhere = alice.send_text(&elsewhere, "in another room");
    let since = alice.now();
    let other = alice.send_text(room, "read too");
    let of = |event: &str, thread: &str| {
        json!({ "edu_type": "m.receipt", "content": { room.as_str(): { "m.read": {
            eve.as_str(): { "event_ids": [event], "data": { "ts": 1, "thread_id": thread } } } } } })
    };
    let receipt = |thread: &str| of(&event, thread);
    let made_up: Vec<Value> = (0..97).map(|n| receipt(&format!("${n:0>43}"))).collect();
    mallory.transact(here, &[], &made_up).done();
    mallory
        .transact(here, &[], &[receipt(&elsewhere), receipt("x"), receipt(&event), of(&other, "main")])
        .done();
    let mut all = String::new();
    alice.sync_until(&since, |answer| {
        all.push_str(&answer["rooms"]["join"][room]["ephemeral"].to_string());
        all.contains("\"main\"") && all.contains(&format!("\"thread_id\":\"{event}\""))
    });
    assert_eq!(all.matches("thread_id").count(), 2, "{all}");
}

/// Messages to devices and changes of device lists are believed of their own server only.
#[test]
fn attack_40_messages_to_devices_and_device_lists_are_of_their_own_server() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let other = Mallory::new();
    let bob = other.user("bob");
    other.join(here, room, &bob);
    let since = alice.now();
    let message = |sender: &str, n: u64| {
        json!({ "edu_type": "m.direct_to_device", "content": { "sender": sender, "type": "org.example.note",
            "message_id": format!("{sender}{n}"), "messages": { alice.id(): { "*": { "from": sender } } } } })
    };
    mallory.transact(here, &[], &[message(&bob, 1), message(alice.id(), 2), message("nobody", 3)]).done();
    mallory.transact(here, &[], &[message(eve, 4)]).done();
    let seen = alice.sync_until(&since, |answer| answer["to_device"].to_string().contains(eve.as_str()));
    let seen = seen["to_device"].to_string();
    assert!(!seen.contains(&bob) && !seen.contains("nobody"), "{seen}");
    assert_eq!(seen.matches("org.example.note").count(), 1, "{seen}");
}

/// The middle of the times that a request takes.
fn median(times: usize, ask: impl Fn()) -> Duration {
    let mut all: Vec<Duration> = (0..times)
        .map(|_| {
            let begin = Instant::now();
            ask();
            begin.elapsed()
        })
        .collect();
    all.sort();
    all[times / 2]
}

#[test]
fn attack_42_what_is_forbidden_and_what_is_unknown_look_the_same() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, bob) = (here.register("alice"), here.register("bob"));
    let room = alice.create_room(json!({ "preset": "private_chat" }));
    let event = alice.send_text(&room, "secret");
    let (no_room, no_event) = unknown(here);
    for ((method, path, body), (_, other, nothing)) in
        about(&room, &event).into_iter().zip(about(&no_room, &no_event))
    {
        let ask = |path: &str, body: Option<&Value>| mallory.ask(here, method.clone(), path, body);
        assert_eq!(shown(&ask(&path, body.as_ref())), shown(&ask(&other, nothing.as_ref())), "{path}");
        let forbidden = median(15, || drop(ask(&path, body.as_ref())));
        let unknown = median(15, || drop(ask(&other, nothing.as_ref())));
        println!("{path}: forbidden {forbidden:?}, unknown {unknown:?}");
    }
    // To users here: an event of a room one is not in, and one that is not there.
    let said = bob.event(&room, &event);
    let control = bob.event(&room, &no_event);
    assert_eq!(shown(&said), shown(&control), "{} {}", said.describe(), control.describe());
    let said = bob.get(&Client::room_path(&room, "state"));
    let control = bob.get(&Client::room_path(&no_room, "state"));
    println!("state of a room one is not in: {}; of none: {}", said.describe(), control.describe());
    assert_eq!(canonical(said.body()), canonical(control.body()));
}
