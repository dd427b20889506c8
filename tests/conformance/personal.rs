//! Account data, tags, ignored users, push rules and unread counts, reports (specification: client config; room tagging;
//! ignoring users; push notifications; reporting content).

use super::*;

fn data(of: &Client, kind: &str) -> String {
    format!("v3/user/{}/account_data/{kind}", of.id_in_path())
}

fn room_data(of: &Client, room: &str, kind: &str) -> String {
    format!("v3/user/{}/rooms/{}/account_data/{kind}", of.id_in_path(), enc(room))
}

#[test]
fn account_data_is_kept_and_told_to_the_other_devices() {
    let alice = user("alice");
    let phone = alice.log_in_again();
    let since = phone.now();
    alice.put(&data(&alice, "test.kept"), json!({ "n": 1 })).done();
    assert_eq!(phone.get(&data(&alice, "test.kept")).ok(), json!({ "n": 1 }));
    phone.sync_until(&since, |answer| {
        events_of(&answer["account_data"]).contains(&json!({ "type": "test.kept", "content": { "n": 1 } }))
    });
}

#[test]
fn account_data_of_a_room_is_kept_apart() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    alice.put(&room_data(&alice, &room, "test.kept"), json!({ "n": 2 })).done();
    assert_eq!(alice.get(&room_data(&alice, &room, "test.kept")).ok(), json!({ "n": 2 }));
    alice.get(&data(&alice, "test.kept")).refused(404, "M_NOT_FOUND");
    let shown = events_of(&alice.sync(None)["rooms"]["join"][&room]["account_data"]);
    assert!(shown.contains(&json!({ "type": "test.kept", "content": { "n": 2 } })));
}

#[test]
fn account_data_is_ones_own() {
    let (alice, bob) = two_users();
    bob.get(&data(&alice, "test.kept")).refused(403, "M_FORBIDDEN");
    bob.put(&data(&alice, "test.kept"), json!({})).refused(403, "M_FORBIDDEN");
}

#[test]
fn push_rules_are_not_set_as_account_data() {
    let alice = user("alice");
    assert_eq!(alice.put(&data(&alice, "m.push_rules"), json!({})).status(), 405);
}

#[test]
fn tags_are_put_listed_and_taken_off() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    let tags = format!("v3/user/{}/rooms/{}/tags", alice.id_in_path(), enc(&room));
    let since = alice.now();
    alice.put(&format!("{tags}/m.favourite"), json!({ "order": 0.25 })).done();
    alice.put(&format!("{tags}/u.work"), json!({})).done();
    assert_eq!(alice.get(&tags).ok()["tags"], json!({ "m.favourite": { "order": 0.25 }, "u.work": {} }));
    alice.sync_until(&since, |answer| {
        let shown = events_of(&answer["rooms"]["join"][&room]["account_data"]);
        shown.iter().any(|event| event["type"] == "m.tag")
    });
    alice.delete(&format!("{tags}/u.work")).done();
    assert_eq!(alice.get(&tags).ok()["tags"], json!({ "m.favourite": { "order": 0.25 } }));
}

fn ignore(alice: &Client, bob: &Client) {
    let content = json!({ "ignored_users": { bob.id(): {} } });
    alice.put(&data(alice, "m.ignored_user_list"), content).done();
}

#[test]
fn messages_of_ignored_users_are_not_shown_but_their_state_is() {
    let (alice, bob, room) = two_in_a_room();
    ignore(&alice, &bob);
    let since = alice.now();
    bob.send_text(&room, "unheard");
    bob.put(&format!("v3/profile/{}/displayname", bob.id_in_path()), json!({ "displayname": "B" })).done();
    let answer = alice.sync_until(&since, |answer| !timeline(answer, &room).is_empty());
    assert!(bodies(&timeline(&answer, &room)).is_empty());
    assert!(timeline(&answer, &room).iter().any(|event| event["type"] == "m.room.member"));
    assert!(bodies(&array(&alice.messages(&room, "dir=b")["chunk"])).is_empty());
}

#[test]
fn invitations_of_ignored_users_are_not_shown() {
    let (alice, bob) = two_users();
    ignore(&alice, &bob);
    let room = bob.create_room(json!({ "invite": [alice.id()] }));
    assert!(alice.sync(None)["rooms"]["invite"].get(&room).is_none());
}

// ---- push rules

#[test]
fn the_predefined_rules_are_there() {
    let rules = user("alice").get("v3/pushrules/").ok();
    let ids = |kind: &str| fields(&array(&rules["global"][kind]), "rule_id");
    assert_eq!(ids("override")[0], ".m.rule.master");
    for rule in [
        ".m.rule.suppress_notices",
        ".m.rule.invite_for_me",
        ".m.rule.member_event",
        ".m.rule.is_user_mention",
    ] {
        assert!(ids("override").contains(&rule.to_owned()), "{rule}");
    }
    for rule in [".m.rule.message", ".m.rule.encrypted", ".m.rule.room_one_to_one"] {
        assert!(ids("underride").contains(&rule.to_owned()), "{rule}");
    }
}

