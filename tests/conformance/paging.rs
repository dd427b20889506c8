//! Reading history: pages, context, events by time (specification: getting events for a room; pagination; event context).

use super::*;

fn talk(alice: &Client, room: &str, n: usize) -> Vec<String> {
    (0..n).map(|n| alice.send_text(room, &n.to_string())).collect()
}

#[test]
fn pages_go_back_to_the_beginning_and_end_there() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    talk(&alice, &room, 7);
    let (mut all, mut from) = (Vec::new(), String::new());
    for _ in 0..20 {
        let page = alice.messages(&room, &format!("dir=b&limit=3{from}"));
        all.extend(array(&page["chunk"]));
        match page["end"].as_str() {
            Some(end) => from = format!("&from={}", enc(end)),
            None => break,
        }
    }
    assert_eq!(bodies(&all), ["6", "5", "4", "3", "2", "1", "0"]);
    assert_eq!(all.last().unwrap()["type"], "m.room.create");
}

#[test]
fn pages_go_forward_too() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let from = alice.now();
    talk(&alice, &room, 4);
    let page = alice.messages(&room, &format!("dir=f&limit=3&from={}", enc(&from)));
    assert_eq!(bodies(&array(&page["chunk"])), ["0", "1", "2"]);
    let page = alice.messages(&room, &format!("dir=f&limit=3&from={}", enc(page["end"].as_str().unwrap())));
    assert_eq!(bodies(&array(&page["chunk"])), ["3"]);
}

#[test]
fn a_page_has_ten_events_if_nothing_is_said() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    talk(&alice, &room, 15);
    assert_eq!(array(&alice.messages(&room, "dir=b")["chunk"]).len(), 10);
}

#[test]
fn a_page_stops_where_it_is_told_to() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    talk(&alice, &room, 2);
    let to = alice.now();
    talk(&alice, &room, 2);
    let page = alice.messages(&room, &format!("dir=b&limit=10&to={}", enc(&to)));
    assert_eq!(bodies(&array(&page["chunk"])), ["1", "0"]);
}

#[test]
fn pages_are_filtered() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    talk(&alice, &room, 2);
    alice.send(&room, "test.thing", json!({}));
    let filter = json!({ "types": ["test.thing"] });
    let page = alice.messages(&room, &format!("dir=b&filter={}", enc(&filter.to_string())));
    assert_eq!(fields(&array(&page["chunk"]), "type"), ["test.thing"]);
}

#[test]
fn a_direction_has_to_be_said() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    assert_eq!(alice.get(&Client::room_path(&room, "messages")).status(), 400);
    assert_eq!(alice.get(&Client::room_path(&room, "messages?dir=sideways")).status(), 400);
}

#[test]
fn a_place_that_is_none_is_refused() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    assert_eq!(alice.get(&Client::room_path(&room, "messages?dir=b&from=nonsense")).status(), 400);
}

#[test]
fn strangers_read_no_history() {
    let (alice, bob) = two_users();
    let room = alice.create_room(json!({}));
    bob.get(&Client::room_path(&room, "messages?dir=b")).refused(403, "M_FORBIDDEN");
    let nowhere = bob.get(&Client::room_path("!nothing:here.test", "messages?dir=b"));
    assert!(matches!(nowhere.status(), 403 | 404), "{}", nowhere.describe());
}

#[test]
fn whoever_left_reads_up_to_then() {
    let (alice, bob, room) = two_in_a_room();
    alice.send_text(&room, "before");
    bob.leave(&room);
    alice.send_text(&room, "after");
    assert_eq!(bodies(&array(&bob.messages(&room, "dir=b")["chunk"])), ["before"]);
}

#[test]
fn an_event_is_shown_with_what_stands_around_it() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let events = talk(&alice, &room, 7);
    let context = alice.get(&Client::room_path(&room, &format!("context/{}?limit=4", enc(&events[3])))).ok();
    assert_eq!(context["event"]["content"]["body"], "3");
    assert_eq!(bodies(&array(&context["events_before"])), ["2", "1"]);
    assert_eq!(bodies(&array(&context["events_after"])), ["4", "5"]);
    assert!(array(&context["state"]).iter().any(|event| event["type"] == "m.room.create"));
    let from = text(&context["end"]);
    let page = alice.messages(&room, &format!("dir=f&from={}", enc(&from)));
    assert_eq!(bodies(&array(&page["chunk"])), ["6"]);
    let from = text(&context["start"]);
    let page = alice.messages(&room, &format!("dir=b&limit=1&from={}", enc(&from)));
    assert_eq!(bodies(&array(&page["chunk"])), ["0"]);
}

