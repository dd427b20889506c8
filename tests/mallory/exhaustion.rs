//! Too much, too slow, too large, and broken in ways that must stay where they are.

use crate::{
    Mallory, Scene, answers::DAY_MS, fate, listen::Reply, peer::number, room::now_ms, server_with, shared,
    try_join, until,
};
use postern_world::{Client, Method, Server, enc};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

#[test]
fn attack_55_a_transaction_has_no_more_than_it_may() {
    let scene = Scene::new();
    let Scene { here, mallory, eve, room, .. } = &scene;
    let kept = mallory.room(room);
    let one = mallory.seal(&kept, kept.draft(eve, "m.room.message", None, text("x")));
    mallory.transact(here, &vec![&one; 51], &[]).refused(400, "M_BAD_JSON");
    let typing = json!({ "edu_type": "m.typing", "content": {} });
    mallory.transact(here, &[], &vec![typing.clone(); 101]).refused(400, "M_BAD_JSON");
    mallory.transact(here, &vec![&one; 50], &vec![typing; 100]).done();
    let huge = json!({ "edus": [], "pdus": [], "x": "x".repeat(9 << 20) });
    let target = format!("/_matrix/federation/v1/send/{}", number());
    let huge = crate::peer::canonical(&huge);
    let signed = mallory.authorization(here.name(), &Method::PUT, &target, Some(&huge));
    // Refused by its length, before it came: whoever still sends may find the connection closed.
    if let Ok(answer) = here.link().send(&Method::PUT, &target, &[("authorization", &signed)], huge) {
        answer.refused(413, "M_TOO_LARGE");
    }
    let mut large = one.json;
    large["content"]["body"] = "x".repeat(70_000).into();
    let body = json!({ "pdus": [large], "edus": [] });
    let said = mallory.put(here, &format!("v1/send/{}", number()), &body).ok();
    assert!(!said["pdus"].as_object().unwrap().values().any(|result| *result == json!({})), "{said}");
    scene.settle();
}

#[test]
fn attack_55_fifty_events_of_each_of_a_thousand_unknown_rooms_are_refused_quickly() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, .. } = &scene;
    let bodies: Vec<Value> = (0..20)
        .map(|n| {
            let pdus: Vec<Value> = (0..50)
                .map(|m| {
                    let room = crate::room::Room::new(&format!("!unknown{n}x{m}:{}", mallory.name()), "10");
                    mallory.seal(&room, room.draft(eve, "m.room.message", None, text("x"))).json
                })
                .collect();
            json!({ "pdus": pdus, "edus": [] })
        })
        .collect();
    for body in &bodies {
        let said = mallory.put(here, &format!("v1/send/{}", number()), body).ok();
        assert!(!said["pdus"].as_object().unwrap().values().any(|result| *result == json!({})), "{said}");
    }
    assert!(mallory.seen("get_missing_events").is_empty(), "nobody is asked about rooms that are not here");
    let _ = alice.create_public_room();
    scene.settle();
}

#[test]
fn attack_55_a_server_that_stalls_in_many_rooms_holds_up_no_other() {
    let here = server_with(&[]);
    let (slow, honest) = (Mallory::new(), Mallory::new());
    let (eve, fay, alice) = (slow.user("eve"), honest.user("fay"), here.register("alice"));
    let room = alice.create_public_room();
    honest.join(&here, &room, &fay);
    // More rooms than are worked on at a time; in each an event whose past is withheld by not answering.
    let rooms: Vec<String> = (0..80)
        .map(|_| {
            let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "10" }));
            slow.join(&here, &room, &eve);
            room
        })
        .collect();
    for endpoint in ["get_missing_events", "state_ids", "state", "event", "event_auth", "backfill"] {
        let mut never = Reply::error(404, "M_NOT_FOUND");
        never.after = Duration::from_secs(60);
        slow.always(endpoint, never);
    }
    for room in &rooms {
        slow.text(room, &eve, "withheld");
        let last = slow.text(room, &eve, "last");
        slow.tell(&here, &last);
    }
    until(|| slow.seen("get_missing_events").len() >= 8, "it is asked");
    honest.say(&here, &alice, &room, &fay);
    // That was before any of the questions was given up.
    let asked = slow.seen("get_missing_events").len();
    assert!(asked <= 8, "{asked} rooms are busy with one server");
}