#[test]
fn a_rule_is_made_changed_disabled_and_deleted() {
    let alice = user("alice");
    let path = "v3/pushrules/global/content/tea";
    alice.put(path, json!({ "pattern": "tea", "actions": ["notify"] })).done();
    let rule = alice.get(path).ok();
    assert_eq!(
        (&rule["pattern"], &rule["enabled"], &rule["default"]),
        (&json!("tea"), &json!(true), &json!(false))
    );
    alice.put(&format!("{path}/enabled"), json!({ "enabled": false })).done();
    assert_eq!(alice.get(&format!("{path}/enabled")).ok(), json!({ "enabled": false }));
    alice.put(&format!("{path}/actions"), json!({ "actions": [] })).done();
    assert_eq!(alice.get(&format!("{path}/actions")).ok(), json!({ "actions": [] }));
    alice.delete(path).done();
    alice.get(path).refused(404, "M_NOT_FOUND");
}

#[test]
fn a_new_rule_goes_where_it_is_told_to() {
    let alice = user("alice");
    let put = |id: &str, query: &str| {
        let body = json!({ "conditions": [], "actions": [] });
        alice.put(&format!("v3/pushrules/global/override/{id}{query}"), body)
    };
    put("a", "").done();
    put("b", "").done();
    put("c", "?after=b").done();
    put("d", "?before=a").done();
    let own = |rules: &Value| -> Vec<String> {
        fields(&array(&rules["global"]["override"]), "rule_id")
            .into_iter()
            .filter(|id| !id.starts_with('.'))
            .collect()
    };
    assert_eq!(own(&alice.get("v3/pushrules/").ok()), ["b", "c", "d", "a"]);
    assert_eq!(put("e", "?before=nothing").status(), 404);
}

#[test]
fn predefined_rules_cannot_be_made_or_deleted() {
    let alice = user("alice");
    let path = "v3/pushrules/global/override/.m.rule.master";
    assert!(alice.put(path, json!({ "conditions": [], "actions": [] })).status() >= 400);
    assert!(alice.delete(path).status() >= 400);
    assert!(
        alice.put("v3/pushrules/global/content/.own", json!({ "pattern": "x", "actions": [] })).status()
            >= 400
    );
}

#[test]
fn a_changed_rule_wakes_a_sync() {
    let alice = user("alice");
    let since = alice.now();
    alice.put("v3/pushrules/global/content/tea", json!({ "pattern": "tea", "actions": ["notify"] })).done();
    alice.sync_until(&since, |answer| {
        events_of(&answer["account_data"]).iter().any(|event| event["type"] == "m.push_rules")
    });
}

fn unread(who: &Client, room: &str) -> (u64, u64) {
    let counts = who.sync(None)["rooms"]["join"][room]["unread_notifications"].clone();
    let count = |name: &str| counts[name].as_u64().unwrap_or(0);
    (count("notification_count"), count("highlight_count"))
}

#[test]
fn messages_of_others_are_counted_until_they_are_read() {
    let (alice, bob, room) = two_in_a_room();
    bob.read(&room, &alice.send_text(&room, "zero"));
    alice.send_text(&room, "one");
    let last = alice.send_text(&room, "two");
    assert_eq!(unread(&bob, &room), (2, 0));
    assert_eq!(unread(&alice, &room), (0, 0));
    bob.read(&room, &last);
    assert_eq!(unread(&bob, &room), (0, 0));
}

#[test]
fn ones_own_message_says_that_all_before_was_read() {
    let (alice, bob, room) = two_in_a_room();
    alice.send_text(&room, "one");
    bob.send_text(&room, "read it");
    assert_eq!(unread(&bob, &room), (0, 0));
}

#[test]
fn mentions_are_highlighted_and_notices_are_not_counted() {
    let (alice, bob, room) = two_in_a_room();
    bob.read(&room, &alice.send_text(&room, "zero"));
    let mention = json!({ "msgtype": "m.text", "body": "you!", "m.mentions": { "user_ids": [bob.id()] } });
    alice.send(&room, "m.room.message", mention);
    alice.send(&room, "m.room.message", json!({ "msgtype": "m.notice", "body": "beep" }));
    assert_eq!(unread(&bob, &room), (1, 1));
    let all = json!({ "msgtype": "m.text", "body": "all", "m.mentions": { "room": true } });
    alice.send(&room, "m.room.message", all);
    assert_eq!(unread(&bob, &room), (2, 2));
}

#[test]
fn a_muted_room_counts_nothing() {
    let (alice, bob, room) = two_in_a_room();
    bob.read(&room, &alice.send_text(&room, "zero"));
    let rule = json!({ "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": room }], "actions": [] });
    bob.put(&format!("v3/pushrules/global/override/{}", enc(&room)), rule).done();
    alice.send_text(&room, "one");
    assert_eq!(unread(&bob, &room), (0, 0));
}