#[test]
fn the_context_may_be_empty() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let events = talk(&alice, &room, 3);
    let context = alice.get(&Client::room_path(&room, &format!("context/{}?limit=0", enc(&events[1])))).ok();
    assert!(array(&context["events_before"]).is_empty() && array(&context["events_after"]).is_empty());
}

#[test]
fn there_is_no_context_of_nothing_nor_for_strangers() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "x");
    alice.get(&Client::room_path(&room, "context/$nothing")).refused(404, "M_NOT_FOUND");
    let answer = user("bob").get(&Client::room_path(&room, &format!("context/{}", enc(&event))));
    assert!(matches!(answer.status(), 403 | 404), "{}", answer.describe());
}

#[test]
fn an_event_is_found_by_its_time_in_either_direction() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let events = talk(&alice, &room, 3);
    let ts = alice.event(&room, &events[1]).ok()["origin_server_ts"].as_u64().unwrap();
    let find = |dir: &str, ts: u64| {
        alice.get(&format!("v1/rooms/{}/timestamp_to_event?dir={dir}&ts={ts}", enc(&room)))
    };
    let found = find("f", ts).ok();
    assert!(found["origin_server_ts"].as_u64().unwrap() >= ts);
    let found = find("b", ts).ok();
    assert!(found["origin_server_ts"].as_u64().unwrap() <= ts);
    find("f", ts + 3_600_000).refused(404, "M_NOT_FOUND");
    find("b", 1).refused(404, "M_NOT_FOUND");
}

// ---- history visibility

fn room_with_visibility(alice: &Client, visibility: &str) -> String {
    alice.create_room(json!({ "preset": "public_chat", "initial_state": [
        { "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": visibility } },
    ] }))
}

fn seen_by_a_joiner(visibility: &str) -> Vec<String> {
    let (alice, bob) = two_users();
    let room = room_with_visibility(&alice, visibility);
    alice.send_text(&room, "before the invitation");
    alice.invite(&room, &bob);
    alice.send_text(&room, "while invited");
    bob.join(&room);
    alice.send_text(&room, "after the join");
    let mut seen = bodies(&array(&bob.messages(&room, "dir=b&limit=50")["chunk"]));
    seen.reverse();
    seen
}

#[test]
fn shared_history_is_seen_by_whoever_joins() {
    let all = ["before the invitation", "while invited", "after the join"];
    assert_eq!(seen_by_a_joiner("shared"), all);
    assert_eq!(seen_by_a_joiner("world_readable"), all);
}

#[test]
fn history_for_the_invited_is_seen_from_the_invitation_on() {
    assert_eq!(seen_by_a_joiner("invited"), ["while invited", "after the join"]);
}

#[test]
fn history_for_the_joined_is_seen_from_the_join_on() {
    assert_eq!(seen_by_a_joiner("joined"), ["after the join"]);
}

#[test]
fn world_readable_history_is_read_by_strangers() {
    let (alice, bob) = two_users();
    let room = room_with_visibility(&alice, "world_readable");
    let event = alice.send_text(&room, "open");
    assert_eq!(bodies(&array(&bob.messages(&room, "dir=b")["chunk"])), ["open"]);
    bob.event(&room, &event).done();
    bob.state(&room, "m.room.create", "").done();
}

#[test]
fn one_event_keeps_to_the_visibility_of_its_time() {
    let (alice, bob) = two_users();
    let room = room_with_visibility(&alice, "joined");
    let hidden = alice.send_text(&room, "hidden");
    alice.set_state(&room, "m.room.history_visibility", "", json!({ "history_visibility": "shared" }));
    let shared = alice.send_text(&room, "shared");
    bob.join(&room);
    bob.event(&room, &shared).done();
    let answer = bob.event(&room, &hidden);
    assert!(matches!(answer.status(), 403 | 404), "{}", answer.describe());
}
