//! What gateways are told, and when.

use crate::{
    SETTINGS,
    gateway::{Gateway, until, url_of},
    keys_of,
    listen::Reply,
    pusher, server, server_with, set_pusher, two_in_a_room,
};
use postern_world::{Seat, Server};
use serde_json::{Value, json};

#[test]
fn a_message_is_told_with_all_that_the_specification_has() {
    let gateway = Gateway::start();
    let (alice, bob, room) = two_in_a_room();
    alice.set_state(&room, "m.room.name", "", json!({ "name": "Mission Control" }));
    set_pusher(&bob, pusher("key", &gateway.url()));
    let event = alice.send_text(&room, "I'm floating");
    let told = gateway.until_event(&event);
    let device = &told["devices"][0];
    assert!(device["pushkey_ts"].as_u64().unwrap() > 1_600_000_000, "{told}");
    assert_eq!(
        told,
        json!({
            "event_id": event,
            "room_id": room,
            "type": "m.room.message",
            "sender": alice.id(),
            "sender_display_name": told["sender_display_name"],
            "room_name": "Mission Control",
            "prio": "high",
            "content": { "msgtype": "m.text", "body": "I'm floating" },
            "counts": { "unread": 1 },
            "devices": [{
                "app_id": "org.example.app",
                "pushkey": "key",
                "pushkey_ts": device["pushkey_ts"],
                "data": { "extra": { "for": "the gateway" } },
                "tweaks": { "sound": "default" },
            }],
        })
    );
}

#[test]
fn an_app_that_wants_ids_only_gets_ids_only() {
    let gateway = Gateway::start();
    let (alice, bob, room) = two_in_a_room();
    let mut wanted = pusher("key", &gateway.url());
    wanted["data"]["format"] = "event_id_only".into();
    set_pusher(&bob, wanted);
    let told = gateway.until_event(&alice.send_text(&room, "secret"));
    assert!(!told.to_string().contains("secret") && !told.to_string().contains("alice"), "{told}");
    assert_eq!((&told["room_id"], &told["counts"]), (&json!(room), &json!({ "unread": 1 })));
    assert_eq!(told["devices"][0]["data"]["format"], "event_id_only");
}

#[test]
fn a_server_may_tell_gateways_ids_only() {
    let gateway = Gateway::start();
    let server = server_with(&[("push.content", "event_id_only")]);
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let room = alice.create_room_with(&[&bob]);
    set_pusher(&bob, pusher("key", &gateway.url()));
    let told = gateway.until_event(&alice.send_text(&room, "secret"));
    assert!(!told.to_string().contains("secret") && told.get("sender").is_none(), "{told}");
}

#[test]
fn what_is_urgent_is_told_from_what_is_not() {
    let gateway = Gateway::start();
    let (alice, bob, _) = two_in_a_room();
    let carol = server().register("carol");
    let room = alice.create_room_with(&[&bob, &carol]);
    set_pusher(&bob, pusher("key", &gateway.url()));
    let plain = gateway.until_event(&alice.send_text(&room, "hello"));
    assert_eq!((&plain["prio"], &plain["devices"][0]["tweaks"]), (&json!("low"), &json!({})));
    let mention = json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [bob.id()] } });
    let mention = gateway.until_event(&alice.send(&room, "m.room.message", mention));
    assert_eq!(mention["prio"], "high");
    assert_eq!(mention["devices"][0]["tweaks"], json!({ "sound": "default", "highlight": true }));
    let call = json!({ "call_id": "1", "version": "1", "lifetime": 1, "party_id": "x", "offer": { "type": "offer", "sdp": "" } });
    let call = gateway.until_event(&alice.send(&room, "m.call.invite", call));
    assert_eq!(call["counts"], json!({ "unread": 3, "missed_calls": 1 }));
    assert_eq!(call["devices"][0]["tweaks"], json!({ "sound": "ring" }));
}