#[test]
fn threads_are_counted_apart_if_asked_for() {
    let (alice, bob, room) = two_in_a_room();
    let root = alice.send_text(&room, "root");
    bob.read(&room, &root);
    let reply = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": { "rel_type": "m.thread", "event_id": root } });
    alice.send(&room, "m.room.message", reply);
    let filter = json!({ "room": { "timeline": { "unread_thread_notifications": true } } });
    let shown = bob.sync_filtered(None, &filter)["rooms"]["join"][&room].clone();
    assert_eq!(shown["unread_notifications"]["notification_count"], 0);
    assert_eq!(shown["unread_thread_notifications"][&root]["notification_count"], 1);
}

#[test]
fn pushers_are_set_listed_and_removed() {
    let alice = user("alice");
    let mut pusher = json!({
        "pushkey": "key", "kind": "http", "app_id": "test.app", "app_display_name": "app", "lang": "en",
        "device_display_name": "device", "data": { "url": "https://push.test/_matrix/push/v1/notify" },
    });
    alice.post("v3/pushers/set", pusher.clone()).done();
    let listed = alice.get("v3/pushers").ok();
    assert_eq!(listed["pushers"][0]["pushkey"], "key");
    pusher["kind"] = Value::Null;
    alice.post("v3/pushers/set", pusher).done();
    assert_eq!(alice.get("v3/pushers").ok(), json!({ "pushers": [] }));
}

#[test]
fn a_pusher_needs_the_specified_address() {
    let pusher = json!({
        "pushkey": "key", "kind": "http", "app_id": "test.app", "app_display_name": "app", "lang": "en",
        "device_display_name": "device", "data": {},
    });
    assert_eq!(user("alice").post("v3/pushers/set", pusher).status(), 400);
}

// ---- reports and search

#[test]
fn rooms_events_and_users_are_reported() {
    let (alice, bob, room) = two_in_a_room();
    let event = bob.send_text(&room, "x");
    alice
        .post(&Client::room_path(&room, &format!("report/{}", enc(&event))), json!({ "reason": "spam" }))
        .done();
    alice.post(&Client::room_path(&room, "report"), json!({ "reason": "spam" })).done();
    alice.post(&format!("v3/users/{}/report", bob.id_in_path()), json!({ "reason": "spam" })).done();
}

#[test]
fn what_one_cannot_see_one_cannot_report() {
    let (alice, _, room) = two_in_a_room();
    let event = alice.send_text(&room, "x");
    let path = Client::room_path(&room, &format!("report/{}", enc(&event)));
    user("carol").post(&path, json!({ "reason": "spam" })).refused(404, "M_NOT_FOUND");
    alice.post(&Client::room_path(&room, "report/$nothing"), json!({})).refused(404, "M_NOT_FOUND");
}

fn search(who: &Client, room_events: Value) -> Value {
    let body = json!({ "search_categories": { "room_events": room_events } });
    who.post("v3/search", body).ok()["search_categories"]["room_events"].clone()
}

#[test]
fn messages_are_found_in_ones_rooms_with_what_stands_around_them() {
    let (alice, bob, room) = two_in_a_room();
    alice.send_text(&room, "before");
    let found = alice.send_text(&room, "the okapi sleeps");
    alice.send_text(&room, "after");
    let context = json!({ "before_limit": 1, "after_limit": 1 });
    let answer = search(&bob, json!({ "search_term": "okapi", "event_context": context }));
    assert_eq!(answer["count"], 1);
    let result = &answer["results"][0];
    assert_eq!(result["result"]["event_id"], found);
    assert_eq!(bodies(&array(&result["context"]["events_before"])), ["before"]);
    assert_eq!(bodies(&array(&result["context"]["events_after"])), ["after"]);
    assert_eq!(search(&user("carol"), json!({ "search_term": "okapi" }))["count"], 0);
}

#[test]
fn results_come_in_pages_newest_first() {
    let alice = user("alice");
    let room = alice.create_room(json!({}));
    for n in 0..3 {
        alice.send_text(&room, &format!("numbat {n}"));
    }
    let request = json!({ "search_term": "numbat", "order_by": "recent", "filter": { "limit": 2 } });
    let first = search(&alice, request.clone());
    let shown = |answer: &Value| -> Vec<String> {
        array(&answer["results"]).iter().map(|each| text(&each["result"]["content"]["body"])).collect()
    };
    assert_eq!(shown(&first), ["numbat 2", "numbat 1"]);
    let body = json!({ "search_categories": { "room_events": request } });
    let path = format!("v3/search?next_batch={}", enc(first["next_batch"].as_str().unwrap()));
    let rest = alice.post(&path, body).ok()["search_categories"]["room_events"].clone();
    assert_eq!(shown(&rest), ["numbat 0"]);
}