#[test]
fn attack_55_connections_that_never_finish_what_they_begin_are_cut_off() {
    let here = server_with(&[("limits.header_read_timeout_ms", "500"), ("limits.stalled_timeout_ms", "500")]);
    let mallory = Mallory::new();
    let target = "/_matrix/federation/v1/send/1";
    let signed = mallory.authorization(here.name(), &Method::PUT, target, Some("{}"));
    let begun = [
        "PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nHost: x\r\n".to_owned(),
        format!(
            "PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {signed}\r\nContent-Length: 1000000\r\n\r\n{{"
        ),
        format!(
            "PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {signed}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n"
        ),
    ];
    let mut open: Vec<TcpStream> = (0..60)
        .map(|n| {
            let mut stream = TcpStream::connect(here.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.write_all(begun[n % begun.len()].as_bytes()).unwrap();
            stream
        })
        .collect();
    let alice = here.register("alice");
    let room = alice.create_public_room();
    alice.send_text(&room, "meanwhile");
    for stream in &mut open {
        let mut rest = Vec::new();
        // An answer or none, and the end; not the time limit of the test.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
}

/// What is said about a server's keys that makes no server believed.
#[test]
fn attack_56_keys_that_are_huge_slow_compressed_or_elsewhere_are_none() {
    let here = shared();
    let honest = |mallory: &Mallory| crate::answers::keys(&mallory.parts, now_ms() + DAY_MS);
    type Lie = fn(Value) -> Reply;
    let lies: [(&str, Lie); 8] = [
        ("huge", |mut keys| {
            keys["x"] = "x".repeat(2 << 20).into();
            Reply::json(&keys)
        }),
        ("endless", |_| Reply {
            times: usize::MAX,
            ..Reply::bytes("application/json", vec![b' '; 64 << 10])
        }),
        ("trickling", |_| Reply {
            times: usize::MAX,
            pause: Duration::from_millis(100),
            ..Reply::bytes("application/json", " ")
        }),
        ("late", |keys| Reply { after: Duration::from_secs(40), ..Reply::json(&keys) }),
        ("compressed", |keys| Reply::json(&keys).with("content-encoding", "gzip")),
        ("redirected", |_| {
            Reply { status: 302, ..Reply::json(&json!({})) }.with("location", "/_matrix/key/v2/server")
        }),
        ("not JSON", |_| Reply::bytes("application/json", "{\"verify_keys\":")),
        ("deep", |_| Reply::bytes("application/json", "[".repeat(200_000))),
    ];
    std::thread::scope(|scope| {
        for (what, lie) in lies {
            scope.spawn(move || {
                let mallory = Mallory::new();
                let keys = honest(&mallory);
                mallory.on("key", move |_| Some(lie(keys.clone())));
                mallory.get(here, "v1/query/profile?user_id=@a:b").refused(401, "M_UNAUTHORIZED");
                let asked = mallory.seen("key").len();
                assert!(asked <= 2, "{what}: asked {asked} times");
            });
        }
        // Meanwhile others are heard.
        let scene = Scene::new();
        scene.settle();
    });
}

#[test]
fn attack_56_answers_that_are_huge_or_endless_are_given_up() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let endless = Reply { times: usize::MAX, ..Reply::bytes("application/json", vec![b' '; 1 << 20]) };
    mallory.always("profile", endless);
    let answer = alice.get(&format!("v3/profile/{}", enc(&mallory.user("eve"))));
    assert!(answer.status() >= 400, "{}", answer.describe());
    mallory.always("directory", Reply::bytes("application/json", "{\"room_id\":".repeat(200_000)));
    let answer = alice.get(&format!("v3/directory/room/{}", enc(&format!("#x:{}", mallory.name()))));
    assert!(answer.status() >= 400, "{}", answer.describe());
    alice.get("v3/account/whoami").done();
}

#[test]
fn attack_59_a_body_of_a_kind_that_is_not_spoken_is_no_request() {
    let (here, mallory) = (shared(), Mallory::new());
    let alice = here.register("alice");
    let room = alice.create_public_room();
    let parts = format!("--edge\r\nContent-Disposition: form-data; name=x\r\n\r\n{}\r\n", "x".repeat(1_000));
    let multipart = format!("{}--edge--\r\n", parts.repeat(3_000));
    let kind = [("content-type", "multipart/form-data; boundary=edge")];
    for path in [
        format!("v3/rooms/{}/send/m.room.message/1", enc(&room)),
        format!("v3/user/{}/account_data/x", alice.id_in_path()),
    ] {
        let answer = alice.send_bytes(Method::PUT, &path, &kind, multipart.clone());
        answer.refused(400, "M_NOT_JSON");
        let bearer = format!("Bearer {}", alice.token());
        let headers = [kind[0], ("authorization", bearer.as_str())];
        let path = format!("/_matrix/client/{path}");
        // Refused by its length, before it came: whoever still sends may find the connection closed.
        if let Ok(answer) = alice.link().send(&Method::PUT, &path, &headers, "x".repeat(9 << 20)) {
            answer.refused(413, "M_TOO_LARGE");
        }
    }
    let target = format!("/_matrix/federation/v1/send/{}", number());
    let said = mallory.ask_text(here, Method::PUT, &target, Some(&multipart));
    assert!(said.status() == 400 || said.status() == 413, "{}", said.describe());
    // A compressed body is not unpacked, so none can swell.
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let answer = alice.send_bytes(Method::PUT, "v3/user/x/account_data/x", &headers, vec![0x1f, 0x8b, 8, 0]);
    assert!((400..500).contains(&answer.status()), "{}", answer.describe());
}

#[test]
fn attack_60_a_malformed_invite_breaks_only_itself() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let deep = serde_json::from_str::<Value>(&format!("{}{}", "[".repeat(100), "]".repeat(100))).unwrap();
    let shown: Vec<Value> = vec![
        json!(["x", 1, null, [], {}]),
        json!([{ "type": "m.room.name" }]),
        json!([{ "type": 1, "state_key": 2, "sender": 3, "content": 4 }]),
        json!([{ "type": "m.room.name", "state_key": "", "sender": eve, "content": { "name": deep } }]),
        json!([{ "type": "m.room.name", "state_key": "", "sender": "nobody", "content": {} }]),
        json!([{ "type": "m.room.create", "state_key": "", "sender": eve, "content": "x", "origin_server_ts": -1 }]),
        json!(vec![
            json!({ "type": "m.room.topic", "state_key": "", "sender": eve, "content": { "topic": "x".repeat(60_000) } });
            60
        ]),
        json!({}),
        json!("x"),
        Value::Null,
    ];
    let other = alice.create_public_room();
    for (n, state) in shown.into_iter().enumerate() {
        let room = mallory.create_room(&eve, "10");
        let kept = mallory.room(&room);
        // A member event of odd content is allowed by the rules.
        let content = json!({ "membership": "invite", "displayname": n, "avatar_url": ["x"], "is_direct": "yes",
            "reason": {}, "third_party_invite": null });
        let mut content = content;
        content.as_object_mut().unwrap().remove("third_party_invite");
        let invite = mallory.seal(&kept, kept.draft(&eve, "m.room.member", Some(alice.id()), content));
        let body = json!({ "room_version": "10", "event": invite.json, "invite_room_state": state });
        let path = format!("v2/invite/{}/{}", enc(&room), enc(&invite.id));
        let said = mallory.put(here, &path, &body);
        assert!(said.status() < 500, "{n}: {}", said.describe());
        let loose = alice.loose();
        for query in ["timeout=0", "timeout=0&full_state=true"] {
            let answer = loose.link().send(
                &Method::GET,
                &format!("/_matrix/client/v3/sync?{query}"),
                &[("authorization", &format!("Bearer {}", alice.token()))],
                "",
            );
            let answer = answer.unwrap();
            assert_eq!(answer.status(), 200, "{n}: {}", answer.describe());
            assert!(answer.body()["rooms"]["join"][&other].is_object(), "{n}");
        }
        let list = json!({ "lists": { "all": { "ranges": [[0, 50]], "timeline_limit": 1, "required_state": [["*", "*"]] } } });
        let answer = loose.link().send(
            &Method::POST,
            "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
            &[("authorization", &format!("Bearer {}", alice.token())), ("content-type", "application/json")],
            list.to_string(),
        );
        assert_eq!(answer.unwrap().status(), 200, "{n}");
    }
}

