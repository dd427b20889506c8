//! Setting pushers, and what ends them.

use crate::{
    gateway::{Gateway, until},
    keys_of, pusher, server, server_with, set_pusher, two_in_a_room,
};
use postern_world::{Client, Method};
use serde_json::{Value, json};

const URL: &str = "https://push.test/_matrix/push/v1/notify";

fn refused(who: &Client, pusher: Value, errcode: &str) {
    let _ = who.loose().post("v3/pushers/set", pusher).refused(400, errcode);
}

#[test]
fn what_a_client_set_is_listed_and_nothing_else() {
    let alice = server().register("alice");
    set_pusher(&alice, pusher("key", URL));
    assert_eq!(alice.get("v3/pushers").ok(), json!({ "pushers": [pusher("key", URL)] }));
}

#[test]
fn a_pusher_has_to_be_as_the_specification_says() {
    let alice = server().register("alice");
    for field in ["app_id", "pushkey", "kind", "app_display_name", "device_display_name", "lang", "data"] {
        let mut wrong = pusher("key", URL);
        wrong.as_object_mut().unwrap().remove(field);
        refused(&alice, wrong, "M_MISSING_PARAM");
    }
    for url in [
        "http://push.test/_matrix/push/v1/notify",
        "https://push.test/",
        "https://push.test/_matrix/push/v1/notify/x",
        "https://user@push.test/_matrix/push/v1/notify",
        "https://push.test/_matrix/push/v1/notify#x",
        "ftp://push.test/_matrix/push/v1/notify",
        "nonsense",
    ] {
        refused(&alice, pusher("key", url), "M_INVALID_PARAM");
    }
    refused(&alice, pusher(&"k".repeat(513), URL), "M_INVALID_PARAM");
    let mut long = pusher("key", URL);
    long["app_id"] = "a".repeat(65).into();
    refused(&alice, long, "M_INVALID_PARAM");
    let mut kind = pusher("key", URL);
    kind["kind"] = "email".into();
    refused(&alice, kind, "M_INVALID_PARAM");
    let mut large = pusher("key", URL);
    large["data"]["more"] = "x".repeat(1 << 16).into();
    assert_eq!(alice.post("v3/pushers/set", large).status(), 413);
    assert!(keys_of(&alice).is_empty());
    set_pusher(&alice, pusher(&"k".repeat(512), URL));
}

#[test]
fn an_account_has_so_many_pushers_and_no_more() {
    let server = server_with(&[("push.max_pushers_per_user", "2")]);
    let alice = server.register("alice");
    for key in ["1", "2", "1"] {
        set_pusher(&alice, pusher(key, URL));
    }
    refused(&alice, pusher("3", URL), "M_INVALID_PARAM");
    set_pusher(&alice, json!({ "pushkey": "1", "app_id": "org.example.app", "kind": null }));
    set_pusher(&alice, pusher("3", URL));
    assert_eq!(keys_of(&alice), ["2", "3"]);
}

#[test]
fn a_device_that_somebody_else_has_now_is_theirs_unless_they_say_otherwise() {
    let (alice, bob) = (server().register("alice"), server().register("bob"));
    let (key, shared) = (alice.id().to_owned(), bob.id().to_owned());
    for key in [&key, &shared] {
        set_pusher(&alice, pusher(key, URL));
    }
    bob.post("v3/pushers/set", pusher(&key, URL)).done();
    set_pusher(&bob, pusher(&shared, URL));
    assert_eq!(keys_of(&alice), [shared.as_str()]);
    assert_eq!(keys_of(&bob).len(), 2);
}

#[test]
fn a_pusher_goes_with_the_session_that_set_it() {
    let gateway = Gateway::start();
    let (alice, bob, room) = two_in_a_room();
    let (phone, tablet) = (bob.log_in_again(), bob.log_in_again());
    set_pusher(&bob, pusher("kept", &gateway.url()));
    set_pusher(&phone, pusher("phone", &gateway.url()));
    set_pusher(&tablet, pusher("tablet", &gateway.url()));
    phone.post("v3/logout", json!({})).done();
    // The same device, logged in anew: its former session is over.
    let _ = bob.log_in_with(json!({ "device_id": tablet.device() }));
    assert_eq!(keys_of(&bob), ["kept"]);
    gateway.until_event(&alice.send_text(&room, "hello"));
    assert!(gateway.heard().iter().all(|heard| heard["devices"][0]["pushkey"] == "kept"));
}

#[test]
fn a_changed_password_ends_the_pushers_of_other_sessions() {
    let alice = server().register("alice");
    let other = alice.log_in_again();
    set_pusher(&alice, pusher("mine", URL));
    set_pusher(&other, pusher("other", URL));
    alice
        .confirmed(Method::POST, "v3/account/password", json!({ "new_password": "another long password" }))
        .done();
    assert_eq!(keys_of(&alice), ["mine"]);
}

#[test]
fn a_pusher_that_is_set_again_is_told_at_once_where_its_gateway_was_mended() {
    let (alice, bob) = {
        // One failure, and it would be left alone for an hour.
        static SERVER: std::sync::OnceLock<postern_world::Server> = std::sync::OnceLock::new();
        let slow = [("push.retry_min_ms", "3600000"), ("push.retry_max_ms", "3600000")];
        let server = SERVER.get_or_init(|| server_with(&slow));
        (server.register("alice"), server.register("bob"))
    };
    let room = alice.create_room_with(&[&bob]);
    let broken = Gateway::answering(|_| crate::listen::Reply::error(500, "M_UNKNOWN"));
    set_pusher(&bob, pusher("key", &broken.url()));
    let event = alice.send_text(&room, "one");
    broken.until_event(&event);
    let mended = Gateway::start();
    until("the new gateway hears of it", || {
        set_pusher(&bob, pusher("key", &mended.url()));
        mended.heard().into_iter().find(|heard| heard["event_id"] == event.as_str())
    });
}