#[test]
fn an_invite_is_told_with_who_is_meant() {
    let gateway = Gateway::start();
    let (alice, bob, _) = two_in_a_room();
    set_pusher(&bob, pusher("key", &gateway.url()));
    let room = alice.create_room(json!({ "name": "here", "invite": [bob.id()] }));
    let told = gateway.until(|heard| heard["room_id"] == room.as_str());
    assert_eq!((&told["type"], &told["user_is_target"]), (&json!("m.room.member"), &json!(true)));
    assert_eq!(told["content"]["membership"], "invite");
    // Answered, it is not unread any more.
    bob.join(&room);
    gateway.until_unread(0);
}

#[test]
fn what_is_read_is_told_by_the_count_alone() {
    let gateway = Gateway::start();
    let (alice, bob, room) = two_in_a_room();
    set_pusher(&bob, pusher("key", &gateway.url()));
    let first = alice.send_text(&room, "one");
    let second = alice.send_text(&room, "two");
    assert_eq!(gateway.until_event(&second)["counts"]["unread"], 2);
    bob.read(&room, &first);
    gateway.until_unread(1);
    bob.send_text(&room, "read it");
    let told = gateway.until_unread(0);
    assert!(told.get("room_id").is_none() && told["devices"][0].get("tweaks").is_none(), "{told}");
}

#[test]
fn nobody_is_told_of_what_the_rules_do_not_notify_of() {
    let gateway = Gateway::start();
    let (alice, bob, room) = two_in_a_room();
    set_pusher(&bob, pusher("key", &gateway.url()));
    set_pusher(&alice, pusher("hers", &gateway.url()));
    alice.send(&room, "m.room.message", json!({ "msgtype": "m.notice", "body": "beep" }));
    bob.put(
        "v3/user/-/account_data/m.ignored_user_list".replace('-', &bob.id_in_path()).as_str(),
        json!({ "ignored_users": { alice.id(): {} } }),
    )
    .done();
    alice.send_text(&room, "ignored");
    bob.put(
        "v3/user/-/account_data/m.ignored_user_list".replace('-', &bob.id_in_path()).as_str(),
        json!({ "ignored_users": {} }),
    )
    .done();
    let last = alice.send_text(&room, "heard");
    gateway.until_event(&last);
    assert_eq!(gateway.events(), [json!(last)]);
}

#[test]
fn a_gateway_that_is_down_is_tried_again_and_keeps_nobody_waiting() {
    let seat = Seat::take();
    let up = Gateway::start();
    let (alice, bob, room) = two_in_a_room();
    set_pusher(&bob, pusher("down", &url_of(&seat)));
    set_pusher(&bob, pusher("up", &up.url()));
    let first = alice.send_text(&room, "one");
    up.until_event(&first);
    let second = alice.send_text(&room, "two");
    up.until_event(&second);
    let late = Gateway::at(&seat, |_| Reply::json(&json!({ "rejected": [] })));
    late.until_event(&second);
    assert_eq!(late.events(), [json!(first), json!(second)]);
}

#[test]
fn errors_of_a_gateway_are_tried_again_but_what_it_calls_wrong_is_dropped() {
    let (alice, bob, room) = two_in_a_room();
    let tries = std::sync::atomic::AtomicU32::new(0);
    let gateway = Gateway::answering(move |told| {
        let body = told["content"]["body"].as_str().unwrap_or_default();
        match body {
            "wrong" => Reply::error(400, "M_BAD_JSON"),
            "later" if tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 => {
                Reply::error(502, "M_UNKNOWN")
            }
            _ => Reply::json(&json!({ "rejected": [] })),
        }
    });
    set_pusher(&bob, pusher("key", &gateway.url()));
    alice.send_text(&room, "wrong");
    alice.send_text(&room, "later");
    let last = alice.send_text(&room, "last");
    gateway.until_event(&last);
    let said: Vec<Value> =
        gateway.heard().iter().filter_map(|heard| heard.get("content")?.get("body").cloned()).collect();
    assert_eq!(said, ["wrong", "later", "later", "later", "last"]);
}

