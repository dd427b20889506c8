//! What end-to-end encryption needs of servers. The keys are none; servers only pass them on.

use crate::sides::{Pair, shared_room, until};
use postern_world::{Client, events_of};
use serde_json::{Value, json};

/// Keys of somebody's device, made of one that is none of theirs.
pub fn device_keys(who: &Client, key: &str) -> Value {
    json!({
        "user_id": who.id(),
        "device_id": who.device(),
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("ed25519:{}", who.device()): key, format!("curve25519:{}", who.device()): key },
        "signatures": { who.id(): { format!("ed25519:{}", who.device()): "c2ln" } },
    })
}

/// Gives somebody a master key for cross-signing; the key.
fn publish_master_key(who: &Client) -> Value {
    let master = json!({
        "user_id": who.id(),
        "usage": ["master"],
        "keys": { format!("ed25519:{KEY}"): KEY },
    });
    let path = "v3/keys/device_signing/upload";
    let mut answer = who.loose().post(path, json!({ "master_key": master }));
    if answer.status() == 401 {
        let auth = who.password_auth(&answer);
        answer = who.loose().post(path, json!({ "master_key": master, "auth": auth }));
    }
    answer.done();
    master
}

/// A public key; any point will do.
pub const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";

pub fn messages_reach_devices(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    shared_room(&alice, &bob);
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let since = to.now();
        let second = to.log_in_again();
        let since_second = second.now();
        let path = format!("v3/sendToDevice/org.example.note/{}", from.transaction());
        let message = json!({ "messages": { to.id(): { to.device(): { "secret": 1 } } } });
        for _ in 0..2 {
            // The second is a repetition.
            from.put(&path, message.clone()).done();
        }
        let mut seen = Vec::new();
        to.sync_until(&since, |answer| {
            seen.extend(events_of(&answer["to_device"]));
            !seen.is_empty()
        });
        let expected = |number: u8| json!({ "type": "org.example.note", "sender": from.id(), "content": { "secret": number } });
        assert_eq!(seen, [expected(1)]);
        // To all devices.
        let path = format!("v3/sendToDevice/org.example.note/{}", from.transaction());
        from.put(&path, json!({ "messages": { to.id(): { "*": { "secret": 2 } } } })).done();
        let seen = second.sync_until(&since_second, |answer| !events_of(&answer["to_device"]).is_empty());
        assert_eq!(events_of(&seen["to_device"]), [expected(2)]);
    }
}

pub fn keys_are_queried_and_claimed(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    let upload = json!({
        "device_keys": device_keys(&bob, KEY),
        "one_time_keys": {
            "signed_curve25519:AAAA": { "key": "a2V5", "signatures": { bob.id(): { format!("ed25519:{}", bob.device()): "c2ln" } } },
        },
        "fallback_keys": {
            "signed_curve25519:BBBB": { "key": "a2V6", "fallback": true, "signatures": { bob.id(): { format!("ed25519:{}", bob.device()): "c2ln" } } },
        },
    });
    bob.post("v3/keys/upload", upload).done();
    let master = publish_master_key(&bob);
    shared_room(&alice, &bob);
    let found = alice.post("v3/keys/query", json!({ "device_keys": { bob.id(): [] } })).ok();
    let device = &found["device_keys"][bob.id()][bob.device()];
    assert_eq!(device["keys"][format!("ed25519:{}", bob.device())], KEY, "{found}");
    assert_eq!(found["master_keys"][bob.id()]["keys"], master["keys"], "{found}");
    // The one-time key once, and then the one to fall back to.
    for key in ["signed_curve25519:AAAA", "signed_curve25519:BBBB", "signed_curve25519:BBBB"] {
        let wanted = json!({ "one_time_keys": { bob.id(): { bob.device(): "signed_curve25519" } } });
        let claimed = alice.post("v3/keys/claim", wanted).ok();
        assert!(claimed["one_time_keys"][bob.id()][bob.device()][key].is_object(), "{claimed}");
    }
}

pub fn new_devices_are_told_of(pair: &Pair<'_>) {
    let (alice, bob) = pair.couple();
    for who in [&alice, &bob] {
        who.post("v3/keys/upload", json!({ "device_keys": device_keys(who, KEY) })).done();
    }
    shared_room(&alice, &bob);
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        let query = || to.post("v3/keys/query", json!({ "device_keys": { from.id(): [] } })).ok();
        assert!(query()["device_keys"][from.id()][from.device()].is_object());
        let changed = |answer: &Value| {
            answer["device_lists"]["changed"].to_string().contains(&format!("\"{}\"", from.id()))
        };
        let since = to.now();
        let second = from.log_in_again();
        second.post("v3/keys/upload", json!({ "device_keys": device_keys(&second, KEY) })).done();
        to.sync_until(&since, changed);
        until("the new device is found", || query()["device_keys"][from.id()][second.device()].is_object());
        let since = to.now();
        second.post("v3/logout", json!({})).done();
        to.sync_until(&since, changed);
        until("the device is gone", || query()["device_keys"][from.id()][second.device()].is_null());
        // Cross-signing keys that come later.
        let since = to.now();
        let master = publish_master_key(from);
        to.sync_until(&since, changed);
        until("the master key is found", || query()["master_keys"][from.id()]["keys"] == master["keys"]);
    }
}