#[test]
fn attack_61_invalid_device_keys_stop_neither_others_nor_the_servers_own_words() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let broken = [
        json!({ "device_keys": { eve: { "D": { "user_id": alice.id(), "device_id": "E", "algorithms": 1, "keys": [] } } } }),
        json!({ "device_keys": { eve: "x", alice.id(): { "D": {} } }, "master_keys": { eve: [] } }),
        json!({ "device_keys": [] }),
        json!("x"),
    ];
    let asked = json!({ "device_keys": { eve: [], alice.id(): [] } });
    for answer in broken {
        mallory.always("query", Reply::json(&answer));
        mallory
            .always("devices", Reply::json(&json!({ "user_id": eve, "stream_id": "x", "devices": answer })));
        let update = json!({ "edu_type": "m.device_list_update", "content": { "user_id": eve, "device_id": "D",
            "stream_id": number(), "keys": answer, "prev_id": [] } });
        let nonsense = json!({ "edu_type": "m.device_list_update", "content": answer });
        mallory.transact(here, &[], &[update, nonsense]).done();
        let told = alice.post("v3/keys/query", asked.clone()).ok();
        assert!(
            told["device_keys"][eve].as_object().is_none_or(|devices| !devices.contains_key("E")),
            "{told}"
        );
        let said = alice.send_text(room, "still heard");
        mallory.until(room, "alice is heard", |room| room.has(&said));
    }
    scene.settle();
}