#[test]
fn a_rejected_push_key_is_removed_and_no_other() {
    let (alice, bob, room) = two_in_a_room();
    let gateway = Gateway::answering(|told| {
        // It also names one it was not asked about, which is not its to reject.
        let rejects = told["devices"][0]["pushkey"] == "gone";
        Reply::json(&json!({ "rejected": if rejects { vec!["gone", "kept"] } else { vec![] } }))
    });
    set_pusher(&bob, pusher("gone", &gateway.url()));
    set_pusher(&bob, pusher("kept", &gateway.url()));
    alice.send_text(&room, "one");
    until("the pusher is removed", || (keys_of(&bob) == ["kept"]).then_some(()));
    let last = alice.send_text(&room, "two");
    let told = gateway.until(|heard| heard["event_id"] == last.as_str());
    assert_eq!(told["devices"][0]["pushkey"], "kept");
}

#[test]
fn what_could_not_be_told_before_a_power_cut_is_told_after_it() {
    let seat = Seat::take();
    let server: Server = server_with(&SETTINGS);
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let room = alice.create_room_with(&[&bob]);
    set_pusher(&bob, pusher("key", &url_of(&seat)));
    let event = alice.send_text(&room, "one");
    // It was followed once the list has it.
    assert_eq!(bob.get("v3/notifications").ok()["notifications"][0]["event"]["event_id"], event.as_str());
    server.kill();
    let gateway = Gateway::at(&seat, |_| Reply::json(&json!({ "rejected": [] })));
    server.start_again();
    gateway.until_event(&event);
}

#[test]
fn what_was_read_or_taken_back_before_it_could_be_told_is_not_told() {
    let seat = Seat::take();
    // Left alone for long enough that all is over when it is tried again.
    let slow =
        [("push.retry_min_ms", "10000"), ("push.retry_max_ms", "10000"), ("log.level", "postern_push=debug")];
    let server = server_with(&slow);
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let room = alice.create_room_with(&[&bob]);
    set_pusher(&bob, pusher("key", &url_of(&seat)));
    alice.send_text(&room, "read");
    until("the gateway is not reached", || server.log().contains("was not reached").then_some(()));
    bob.read(&room, &alice.send_text(&room, "read too"));
    let regretted = alice.send_text(&room, "regretted");
    alice.redact(&room, &regretted);
    let last = alice.send_text(&room, "last");
    let _ = bob.get("v3/notifications").ok();
    let gateway = Gateway::at(&seat, |_| Reply::json(&json!({ "rejected": [] })));
    gateway.until_event(&last);
    assert_eq!(gateway.events(), [json!(last)]);
}

#[test]
fn attack_58_a_push_gateway_that_leads_elsewhere_is_not_followed() {
    let inside = Gateway::start();
    let url = inside.url();
    let gateway =
        Gateway::answering(move |_| Reply { status: 307, ..Reply::json(&json!({})).with("location", &url) });
    let (alice, bob, room) = two_in_a_room();
    set_pusher(&bob, pusher("key", &gateway.url()));
    let event = alice.send_text(&room, "x");
    gateway.until_event(&event);
    // It is tried again where the pusher says, and only there.
    until("it is tried again", || (gateway.heard().len() > 2).then_some(()));
    assert!(inside.heard().is_empty());
}

#[test]
fn attack_58_a_push_gateway_on_the_inside_is_not_connected_to() {
    let gateway = Gateway::start();
    let server = server_with(&[("push.allow_addresses", ""), ("log.level", "warn,postern_push=debug")]);
    let (alice, bob) = (server.register("alice"), server.register("bob"));
    let room = alice.create_room_with(&[&bob]);
    set_pusher(&bob, pusher("key", &gateway.url()));
    alice.send_text(&room, "x");
    until("the gateway is not reached", || server.log().contains("private or special").then_some(()));
    assert!(gateway.heard().is_empty());
}
