//! Relations: reactions, edits, references, threads (specification: forming relationships between events; event
//! annotations; event replacements; threading).

use super::*;

fn related(kind: &str, to: &str) -> Value {
    json!({ "rel_type": kind, "event_id": to })
}

fn react(alice: &Client, room: &str, to: &str, key: &str) -> String {
    let relation = json!({ "rel_type": "m.annotation", "event_id": to, "key": key });
    alice.send(room, "m.reaction", json!({ "m.relates_to": relation }))
}

fn edit(alice: &Client, room: &str, what: &str, body: &str) -> String {
    alice.send(
        room,
        "m.room.message",
        json!({
            "msgtype": "m.text", "body": format!("* {body}"),
            "m.new_content": { "msgtype": "m.text", "body": body },
            "m.relates_to": related("m.replace", what),
        }),
    )
}

fn reply_in_thread(alice: &Client, room: &str, root: &str, body: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": related("m.thread", root) });
    alice.send(room, "m.room.message", content)
}

fn relations(alice: &Client, room: &str, event: &str, rest: &str) -> Value {
    alice.get(&format!("v1/rooms/{}/relations/{}{rest}", enc(room), enc(event))).ok()
}

#[test]
fn relations_are_listed_newest_first() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "tea?");
    let (one, two) = (react(&alice, &room, &event, "👍"), edit(&alice, &room, &event, "coffee?"));
    assert_eq!(fields(&array(&relations(&alice, &room, &event, "")["chunk"]), "event_id"), [two, one]);
}

#[test]
fn relations_are_listed_by_kind_and_type() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "tea?");
    let reaction = react(&alice, &room, &event, "👍");
    edit(&alice, &room, &event, "coffee?");
    let listed = |rest: &str| fields(&array(&relations(&alice, &room, &event, rest)["chunk"]), "event_id");
    assert_eq!(listed("/m.annotation"), std::slice::from_ref(&reaction));
    assert_eq!(listed("/m.annotation/m.reaction"), [reaction]);
    assert_eq!(listed("/m.annotation/m.room.message"), [""; 0]);
    assert_eq!(listed("/test.none"), [""; 0]);
}

#[test]
fn relations_come_in_pages_in_either_direction() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "x");
    let sent: Vec<String> = (0..5).map(|n| react(&alice, &room, &event, &n.to_string())).collect();
    let (mut all, mut from) = (Vec::new(), String::new());
    for _ in 0..5 {
        let page = relations(&alice, &room, &event, &format!("?dir=f&limit=2{from}"));
        all.extend(fields(&array(&page["chunk"]), "event_id"));
        match page["next_batch"].as_str() {
            Some(next) => from = format!("&from={}", enc(next)),
            None => break,
        }
    }
    assert_eq!(all, sent);
}

#[test]
fn relations_of_something_that_cannot_be_seen_are_not_listed() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "x");
    let path = format!("v1/rooms/{}/relations/{}", enc(&room), enc(&event));
    let answer = user("bob").get(&path);
    assert!(matches!(answer.status(), 403 | 404), "{}", answer.describe());
    let path = format!("v1/rooms/{}/relations/$nothing", enc(&room));
    alice.get(&path).refused(404, "M_NOT_FOUND");
}

#[test]
fn the_same_reaction_twice_is_refused() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    react(&alice, &room, &event, "👍");
    let relation = json!({ "rel_type": "m.annotation", "event_id": event, "key": "👍" });
    let content = json!({ "m.relates_to": relation });
    alice.try_send(&room, "m.reaction", content).refused(400, "M_DUPLICATE_ANNOTATION");
    react(&bob, &room, &event, "👍");
    react(&alice, &room, &event, "👎");
}

#[test]
fn a_redacted_reaction_is_no_relation_and_can_be_made_again() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "x");
    let reaction = react(&alice, &room, &event, "👍");
    alice.redact(&room, &reaction);
    assert!(array(&relations(&alice, &room, &event, "/m.annotation")["chunk"]).is_empty());
    react(&alice, &room, &event, "👍");
}

#[test]
fn the_newest_edit_is_bundled_and_the_original_stays() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "one");
    edit(&alice, &room, &event, "two");
    let last = edit(&alice, &room, &event, "three");
    let shown = alice.event(&room, &event).ok();
    assert_eq!(shown["content"]["body"], "one");
    let bundled = &shown["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(bundled["event_id"], last);
    assert_eq!(bundled["content"]["m.new_content"]["body"], "three");
}

