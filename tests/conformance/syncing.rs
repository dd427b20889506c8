//! Syncing and filtering (specification: syncing; filtering; lazy-loading room members).

use super::*;

fn joined<'a>(answer: &'a Value, room: &str) -> &'a Value {
    &answer["rooms"]["join"][room]
}

#[test]
fn a_first_sync_has_the_rooms_their_state_and_their_latest_messages() {
    let (alice, bob, room) = two_in_a_room();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "The Den" }));
    for n in 0..30 {
        alice.send_text(&room, &n.to_string());
    }
    let answer = bob.sync(None);
    let shown = joined(&answer, &room);
    let messages = bodies(&timeline(&answer, &room));
    assert_eq!(messages.last().unwrap(), "29");
    assert_eq!(shown["timeline"]["limited"], true);
    assert!(shown["timeline"]["prev_batch"].is_string());
    let kinds = fields(&events_of(&shown["state"]), "type");
    for kind in ["m.room.create", "m.room.name", "m.room.member", "m.room.power_levels"] {
        assert!(kinds.contains(&kind.to_owned()), "{kind} in {kinds:?}");
    }
}

#[test]
fn state_and_timeline_do_not_overlap() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "name": "x" }));
    let answer = alice.sync(None);
    let state = fields(&events_of(&joined(&answer, &room)["state"]), "event_id");
    let shown = fields(&timeline(&answer, &room), "event_id");
    assert!(state.iter().all(|id| !shown.contains(id)));
}

#[test]
fn a_sync_on_has_only_what_is_new() {
    let (alice, bob, room) = two_in_a_room();
    alice.send_text(&room, "old");
    let since = bob.now();
    alice.send_text(&room, "new");
    let answer = bob.sync(Some(&since));
    assert_eq!(bodies(&timeline(&answer, &room)), ["new"]);
    assert!(events_of(&joined(&answer, &room)["state"]).is_empty());
    let answer = bob.sync(answer["next_batch"].as_str());
    assert!(answer["rooms"]["join"].get(&room).is_none());
}

#[test]
fn the_same_token_gives_the_same_again() {
    let (alice, bob, room) = two_in_a_room();
    let since = bob.now();
    alice.send_text(&room, "new");
    assert_eq!(bodies(&timeline(&bob.sync(Some(&since)), &room)), ["new"]);
    assert_eq!(bodies(&timeline(&bob.sync(Some(&since)), &room)), ["new"]);
}

#[test]
fn a_waiting_sync_is_answered_when_something_happens() {
    let (alice, bob, room) = two_in_a_room();
    let since = bob.now();
    let waiting = std::thread::spawn({
        let room = room.clone();
        move || bob.sync_until(&since, |answer| bodies(&timeline(answer, &room)) == ["now"])
    });
    alice.send_text(&room, "now");
    waiting.join().unwrap();
}

#[test]
fn a_sync_that_waits_for_nothing_ends_with_a_token() {
    let alice = user("alice");
    let since = alice.now();
    let answer = alice.sync_with(&format!("timeout=50&since={since}"));
    assert!(answer["next_batch"].is_string());
}

#[test]
fn a_token_that_is_none_is_refused() {
    let answer = user("alice").get("v3/sync?since=nonsense");
    assert_eq!(answer.status(), 400, "{}", answer.describe());
}

#[test]
fn a_room_joined_meanwhile_comes_whole() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({ "preset": "public_chat", "name": "The Den" }));
    let since = bob.now();
    bob.join(&room);
    let answer = bob.sync(Some(&since));
    let mut all = events_of(&joined(&answer, &room)["state"]);
    all.extend(timeline(&answer, &room));
    let kinds = fields(&all, "type");
    assert!(kinds.contains(&"m.room.create".to_owned()) && kinds.contains(&"m.room.name".to_owned()));
    assert!(all.iter().any(|event| event["state_key"] == bob.id()));
}

#[test]
fn full_state_comes_also_with_a_token() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "name": "x" }));
    let since = alice.now();
    let answer = alice.sync_with(&format!("full_state=true&since={since}"));
    let kinds = fields(&events_of(&joined(&answer, &room)["state"]), "type");
    assert!(kinds.contains(&"m.room.name".to_owned()), "{kinds:?}");
}

#[test]
fn state_that_changed_in_a_gap_is_told_before_the_timeline() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "name": "one" }));
    let since = alice.now();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "two" }));
    for n in 0..5 {
        alice.send_text(&room, &n.to_string());
    }
    let filter = json!({ "room": { "timeline": { "limit": 2 } } });
    let answer = alice.sync_filtered(Some(&since), &filter);
    assert_eq!(bodies(&timeline(&answer, &room)), ["3", "4"]);
    let shown = joined(&answer, &room);
    assert_eq!(shown["timeline"]["limited"], true);
    let state = events_of(&shown["state"]);
    assert!(state.iter().any(|event| event["content"]["name"] == "two"), "{state:?}");
}

