//! The hostile server when it is honest: what these show to work is what the attacks are variations of.

use crate::{Mallory, Scene, listen::Reply, shared, try_join, until};
use postern_world::{enc, timeline};
use serde_json::{Value, json};

#[test]
fn an_honest_server_joins_and_both_hear_each_other() {
    for version in ["1", "3", "6", "9", "10", "11", "12"] {
        let scene = Scene::of_version(version);
        let Scene { here, mallory, alice, eve, room } = &scene;
        assert_eq!(alice.state(room, "m.room.member", eve).ok()["membership"], "join");
        let hello = alice.send_text(room, "hello");
        mallory.until(room, "alice is heard", |room| room.has(&hello));
        let since = alice.now();
        let said = mallory.text(room, eve, "hello yourself");
        mallory.tell(here, &said);
        alice.sync_until_event(&since, room, &said.id);
    }
}

#[test]
fn somebody_joins_a_room_of_an_honest_server_and_both_hear_each_other() {
    for version in ["2", "6", "10", "11", "12"] {
        let (here, mallory) = (shared(), Mallory::new());
        let eve = mallory.user("eve");
        let room = mallory.create_room(&eve, version);
        mallory.text(&room, &eve, "before");
        let alice = here.register("alice");
        try_join(&alice, &room, &mallory).done();
        let hello = alice.send_text(&room, "hello");
        mallory.until(&room, "alice is heard", |room| room.has(&hello));
        mallory.say(here, &alice, &room, &eve);
        let history = alice.messages(&room, "dir=b&limit=50").to_string();
        assert!(history.contains("m.room.create") && history.contains("before"), "{history}");
    }
}

#[test]
fn what_an_honest_server_did_not_send_is_fetched_from_it() {
    let scene = Scene::new();
    let Scene { here, mallory, alice, eve, room } = &scene;
    let withheld: Vec<_> = (0..5).map(|n| mallory.text(room, eve, &n.to_string())).collect();
    mallory.say(here, alice, room, eve);
    for pdu in &withheld {
        alice.event(room, &pdu.id).done();
    }
}

#[test]
fn an_honest_invite_arrives_and_is_accepted() {
    let (here, mallory) = (shared(), Mallory::new());
    let (eve, alice) = (mallory.user("eve"), here.register("alice"));
    let room = mallory.create_room(&eve, "10");
    let since = alice.now();
    let invite =
        mallory.make(&room, &eve, "m.room.member", Some(alice.id()), json!({ "membership": "invite" }));
    let body = json!({ "room_version": "10", "event": invite.json, "invite_room_state": [] });
    mallory.put(here, &format!("v2/invite/{}/{}", enc(&room), enc(&invite.id)), &body).done();
    alice.sync_until(&since, |answer| answer["rooms"]["invite"][&room].is_object());
    alice.join(&room);
    assert_eq!(mallory.room(&room).membership(alice.id()), "join");
    alice.leave(&room);
    until(|| mallory.room(&room).membership(alice.id()) == "leave", "alice leaves");
}

#[test]
fn somebody_invites_and_knocks_at_an_honest_server() {
    let (here, mallory) = (shared(), Mallory::new());
    let (eve, alice) = (mallory.user("eve"), here.register("alice"));
    let room = alice.create_room(json!({ "preset": "private_chat" }));
    alice.about_member(&room, "invite", &eve).done();
    mallory.join(here, &room, &eve);
    let rule = json!({ "join_rule": "knock" });
    let knocked = mallory.create_room_with(&eve, "10", json!({}), &[("m.room.join_rules", "", rule)]);
    let path = format!("/_matrix/client/v3/knock/{}?via={}", enc(&knocked), enc(mallory.name()));
    alice.post(&path, json!({})).done();
    assert_eq!(mallory.room(&knocked).membership(alice.id()), "knock");
}

#[test]
fn what_is_said_while_a_server_joins_reaches_it() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "10" }));
    let proposed = mallory.get(here, &format!("v1/make_join/{}/{}?ver=10", enc(&room), enc(&eve)));
    let between = alice.send_text(&room, "between the proposal and the join");
    let join = mallory.seal(&crate::room::Room::new(&room, "10"), proposed["event"].clone());
    let path = format!("v2/send_join/{}/{}", enc(&room), enc(&join.id));
    let told = mallory.put(here, &path, &join.json).ok();
    assert!(!told.to_string().contains(&between), "it is no part of the state");
    // An event that follows on both comes; what it follows on can be asked for.
    let names = |pdu: &serde_json::Value| {
        let prev = pdu["prev_events"].to_string();
        prev.contains(&between) && prev.contains(&join.id)
    };
    until(
        || {
            mallory
                .seen("send")
                .iter()
                .any(|asked| asked.json()["pdus"].as_array().is_some_and(|all| all.iter().any(names)))
        },
        "the ends are joined",
    );
    let missing = json!({ "earliest_events": [join.id], "latest_events": [], "limit": 10 });
    mallory.post(here, &format!("v1/get_missing_events/{}", enc(&room)), &missing).done();
    mallory.get(here, &format!("v1/event/{}", enc(&between))).done();
}

#[test]
fn what_was_missed_for_a_while_is_fetched_and_shown_in_its_order() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "10" }));
    mallory.join(here, &room, &eve);
    let since = alice.now();
    let missed: Vec<String> = (0..120).map(|n| mallory.text(&room, &eve, &n.to_string()).id).collect();
    mallory.say(here, &alice, &room, &eve);
    let page = alice.messages(&room, &format!("dir=f&limit=200&from={since}"));
    let shown: Vec<&str> =
        page["chunk"].as_array().unwrap().iter().filter_map(|event| event["event_id"].as_str()).collect();
    assert_eq!(shown[..120], missed[..]);
}

#[test]
fn a_timeline_begins_after_a_gap_that_is_too_wide_to_fill() {
    let (here, mallory) = (shared(), Mallory::new());
    let (alice, eve) = (here.register("alice"), mallory.user("eve"));
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "10" }));
    mallory.join(here, &room, &eve);
    alice.send_text(&room, "before");
    let since = alice.now();
    let told: Vec<_> = (0..30).map(|n| mallory.text(&room, &eve, &n.to_string())).skip(20).collect();
    let answer = json!({ "events": told.iter().map(|pdu| &pdu.json).collect::<Vec<_>>() });
    mallory.always("get_missing_events", Reply::json(&answer));
    let last = mallory.say(here, &alice, &room, &eve);
    alice.sync_until_event(&since, &room, &last);
    let wide = json!({ "room": { "timeline": { "limit": 100 } } });
    let mut begin = String::new();
    for since in [None, Some(since.as_str())] {
        let answer = alice.sync_filtered(since, &wide);
        let part = &answer["rooms"]["join"][&room]["timeline"];
        assert_eq!(part["limited"], true);
        let shown: Vec<Value> =
            timeline(&answer, &room).into_iter().map(|event| event["event_id"].clone()).collect();
        let after_gap: Vec<Value> =
            told.iter().map(|pdu| &pdu.id).chain([&last]).map(|id| json!(id)).collect();
        assert_eq!(shown, after_gap);
        part["prev_batch"].as_str().unwrap().clone_into(&mut begin);
    }
    let before = alice.messages(&room, &format!("dir=b&limit=1&from={begin}"));
    assert_eq!(before["chunk"][0]["content"]["body"], "before");
}