#[test]
fn edits_by_others_or_of_another_type_do_not_count() {
    let (alice, bob, room) = two_in_a_room();
    let event = alice.send_text(&room, "one");
    edit(&bob, &room, &event, "two");
    let content = json!({ "m.new_content": { "body": "x" }, "m.relates_to": related("m.replace", &event) });
    alice.send(&room, "test.other", content);
    assert!(alice.event(&room, &event).ok()["unsigned"]["m.relations"].get("m.replace").is_none());
}

#[test]
fn a_redacted_edit_gives_way_to_the_one_before() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "one");
    let kept = edit(&alice, &room, &event, "two");
    let gone = edit(&alice, &room, &event, "three");
    alice.redact(&room, &gone);
    let shown = alice.event(&room, &event).ok();
    assert_eq!(shown["unsigned"]["m.relations"]["m.replace"]["event_id"], kept);
}

#[test]
fn references_are_bundled() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "x");
    let reference = alice.send(&room, "test.ref", json!({ "m.relates_to": related("m.reference", &event) }));
    let shown = alice.event(&room, &event).ok();
    assert_eq!(shown["unsigned"]["m.relations"]["m.reference"]["chunk"], json!([{ "event_id": reference }]));
}

#[test]
fn reactions_are_not_bundled() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "x");
    react(&alice, &room, &event, "👍");
    assert!(alice.event(&room, &event).ok()["unsigned"]["m.relations"].get("m.annotation").is_none());
}

#[test]
fn a_thread_is_bundled_with_its_root() {
    let (alice, bob, room) = two_in_a_room();
    let root = alice.send_text(&room, "root");
    reply_in_thread(&alice, &room, &root, "one");
    let last = reply_in_thread(&alice, &room, &root, "two");
    let thread = |who: &Client| who.event(&room, &root).ok()["unsigned"]["m.relations"]["m.thread"].clone();
    assert_eq!(thread(&alice)["count"], 2);
    assert_eq!(thread(&alice)["latest_event"]["event_id"], last);
    assert_eq!(thread(&alice)["current_user_participated"], true);
    assert_eq!(thread(&bob)["current_user_participated"], false);
}

#[test]
fn threads_are_listed_by_their_latest_reply() {
    let (alice, bob, room) = two_in_a_room();
    let (one, two) = (alice.send_text(&room, "one"), alice.send_text(&room, "two"));
    reply_in_thread(&bob, &room, &one, "x");
    reply_in_thread(&alice, &room, &two, "y");
    let listed = |query: &str| {
        let path = format!("v1/rooms/{}/threads{query}", enc(&room));
        fields(&array(&bob.get(&path).ok()["chunk"]), "event_id")
    };
    assert_eq!(listed(""), [two.clone(), one.clone()]);
    reply_in_thread(&alice, &room, &one, "z");
    assert_eq!(listed(""), [one.clone(), two]);
    assert_eq!(listed("?include=participated"), std::slice::from_ref(&one));
    assert_eq!(listed("?limit=1"), [one]);
}

#[test]
fn a_threads_events_are_its_relations() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let root = alice.send_text(&room, "root");
    let reply = reply_in_thread(&alice, &room, &root, "one");
    react(&alice, &room, &reply, "👍");
    let direct = relations(&alice, &room, &root, "?dir=f");
    assert_eq!(array(&direct["chunk"]).len(), 1);
    let deep = relations(&alice, &room, &root, "?dir=f&recurse=true");
    assert_eq!(array(&deep["chunk"]).len(), 2);
}

#[test]
fn a_thread_cannot_begin_within_a_thread() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let root = alice.send_text(&room, "root");
    let reply = reply_in_thread(&alice, &room, &root, "one");
    let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": related("m.thread", &reply) });
    let answer = alice.try_send(&room, "m.room.message", content);
    assert_eq!(answer.status(), 400, "{}", answer.describe());
}

#[test]
fn bundles_come_with_sync_messages_and_context() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let event = alice.send_text(&room, "one");
    let since = alice.now();
    let edited = edit(&alice, &room, &event, "two");
    let bundled = |event: &Value| event["unsigned"]["m.relations"]["m.replace"]["event_id"] == edited;
    let of = |events: Vec<Value>| events.into_iter().find(|shown| shown["event_id"] == event).unwrap();
    assert!(bundled(&of(array(&alice.messages(&room, "dir=b")["chunk"]))));
    assert!(bundled(&of(timeline(&alice.sync(None), &room))));
    let context = alice.get(&Client::room_path(&room, &format!("context/{}", enc(&event)))).ok();
    assert!(bundled(&context["event"]));
    assert_eq!(timeline(&alice.sync(Some(&since)), &room).len(), 1);
}