#[test]
fn a_gap_is_filled_from_prev_batch() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    for n in 0..6 {
        alice.send_text(&room, &n.to_string());
    }
    let answer = alice.sync_filtered(None, &json!({ "room": { "timeline": { "limit": 2 } } }));
    let from = text(&joined(&answer, &room)["timeline"]["prev_batch"]);
    let page = alice.messages(&room, &format!("dir=b&limit=3&from={}", enc(&from)));
    assert_eq!(bodies(&array(&page["chunk"])), ["3", "2", "1"]);
}

#[test]
fn state_after_the_timeline_is_told_if_asked_for() {
    let alice = user("alice");
    let room = alice.create_room(json!({ "name": "one" }));
    let since = alice.now();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "two" }));
    let answer = alice.sync_with(&format!("use_state_after=true&since={since}"));
    let shown = joined(&answer, &room);
    assert!(shown.get("state").is_none());
    assert_eq!(events_of(&shown["state_after"])[0]["content"]["name"], "two");
}

#[test]
fn a_room_that_was_left_is_told_once() {
    let (_, bob, room) = two_in_a_room();
    let since = bob.now();
    bob.leave(&room);
    let answer = bob.sync(Some(&since));
    let left = &answer["rooms"]["leave"][&room];
    assert!(events_of(&left["timeline"]).iter().any(|event| event["content"]["membership"] == "leave"));
    let answer = bob.sync(answer["next_batch"].as_str());
    assert!(answer["rooms"]["leave"].get(&room).is_none());
}

#[test]
fn rooms_left_before_are_in_a_first_sync_only_if_asked_for() {
    let (_, bob, room) = two_in_a_room();
    bob.leave(&room);
    assert!(bob.sync(None)["rooms"]["leave"].get(&room).is_none());
    let filter = json!({ "room": { "include_leave": true } });
    assert!(bob.sync_filtered(None, &filter)["rooms"]["leave"].get(&room).is_some());
}

#[test]
fn whoever_left_is_not_told_what_happens_after() {
    let (alice, bob, room) = two_in_a_room();
    let since = bob.now();
    bob.leave(&room);
    alice.send_text(&room, "gone at last");
    let left = bob.sync(Some(&since))["rooms"]["leave"][&room].clone();
    assert!(bodies(&events_of(&left["timeline"])).is_empty());
}

#[test]
fn the_kicked_and_the_banned_are_told() {
    let (alice, bob, room) = two_in_a_room();
    let since = bob.now();
    alice.ban(&room, &bob);
    bob.sync_until(&since, |answer| answer["rooms"]["leave"].get(&room).is_some());
}

#[test]
fn the_summary_counts_members_and_names_heroes() {
    let (alice, bob, room) = two_in_a_room();
    alice.invite(&room, &user("carol"));
    let answer = alice.sync(None);
    let summary = &joined(&answer, &room)["summary"];
    assert_eq!(summary["m.joined_member_count"], 2);
    assert_eq!(summary["m.invited_member_count"], 1);
    assert!(array(&summary["m.heroes"]).contains(&json!(bob.id())));
    assert!(!array(&summary["m.heroes"]).contains(&json!(alice.id())));
}

// ---- filters

#[test]
fn a_filter_is_kept_and_read_back() {
    let alice = user("alice");
    let path = format!("v3/user/{}/filter", alice.id_in_path());
    let filter = json!({ "room": { "timeline": { "limit": 3, "types": ["m.room.message"] } } });
    let id = text(&alice.post(&path, filter.clone()).ok()["filter_id"]);
    assert!(!id.starts_with('{'));
    assert_eq!(alice.get(&format!("{path}/{id}")).ok(), filter);
    alice.get(&format!("{path}/999999")).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_filter_is_its_users_alone() {
    let (alice, bob) = two_users();
    let path = format!("v3/user/{}/filter", alice.id_in_path());
    bob.post(&path, json!({})).refused(403, "M_FORBIDDEN");
    let id = text(&alice.post(&path, json!({})).ok()["filter_id"]);
    bob.get(&format!("{path}/{id}")).refused(403, "M_FORBIDDEN");
}

#[test]
fn a_kept_filter_filters() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let path = format!("v3/user/{}/filter", alice.id_in_path());
    let filter = json!({ "room": { "timeline": { "types": ["test.wanted"] } } });
    let id = text(&alice.post(&path, filter).ok()["filter_id"]);
    alice.send(&room, "test.wanted", json!({}));
    alice.send_text(&room, "unwanted");
    let answer = alice.sync_with(&format!("filter={id}"));
    assert_eq!(fields(&timeline(&answer, &room), "type"), ["test.wanted"]);
}

#[test]
fn types_and_senders_are_wanted_and_unwanted() {
    let (alice, bob, room) = two_in_a_room();
    alice.send_text(&room, "hers");
    bob.send_text(&room, "his");
    bob.send(&room, "test.thing", json!({ "body": "thing" }));
    let shown = |filter: Value| {
        let answer = alice.sync_filtered(None, &json!({ "room": { "timeline": filter } }));
        bodies(&timeline(&answer, &room))
    };
    assert_eq!(shown(json!({ "senders": [bob.id()] })), ["his", "thing"]);
    assert_eq!(shown(json!({ "not_senders": [bob.id()] })), ["hers"]);
    assert_eq!(shown(json!({ "types": ["m.room.*"] })), ["hers", "his"]);
    assert_eq!(shown(json!({ "types": ["*"], "not_types": ["m.room.message"] })), ["thing"]);
    assert_eq!(shown(json!({ "types": [] })), [""; 0]);
}