#[test]
fn attack_62_pages_of_events_that_are_not_shown_do_not_end_a_history() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let first = alice.send_text(room, "the first");
    mallory.until(room, "alice is heard", |room| room.has(&first));
    let kept = mallory.room(room);
    // A hundred and fifty that are rejected, as many that are soft-failed, and some that a filter leaves out.
    let rejected: Vec<_> = (0..150)
        .map(|n| {
            let content = json!({ "users": { eve: 100 }, "n": n });
            mallory.seal(&kept, kept.draft(eve, "m.room.power_levels", Some(""), content))
        })
        .collect();
    for some in rejected.chunks(50) {
        mallory.transact(here, &some.iter().collect::<Vec<_>>(), &[]).done();
    }
    fate(here, &rejected[149].id, "is rejected");
    alice.about_member(room, "kick", eve).done();
    let failed: Vec<_> = (0..150)
        .map(|n| {
            mallory.seal(&kept, kept.draft(eve, "m.room.message", None, text(&format!("from the past {n}"))))
        })
        .collect();
    for some in failed.chunks(50) {
        mallory.transact(here, &some.iter().collect::<Vec<_>>(), &[]).done();
    }
    fate(here, &failed[149].id, "is soft-failed");
    for n in 0..30 {
        alice.send(room, "org.example.other", json!({ "n": n }));
    }
    let last = alice.send_text(room, "the last");
    let filter = enc(&json!({ "types": ["m.room.message", "m.room.create"] }).to_string());
    for query in ["limit=5".to_owned(), format!("limit=5&filter={filter}")] {
        let all = pages(alice, room, &query);
        assert!(all.iter().any(|event| event["event_id"] == last.as_str()));
        assert!(all.iter().any(|event| event["event_id"] == first.as_str()), "{query}");
        assert!(all.iter().any(|event| event["type"] == "m.room.create"), "{query}");
        assert!(!all.iter().any(|event| event["content"]["body"].to_string().contains("from the past")));
    }
    // A server that pages gets to the beginning as well.
    mallory.join(here, room, &mallory.user("fay"));
    let mut from = last;
    for _ in 0..40 {
        let path = format!("v1/backfill/{}?limit=20&v={}", enc(room), enc(&from));
        let told = mallory.get(here, &path).ok();
        let told = told["pdus"].as_array().unwrap();
        if told.iter().any(|event| event["type"] == "m.room.create") {
            return;
        }
        let oldest = told.last().expect("there is more");
        from = crate::room::id_of("10", oldest);
    }
    panic!("the beginning does not come");
}

