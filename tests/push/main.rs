//! Push, from what is said to what a push gateway hears: the built program, and gateways in this process (or Sygnal) that it
//! reaches over TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../border/enclaves.rs"]
mod enclaves;
mod gateway;
mod labels;
mod list;
#[path = "../mallory/listen.rs"]
#[allow(dead_code, reason = "gateways need less of it than a hostile server")]
mod listen;
mod pushers;
mod telling;
mod unread;

use postern_world::{Client, Server};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");

/// Settings with which gateways in this process are reached, and tried again soon.
const SETTINGS: [(&str, &str); 3] =
    [("push.allow_addresses", "127.0.0.0/8"), ("push.retry_min_ms", "50"), ("push.retry_max_ms", "200")];

/// A server with these settings on top.
fn server_with(more: &[(&str, &str)]) -> Server {
    let mut all = SETTINGS.to_vec();
    all.extend_from_slice(more);
    Server::federating(PROGRAM, &all)
}

/// The server that tests with the usual settings share.
fn server() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| server_with(&[]))
}

/// Two new users, in a room of the first.
fn two_in_a_room() -> (Client, Client, String) {
    let (alice, bob) = (server().register("alice"), server().register("bob"));
    let room = alice.create_room_with(&[&bob]);
    (alice, bob, room)
}

/// A pusher with a push key, to a gateway.
fn pusher(key: &str, url: &str) -> Value {
    json!({
        "pushkey": key, "kind": "http", "app_id": "org.example.app", "app_display_name": "app", "lang": "en",
        "device_display_name": "phone", "profile_tag": "p", "data": { "url": url, "extra": { "for": "the gateway" } },
    })
}

/// Sets a pusher beside those of other tests' users with the same push key.
fn set_pusher(who: &Client, mut pusher: Value) {
    pusher["append"] = true.into();
    who.post("v3/pushers/set", pusher).done();
}

/// The push keys of somebody's pushers.
fn keys_of(who: &Client) -> Vec<String> {
    let pushers = who.get("v3/pushers").ok()["pushers"].clone();
    pushers.as_array().unwrap().iter().map(|one| one["pushkey"].as_str().unwrap().to_owned()).collect()
}