#[test]
fn events_with_and_without_a_url_are_told_apart() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    alice.send_text(&room, "text");
    alice.send(
        &room,
        "m.room.message",
        json!({ "msgtype": "m.file", "body": "file", "url": "mxc://here.test/x" }),
    );
    let shown = |with: bool| {
        let filter = json!({ "room": { "timeline": { "contains_url": with, "types": ["m.room.message"] } } });
        bodies(&timeline(&alice.sync_filtered(None, &filter), &room))
    };
    assert_eq!(shown(true), ["file"]);
    assert_eq!(shown(false), ["text"]);
}

#[test]
fn rooms_are_wanted_and_unwanted() {
    let alice = user("alice");
    let (one, two) = (alice.create_room(json!({})), alice.create_room(json!({})));
    let answer = alice.sync_filtered(None, &json!({ "room": { "rooms": [one] } }));
    assert!(answer["rooms"]["join"].get(&one).is_some() && answer["rooms"]["join"].get(&two).is_none());
    let answer = alice.sync_filtered(None, &json!({ "room": { "not_rooms": [one] } }));
    assert!(answer["rooms"]["join"].get(&one).is_none() && answer["rooms"]["join"].get(&two).is_some());
}

#[test]
fn event_fields_leave_the_rest_out() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    alice.send_text(&room, "x");
    let filter = json!({ "event_fields": ["type", "content.body"], "room": { "timeline": { "limit": 1 } } });
    let path = format!("v3/sync?filter={}", enc(&filter.to_string()));
    // What is left out is required by the specification's data for whole events.
    let answer = alice.link().send(
        &Method::GET,
        &format!("/_matrix/client/{path}"),
        &[("authorization", &format!("Bearer {}", alice.token()))],
        "",
    );
    let event = timeline(&answer.unwrap().ok(), &room)[0].clone();
    assert_eq!(event["content"], json!({ "body": "x" }));
    assert!(event.get("sender").is_none(), "{event}");
}

#[test]
fn a_filter_that_is_none_is_refused() {
    let alice = user("alice");
    assert_eq!(alice.get("v3/sync?filter=%7Bbroken").status(), 400);
    let path = format!("v3/user/{}/filter", alice.id_in_path());
    assert_eq!(alice.post(&path, json!({ "room": { "timeline": { "limit": "many" } } })).status(), 400);
}

// ---- lazily loaded members

fn lazy() -> Value {
    json!({ "room": { "state": { "lazy_load_members": true }, "timeline": { "limit": 1 } } })
}

fn members(part: &Value) -> Vec<String> {
    let events = events_of(part);
    let mut keys: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "m.room.member")
        .map(|event| text(&event["state_key"]))
        .collect();
    keys.sort();
    keys
}

#[test]
fn lazily_only_senders_and_oneself_are_told() {
    let (alice, bob) = two_users();
    let carol = user("carol");
    let room = alice.create_room_with(&[&bob, &carol]);
    bob.send_text(&room, "x");
    let answer = alice.sync_filtered(None, &lazy());
    assert_eq!(members(&joined(&answer, &room)["state"]), [alice.id(), bob.id()]);
}

#[test]
fn a_sender_who_was_not_told_yet_comes_with_the_message() {
    let (alice, bob) = two_users();
    let carol = user("carol");
    let room = alice.create_room_with(&[&bob, &carol]);
    bob.send_text(&room, "x");
    let since = text(&alice.sync_filtered(None, &lazy())["next_batch"]);
    carol.send_text(&room, "y");
    let answer = alice.sync_filtered(Some(&since), &lazy());
    assert_eq!(members(&joined(&answer, &room)["state"]), [carol.id()]);
    bob.send_text(&room, "z");
    let answer = alice.sync_filtered(answer["next_batch"].as_str(), &lazy());
    assert!(members(&joined(&answer, &room)["state"]).is_empty());
}

#[test]
fn history_too_is_told_with_its_senders() {
    let (alice, bob, room) = two_in_a_room();
    bob.send_text(&room, "x");
    alice.send_text(&room, "y");
    let filter = json!({ "lazy_load_members": true });
    let page = alice.messages(&room, &format!("dir=b&limit=2&filter={}", enc(&filter.to_string())));
    let mut senders = fields(&array(&page["state"]), "state_key");
    senders.sort();
    assert_eq!(senders, [alice.id(), bob.id()]);
}

#[test]
fn a_sync_token_is_good_after_a_restart() {
    let server = Server::start(PROGRAM);
    let alice = server.register("alice");
    let room = alice.create_room(json!({}));
    let since = alice.now();
    alice.send_text(&room, "before");
    server.kill();
    server.start_again();
    alice.send_text(&room, "after");
    assert_eq!(bodies(&timeline(&alice.sync(Some(&since)), &room)), ["before", "after"]);
}