/// All events of a room, page by page from the latest.
fn pages(who: &Client, room: &str, query: &str) -> Vec<Value> {
    let (mut all, mut from) = (Vec::new(), String::new());
    for _ in 0..400 {
        let page = who.messages(room, &format!("dir=b&{query}{from}"));
        all.extend(page["chunk"].as_array().unwrap().clone());
        match page["end"].as_str() {
            Some(end) => from = format!("&from={}", enc(end)),
            None => return all,
        }
    }
    panic!("the history does not end");
}

/// A control for all of these: the hostile server, honest, can be joined by afterwards.
#[test]
fn attack_56_after_all_that_an_honest_server_is_believed() {
    let (here, mallory): (&Server, _) = (shared(), Mallory::new());
    let room = mallory.create_room(&mallory.user("eve"), "11");
    try_join(&here.register("alice"), &room, &mallory).done();
}

#[test]
fn attack_55_requests_that_make_no_sense_are_answered_with_an_error_of_the_specification() {
    let (here, mallory) = (shared(), Mallory::new());
    let long = "x".repeat(10_000);
    let wrong = ["x", "%00", "%FF", "!", "@", "$", "%20", "..", long.as_str()];
    for id in wrong {
        for path in [
            format!("v1/make_join/{id}/{id}"),
            format!("v1/make_leave/{id}/{id}"),
            format!("v1/make_knock/{id}/{id}"),
            format!("v1/state/{id}"),
            format!("v1/state/{id}?event_id={id}"),
            format!("v1/state_ids/{id}?event_id={id}"),
            format!("v1/event/{id}"),
            format!("v1/event_auth/{id}/{id}"),
            format!("v1/backfill/{id}?v={id}&limit={id}"),
            format!("v1/timestamp_to_event/{id}?ts={id}&dir={id}"),
            format!("v1/hierarchy/{id}?suggested_only={id}"),
            format!("v1/query/profile?user_id={id}"),
            format!("v1/query/directory?room_alias={id}"),
            format!("v1/user/devices/{id}"),
            format!("v1/publicRooms?limit={id}&since={id}"),
            format!("v1/media/thumbnail/{id}?width={id}"),
        ] {
            let answer = mallory.get(here, &path);
            assert!(answer.status() < 500, "{}", answer.describe());
            assert!(answer.status() == 200 || answer.errcode().is_some(), "{}", answer.describe());
        }
        for path in [
            format!("v2/send_join/{id}/{id}"),
            format!("v2/send_leave/{id}/{id}"),
            format!("v1/send_knock/{id}/{id}"),
            format!("v2/invite/{id}/{id}"),
            format!("v1/exchange_third_party_invite/{id}"),
        ] {
            for body in
                [json!({}), json!({ "room_version": 1, "event": [] }), json!({ "event": { "type": {} } })]
            {
                let answer = mallory.put(here, &path, &body);
                assert!((400..500).contains(&answer.status()), "{}", answer.describe());
                assert!(answer.errcode().is_some(), "{}", answer.describe());
            }
        }
    }
}
